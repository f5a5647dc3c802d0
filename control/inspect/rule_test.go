package inspect

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestUnusableRulesSayWhatWouldBeRight(t *testing.T) {
	for _, row := range []struct {
		rule Rule
		want error
		text string // part of the message
	}{
		{Rule{Host: "a.example:80", Choice: to("j")}, ErrHost, `without the port, "a.example"`},
		{Rule{Host: "*", Choice: to("j")}, ErrHost, "leave the host out"},
		{Rule{Host: "a.*.example", Choice: to("j")}, ErrHost, `"*.example" for all below`},
		{Rule{Host: "*example", Choice: to("j")}, ErrHost, `"*.example" for all below`},
		{Rule{Host: "*.", Choice: to("j")}, ErrHost, "want a name"},
		{Rule{Host: "*..example", Choice: to("j")}, ErrHost, "want a name"},
		{Rule{Host: ".example", Choice: to("j")}, ErrHost, "want a name"},
		{Rule{Host: "http://a.example", Choice: to("j")}, ErrHost, "want a name"},
		{Rule{Host: strings.Repeat("a", 256), Choice: to("j")}, ErrHost, "want a name"},
		{Rule{Host: "2001:db8:0::1", Choice: to("j")}, ErrHost, `"[2001:db8::1]"`},
		{Rule{Host: "[2001:db8::1", Choice: to("j")}, ErrHost, "in brackets"},
		{Rule{Host: "[192.0.2.1]", Choice: to("j")}, ErrHost, "in brackets"},
		{Rule{Path: "x", Choice: to("j")}, ErrPath, `begins with a slash, "/x"`},
		{Rule{Path: "/x*", Choice: to("j")}, ErrPath, `'*' cannot match`},
		{Rule{Path: "/x/*/y", Choice: to("j")}, ErrPath, `'*' cannot match`},
		{Rule{Path: "/x?y", Choice: to("j")}, ErrPath, `'?' cannot match`},
		{Rule{Path: "/a b", Choice: to("j")}, ErrPath, `as %20`},
		{Rule{Path: "/a/../b", Choice: to("j")}, ErrPath, `write it as "/b"`},
		{Rule{Path: "/%7euser/", Choice: to("j")}, ErrPath, `write it as "/~user/"`},
		{Rule{Host: "a.example"}, ErrJob, "without a job"},
	} {
		t.Run(row.rule.Host+row.rule.Path, func(t *testing.T) {
			err := row.rule.Check()
			if !errors.Is(err, row.want) || !strings.Contains(err.Error(), row.text) {
				t.Errorf("%v, want %v with %q", err, row.want, row.text)
			}
			if _, err := NewHTTP(HTTPConfig{Rules: []Rule{row.rule}}); !errors.Is(err, row.want) {
				t.Errorf("NewHTTP: %v", err)
			}
		})
	}
}

func TestShadowedRules(t *testing.T) {
	rules := []Rule{
		{Host: "a.example", Path: "/x/", Choice: to("0")},
		{Host: "A.example.", Path: "/x/y", Choice: to("1")},
		{Host: "a.example", Path: "/x", Choice: to("2")},
		{Host: "*.example", Choice: to("3")},
		{Host: "a.example", Path: "/z", Choice: to("4")},
		{Host: "*.b.example", Path: "/", Choice: to("5")},
		{Host: "example", Choice: to("6")},
		{Path: "/any/*", Choice: to("7")},
		{Path: "/any/x/", Choice: to("8")},
		{Choice: to("9")},
		{Host: "a", Choice: to("10")},
		{Path: "bad", Choice: to("11")},
	}
	want := []int{-1, 0, -1, -1, 3, 3, -1, -1, 7, -1, 9, -1}
	if got := Shadowed(rules); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestSplitByPath(t *testing.T) {
	for _, row := range []struct {
		name     string
		rules    []Rule
		fallback string
		want     []int
	}{
		{"hosts only", []Rule{{Host: "a", Choice: to("x")}, {Host: "b", Choice: to("y")}}, "z", nil},
		{"path and default", []Rule{{Host: "a", Path: "/x", Choice: to("x")}}, "y", []int{0}},
		{"path and none", []Rule{{Host: "a", Path: "/x", Choice: to("x")}}, "", []int{0}},
		{"path and same default", []Rule{{Host: "a", Path: "/x", Choice: to("x")}}, "x", nil},
		{"two paths", []Rule{{Host: "a", Path: "/x", Choice: to("x")}, {Host: "a", Path: "/y", Choice: to("y")}}, "x", []int{0}},
		{"path and the rest of it", []Rule{{Host: "a", Path: "/x", Choice: to("x")}, {Host: "a", Choice: to("y")}}, "x", []int{0}},
		{"same job for the rest", []Rule{{Host: "a", Path: "/x", Choice: to("x")}, {Host: "a", Choice: to("x")}}, "y", nil},
		{"path of a wildcard", []Rule{{Host: "*.e", Path: "/x", Choice: to("x")}, {Host: "a.e", Choice: to("y")}}, "x", []int{0}},
		{"path of any host", []Rule{{Path: "/x", Choice: to("x")}, {Host: "a", Choice: to("y")}, {Choice: to("x")}}, "", []int{0}},
		{"path behind all of the host", []Rule{{Host: "a", Choice: to("x")}, {Host: "a", Path: "/x", Choice: to("y")}}, "z", nil},
		{"once for each host", []Rule{
			{Host: "a", Path: "/1", Choice: to("x")}, {Host: "a", Path: "/2", Choice: to("y")}, {Host: "b", Path: "/1", Choice: to("x")},
		}, "", []int{0, 2}},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := SplitByPath(row.rules, row.fallback); !slices.Equal(got, row.want) {
				t.Errorf("%v, want %v", got, row.want)
			}
		})
	}
}

