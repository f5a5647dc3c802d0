package inspect

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// PostgresConfig is the configuration of Postgres.
type PostgresConfig struct {
	Rules   []PostgresRule // the first that matches decides
	Default string         // job of clients that no rule matches; "": they are refused
	// Encrypted is the job that gets connections whose client asks for encryption (SSLRequest, GSSENCRequest), with the
	// request unanswered. "": the request is declined, and most clients then go on in the clear.
	Encrypted string
}

// PostgresRule sends clients to a job. User and Database are "ann" herself, "ann*" what begins so, "*ann" what ends so, "~"
// and a regular expression (RE2), or "" for everything.
type PostgresRule struct {
	User     string
	Database string // a client that names none means the one that is called as its user
	By       string // what a map or a hash goes by: "database", which "" stands for, or "user"
	Choice
}

// Check returns why the rule cannot be used, as ErrUser, ErrDatabase, ErrBy or an error of choices, or nil.
func (r PostgresRule) Check() error {
	_, err := r.compile()
	return err
}

// postgresRule is a compiled rule.
type postgresRule struct {
	user, database pattern
	byUser         bool
	Choice
}

func (r PostgresRule) compile() (c postgresRule, err error) {
	c.Choice = r.Choice
	if c.user, err = parsePattern(r.User); err != nil {
		return c, fmt.Errorf("%w: %w", ErrUser, err)
	}
	if c.database, err = parsePattern(r.Database); err != nil {
		return c, fmt.Errorf("%w: %w", ErrDatabase, err)
	}
	by, err := r.goesBy(r.By, "database", "user")
	if err != nil {
		return c, err
	}
	c.byUser = by == 1
	return c, r.check()
}

// job returns who serves a client, "" if that is another rule's business.
func (r *postgresRule) job(user, database string) string {
	switch {
	case !r.user.matches(user) || !r.database.matches(database):
		return ""
	case r.byUser:
		return r.ofValue(user)
	}
	return r.ofValue(database)
}

// Postgres routes connections of PostgreSQL's protocol 3 by their startup message (PostgreSQL documentation, "Frontend/
// Backend Protocol", Message Flow and Message Formats). The target reads that message, and authenticates the client.
type Postgres struct {
	rules     []postgresRule
	fallback  string
	encrypted string // "": declined
}

// NewPostgres compiles the rules. It returns the error of the first one that Check refuses.
func NewPostgres(c PostgresConfig) (*Postgres, error) {
	p := &Postgres{fallback: c.Default, encrypted: c.Encrypted}
	for i, r := range c.Rules {
		rule, err := r.compile()
		if err != nil {
			return nil, fmt.Errorf("compile rule %d: %w", i+1, err)
		}
		p.rules = append(p.rules, rule)
	}
	return p, nil
}

// Session implements Application.
func (p *Postgres) Session(window int) Session { return &postgresSession{postgres: p, limit: window} }

// SpeaksFirst implements Application.
func (p *Postgres) SpeaksFirst() bool { return false }

// job returns who serves a client, or "", and the number of the rule.
func (p *Postgres) job(user, database string) (job string, rule int) {
	for i := range p.rules {
		if job := p.rules[i].job(user, database); job != "" {
			return job, i + 1
		}
	}
	return p.fallback, 0
}

// Codes in the place of the protocol version.
const (
	postgresCancel  = 80877102
	postgresTLS     = 80877103
	postgresGSS     = 80877104
	postgresMaxHead = 10000 // octets; the server's own limit (MAX_STARTUP_PACKET_LENGTH)
)

type postgresSession struct {
	postgres *Postgres
	limit    int
	asked    int // requests for encryption
	decided  Decision
}

// Inspect implements Session.
func (s *postgresSession) Inspect(data []byte) Decision {
	if s.decided.Verdict == NeedMore {
		d := s.read(data)
		if d.Verdict != NeedMore {
			s.decided = d
		}
		return d
	}
	return s.decided
}

func (s *postgresSession) read(data []byte) Decision {
	if len(data) < 8 {
		return Decision{}
	}
	length, code := int64(binary.BigEndian.Uint32(data)), binary.BigEndian.Uint32(data[4:])
	switch {
	case length < 8 || length > postgresMaxHead:
		return s.refuse(Malformed, "not a startup message")
	case length > int64(s.limit):
		return s.refuse(TooLarge, "the startup message does not fit into the window")
	case len(data) < int(length):
		return Decision{}
	}
	switch message := data[8:length]; {
	case code == postgresCancel:
		// The key that it carries tells the server, not us; and nobody answers it in any case.
		return Decision{Verdict: End}
	case code == postgresTLS || code == postgresGSS:
		return s.encryption(message)
	case code>>16 == 3:
		return s.startup(message)
	default:
		return s.refuse(Version, "not protocol 3")
	}
}

// encryption answers a request for it. A client may try both kinds, once each.
func (s *postgresSession) encryption(message []byte) Decision {
	s.asked++
	switch {
	case len(message) > 0 || s.asked > 2:
		return s.refuse(Malformed, "malformed request for encryption")
	case s.postgres.encrypted != "":
		return Decision{Verdict: Route, Job: s.postgres.encrypted}
	}
	return Decision{Reply: []byte{'N'}, Consumed: 8}
}

// startup reads the parameters: pairs of strings that end with NUL, and a NUL.
func (s *postgresSession) startup(message []byte) Decision {
	var user, database string
	for len(message) != 1 {
		var name, value []byte
		var ok, ok2 bool
		name, message, ok = bytes.Cut(message, []byte{0})
		value, message, ok2 = bytes.Cut(message, []byte{0})
		if !ok || !ok2 || len(name) == 0 {
			return s.refuse(Malformed, "malformed startup message")
		}
		switch string(name) {
		case "user":
			user = string(value)
		case "database":
			database = string(value)
		}
	}
	if message[0] != 0 || user == "" {
		return s.refuse(Malformed, "startup message without a user")
	}
	if database == "" {
		database = user
	}
	if job, rule := s.postgres.job(user, database); job != "" {
		return Decision{Verdict: Route, Job: job, Rule: rule}
	}
	return s.refuse(NoMatch, "no rule for user and database")
}

func (s *postgresSession) refuse(c Cause, detail string) Decision {
	return Decision{Verdict: Refuse, Cause: c, Detail: detail, Reply: s.Refusal(c)}
}

// postgresErrors are the SQLSTATE codes of PostgreSQL (appendix A) and what they say.
var postgresErrors = [...][2]string{
	Malformed:   {"08P01", "malformed startup message"},
	NoMatch:     {"3D000", "nobody serves this database and user here"},
	Timeout:     {"08P01", "no startup message within the time"},
	TooLarge:    {"08P01", "startup message too long"},
	Unavailable: {"57P03", "no server can take the connection now"},
	Version:     {"0A000", "unsupported frontend protocol"},
}

// Refusal implements Session: an ErrorResponse.
func (s *postgresSession) Refusal(c Cause) []byte {
	if int(c) >= len(postgresErrors) || postgresErrors[c][0] == "" {
		c = Unavailable
	}
	fields := fmt.Sprintf("SFATAL\x00VFATAL\x00C%s\x00M%s\x00\x00", postgresErrors[c][0], postgresErrors[c][1])
	b := binary.BigEndian.AppendUint32([]byte{'E'}, uint32(4+len(fields)))
	return append(b, fields...)
}
