package inspect

import (
	"errors"
	"fmt"
	"iter"
	"regexp"
	"strings"
)

// Errors of conditions.
var (
	ErrMethod = errors.New("bad method")
	ErrHeader = errors.New("bad header pattern")
	ErrCookie = errors.New("bad cookie pattern")
	ErrQuery  = errors.New("bad query pattern")
)

// pattern is what a text is compared with.
type pattern struct {
	text   string         // itself, "x*" what begins so, "*x" what ends so, "" anything
	regexp *regexp.Regexp // instead
}

// parsePattern reads "~" and a regular expression (RE2), or a text as in a pattern.
func parsePattern(s string) (p pattern, err error) {
	if expression, ok := strings.CutPrefix(s, "~"); ok {
		p.regexp, err = regexp.Compile(expression)
		return p, err
	}
	// A star has a meaning at one end only; elsewhere it would be compared as it is, which nobody means who writes it.
	if inner := strings.TrimPrefix(strings.TrimSuffix(s, "*"), "*"); strings.Contains(inner, "*") || len(s) > len(inner)+1 {
		return p, fmt.Errorf("%q: want * at the begin or the end, or ~ and a regular expression", s)
	}
	return pattern{text: s}, nil
}

func (p *pattern) matches(text string) bool {
	if p.regexp != nil {
		return p.regexp.MatchString(text)
	}
	return matchesName(p.text, text)
}

// member is a condition on one of the fields, cookies or parameters of a request: one of that name has such a value.
type member struct {
	name  string
	value pattern
}

// parseMember reads "NAME", which only has to be there, or "NAME=PATTERN". "" is none.
func parseMember(s string, bad error) (*member, error) {
	if s == "" {
		return nil, nil
	}
	name, value, _ := strings.Cut(s, "=")
	p, err := parsePattern(value)
	if err != nil {
		return nil, fmt.Errorf("%w: %q: %w", bad, s, err)
	}
	if name == "" || !consistsOf([]byte(name), tokenOctet) {
		return nil, fmt.Errorf("%w: %q: want NAME, or NAME=VALUE where VALUE may begin or end with *, or be ~ and a regular "+
			"expression", bad, s)
	}
	return &member{name, p}, nil
}

// conditions are what a rule asks of a request besides host and path texts. Its zero value asks nothing.
type conditions struct {
	method                string
	path                  *regexp.Regexp
	header, cookie, query *member
}

func (r Rule) conditions() (c conditions, err error) {
	if r.Method != "" && (!consistsOf([]byte(r.Method), tokenOctet) || r.Method != strings.ToUpper(r.Method)) {
		return c, fmt.Errorf("%w: %q: want one as in \"POST\"", ErrMethod, r.Method)
	}
	c.method = r.Method
	if expression, ok := strings.CutPrefix(r.Path, "~"); ok {
		if c.path, err = regexp.Compile(expression); err != nil {
			return c, fmt.Errorf("%w: %q: %w", ErrPath, r.Path, err)
		}
	}
	if c.header, err = parseMember(r.Header, ErrHeader); err != nil {
		return c, err
	}
	if c.cookie, err = parseMember(r.Cookie, ErrCookie); err != nil {
		return c, err
	}
	c.query, err = parseMember(r.Query, ErrQuery)
	return c, err
}

// asks reports whether there is any condition.
func (c *conditions) asks() bool { return *c != conditions{} }

// subject is what rules that are not in the table are compared with.
type subject struct {
	*request
	host, path, query string // normalised, but for the query
}

// conditional is a rule that asks for more than host and path, or whose choice goes by a key.
type conditional struct {
	index int
	rule  compiled
}

// fields are the header fields that the rule is about.
func (c *compiled) fields() (all []string) {
	if m := c.conditions.header; m != nil {
		all = append(all, m.name)
	}
	if c.conditions.cookie != nil || c.by.kind == byCookie {
		all = append(all, cookieField)
	}
	if c.by.kind == byHeader {
		all = append(all, c.by.name)
	}
	return all
}

// job returns who serves a request by the rule, "" if the rule does not say.
func (c *conditional) job(s *subject) string {
	if !c.matches(s) {
		return ""
	}
	return c.rule.by.job(&c.rule.choice, s)
}

func (c *conditional) matches(s *subject) bool {
	need := &c.rule.conditions
	return matchesHost(c.rule.host, s.host) && matchesPath(c.rule.path, s.path) &&
		(need.path == nil || need.path.MatchString(s.path)) &&
		(need.method == "" || need.method == s.method) &&
		(need.header == nil || need.header.isAmong(s.headers(need.header.name))) &&
		(need.cookie == nil || need.cookie.isAmong(s.cookies(need.cookie.name))) &&
		(need.query == nil || need.query.isAmong(parameters(s.query, need.query.name)))
}

// matchesPath compares a normalised path with a pattern of parsePath.
func matchesPath(pattern, path string) bool {
	switch {
	case pattern == "":
		return true
	case pattern[len(pattern)-1] == '/':
		return strings.HasPrefix(path, pattern)
	}
	return path == pattern
}

// noted is a header field that a condition is about.
type noted struct{ name, value string }

// note remembers a field if conditions ask for it.
func (s *httpSession) note(name, value []byte) {
	for _, wanted := range s.http.wanted {
		if strings.EqualFold(wanted, string(name)) {
			s.request.noted = append(s.request.noted, noted{wanted, string(value)})
			return
		}
	}
}

// headers are the values of a field's lines.
func (r *request) headers(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, f := range r.noted {
			if strings.EqualFold(f.name, name) && !yield(f.value) {
				return
			}
		}
	}
}

const cookieField = "cookie"

// cookies are the values of a cookie in the lists of the Cookie fields (RFC 6265 §4.2.1).
func (r *request) cookies(cookie string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for list := range r.headers(cookieField) {
			for pair := range strings.SplitSeq(list, ";") {
				if name, value, _ := strings.Cut(strings.TrimSpace(pair), "="); name == cookie && !yield(value) {
					return
				}
			}
		}
	}
}

// parameters are the values of a parameter in a query of the form "a=1&b=2".
func parameters(query, parameter string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for pair := range strings.SplitSeq(query, "&") {
			name, value, _ := strings.Cut(pair, "=")
			if unescape(name) == parameter && !yield(unescape(value)) {
				return
			}
		}
	}
}

// isAmong reports whether one of the values is as the condition has it.
func (m *member) isAmong(values iter.Seq[string]) bool {
	for v := range values {
		if m.value.matches(v) {
			return true
		}
	}
	return false
}

// unescape decodes a name or value of a query, in which "+" is a space. A malformed percent-encoding is left alone.
func unescape(s string) string {
	if !strings.ContainsAny(s, "%+") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '+':
			b.WriteByte(' ')
		case s[i] == '%' && i+2 < len(s) && unhex(s[i+1]) >= 0 && unhex(s[i+2]) >= 0:
			b.WriteByte(byte(unhex(s[i+1])<<4 | unhex(s[i+2])))
			i += 2
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}
