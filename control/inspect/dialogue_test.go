package inspect

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// talk lets a session read a client's octets, in pieces of so many, as the router would. It returns what the client was
// told, the last decision, and what is left for who serves.
func talk(s Session, said string, piece int) (told string, last Decision, left string) {
	told, last, left, _ = asked(s, said, piece)
	return told, last, left
}

// asked is the same of a session that has passwords checked: what it asks is answered by outcomes in turn.
func asked(s Session, said string, piece int, outcomes ...Outcome) (told string, last Decision, left string, logins []Login) {
	var data []byte
	for at := 0; ; at += piece {
		for {
			last = s.Inspect(data)
			told += string(last.Reply)
			rest := string(data) + said[min(at, len(said)):]
			switch last.Verdict {
			case Route:
				return told, last, rest, logins
			case Refuse, End:
				return told, last, "", logins
			case Ask:
				logins = append(logins, *last.Login)
				if len(outcomes) == 0 {
					return told, last, rest, logins
				}
				s.(Asker).Answer(outcomes[0])
				outcomes = outcomes[1:]
				continue
			case NeedMore:
			}
			data = data[last.Consumed:]
			if last.Consumed == 0 || len(data) == 0 {
				break
			}
		}
		if at >= len(said) {
			return told, last, string(data), logins
		}
		data = append(data, said[at:min(at+piece, len(said))]...)
	}
}

// checkTalk lets a protocol read a client's octets, in pieces of several sizes.
func checkTalk(t *testing.T, name string, app Application, said, told, result, left string) {
	t.Helper()
	for piece := 1; piece <= 300; piece += 7 {
		gotTold, d, gotLeft := talk(app.Session(window), said, piece)
		if gotTold != told || outcome(d) != result || gotLeft != left {
			t.Errorf("%s, %d octets at a time: told %q, %s, left %q", name, piece, gotTold, outcome(d), gotLeft)
			return
		}
	}
}

// A server that knows nothing of a session has to hear what leads to what it reads, and nothing else.
func TestDialoguesToBePlayed(t *testing.T) {
	pop3 := newPOP3(t, "rest")
	imap := newIMAP(t, "rest")
	smtp := newSMTP(t, SMTPConfig{Auth: true, Default: "rest"})
	picky := newSMTP(t, SMTPConfig{Auth: true, Rules: []SMTPRule{{Recipient: "z", Choice: to("z")}}})
	for _, row := range []struct {
		app    Application
		said   string
		played string
	}{
		{pop3, "CAPA\r\nPASS x\r\nUSER ann\r\n", "+OK"},
		{pop3, "AUTH PLAIN\r\n*\r\nAUTH plain\r\nAGFubgB4\r\n", "+OK|AUTH plain\r\n:+"},
		{pop3, "AUTH PLAIN\r\n*\r\nAUTH PLAIN AGFubgB4\r\n", "+OK"},
		{imap, "a CAPABILITY\r\nb LOGIN ann x\r\n", "* OK"},
		{imap, "a LOGIN {3}\r\nann {1}\r\nx\r\n", "* OK|a LOGIN {3}\r\n:+|ann {1}\r\n:+"},
		{imap, "a AUTHENTICATE PLAIN\r\n*\r\nb X {1}\r\n1\r\nc AUTHENTICATE PLAIN\r\nAGFubgB4\r\n",
			"* OK|c AUTHENTICATE PLAIN\r\n:+"},
		{smtp, "HELO a\r\nEHLO b\r\nMAIL FROM:<x>\r\nNOOP\r\nRCPT TO:<y>\r\n",
			"220-220 |EHLO b\r\n:250-250 |MAIL FROM:<x>\r\n:250-250 "},
		{smtp, "MAIL FROM:<x>\r\nRSET\r\nMAIL FROM:<y>\r\nRCPT TO:<z>\r\n", "220-220 |MAIL FROM:<y>\r\n:250-250 "},
		{picky, "MAIL FROM:<x>\r\nRCPT TO:<a@b>\r\nRCPT TO:<z>\r\n", "220-220 |MAIL FROM:<x>\r\n:250-250 "},
		{picky, "AUTH LOGIN\r\nYW5u\r\nMAIL FROM:<x>\r\nRCPT TO:<z>\r\n", "220-220 |MAIL FROM:<x>\r\n:250-250 "},
		{smtp, "EHLO a\r\nAUTH PLAIN\r\n*\r\nAUTH LOGIN\r\nYW5u\r\n", "220-220 |EHLO a\r\n:250-250 |AUTH LOGIN\r\n:334-334 "},
	} {
		_, d, _ := talk(row.app.Session(window), row.said, 1000)
		if got := played(d); got != row.played {
			t.Errorf("%q: %q, want %q", row.said, got, row.played)
		}
	}
}

