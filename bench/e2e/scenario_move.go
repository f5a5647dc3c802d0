package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"baton/bench/judge"
	"baton/bench/lab"
	"baton/control/admin"
	"baton/fastpath/wire"
)

// Numbers of these scenarios.
const (
	shortKeepAlive = 150 * time.Millisecond
	earlyKeepAlive = 5 * time.Millisecond // shorter than a client's ACK may take
	movedRequests  = 6
)

// moving is a cluster whose idle connections come back.
func moving(c lab.Cluster) lab.Cluster {
	c.Reroute = true
	return c
}

// oneSite is a job on both targets, t1 first.
func oneSite() lab.Cluster {
	return lab.Cluster{
		Rules: []lab.Rule{{Host: "a.example", Job: "web"}},
		Jobs:  []lab.Job{{Name: "web", Hosts: []string{"t1", "t2"}}},
	}
}

var moveScenarios = []Scenario{
	{
		Name: "http-keepalive-reroute",
		Doc: "two hosts take turns on one connection of Python's client: nginx closes after each response, and the next " +
			"request is routed anew",
		Shape:  Shape{Cluster: moving(lab.TwoSites()), Server: impatientNginx},
		Expect: Expect{Connections: 1, Transferred: 1, Moves: true},
		Run:    runReroute,
		Check:  checkTurns,
	},
	{
		Name: "move-before-ack",
		Doc: "nginx closes before its client has acknowledged the response: the FIN waits for that, and the connection " +
			"goes from host to host as ever",
		Shape:  Shape{Cluster: moving(lab.TwoSites()), Server: hastyNginx},
		Expect: Expect{Connections: 1, Transferred: 1, Moves: true},
		Run:    runMoveBeforeACK,
		Check:  checkTurns,
	},
	{
		Name: "move-at-close-reload",
		Doc: "nginx -s reload keeps a client's idle connection for the new worker, -s quit moves it to another nginx: " +
			"the client sees no close",
		Shape:  Shape{Cluster: moving(oneSite()), Private: true},
		Expect: Expect{Connections: 1, Transferred: 1, Moves: true},
		Run:    runMoveAtReload,
	},
	{
		Name:   "move-close-passes",
		Doc:    "a close that client or server has announced reaches the client as ever",
		Shape:  Shape{Cluster: moving(lab.TwoSites()), Server: impatientNginx},
		Expect: Expect{Connections: 3, Transferred: 3, Moves: true},
		Run:    runClosePasses,
	},
	{
		Name:   "move-idle-ends",
		Doc:    "a connection that came back and has no next request is closed in the end, by the routing host",
		Shape:  Shape{Cluster: briefly(moving(lab.TwoSites())), Server: impatientNginx},
		Expect: Expect{Connections: 1, Transferred: 1, Moves: true},
		Run:    runIdleEnds,
	},
}

// briefly is a cluster that closes soon what came back.
func briefly(c lab.Cluster) lab.Cluster {
	c.Idle = 500 * time.Millisecond
	return c
}

// impatientNginx closes idle connections soon.
func impatientNginx(e *Env, h *lab.Host) error {
	_, err := h.Nginx(e.Ctx, lab.ServerOptions{KeepAlive: shortKeepAlive})
	return err
}

// hastyNginx closes before clients acknowledge.
func hastyNginx(e *Env, h *lab.Host) error {
	_, err := h.Nginx(e.Ctx, lab.ServerOptions{KeepAlive: earlyKeepAlive})
	return err
}

// keepalive is a client of Python's standard library: for each file that appears it makes a request on its one
// connection, and prints the port and what it got.
const keepalive = `
import http.client, os, sys, time
connection = http.client.HTTPConnection(sys.argv[1], 80)
for i, host in enumerate(sys.argv[3:]):
    while not os.path.exists(sys.argv[2] + str(i)):
        time.sleep(0.01)
    connection.request("GET", "/%d" % i, headers={"Host": host})
    port = connection.sock.getsockname()[1]
    response = connection.getresponse()
    print(i, port, response.status, response.read().decode().strip(), flush=True)
connection.close()
`

