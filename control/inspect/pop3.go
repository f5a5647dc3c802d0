package inspect

import (
	"bytes"
	"strings"
)

// POP3 routes POP3 connections (RFC 1939) by the user: it greets, answers what comes before USER or AUTH PLAIN, and hands
// over with that in hand, which the target answers. So it never sees the password of USER, unless it is to ask for that: then
// it answers USER too, and hands over with PASS in hand. The target's own greeting must not reach the client; of what was
// answered before, only that USER and AUTH without its message have changed the session.
type POP3 struct{ users }

// NewPOP3 compiles the rules. It returns the error of the first one that Check refuses.
func NewPOP3(c UserConfig) (*POP3, error) {
	u, err := newUsers(c)
	return &POP3{u}, err
}

// Session implements Application.
func (p *POP3) Session(int) Session {
	return &dialogue{talker: &pop3Session{pop3: p}, greeting: pop3Greeting, asking: asking{most: p.attempts}}
}

// SpeaksFirst implements Application.
func (p *POP3) SpeaksFirst() bool { return true }

// pop3Line is the length of the longest command, with its end, octets (RFC 2449 §4).
const pop3Line = 255

// What the session says. Response codes are those of RFC 2449 and RFC 3206.
const (
	pop3Greeting  = "+OK POP3 ready\r\n"
	pop3Capa      = "+OK capabilities follow\r\nUSER\r\nSASL PLAIN\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\n.\r\n"
	pop3Sasl      = "+OK mechanisms follow\r\nPLAIN\r\n.\r\n"
	pop3Go        = "+ \r\n"
	pop3Named     = "+OK\r\n"
	pop3Bye       = "+OK bye\r\n"
	pop3NoUser    = "-ERR say USER first\r\n"
	pop3NoAuth    = "-ERR not supported here, use USER or AUTH PLAIN\r\n"
	pop3Cancelled = "-ERR authentication cancelled\r\n"
	pop3NotPlain  = "-ERR not a message of PLAIN\r\n"
	pop3Unknown   = "-ERR unknown command\r\n"
	pop3Wrong     = "-ERR [AUTH] wrong user or password\r\n"
	pop3Failed    = "-ERR [SYS/TEMP] passwords cannot be checked now\r\n"
)

var pop3Refusals = []string{
	Malformed:   "-ERR malformed command\r\n",
	NoMatch:     "-ERR [AUTH] no mailboxes of this user here\r\n",
	Timeout:     "-ERR no user within the time\r\n",
	TooLarge:    "-ERR command too long\r\n",
	Unavailable: "-ERR [SYS/TEMP] no server can take the connection now\r\n",
}

// pop3Session is POP3's AUTHORIZATION state up to USER (RFC 1939 §4) or AUTH (RFC 5034).
type pop3Session struct {
	pop3  *POP3
	begun []Turn // AUTH PLAIN, if the next line is its message
	name  string // of USER, where passwords are asked for
	named []Turn // that USER
}

func (s *pop3Session) command(data []byte) (int, Cause) { return line(data, pop3Line) }

func (s *pop3Session) hear(command []byte) Decision {
	text := string(command[:len(command)-2])
	if len(s.begun) > 0 {
		d := s.plain(text)
		s.begun = nil
		return d
	}
	verb, arg, _ := strings.Cut(text, " ")
	switch strings.ToUpper(verb) {
	case "CAPA":
		return say(pop3Capa)
	case "USER":
		if arg != "" {
			return s.user(command, arg)
		}
	case "PASS":
		return s.pass(arg)
	case "AUTH":
		return s.auth(command, arg)
	case "APOP", "STLS":
		return say(pop3NoAuth)
	case "QUIT":
		return Decision{Verdict: End, Reply: []byte(pop3Bye)}
	}
	return say(pop3Unknown)
}

// user takes a name, which is all that is needed if the target asks for the password.
func (s *pop3Session) user(command []byte, name string) Decision {
	if !s.pop3.asks() {
		return s.decide(name, "")
	}
	s.name, s.named = name, []Turn{{Say: bytes.Clone(command), Last: "+OK"}}
	return say(pop3Named)
}

func (s *pop3Session) pass(password string) Decision {
	switch {
	case s.name == "":
		return say(pop3NoUser)
	case password == "":
		return say(pop3Unknown)
	}
	return s.decide(s.name, Secret(password), s.named...)
}

// auth takes a mechanism, which its message may follow (RFC 5034 §4).
func (s *pop3Session) auth(command []byte, arg string) Decision {
	mechanism, message, given := strings.Cut(arg, " ")
	switch {
	case arg == "":
		return say(pop3Sasl)
	case !strings.EqualFold(mechanism, "PLAIN"):
		return say(pop3NoAuth)
	case !given:
		s.begun = []Turn{{Say: bytes.Clone(command), Last: "+"}}
		return say(pop3Go)
	}
	return s.plain(message)
}

func (s *pop3Session) plain(message string) Decision {
	if message == "*" {
		return say(pop3Cancelled)
	}
	user, password, ok := s.pop3.plain(message)
	if !ok {
		return say(pop3NotPlain)
	}
	return s.decide(user, password, s.begun...)
}

// decide routes a user after some turns.
func (s *pop3Session) decide(user string, password Secret, turns ...Turn) Decision {
	d := s.pop3.decide(s, user, password)
	if d.Verdict == Route {
		d.Dialogue = append([]Turn{{Last: "+OK"}}, turns...)
	}
	return d
}

func (s *pop3Session) deny(o Outcome, _ bool) []byte {
	s.name, s.named = "", nil
	if o == Wrong {
		return []byte(pop3Wrong)
	}
	return []byte(pop3Failed)
}

// Refusal implements Session.
func (s *pop3Session) Refusal(c Cause) []byte { return []byte(textFor(pop3Refusals, c)) }
