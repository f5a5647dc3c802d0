package inspect

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// resp is a command as clients send it.
func resp(words ...string) string {
	s := fmt.Sprintf("*%d\r\n", len(words))
	for _, w := range words {
		s += fmt.Sprintf("$%d\r\n%s\r\n", len(w), w)
	}
	return s
}

func newRedis(t testing.TB, c RedisConfig) *Redis {
	t.Helper()
	r, err := NewRedis(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestFirstRedisCommandDecides(t *testing.T) {
	app := newRedis(t, RedisConfig{Default: "rest", Rules: []RedisRule{{User: "ann", Choice: to("ann's")},
		{User: "default", Choice: to("old")}, {Database: "3", Choice: to("three")}, {Command: "get", Choice: to("reads")}, {Command: "H*", Choice: to("hashes")}}})
	for _, row := range []struct{ name, said, want string }{
		{"AUTH", resp("AUTH", "ann", "secret"), "ann's"},
		{"case", resp("auth", "ann", "secret"), "ann's"},
		{"AUTH without user", resp("AUTH", "secret"), "old"},
		{"HELLO", resp("HELLO", "3", "AUTH", "ann", "secret", "SETNAME", "x"), "ann's"},
		{"HELLO without AUTH", resp("HELLO", "3"), "hashes"},
		{"SELECT", resp("SELECT", "3"), "three"},
		{"other database", resp("SELECT", "4"), "rest"},
		{"command", resp("GET", "x"), "reads"},
		{"prefix", resp("HSET", "k", "f", "v"), "hashes"},
		{"pipeline", resp("GET", "x") + resp("AUTH", "ann", "secret"), "reads"},
		{"inline", "GET x\r\n", "reads"},
		{"inline without CR", "AUTH ann secret\n", "ann's"},
		{"empty value", resp("SET", "k", ""), "rest"},
		{"value with line ends", resp("SET", "k", "\r\n$1\r\n"), "rest"},
		{"long value", resp("GET", strings.Repeat("x", 5000)), "reads"},
	} {
		for piece := 1; piece < 40; piece += 3 {
			if told, d, left := talk(app.Session(1000), row.said, piece); outcome(d) != row.want || told != "" || left != row.said {
				t.Errorf("%s, %d octets at a time: %s, %q", row.name, piece, outcome(d), told)
				break
			}
		}
	}
}

func TestWhatIsNoRedisCommandIsRefused(t *testing.T) {
	app := newRedis(t, RedisConfig{})
	for _, row := range []struct{ said, want string }{
		{"*0\r\n", "malformed"}, {"*x\r\n", "malformed"}, {"*-1\r\n", "malformed"}, {"*1\r\n:1\r\n", "malformed"},
		{"*1\r\n$3\r\nGETxx", "malformed"}, {"*1\n", "malformed"}, {"*99999999999999999\r\n", "malformed"}, {"\r\n", "malformed"},
		{"\x16\x03\x01\n", "malformed"}, {strings.Repeat("x", redisInline), "too_large"},
		{"*2\r\n$9999\r\n" + strings.Repeat("x", 10_000), "too_large"}, {resp("GET", "x"), "no_match"},
	} {
		told, d, _ := talk(app.Session(1000), row.said, 9)
		if outcome(d) != row.want || !strings.HasPrefix(told, "-") || !strings.HasSuffix(told, "\r\n") {
			t.Errorf("%.30q: %s, %q", row.said, outcome(d), told)
		}
	}
}

func TestRedisByPatternMapAndHash(t *testing.T) {
	shards := []string{"a", "b", "c"}
	app := newRedis(t, RedisConfig{Default: "rest", Rules: []RedisRule{
		{User: "shop-*", Choice: to("shops")},
		{Choice: Choice{Map: map[string]string{"ann": "ann's", "default": "old"}}},
		{By: "database", Choice: Choice{Map: map[string]string{"3": "three"}}},
		{By: "database", Choice: Choice{Hash: shards}},
		{Choice: Choice{Hash: shards}},
	}})
	for _, row := range []struct {
		said, job string
		rule      int
	}{
		{resp("AUTH", "shop-1", "x"), "shops", 1}, {resp("AUTH", "ann", "x"), "ann's", 2}, {resp("AUTH", "x"), "old", 2},
		{resp("SELECT", "3"), "three", 3}, {resp("SELECT", "7"), rendezvous(shards, "7"), 4},
		{resp("HELLO", "3", "AUTH", "eve", "x"), rendezvous(shards, "eve"), 5}, {resp("GET", "ann"), "rest", 0},
	} {
		if d := app.Session(window).Inspect([]byte(row.said)); outcome(d) != row.job || d.Rule != row.rule {
			t.Errorf("%q: %s by rule %d, want %s by %d", row.said, outcome(d), d.Rule, row.job, row.rule)
		}
	}
}

func TestBadRedisRules(t *testing.T) {
	for _, row := range []struct {
		rule RedisRule
		want error
	}{{RedisRule{Database: "x", Choice: to("j")}, ErrDatabase}, {RedisRule{Command: "GET x", Choice: to("j")}, ErrCommand}, {RedisRule{}, ErrJob},
		{RedisRule{User: "*x*", Choice: to("j")}, ErrUser}, {RedisRule{By: "key", Choice: Choice{Hash: []string{"j"}}}, ErrBy}} {
		if _, err := NewRedis(RedisConfig{Rules: []RedisRule{row.rule}}); !errors.Is(err, row.want) {
			t.Errorf("%+v: %v", row.rule, err)
		}
	}
}

func FuzzRedis(f *testing.F) {
	f.Add(resp("AUTH", "ann", "secret"), 5)
	f.Add("GET x\r\n", 2)
	app := newRedis(f, RedisConfig{Default: "rest", Rules: []RedisRule{{User: "ann", Choice: to("a")}}})
	f.Fuzz(func(t *testing.T, said string, piece int) {
		piece = 1 + max(piece, 0)%100
		_, whole, _ := talk(app.Session(1<<20), said, len(said)+1)
		_, split, _ := talk(app.Session(1<<20), said, piece)
		if outcome(whole) != outcome(split) {
			t.Errorf("%q: %s; %d at a time: %s", said, outcome(whole), piece, outcome(split))
		}
	})
}
