package inspect

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// maxHost bounds a host name, octets (RFC 1035 §2.3.4).
const maxHost = 255

// Errors of rules.
var (
	// ErrHost is returned for a host pattern that no request could match.
	ErrHost = errors.New("bad host pattern")
	// ErrPath is returned for a path pattern that no request could match.
	ErrPath = errors.New("bad path pattern")
)

// Rule sends requests to a job that match all its patterns. Host and Path are compared with the normalised host and path
// of a request (see the package comment); an empty pattern matches everything, a request without a host included.
type Rule struct {
	Host string // "a.example" itself; "*.example" every name below it, at any depth; "[2001:db8::1]"
	// Path is "/x" itself; "/x/" or "/x/*" everything below, "/x/" included and "/x" not; or "~" and a regular expression
	// (RE2).
	Path   string
	Method string // "POST"
	// Header, Cookie and Query are "NAME", of which there has to be one, or "NAME=PATTERN" for its value: the value itself,
	// "x*" what begins so, "*x" what ends so, or "~" and a regular expression. The case of a header's name does not count.
	Header string
	Cookie string
	Query  string // parameter, decoded
	// By is what a map or a hash goes by: "" or "host", "path", or the first value of "header NAME", "cookie NAME" or
	// "query NAME". The keys of a map of hosts or paths are patterns as Host and Path, regular expressions excepted, of which
	// the longest that fits decides. A request that has no such key goes on to the next rule.
	By     string
	Choice // by that
}

// Check returns why the rule cannot be used, as ErrHost, ErrPath, ErrMethod, ErrHeader, ErrCookie, ErrQuery, ErrBy or an error
// of choices, with what would be right, or nil.
func (r Rule) Check() error {
	_, err := r.parse()
	return err
}

// compiled is a rule in the form that is compared.
type compiled struct {
	host, path string // patterns
	conditions conditions
	choice     Choice
	by         key
}

// asks reports whether host and path do not tell by themselves that the rule decides.
func (c *compiled) asks() bool { return c.conditions.asks() || c.choice.Job == "" }

func (r Rule) parse() (compiled, error) {
	host, err := parseHost(r.Host)
	if err != nil {
		return compiled{}, err
	}
	path, err := parsePath(r.Path)
	if err != nil {
		return compiled{}, err
	}
	conditions, err := r.conditions()
	if err != nil {
		return compiled{}, err
	}
	if err := r.check(); err != nil {
		return compiled{}, err
	}
	by, err := r.key()
	if err != nil {
		return compiled{}, err
	}
	choice, err := by.normal(r.Choice)
	return compiled{host: host, path: path, conditions: conditions, choice: choice, by: by}, err
}

// A pattern is a text whose last octet or first one says what it matches, so one map holds all: "" matches anything,
// ".example" a host that ends so, "/x/" a path that begins so, and every other text itself.

func parseHost(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	if strings.HasPrefix(s, "[") {
		a, ok := literalAddr(s)
		if !ok {
			return "", fmt.Errorf("%w: %q: want an IPv6 address in brackets as in \"[2001:db8::1]\"", ErrHost, s)
		}
		return "[" + a.String() + "]", nil
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Is6() {
		return "", fmt.Errorf("%w: %q: write an IPv6 address in brackets, %q", ErrHost, s, "["+a.String()+"]")
	}
	if s == "*" {
		return "", fmt.Errorf("%w: %q: leave the host out to match any", ErrHost, s)
	}
	if name, port, found := strings.Cut(s, ":"); found && isDigits(port) {
		return "", fmt.Errorf("%w: %q: write it without the port, %q", ErrHost, s, name)
	}
	p := strings.TrimSuffix(strings.ToLower(s), ".")
	name := strings.TrimPrefix(p, "*.")
	if !isName(name) {
		return "", fmt.Errorf("%w: %q: want a name as in \"a.example\", or \"*.example\" for all below", ErrHost, s)
	}
	return strings.TrimPrefix(p, "*"), nil
}

// isName reports whether s is a registered name of letters, digits, '-', '_' and inner dots, 1 to 255 octets.
func isName(s string) bool {
	if s == "" || len(s) > maxHost || strings.Contains(s, "..") || s[0] == '.' || s[len(s)-1] == '.' {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	})
}

func isDigits(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' })
}

func parsePath(s string) (string, error) {
	if s == "" || s[0] == '~' { // a regular expression is another condition
		return "", nil
	}
	if s[0] != '/' {
		return "", fmt.Errorf("%w: %q: it begins with a slash, %q", ErrPath, s, "/"+s)
	}
	p := s
	if strings.HasSuffix(s, "/*") {
		p = s[:len(s)-1]
	}
	if i := strings.IndexAny(p, "*?#"); i >= 0 {
		return "", fmt.Errorf("%w: %q: %q cannot match; want \"/x\" for itself, \"/x/\" for everything below",
			ErrPath, s, p[i])
	}
	for i := range len(p) {
		if classOf[p[i]]&targetOctet == 0 {
			return "", fmt.Errorf("%w: %q: write %q as %%%02X", ErrPath, s, p[i], p[i])
		}
	}
	if n := string(normalizePath([]byte(p))); n != p {
		return "", fmt.Errorf("%w: %q: requests are compared in normal form, write it as %q", ErrPath, s, n)
	}
	return p, nil
}
