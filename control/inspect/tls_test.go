package inspect

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
)

// hello is a ClientHello as Go's own client makes it.
func hello(t testing.TB, c *tls.Config) []byte {
	t.Helper()
	client, server := net.Pipe()
	go func() {
		c.InsecureSkipVerify = true
		_ = tls.Client(client, c).Handshake()
		client.Close()
	}()
	header := make([]byte, tlsRecordHeader)
	if _, err := io.ReadFull(server, header); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, int(header[3])<<8|int(header[4]))
	if _, err := io.ReadFull(server, body); err != nil {
		t.Fatal(err)
	}
	server.Close()
	return append(header, body...)
}

// fragment spreads the message of one record over records of n octets.
func fragment(record []byte, n int) (all []byte) {
	for part := range slices.Chunk(record[tlsRecordHeader:], n) {
		all = append(all, record[0], record[1], record[2], byte(len(part)>>8), byte(len(part)))
		all = append(all, part...)
	}
	return all
}

func newTLS(t testing.TB, fallback string, rules ...TLSRule) *TLS {
	t.Helper()
	app, err := NewTLS(TLSConfig{Rules: rules, Default: fallback})
	if err != nil {
		t.Fatal(err)
	}
	return app
}

func TestClientHelloDecides(t *testing.T) {
	app := newTLS(t, "rest", TLSRule{SNI: "a.example", Choice: to("a")}, TLSRule{SNI: "*.b.example", ALPN: "h2", Choice: to("b-h2")},
		TLSRule{SNI: "*.b.example", Choice: to("b")}, TLSRule{Version: "1.2", Choice: to("old")})
	for _, row := range []struct {
		name   string
		config *tls.Config
		want   string
	}{
		{"name", &tls.Config{ServerName: "a.example"}, "a"},
		{"case", &tls.Config{ServerName: "A.Example"}, "a"},
		{"name below", &tls.Config{ServerName: "x.y.b.example"}, "b"},
		{"not the domain itself", &tls.Config{ServerName: "b.example"}, "rest"},
		{"ALPN", &tls.Config{ServerName: "x.b.example", NextProtos: []string{"http/1.1", "h2"}}, "b-h2"},
		{"other ALPN", &tls.Config{ServerName: "x.b.example", NextProtos: []string{"http/1.1"}}, "b"},
		{"version", &tls.Config{ServerName: "c.example", MaxVersion: tls.VersionTLS12}, "old"},
		{"nothing matches", &tls.Config{ServerName: "c.example"}, "rest"},
		{"no name", &tls.Config{}, "rest"},
	} {
		whole := hello(t, row.config)
		for _, size := range []int{1, 7, 100, 10_000} {
			data := fragment(whole, size)
			s := app.Session(1 << 15)
			for n := range data {
				if d := s.Inspect(data[:n]); d.Verdict != NeedMore {
					t.Fatalf("%s: %s after %d of %d octets", row.name, outcome(d), n, len(data))
				}
			}
			if d := s.Inspect(data); outcome(d) != row.want {
				t.Errorf("%s in records of %d: %s, want %s", row.name, size, outcome(d), row.want)
			}
		}
	}
}

func TestWhatIsNoClientHelloIsRefused(t *testing.T) {
	good := hello(t, &tls.Config{ServerName: "a.example"})
	change := func(at int, to byte) []byte {
		b := bytes.Clone(good)
		b[at] = to
		return b
	}
	for name, data := range map[string][]byte{
		"HTTP": []byte("GET / HTTP/1.1\r\n"), "SSL 2": {0x80, 0x2e, 1}, "alert": change(0, tlsAlert), "version": change(1, 2),
		"empty record": {tlsHandshake, 3, 1, 0, 0}, "large record": {tlsHandshake, 3, 1, 0x40, 1},
		"ServerHello": change(5, 2), "session too long": change(5+4+2+32, 255),
	} {
		if d := newTLS(t, "rest").Session(window).Inspect(data); outcome(d) != "malformed" || d.Reply[6] != 50 {
			t.Errorf("%s: %s", name, outcome(d))
		}
	}
	if d := newTLS(t, "").Session(window).Inspect(good); outcome(d) != "no_match" || d.Reply[6] != 112 {
		t.Errorf("no rule: %s", outcome(d))
	}
	if d := newTLS(t, "rest").Session(100).Inspect(good[:120]); outcome(d) != "too_large" {
		t.Errorf("longer than the window: %s", outcome(d))
	}
}

// TestRefusalIsAnAlert lets Go's client read it.
func TestRefusalIsAnAlert(t *testing.T) {
	for cause, want := range map[Cause]tls.AlertError{NoMatch: 112, Unavailable: 80, Version: 80} {
		client, server := net.Pipe()
		go func() {
			defer server.Close()
			_, _ = server.Read(make([]byte, 4096))
			_, _ = server.Write((&tlsSession{}).Refusal(cause))
		}()
		err := tls.Client(client, &tls.Config{InsecureSkipVerify: true}).Handshake()
		var op *net.OpError
		if !errors.As(err, &op) || op.Err.Error() != want.Error() {
			t.Errorf("%v: %v, want %v", cause, err, want)
		}
	}
}

func TestBadTLSRules(t *testing.T) {
	for _, row := range []struct {
		rule TLSRule
		want error
	}{
		{TLSRule{SNI: "a b", Choice: to("j")}, ErrHost}, {TLSRule{ALPN: string(make([]byte, 256)), Choice: to("j")}, ErrALPN},
		{TLSRule{Version: "1.4", Choice: to("j")}, ErrVersion}, {TLSRule{}, ErrJob},
	} {
		if _, err := NewTLS(TLSConfig{Rules: []TLSRule{row.rule}}); !errors.Is(err, row.want) {
			t.Errorf("%+v: %v", row.rule, err)
		}
	}
}

func FuzzTLS(f *testing.F) {
	f.Add(hello(f, &tls.Config{ServerName: "a.example", NextProtos: []string{"h2"}}), 9)
	app := newTLS(f, "rest", TLSRule{SNI: "a.example", Choice: to("a")})
	f.Fuzz(func(t *testing.T, data []byte, cut int) {
		whole := outcome(app.Session(window).Inspect(data))
		s := app.Session(window)
		cut = min(max(cut, 0), len(data))
		first := s.Inspect(data[:cut])
		if then := s.Inspect(data); outcome(then) != whole && first.Verdict == NeedMore {
			t.Errorf("%s, cut at %d %s", whole, cut, outcome(then))
		}
	})
}
