package target

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"baton/control/transfer"
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

const request = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"

func mustImport(t testing.TB, im *Importer, r *transfer.Record, listener netip.AddrPort) Imported {
	t.Helper()
	done, err := im.Import(ended(t), r, listener)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// accept is a connection from the listener, which must be there already.
func accept(t testing.TB, l net.Listener) net.Conn {
	t.Helper()
	l.(*net.TCPListener).SetDeadline(time.Now().Add(time.Second))
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(answerTimeout))
	return c
}

// The connection that an unmodified application accepts is the client's: addresses, all data, numbers, options.
func TestImportContinuesTheConnection(t *testing.T) {
	noScaling := func(r *transfer.Record) {
		r.Handshake.Scaling, r.Handshake.SndScale, r.Handshake.RcvScale = false, 0, 0
		r.SndWnd = 60000
	}
	tests := []struct {
		name            string
		client, service netip.AddrPort
		network, listen string
		listener        string
		change          func(*transfer.Record)
		data            string
	}{
		{name: "ipv4", client: client4, service: service4, network: "tcp4", listen: "10.77.0.10:80", data: request},
		{name: "ipv4 wildcard", client: client4, service: service4, network: "tcp4", listen: ":80", data: request},
		{name: "ipv4 dual-stack wildcard", client: client4, service: service4, network: "tcp", listen: ":80", data: request},
		{name: "ipv6", client: client6, service: service6, network: "tcp6", listen: "[fd77::10]:80", data: request},
		{name: "ipv6 wildcard", client: client6, service: service6, network: "tcp", listen: ":80", data: request},
		{name: "listener elsewhere", client: client4, service: service4, network: "tcp4", listen: "127.0.0.1:8080",
			listener: "127.0.0.1:8080", data: request},
		{name: "no data", client: client4, service: service4, network: "tcp4", listen: ":80"},
		{name: "32 KB", client: client4, service: service4, network: "tcp4", listen: ":80",
			data: strings.Repeat("0123456789abcdef", 2048)},
		{name: "no timestamps", client: client4, service: service4, network: "tcp4", listen: ":80", data: request,
			change: func(r *transfer.Record) { r.Handshake.Timestamps = false }},
		{name: "no SACK", client: client4, service: service4, network: "tcp4", listen: ":80", data: request,
			change: func(r *transfer.Record) { r.Handshake.SACK = false }},
		{name: "no window scaling", client: client4, service: service4, network: "tcp4", listen: ":80", data: request,
			change: noScaling},
		{name: "smallest MSS", client: client4, service: service4, network: "tcp4", listen: ":80", data: request,
			change: func(r *transfer.Record) { r.Handshake.MSS = MinMSS4 }},
		{name: "after consumed and answered bytes", client: client4, service: service4, network: "tcp4", listen: ":80",
			data: request, change: func(r *transfer.Record) {
				r.ReadFrom, r.SndNxt = r.ReadFrom.Add(1000), r.SndNxt.Add(70000)
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			ln := l.listen(t, tt.network, tt.listen, false)
			im := l.importer(t)
			change := []func(*transfer.Record){}
			if tt.change != nil {
				change = append(change, tt.change)
			}
			r := record(tt.client, tt.service, tt.data, change...)
			listener := tt.service
			if tt.listener != "" {
				listener = netip.MustParseAddrPort(tt.listener)
			}
			done := mustImport(t, im, r, listener)
			if done.State != Established || done.RcvNxt != r.RcvNxt {
				t.Errorf("imported %v rcv_nxt %d, want ESTABLISHED %d", done.State, done.RcvNxt, r.RcvNxt)
			}
			checkConversation(t, l, accept(t, ln), r)
		})
	}
}

