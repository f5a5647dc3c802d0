package config

import (
	"errors"

	"baton/control/inspect"
)

// section is the part of a port that is about one protocol: the configuration of its routing application.
type section interface {
	// routes lists the jobs that the section routes to and where it says so: "default", "rules[0].job".
	routes() []route
	// problems lists what is wrong with the rules and where, as "rules[0].host".
	problems() []ruleProblem
	application() (inspect.Application, error)
}

type route struct{ key, job string }

type ruleProblem struct {
	key string
	err error
}

// sections are those of a port, by protocol.
func (p *Port) sections() map[string]section {
	return map[string]section{"http": &p.HTTP, "pop3": &p.POP3, "tls": &p.TLS, "postgres": &p.Postgres, "redis": &p.Redis,
		"raw": &p.Raw}
}

// NewApplication makes the port's routing application. If the application is external, it only knows how to refuse, and
// who speaks first.
func (p *Port) NewApplication() (inspect.Application, error) {
	return p.sections()[p.Protocol].application()
}

// External reports whether applications in other processes decide.
func (p *Port) External() bool { return p.Application == "external" }

// checkProtocol checks the section of the port's protocol, and that there is no other one.
func (r *Router) checkProtocol(to *report, key string, p *Port) {
	sections := p.sections()
	for _, name := range sortedKeys(sections) {
		if name != p.Protocol && len(sections[name].routes()) > 0 {
			to.failf(join(key, name), "the port's protocol is %s: move the section, or set protocol: %s", p.Protocol, name)
		}
	}
	key, s := join(key, p.Protocol), sections[p.Protocol]
	switch empty := len(s.routes()) == 0; {
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
	if p.Protocol == "http" {
		to.warnRules(key+".rules", convert(p.HTTP.Rules, httpRule), p.HTTP.Default)
	}
}

// routesOf are a section's: a default, which may be absent, and those of rules.
func routesOf[R any](fallback string, rules []R, job func(R) string) []route {
	var all []route
	if fallback != "" {
		all = append(all, route{"default", fallback})
	}
	for i, r := range rules {
		all = append(all, route{at("rules", i) + ".job", job(r)})
	}
	return all
}

// problemsOf checks rules. fields says at which key each error belongs; errors without one are reported elsewhere.
func problemsOf[R interface{ Check() error }](rules []R, fields map[error]string) []ruleProblem {
	var all []ruleProblem
	for i, r := range rules {
		err := r.Check()
		for kind, field := range fields {
			if errors.Is(err, kind) {
				all = append(all, ruleProblem{at("rules", i) + "." + field, err})
			}
		}
	}
	return all
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
	Host string `yaml:"host" default:""` // "": any
	Path string `yaml:"path" default:""` // "": any
	Job  string `yaml:"job"`
}

func httpRule(r Rule) inspect.Rule { return inspect.Rule(r) }

func (h *HTTP) routes() []route {
	return routesOf(h.Default, h.Rules, func(r Rule) string { return r.Job })
}

func (h *HTTP) problems() []ruleProblem {
	return problemsOf(convert(h.Rules, httpRule), map[error]string{inspect.ErrHost: "host", inspect.ErrPath: "path"})
}

func (h *HTTP) application() (inspect.Application, error) {
	return inspect.NewHTTP(inspect.HTTPConfig{Rules: convert(h.Rules, httpRule), Default: h.Default})
}

// POP3 is the routing application for mailboxes.
type POP3 struct {
	Default string     `yaml:"default" default:""` // job; "": none
	Rules   []UserRule `yaml:"rules" default:""`
}

// UserRule is one routing rule. It converts to inspect.UserRule, which defines what the pattern means.
type UserRule struct {
	User string `yaml:"user"`
	Job  string `yaml:"job"`
}

func userRule(r UserRule) inspect.UserRule { return inspect.UserRule(r) }

func (p *POP3) routes() []route {
	return routesOf(p.Default, p.Rules, func(r UserRule) string { return r.Job })
}

func (p *POP3) problems() []ruleProblem {
	return problemsOf(convert(p.Rules, userRule), map[error]string{inspect.ErrUser: "user"})
}

func (p *POP3) application() (inspect.Application, error) {
	return inspect.NewPOP3(inspect.POP3Config{Rules: convert(p.Rules, userRule), Default: p.Default})
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
	Job     string `yaml:"job"`
}

func tlsRule(r TLSRule) inspect.TLSRule { return inspect.TLSRule(r) }

func (t *TLS) routes() []route {
	return routesOf(t.Default, t.Rules, func(r TLSRule) string { return r.Job })
}

func (t *TLS) problems() []ruleProblem {
	return problemsOf(convert(t.Rules, tlsRule),
		map[error]string{inspect.ErrHost: "sni", inspect.ErrALPN: "alpn", inspect.ErrVersion: "version"})
}

func (t *TLS) application() (inspect.Application, error) {
	return inspect.NewTLS(inspect.TLSConfig{Rules: convert(t.Rules, tlsRule), Default: t.Default})
}

// Postgres is the routing application for PostgreSQL.
type Postgres struct {
	Default   string         `yaml:"default" default:""`   // job; "": none
	Encrypted string         `yaml:"encrypted" default:""` // job; "": encryption is declined
	Rules     []PostgresRule `yaml:"rules" default:""`
}

// PostgresRule is one routing rule. It converts to inspect.PostgresRule.
type PostgresRule struct {
	User     string `yaml:"user" default:""`     // "": any
	Database string `yaml:"database" default:""` // "": any
	Job      string `yaml:"job"`
}

func (p *Postgres) routes() []route {
	all := routesOf(p.Default, p.Rules, func(r PostgresRule) string { return r.Job })
	if p.Encrypted != "" {
		all = append(all, route{"encrypted", p.Encrypted})
	}
	return all
}

func (p *Postgres) problems() []ruleProblem { return nil }

func (p *Postgres) application() (inspect.Application, error) {
	rules := convert(p.Rules, func(r PostgresRule) inspect.PostgresRule { return inspect.PostgresRule(r) })
	return inspect.NewPostgres(inspect.PostgresConfig{Rules: rules, Default: p.Default, Encrypted: p.Encrypted})
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
	Job      string `yaml:"job"`
}

func redisRule(r RedisRule) inspect.RedisRule { return inspect.RedisRule(r) }

func (r *Redis) routes() []route {
	return routesOf(r.Default, r.Rules, func(r RedisRule) string { return r.Job })
}

func (r *Redis) problems() []ruleProblem {
	return problemsOf(convert(r.Rules, redisRule), map[error]string{inspect.ErrDatabase: "database", inspect.ErrCommand: "command"})
}

func (r *Redis) application() (inspect.Application, error) {
	return inspect.NewRedis(inspect.RedisConfig{Rules: convert(r.Rules, redisRule), Default: r.Default})
}

// Raw is the routing application for whatever begins with octets that tell.
type Raw struct {
	Default string    `yaml:"default" default:""` // job; "": none
	Octets  int       `yaml:"octets" default:"64" range:"1..4096"`
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
	return routesOf(r.Default, r.Rules, func(r RawRule) string { return r.Job })
}

func (r *Raw) problems() []ruleProblem {
	return problemsOf(convert(r.Rules, rawRule), map[error]string{inspect.ErrPattern: "pattern"})
}

func (r *Raw) application() (inspect.Application, error) {
	return inspect.NewRaw(inspect.RawConfig{Rules: convert(r.Rules, rawRule), Default: r.Default, Octets: r.Octets})
}
