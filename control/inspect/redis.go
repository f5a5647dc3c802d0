package inspect

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// RedisConfig is the configuration of Redis.
type RedisConfig struct {
	Rules   []RedisRule // the first that matches decides
	Default string      // job of clients that no rule matches; "": they are refused
}

// RedisRule sends clients to a job. Empty fields match everything.
type RedisRule struct {
	User     string // of AUTH or HELLO ... AUTH, as of a PostgresRule; AUTH without a user means "default"
	Database string // of SELECT: a number
	Command  string // the first command, in any case; with "*" at its end all that begin so
	By       string // what a map or a hash goes by: "user", which "" stands for, or "database"
	Choice          // who says neither in the first command goes on to the next rule
}

// Check returns why the rule cannot be used, as ErrUser, ErrDatabase, ErrCommand, ErrBy or an error of choices, or nil.
func (r RedisRule) Check() error {
	_, err := r.compile()
	return err
}

// redisRule is a compiled rule.
type redisRule struct {
	user              pattern
	database, command string
	byDatabase        bool
	Choice
}

func (r RedisRule) compile() (c redisRule, err error) {
	c = redisRule{database: r.Database, command: strings.ToUpper(r.Command), Choice: r.Choice}
	if c.user, err = parsePattern(r.User); err != nil {
		return c, fmt.Errorf("%w: %w", ErrUser, err)
	}
	by, err := r.goesBy(r.By, "user", "database")
	c.byDatabase = by == 1
	switch {
	case err != nil:
		return c, err
	case r.Database != "" && !isDigits(r.Database):
		return c, fmt.Errorf("%w: %q: want a number", ErrDatabase, r.Database)
	case strings.ContainsAny(strings.TrimSuffix(r.Command, "*"), "* \r\n"):
		return c, fmt.Errorf("%w: %q: want a word as in \"GET\"", ErrCommand, r.Command)
	}
	return c, r.check()
}

// job returns who serves a client with such a first command, "" if that is another rule's business.
func (r *redisRule) job(user, database, command string) string {
	switch {
	case !r.user.matches(user) || r.database != "" && r.database != database || !matchesCommand(r.command, command):
		return ""
	case r.byDatabase:
		return r.ofValue(database)
	}
	return r.ofValue(user)
}

// Redis routes connections of the Redis protocol (RESP, redis.io/docs/reference/protocol-spec) by their first command,
// which the target answers.
type Redis struct {
	rules    []redisRule
	fallback string
}

// NewRedis compiles the rules. It returns the error of the first one that Check refuses.
func NewRedis(c RedisConfig) (*Redis, error) {
	app := &Redis{fallback: c.Default}
	for i, r := range c.Rules {
		rule, err := r.compile()
		if err != nil {
			return nil, fmt.Errorf("compile rule %d: %w", i+1, err)
		}
		app.rules = append(app.rules, rule)
	}
	return app, nil
}

// Session implements Application.
func (r *Redis) Session(window int) Session { return &redisSession{redis: r, limit: window} }

// SpeaksFirst implements Application.
func (r *Redis) SpeaksFirst() bool { return false }

// job returns who serves a first command, or "", and the number of the rule.
func (r *Redis) job(words []string) (job string, number int) {
	command := strings.ToUpper(words[0])
	user, database := redisUser(command, words), ""
	if command == "SELECT" && len(words) == 2 {
		database = words[1]
	}
	for i := range r.rules {
		if job := r.rules[i].job(user, database, command); job != "" {
			return job, i + 1
		}
	}
	return r.fallback, 0
}

func matchesCommand(pattern, command string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(command, prefix)
	}
	return pattern == "" || pattern == command
}

// redisUser is the user that a command logs in, or "".
func redisUser(command string, words []string) string {
	switch {
	case command == "AUTH" && len(words) == 2:
		return "default"
	case command == "AUTH" && len(words) == 3:
		return words[1]
	case command == "HELLO":
		for i, w := range words {
			if strings.EqualFold(w, "AUTH") && i+1 < len(words) {
				return words[i+1]
			}
		}
	}
	return ""
}

const (
	redisInline = 4096 // octets of the longest inline command
	redisWords  = 64   // of a first command that are looked at; more decide nothing
)

// redisSession reads the first command.
type redisSession struct {
	redis   *Redis
	limit   int
	at      int      // everything before is read
	total   int      // words that the command has; 0: not known yet
	size    int      // of the word that is being read, octets; -1: its length has not come yet
	words   []string // read, up to redisWords
	read    int      // words read
	decided Decision
}

