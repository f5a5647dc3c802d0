package inspect

import (
	"bytes"
	"strings"
)

// IMAP routes IMAP connections (RFC 9051, RFC 3501) by the user: it greets, answers what comes before LOGIN or
// AUTHENTICATE PLAIN, and hands over with that in hand, which the target answers. Of a command with literals that the
// client announces, the target reads what came after the last "+".
type IMAP struct{ users }

// NewIMAP compiles the rules. It returns the error of the first one that Check refuses.
func NewIMAP(c UserConfig) (*IMAP, error) {
	u, err := newUsers(c)
	return &IMAP{u}, err
}

// Session implements Application.
func (p *IMAP) Session(window int) Session {
	return &dialogue{talker: &imapSession{imap: p, limit: min(window, imapCommand)}, greeting: imapGreeting,
		asking: asking{most: p.attempts}}
}

// SpeaksFirst implements Application.
func (p *IMAP) SpeaksFirst() bool { return true }

// imapCommand is the length of the longest command, with its literals, octets.
const imapCommand = 4096

// What the session says. The server's part of a command begins with its tag.
const (
	imapCapabilities = "IMAP4rev1 SASL-IR ID AUTH=PLAIN"
	imapGreeting     = "* OK [CAPABILITY " + imapCapabilities + "] ready\r\n"
	imapCapability   = "* CAPABILITY " + imapCapabilities + "\r\n"
	imapID           = "* ID NIL\r\n"
	imapBye          = "* BYE logging out\r\n"
	imapGo           = "+ go on\r\n"
	imapGoPlain      = "+ \r\n"
	imapNoTag        = "* BAD a command begins with a tag\r\n"
	imapDone         = " OK completed\r\n"
	imapUnknown      = " BAD not a command before LOGIN\r\n"
	imapArguments    = " BAD malformed arguments\r\n"
	imapMechanism    = " NO [CANNOT] use PLAIN\r\n"
	imapNoTLS        = " BAD no encryption here\r\n"
	imapCancelled    = " BAD cancelled\r\n"
	imapNotPlain     = " BAD not a message of PLAIN\r\n"
	imapWrong        = " NO [AUTHENTICATIONFAILED] wrong user or password\r\n"
	imapFailed       = " NO [UNAVAILABLE] passwords cannot be checked now\r\n"
	imapTooOften     = "* BYE too many attempts\r\n"
)

// imapRefusals are response codes (RFC 5530) and texts.
var imapRefusals = []string{
	Malformed:   "malformed command",
	NoMatch:     "[AUTHENTICATIONFAILED] no mailboxes of this user here",
	Timeout:     "no user within the time",
	TooLarge:    "command too long",
	Unavailable: "[UNAVAILABLE] no server can take the connection now",
}

// imapSession is IMAP's not authenticated state (RFC 9051 §3.1).
type imapSession struct {
	imap    *IMAP
	limit   int    // of a command, octets
	begun   []byte // of the command that goes on
	parts   []Turn // the same as it came
	literal int    // so many octets of it come before its next line
	tag     string // of the command that is not answered yet
	inAuth  bool   // the next line is the message of PLAIN
}

// command cuts a command off, or the part up to a literal that has to be asked for.
func (s *imapSession) command(data []byte) (int, Cause) {
	for end := s.literal; ; {
		if len(s.begun)+end >= s.limit {
			return 0, TooLarge
		}
		if len(data) < end {
			return 0, 0
		}
		n, cause := line(data[end:], s.limit-len(s.begun)-end)
		if n == 0 {
			return 0, cause
		}
		end += n
		size, asks := literalAtEnd(data[:end])
		if size < 0 || asks || s.inAuth {
			return end, 0
		}
		end += size
	}
}

// literalAtEnd returns the octets of the literal that a line announces (RFC 9051 §4.3), -1 if it does not, and whether
// the client waits to be asked for it. A size that no command has room for stands for all such.
func literalAtEnd(line []byte) (size int, asks bool) {
	text, ok := bytes.CutSuffix(line, []byte("}\r\n"))
	open := bytes.LastIndexByte(text, '{')
	if !ok || open < 0 {
		return -1, false
	}
	digits, unasked := bytes.CutSuffix(text[open+1:], []byte{'+'})
	n, ok := number(digits)
	if !ok {
		return -1, false
	}
	return int(min(n, imapCommand)), !unasked
}

func (s *imapSession) hear(part []byte) Decision {
	d := s.part(part)
	switch {
	case d.Verdict == Route:
		d.Dialogue = append([]Turn{{Last: "* OK"}}, s.parts...)
	case s.begun != nil || s.inAuth: // and not answered yet
		s.parts = append(s.parts, Turn{Say: bytes.Clone(part), Last: "+"})
	case d.Verdict == NeedMore:
		s.tag, s.parts = "", nil
	}
	return d
}