// checkConversation has both ends say something and looks at what the client sees.
func checkConversation(t *testing.T, l *lab, c net.Conn, r *transfer.Record) {
	t.Helper()
	if got := c.LocalAddr().(*net.TCPAddr).AddrPort(); unmap(got) != r.Inc.Service {
		t.Errorf("local address %v, want %v", got, r.Inc.Service)
	}
	if got := c.RemoteAddr().(*net.TCPAddr).AddrPort(); unmap(got) != r.Inc.Client {
		t.Errorf("remote address %v, want %v", got, r.Inc.Client)
	}
	got := make([]byte, len(r.Data))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, r.Data) {
		t.Fatalf("application read %d octets (%v), equal: %v", len(got), err, bytes.Equal(got, r.Data))
	}
	peer := newClient(l, r)
	reply := strings.Repeat("reply", 1000)
	io.WriteString(c, reply)
	peer.receive(t, len(reply))
	if string(peer.got) != reply {
		t.Errorf("client got %d octets, want %d of the reply", len(peer.got), len(reply))
	}
	checkFirstSegment(t, peer.first, r)
	peer.send(t, wire.ACK|wire.PSH, "more")
	more := make([]byte, 4)
	if _, err := io.ReadFull(c, more); err != nil || string(more) != "more" {
		t.Errorf("application read %q (%v), want more", more, err)
	}
}

// checkFirstSegment checks that nothing goes back when the target takes over.
func checkFirstSegment(t *testing.T, s wire.Segment, r *transfer.Record) {
	t.Helper()
	if s.Seq != r.SndNxt || s.Ack != r.RcvNxt {
		t.Errorf("first segment seq %d ack %d, want %d %d", s.Seq, s.Ack, r.SndNxt, r.RcvNxt)
	}
	edge := s.Ack.Add(int(s.Window) << r.Handshake.RcvScale)
	if edge.Before(r.RcvEdge) {
		t.Errorf("right edge went back by %d", r.RcvEdge.Sub(edge))
	}
	if s.Options.HasTimestamps != r.Handshake.Timestamps {
		t.Errorf("timestamps %v, want %v", s.Options.HasTimestamps, r.Handshake.Timestamps)
	}
	if r.Handshake.Timestamps && seq.Value(s.Options.TSVal).Before(seq.Value(r.TSLast)) {
		t.Errorf("TSval went back from %d to %d", r.TSLast, s.Options.TSVal)
	}
	if r.Handshake.Timestamps && s.Options.TSEcr != r.TSRecent {
		t.Errorf("TSecr %d, want %d", s.Options.TSEcr, r.TSRecent)
	}
}

func unmap(ap netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()) }

// A FIN in the record is a FIN on the wire: the application reads the end of the stream, and can still answer.
func TestImportedFINIsReadAsEndOfStream(t *testing.T) {
	for _, data := range []string{"", request} {
		l := newLab(t)
		ln := l.listen(t, "tcp4", ":80", false)
		r := record(client4, service4, data, func(r *transfer.Record) { r.FIN = true })
		done := mustImport(t, l.importer(t), r, service4)
		if done.State != CloseWait || done.RcvNxt != r.RcvNxt {
			t.Errorf("imported %v rcv_nxt %d, want CLOSE-WAIT %d", done.State, done.RcvNxt, r.RcvNxt)
		}
		c := accept(t, ln)
		if got, err := io.ReadAll(c); err != nil || string(got) != data {
			t.Errorf("application read %q (%v), want %q and the end", got, err, data)
		}
		io.WriteString(c, "answer")
		c.Close()
		peer := newClient(l, r)
		peer.receive(t, 7)
		if string(peer.got) != "answer" || !peer.fin || peer.rst || peer.first.Ack != r.RcvNxt {
			t.Errorf("client got %q fin %v rst %v ack %d", peer.got, peer.fin, peer.rst, peer.first.Ack)
		}
	}
}

// An unmodified Python server serves it.
func TestPythonServesImportedRequest(t *testing.T) {
	l := newLab(t)
	l.start(t, "python3", "-c", `
import http.server
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *a): pass
    def do_GET(self):
        body = ("hello %s:%d" % self.client_address).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("", 80), H).serve_forever()`)
	im := l.importer(t)
	waitForListener(t, im)
	r := record(client4, service4, request)
	mustImport(t, im, r, service4)
	peer := newClient(l, r)
	peer.receive(t, 1<<20)
	if !strings.HasSuffix(string(peer.got), "hello 10.77.0.100:40000") || !peer.fin || peer.rst {
		t.Errorf("client got %q fin %v rst %v", peer.got, peer.fin, peer.rst)
	}
}

