package inspect

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// SMTPConfig is the configuration of SMTP.
type SMTPConfig struct {
	Name       string     // of this server, in its greeting; "": localhost
	Extensions []string   // that EHLO names besides those that the session needs, as in "SIZE 10240000"; every target has them
	Auth       bool       // clients may log in (RFC 4954), and their user decides then
	Rules      []SMTPRule // the first that matches decides
	Default    string     // job of clients that no rule matches; "": they are refused
	Attempts   int        // as of a UserConfig, at passwords of those who log in
}

// SMTPRule sends clients to a job by whichever decides: the first recipient, or the user of a client that logs in before.
// A rule with a pattern does not match where the other one decides.
type SMTPRule struct {
	Recipient string // as the User of a UserRule: "ann@a.example", "*@a.example"
	User      string // the same of who logs in; not together with Recipient
	Choice           // by whichever decides
}

// Errors of SMTP.
var (
	ErrRecipient = errors.New("bad recipient pattern")
	ErrName      = errors.New("bad name of the server")
	ErrExtension = errors.New("bad extension")
)

// Check returns why the rule cannot be used, as ErrRecipient, ErrUser or an error of choices, or nil.
func (r SMTPRule) Check() error {
	if checkName(r.Recipient) != nil {
		return fmt.Errorf("%w: %q: want an address as in \"ann@a.example\", or \"*@a.example\" for all of a domain",
			ErrRecipient, r.Recipient)
	}
	if r.Recipient != "" && r.User != "" {
		return fmt.Errorf("%w: %q: a recipient or a user decides, never both", ErrUser, r.User)
	}
	return UserRule{r.User, r.Choice}.Check()
}

// Check returns why what the server says of itself cannot be said, as ErrName or ErrExtension, or nil.
func (c SMTPConfig) Check() error {
	if c.Name != "" && !isName(strings.ToLower(c.Name)) {
		return fmt.Errorf("%w: %q: want one as in \"mx.a.example\"", ErrName, c.Name)
	}
	for _, e := range c.Extensions {
		if e == "" || strings.ContainsFunc(e, func(r rune) bool { return r < ' ' || r > '~' }) {
			return fmt.Errorf("%w: %q: want words as in \"SIZE 10240000\"", ErrExtension, e)
		}
		if word, _, _ := strings.Cut(strings.ToUpper(e), " "); word == "AUTH" || word == "STARTTLS" || word == "CHUNKING" {
			return fmt.Errorf("%w: %q is not for the configuration to add", ErrExtension, e)
		}
	}
	return nil
}

// SMTP routes SMTP connections (RFC 5321) by their first recipient, or by the user who logs in before: it greets, answers
// what comes before RCPT or AUTH, and hands over with that in hand, which the target answers.
type SMTP struct {
	byRecipient, byUser users
	greeting, ehlo      string
	helo                string
	auth                bool
}

// NewSMTP compiles the rules. It returns the error of the first one that Check refuses.
func NewSMTP(c SMTPConfig) (*SMTP, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	for i, r := range c.Rules {
		if err := r.Check(); err != nil {
			return nil, fmt.Errorf("compile rule %d: %w", i+1, err)
		}
	}
	name := c.Name
	if name == "" {
		name = "localhost"
	}
	s := &SMTP{byRecipient: users{fallback: c.Default}, byUser: users{fallback: c.Default, attempts: c.Attempts}, auth: c.Auth,
		greeting: "220 " + name + " ESMTP\r\n", helo: "250 " + name + "\r\n", ehlo: "250-" + name + "\r\n250-PIPELINING\r\n"}
	for _, r := range c.Rules {
		s.byRecipient.rules = append(s.byRecipient.rules, r.among(r.Recipient, r.User))
		s.byUser.rules = append(s.byUser.rules, r.among(r.User, r.Recipient))
	}
	if c.Auth {
		s.ehlo += "250-AUTH PLAIN LOGIN\r\n"
	}
	for _, e := range c.Extensions {
		s.ehlo += "250-" + e + "\r\n"
	}
	s.ehlo += "250 ENHANCEDSTATUSCODES\r\n"
	return s, nil
}

// among is the rule where the one decides, and nobody's rule if it is about the other.
func (r SMTPRule) among(one, other string) UserRule {
	if other != "" {
		return UserRule{Choice: Choice{Map: map[string]string{}}}
	}
	normal, _ := UserRule{one, r.Choice}.normal() // which Check has seen
	return normal
}

// Session implements Application.
func (p *SMTP) Session(window int) Session {
	return &dialogue{talker: &smtpSession{smtp: p, limit: min(window, smtpLine)}, greeting: p.greeting,
		asking: asking{most: p.byUser.attempts}}
}

