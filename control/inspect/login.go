package inspect

import (
	"fmt"
	"io"
)

// Login is who wants to log in and has to be checked before the connection goes on.
type Login struct {
	User     string
	Password Secret
	Attempt  int // of the connection, from 1
}

// Secret is text that neither logs nor errors show; string(s) is the text.
type Secret string

// Format implements fmt.Formatter for all verbs.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "(secret)") }

// MarshalText implements encoding.TextMarshaler, which JSON and slog go by.
func (Secret) MarshalText() ([]byte, error) { return []byte("(secret)"), nil }

// Outcome is what came of a check. Its zero value is no yes.
type Outcome uint8

// The outcomes.
const (
	Failed Outcome = iota // nobody knows: the client may try again later
	Wrong                 // not the user's password, or no such user
	Right
)

// Asker is a Session that decides Ask: POP3's, IMAP's and SMTP's, where passwords are asked for.
type Asker interface {
	Session
	// Answer says what came of the check that the last decision, Ask, wants. The next call of Inspect goes on from there.
	Answer(Outcome)
}

// asking is the part of a dialogue that is about passwords.
type asking struct {
	most   int      // attempts of a connection
	tried  int      // attempts, the one under way included
	then   Decision // of that, if the password is right
	length int      // of the command that it is, octets
	denial []byte   // what the client is told of it, if that decides nothing
}

// ask makes a decision about a login that a talker has heard wait for its password.
func (a *asking) ask(d Decision, length int) Decision {
	login := *d.Login
	a.tried++
	login.Attempt = a.tried
	a.then, a.length = d, length
	a.then.Login = nil
	return Decision{Verdict: Ask, Login: &login}
}

// Answer implements Asker.
func (s *dialogue) Answer(o Outcome) {
	if s.decided.Verdict != Ask {
		return
	}
	last := s.tried >= s.most
	cause := Denied
	if o == Failed {
		cause = Unavailable
	}
	switch {
	case o == Right && s.then.Verdict == NeedMore:
		s.decided, s.denial = Decision{}, s.then.Reply
	case o == Right:
		s.decided = s.then
	case last:
		s.decided = Decision{Verdict: Refuse, Cause: cause, Detail: "no right password in all attempts", Reply: s.deny(o, last)}
	default:
		s.decided, s.denial = Decision{}, s.deny(o, last)
	}
}