// played is a dialogue in words.
func played(d Decision) string {
	var played []string
	for _, turn := range d.Dialogue {
		said := string(turn.Say)
		if said != "" {
			said += ":"
		}
		played = append(played, said+turn.More+turn.Last)
	}
	return strings.Join(played, "|")
}

// fuzzTalk checks that the same octets give the same dialogue however they are split.
func fuzzTalk(f *testing.F, app Application, seeds ...string) {
	for _, seed := range seeds {
		f.Add(seed, 1)
	}
	f.Fuzz(func(t *testing.T, said string, piece int) {
		piece = 1 + max(piece, 0)%300
		told, whole, left := talk(app.Session(window), said, len(said)+1)
		told2, split, left2 := talk(app.Session(window), said, piece)
		if told != told2 || outcome(whole) != outcome(split) || left != left2 {
			t.Errorf("%q: told %q, %s; %d octets at a time: told %q, %s", said, told, outcome(whole), piece, told2, outcome(split))
		}
		if !reflect.DeepEqual(whole.Dialogue, split.Dialogue) {
			t.Errorf("%q: dialogue %q; %d octets at a time: %q", said, whole.Dialogue, piece, split.Dialogue)
		}
	})
}

// askingApps are applications that have passwords checked, at most twice.
func askingApps(t testing.TB) map[string]Application {
	t.Helper()
	config := UserConfig{Rules: []UserRule{{"ann", to("a")}}, Attempts: 2}
	pop3, err := NewPOP3(config)
	if err != nil {
		t.Fatal(err)
	}
	imap, err := NewIMAP(config)
	if err != nil {
		t.Fatal(err)
	}
	smtp := newSMTP(t, SMTPConfig{Auth: true, Attempts: 2, Rules: []SMTPRule{{User: "ann", Choice: to("a")}}})
	return map[string]Application{"pop3": pop3, "imap": imap, "smtp": smtp}
}

// Messages of PLAIN: ann with the password x, eve with the same, eve's password for ann.
const (
	plainAnn    = "AGFubgB4"
	plainEve    = "AGV2ZQB4"
	plainEveAnn = "YW5uAGV2ZQB4"
)

