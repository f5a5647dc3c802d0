package inspect

import (
	"errors"
	"strings"
	"testing"
)

// requestWith is a request with a method, a target and header lines for a.example.
func requestWith(method, target string, lines ...string) string {
	return method + " " + target + " HTTP/1.1\r\nHost: a.example\r\n" + strings.Join(append(lines, "", ""), "\r\n")
}

func TestConditionsOfRules(t *testing.T) {
	h := newHTTP(t, "rest",
		Rule{Method: "POST", Host: "a.example", Path: "/api/", Choice: to("post")},
		Rule{Header: "X-Tenant=shop", Choice: to("shop")}, Rule{Header: "X-Tenant=~^[0-9]+$", Choice: to("number")}, Rule{Header: "X-Any", Choice: to("any")},
		Rule{Path: "/plain", Choice: to("plain")},
		Rule{Cookie: "s=b-*", Choice: to("cookie-b")}, Rule{Cookie: "beta", Query: "v=2", Choice: to("both")},
		Rule{Query: "q=a b", Choice: to("query")}, Rule{Path: "~^/u/[0-9]+$", Choice: to("regexp")}, Rule{Query: "deep=*x", Path: "/deep/", Choice: to("deep")})
	for _, row := range []struct{ name, request, job string }{
		{"method", requestWith("POST", "/api/x"), "post"},
		{"another method", requestWith("GET", "/api/x"), "rest"},
		{"method elsewhere", requestWith("POST", "/x"), "rest"},
		{"header", requestWith("GET", "/", "x-tenant: shop"), "shop"},
		{"second header", requestWith("GET", "/", "x-tenant: other", "X-Tenant:shop"), "shop"},
		{"header by expression", requestWith("GET", "/", "X-Tenant: 17"), "number"},
		{"header of another value", requestWith("GET", "/", "X-Tenant: x17"), "rest"},
		{"header that is there", requestWith("GET", "/", "x-any:"), "any"},
		{"order", requestWith("GET", "/plain", "Cookie: s=b-1"), "plain"},
		{"order, conditions first", requestWith("GET", "/plain", "X-Any: 1"), "any"},
		{"cookie", requestWith("GET", "/", "Cookie: a=1; s=b-1;c"), "cookie-b"},
		{"cookie of another name", requestWith("GET", "/", "Cookie: ss=b-1; S=b-1"), "rest"},
		{"cookie in the second field", requestWith("GET", "/", "Cookie: a=1", "Cookie: s=b-"), "cookie-b"},
		{"cookie and query", requestWith("GET", "/?a=1&v=2", "Cookie: beta"), "both"},
		{"cookie without query", requestWith("GET", "/?v=22", "Cookie: beta"), "rest"},
		{"encoded query", requestWith("GET", "/?%71=a+b"), "query"},
		{"encoded query again", requestWith("GET", "/x?q=a%20b"), "query"},
		{"query of a target without a path", requestWith("GET", "http://a.example?q=a+b"), "query"},
		{"path by expression", requestWith("GET", "/u/17?x"), "regexp"},
		{"path by expression in normal form", requestWith("GET", "/u/./%31"), "regexp"},
		{"path that is longer", requestWith("GET", "/u/17/x"), "rest"},
		{"query and path", requestWith("GET", "/deep/1?deep=xx"), "deep"},
		{"query and another path", requestWith("GET", "/deep?deep=xx"), "rest"},
		{"fragment of an encoding", requestWith("GET", "/?q=a%2"), "rest"},
		{"one job", requestWith("GET", "/", "X-Any: 1") + requestWith("GET", "/plain", "X-Any: 2"), "any"},
		{"two jobs", requestWith("GET", "/", "X-Any: 1") + requestWith("GET", "/"), "mixed"},
	} {
		for _, piece := range []int{1, 7, len(row.request)} {
			s := h.Session(window)
			var d Decision
			for n := piece; n < len(row.request)+piece; n += piece {
				d = s.Inspect([]byte(row.request[:min(n, len(row.request))]))
			}
			if outcome(d) != row.job {
				t.Errorf("%s, %d octets at a time: %s, want %s", row.name, piece, outcome(d), row.job)
			}
		}
	}
}

func TestBadConditions(t *testing.T) {
	for _, row := range []struct {
		rule Rule
		want error
	}{
		{Rule{Method: "post", Choice: to("j")}, ErrMethod}, {Rule{Method: "A B", Choice: to("j")}, ErrMethod}, {Rule{Header: "a b=c", Choice: to("j")}, ErrHeader},
		{Rule{Header: "=c", Choice: to("j")}, ErrHeader}, {Rule{Cookie: "c=~(", Choice: to("j")}, ErrCookie}, {Rule{Query: "?", Choice: to("j")}, ErrQuery},
		{Rule{Path: "~(", Choice: to("j")}, ErrPath}, {Rule{Header: "X=*a*", Choice: to("j")}, ErrHeader}, {Rule{Cookie: "x=a*b", Choice: to("j")}, ErrCookie},
	} {
		if err := row.rule.Check(); !errors.Is(err, row.want) {
			t.Errorf("%+v: %v, want %v", row.rule, err, row.want)
		}
	}
}

// A rule that asks for more hides nothing, and may be hidden.
func TestConditionsAreNotShadows(t *testing.T) {
	by := Shadowed([]Rule{{Host: "a.example", Header: "X", Choice: to("0")}, {Host: "a.example", Choice: to("1")}, {Host: "a.example", Query: "x", Choice: to("2")}})
	if by[0] != -1 || by[1] != -1 || by[2] != 1 {
		t.Errorf("%v", by)
	}
}
