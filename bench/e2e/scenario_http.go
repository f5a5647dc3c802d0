package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"baton/bench/judge"
	"baton/bench/lab"
)

// impatient is the usual cluster with a request timeout that a test can wait for.
func impatient() lab.Cluster {
	c := lab.TwoSites()
	c.Request = time.Second
	return c
}

// Request timing and sizes of these scenarios.
const (
	dripPause    = 8 * time.Millisecond // between two octets of a slow client
	largeHead    = 30_000               // below W
	tooLargeHead = 40_000               // above W
)

var httpScenarios = []Scenario{
	{
		Name:   "http-host",
		Doc:    "curl reaches the nginx that serves the Host it asks for, exact or by wildcard, on its one connection",
		Expect: Expect{Connections: 3, Transferred: 3},
		Run: func(e *Env) error {
			return e.curls([]fetched{
				{"a.example", "/", "t1"}, {"www.b.example", "/", "t2"}, {"x.y.b.example", "/q?x=1", "t2"},
			})
		},
	},
	{
		Name:   "http-path",
		Doc:    "the path decides where the Host does not",
		Expect: Expect{Connections: 4, Transferred: 4},
		Run: func(e *Env) error {
			return e.curls([]fetched{
				{"other.example", "/a/1", "t1"}, {"other.example", "/b/2", "t2"}, {"other.example", "/exact", "t2"},
				{"a.example", "/b/3", "t1"},
			})
		},
	},
	{
		Name:   "http-cookie",
		Doc:    "method, header, cookie and query decide where Host and path do not, or maps by them",
		Shape:  Shape{Cluster: byCookie},
		Expect: Expect{Connections: 9, Transferred: 9},
		Run:    runCookie,
	},
	{
		Name:   "unconditional",
		Doc:    "an unconditional transfer is one message: the target imports without having been asked",
		Shape:  Shape{Cluster: unconditional()},
		Expect: Expect{Connections: 2, Transferred: 2},
		Run:    runUnconditional,
	},
	{
		Name:   "http-split-request",
		Doc:    "a request split over many segments is inspected as one, and the split never shows",
		Expect: Expect{Connections: 1, Transferred: 1},
		Run: func(e *Env) error {
			request := lab.Request("a.example", "/split", "X-Padding: "+strings.Repeat("p", 4000))
			return e.pieces(request, 700, 0, "t1", "a.example", "/split")
		},
		Check: routerAcked(700),
	},
	{
		Name:   "http-slow-request",
		Doc:    "a request that drips in octet by octet is acknowledged at once, and handed over with its last octet",
		Expect: Expect{Connections: 1, Transferred: 1},
		Run: func(e *Env) error {
			return e.pieces(lab.Request("www.b.example", "/slow"), 1, dripPause, "t2", "www.b.example", "/slow")
		},
		Check: routerAcked(len(lab.Request("www.b.example", "/slow")) - 1),
	},
	{
		Name:   "http-large-head",
		Doc:    "a head just below the window is handed over, a larger one is refused with 431",
		Expect: Expect{Connections: 2, Transferred: 1},
		Run:    runLargeHead,
	},
	{
		Name:   "http-pipelined",
		Doc:    "two requests sent together for one job are both served by its target, in order",
		Expect: Expect{Connections: 1, Transferred: 1},
		Run:    runPipelined,
	},
	{
		Name:   "http-pipelined-mixed",
		Doc:    "two requests sent together for different jobs get 400 and are given to nobody",
		Expect: Expect{Connections: 1, Transferred: None},
		Run: func(e *Env) error {
			both := slices.Concat(lab.Request("a.example", "/1"), lab.Request("www.b.example", "/2"))
			return e.refused(both, 400)
		},
	},
	{
		Name:   "http-no-match",
		Doc:    "a request that no rule matches gets 404 and a clean close",
		Expect: Expect{Connections: 1, Transferred: None},
		Run:    func(e *Env) error { return e.refused(lab.Request("nobody.example", "/"), 404) },
	},
	{
		Name:   "http-timeout",
		Doc:    "a request that does not get complete in time gets 408 and a clean close",
		Shape:  Shape{Cluster: impatient()},
		Expect: Expect{Connections: 1, Transferred: None},
		Run: func(e *Env) error {
			began := time.Now()
			if err := e.refused([]byte("GET / HTTP/1.1\r\nHost: a.exam"), 408); err != nil {
				return err
			}
			if took := time.Since(began); took < 900*time.Millisecond || took > 2*time.Second {
				return fmt.Errorf("408 after %v, want about 1s", took)
			}
			return nil
		},
	},
	{
		Name:   "http-target-down",
		Doc:    "without a listener, and without its agent, a job answers 503; both back, it serves again",
		Shape:  Shape{NoBaton: true, Private: true},
		Expect: Expect{Transferred: 3},
		Run:    runTargetDown,
	},
}