func TestPasswordsAreAskedFor(t *testing.T) {
	apps := askingApps(t)
	smtpHello := apps["smtp"].(*SMTP).greeting
	for _, row := range []struct {
		name, app, said        string
		outcomes               []Outcome
		told, outcome          string
		left, played, attempts string
	}{
		{"user and password", "pop3", "USER ann\r\nPASS x y\r\nSTAT\r\n", []Outcome{Right},
			pop3Greeting + pop3Named, "a", "PASS x y\r\nSTAT\r\n", "+OK|USER ann\r\n:+OK", "ann:x y"},
		{"plain", "pop3", "AUTH PLAIN\r\n" + plainAnn + "\r\n", []Outcome{Right},
			pop3Greeting + pop3Go, "a", plainAnn + "\r\n", "+OK|AUTH PLAIN\r\n:+", "ann:x"},
		{"not answered yet", "pop3", "AUTH PLAIN " + plainAnn + "\r\n", nil,
			pop3Greeting, "ask", "AUTH PLAIN " + plainAnn + "\r\n", "", "ann:x"},
		{"no password", "pop3", "USER ann\r\nPASS\r\nPASS \r\n", nil,
			pop3Greeting + pop3Named + pop3Unknown + pop3Unknown, "need more", "", "", ""},
		{"for another", "pop3", "AUTH PLAIN " + plainEveAnn + "\r\n", nil, pop3Greeting + pop3NotPlain, "need more", "", "", ""},
		{"wrong, then right", "pop3", "USER ann\r\nPASS x\r\nPASS y\r\nUSER ann\r\nPASS y\r\n", []Outcome{Wrong, Right},
			pop3Greeting + pop3Named + pop3Wrong + pop3NoUser + pop3Named, "a", "PASS y\r\n", "+OK|USER ann\r\n:+OK", "ann:x ann:y"},
		{"later, then right", "pop3", "USER ann\r\nPASS x\r\nAUTH PLAIN " + plainAnn + "\r\n", []Outcome{Failed, Right},
			pop3Greeting + pop3Named + pop3Failed, "a", "AUTH PLAIN " + plainAnn + "\r\n", "+OK", "ann:x ann:x"},
		{"wrong too often", "pop3", "USER ann\r\nPASS x\r\nUSER ann\r\nPASS x\r\nQUIT\r\n", []Outcome{Wrong, Wrong},
			pop3Greeting + pop3Named + pop3Wrong + pop3Named + pop3Wrong, "denied", "", "", "ann:x ann:x"},
		{"right, but nobody's", "pop3", "AUTH PLAIN " + plainEve + "\r\n", []Outcome{Right},
			pop3Greeting + pop3Refusals[NoMatch], "no_match", "", "", "eve:x"},
		{"nobody's", "pop3", "AUTH PLAIN " + plainEve + "\r\n", []Outcome{Wrong},
			pop3Greeting + pop3Wrong, "need more", "", "", "eve:x"},

		{"login", "imap", "a LOGIN ann {1}\r\nx\r\nb SELECT INBOX\r\n", []Outcome{Right},
			imapGreeting + imapGo, "a", "x\r\nb SELECT INBOX\r\n", "* OK|a LOGIN ann {1}\r\n:+", "ann:x"},
		{"plain", "imap", "a AUTHENTICATE PLAIN\r\n" + plainAnn + "\r\n", []Outcome{Right},
			imapGreeting + imapGoPlain, "a", plainAnn + "\r\n", "* OK|a AUTHENTICATE PLAIN\r\n:+", "ann:x"},
		{"no password", "imap", "a LOGIN ann \"\"\r\n", nil, imapGreeting + "a" + imapArguments, "need more", "", "", ""},
		{"wrong, then right", "imap", "a LOGIN ann {1}\r\nx\r\nb NOOP\r\nc LOGIN ann y\r\n", []Outcome{Wrong, Right},
			imapGreeting + imapGo + "a" + imapWrong + "b" + imapDone, "a", "c LOGIN ann y\r\n", "* OK", "ann:x ann:y"},
		{"later too often", "imap", "a LOGIN ann x\r\nb LOGIN ann x\r\n", []Outcome{Failed, Failed},
			imapGreeting + "a" + imapFailed + imapTooOften + "b" + imapFailed, "unavailable", "", "", "ann:x ann:x"},
		{"nobody's", "imap", "a LOGIN eve x\r\n", []Outcome{Right}, imapGreeting + "* BYE " + imapRefusals[NoMatch] + "\r\na NO " +
			imapRefusals[NoMatch] + "\r\n", "no_match", "", "", "eve:x"},

		{"plain", "smtp", "AUTH PLAIN " + plainAnn + "\r\n", []Outcome{Right}, smtpHello, "a",
			"AUTH PLAIN " + plainAnn + "\r\n", "220-220 ", "ann:x"},
		{"login", "smtp", "AUTH LOGIN\r\nYW5u\r\neA==\r\n", []Outcome{Right}, smtpHello + smtpUsername + smtpAskPass, "a",
			"eA==\r\n", "220-220 |AUTH LOGIN\r\n:334-334 |YW5u\r\n:334-334 ", "ann:x"},
		{"login with the name", "smtp", "AUTH LOGIN YW5u\r\neA==\r\n", []Outcome{Right}, smtpHello + smtpAskPass, "a",
			"eA==\r\n", "220-220 |AUTH LOGIN YW5u\r\n:334-334 ", "ann:x"},
		{"cancelled", "smtp", "AUTH LOGIN YW5u\r\n*\r\nAUTH LOGIN YW5u\r\neA==\r\n", []Outcome{Right},
			smtpHello + smtpAskPass + smtpCancelled + smtpAskPass, "a",
			"eA==\r\n", "220-220 |AUTH LOGIN YW5u\r\n:334-334 ", "ann:x"},
		{"wrong too often", "smtp", "AUTH LOGIN YW5u\r\neA==\r\nAUTH PLAIN " + plainAnn + "\r\n", []Outcome{Wrong, Wrong},
			smtpHello + smtpAskPass + smtpWrong + smtpWrong + smtpTooOften, "denied", "", "", "ann:x ann:x"},
		{"nobody's, then another's", "smtp", "AUTH PLAIN " + plainEve + "\r\nAUTH PLAIN " + plainAnn + "\r\n", []Outcome{Right, Right},
			smtpHello + smtpNoUser, "a", "AUTH PLAIN " + plainAnn + "\r\n", "220-220 ", "eve:x ann:x"},
		{"later", "smtp", "AUTH PLAIN " + plainAnn + "\r\n", []Outcome{Failed}, smtpHello + smtpFailed, "need more", "", "", "ann:x"},
	} {
		for _, piece := range []int{1, 5, 1000} {
			told, d, left, logins := asked(apps[row.app].Session(window), row.said, piece, row.outcomes...)
			if told != row.told || outcome(d) != row.outcome || left != row.left || played(d) != row.played {
				t.Errorf("%s, %s, %d octets at a time: told %q, %s, left %q, played %q", row.app, row.name, piece, told,
					outcome(d), left, played(d))
			}
			var attempts []string
			for i, l := range logins {
				attempts = append(attempts, l.User+":"+string(l.Password))
				if l.Attempt != i+1 {
					t.Errorf("%s, %s: attempt %d is number %d", row.app, row.name, i+1, l.Attempt)
				}
			}
			if got := strings.Join(attempts, " "); got != row.attempts {
				t.Errorf("%s, %s: logins %q, want %q", row.app, row.name, got, row.attempts)
			}
		}
	}
}