// turn is who asks for what in these scenarios, and who serves it.
func turn(i int) (host, target string) {
	if i%2 == 0 {
		return "a.example", "t1"
	}
	return "www.b.example", "t2"
}

func runReroute(e *Env) error {
	var hosts []string
	for i := range movedRequests {
		host, _ := turn(i)
		hosts = append(hosts, host)
	}
	gate := e.Client.Path("turn-")
	python, err := e.Client.Start("keepalive", append([]string{"/usr/bin/python3", "-c", keepalive, lab.DVIPA.String(), gate},
		hosts...)...)
	if err != nil {
		return err
	}
	for i := range movedRequests {
		if err := os.WriteFile(fmt.Sprintf("%s%d", gate, i), nil, 0o600); err != nil {
			return err
		}
		host, target := turn(i)
		line := fmt.Sprintf(" 200 %s GET %s /%d", target, host, i)
		if err := python.Says(e.Ctx, line); err != nil {
			return err
		}
		if i == movedRequests-1 {
			break
		}
		if err := e.cameBack(i + 1); err != nil {
			return err
		}
	}
	select {
	case <-python.Done():
	case <-e.Ctx.Done():
		return e.Ctx.Err()
	}
	return python.Exit()
}

// runMoveBeforeACK makes requests that are answered by the two hosts in turn, and has the client's kernel delay its ACKs
// of the responses by 40 ms.
func runMoveBeforeACK(e *Env) error {
	c, err := e.Dial()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // closed below when all went well
	responses := lab.NewResponses(c)
	for i := range movedRequests {
		host, target := turn(i)
		path := fmt.Sprintf("/%d", i)
		if err := c.DelayACKs(); err != nil {
			return err
		}
		if _, err := c.Write(lab.Request(host, path)); err != nil {
			return err
		}
		r, err := responses.Next()
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := errors.Join(want(r, target, host, path), e.cameBack(i+1)); err != nil {
			return err
		}
	}
	return errors.Join(c.Close(), e.wantWaited())
}

// wantWaited checks that FINs have waited at the targets, and that none has passed.
func (e *Env) wantWaited() error {
	var waited uint64
	for target := range 2 {
		closes, err := e.closed(target + 1)
		if err != nil {
			return err
		}
		waited += closes["waited"]
		if want := uint64(movedRequests / 2); closes["taken"] != want || closes["passed_unacknowledged"] != 0 {
			return fmt.Errorf("t%d: %v, want %d FINs taken and none that passed unacknowledged", target+1, closes, want)
		}
	}
	if waited == 0 {
		return errors.New("no FIN has waited: the client's ACKs were not late")
	}
	return nil
}

// cameBack waits until so many connections have come back since the daemon began.
func (e *Env) cameBack(n int) error {
	return lab.Until(e.Ctx, fmt.Sprintf("%d connections came back", n), func() error {
		got, err := e.counter("router", "taken_back")
		if err == nil && got < uint64(n) {
			err = fmt.Errorf("%d so far", got)
		}
		return err
	})
}

// checkTurns checks that the two targets had the connection in turn, and nobody else but the routing host between.
func checkTurns(e *Env, r judge.Report) error {
	var want []wire.MAC
	for i := range movedRequests {
		mac, err := e.Target(i%2 + 1).SeenMAC()
		if err != nil {
			return err
		}
		want = append(want, mac)
	}
	router, err := e.Lab.Router.MAC()
	if err != nil {
		return err
	}
	got := slices.DeleteFunc(slices.Clone(r.Conns[0].Owners), func(m wire.MAC) bool { return m == router })
	if !slices.Equal(got, want) {
		return fmt.Errorf("served by %v, want %v", got, want)
	}
	return nil
}

