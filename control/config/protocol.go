package config

import (
	"errors"

	"baton/control/inspect"
)

// section is the part of a port that is about one protocol: the configuration of its routing application.
type section interface {
	// routes lists the jobs that the section routes to and where it says so: "default", "rules[0].job".
	routes() []route
	// choices are those of the rules.
	choices() []Choice
	// problems lists what is wrong with the rules and where, as "rules[0].host".
	problems() []ruleProblem
	application(mapFiles) (inspect.Application, error)
}

type route struct{ key, job string }

type ruleProblem struct {
	key string
	err error
}

// sections are those of a port, by protocol.
func (p *Port) sections() map[string]section {
	return map[string]section{"http": &p.HTTP, "pop3": &p.POP3, "imap": &p.IMAP, "smtp": &p.SMTP, "tls": &p.TLS,
		"postgres": &p.Postgres, "redis": &p.Redis, "raw": &p.Raw}
}

// NewApplication makes a port's routing application, for which it reads the files of maps. If the application is external,
// it only knows how to refuse, and who speaks first.
func (r *Router) NewApplication(p *Port) (inspect.Application, error) {
	s := p.sections()[p.Protocol]
	files, err := r.readMaps(s.choices())
	if err != nil {
		return nil, err
	}
	return s.application(files)
}

// External reports whether applications in other processes decide.
func (p *Port) External() bool { return p.Application == "external" }

// checkProtocol checks the section of the port's protocol, and that there is no other one.
func (r *Router) checkProtocol(to *report, key string, p *Port) {
	sections := p.sections()
	for _, name := range sortedKeys(sections) {
		if name != p.Protocol && !isEmpty(sections[name]) {
			to.failf(join(key, name), "the port's protocol is %s: move the section, or set protocol: %s", p.Protocol, name)
		}
	}
	key, s := join(key, p.Protocol), sections[p.Protocol]
	switch empty := isEmpty(s); {
	case p.External() && !empty:
		to.failf(key, "the application is external: remove the section, or set application: builtin")
	case empty && !p.External():
		to.failf(key, "no rules and no default: everybody would be refused")
	}
	for _, route := range s.routes() {
		r.knownJob(to, key+"."+route.key, route.job)
	}
	for _, problem := range s.problems() {
		to.failf(key+"."+problem.key, "%v", problem.err)
	}
	for i, c := range s.choices() {
		if c.Map != nil && c.MapFile != "" {
			to.failf(key+"."+at("rules", i)+".map_file", "the rule has a map already")
		}
	}
	p.checkPasswords(to, key+".passwords")
	if p.Protocol == "http" {
		to.warnRules(key+".rules", p.HTTP.rules(nil), p.HTTP.Default, p.Reroutes())
	}
}

// isEmpty says that a section has no rules and no default.
func isEmpty(s section) bool { return len(s.routes()) == 0 && len(s.choices()) == 0 }

// routesOf are a section's: a default, which may be absent, and those of rules.
func routesOf(fallback string, rules []Choice) []route {
	var all []route
	if fallback != "" {
		all = append(all, route{"default", fallback})
	}
	for i, c := range rules {
		for _, r := range c.routes() {
			all = append(all, route{at("rules", i) + "." + r.key, r.job})
		}
	}
	return all
}

// problemsOf checks rules. fields says at which key each error belongs; others belong to the whole rule.
func problemsOf[R interface{ Check() error }](rules []R, fields map[error]string) []ruleProblem {
	var all []ruleProblem
	for i, r := range rules {
		if err := r.Check(); err != nil {
			all = append(all, ruleProblem{at("rules", i) + fieldOf(err, fields), err})
		}
	}
	return all
}

// fieldOf is the part of the key for an error of a rule.
func fieldOf(err error, fields map[error]string) string {
	if errors.Is(err, inspect.ErrMap) { // which may be an error of one of its keys
		return ".map"
	}
	for kind, field := range fields {
		if errors.Is(err, kind) {
			return "." + field
		}
	}
	return ""
}