// Until the answer is there, more octets of the client change nothing; without a question an answer means nothing.
func TestQuestionStays(t *testing.T) {
	s := askingApps(t)["pop3"].Session(window).(Asker)
	s.Answer(Right)
	s.Inspect(nil)
	command := "AUTH PLAIN " + plainAnn + "\r\n"
	for _, more := range []string{"", "QUIT\r\n", strings.Repeat("x", 300)} {
		if d := s.Inspect([]byte(command + more)); d.Verdict != Ask || d.Login.Attempt != 1 || d.Consumed != 0 || d.Reply != nil {
			t.Errorf("with %q: %+v", more, d)
		}
	}
	s.Answer(Right)
	s.Answer(Wrong)
	if d := s.Inspect([]byte(command + "QUIT\r\n")); outcome(d) != "a" {
		t.Errorf("%+v, want the job", d)
	}
}

func TestSecretsAreNotShown(t *testing.T) {
	l := Login{User: "ann", Password: "hush"}
	encoded, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "login", l, "password", l.Password)
	for _, text := range []string{fmt.Sprintf("%v %+v %#v", l, l, l), fmt.Sprintf("%s %q %x", l.Password, l.Password, l.Password),
		string(encoded), log.String()} {
		if strings.Contains(text, "hush") || strings.Contains(text, "68757368") || !strings.Contains(text, "secret") {
			t.Errorf("%s", text)
		}
	}
}

// FuzzPasswords checks that the same octets bring the same questions and dialogue however they are split.
func FuzzPasswords(f *testing.F) {
	apps := askingApps(f)
	for _, app := range []string{"pop3", "imap", "smtp"} {
		f.Add(app, "USER ann\r\nPASS x\r\nUSER ann\r\nPASS x\r\n", 1, uint8(1))
		f.Add(app, "a LOGIN {3}\r\nann {1}\r\nx\r\nb AUTHENTICATE PLAIN\r\n"+plainAnn+"\r\n", 1, uint8(9))
		f.Add(app, "AUTH LOGIN YW5u\r\neA==\r\nAUTH PLAIN "+plainAnn+"\r\nAUTH PLAIN\r\n"+plainEve+"\r\n", 2, uint8(6))
	}
	f.Fuzz(func(t *testing.T, name, said string, piece int, answers uint8) {
		app := apps[name]
		if app == nil {
			return
		}
		outcomes := []Outcome{Outcome(answers % 3), Outcome(answers / 3 % 3), Outcome(answers / 9 % 3)}
		piece = 1 + max(piece, 0)%300
		told, whole, left, logins := asked(app.Session(window), said, len(said)+1, outcomes...)
		told2, split, left2, logins2 := asked(app.Session(window), said, piece, outcomes...)
		if told != told2 || outcome(whole) != outcome(split) || left != left2 || !reflect.DeepEqual(logins, logins2) {
			t.Errorf("%q: told %q, %s; %d octets at a time: told %q, %s", said, told, outcome(whole), piece, told2, outcome(split))
		}
		if len(logins) > 2 || outcome(whole) == "a" && logins != nil && !slices.Contains(outcomes[:len(logins)], Right) {
			t.Errorf("%q: %s after %d logins with %v", said, outcome(whole), len(logins), outcomes)
		}
	})
}
