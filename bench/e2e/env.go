package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"baton/bench/judge"
	"baton/bench/lab"
	"baton/control/admin"
)

// Env is a scenario's view of its laboratory. Its methods are safe for several goroutines.
type Env struct {
	Ctx    context.Context // ends with the scenario's time
	Lab    *lab.Lab
	Client *lab.Host
	Baton  *lab.Baton    // nil with Shape.NoBaton
	Wire   *lab.BadWire  // nil without Scenario.Wire
	Frames []judge.Frame // what was judged, for Check
	bin    string
	device string
	dvipa  netip.Addr

	remarks []string // of the scenario, for its Note
	plain   []int    // retransmissions of transfers through a plain forwarder

	mu     sync.Mutex
	conns  []recorded
	served map[netip.AddrPort][]string // targets that the application was told, by the client's end (a port may be reused)
}

// recorded is a connection whose streams the application knows.
type recorded struct {
	client netip.AddrPort
	stream func() judge.Stream
}

// portPatience is how long the last ACK of a connection may take.
const portPatience = 2 * time.Second

// service is what scenarios talk to.
var service = netip.AddrPortFrom(lab.DVIPA, 80)

// patience is what targets have to answer an offer or a commit, unless a scenario is about that time: on a busy machine
// nobody is late.
const patience = 5 * time.Second

// cluster fills in from the command line and the environment what c leaves open.
func (e *Env) cluster(c lab.Cluster) lab.Cluster {
	c.Offer, c.Confirm = cmp.Or(c.Offer, patience), cmp.Or(c.Confirm, patience)
	if len(c.Jobs) == 0 {
		usual := lab.TwoSites()
		c.Rules, c.Jobs = usual.Rules, usual.Jobs
	}
	if c.Device == "" {
		c.Device = e.device
	}
	return c
}

// StartBaton starts the daemons where the shape did not, and waits until all targets are ready.
func (e *Env) StartBaton(c lab.Cluster) (*lab.Baton, error) {
	return e.Lab.Baton(e.Ctx, e.bin, e.cluster(c))
}

// LaunchBaton is StartBaton for a cluster in which a target will not become ready.
func (e *Env) LaunchBaton(c lab.Cluster) (*lab.Baton, error) {
	return e.Lab.Launch(e.Ctx, e.bin, e.cluster(c))
}

// PrepareBaton only writes the files of a cluster.
func (e *Env) PrepareBaton(c lab.Cluster) (*lab.Baton, error) {
	return e.Lab.Prepare(e.bin, e.cluster(c))
}

// restartRouter restarts the routing host's daemon.
func (e *Env) restartRouter() (err error) {
	e.Baton.Router.Stop()
	if e.Baton.Router, err = e.Baton.StartRouter(e.Ctx); err != nil {
		return err
	}
	return e.Baton.Ready(e.Ctx)
}

// Curl fetches a path from the DVIPA with stock curl, and lets the judge compare what curl received.
func (e *Env) Curl(host, path string, args ...string) (*lab.Curled, error) {
	args = append([]string{"--header", "Host: " + host}, args...)
	got, err := e.Client.Curl(e.Ctx, "http://"+netip.AddrPortFrom(e.dvipa, 80).String()+path, args...)
	if err != nil {
		return nil, err
	}
	e.record(got.Local, func() judge.Stream { return got.Stream })
	e.note(got.Local, got.Response)
	return got, nil
}

// Dial connects to the DVIPA, and lets the judge compare what the connection's two ends have seen in the end.
func (e *Env) Dial() (*lab.Conn, error) { return e.DialFrom(netip.AddrPort{}) }

// DialFrom is Dial from a given end of the client. If the client's kernel still waits for the last ACK of a former
// connection on that port, it waits too, as an application would.
func (e *Env) DialFrom(local netip.AddrPort) (c *lab.Conn, err error) {
	ctx, cancel := context.WithTimeout(e.Ctx, portPatience)
	defer cancel()
	wait := lab.Until(ctx, "the client's port is free", func() error {
		if c, err = e.Client.Dial(e.Ctx, local, netip.AddrPortFrom(e.dvipa, 80)); errors.Is(err, syscall.EADDRNOTAVAIL) {
			return err
		}
		return nil
	})
	if err := cmp.Or(wait, err); err != nil {
		return nil, err
	}
	if deadline, ok := e.Ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	e.record(c.Local(), c.Stream)
	return c, nil
}

// Fetch sends one request on a connection of its own and closes it after the response.
func (e *Env) Fetch(request []byte) (*lab.Response, error) {
	c, err := e.Dial()
	if err != nil {
		return nil, err
	}
	r, err := lab.RoundTrip(e.Ctx, c, request)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	e.note(c.Local(), r)
	return r, c.Close()
}

