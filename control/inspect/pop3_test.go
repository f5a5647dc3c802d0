package inspect

import (
	"strings"
	"testing"
)

func newPOP3(t testing.TB, fallback string, rules ...UserRule) *POP3 {
	t.Helper()
	p, err := NewPOP3(UserConfig{Rules: rules, Default: fallback})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPOP3Dialogue(t *testing.T) {
	p := newPOP3(t, "", UserRule{"ann", to("a")}, UserRule{"*@b.example", to("b")})
	for _, row := range []struct{ name, said, told, outcome, left string }{
		{"greeting", "", pop3Greeting, "need more", ""},
		{"user", "USER ann\r\nPASS x\r\n", pop3Greeting, "a", "USER ann\r\nPASS x\r\n"},
		{"case of the command", "user ann\r\n", pop3Greeting, "a", "user ann\r\n"},
		{"capabilities first", "CAPA\r\nUSER ann\r\n", pop3Greeting + pop3Capa, "a", "USER ann\r\n"},
		{"password first", "PASS x\r\nUSER ann\r\n", pop3Greeting + pop3NoUser, "a", "USER ann\r\n"},
		{"other ways to log in", "STLS\r\nAPOP a b\r\nAUTH LOGIN\r\n", pop3Greeting + pop3NoAuth + pop3NoAuth + pop3NoAuth, "need more", ""},
		{"plain at once", "AUTH PLAIN AGFubgB4\r\n", pop3Greeting, "a", "AUTH PLAIN AGFubgB4\r\n"},
		{"plain", "auth plain\r\nAGFubgB4\r\nSTAT\r\n", pop3Greeting + pop3Go, "a", "AGFubgB4\r\nSTAT\r\n"},
		{"plain for another", "AUTH PLAIN eEBiLmV4YW1wbGUAYW5uAHg=\r\n", pop3Greeting, "b", "AUTH PLAIN eEBiLmV4YW1wbGUAYW5uAHg=\r\n"},
		{"mechanisms", "AUTH\r\n", pop3Greeting + pop3Sasl, "need more", ""},
		{"cancelled", "AUTH PLAIN\r\n*\r\nUSER ann\r\n", pop3Greeting + pop3Go + pop3Cancelled, "a", "USER ann\r\n"},
		{"not base64", "AUTH PLAIN ann\r\n", pop3Greeting + pop3NotPlain, "need more", ""},
		{"no password", "AUTH PLAIN AGFubgA=\r\n", pop3Greeting + pop3NotPlain, "need more", ""},
		{"user without a name", "USER\r\nUSER \r\n", pop3Greeting + pop3Unknown + pop3Unknown, "need more", ""},
		{"quit", "CAPA\r\nQUIT\r\n", pop3Greeting + pop3Capa + pop3Bye, "end", ""},
		{"nobody", "USER eve\r\n", pop3Greeting + pop3Refusals[NoMatch], "no_match", ""},
		{"no CR", "CAPA\n", pop3Greeting + pop3Refusals[Malformed], "malformed", ""},
		{"not finished", "CAPA\r", pop3Greeting, "need more", "CAPA\r"},
		{"another protocol", strings.Repeat("x", pop3Line), pop3Greeting + pop3Refusals[TooLarge], "too_large", ""},
		{"too long", strings.Repeat("x", pop3Line-1) + "\r\n", pop3Greeting + pop3Refusals[TooLarge], "too_large", ""},
		{"longest", "X" + strings.Repeat("x", pop3Line-3) + "\r\n", pop3Greeting + pop3Unknown, "need more", ""},
	} {
		checkTalk(t, row.name, p, row.said, row.told, row.outcome, row.left)
	}
}

func TestPOP3StaysWithItsDecision(t *testing.T) {
	s := newPOP3(t, "rest").Session(window)
	s.Inspect(nil)
	first := s.Inspect([]byte("USER ann\r\n"))
	if again := s.Inspect([]byte("USER ann\r\nQUIT\r\n")); first.Job != "rest" || outcome(again) != "rest" {
		t.Errorf("%+v, then %+v", first, again)
	}
}

func TestPOP3EndsWithoutAUser(t *testing.T) {
	_, d, _ := talk(newPOP3(t, "rest").Session(window), strings.Repeat("NOOP\r\n", dialogueCommands+1), 1000)
	if outcome(d) != "malformed" {
		t.Errorf("after %d commands: %s", dialogueCommands+1, outcome(d))
	}
}

func TestPOP3RefusesEveryCause(t *testing.T) {
	s := newPOP3(t, "rest").Session(window)
	for c := Malformed; c <= Version; c++ {
		if text := string(s.Refusal(c)); !strings.HasPrefix(text, "-ERR ") || !strings.HasSuffix(text, "\r\n") {
			t.Errorf("%v: %q", c, text)
		}
	}
}

// FuzzPOP3 checks that the same octets give the same dialogue however they are split.
func FuzzPOP3(f *testing.F) {
	p := newPOP3(f, "", UserRule{"ann", to("a")}, UserRule{"*@b.example", to("b")})
	fuzzTalk(f, p, "USER ann\r\n", "CAPA\r\nPASS x\r\nQUIT\r\n", "\r\n\n", "USER a@b.example\r\nPASS\r\n",
		"AUTH PLAIN\r\nAGFubgB4\r\n", "AUTH PLAIN AGFubgB4\r\nSTAT\r\n")
}