// fetched is one request and who should serve it.
type fetched struct{ host, path, target string }

func (e *Env) curls(list []fetched) error {
	for _, f := range list {
		got, err := e.Curl(f.host, f.path)
		if err != nil {
			return err
		}
		if err := want(got.Response, f.target, f.host, f.path); err != nil {
			return err
		}
	}
	return nil
}

// pieces sends a request in pieces of n octets, a segment each, with a pause between them.
func (e *Env) pieces(request []byte, n int, pause time.Duration, target, host, path string) error {
	c, err := e.Dial()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // closed below when all went well
	for piece := range slices.Chunk(request, n) {
		if _, err := c.Write(piece); err != nil {
			return err
		}
		if err := e.sleep(pause); err != nil {
			return err
		}
	}
	r, err := lab.NewResponses(c).Next()
	if err != nil {
		return err
	}
	e.note(c.Local(), r)
	return errors.Join(want(r, target, host, path), c.Close())
}

// routerAcked checks that the router acknowledged at least n octets of the only connection.
func routerAcked(n int) func(*Env, judge.Report) error {
	return func(_ *Env, r judge.Report) error {
		if got := r.Conns[0].RouterAcked; got < n {
			return fmt.Errorf("the router acknowledged %d octets, want at least %d", got, n)
		}
		return nil
	}
}

// refused sends octets and expects the router's own answer, then the end of the connection.
func (e *Env) refused(request []byte, status int) error {
	c, err := e.Dial()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // closed below when all went well
	if _, err := c.Write(request); err != nil {
		return err
	}
	responses := lab.NewResponses(c)
	r, err := responses.Next()
	if err != nil {
		return err
	}
	return errors.Join(wantRefusal(r, status), responses.End(), c.Close())
}

func runLargeHead(e *Env) error {
	r, err := e.Fetch(lab.Request("a.example", "/large", "X-Padding: "+strings.Repeat("p", largeHead)))
	if err != nil {
		return err
	}
	if err := want(r, "t1", "a.example", "/large"); err != nil {
		return err
	}
	return e.refused(lab.Request("a.example", "/large", "X-Padding: "+strings.Repeat("p", tooLargeHead)), 431)
}

func runPipelined(e *Env) error {
	c, err := e.Dial()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // closed below when all went well
	both := slices.Concat(lab.Request("a.example", "/1"), lab.Request("a.example", "/2"))
	if _, err := c.Write(both); err != nil {
		return err
	}
	responses := lab.NewResponses(c)
	for _, path := range []string{"/1", "/2"} {
		r, err := responses.Next()
		if err != nil {
			return err
		}
		if err := want(r, "t1", "a.example", path); err != nil {
			return err
		}
		e.note(c.Local(), r)
	}
	return c.Close()
}

// nginxes starts nginx on every target, for scenarios that stop it. By host.
func (e *Env) nginxes() (map[string]*lab.Process, error) {
	servers := map[string]*lab.Process{}
	for _, h := range e.Lab.Targets {
		p, err := h.Nginx(e.Ctx, lab.ServerOptions{})
		if err != nil {
			return nil, err
		}
		servers[h.Name] = p
	}
	return servers, nil
}

