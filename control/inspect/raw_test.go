package inspect

import (
	"errors"
	"strings"
	"testing"
)

func TestFirstOctetsDecide(t *testing.T) {
	app, err := NewRaw(RawConfig{Octets: 20, Rules: []RawRule{{Prefix: "SSH-2.0-", Job: "ssh"}, {Prefix: "\x00\x01", Job: "binary"},
		{Pattern: `(?i)^helo .*\.b\.example\r\n$`, Job: "b"}, {Prefix: "SSH", Job: "old"}, {Pattern: "^x{20}$", Job: "long"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ said, want string }{
		{"SSH-2.0-OpenSSH\r\n", "ssh"}, {"SSH-2.0-", "ssh"}, {"SSH-2", "need more"}, {"SSH-1.0\r\n", "old"},
		{"\x00\x01\x02", "binary"}, {"HELO x.b.example\r\nMAIL", "b"}, {"HELO x.b.exam", "need more"}, {"HELO a.example\r\n", "no_match"},
		{strings.Repeat("x", 30), "long"}, {strings.Repeat("y", 30), "no_match"}, {"", "need more"},
	} {
		for piece := 1; piece <= 40; piece += 3 {
			if _, d, _ := talk(app.Session(1000), row.said, piece); outcome(d) != row.want {
				t.Errorf("%q, %d octets at a time: %s, want %s", row.said, piece, outcome(d), row.want)
			}
		}
	}
}

func TestRawDefaultNeedsNoMoreThanOneOctetWithoutRules(t *testing.T) {
	app, err := NewRaw(RawConfig{Default: "all", Octets: 1})
	if err != nil {
		t.Fatal(err)
	}
	if d := app.Session(1000).Inspect([]byte{0}); outcome(d) != "all" {
		t.Error(outcome(d))
	}
}

func TestRawRefusesAsConfigured(t *testing.T) {
	for _, refusal := range []string{"", "busy\r\n"} {
		app, err := NewRaw(RawConfig{Octets: 1, Refusal: refusal})
		if err != nil {
			t.Fatal(err)
		}
		s := app.Session(1000)
		if d := s.Inspect([]byte("x")); outcome(d) != "no_match" || string(d.Reply) != refusal {
			t.Errorf("%s, %q, want %q", outcome(d), d.Reply, refusal)
		}
		for c := Malformed; c <= Version; c++ {
			if got := string(s.Refusal(c)); got != refusal {
				t.Errorf("%v: %q, want %q", c, got, refusal)
			}
		}
	}
}

func TestBadRawRules(t *testing.T) {
	for _, row := range []struct {
		rule RawRule
		want error
	}{{RawRule{Pattern: "(", Job: "j"}, ErrPattern}, {RawRule{Prefix: "a", Pattern: "b", Job: "j"}, ErrPattern}, {RawRule{}, ErrJob}} {
		if _, err := NewRaw(RawConfig{Rules: []RawRule{row.rule}}); !errors.Is(err, row.want) {
			t.Errorf("%+v: %v", row.rule, err)
		}
	}
}

func FuzzRaw(f *testing.F) {
	f.Add("SSH-2.0-x\r\n", 3)
	app, err := NewRaw(RawConfig{Octets: 16, Default: "rest", Rules: []RawRule{{Prefix: "SSH-", Job: "a"}, {Pattern: "x.y", Job: "b"}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, said string, piece int) {
		piece = 1 + max(piece, 0)%20
		_, whole, _ := talk(app.Session(1000), said, len(said)+1)
		if _, split, _ := talk(app.Session(1000), said, piece); outcome(whole) != outcome(split) {
			t.Errorf("%q: %s; %d at a time: %s", said, outcome(whole), piece, outcome(split))
		}
	})
}