// convert converts each of a list.
func convert[A, B any](list []A, to func(A) B) []B {
	all := make([]B, len(list))
	for i, a := range list {
		all[i] = to(a)
	}
	return all
}

// HTTP is the routing application for HTTP/1.x.
type HTTP struct {
	Mixed   string `yaml:"mixed" default:"reject" oneof:"reject"`
	Default string `yaml:"default" default:""` // job; "": none
	Rules   []Rule `yaml:"rules" default:""`
}

// Rule is one routing rule. It converts to inspect.Rule, which defines what the patterns mean.
type Rule struct {
	Host   string `yaml:"host" default:""`   // "": any
	Path   string `yaml:"path" default:""`   // "": any
	Method string `yaml:"method" default:""` // "": any
	Header string `yaml:"header" default:""` // "": any
	Cookie string `yaml:"cookie" default:""` // "": any
	Query  string `yaml:"query" default:""`  // "": any
	By     string `yaml:"by" default:""`     // "": host
	Choice
}

func (r Rule) rule(files mapFiles) inspect.Rule {
	return inspect.Rule{Host: r.Host, Path: r.Path, Method: r.Method, Header: r.Header, Cookie: r.Cookie, Query: r.Query,
		By: r.By, Choice: r.choice(files)}
}

func (h *HTTP) routes() []route {
	return routesOf(h.Default, h.choices())
}

func (h *HTTP) choices() []Choice {
	return convert(h.Rules, func(r Rule) Choice { return r.Choice })
}

func (h *HTTP) problems() []ruleProblem {
	return problemsOf(h.rules(nil), map[error]string{inspect.ErrHost: "host", inspect.ErrPath: "path",
		inspect.ErrMethod: "method", inspect.ErrHeader: "header", inspect.ErrCookie: "cookie", inspect.ErrQuery: "query",
		inspect.ErrBy: "by"})
}

func (h *HTTP) rules(files mapFiles) []inspect.Rule {
	return convert(h.Rules, func(r Rule) inspect.Rule { return r.rule(files) })
}

func (h *HTTP) application(files mapFiles) (inspect.Application, error) {
	return inspect.NewHTTP(inspect.HTTPConfig{Rules: h.rules(files), Default: h.Default})
}

// Users is a routing application's section in which the user decides.
type Users struct {
	Default   string     `yaml:"default" default:""` // job; "": none
	Rules     []UserRule `yaml:"rules" default:""`
	Passwords Passwords  `yaml:"passwords"`
}

// UserRule is one routing rule. It converts to inspect.UserRule, which defines what the pattern means.
type UserRule struct {
	User string `yaml:"user" default:""` // "": any
	Choice
}

func (u *Users) routes() []route { return routesOf(u.Default, u.choices()) }

func (u *Users) choices() []Choice {
	return convert(u.Rules, func(r UserRule) Choice { return r.Choice })
}

func (u *Users) problems() []ruleProblem {
	return problemsOf(u.config(nil).Rules, map[error]string{inspect.ErrUser: "user"})
}

func (u *Users) config(files mapFiles) inspect.UserConfig {
	return inspect.UserConfig{Default: u.Default, Attempts: u.Passwords.attempts(), Rules: convert(u.Rules, func(r UserRule) inspect.UserRule {
		return inspect.UserRule{User: r.User, Choice: r.choice(files)}
	})}
}

// POP3 is the routing application for mailboxes by POP3.
type POP3 struct{ Users }

func (p *POP3) application(files mapFiles) (inspect.Application, error) {
	return inspect.NewPOP3(p.config(files))
}

// IMAP is the routing application for mailboxes by IMAP.
type IMAP struct{ Users }

func (m *IMAP) application(files mapFiles) (inspect.Application, error) {
	return inspect.NewIMAP(m.config(files))
}

// SMTP is the routing application for mail that comes in.
type SMTP struct {
	Name       string     `yaml:"name" default:"localhost"` // of the server, for its greeting
	Extensions []string   `yaml:"extensions" default:""`    // as EHLO names them
	Auth       Switch     `yaml:"auth" default:"false"`     // clients may log in
	Default    string     `yaml:"default" default:""`       // job; "": none
	Rules      []SMTPRule `yaml:"rules" default:""`
	Passwords  Passwords  `yaml:"passwords"` // of clients that log in
}

