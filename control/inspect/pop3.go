package inspect

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// POP3Config is the configuration of POP3.
type POP3Config struct {
	Rules   []UserRule // the first that matches decides
	Default string     // job of users that no rule matches; "": they are refused
}

// UserRule sends users to a job.
type UserRule struct {
	User string // "ann" or "ann@a.example" herself; "*@a.example" everybody of a domain, whose case does not count
	Job  string
}

// ErrUser is returned for a pattern that no user could match.
var ErrUser = errors.New("bad user pattern")

// Check returns why the rule cannot be used, as ErrUser or ErrJob, or nil.
func (r UserRule) Check() error {
	name := strings.TrimPrefix(r.User, "*@")
	switch {
	case name == "" || strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c == 0x7f || c == '*' }):
		return fmt.Errorf("%w: %q: want a name as in \"ann\", or \"*@a.example\" for all of a domain", ErrUser, r.User)
	case r.Job == "":
		return ErrJob
	}
	return nil
}

// POP3 routes POP3 connections (RFC 1939) by the user: it greets, answers what comes before USER, and hands over with
// USER in hand, which the target answers. So it never sees a password. The target's own greeting must not reach the
// client; nothing of what was answered before USER has changed the session, so the greeting is the whole dialogue.
type POP3 struct {
	jobs     map[string]string // by normalised name, or "@" and domain
	order    map[string]int    // of the rules
	fallback string
}

// NewPOP3 compiles the rules. It returns the error of the first one that Check refuses.
func NewPOP3(c POP3Config) (*POP3, error) {
	p := &POP3{jobs: map[string]string{}, order: map[string]int{}, fallback: c.Default}
	for i, r := range c.Rules {
		if err := r.Check(); err != nil {
			return nil, fmt.Errorf("compile rule %d: %w", i+1, err)
		}
		key := normalUser(strings.TrimPrefix(r.User, "*"))
		if _, ok := p.jobs[key]; !ok {
			p.jobs[key], p.order[key] = r.Job, i
		}
	}
	return p, nil
}

// normalUser is a name in the form that is compared: the case of its domain does not count (RFC 5321 §2.4).
func normalUser(name string) string {
	at := strings.LastIndexByte(name, '@')
	if at < 0 {
		return name
	}
	return name[:at] + strings.ToLower(name[at:])
}

// job returns who serves a user, or "", and the number of the rule.
func (p *POP3) job(user string) (job string, rule int) {
	name := normalUser(user)
	domain := name
	if at := strings.LastIndexByte(name, '@'); at > 0 {
		domain = name[at:]
	}
	key := name
	if _, ok := p.jobs[domain]; ok && (p.jobs[name] == "" || p.order[domain] < p.order[name]) {
		key = domain
	}
	if p.jobs[key] == "" {
		return p.fallback, 0
	}
	return p.jobs[key], p.order[key] + 1
}

// Session implements Application.
func (p *POP3) Session(int) Session { return &pop3Session{pop3: p} }

// SpeaksFirst implements Application.
func (p *POP3) SpeaksFirst() bool { return true }

const (
	pop3Line     = 255 // octets of the longest command, with its end (RFC 2449 §4)
	pop3Commands = 20  // before USER; a client that says more has no intention to log in
)

// What the session says. Response codes are those of RFC 3206.
const (
	pop3Greeting = "+OK POP3 ready\r\n"
	pop3Capa     = "+OK capabilities follow\r\nUSER\r\nRESP-CODES\r\n.\r\n"
	pop3Bye      = "+OK bye\r\n"
	pop3NoUser   = "-ERR say USER first\r\n"
	pop3NoAuth   = "-ERR not supported here, use USER\r\n"
	pop3Unknown  = "-ERR unknown command\r\n"
)

// pop3Dialogue is what a server has to be played: its greeting.
var pop3Dialogue = []Turn{{Last: "+OK"}}

