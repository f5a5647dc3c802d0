package inspect

import (
	"errors"
	"strings"
	"testing"
)

func mapTo(pairs ...string) Choice {
	m := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return Choice{Map: m}
}

func TestMapsOfRequests(t *testing.T) {
	hosts := mapTo("a.example", "a", "*.Example", "below", "*.b.example", "below b", "[2001:db8:0::1]", "six")
	for _, row := range []struct {
		name          string
		rule          Rule
		request, want string
	}{
		{"host", Rule{Choice: hosts}, "GET / HTTP/1.1\r\nHost: A.example:80\r\n\r\n", "a"},
		{"host in a target", Rule{Choice: hosts}, "GET http://a.example/ HTTP/1.1\r\nHost: x\r\n\r\n", "a"},
		{"name below", Rule{Choice: hosts}, "GET / HTTP/1.1\r\nHost: x.y.example\r\n\r\n", "below"},
		{"longest name above", Rule{Choice: hosts}, "GET / HTTP/1.1\r\nHost: x.b.example\r\n\r\n", "below b"},
		{"name itself is not below", Rule{Choice: hosts}, "GET / HTTP/1.1\r\nHost: example\r\n\r\n", "rest"},
		{"address", Rule{Choice: hosts}, "GET / HTTP/1.1\r\nHost: [2001:db8::1]:8080\r\n\r\n", "six"},
		{"no host", Rule{Choice: hosts}, "GET / HTTP/1.0\r\n\r\n", "rest"},
		{"another condition", Rule{Method: "POST", Choice: hosts}, requestWith("GET", "/"), "rest"},
		{"path", Rule{By: "path", Choice: mapTo("/x", "x", "/x/", "below x")}, requestWith("GET", "/x?/x/"), "x"},
		{"path below", Rule{By: "path", Choice: mapTo("/x", "x", "/x/", "below x")}, requestWith("GET", "/x/y/z"), "below x"},
		{"longest path", Rule{By: "path", Choice: mapTo("/*", "all", "/x/", "x")}, requestWith("GET", "/x/./y"), "x"},
		{"every path", Rule{By: "path", Choice: mapTo("/*", "all", "/x/", "x")}, requestWith("GET", "/y"), "all"},
		{"no such path", Rule{By: "path", Choice: mapTo("/x/", "x")}, requestWith("GET", "/x"), "rest"},
		{"header", Rule{By: "header X-Tenant", Choice: mapTo("shop", "s")}, requestWith("GET", "/", "x-tenant: shop"), "s"},
		{"first header", Rule{By: "header X-Tenant", Choice: mapTo("shop", "s")},
			requestWith("GET", "/", "x-tenant: other", "X-Tenant: shop"), "rest"},
		{"no header", Rule{By: "header X-Tenant", Choice: mapTo("shop", "s")}, requestWith("GET", "/"), "rest"},
		{"cookie", Rule{By: "cookie s", Choice: mapTo("1", "one")}, requestWith("GET", "/", "Cookie: t=2; s=1"), "one"},
		{"query", Rule{By: "query tenant", Choice: mapTo("a b", "ab")}, requestWith("GET", "/?x=1&tenant=a%20b"), "ab"},
		{"hash without its key", Rule{By: "cookie s", Choice: Choice{Hash: []string{"1", "2"}}}, requestWith("GET", "/"), "rest"},
		{"hash of one", Rule{By: "cookie s", Choice: Choice{Hash: []string{"1"}}}, requestWith("GET", "/", "Cookie: s=x"), "1"},
		{"hash of hosts without a host", Rule{Choice: Choice{Hash: []string{"1"}}}, "GET / HTTP/1.0\r\n\r\n", "rest"},
	} {
		s := newHTTP(t, "rest", row.rule).Session(window)
		if d := s.Inspect([]byte(row.request)); outcome(d) != row.want {
			t.Errorf("%s: %s, want %s", row.name, outcome(d), row.want)
		}
	}
}