// SpeaksFirst implements Application.
func (p *SMTP) SpeaksFirst() bool { return true }

// smtpLine is the length of the longest command, with its end, octets: SMTP's 512 (RFC 5321 §4.5.3.1.4) and what
// extensions add.
const smtpLine = 2048

// What the session says, with codes of RFC 5321 §4.2.3, RFC 4954 §6 and RFC 3463.
const (
	smtpOK        = "250 2.0.0 OK\r\n"
	smtpSender    = "250 2.1.0 sender OK\r\n"
	smtpNoMail    = "503 5.5.1 say MAIL first\r\n"
	smtpNobody    = "550 5.1.1 nobody here takes this\r\n"
	smtpNoUser    = "535 5.7.8 nobody here knows this user\r\n"
	smtpNoRcpt    = "554 5.5.1 no valid recipients\r\n"
	smtpMail      = "503 5.5.1 there is a sender already\r\n"
	smtpSyntax    = "501 5.5.4 malformed arguments\r\n"
	smtpUnknown   = "500 5.5.2 unknown command\r\n"
	smtpNoTLS     = "502 5.5.1 no encryption here\r\n"
	smtpNoAuth    = "502 5.5.1 no authentication here\r\n"
	smtpMechanism = "504 5.5.4 use PLAIN or LOGIN\r\n"
	smtpCancelled = "501 5.7.0 cancelled\r\n"
	smtpNotPlain  = "501 5.5.2 not a message of the mechanism\r\n"
	smtpGoPlain   = "334 \r\n"
	smtpUsername  = "334 VXNlcm5hbWU6\r\n" // "Username:"
	smtpAskPass   = "334 UGFzc3dvcmQ6\r\n" // "Password:"
	smtpWrong     = "535 5.7.8 wrong user or password\r\n"
	smtpFailed    = "454 4.7.0 passwords cannot be checked now\r\n"
	smtpTooOften  = "421 4.7.0 too many attempts\r\n"
	smtpVerify    = "252 2.5.0 send mail and see\r\n"
	smtpBye       = "221 2.0.0 bye\r\n"
)

// smtpRefusals end with 421: a server that closes without having said it makes the client guess (RFC 5321 §3.8).
var smtpRefusals = []string{
	Malformed:   "500 5.5.2 malformed command\r\n421 4.5.0 closing\r\n",
	Timeout:     "421 4.4.2 no recipient within the time\r\n",
	TooLarge:    "500 5.5.2 line too long\r\n421 4.5.0 closing\r\n",
	Unavailable: "421 4.3.2 no server can take the connection now\r\n",
}

// smtpSession is a session of SMTP up to its first recipient.
type smtpSession struct {
	smtp    *SMTP
	limit   int          // of a line, octets
	expects smtpLineKind // next
	hello   []Turn       // EHLO or HELO
	sender  []Turn       // MAIL
	auth    []Turn       // AUTH and what follows, if the next line is its message
	name    string       // of LOGIN, if the next line is the password
}

// smtpLineKind is what a line is.
type smtpLineKind uint8

const (
	smtpCommand  smtpLineKind = iota
	smtpPlain                 // the message of PLAIN
	smtpUserName              // of LOGIN
	smtpPassword              // of LOGIN
)

func (s *smtpSession) command(data []byte) (int, Cause) { return line(data, s.limit) }

func (s *smtpSession) hear(command []byte) Decision {
	text := string(command[:len(command)-2])
	if kind := s.expects; kind != smtpCommand {
		s.expects = smtpCommand
		d := s.authMessage(kind, command, text)
		if s.expects == smtpCommand {
			s.auth = nil
		}
		return d
	}
	verb, argument, _ := strings.Cut(text, " ")
	switch strings.ToUpper(verb) {
	case "EHLO":
		return s.greet(s.smtp.ehlo, command, argument)
	case "HELO":
		return s.greet(s.smtp.helo, command, argument)
	case "MAIL":
		return s.mail(command, argument)
	case "RCPT":
		return s.recipient(argument)
	case "RSET":
		s.sender = nil
		return say(smtpOK)
	case "NOOP":
		return say(smtpOK)
	case "VRFY":
		return say(smtpVerify)
	case "AUTH":
		return s.authenticate(command, argument)
	case "STARTTLS":
		return say(smtpNoTLS)
	case "DATA", "BDAT":
		if s.sender != nil {
			return say(smtpNoRcpt)
		}
		return say(smtpNoMail)
	case "QUIT":
		return Decision{Verdict: End, Reply: []byte(smtpBye)}
	}
	return say(smtpUnknown)
}