func waitForListener(t *testing.T, im *Importer) {
	t.Helper()
	for range 200 {
		if l, err := im.diag.Dump(Listen); err != nil {
			t.Fatal(err)
		} else if len(l) > 0 {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Fatal("the server does not listen")
}

// Every refusal is named, and leaves nothing behind.
func TestImportRefusals(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(*testing.T, *lab)
		change  func(*transfer.Record)
		want    error
	}{
		{name: "nobody listens", want: ErrNotListening},
		{name: "MPTCP listener", want: ErrRefused,
			prepare: func(t *testing.T, l *lab) { l.listen(t, "tcp4", ":80", true) }},
		{name: "timestamps switched off here", want: ErrRefused, prepare: func(t *testing.T, l *lab) {
			l.listen(t, "tcp4", ":80", false)
			l.sysctl(t, "net/ipv4/tcp_timestamps", "0")
		}},
		{name: "filtered", want: ErrSwallowed, prepare: func(t *testing.T, l *lab) {
			l.listen(t, "tcp4", ":80", false)
			l.run(t, "table ip f { chain i { type filter hook input priority 0; tcp dport 80 drop\n}\n}\n", "nft", "-f", "-")
		}},
		{name: "client's MSS too small", want: ErrRecord, change: func(r *transfer.Record) { r.Handshake.MSS = 500 }},
		{name: "data to the client under way", want: ErrRecord,
			change: func(r *transfer.Record) { r.SendData = []byte("x") }},
		{name: "too much data", want: ErrRecord, change: func(r *transfer.Record) { r.Data = make([]byte, 65535) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			if tt.prepare != nil {
				tt.prepare(t, l)
			}
			im := l.importer(t)
			change := tt.change
			if change == nil {
				change = func(*transfer.Record) {}
			}
			r := record(client4, service4, request, change)
			if _, err := im.Import(ended(t), r, service4); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if s, err := im.Lookup(r.Inc.Tuple); err != nil || s.State != None {
				t.Errorf("socket in %v is there (%v)", s.State, err)
			}
			if f, ok := l.next(t, 50*time.Millisecond); ok {
				t.Errorf("client got %+v", f)
			}
		})
	}
}

// With conntrack's stateful rules a taken connection is one like any other, as long as tcp_loose is on.
func TestConntrackTakesImports(t *testing.T) {
	rules := map[string]string{
		"drop invalid": "ct state invalid drop",
		"default drop": "ct state established,related accept\ntcp dport 80 ct state new accept\ndrop",
	}
	for name, rule := range rules {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			ln := l.listen(t, "tcp4", ":80", false)
			l.run(t, "table inet f {\nchain i {\ntype filter hook input priority 0\n"+rule+"\n}\n}\n", "nft", "-f", "-")
			im := l.importer(t)
			r := record(client4, service4, request)
			mustImport(t, im, r, service4)
			checkConversation(t, l, accept(t, ln), r)
			l.sysctl(t, "net/netfilter/nf_conntrack_tcp_loose", "0")
			other := record(clientPort(1), service4, request)
			if _, err := im.Import(ended(t), other, service4); !errors.Is(err, ErrSwallowed) {
				t.Errorf("without tcp_loose: error %v, want %v", err, ErrSwallowed)
			}
		})
	}
}

// The time from the record to the connection in the accept queue, confirmed.
func BenchmarkImport(b *testing.B) {
	for _, size := range []int{0, 300, 32768} {
		b.Run(strconv.Itoa(size), func(b *testing.B) { benchmarkImport(b, size) })
	}
}

func benchmarkImport(b *testing.B, size int) {
	l := newLab(b)
	ln := l.listen(b, "tcp4", ":80", false)
	im := l.importer(b)
	data := strings.Repeat("x", size)
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		done, err := im.Import(b.Context(), record(clientPort(i%20000), service4, data), service4)
		if err != nil {
			b.Fatal(err)
		}
		took = append(took, done.Took)
		b.StopTimer()
		c := accept(b, ln)
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
		b.StartTimer()
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
}
