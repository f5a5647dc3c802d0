package inspect

import (
	"reflect"
	"strings"
	"testing"
)

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
		var played []string
		for _, turn := range d.Dialogue {
			said := string(turn.Say)
			if said != "" {
				said += ":"
			}
			played = append(played, said+turn.More+turn.Last)
		}
		if got := strings.Join(played, "|"); got != row.played {
			t.Errorf("%q: %q, want %q", row.said, got, row.played)
		}
	}
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