func (s *smtpSession) greet(answer string, command []byte, name string) Decision {
	if name == "" {
		return say(smtpSyntax)
	}
	s.hello, s.sender = smtpTurn(command, "250"), nil
	return say(answer)
}

func (s *smtpSession) mail(command []byte, argument string) Decision {
	_, ok := path(argument, "FROM:")
	switch {
	case !ok:
		return say(smtpSyntax)
	case s.sender != nil:
		return say(smtpMail)
	}
	s.sender = smtpTurn(command, "250")
	return say(smtpSender)
}

func (s *smtpSession) recipient(argument string) Decision {
	to, ok := path(argument, "TO:")
	switch {
	case s.sender == nil:
		return say(smtpNoMail)
	case !ok || to == "":
		return say(smtpSyntax)
	}
	return s.decide(&s.smtp.byRecipient, to, "", smtpNobody)
}

// path reads the address of MAIL or RCPT, "<ann@a.example>", which parameters may follow (RFC 5321 §4.1.1.2). A source
// route is passed over (appendix C).
func path(argument, keyword string) (address string, ok bool) {
	if len(argument) < len(keyword) || !strings.EqualFold(argument[:len(keyword)], keyword) {
		return "", false
	}
	rest, ok := strings.CutPrefix(strings.TrimLeft(argument[len(keyword):], " "), "<")
	end := closingBracket(rest)
	if !ok || end < 0 || len(rest) > end+1 && rest[end+1] != ' ' {
		return "", false
	}
	address = rest[:end]
	if strings.HasPrefix(address, "@") {
		_, address, ok = strings.Cut(address, ":")
	}
	return address, ok && !strings.ContainsFunc(address, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// closingBracket returns where the ">" is that no quoted string has, or -1.
func closingBracket(s string) int {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && quoted:
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == '>' && !quoted:
			return i
		}
	}
	return -1
}

// authenticate takes a mechanism, which its first message may follow (RFC 4954 §4).
func (s *smtpSession) authenticate(command []byte, argument string) Decision {
	mechanism, message, given := strings.Cut(argument, " ")
	var kind smtpLineKind
	ask := smtpGoPlain
	switch {
	case !s.smtp.auth:
		return say(smtpNoAuth)
	case strings.EqualFold(mechanism, "PLAIN"):
		kind = smtpPlain
	case strings.EqualFold(mechanism, "LOGIN"):
		kind, ask = smtpUserName, smtpUsername
	default:
		return say(smtpMechanism)
	}
	if given {
		return s.authMessage(kind, command, message)
	}
	s.expects, s.auth = kind, smtpTurn(command, "334")
	return say(ask)
}

// authMessage takes a message of a mechanism, which has come in a line of the client.
func (s *smtpSession) authMessage(kind smtpLineKind, line []byte, message string) Decision {
	if message == "*" {
		return say(smtpCancelled)
	}
	by := &s.smtp.byUser
	if kind == smtpPlain {
		user, password, ok := by.plain(message)
		if !ok {
			return say(smtpNotPlain)
		}
		return s.decide(by, user, password, smtpNoUser)
	}
	text, ok := unbase64(message)
	switch {
	case !ok || text == "":
		return say(smtpNotPlain)
	case kind == smtpPassword:
		return s.decide(by, s.name, Secret(text), smtpNoUser)
	case by.asks():
		s.name, s.expects, s.auth = text, smtpPassword, append(s.auth, smtpTurn(line, "334")...)
		return say(smtpAskPass)
	}
	return s.decide(by, text, "", smtpNoUser)
}

// decide lets a client go on whom no rule matches: the next recipient of its mail may be somebody's.
func (s *smtpSession) decide(by *users, name string, password Secret, nobody string) Decision {
	d := by.decide(s, name, password)
	if d.Verdict == Route {
		d.Dialogue = slices.Concat(smtpTurn(nil, "220"), s.hello, s.sender, s.auth)
		return d
	}
	return Decision{Reply: []byte(nobody), Login: d.Login}
}

func (s *smtpSession) deny(o Outcome, last bool) []byte {
	text := smtpFailed
	if o == Wrong {
		text = smtpWrong
	}
	if last {
		text += smtpTooOften
	}
	return []byte(text)
}

// smtpTurn is a command whose answer has that code (RFC 5321 §4.2.1).
func smtpTurn(command []byte, code string) []Turn {
	return []Turn{{Say: bytes.Clone(command), More: code + "-", Last: code + " "}}
}

// Refusal implements Session.
func (s *smtpSession) Refusal(c Cause) []byte { return []byte(textFor(smtpRefusals, c)) }
