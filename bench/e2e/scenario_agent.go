package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"baton/bench/lab"
	"baton/control/admin"
	"baton/fastpath/wire"
)

// Numbers of these scenarios.
const (
	strays        = 20   // segments sent to a target that has no connection for them
	backlog       = 2    // of a listener that does not accept
	backlogBurst  = 12   // clients at once
	smallReceive  = 4096 // SO_RCVBUF of a listener whose first window is below W
	agentPatience = 10 * time.Second
)

// bothServe lets the second target take over when the first one's agent is gone.
func bothServe() lab.Cluster {
	c := lab.TwoSites()
	c.Jobs[0].Hosts = []string{"t1", "t2"}
	return c
}

var agentScenarios = []Scenario{
	{
		Name:   "agent-restart",
		Doc:    "an agent that is restarted keeps its connections, lets no stray reach the listener, and serves again",
		Shape:  Shape{Private: true},
		Expect: Expect{Transferred: 2, Retransmissions: true},
		Run: func(e *Env) error {
			return e.withoutAgent(e.Baton.Agents[0].Stop, func(request []byte) error { return e.refused(request, 503) })
		},
	},
	{
		Name:   "agent-killed",
		Doc:    "so does one that was killed, and meanwhile another host serves the job",
		Shape:  Shape{Private: true, Cluster: bothServe()},
		Expect: Expect{Transferred: 3, Retransmissions: true},
		Run: func(e *Env) error {
			return e.withoutAgent(e.Baton.Agents[0].Kill, func(request []byte) error {
				r, err := e.Fetch(request)
				if err != nil {
					return err
				}
				return want(r, "t2", "a.example", "/meanwhile")
			})
		},
	},
	{
		Name:   "mptcp-listener-refused",
		Doc:    "a listener with MPTCP cannot take connections: 503, and the reason says what to set",
		Shape:  Shape{NoBaton: true, Private: true},
		Expect: Expect{Transferred: None},
		Run: func(e *Env) error {
			c := net.ListenConfig{}
			c.SetMultipathTCP(true)
			return e.listenerRefused(c, "mptcp")
		},
	},
	{
		Name:   "small-window-listener-refused",
		Doc:    "a listener whose first window is below W would take announced octets back: 503, and the reason says so",
		Shape:  Shape{NoBaton: true, Private: true},
		Expect: Expect{Transferred: None},
		Run: func(e *Env) error {
			c := net.ListenConfig{Control: smallBuffer}
			c.SetMultipathTCP(false)
			return e.listenerRefused(c, "window")
		},
	},
	{
		Name:   "backlog-full",
		Doc:    "a burst at a listener whose backlog is full ends in responses or 503, never in silence",
		Shape:  Shape{NoBaton: true, Private: true},
		Expect: Expect{Retransmissions: true},
		Run:    runBacklogFull,
	},
	{
		Name:   "conntrack-target",
		Doc:    "a target whose firewall drops what conntrack calls invalid serves all the same",
		Shape:  Shape{Private: true},
		Expect: Expect{Connections: 11, Transferred: 11},
		Run:    runConntrack,
	},
	{
		Name:   "late-end-report",
		Doc:    "the end of an older connection on the same port, reported late, does not end the newer one",
		Shape:  Shape{Private: true},
		Expect: Expect{Connections: 2, Transferred: 2},
		Run:    runLateEndReport,
	},
}

// withoutAgent keeps a connection open at t1 while its agent goes away and comes back. meanwhile makes a request for
// t1's job.
func (e *Env) withoutAgent(goAway func(), meanwhile func(request []byte) error) error {
	c, err := e.Dial()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // closed below when all went well
	ask := func(path string) error {
		r, err := lab.RoundTrip(e.Ctx, c, lab.Request("a.example", path))
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		e.note(c.Local(), r)
		return want(r, "t1", "a.example", path)
	}
	if err := errors.Join(ask("/before"), e.Settled(c.Local(), "t1")); err != nil {
		return err
	}
	goAway()
	err = errors.Join(ask("/without"), e.strayTo(e.Target(1), wire.ACK, wire.SYN, wire.ACK|wire.FIN, wire.ACK|wire.PSH), meanwhile(lab.Request("a.example", "/meanwhile")))
	if err != nil {
		return err
	}
	if _, err := e.Baton.StartAgent(e.Ctx, e.Target(1)); err != nil {
		return err
	}
	if err := e.Baton.Ready(e.Ctx); err != nil {
		return err
	}
	if err := errors.Join(ask("/again"), c.Close()); err != nil {
		return err
	}
	return e.curls([]fetched{{"a.example", "/new", "t1"}})
}

// strayTo sends segments of connections that do not exist straight to a target: it must not answer, not even with RST.
func (e *Env) strayTo(h *lab.Host, flags ...wire.Flags) (err error) {
	raw, err := e.Client.Raw(rawAddress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, raw.Close()) }()
	mac, err := h.MAC()
	if err != nil {
		return err
	}
	for i := range strays {
		c := raw.ConnVia(mac, uint16(21000+i), service, wire.Options{})
		if err := c.Send(flags[i%len(flags)], nil); err != nil {
			return err
		}
	}
	return e.sleep(100 * time.Millisecond) // answers would have come; the judge sees them
}

func smallBuffer(_, _ string, raw syscall.RawConn) error {
	var err error
	if e := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, smallReceive)
	}); e != nil {
		return e
	}
	return err
}

