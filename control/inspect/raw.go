package inspect

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
)

// RawConfig is the configuration of Raw.
type RawConfig struct {
	Rules   []RawRule // the first that matches decides
	Default string    // job of clients that no rule matches; "": they are refused
	// Octets is how many octets of the client a pattern is compared with at most, 1 to 4096; fewer if a line ends before.
	Octets int
	// Refusal is what a client is told before its connection is closed; "": nothing.
	Refusal string
}

// RawRule sends clients to a job by how they begin: by one of Prefix and Pattern; a rule without either matches.
type RawRule struct {
	Prefix  string // octets
	Pattern string // regular expression (RE2), in the first line or in as many octets as RawConfig says
	Job     string
}

// Errors of the rules of Raw, Redis.
var (
	ErrPattern  = errors.New("bad pattern")
	ErrDatabase = errors.New("bad database")
	ErrCommand  = errors.New("bad command")
)

// Check returns why the rule cannot be used, as ErrPattern or ErrJob, or nil.
func (r RawRule) Check() error {
	_, err := r.compile()
	return err
}

func (r RawRule) compile() (*regexp.Regexp, error) {
	if r.Job == "" {
		return nil, ErrJob
	}
	if r.Prefix != "" && r.Pattern != "" {
		return nil, fmt.Errorf("%w: a rule has a prefix or a pattern", ErrPattern)
	}
	p, err := regexp.Compile(r.Pattern)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPattern, err)
	}
	return p, nil
}

// Raw routes connections of any protocol whose client speaks first, by its first octets, which the target reads. The words
// to refuse a client with, the same for every cause, are the configuration's.
type Raw struct {
	config   RawConfig
	patterns []*regexp.Regexp // by rule
}

// NewRaw compiles the rules. It returns the error of the first one that Check refuses.
func NewRaw(c RawConfig) (*Raw, error) {
	r := &Raw{config: c}
	for i, rule := range c.Rules {
		p, err := rule.compile()
		if err != nil {
			return nil, fmt.Errorf("compile rule %d: %w", i+1, err)
		}
		r.patterns = append(r.patterns, p)
	}
	return r, nil
}

// Session implements Application.
func (r *Raw) Session(window int) Session {
	return &rawSession{raw: r, octets: min(r.config.Octets, window)}
}

// SpeaksFirst implements Application.
func (r *Raw) SpeaksFirst() bool { return false }

type rawSession struct {
	raw     *Raw
	octets  int // that patterns see at most
	decided Decision
}

// Inspect implements Session.
func (s *rawSession) Inspect(data []byte) Decision {
	if s.decided.Verdict == NeedMore && len(data) > 0 {
		s.decided = s.decide(data)
	}
	return s.decided
}

// decide goes through the rules in order. One that more octets could still make match holds up those after it.
func (s *rawSession) decide(data []byte) Decision {
	data, whole := s.head(data)
	for i, rule := range s.raw.config.Rules {
		switch {
		case rule.Prefix == "" && rule.Pattern != "":
			if !whole {
				return Decision{}
			}
			if s.raw.patterns[i].Match(data) {
				return Decision{Verdict: Route, Job: rule.Job, Rule: i + 1}
			}
		case bytes.HasPrefix(data, []byte(rule.Prefix)):
			return Decision{Verdict: Route, Job: rule.Job, Rule: i + 1}
		case !whole && bytes.HasPrefix([]byte(rule.Prefix), data):
			return Decision{}
		}
	}
	if s.raw.config.Default != "" {
		return Decision{Verdict: Route, Job: s.raw.config.Default}
	}
	return refuse(s, NoMatch, "no rule for the first octets")
}

// head is what the rules see: up to the end of the first line, or as many octets as configured; whole: it is all there.
func (s *rawSession) head(data []byte) (head []byte, whole bool) {
	if i := bytes.IndexByte(data[:min(len(data), s.octets)], '\n'); i >= 0 {
		return data[:i+1], true
	}
	return data[:min(len(data), s.octets)], len(data) >= s.octets
}

// Refusal implements Session.
func (s *rawSession) Refusal(Cause) []byte { return []byte(s.raw.config.Refusal) }