// part takes what command has cut off.
func (s *imapSession) part(part []byte) Decision {
	if s.inAuth {
		s.inAuth = false
		return s.plain(string(part[:len(part)-2]))
	}
	s.begun = append(s.begun, part...)
	if size, asks := literalAtEnd(part); asks {
		if s.literal = size; len(s.begun)+size >= s.limit {
			return refuse(s, TooLarge, "literal too large")
		}
		return say(imapGo)
	}
	command := string(s.begun[:len(s.begun)-2])
	s.begun, s.literal = nil, 0
	return s.whole(command)
}

// whole takes a command without its end.
func (s *imapSession) whole(command string) Decision {
	tag, rest, _ := strings.Cut(command, " ")
	if !isTag(tag) {
		return say(imapNoTag)
	}
	s.tag = tag
	verb, arguments, _ := strings.Cut(rest, " ")
	switch strings.ToUpper(verb) {
	case "CAPABILITY":
		return say(imapCapability + tag + imapDone)
	case "NOOP":
		return say(tag + imapDone)
	case "ID":
		return say(imapID + tag + imapDone)
	case "LOGOUT":
		return Decision{Verdict: End, Reply: []byte(imapBye + tag + imapDone)}
	case "LOGIN":
		return s.login(arguments)
	case "AUTHENTICATE":
		return s.authenticate(arguments)
	case "STARTTLS":
		return say(tag + imapNoTLS)
	}
	return say(tag + imapUnknown)
}

// isTag reports whether s is a tag, of which no more than 64 octets are taken.
func isTag(s string) bool {
	return s != "" && len(s) <= 64 && !strings.ContainsFunc(s, func(r rune) bool { return r == '+' || !isAtomChar(r) })
}

// isAtomChar reports whether a character may be in an atom of an argument: ASTRING-CHAR (RFC 9051 §9).
func isAtomChar(r rune) bool {
	return r > ' ' && r < 0x7f && !strings.ContainsRune(`(){%*"\`, r)
}

// login takes user and password.
func (s *imapSession) login(arguments string) Decision {
	user, rest, ok := cutString(arguments)
	rest, ok2 := strings.CutPrefix(rest, " ")
	password, rest, ok3 := cutString(rest)
	if !ok || !ok2 || !ok3 || rest != "" || user == "" || password == "" && s.imap.asks() {
		return say(s.tag + imapArguments)
	}
	return s.imap.decide(s, user, Secret(password))
}

// cutString cuts an astring off (RFC 9051 §9): an atom, a quoted string or a literal.
func cutString(s string) (value, rest string, ok bool) {
	switch {
	case strings.HasPrefix(s, `"`):
		return cutQuoted(s[1:])
	case strings.HasPrefix(s, "{"):
		head, body, ok := strings.Cut(s, "\r\n")
		size, _ := literalAtEnd([]byte(head + "\r\n"))
		if !ok || size < 0 || size > len(body) {
			return "", "", false
		}
		return body[:size], body[size:], true
	}
	n := strings.IndexFunc(s, func(r rune) bool { return !isAtomChar(r) })
	if n < 0 {
		n = len(s)
	}
	return s[:n], s[n:], n > 0
}

// cutQuoted cuts a quoted string off, whose first quote is gone.
func cutQuoted(s string) (value, rest string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], true
		case '\r', '\n', 0:
			return "", "", false
		case '\\':
			if i++; i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

// authenticate takes a mechanism, which its message may follow (RFC 4959).
func (s *imapSession) authenticate(arguments string) Decision {
	mechanism, message, given := strings.Cut(arguments, " ")
	switch {
	case !strings.EqualFold(mechanism, "PLAIN"):
		return say(s.tag + imapMechanism)
	case !given:
		s.inAuth = true
		return say(imapGoPlain)
	}
	return s.plain(message)
}

func (s *imapSession) plain(message string) Decision {
	if message == "*" {
		return say(s.tag + imapCancelled)
	}
	user, password, ok := s.imap.plain(message)
	if !ok {
		return say(s.tag + imapNotPlain)
	}
	return s.imap.decide(s, user, password)
}

func (s *imapSession) deny(o Outcome, last bool) []byte {
	text := s.tag + imapFailed
	if o == Wrong {
		text = s.tag + imapWrong
	}
	if last {
		text = imapTooOften + text
	}
	s.tag, s.parts = "", nil
	return []byte(text)
}

// Refusal implements Session: BYE (RFC 9051 §7.1.5), and the answer that the last command waits for.
func (s *imapSession) Refusal(c Cause) []byte {
	text := textFor(imapRefusals, c) + "\r\n"
	if s.tag == "" {
		return []byte("* BYE " + text)
	}
	return []byte("* BYE " + text + s.tag + " NO " + text)
}