func TestMapsKeepTheOrderOfRules(t *testing.T) {
	h := newHTTP(t, "", Rule{Host: "a.example", Path: "/first", Choice: to("first")}, Rule{Choice: mapTo("a.example", "map")},
		Rule{Host: "a.example", Choice: to("never")}, Rule{Host: "b.example", Choice: to("b")})
	for _, row := range []struct {
		host, path, job string
		rule            int
	}{{"a.example", "/first", "first", 1}, {"a.example", "/", "map", 2}, {"b.example", "/first", "b", 4}} {
		d := h.Session(window).Inspect([]byte("GET " + row.path + " HTTP/1.1\r\nHost: " + row.host + "\r\n\r\n"))
		if d.Job != row.job || d.Rule != row.rule {
			t.Errorf("%s%s: job %q by rule %d, want %q by %d", row.host, row.path, d.Job, d.Rule, row.job, row.rule)
		}
	}
}

func TestHashOfRequestsIsThatOfTheKey(t *testing.T) {
	jobs := []string{"1", "2", "3"}
	h := newHTTP(t, "", Rule{By: "header X-User", Choice: Choice{Hash: jobs}})
	seen := map[string]bool{}
	for _, user := range strings.Fields("ann bob carol dave eve frank grace heidi ivan judy") {
		d := h.Session(window).Inspect([]byte(requestWith("GET", "/"+user, "X-User: "+user)))
		if want := rendezvous(jobs, user); d.Job != want {
			t.Errorf("%s: job %q, want %q", user, d.Job, want)
		}
		seen[d.Job] = true
	}
	if len(seen) != len(jobs) {
		t.Errorf("ten users have the jobs %v only", seen)
	}
}

func TestBadKeys(t *testing.T) {
	for _, row := range []struct {
		rule Rule
		want error
		say  string
	}{
		{Rule{By: "hosts", Choice: mapTo("a", "j")}, ErrBy, "want host, path, header NAME"},
		{Rule{By: "header", Choice: mapTo("a", "j")}, ErrBy, "header NAME"},
		{Rule{By: "cookie a b", Choice: mapTo("a", "j")}, ErrBy, "cookie NAME"},
		{Rule{By: "host x", Choice: mapTo("a", "j")}, ErrBy, "want host"},
		{Rule{By: "path", Choice: to("j")}, ErrBy, "the rule has a job"},
		{Rule{Choice: mapTo("a.example:80", "j")}, ErrMap, "without the port"},
		{Rule{Choice: mapTo("A.example", "j", "a.example", "k")}, ErrMap, `"A.example" and "a.example" are the same`},
		{Rule{By: "path", Choice: mapTo("x", "j")}, ErrMap, "begins with a slash"},
		{Rule{By: "path", Choice: mapTo("~x", "j")}, ErrMap, "a regular expression"},
		{Rule{By: "path", Choice: mapTo("/x", "")}, ErrMap, `has the job ""`},
		{Rule{By: "query x"}, ErrJob, "want a job, a map or a hash"},
	} {
		if err := row.rule.Check(); !errors.Is(err, row.want) || !strings.Contains(err.Error(), row.say) {
			t.Errorf("%+v: error %v, want %v with %q", row.rule, err, row.want, row.say)
		}
	}
}

func TestRulesThatGoByAKeyShadowNothing(t *testing.T) {
	by := Shadowed([]Rule{{Host: "a.example", Choice: mapTo("a.example", "0")}, {Host: "a.example", Choice: to("1")},
		{Host: "a.example", Choice: mapTo("a.example", "2")}})
	if by[0] != -1 || by[1] != -1 || by[2] != 1 {
		t.Errorf("shadowed by %v, want none, none and the second", by)
	}
}

func TestMapsOfServerNames(t *testing.T) {
	app := newTLS(t, "rest", TLSRule{Choice: mapTo("a.example", "a", "*.b.example", "b")}, TLSRule{SNI: "*.example", Choice: to("other")})
	for sni, want := range map[string]string{"a.example": "a", "x.b.example": "b", "b.example": "other", "": "rest"} {
		if job, _ := app.job(&clientHello{sni: sni}); job != want {
			t.Errorf("%q: job %q, want %q", sni, job, want)
		}
	}
	if err := (TLSRule{Choice: mapTo("a b", "j")}).Check(); !errors.Is(err, ErrMap) {
		t.Errorf("error %v, want ErrMap", err)
	}
}