var pop3Refusals = [...]string{
	Malformed:   "-ERR malformed command\r\n",
	NoMatch:     "-ERR [AUTH] no mailboxes of this user here\r\n",
	Timeout:     "-ERR no user within the time\r\n",
	TooLarge:    "-ERR command too long\r\n",
	Unavailable: "-ERR [SYS/TEMP] no server can take the connection now\r\n",
}

// pop3Session is POP3's AUTHORIZATION state up to USER (RFC 1939 §4).
type pop3Session struct {
	pop3    *POP3
	greeted bool
	said    int      // commands before USER
	decided Decision // once it is more than NeedMore
}

// Inspect implements Session.
func (s *pop3Session) Inspect(data []byte) Decision {
	if s.decided.Verdict != NeedMore {
		return s.decided
	}
	var answers Decision
	if !s.greeted {
		s.greeted = true
		answers.Reply = append(answers.Reply, pop3Greeting...)
	}
	for {
		line, length, verdict := nextCommand(data[answers.Consumed:])
		switch {
		case verdict != 0:
			return s.refuse(verdict, answers)
		case length == 0:
			return answers
		}
		verb, arg, _ := strings.Cut(line, " ")
		if d, ends := s.ends(strings.ToUpper(verb), arg); ends {
			return s.end(d, answers)
		}
		answers.Consumed += length
		answers.Reply = append(answers.Reply, s.answer(strings.ToUpper(verb))...)
	}
}

// nextCommand cuts the first line off data. length is that of the line with its end, 0 if that has not come yet; cause is
// why the line is refused.
func nextCommand(data []byte) (line string, length int, cause Cause) {
	n := bytes.IndexByte(data, '\n') + 1
	switch {
	case n > pop3Line, n == 0 && len(data) >= pop3Line:
		return "", 0, TooLarge
	case n == 0:
		return "", 0, 0
	case n == 1 || data[n-2] != '\r':
		return "", 0, Malformed
	}
	return string(data[:n-2]), n, 0
}

// ends reports whether a command ends the session, and how.
func (s *pop3Session) ends(verb, arg string) (Decision, bool) {
	s.said++
	switch {
	case verb == "QUIT":
		return Decision{Verdict: End, Reply: []byte(pop3Bye)}, true
	case verb == "USER" && arg != "":
		if job, rule := s.pop3.job(arg); job != "" {
			return Decision{Verdict: Route, Job: job, Rule: rule, Dialogue: pop3Dialogue}, true
		}
		return s.refusal(NoMatch, "no rule for the user"), true
	case s.said > pop3Commands:
		return s.refusal(Malformed, "too many commands before USER"), true
	}
	return Decision{}, false
}

// answer is what a command that decides nothing gets.
func (s *pop3Session) answer(verb string) string {
	switch verb {
	case "CAPA":
		return pop3Capa
	case "PASS":
		return pop3NoUser
	case "AUTH", "APOP", "STLS":
		return pop3NoAuth
	}
	return pop3Unknown
}

func (s *pop3Session) refuse(c Cause, answers Decision) Decision {
	return s.end(s.refusal(c, "not a command of POP3"), answers)
}

func (s *pop3Session) refusal(c Cause, detail string) Decision {
	return Decision{Verdict: Refuse, Cause: c, Detail: detail, Reply: s.Refusal(c)}
}

// end ends the session. What was answered before goes first; of a decision without a reply that is another call's
// business, and the last command is read again then.
func (s *pop3Session) end(d, answers Decision) Decision {
	if d.Verdict == Route && (answers.Consumed > 0 || len(answers.Reply) > 0) {
		s.said--
		return answers
	}
	d.Reply = append(answers.Reply, d.Reply...)
	s.decided = d
	return d
}

// Refusal implements Session.
func (s *pop3Session) Refusal(c Cause) []byte {
	if int(c) >= len(pop3Refusals) || pop3Refusals[c] == "" {
		c = Unavailable
	}
	return []byte(pop3Refusals[c])
}