// SMTPRule is one routing rule. It converts to inspect.SMTPRule, which defines what the patterns mean.
type SMTPRule struct {
	Recipient string `yaml:"recipient" default:""` // "": any
	User      string `yaml:"user" default:""`      // "": any
	Choice
}

var errNoAuth = errors.New("nobody can log in: set auth: true, or leave the user out")

func (m *SMTP) routes() []route { return routesOf(m.Default, m.choices()) }

func (m *SMTP) choices() []Choice {
	return convert(m.Rules, func(r SMTPRule) Choice { return r.Choice })
}

func (m *SMTP) problems() []ruleProblem {
	c := m.config(nil)
	all := problemsOf(c.Rules, map[error]string{inspect.ErrRecipient: "recipient", inspect.ErrUser: "user"})
	for i, r := range m.Rules {
		if r.User != "" && !m.Auth {
			all = append(all, ruleProblem{at("rules", i) + ".user", errNoAuth})
		}
	}
	switch err := c.Check(); {
	case errors.Is(err, inspect.ErrName):
		all = append(all, ruleProblem{"name", err})
	case errors.Is(err, inspect.ErrExtension):
		all = append(all, ruleProblem{"extensions", err})
	}
	return all
}

func (m *SMTP) config(files mapFiles) inspect.SMTPConfig {
	return inspect.SMTPConfig{Name: m.Name, Extensions: m.Extensions, Auth: bool(m.Auth), Default: m.Default,
		Attempts: m.Passwords.attempts(),
		Rules: convert(m.Rules, func(r SMTPRule) inspect.SMTPRule {
			return inspect.SMTPRule{Recipient: r.Recipient, User: r.User, Choice: r.choice(files)}
		})}
}

func (m *SMTP) application(files mapFiles) (inspect.Application, error) {
	return inspect.NewSMTP(m.config(files))
}

// TLS is the routing application for TLS, which is passed through.
type TLS struct {
	Default string    `yaml:"default" default:""` // job; "": none
	Rules   []TLSRule `yaml:"rules" default:""`
}

// TLSRule is one routing rule. It converts to inspect.TLSRule, which defines what the patterns mean.
type TLSRule struct {
	SNI     string `yaml:"sni" default:""`     // "": any
	ALPN    string `yaml:"alpn" default:""`    // "": any
	Version string `yaml:"version" default:""` // "": any
	Choice
}

func (t *TLS) routes() []route {
	return routesOf(t.Default, t.choices())
}

func (t *TLS) choices() []Choice {
	return convert(t.Rules, func(r TLSRule) Choice { return r.Choice })
}

func (t *TLS) problems() []ruleProblem {
	return problemsOf(t.rules(nil),
		map[error]string{inspect.ErrHost: "sni", inspect.ErrALPN: "alpn", inspect.ErrVersion: "version"})
}

func (t *TLS) rules(files mapFiles) []inspect.TLSRule {
	return convert(t.Rules, func(r TLSRule) inspect.TLSRule {
		return inspect.TLSRule{SNI: r.SNI, ALPN: r.ALPN, Version: r.Version, Choice: r.choice(files)}
	})
}

func (t *TLS) application(files mapFiles) (inspect.Application, error) {
	return inspect.NewTLS(inspect.TLSConfig{Rules: t.rules(files), Default: t.Default})
}

// Postgres is the routing application for PostgreSQL.
type Postgres struct {
	Default   string         `yaml:"default" default:""`   // job; "": none
	Encrypted string         `yaml:"encrypted" default:""` // job; "": encryption is declined
	Rules     []PostgresRule `yaml:"rules" default:""`
}

// PostgresRule is one routing rule. It converts to inspect.PostgresRule, which defines what the patterns mean.
type PostgresRule struct {
	User     string `yaml:"user" default:""`     // "": any
	Database string `yaml:"database" default:""` // "": any
	By       string `yaml:"by" default:""`       // "": database
	Choice
}

