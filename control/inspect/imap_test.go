package inspect

import (
	"strings"
	"testing"
)

func newIMAP(t testing.TB, fallback string, rules ...UserRule) *IMAP {
	t.Helper()
	p, err := NewIMAP(UserConfig{Rules: rules, Default: fallback})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestIMAPDialogue(t *testing.T) {
	p := newIMAP(t, "", UserRule{"ann", to("a")}, UserRule{"*@b.example", to("b")})
	none := imapRefusals[NoMatch] + "\r\n"
	for _, row := range []struct{ name, said, told, outcome, left string }{
		{"greeting", "", "", "need more", ""},
		{"atoms", "a1 LOGIN ann x\r\na2 SELECT INBOX\r\n", "", "a", "a1 LOGIN ann x\r\na2 SELECT INBOX\r\n"},
		{"case of the command", "a1 login ann x\r\n", "", "a", "a1 login ann x\r\n"},
		{"quoted", `a1 LOGIN "ann" "a \"\\ b"` + "\r\n", "", "a", `a1 LOGIN "ann" "a \"\\ b"` + "\r\n"},
		{"literals", "a1 LOGIN {3}\r\nann {4}\r\nx\r\ny\r\n", imapGo + imapGo, "a", "x\r\ny\r\n"},
		{"literals unasked", "a1 LOGIN {3+}\r\nann {1+}\r\nx\r\n", "", "a", "a1 LOGIN {3+}\r\nann {1+}\r\nx\r\n"},
		{"atom and literal", "a1 LOGIN x@B.example {1}\r\n{\r\n", imapGo, "b", "{\r\n"},
		{"empty literal", "a1 LOGIN ann {0}\r\n\r\n", imapGo, "a", "\r\n"},
		{"literal is a line short", "a1 LOGIN ann {5}\r\nx\r\n", imapGo, "need more", "x\r\n"},
		{"plain at once", "a1 AUTHENTICATE PLAIN AGFubgB4\r\n", "", "a", "a1 AUTHENTICATE PLAIN AGFubgB4\r\n"},
		{"plain", "a1 authenticate plain\r\nAGFubgB4\r\n", imapGoPlain, "a", "AGFubgB4\r\n"},
		{"plain cancelled", "a1 AUTHENTICATE PLAIN\r\n*\r\n", imapGoPlain + "a1" + imapCancelled, "need more", ""},
		{"plain is not", "a1 AUTHENTICATE PLAIN\r\n{1}\r\n", imapGoPlain + "a1" + imapNotPlain, "need more", ""},
		{"another mechanism", "a1 AUTHENTICATE GSSAPI\r\n", "a1" + imapMechanism, "need more", ""},
		{"capabilities first", "1 CAPABILITY\r\n2 NOOP\r\n3 ID NIL\r\n4 LOGIN ann x\r\n",
			imapCapability + "1" + imapDone + "2" + imapDone + imapID + "3" + imapDone, "a", "4 LOGIN ann x\r\n"},
		{"no encryption", "a STARTTLS\r\n", "a" + imapNoTLS, "need more", ""},
		{"too early", "a SELECT INBOX\r\n", "a" + imapUnknown, "need more", ""},
		{"no tag", "LOGIN\r\n*  x\r\n\"\r\n", "LOGIN" + imapUnknown + imapNoTag + imapNoTag, "need more", ""},
		{"arguments", "a LOGIN ann\r\nb LOGIN ann x y\r\nc LOGIN \"\" x\r\nd LOGIN \"ann\\x\" x\r\ne LOGIN\r\n",
			"a" + imapArguments + "b" + imapArguments + "c" + imapArguments + "d" + imapArguments + "e" + imapArguments, "need more", ""},
		{"logout", "a LOGOUT\r\n", imapBye + "a" + imapDone, "end", ""},
		{"nobody", "a LOGIN eve x\r\n", "* BYE " + none + "a NO " + none, "no_match", ""},
		{"nobody by plain", "a AUTHENTICATE PLAIN\r\nAGV2ZQB4\r\n", imapGoPlain + "* BYE " + none + "a NO " + none, "no_match", ""},
		{"no CR", "a NOOP\n", "* BYE malformed command\r\n", "malformed", ""},
		{"literal too large", "a LOGIN {500}\r\n", "* BYE command too long\r\n", "too_large", ""},
		{"literal far too large", "a LOGIN {99999999999}\r\n", "* BYE command too long\r\n", "too_large", ""},
		{"literal unasked too large", "a LOGIN {500+}\r\n", "* BYE command too long\r\n", "too_large", ""},
		{"no end", strings.Repeat("x", window), "* BYE command too long\r\n", "too_large", ""},
	} {
		checkTalk(t, row.name, p, row.said, imapGreeting+row.told, row.outcome, row.left)
	}
}

// A client whose command nobody answers any more would wait for it.
func TestIMAPRefusesTheCommandThatWaits(t *testing.T) {
	s := newIMAP(t, "rest").Session(window)
	s.Inspect(nil)
	if s.Inspect([]byte("a NOOP\r\n")); string(s.Refusal(Timeout)) != "* BYE no user within the time\r\n" {
		t.Errorf("after NOOP: %q", s.Refusal(Timeout))
	}
	s.Inspect([]byte("b LOGIN ann x\r\n"))
	if text := string(s.Refusal(Unavailable)); !strings.HasSuffix(text, "\r\nb NO [UNAVAILABLE] no server can take the connection now\r\n") {
		t.Errorf("after LOGIN: %q", text)
	}
}

func TestIMAPRefusesEveryCause(t *testing.T) {
	s := newIMAP(t, "rest").Session(window)
	for c := Malformed; c <= Version; c++ {
		if text := string(s.Refusal(c)); !strings.HasPrefix(text, "* BYE ") || !strings.HasSuffix(text, "\r\n") {
			t.Errorf("%v: %q", c, text)
		}
	}
}

// FuzzIMAP checks that the same octets give the same dialogue however they are split.
func FuzzIMAP(f *testing.F) {
	p := newIMAP(f, "", UserRule{"ann", to("a")}, UserRule{"*@b.example", to("b")})
	fuzzTalk(f, p, "a LOGIN ann x\r\n", "a LOGIN {3}\r\nann {1+}\r\nx\r\n", "a AUTHENTICATE PLAIN\r\nAGFubgB4\r\n",
		"a CAPABILITY\r\nb LOGIN \"x@b.example\" {3}\r\n{1}\r\n", "a LOGIN {499}\r\n", "a X {3}\r\n{1}\r\n")
}