func runMoveAtReload(e *Env) error {
	c, err := e.Dial()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // closed below when all went well
	responses := lab.NewResponses(c)
	ask := func(path, target string) error {
		if _, err := c.Write(lab.Request("a.example", path)); err != nil {
			return err
		}
		r, err := responses.Next()
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		e.note(c.Local(), r)
		return want(r, target, "a.example", path)
	}
	if err := ask("/1", "t1"); err != nil {
		return err
	}
	if err := e.nginxSignal(1, "reload"); err != nil {
		return err
	}
	if err := e.cameBack(1); err != nil {
		return err
	}
	if err := errors.Join(e.wantOwner(c.Local(), "router"), ask("/2", "t1"), e.Settled(c.Local(), "t1")); err != nil {
		return err
	}
	if err := e.nginxSignal(1, "quit"); err != nil {
		return err
	}
	if err := e.cameBack(2); err != nil {
		return err
	}
	if err := errors.Join(ask("/3", "t2"), ask("/4", "t2"), c.Close()); err != nil {
		return err
	}
	return e.closes(1, map[string]uint64{"taken": 2})
}

// nginxSignal has a target's nginx told what to do, as its administrator would.
func (e *Env) nginxSignal(target int, signal string) error {
	h := e.Target(target)
	_, err := h.Run(e.Ctx, "nginx", "-e", "stderr", "-p", h.Dir(), "-c", h.Path("nginx.conf"), "-s", signal)
	return err
}

// wantOwner checks whose a connection is by the routing host's table.
func (e *Env) wantOwner(client netip.AddrPort, owner string) error {
	page, err := e.Baton.Admin.CRT(e.Ctx, admin.CRTQuery{Client: client.String()})
	if err != nil {
		return err
	}
	if len(page.Entries) != 1 || page.Entries[0].Owner != owner {
		return fmt.Errorf("entries of %v are %+v, want the owner %s", client, page.Entries, owner)
	}
	return nil
}

// closes waits for a target's counters of closes; those that are not named are to be 0, but for how often a FIN waited.
func (e *Env) closes(target int, want map[string]uint64) error {
	return lab.Until(e.Ctx, "closes are counted", func() error {
		counters, err := e.Target(target).Admin().Counters(e.Ctx)
		if err != nil {
			return err
		}
		for _, c := range counters {
			if c.Group == "close" && c.Name != "waited" && c.Value != want[c.Name] {
				return fmt.Errorf("%s %d, want %d", c.Name, c.Value, want[c.Name])
			}
		}
		return nil
	})
}

func runClosePasses(e *Env) error {
	before, err := e.closed(1)
	if err != nil {
		return err
	}
	requests := []string{
		"GET /1 HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n",
		"GET /2 HTTP/1.0\r\nHost: a.example\r\n\r\n",
		"GET /3 HTTP/1.0\r\nHost: a.example\r\nConnection: keep-alive\r\n\r\n",
	}
	for _, request := range requests {
		c, err := e.Dial()
		if err != nil {
			return err
		}
		if _, err := c.Write([]byte(request)); err != nil {
			return errors.Join(err, c.Close())
		}
		responses := lab.NewResponses(c)
		r, err := responses.Next()
		if err != nil {
			return errors.Join(err, c.Close())
		}
		e.note(c.Local(), r)
		path := strings.Fields(request)[1]
		if err := errors.Join(want(r, "t1", "a.example", path), responses.End(), c.Close()); err != nil {
			return err
		}
	}
	after, err := e.closed(1)
	if err != nil {
		return err
	}
	if said, taken := after["passed_said"]-before["passed_said"], after["taken"]-before["taken"]; said != 3 || taken != 0 {
		return fmt.Errorf("%d closes passed as announced and %d were taken, want 3 and none", said, taken)
	}
	return nil
}

// closed reads a target's counters of closes.
func (e *Env) closed(target int) (map[string]uint64, error) {
	counters, err := e.Target(target).Admin().Counters(e.Ctx)
	m := make(map[string]uint64)
	for _, c := range counters {
		if c.Group == "close" {
			m[c.Name] = c.Value
		}
	}
	return m, err
}

func runIdleEnds(e *Env) error {
	c, err := e.Dial()
	if err != nil {
		return err
	}
	if _, err := c.Write(lab.Request("a.example", "/1")); err != nil {
		return errors.Join(err, c.Close())
	}
	responses := lab.NewResponses(c)
	r, err := responses.Next()
	if err != nil {
		return errors.Join(err, c.Close())
	}
	return errors.Join(want(r, "t1", "a.example", "/1"), e.cameBack(1), responses.End(), c.Close())
}