// Inspect implements Session.
func (s *redisSession) Inspect(data []byte) Decision {
	if s.decided.Verdict == NeedMore {
		s.decided = s.command(data)
		if s.decided.Verdict == NeedMore && len(data) >= s.limit {
			s.decided = s.route() // a long value: the command and its first words are there
		}
	}
	return s.decided
}

func (s *redisSession) command(data []byte) Decision {
	if len(data) == 0 {
		return Decision{}
	}
	if data[0] != '*' {
		return s.inline(data)
	}
	if s.total == 0 {
		n, ok, d := s.number(data, '*')
		if !ok {
			return d
		}
		if n == 0 || n > 1<<20 {
			return s.refuse(Malformed, "not a command of RESP")
		}
		s.total, s.size = n, -1
	}
	for s.read < s.total {
		if ok, d := s.word(data); !ok {
			return d
		}
	}
	return s.route()
}

// word reads the next word, of the form "$5\r\nhello\r\n".
func (s *redisSession) word(data []byte) (ok bool, d Decision) {
	if s.size < 0 {
		if s.size, ok, d = s.number(data, '$'); !ok {
			s.size = -1
			return false, d
		}
	}
	rest := data[s.at:]
	if len(rest) < s.size+2 {
		return false, Decision{}
	}
	if string(rest[s.size:s.size+2]) != "\r\n" {
		return false, s.refuse(Malformed, "not a command of RESP")
	}
	if len(s.words) < redisWords {
		s.words = append(s.words, string(rest[:s.size]))
	}
	s.at += s.size + 2
	s.read, s.size = s.read+1, -1
	return true, Decision{}
}

// number reads a line that holds one after its type.
func (s *redisSession) number(data []byte, kind byte) (n int, ok bool, d Decision) {
	rest := data[s.at:]
	if len(rest) > 0 && rest[0] != kind {
		return 0, false, s.refuse(Malformed, "not a command of RESP")
	}
	end := bytes.IndexByte(rest, '\n')
	if end < 0 && len(rest) < 16 {
		return 0, false, Decision{}
	}
	if end < 3 || end > 16 || rest[end-1] != '\r' || !isDigits(string(rest[1:end-1])) {
		return 0, false, s.refuse(Malformed, "not a command of RESP")
	}
	n, err := strconv.Atoi(string(rest[1 : end-1]))
	if err != nil || n > 512<<20 {
		return 0, false, s.refuse(Malformed, "not a command of RESP")
	}
	s.at += end + 1
	return n, true, Decision{}
}

// inline reads a command as people type it.
func (s *redisSession) inline(data []byte) Decision {
	end := bytes.IndexByte(data, '\n')
	switch {
	case end < 0 && len(data) < redisInline:
		return Decision{}
	case end < 0 || end > redisInline:
		return s.refuse(TooLarge, "inline command too long")
	}
	s.words = strings.Fields(string(data[:end]))
	if len(s.words) == 0 || strings.ContainsFunc(s.words[0], func(r rune) bool { return r < ' ' || r > '~' }) {
		return s.refuse(Malformed, "not a command of RESP")
	}
	return s.route()
}

func (s *redisSession) route() Decision {
	if len(s.words) == 0 {
		return s.refuse(TooLarge, "the first command does not fit into the window")
	}
	if job, rule := s.redis.job(s.words); job != "" {
		return Decision{Verdict: Route, Job: job, Rule: rule}
	}
	return s.refuse(NoMatch, "no rule for user, database and command")
}

func (s *redisSession) refuse(c Cause, detail string) Decision {
	return Decision{Verdict: Refuse, Cause: c, Detail: detail, Reply: s.Refusal(c)}
}

var redisErrors = [...]string{
	Malformed:   "-ERR Protocol error: not a command\r\n",
	NoMatch:     "-NOPERM nobody serves this user, database or command here\r\n",
	Timeout:     "-ERR no command within the time\r\n",
	TooLarge:    "-ERR Protocol error: too big\r\n",
	Unavailable: "-LOADING no server can take the connection now\r\n",
}

// Refusal implements Session.
func (s *redisSession) Refusal(c Cause) []byte {
	if int(c) >= len(redisErrors) || redisErrors[c] == "" {
		c = Unavailable
	}
	return []byte(redisErrors[c])
}