// TestTableFindsWhatAScanFinds compares the lookup with one that tries the rules in their order.
func TestTableFindsWhatAScanFinds(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	pick := func(words ...string) string { return words[rng.IntN(len(words))] }
	for range 300 {
		var rules []Rule
		for i := range 1 + rng.IntN(12) {
			rules = append(rules, Rule{
				Host:   pick("", "a.b.c", "b.c", "*.b.c", "*.c", "x.c"),
				Path:   pick("", "/", "/p", "/p/", "/p/q", "/p/q/", "/r"),
				Choice: to(fmt.Sprint(i)),
			})
		}
		h := newHTTP(t, "none", rules...)
		for range 50 {
			host := pick("", "a.b.c", "b.c", "z.b.c", "c", "x.c")
			path := pick("", "/", "/p", "/p/", "/p/q", "/p/q/r", "/s")
			r := request{hostLen: len(host)}
			copy(r.host[:], host)
			got, number := h.job(&r, []byte(path), nil)
			if want := scan(rules, host, path); got != want || number > 0 && rules[number-1].Job != got {
				t.Fatalf("%q %q: rule %s (%d), want %s of %v", host, path, got, number, want, rules)
			}
		}
	}
}

func scan(rules []Rule, host, path string) string {
	for _, r := range rules {
		hostMatches := r.Host == "" || r.Host == host || r.Host[0] == '*' && strings.HasSuffix(host, r.Host[1:])
		prefix := strings.HasSuffix(r.Path, "/") && strings.HasPrefix(path, r.Path)
		if hostMatches && (r.Path == "" || r.Path == path || prefix) {
			return r.Job
		}
	}
	return "none"
}

func TestNormalFormOfPaths(t *testing.T) {
	for _, row := range []struct{ path, want string }{
		{"/", "/"}, {"//", "//"}, {"/a/b", "/a/b"}, {"/a/./b", "/a/b"}, {"/a/.", "/a/"}, {"/a/..", "/"}, {"/..", "/"},
		{"/../a", "/a"}, {"/a/../../b", "/b"}, {"/a/b/../c", "/a/c"}, {"/a/...", "/a/..."}, {"/a/.b", "/a/.b"},
		{"/a//../b", "/a/b"}, {"/%41", "/A"}, {"/%2e%2e/a", "/a"}, {"/.%2e/a", "/a"}, {"/a%2fb", "/a%2Fb"},
		{"/%252e", "/%252e"}, {"/%", "/%"}, {"/%2", "/%2"}, {"/%zz", "/%zz"}, {"/%%41", "/%A"}, {"/ä", "/ä"},
	} {
		got := string(normalizePath([]byte(row.path)))
		if got != row.want {
			t.Errorf("%q: %q, want %q", row.path, got, row.want)
		}
		if isNormalPath([]byte(row.path)) && got != row.path {
			t.Errorf("%q counts as normal", row.path)
		}
	}
}

// FuzzNormalizePath checks what matching relies on: a normal form is one, and does not grow.
func FuzzNormalizePath(f *testing.F) {
	f.Add("/a/../b/%2e%41//")
	f.Fuzz(func(t *testing.T, s string) {
		path := "/" + s
		once := normalizePath([]byte(path))
		if len(once) == 0 || once[0] != '/' || len(once) > len(path) {
			t.Fatalf("%q became %q", path, once)
		}
		if isNormalPath([]byte(path)) && string(once) != path {
			t.Errorf("%q counts as normal, is %q", path, once)
		}
	})
}