// runTargetDown takes t2's server away, then its agent, and brings both back.
func runTargetDown(e *Env) error {
	servers, err := e.nginxes()
	if err != nil {
		return err
	}
	b, err := e.StartBaton(lab.TwoSites())
	if err != nil {
		return err
	}
	request := lab.Request("www.b.example", "/")
	up := func() error { return e.curls([]fetched{{"www.b.example", "/", "t2"}}) }
	down := func() error {
		return errors.Join(e.refused(request, 503), e.curls([]fetched{{"a.example", "/", "t1"}}))
	}
	if err := up(); err != nil {
		return fmt.Errorf("before: %w", err)
	}
	servers["t2"].Stop()
	if err := e.refused(request, 503); err != nil {
		return fmt.Errorf("without the server: %w", err)
	}
	b.Agents[1].Stop()
	if err := down(); err != nil {
		return fmt.Errorf("without the agent: %w", err)
	}
	if _, err := e.Target(2).Nginx(e.Ctx, lab.ServerOptions{}); err != nil {
		return err
	}
	if _, err := b.StartAgent(e.Ctx, e.Target(2)); err != nil {
		return err
	}
	if err := b.Ready(e.Ctx); err != nil {
		return err
	}
	if err := up(); err != nil {
		return fmt.Errorf("afterwards: %w", err)
	}
	return nil
}

// unconditional is the usual cluster, whose targets are not asked.
func unconditional() lab.Cluster {
	c := lab.TwoSites()
	c.Transfer = "unconditional"
	return c
}

// byCookie is the usual pair of sites, chosen by anything but Host and path.
var byCookie = func() lab.Cluster {
	c := lab.TwoSites()
	c.Section = `protocol: http
http:
  default: web-a
  rules:
    - { cookie: "session=b-*", job: web-b }
    - { header: "X-Tenant=~^b[0-9]$", job: web-b }
    - { query: version=2, job: web-b }
    - { method: DELETE, job: web-b }
    - { by: path, map: { /shop/: web-b, /shop/free: web-a } }
    - { by: cookie theme, map: { light: web-b } }`
	return c
}()

func runCookie(e *Env) error {
	for _, row := range []struct {
		target, path, method string
		args                 []string
	}{
		{"t2", "/", "GET", []string{"--cookie", "theme=dark; session=b-17"}},
		{"t1", "/", "GET", []string{"--cookie", "theme=dark; session=a-17"}},
		{"t2", "/", "GET", []string{"--header", "x-tenant: b1"}},
		{"t1", "/", "GET", []string{"--header", "x-tenant: b10"}},
		{"t2", "/?a=1&version=2", "GET", nil},
		{"t2", "/", "DELETE", []string{"--request", "DELETE"}},
		{"t2", "/shop/1", "GET", nil},
		{"t1", "/shop/free", "GET", nil},
		{"t2", "/", "GET", []string{"--cookie", "theme=light"}},
	} {
		got, err := e.Curl("a.example", row.path, row.args...)
		if err != nil {
			return err
		}
		if line := fmt.Sprintf("%s %s a.example %s\n", row.target, row.method, row.path); string(got.Response.Data) != line {
			return fmt.Errorf("%s %s with %q: %q, want %q", row.method, row.path, row.args, got.Response.Data, line)
		}
	}
	return nil
}

func runUnconditional(e *Env) error {
	if err := e.curls([]fetched{{"a.example", "/", "t1"}, {"www.b.example", "/", "t2"}}); err != nil {
		return err
	}
	return e.inOneMessage(2)
}

// inOneMessage checks that all connections, so many, were handed over by an offer that was the commit, too.
func (e *Env) inOneMessage(want int) error {
	transfers, err := e.Baton.Admin.Transfers(e.Ctx)
	if err != nil {
		return err
	}
	for _, t := range transfers {
		if t.Outcome != "switched" || t.Phases["accepted"] != 0 || t.Phases["confirmed"] == 0 {
			return fmt.Errorf("not one message: %+v", t)
		}
	}
	if len(transfers) != want {
		return fmt.Errorf("%d transfers, want %d", len(transfers), want)
	}
	return nil
}
