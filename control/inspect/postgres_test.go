package inspect

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

// startup is a message of PostgreSQL without a type: parameters separated by spaces.
func startup(code uint32, parameters string) string {
	body := ""
	if parameters != "" {
		body = strings.ReplaceAll(parameters, " ", "\x00") + "\x00\x00"
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	return string(binary.BigEndian.AppendUint32(b, code)) + body
}

const postgres3 = 3 << 16

func newPostgres(t testing.TB, c PostgresConfig) *Postgres {
	t.Helper()
	p, err := NewPostgres(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPostgresDialogue(t *testing.T) {
	rules := []PostgresRule{{Database: "shop", User: "ann", Choice: to("ann's")}, {Database: "shop", Choice: to("shop")},
		{User: "bob", Choice: to("bob's")}}
	declined := newPostgres(t, PostgresConfig{Rules: rules})
	encrypted := newPostgres(t, PostgresConfig{Rules: rules, Default: "rest", Encrypted: "tls"})
	shop, tls, gss := startup(postgres3, "user eve database shop"), startup(postgresTLS, ""), startup(postgresGSS, "")
	for _, row := range []struct {
		name                      string
		app                       *Postgres
		said, told, outcome, left string
	}{
		{"database", declined, shop, "", "shop", shop},
		{"with a query in hand", declined, shop + "Q", "", "shop", shop + "Q"},
		{"both", declined, startup(postgres3, "database shop user ann"), "", "ann's", startup(postgres3, "database shop user ann")},
		{"user", declined, startup(postgres3, "user bob database x"), "", "bob's", startup(postgres3, "user bob database x")},
		{"database called as the user", declined, startup(postgres3, "user shop"), "", "shop", startup(postgres3, "user shop")},
		{"protocol 3.2", declined, startup(postgres3+2, "user shop"), "", "shop", startup(postgres3+2, "user shop")},
		{"TLS declined", declined, tls + shop, "N", "shop", shop},
		{"both declined", declined, gss + tls + shop, "NN", "shop", shop},
		{"TLS routed", encrypted, tls + "hello", "", "tls", tls + "hello"},
		{"default", encrypted, startup(postgres3, "user x"), "", "rest", startup(postgres3, "user x")},
		{"cancel", declined, startup(postgresCancel, "") + "12345678", "", "end", ""},
		{"incomplete", declined, shop[:20], "", "need more", shop[:20]},
	} {
		for piece := 1; piece < 60; piece += 3 {
			told, d, left := talk(row.app.Session(1000), row.said, piece)
			if told != row.told || outcome(d) != row.outcome || left != row.left {
				t.Errorf("%s, %d octets at a time: told %q, %s, left %q", row.name, piece, told, outcome(d), left)
				break
			}
		}
	}
}

func TestPostgresRefusals(t *testing.T) {
	p := newPostgres(t, PostgresConfig{Rules: []PostgresRule{{Database: "shop", Choice: to("shop")}}})
	tls := startup(postgresTLS, "")
	for _, row := range []struct{ name, said, outcome, code string }{
		{"no rule", startup(postgres3, "user eve database other"), "no_match", "3D000"},
		{"HTTP", "GET / HTTP/1.1\r\n", "malformed", "08P01"},
		{"ClientHello at once", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc", "malformed", "08P01"},
		{"too short", "\x00\x00\x00\x07\x00\x03\x00\x00", "malformed", "08P01"},
		{"protocol 2", startup(2<<16, "user eve"), "version", "0A000"},
		{"no user", startup(postgres3, "database shop"), "malformed", "08P01"},
		{"no end", "\x00\x00\x00\x0d\x00\x03\x00\x00user\x00", "malformed", "08P01"},
		{"empty", startup(postgres3, ""), "malformed", "08P01"},
		{"encryption again and again", tls + tls + tls, "malformed", "08P01"},
		{"longer than the window", startup(postgres3, "user "+strings.Repeat("x", 2000)), "too_large", "08P01"},
	} {
		told, d, _ := talk(p.Session(1000), row.said, 8)
		if outcome(d) != row.outcome || !strings.Contains(told, "\x00C"+row.code+"\x00") {
			t.Errorf("%s: %s, %q", row.name, outcome(d), told)
		}
	}
}

func TestPostgresRefusesEveryCause(t *testing.T) {
	s := newPostgres(t, PostgresConfig{}).Session(1000)
	for c := Malformed; c <= Version; c++ {
		b := s.Refusal(c)
		if b[0] != 'E' || int(binary.BigEndian.Uint32(b[1:])) != len(b)-1 || !strings.HasSuffix(string(b), "\x00\x00") {
			t.Errorf("%v: %q", c, b)
		}
	}
}

func TestPostgresByPatternMapAndHash(t *testing.T) {
	p := newPostgres(t, PostgresConfig{Default: "rest", Rules: []PostgresRule{
		{User: "shop-*", Choice: to("shops")},
		{Database: "~^log[0-9]+$", Choice: to("logs")},
		{User: "*-admin", By: "user", Choice: Choice{Map: map[string]string{"x-admin": "x"}}},
		{Choice: Choice{Map: map[string]string{"crm": "crm", "ann": "ann's"}}},
		{Database: "*_eu", Choice: Choice{Hash: []string{"a", "b", "c"}}},
		{User: "tenant*", By: "user", Choice: Choice{Hash: []string{"a", "b", "c"}}},
	}})
	for _, row := range []struct {
		user, database, job string
		rule                int
	}{
		{"shop-1", "crm", "shops", 1}, {"eve", "log12", "logs", 2}, {"eve", "log", "rest", 0}, {"x-admin", "db", "x", 3},
		{"y-admin", "crm", "crm", 4}, {"ann", "ann", "ann's", 4}, {"eve", "CRM", "rest", 0},
		{"eve", "shop_eu", rendezvous([]string{"a", "b", "c"}, "shop_eu"), 5}, {"tenant1", "x", rendezvous([]string{"a", "b", "c"}, "tenant1"), 6},
	} {
		d := p.Session(window).Inspect([]byte(startup(postgres3, "user "+row.user+" database "+row.database)))
		if outcome(d) != row.job || d.Rule != row.rule {
			t.Errorf("%s at %s: %s by rule %d, want %s by %d", row.user, row.database, outcome(d), d.Rule, row.job, row.rule)
		}
	}
}

func TestBadPostgresRules(t *testing.T) {
	for _, row := range []struct {
		rule PostgresRule
		want error
	}{
		{PostgresRule{User: "a*b", Choice: to("j")}, ErrUser}, {PostgresRule{Database: "~(", Choice: to("j")}, ErrDatabase},
		{PostgresRule{By: "host", Choice: Choice{Hash: []string{"j"}}}, ErrBy}, {PostgresRule{By: "user", Choice: to("j")}, ErrBy},
		{PostgresRule{Choice: Choice{Map: map[string]string{"": "j"}}}, ErrMap},
	} {
		if _, err := NewPostgres(PostgresConfig{Rules: []PostgresRule{row.rule}}); !errors.Is(err, row.want) {
			t.Errorf("%+v: %v, want %v", row.rule, err, row.want)
		}
	}
}

func TestPostgresRuleWithoutJob(t *testing.T) {
	if _, err := NewPostgres(PostgresConfig{Rules: []PostgresRule{{User: "x"}}}); !errors.Is(err, ErrJob) {
		t.Error(err)
	}
}

func FuzzPostgres(f *testing.F) {
	f.Add(startup(postgresTLS, "")+startup(postgres3, "user eve database shop"), 5)
	p := newPostgres(f, PostgresConfig{Rules: []PostgresRule{{Database: "shop", Choice: to("shop")}}})
	f.Fuzz(func(t *testing.T, said string, piece int) {
		piece = 1 + max(piece, 0)%100
		told, whole, left := talk(p.Session(1000), said, len(said)+1)
		told2, split, left2 := talk(p.Session(1000), said, piece)
		if told != told2 || outcome(whole) != outcome(split) || left != left2 {
			t.Errorf("%q: told %q, %s; %d at a time: told %q, %s", said, told, outcome(whole), piece, told2, outcome(split))
		}
	})
}
