package inspect

import (
	"errors"
	"fmt"
	"strings"
)

// UserConfig is the configuration of protocols in which the user decides: POP3, IMAP.
type UserConfig struct {
	Rules   []UserRule // the first that matches decides
	Default string     // job of users that no rule matches; "": they are refused
	// Attempts is how many passwords of a connection are checked, by an Asker's Ask. 0: none, the target does.
	Attempts int
}

// UserRule sends users to a job. The case of an address's domain does not count.
type UserRule struct {
	// User is "ann" or "ann@a.example" herself; "ann*" everybody whose name begins so; "*@a.example" whose name ends so;
	// "" everybody.
	User   string
	Choice // by the user; in a map, "*@a.example" is everybody of a domain who is not there by name
}

// ErrUser is returned for a pattern that no user could match.
var ErrUser = errors.New("bad user pattern")

// Check returns why the rule cannot be used, as ErrUser or an error of choices, or nil.
func (r UserRule) Check() error {
	if err := checkName(r.User); err != nil {
		return err
	}
	if err := r.check(); err != nil {
		return err
	}
	_, err := r.normal()
	return err
}

// checkName returns why no user, mailbox or the like could match a pattern.
func checkName(pattern string) error {
	name := strings.TrimPrefix(strings.TrimSuffix(pattern, "*"), "*")
	bad := strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c == 0x7f || c == '*' })
	if bad || pattern != "" && (strings.Trim(name, "@") == "" || len(pattern) > len(name)+1) {
		return fmt.Errorf("%w: %q: want a name as in \"ann\", \"ann*\" for all that begin so, or \"*@a.example\" for all "+
			"of a domain", ErrUser, pattern)
	}
	return nil
}

// matchesName compares a normal name with a normal pattern.
func matchesName(pattern, name string) bool {
	if begin, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, begin)
	}
	if end, ok := strings.CutPrefix(pattern, "*"); ok {
		return strings.HasSuffix(name, end)
	}
	return pattern == "" || pattern == name
}

// normalName is a name or a pattern in the form that is compared: the case of its domain does not count (RFC 5321 §2.4).
func normalName(name string) string {
	at := strings.LastIndexByte(name, '@')
	if at < 0 {
		return name
	}
	return name[:at] + strings.ToLower(name[at:])
}

// ofName is of for a normal name, which a map may have by its domain only.
func (c *Choice) ofName(name string) string {
	job := c.of(name)
	if at := strings.LastIndexByte(name, '@'); job == "" && at >= 0 {
		return c.Map["*"+name[at:]]
	}
	return job
}

// normalNames is the choice with a map whose keys are in the form that is compared. The error is that it names someone
// twice: a host would send them here or there.
func (c Choice) normalNames() (Choice, error) {
	return c.normal(func(name string) (string, error) { return normalName(name), nil })
}

// normal is the rule in the form that is compared.
func (r UserRule) normal() (UserRule, error) {
	choice, err := r.normalNames()
	return UserRule{normalName(r.User), choice}, err
}

// users are compiled rules.
type users struct {
	rules    []UserRule // normal
	fallback string
	attempts int
}

func newUsers(c UserConfig) (users, error) {
	u := users{fallback: c.Default, attempts: c.Attempts}
	for i, r := range c.Rules {
		if err := r.Check(); err != nil {
			return u, fmt.Errorf("compile rule %d: %w", i+1, err)
		}
		normal, _ := r.normal() // which Check has seen
		u.rules = append(u.rules, normal)
	}
	return u, nil
}

// job returns who serves a user, or "", and the number of the rule.
func (u *users) job(user string) (job string, rule int) {
	name := normalName(user)
	for i := range u.rules {
		if r := &u.rules[i]; matchesName(r.User, name) {
			if job := r.ofName(name); job != "" {
				return job, i + 1
			}
		}
	}
	return u.fallback, 0
}

// asks says that passwords are checked before a user's connection goes on.
func (u *users) asks() bool { return u.attempts > 0 }

// decide routes a user, whose password has to be right where it is asked for. Before that nobody learns whom rules know.
func (u *users) decide(s interface{ Refusal(Cause) []byte }, user string, password Secret) Decision {
	job, rule := u.job(user)
	d := Decision{Verdict: Route, Job: job, Rule: rule}
	if job == "" {
		d = refuse(s, NoMatch, "no rule for the user")
	}
	if u.asks() {
		d.Login = &Login{User: user, Password: password}
	}
	return d
}
