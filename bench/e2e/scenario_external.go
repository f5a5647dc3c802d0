package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"baton/bench/lab"
)

// externallyRouted is the usual cluster, whose routing applications are in other processes.
var externallyRouted = func() lab.Cluster {
	c := lab.TwoSites()
	c.Applications = true
	c.Section = "application: external"
	return c
}()

// siteRules are those of the Python routing application for the usual sites.
var siteRules = []string{"a.example=web-a", "www.b.example=web-b"}

var externalScenarios = []Scenario{
	{
		Name:   "external-router-python",
		Doc:    "a routing application in Python peeks at requests and hands them over; targets read them from the first octet",
		Shape:  Shape{Cluster: externallyRouted},
		Expect: Expect{Connections: 4, Transferred: 3},
		Run: func(e *Env) error {
			return e.withPython("router", func(p *lab.Process) error {
				err := e.curls([]fetched{{"a.example", "/", "t1"}, {"www.b.example", "/", "t2"}, {"a.example", "/2", "t1"}})
				if err != nil {
					return err
				}
				out, err := e.Curl("c.example", "/")
				if err != nil {
					return err
				}
				return errors.Join(refusedBy(out.Response, "router: unknown job"), p.Says(e.Ctx, "web-a accepted"))
			})
		},
	},
	{
		Name:   "data-queued-reject",
		Doc:    "a hand-over while octets are under way to the client is rejected by the stack; the application tells the client",
		Shape:  Shape{Cluster: externallyRouted},
		Expect: Expect{Connections: 1, Transferred: None},
		Run: func(e *Env) error {
			return e.withPython("router", func(p *lab.Process) error {
				r, err := e.interim("early.a.example", func() error { return p.Said("web-a rejected data queued") })
				if err != nil {
					return err
				}
				return refusedBy(r, "router: data queued")
			})
		},
	},
	{
		Name:   "transfer-quiesced",
		Doc:    "a hand-over asked for in the middle of an answer happens once the client has acknowledged it",
		Shape:  Shape{Cluster: externallyRouted},
		Expect: Expect{Connections: 1, Transferred: 1},
		Run: func(e *Env) error {
			return e.withPython("router", func(*lab.Process) error {
				r, err := e.interim("quiet.a.example", func() error { return nil })
				if err != nil {
					return err
				}
				return want(r, "t1", "quiet.a.example", "/")
			})
		},
	},
	{
		Name:   "peek-after-transfer",
		Doc:    "what the client sends after the head that the application peeked at comes after the transfer, to the target",
		Shape:  Shape{Cluster: externallyRouted},
		Expect: Expect{Connections: 1, Transferred: 1},
		Run: func(e *Env) error {
			return e.withPython("router", func(*lab.Process) error { return e.uploadInTwo("/upload/in-two", 20_000) })
		},
	},
	{
		Name:   "dpt-update",
		Doc:    "routing applications are told which target has a listener, at once and when it changes",
		Shape:  Shape{Cluster: externallyRouted, NoBaton: true, Private: true},
		Expect: Expect{Unjudged: true},
		Run:    runTableUpdate,
	},
	{
		Name:   "two-routers-one-port",
		Doc:    "two routing applications share a port: connections are dealt out in turn",
		Shape:  Shape{Cluster: externallyRouted},
		Expect: Expect{Connections: 6, Transferred: 6},
		Run:    runTwoRouters,
	},
	{
		Name:  "router-leaves",
		Doc:   "without a routing application no SYN is answered, and the request in its hands gets 503; it comes back and serves",
		Shape: Shape{Cluster: externallyRouted},
		Run:   runRouterLeaves,
	},
}

// withPython runs a routing application for the usual sites meanwhile.
func (e *Env) withPython(name string, meanwhile func(*lab.Process) error) error {
	p, err := e.Lab.Router.PythonRouter(e.Ctx, name, siteRules...)
	if err != nil {
		return err
	}
	defer p.Stop()
	return meanwhile(p)
}

// refusedBy wants 503 with a reason.
func refusedBy(r *lab.Response, why string) error {
	if r.StatusCode != 503 || !strings.Contains(string(r.Data), why) {
		return fmt.Errorf("got %d %q, want 503 and %q", r.StatusCode, r.Data, why)
	}
	return nil
}

// interim asks for a page whose answer begins with interim responses, and returns the final one. It reads nothing before
// the condition is met.
func (e *Env) interim(host string, when func() error) (*lab.Response, error) {
	c, err := e.Dial()
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }() // closed below when all went well
	if _, err := c.Write(lab.Request(host, "/")); err != nil {
		return nil, err
	}
	if err := lab.Until(e.Ctx, "the moment to read", when); err != nil {
		return nil, err
	}
	responses := lab.NewResponses(c)
	for n := 0; ; n++ {
		r, err := responses.Next()
		if err != nil {
			return nil, fmt.Errorf("after %d interim responses: %w", n, err)
		}
		if r.StatusCode != 102 {
			return r, errors.Join(sawInterim(n), c.Close())
		}
	}
}