// listenerRefused gives t1 a listener that cannot take connections, and t2 an ordinary one.
func (e *Env) listenerRefused(c net.ListenConfig, word string) error {
	l, err := e.Target(1).ListenConfig(c, ":80")
	if err != nil {
		return err
	}
	e.Target(1).Go(l)
	if err := nginx(e, e.Target(2)); err != nil {
		return err
	}
	b, err := e.LaunchBaton(lab.TwoSites())
	if err != nil {
		return err
	}
	if err := e.untilTarget(b, "t1", func(t admin.Target) bool {
		return t.Connected && !t.Ready && strings.Contains(strings.ToLower(t.Reason), word)
	}); err != nil {
		return err
	}
	return e.refused(lab.Request("a.example", "/"), 503)
}

// untilTarget waits until the routing host's row of a target host is as it should be.
func (e *Env) untilTarget(b *lab.Baton, host string, good func(admin.Target) bool) error {
	ctx, cancel := context.WithTimeout(e.Ctx, agentPatience)
	defer cancel()
	return lab.Until(ctx, "the row of "+host+" is right", func() error {
		targets, err := b.Admin.Targets(ctx)
		if err != nil {
			return err
		}
		for _, t := range targets {
			if t.Host == host && good(t) {
				return nil
			}
		}
		return fmt.Errorf("targets are %+v", targets)
	})
}

// runBacklogFull lets a burst of clients meet a listener that accepts nobody for a second.
func runBacklogFull(e *Env) error {
	if _, err := e.Target(1).SetSysctl("net.core.somaxconn", fmt.Sprint(backlog)); err != nil {
		return err
	}
	l, err := e.Target(1).Listen(":80")
	if err != nil {
		return err
	}
	if err := nginx(e, e.Target(2)); err != nil {
		return err
	}
	if _, err := e.StartBaton(lab.TwoSites()); err != nil {
		return err
	}
	served := time.AfterFunc(time.Second, func() { e.Target(1).Go(l) })
	defer served.Stop()
	statuses := make(chan int, backlogBurst)
	errs := make(chan error, backlogBurst)
	for range backlogBurst {
		go func() {
			r, err := e.Fetch(lab.Request("a.example", "/burst"))
			if err == nil {
				statuses <- r.StatusCode
			}
			errs <- err
		}()
	}
	var all []error
	for range backlogBurst {
		all = append(all, <-errs)
	}
	close(statuses)
	count := map[int]int{}
	for s := range statuses {
		count[s]++
	}
	if err := errors.Join(all...); err != nil {
		return err
	}
	if count[200]+count[503] != backlogBurst || count[200] == 0 {
		return fmt.Errorf("statuses %v, want only 200 and 503", count)
	}
	return nil
}

// dropInvalid is a firewall as many hosts have it.
const dropInvalid = `
table inet filter {
	chain input {
		type filter hook input priority 0; policy accept;
		ct state invalid counter drop
	}
}
`

func runConntrack(e *Env) error {
	if _, err := e.Target(1).Run(e.Ctx, "sh", "-c", "printf '%s' \"$1\" | nft -f -", "sh", dropInvalid); err != nil {
		return err
	}
	for i := range 10 {
		if err := e.curls([]fetched{{"a.example", fmt.Sprintf("/%d", i), "t1"}}); err != nil {
			return err
		}
	}
	return e.download(optionSize)
}

// runLateEndReport stops t1's agent while a connection of t1 ends, so that its report comes after the same port got a
// connection at t2.
func runLateEndReport(e *Env) error {
	local := netip.AddrPortFrom(e.Client.Data.Addr(), reusedPort)
	first, err := e.DialFrom(local)
	if err != nil {
		return err
	}
	if err := e.oldIncarnation(first, local); err != nil {
		return errors.Join(err, first.Close())
	}
	second, err := e.DialFrom(local)
	if err != nil {
		return err
	}
	defer func() { _ = second.Close() }() // closed below when all went well
	ask := func(path string) error {
		r, err := lab.RoundTrip(e.Ctx, second, lab.Request("www.b.example", path))
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return want(r, "t2", "www.b.example", path)
	}
	if err := errors.Join(ask("/new"), e.Baton.Agents[0].Signal(unix.SIGCONT)); err != nil {
		return err
	}
	if err := e.Baton.Ready(e.Ctx); err != nil { // the agent may have had to connect again
		return err
	}
	// The report takes effect after the linger, 2 s by default.
	if err := e.sleep(3 * time.Second); err != nil {
		return err
	}
	page, err := e.Baton.Admin.CRT(e.Ctx, admin.CRTQuery{Client: local.String()})
	if err != nil {
		return err
	}
	if len(page.Entries) != 1 || page.Entries[0].Owner != "t2" {
		return fmt.Errorf("CRT entries of %v: %+v, want one of t2", local, page.Entries)
	}
	return errors.Join(ask("/later"), second.Close())
}

// oldIncarnation uses the connection up while t1's agent is stopped, so that its end is reported late. The agent stops
// when the hand-over is complete, and the server closes first, so that the client may use its port again.
func (e *Env) oldIncarnation(c *lab.Conn, local netip.AddrPort) error {
	ask := func(path string, headers ...string) error {
		r, err := lab.RoundTrip(e.Ctx, c, lab.Request("a.example", path, headers...))
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return want(r, "t1", "a.example", path)
	}
	if err := errors.Join(ask("/old"), e.Settled(local, "t1")); err != nil {
		return err
	}
	if err := e.Baton.Agents[0].Signal(unix.SIGSTOP); err != nil {
		return err
	}
	return errors.Join(ask("/last", "Connection: close"), lab.NewResponses(c).End(), c.Close())
}
