package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"baton/bench/judge"
	"baton/bench/lab"
)

// tinyMSS is below what any kernel takes, octets (Linux: TCP_MIN_MSS).
const tinyMSS = 88

// oneInUserspace has t1 continue its connections in userspace, t2 in its kernel.
var oneInUserspace = Shape{Userspace: 1}

var userspaceScenarios = []Scenario{
	{
		Name:   "userspace-target-http",
		Doc:    "a target in userspace serves beside one with a kernel; its application knows the client, both ends close first",
		Shape:  oneInUserspace,
		Expect: Expect{Connections: 6, Transferred: 6},
		Run:    runUserspaceHTTP,
	},
	{
		Name:    "userspace-target-100MB",
		Doc:     "a target in userspace sends and receives 100 MB, every octet right",
		Shape:   oneInUserspace,
		Expect:  Expect{Connections: 2, Transferred: 2},
		Timeout: 3 * time.Minute,
		Run: func(e *Env) error {
			return e.inUserspace(2, func() error {
				return errors.Join(e.timed("down", func() error { return e.download(bulkSize) }),
					e.timed("up", func() error { return e.upload(bulkSize) }))
			})
		},
		Note: func(e *Env, _ judge.Report) string { return strings.Join(e.remarks, ", ") },
	},
	{
		Name:   "userspace-mss-tiny",
		Doc:    "a client with an MSS of 88 octets, which no kernel takes, is served by a target in userspace",
		Shape:  Shape{Userspace: 1, Private: true},
		Expect: Expect{Connections: 2, Transferred: 2},
		Run:    runTinyMSS,
		Check: func(_ *Env, r judge.Report) error {
			for _, c := range r.Conns {
				if c.Asked.MSS != tinyMSS {
					return fmt.Errorf("%v: the client's MSS is %d, want %d", c, c.Asked.MSS, tinyMSS)
				}
			}
			return nil
		},
	},
	{
		Name:   "userspace-application-gone",
		Doc:    "without its application a target in userspace takes nothing: 503, then 200 once it is back",
		Shape:  Shape{Userspace: 1, NoBaton: true, Private: true},
		Expect: Expect{Connections: 2, Transferred: 1},
		Run:    runUserspaceApplicationGone,
	},
}

// timed remarks how fast octets went.
func (e *Env) timed(way string, transfer func() error) error {
	start := time.Now()
	if err := transfer(); err != nil {
		return fmt.Errorf("%s: %w", way, err)
	}
	took := time.Since(start)
	e.remarks = append(e.remarks, fmt.Sprintf("%s %.0f Mbit/s with curl's start", way, bulkSize*8/took.Seconds()/1e6))
	return nil
}

// inUserspace makes traffic of which the stack of t1 has to take so many connections, and to be rid of them in the end.
func (e *Env) inUserspace(connections uint64, traffic func() error) error {
	t1 := e.Target(1).Admin()
	imported := func() (n uint64, err error) {
		counters, err := t1.Counters(e.Ctx)
		for _, c := range counters {
			if c.Group == "stack" && c.Name == "imported" {
				n += c.Value
			}
		}
		return n, err
	}
	before, err := imported()
	if err := errors.Join(err, traffic()); err != nil {
		return err
	}
	after, err := imported()
	if err != nil {
		return err
	}
	if after-before != connections {
		return fmt.Errorf("the stack took %d connections, want %d", after-before, connections)
	}
	return lab.Until(e.Ctx, "the stack is rid of its connections", func() error {
		flows, err := t1.Flows(e.Ctx)
		if err == nil && len(flows) > 0 {
			err = fmt.Errorf("it has %+v", flows)
		}
		return err
	})
}

func runUserspaceHTTP(e *Env) error {
	return e.inUserspace(4, func() error {
		return errors.Join(
			e.knownClient("a.example", "t1"), e.knownClient("www.b.example", "t2"),
			e.curls([]fetched{{"a.example", "/page", "t1"}, {"www.b.example", "/page", "t2"}}),
			e.keptAlive(), e.serverCloses())
	})
}

// knownClient fetches a page and compares whom the application took for its client.
func (e *Env) knownClient(host, target string) error {
	got, err := e.Curl(host, "/who")
	if err != nil {
		return err
	}
	if err := want(got.Response, target, host, "/who"); err != nil {
		return err
	}
	if client := got.Response.Header.Get("X-Client"); client != got.Local.String() {
		return fmt.Errorf("%s takes its client for %q, it is %v", target, client, got.Local)
	}
	return nil
}

// keptAlive makes several requests on one connection, and the client closes.
func (e *Env) keptAlive() error {
	c, err := e.Dial()
	if err != nil {
		return err
	}
	for i := range 5 {
		path := fmt.Sprintf("/request-%d", i)
		r, err := lab.RoundTrip(e.Ctx, c, lab.Request("a.example", path))
		if err == nil {
			err = want(r, "t1", "a.example", path)
		}
		if err != nil {
			return errors.Join(err, c.Close())
		}
	}
	return c.Close()
}

// serverCloses makes a request after which the application closes first.
func (e *Env) serverCloses() error {
	c, err := e.Dial()
	if err != nil {
		return err
	}
	if _, err := c.Write(lab.Request("a.example", "/last", "Connection: close")); err != nil {
		return errors.Join(err, c.Close())
	}
	responses := lab.NewResponses(c)
	r, err := responses.Next()
	if err == nil {
		err = errors.Join(want(r, "t1", "a.example", "/last"), responses.End())
	}
	return errors.Join(err, c.Close())
}

func runTinyMSS(e *Env) error {
	_, err := e.Client.Run(e.Ctx, "ip", "route", "replace", lab.DVIPA.String(), "dev", lab.DataInterface,
		"advmss", fmt.Sprint(tinyMSS))
	if err != nil {
		return err
	}
	return e.inUserspace(2, func() error {
		return errors.Join(e.knownClient("a.example", "t1"), e.download(200_000))
	})
}

func runUserspaceApplicationGone(e *Env) error {
	t1, t2 := e.Target(1), e.Target(2)
	application, err := t1.Nginx(e.Ctx, lab.ServerOptions{})
	if err := errors.Join(err, nginx(e, t2)); err != nil {
		return err
	}
	b, err := e.StartBaton(lab.Cluster{})
	if err != nil {
		return err
	}
	e.Baton = b
	application.Stop()
	notReady := func(ready bool) error {
		return lab.Until(e.Ctx, fmt.Sprintf("t1 is ready: %v", ready), func() error {
			targets, err := b.Admin.Targets(e.Ctx)
			for _, t := range targets {
				if t.Host == "t1" && t.Ready != ready {
					err = fmt.Errorf("ready %v: %s", t.Ready, t.Reason)
				}
			}
			return err
		})
	}
	if err := errors.Join(notReady(false), e.refused(lab.Request("a.example", "/"), 503)); err != nil {
		return err
	}
	if err := nginx(e, t1); err != nil {
		return err
	}
	if err := notReady(true); err != nil {
		return err
	}
	return e.knownClient("a.example", "t1")
}