// sawInterim wants all interim responses that the application sends.
func sawInterim(n int) error {
	if n != 50 {
		return fmt.Errorf("%d interim responses, want 50", n)
	}
	return nil
}

// uploadInTwo stores n octets at t1: half of them come with the head, half after the transfer.
func (e *Env) uploadInTwo(path string, n int) error {
	c, err := e.Dial()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // closed below when all went well
	data := lab.Data(n)
	head := fmt.Sprintf("PUT %s HTTP/1.1\r\nHost: a.example\r\nContent-Length: %d\r\n\r\n", path, n)
	if _, err := c.Write(append([]byte(head), data[:n/2]...)); err != nil {
		return err
	}
	if err := e.Settled(c.Local(), "t1"); err != nil {
		return err
	}
	if _, err := c.Write(data[n/2:]); err != nil {
		return err
	}
	r, err := lab.NewResponses(c).Next()
	if err != nil {
		return err
	}
	stored, err := os.ReadFile(e.Target(1).Path(path))
	if err != nil || r.StatusCode != 201 || !bytes.Equal(stored, data) {
		return errors.Join(err, fmt.Errorf("status %d, %d octets stored, want 201 and %d", r.StatusCode, len(stored), n))
	}
	return c.Close()
}

// runTableUpdate stops a target's server and starts it again.
func runTableUpdate(e *Env) error {
	servers, err := e.nginxes()
	if err != nil {
		return err
	}
	if _, err := e.StartBaton(externallyRouted); err != nil {
		return err
	}
	return e.withPython("router", func(p *lab.Process) error {
		told := func(row string, times int) error {
			return lab.Until(e.Ctx, "application is told of "+row, func() error {
				if n := strings.Count(p.Log(), row); n < times {
					return fmt.Errorf("%d times, want %d", n, times)
				}
				return nil
			})
		}
		if err := errors.Join(told("dpt web-a t1 ready", 1), told("dpt web-b t2 ready", 1)); err != nil {
			return err
		}
		servers["t2"].Stop()
		if err := told("dpt web-b t2 no", 1); err != nil {
			return err
		}
		ready := strings.Count(p.Log(), "dpt web-b t2 ready")
		if _, err := e.Target(2).Nginx(e.Ctx, lab.ServerOptions{}); err != nil {
			return err
		}
		return told("dpt web-b t2 ready", ready+1)
	})
}

func runTwoRouters(e *Env) error {
	return e.withPython("one", func(one *lab.Process) error {
		return e.withPython("two", func(two *lab.Process) error {
			for i := range 6 {
				f := fetched{"a.example", fmt.Sprintf("/%d", i), "t1"}
				if err := e.curls([]fetched{f}); err != nil {
					return err
				}
			}
			for _, p := range []*lab.Process{one, two} {
				if n := strings.Count(p.Log(), "web-a accepted"); n != 3 {
					return fmt.Errorf("%s handed over %d connections, want 3", p.Name, n)
				}
			}
			return nil
		})
	})
}

// runRouterLeaves ends the application while it has a connection whose request is not complete.
func runRouterLeaves(e *Env) error {
	if err := e.withPython("router", e.abandonedRequest); err != nil {
		return err
	}
	if err := e.unserved(); err != nil {
		return err
	}
	return e.withPython("again", func(*lab.Process) error { return e.curls([]fetched{{"a.example", "/back", "t1"}}) })
}

// unserved waits until the last routing application has left, and wants no SYN to be answered then.
func (e *Env) unserved() error {
	before, err := e.counter("drop", "service_closed")
	if err != nil {
		return err
	}
	err = e.Baton.Router.Says(e.Ctx, "no routing application is left")
	if err = errors.Join(err, e.sleep(100*time.Millisecond)); err != nil { // the poll loop takes the command
		return err
	}
	ctx, cancel := context.WithTimeout(e.Ctx, 1500*time.Millisecond)
	defer cancel()
	if c, err := e.Client.Dial(ctx, netip.AddrPort{}, netip.AddrPortFrom(lab.DVIPA, 80)); err == nil {
		_ = c.Close()
		return errors.New("a SYN was answered without a routing application")
	}
	after, err := e.counter("drop", "service_closed")
	if err != nil || after == before {
		return errors.Join(err, fmt.Errorf("service_closed stays at %d", after))
	}
	return nil
}

// abandonedRequest sends half a request and ends the application: the client is told.
func (e *Env) abandonedRequest(p *lab.Process) error {
	c, err := e.Dial()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // closed below when all went well
	if _, err := c.Write([]byte("GET /half HTTP/1.1\r\n")); err != nil {
		return err
	}
	if err := e.sleep(300 * time.Millisecond); err != nil {
		return err
	}
	p.Stop()
	r, err := lab.NewResponses(c).Next()
	if err != nil {
		return err
	}
	if r.StatusCode != 503 {
		return fmt.Errorf("got %d, want 503", r.StatusCode)
	}
	return c.Close()
}
