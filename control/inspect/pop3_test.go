package inspect

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func newPOP3(t testing.TB, fallback string, rules ...UserRule) *POP3 {
	t.Helper()
	p, err := NewPOP3(POP3Config{Rules: rules, Default: fallback})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// talk lets a session read a client's octets, in pieces of so many, as the router would. It returns what the client was
// told, the last decision, and what is left for who serves.
func talk(s Session, said string, piece int) (told string, last Decision, left string) {
	var data []byte
	for at := 0; ; at += piece {
		for {
			last = s.Inspect(data)
			told += string(last.Reply)
			switch last.Verdict {
			case Route:
				return told, last, string(data) + said[min(at, len(said)):]
			case Refuse, End:
				return told, last, ""
			case NeedMore:
			}
			data = data[last.Consumed:]
			if last.Consumed == 0 || len(data) == 0 {
				break
			}
		}
		if at >= len(said) {
			return told, last, string(data)
		}
		data = append(data, said[at:min(at+piece, len(said))]...)
	}
}

func TestPOP3Dialogue(t *testing.T) {
	p := newPOP3(t, "", UserRule{"ann", "a"}, UserRule{"*@b.example", "b"})
	for _, row := range []struct{ name, said, told, outcome, left string }{
		{"greeting", "", pop3Greeting, "need more", ""},
		{"user", "USER ann\r\nPASS x\r\n", pop3Greeting, "a", "USER ann\r\nPASS x\r\n"},
		{"case of the command", "user ann\r\n", pop3Greeting, "a", "user ann\r\n"},
		{"capabilities first", "CAPA\r\nUSER ann\r\n", pop3Greeting + pop3Capa, "a", "USER ann\r\n"},
		{"password first", "PASS x\r\nUSER ann\r\n", pop3Greeting + pop3NoUser, "a", "USER ann\r\n"},
		{"other ways to log in", "STLS\r\nAPOP a b\r\n", pop3Greeting + pop3NoAuth + pop3NoAuth, "need more", ""},
		{"user without a name", "USER\r\nUSER \r\n", pop3Greeting + pop3Unknown + pop3Unknown, "need more", ""},
		{"quit", "CAPA\r\nQUIT\r\n", pop3Greeting + pop3Capa + pop3Bye, "end", ""},
		{"nobody", "USER eve\r\n", pop3Greeting + pop3Refusals[NoMatch], "no_match", ""},
		{"no CR", "CAPA\n", pop3Greeting + pop3Refusals[Malformed], "malformed", ""},
		{"not finished", "CAPA\r", pop3Greeting, "need more", "CAPA\r"},
		{"another protocol", strings.Repeat("x", pop3Line), pop3Greeting + pop3Refusals[TooLarge], "too_large", ""},
		{"too long", strings.Repeat("x", pop3Line-1) + "\r\n", pop3Greeting + pop3Refusals[TooLarge], "too_large", ""},
		{"longest", "X" + strings.Repeat("x", pop3Line-3) + "\r\n", pop3Greeting + pop3Unknown, "need more", ""},
	} {
		for piece := 1; piece <= 300; piece += 7 {
			told, d, left := talk(p.Session(window), row.said, piece)
			if told != row.told || outcome(d) != row.outcome || left != row.left {
				t.Errorf("%s, %d octets at a time: told %q, %s, left %q", row.name, piece, told, outcome(d), left)
				break
			}
		}
	}
}

// Whatever came before USER, a server that knows nothing of it only has to greet.
func TestPOP3PlaysTheGreetingOnly(t *testing.T) {
	_, d, _ := talk(newPOP3(t, "rest").Session(window), "CAPA\r\nPASS x\r\nUSER ann\r\n", 100)
	if want := []Turn{{Last: "+OK"}}; d.Verdict != Route || !reflect.DeepEqual(d.Dialogue, want) {
		t.Errorf("%s with dialogue %+v, want %+v", outcome(d), d.Dialogue, want)
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
	_, d, _ := talk(newPOP3(t, "rest").Session(window), strings.Repeat("NOOP\r\n", pop3Commands+1), 1000)
	if outcome(d) != "malformed" {
		t.Errorf("after %d commands: %s", pop3Commands+1, outcome(d))
	}
}

func TestFirstMatchingUserRuleDecides(t *testing.T) {
	p := newPOP3(t, "rest", UserRule{"root", "admin"}, UserRule{"*@a.example", "a"}, UserRule{"eve@a.example", "never"},
		UserRule{"eve@B.example", "eve"}, UserRule{"*@b.EXAMPLE", "b"}, UserRule{"root", "never"})
	for user, job := range map[string]string{
		"root": "admin", "Root": "rest", "eve@a.example": "a", "ann@A.EXAMPLE": "a", "eve@b.example": "eve",
		"Eve@b.example": "b", "x@y@b.example": "b", "@b.example": "b", "a.example": "rest", "x@sub.a.example": "rest",
	} {
		if got, _ := p.job(user); got != job {
			t.Errorf("%s: %s, want %s", user, got, job)
		}
	}
}

func TestBadUserRules(t *testing.T) {
	for _, r := range []struct {
		rule UserRule
		want error
	}{
		{UserRule{"", "j"}, ErrUser}, {UserRule{"*@", "j"}, ErrUser}, {UserRule{"a b", "j"}, ErrUser},
		{UserRule{"*", "j"}, ErrUser}, {UserRule{"a*", "j"}, ErrUser}, {UserRule{"a\r", "j"}, ErrUser}, {UserRule{"a", ""}, ErrJob},
	} {
		if _, err := NewPOP3(POP3Config{Rules: []UserRule{r.rule}}); !errors.Is(err, r.want) {
			t.Errorf("%q: %v, want %v", r.rule, err, r.want)
		}
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
	for _, seed := range []string{"USER ann\r\n", "CAPA\r\nPASS x\r\nQUIT\r\n", "\r\n\n", "USER a@b.example\r\nPASS\r\n"} {
		f.Add(seed, 1)
	}
	p := newPOP3(f, "", UserRule{"ann", "a"}, UserRule{"*@b.example", "b"})
	f.Fuzz(func(t *testing.T, said string, piece int) {
		piece = 1 + max(piece, 0)%300
		told, whole, left := talk(p.Session(window), said, len(said)+1)
		told2, split, left2 := talk(p.Session(window), said, piece)
		if told != told2 || outcome(whole) != outcome(split) || left != left2 {
			t.Errorf("%q: told %q, %s; %d octets at a time: told %q, %s", said, told, outcome(whole), piece, told2, outcome(split))
		}
	})
}