func (p *Postgres) routes() []route {
	all := routesOf(p.Default, p.choices())
	if p.Encrypted != "" {
		all = append(all, route{"encrypted", p.Encrypted})
	}
	return all
}

func (p *Postgres) choices() []Choice {
	return convert(p.Rules, func(r PostgresRule) Choice { return r.Choice })
}

func (p *Postgres) problems() []ruleProblem {
	return problemsOf(p.rules(nil), map[error]string{inspect.ErrUser: "user", inspect.ErrDatabase: "database", inspect.ErrBy: "by"})
}

func (p *Postgres) rules(files mapFiles) []inspect.PostgresRule {
	return convert(p.Rules, func(r PostgresRule) inspect.PostgresRule {
		return inspect.PostgresRule{User: r.User, Database: r.Database, By: r.By, Choice: r.choice(files)}
	})
}

func (p *Postgres) application(files mapFiles) (inspect.Application, error) {
	return inspect.NewPostgres(inspect.PostgresConfig{Rules: p.rules(files), Default: p.Default, Encrypted: p.Encrypted})
}

// Redis is the routing application for Redis.
type Redis struct {
	Default string      `yaml:"default" default:""` // job; "": none
	Rules   []RedisRule `yaml:"rules" default:""`
}

// RedisRule is one routing rule. It converts to inspect.RedisRule, which defines what the patterns mean.
type RedisRule struct {
	User     string `yaml:"user" default:""`     // "": any
	Database string `yaml:"database" default:""` // "": any
	Command  string `yaml:"command" default:""`  // "": any
	By       string `yaml:"by" default:""`       // "": user
	Choice
}

func (r *Redis) routes() []route {
	return routesOf(r.Default, r.choices())
}

func (r *Redis) choices() []Choice {
	return convert(r.Rules, func(r RedisRule) Choice { return r.Choice })
}

func (r *Redis) problems() []ruleProblem {
	return problemsOf(r.rules(nil), map[error]string{inspect.ErrUser: "user", inspect.ErrDatabase: "database",
		inspect.ErrCommand: "command", inspect.ErrBy: "by"})
}

func (r *Redis) rules(files mapFiles) []inspect.RedisRule {
	return convert(r.Rules, func(r RedisRule) inspect.RedisRule {
		return inspect.RedisRule{User: r.User, Database: r.Database, Command: r.Command, By: r.By, Choice: r.choice(files)}
	})
}

func (r *Redis) application(files mapFiles) (inspect.Application, error) {
	return inspect.NewRedis(inspect.RedisConfig{Rules: r.rules(files), Default: r.Default})
}

// Raw is the routing application for whatever begins with octets that tell.
type Raw struct {
	Default string    `yaml:"default" default:""` // job; "": none
	Octets  int       `yaml:"octets" default:"64" range:"1..4096"`
	Refusal string    `yaml:"refusal" default:""`
	Rules   []RawRule `yaml:"rules" default:""`
}

// RawRule is one routing rule. It converts to inspect.RawRule, which defines what the patterns mean.
type RawRule struct {
	Prefix  string `yaml:"prefix" default:""`
	Pattern string `yaml:"pattern" default:""`
	Job     string `yaml:"job"`
}

func rawRule(r RawRule) inspect.RawRule { return inspect.RawRule(r) }

func (r *Raw) routes() []route {
	return routesOf(r.Default, r.choices())
}

func (r *Raw) choices() []Choice {
	return convert(r.Rules, func(r RawRule) Choice { return Choice{Job: r.Job} })
}

func (r *Raw) problems() []ruleProblem {
	return problemsOf(convert(r.Rules, rawRule), map[error]string{inspect.ErrPattern: "pattern"})
}

func (r *Raw) application(mapFiles) (inspect.Application, error) {
	return inspect.NewRaw(inspect.RawConfig{Rules: convert(r.Rules, rawRule), Default: r.Default, Octets: r.Octets, Refusal: r.Refusal})
}