// Settled waits until the routing host's table has a connection as the target's. Its first response may come before
// that: the target's confirmation is still on its way.
func (e *Env) Settled(client netip.AddrPort, target string) error {
	return lab.Until(e.Ctx, fmt.Sprintf("%v belongs to %s", client, target), func() error {
		page, err := e.Baton.Admin.CRT(e.Ctx, admin.CRTQuery{Client: client.String()})
		if err != nil {
			return err
		}
		if len(page.Entries) != 1 || page.Entries[0].Owner != target {
			return fmt.Errorf("its entries are %+v", page.Entries)
		}
		return nil
	})
}

// Record lets the judge compare a connection that the scenario drives itself.
func (e *Env) Record(client netip.AddrPort, s judge.Stream) {
	e.record(client, func() judge.Stream { return s })
}

func (e *Env) record(client netip.AddrPort, stream func() judge.Stream) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.conns = append(e.conns, recorded{client, stream})
}

// note remembers who served a response; the capture must agree.
func (e *Env) note(client netip.AddrPort, r *lab.Response) {
	if r.Target() == "" {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.served[client] = append(e.served[client], r.Target())
}

// streams is what the applications know, for the judge.
func (e *Env) streams() map[netip.AddrPort][]judge.Stream {
	e.mu.Lock()
	defer e.mu.Unlock()
	m := map[netip.AddrPort][]judge.Stream{}
	for _, r := range e.conns {
		m[r.client] = append(m[r.client], r.stream())
	}
	return m
}

// expectation is what the judge has to know about this laboratory.
func (e *Env) expectation(x Expect) (judge.Expectation, error) {
	owner, err := e.Lab.Router.MAC()
	if err != nil {
		return judge.Expectation{}, err
	}
	out := judge.Expectation{DVIPA: e.dvipa, Owner: owner, Streams: e.streams(), Unordered: e.Wire != nil,
		Direct: x.Direct, Moves: x.Moves, Allow: x.allowed()}
	for _, h := range e.Lab.Targets {
		mac, err := h.SeenMAC()
		if err != nil {
			return out, err
		}
		out.Targets = append(out.Targets, mac)
	}
	return out, nil
}

// checkServed compares who served a connection by its responses with who did by its frames. direct: none was handed over.
func (e *Env) checkServed(r judge.Report, direct bool) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range r.Conns {
		names := e.served[c.Inc.Client]
		if len(names) == 0 {
			continue
		}
		i := slices.IndexFunc(e.Lab.Targets, func(h *lab.Host) bool { mac, err := h.SeenMAC(); return err == nil && mac == c.Owner })
		if c.Transferred == direct || i < 0 || !slices.Contains(names, e.Lab.Targets[i].Name) {
			return fmt.Errorf("%v: the response is from %s, the last frames are from %v", c, strings.Join(names, ", "), c.Owner)
		}
	}
	return nil
}

// Target returns the target of that number, from 1.
func (e *Env) Target(n int) *lab.Host { return e.Lab.Targets[n-1] }

// want compares a response with the one of the lab's servers: status 200, the target's name, and the line that repeats
// the request.
func want(r *lab.Response, target, host, path string) error {
	if r.StatusCode != 200 || r.Target() != target {
		return fmt.Errorf("%s%s: status %d from %q, want 200 from %q", host, path, r.StatusCode, r.Target(), target)
	}
	if line := fmt.Sprintf("%s GET %s %s\n", target, host, path); string(r.Data) != line {
		return fmt.Errorf("%s%s: body %.100q, want %q", host, path, r.Data, line)
	}
	return nil
}

// wantRefusal checks an answer of the router itself: well-formed, with the status, from no target, and the last thing
// on its connection.
func wantRefusal(r *lab.Response, status int) error {
	switch {
	case r.StatusCode != status:
		return fmt.Errorf("status %d, want %d", r.StatusCode, status)
	case r.Target() != "":
		return fmt.Errorf("status %d comes from %s, want the router's", status, r.Target())
	case r.ProtoMajor != 1 || !r.Close:
		return fmt.Errorf("refusal of %s does not say that it closes the connection", r.Proto)
	case r.ContentLength != int64(len(r.Data)):
		return fmt.Errorf("refusal of length %d has %d octets of body", r.ContentLength, len(r.Data))
	}
	return nil
}

// sleep waits for a time that is part of the scenario (a slow client), not for something to become ready.
func (e *Env) sleep(d time.Duration) error {
	select {
	case <-e.Ctx.Done():
		return e.Ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// nginx is the usual target application.
func nginx(e *Env, h *lab.Host) error {
	_, err := h.Nginx(e.Ctx, lab.ServerOptions{})
	return err
}
