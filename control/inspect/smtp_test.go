package inspect

import (
	"errors"
	"strings"
	"testing"
)

func newSMTP(t testing.TB, c SMTPConfig) *SMTP {
	t.Helper()
	p, err := NewSMTP(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var smtpExample = SMTPConfig{Name: "mx.example", Extensions: []string{"8BITMIME"}, Auth: true, Rules: []SMTPRule{
	{Recipient: "ann@a.example", Choice: to("a")}, {Recipient: "*@b.example", Choice: to("b")}, {User: "ann", Choice: to("submit")},
	{Recipient: "postmaster", Choice: to("a")},
}}

func TestSMTPDialogue(t *testing.T) {
	p := newSMTP(t, smtpExample)
	const greeting, helo = "220 mx.example ESMTP\r\n", "250 mx.example\r\n"
	const ehlo = "250-mx.example\r\n250-PIPELINING\r\n250-AUTH PLAIN LOGIN\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n"
	const mail = "MAIL FROM:<x@y.example>\r\n"
	for _, row := range []struct{ name, said, told, outcome, left string }{
		{"greeting", "", "", "need more", ""},
		{"recipient", "EHLO c\r\n" + mail + "RCPT TO:<ann@a.example>\r\nDATA\r\n", ehlo + smtpSender, "a",
			"RCPT TO:<ann@a.example>\r\nDATA\r\n"},
		{"domain", "helo c\r\nmail from:<>\r\nrcpt to: <x@B.example> NOTIFY=NEVER\r\n", helo + smtpSender, "b",
			"rcpt to: <x@B.example> NOTIFY=NEVER\r\n"},
		{"source route", mail + "RCPT TO:<@r.example,@s.example:x@b.example>\r\n", smtpSender, "b",
			"RCPT TO:<@r.example,@s.example:x@b.example>\r\n"},
		{"quoted", mail + `RCPT TO:<"a>\"b c"@b.example>` + "\r\n", smtpSender, "b", `RCPT TO:<"a>\"b c"@b.example>` + "\r\n"},
		{"no domain", mail + "RCPT TO:<postmaster>\r\n", smtpSender, "a", "RCPT TO:<postmaster>\r\n"},
		{"nobody", mail + "RCPT TO:<eve@a.example>\r\nDATA\r\n", smtpSender + smtpNobody + smtpNoRcpt, "need more", ""},
		{"nobody, then ann", mail + "RCPT TO:<eve@a.example>\r\nRCPT TO:<ann@a.example>\r\nDATA\r\n", smtpSender + smtpNobody, "a",
			"RCPT TO:<ann@a.example>\r\nDATA\r\n"},
		{"a user is no recipient", mail + "RCPT TO:<ann>\r\n", smtpSender + smtpNobody, "need more", ""},
		{"no such user", "AUTH PLAIN AGV2ZQB4\r\nAUTH LOGIN\r\nZXZl\r\nNOOP\r\n", smtpNoUser + smtpUsername + smtpNoUser + smtpOK,
			"need more", ""},
		{"recipient first", "RCPT TO:<ann@a.example>\r\nDATA\r\n", smtpNoMail + smtpNoMail, "need more", ""},
		{"sender again", mail + mail, smtpSender + smtpMail, "need more", ""},
		{"reset", mail + "RSET\r\n" + mail, smtpSender + smtpOK + smtpSender, "need more", ""},
		{"hello resets", mail + "HELO c\r\n" + mail, smtpSender + helo + smtpSender, "need more", ""},
		{"syntax", "EHLO\r\nMAIL\r\nMAIL FROM:x\r\nMAIL FROM:<x\r\nMAIL FROM:<x>y\r\n" + mail + "RCPT TO:<>\r\n",
			strings.Repeat(smtpSyntax, 5) + smtpSender + smtpSyntax, "need more", ""},
		{"plain at once", "AUTH PLAIN AGFubgB4\r\n", "", "submit", "AUTH PLAIN AGFubgB4\r\n"},
		{"plain", "AUTH PLAIN\r\nAGFubgB4\r\n", smtpGoPlain, "submit", "AGFubgB4\r\n"},
		{"login", "AUTH LOGIN\r\nYW5u\r\neA==\r\n", smtpUsername, "submit", "YW5u\r\neA==\r\n"},
		{"login at once", "AUTH LOGIN YW5u\r\n", "", "submit", "AUTH LOGIN YW5u\r\n"},
		{"cancelled", "AUTH LOGIN\r\n*\r\nNOOP\r\n", smtpUsername + smtpCancelled + smtpOK, "need more", ""},
		{"not base64", "AUTH LOGIN\r\n!\r\nAUTH PLAIN =\r\n", smtpUsername + smtpNotPlain + smtpNotPlain, "need more", ""},
		{"another mechanism", "AUTH CRAM-MD5\r\n", smtpMechanism, "need more", ""},
		{"no encryption", "STARTTLS\r\n", smtpNoTLS, "need more", ""},
		{"other commands", "VRFY x\r\nHELP\r\nnoop\r\n", smtpVerify + smtpUnknown + smtpOK, "need more", ""},
		{"quit", "EHLO c\r\nQUIT\r\n", ehlo + smtpBye, "end", ""},
		{"no CR", "EHLO c\n", smtpRefusals[Malformed], "malformed", ""},
		{"no end", strings.Repeat("x", window), smtpRefusals[TooLarge], "too_large", ""},
		{"endless", strings.Repeat("NOOP\r\n", dialogueCommands+1), strings.Repeat(smtpOK, dialogueCommands) + smtpRefusals[Malformed],
			"malformed", ""},
	} {
		checkTalk(t, row.name, p, row.said, greeting+row.told, row.outcome, row.left)
	}
}

func TestSMTPWithoutAuth(t *testing.T) {
	told, d, _ := talk(newSMTP(t, SMTPConfig{Default: "rest"}).Session(window), "EHLO c\r\nAUTH PLAIN AGFubgB4\r\n", 1000)
	want := "220 localhost ESMTP\r\n250-localhost\r\n250-PIPELINING\r\n250 ENHANCEDSTATUSCODES\r\n" + smtpNoAuth
	if told != want || d.Verdict != NeedMore {
		t.Errorf("told %q, %s", told, outcome(d))
	}
}

// Rules keep their numbers whichever of them can match.
func TestSMTPNamesTheRule(t *testing.T) {
	for said, rule := range map[string]int{"AUTH PLAIN AGFubgB4\r\n": 3, "MAIL FROM:<>\r\nRCPT TO:<postmaster>\r\n": 4} {
		if _, d, _ := talk(newSMTP(t, smtpExample).Session(window), said, 1000); d.Rule != rule {
			t.Errorf("%q: rule %d, want %d", said, d.Rule, rule)
		}
	}
}

func TestBadSMTP(t *testing.T) {
	for _, row := range []struct {
		config SMTPConfig
		want   error
	}{
		{SMTPConfig{Name: "a b"}, ErrName}, {SMTPConfig{Extensions: []string{"X\r\n"}}, ErrExtension},
		{SMTPConfig{Extensions: []string{"starttls"}}, ErrExtension},
		{SMTPConfig{Rules: []SMTPRule{{Recipient: "*", Choice: to("a")}}}, ErrRecipient},
		{SMTPConfig{Rules: []SMTPRule{{Recipient: "a", User: "b", Choice: to("a")}}}, ErrUser},
		{SMTPConfig{Rules: []SMTPRule{{User: "*@", Choice: to("a")}}}, ErrUser}, {SMTPConfig{Rules: []SMTPRule{{}}}, ErrJob},
	} {
		if _, err := NewSMTP(row.config); !errors.Is(err, row.want) {
			t.Errorf("%+v: %v, want %v", row.config, err, row.want)
		}
	}
}

func TestSMTPRefusesEveryCause(t *testing.T) {
	s := newSMTP(t, SMTPConfig{Default: "rest"}).Session(window)
	for c := Malformed; c <= Version; c++ {
		lines := strings.SplitAfter(string(s.Refusal(c)), "\r\n")
		if n := len(lines) - 1; n < 1 || lines[n] != "" || !strings.HasPrefix(lines[n-1], "421 4.") {
			t.Errorf("%v: %q", c, lines)
		}
	}
}

// FuzzSMTP checks that the same octets give the same dialogue however they are split.
func FuzzSMTP(f *testing.F) {
	fuzzTalk(f, newSMTP(f, smtpExample), "EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<ann@a.example>\r\nDATA\r\n",
		"MAIL FROM:<@a:\"\\>\"@b>\r\nRCPT TO:<x>\r\n", "AUTH LOGIN\r\nYW5u\r\neA==\r\n", "AUTH PLAIN\r\n*\r\nQUIT\r\n")
}
