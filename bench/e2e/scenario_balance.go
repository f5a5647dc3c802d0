package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"baton/bench/judge"
	"baton/bench/lab"
	"baton/control/admin"
	"baton/fastpath/wire"
)

// Numbers of these scenarios. Clients' ports are given where a hash of them decides.
const (
	spreadPort  = 24000
	spreadConns = 60 // connections one after the other
	longPort    = 25000
	longConns   = 9          // that stay open
	movedMost   = 1          // of spreadConns, when a target goes that has none of them
	resumed     = 20_000_000 // octets of a download: more than a server can have under way without an ACK
	resumedRate = "4M"       // octets a second
	resumes     = 4          // downloads at a time
	busyConns   = 6
	weightedRun = 40 // connections, a multiple of the weights' sum
	drainedRun  = 8
)

// balanced is a cluster whose DVIPA is distributed in a conventional way to so many targets.
func balanced(how string, targets int, weights map[string]int) lab.Cluster {
	job := lab.Job{Name: "web", Weights: weights}
	for i := range targets {
		job.Hosts = append(job.Hosts, fmt.Sprintf("t%d", i+1))
	}
	return lab.Cluster{Distribute: how, Jobs: []lab.Job{job}}
}

var balanceScenarios = []Scenario{
	{
		Name: "maglev-dvipa",
		Doc: "connections spread over three targets; when one leaves, those of the others stay with them, and a restart of " +
			"the routing host's daemon breaks no download",
		Shape:  Shape{Targets: 3, Cluster: balanced("maglev", 3, nil), Private: true},
		Expect: Expect{Direct: true, Connections: 3*spreadConns + longConns + resumes, Transferred: None},
		Run:    runMaglev,
		Note:   remarks,
	},
	{
		Name:   "leastconn-dvipa",
		Doc:    "a target that is busy with long connections gets no new ones until the others have as many",
		Shape:  Shape{Targets: 3, Cluster: balanced("leastconn", 3, nil), Private: true},
		Expect: Expect{Direct: true, Connections: 3*busyConns + 2, Transferred: None},
		Run:    runLeastConn,
	},
	{
		Name:   "weighted-drain",
		Doc:    "connections follow the weights exactly; a draining target gets none and keeps those that it has",
		Shape:  Shape{Cluster: balanced("weighted", 2, map[string]int{"t1": 3}), Private: true},
		Expect: Expect{Direct: true, Connections: 1 + weightedRun + 2*drainedRun, Transferred: None},
		Run:    runWeighted,
	},
	{
		Name:   "drain",
		Doc:    "a draining target gets no connection handed over either, and keeps those that it has",
		Shape:  Shape{Cluster: bothServe(), Private: true},
		Expect: Expect{Connections: 3, Transferred: 3},
		Run:    runDrain,
	},
}

// fetchFromPort makes a connection from a port of the client, on which the server closes first, and returns who served it.
func (e *Env) fetchFromPort(port int) (target string, err error) {
	c, err := e.DialFrom(netip.AddrPortFrom(e.Client.Data.Addr(), uint16(port)))
	if err != nil {
		return "", err
	}
	r, err := lab.RoundTrip(e.Ctx, c, lab.Request("any.example", "/", "Connection: close"))
	if err != nil {
		return "", errors.Join(err, c.Close())
	}
	e.note(c.Local(), r)
	return r.Target(), cmp.Or(want(r, r.Target(), "any.example", "/"), lab.NewResponses(c).End(), c.Close())
}

// spread is who serves a connection from each of many ports.
func (e *Env) spread() ([]string, error) {
	served := make([]string, spreadConns)
	for i := range served {
		target, err := e.fetchFromPort(spreadPort + i)
		if err != nil {
			return nil, fmt.Errorf("connection %d: %w", i+1, err)
		}
		served[i] = target
	}
	return served, nil
}

func tally(served []string) map[string]int {
	count := map[string]int{}
	for _, target := range served {
		count[target]++
	}
	return count
}

// held is a connection that stays open, and who serves it.
type held struct {
	*lab.Conn
	target string
}

// hold opens a connection, from a given port unless that is 0, and makes a request.
func (e *Env) hold(port int) (*held, error) {
	var local netip.AddrPort
	if port != 0 {
		local = netip.AddrPortFrom(e.Client.Data.Addr(), uint16(port))
	}
	c, err := e.DialFrom(local)
	if err != nil {
		return nil, err
	}
	h := &held{Conn: c}
	r, err := h.again(e, "/first")
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	h.target = r.Target()
	return h, nil
}

// again makes one more request on a held connection.
func (h *held) again(e *Env, path string) (*lab.Response, error) {
	r, err := lab.RoundTrip(e.Ctx, h.Conn, lab.Request("any.example", path))
	if err != nil {
		return nil, fmt.Errorf("%s's %s: %w", cmp.Or(h.target, "nobody"), path, err)
	}
	e.note(h.Local(), r)
	return r, want(r, cmp.Or(h.target, r.Target()), "any.example", path)
}

// holdAll opens n connections.
func (e *Env) holdAll(n, firstPort int) (all []*held, err error) {
	for i := range n {
		port := 0
		if firstPort != 0 {
			port = firstPort + i
		}
		h, err := e.hold(port)
		if err != nil {
			return all, errors.Join(err, closeAll(all))
		}
		all = append(all, h)
	}
	return all, nil
}

func (e *Env) askAll(all []*held, path string) error {
	for _, h := range all {
		if _, err := h.again(e, path); err != nil {
			return err
		}
	}
	return nil
}

func closeAll(all []*held) error {
	var errs []error
	for _, h := range all {
		errs = append(errs, h.Close())
	}
	return errors.Join(errs...)
}

func targetsOf(all []*held) []string {
	served := make([]string, len(all))
	for i, h := range all {
		served[i] = h.target
	}
	return served
}

// drain lets a target drain or not, by batonctl.
func (e *Env) drain(target, command string) error {
	var d admin.Drained
	if err := e.batonctl(e.Lab.Router, &d, "target", command, target); err != nil {
		return err
	}
	if d.Target != target || d.Draining != (command == "drain") {
		return fmt.Errorf("batonctl target %s %s says %+v", command, target, d)
	}
	return nil
}

// shares are the rows of the DVIPA, by target.
func (e *Env) shares() (map[string]admin.Service, error) {
	var rows []admin.Service
	if err := e.batonctl(e.Lab.Router, &rows, "services"); err != nil {
		return nil, err
	}
	shares := map[string]admin.Service{}
	for _, r := range rows {
		shares[r.Target] = r
	}
	return shares, nil
}

// untilConnections waits until batonctl shows so many connections of each target.
func (e *Env) untilConnections(want map[string]int) error {
	return lab.Until(e.Ctx, fmt.Sprintf("targets have %v connections", want), func() error {
		shares, err := e.shares()
		if err != nil {
			return err
		}
		got := map[string]int{}
		for target, s := range shares {
			got[target] = s.Connections
		}
		if !maps.Equal(got, want) {
			return fmt.Errorf("they have %v", got)
		}
		return nil
	})
}

func runMaglev(e *Env) error {
	first, err := e.spread()
	if err != nil {
		return err
	}
	for target, n := range tally(first) {
		if n < spreadConns/6 {
			return fmt.Errorf("%d of %d connections go to %s: %v", n, spreadConns, target, tally(first))
		}
	}
	if len(tally(first)) != 3 {
		return fmt.Errorf("connections go to %v, want three targets", tally(first))
	}
	long, err := e.holdAll(longConns, longPort)
	if err != nil {
		return err
	}
	if n := len(tally(targetsOf(long))); n != 3 {
		return errors.Join(fmt.Errorf("the long connections are of %d targets", n), closeAll(long))
	}
	err = cmp.Or(e.withoutThird(first, long), e.askAll(long, "/back"))
	if err := errors.Join(err, closeAll(long)); err != nil {
		return err
	}
	return e.resumeDownloads()
}

// withoutThird takes t3 out of service, by its agent's end, and back.
func (e *Env) withoutThird(first []string, long []*held) error {
	e.Baton.Agents[2].Stop()
	if err := e.untilTarget(e.Baton, "t3", func(t admin.Target) bool { return !t.Connected }); err != nil {
		return err
	}
	if err := e.askAll(long, "/without"); err != nil {
		return err
	}
	second, err := e.spread()
	if err != nil {
		return err
	}
	moved := 0
	for i := range first {
		switch {
		case second[i] == "t3":
			return errors.New("t3 gets connections without its agent")
		case first[i] != "t3" && first[i] != second[i]:
			moved++
		}
	}
	e.remark("spread %v, without t3 %v, of the others' %d moved", tally(first), tally(second), moved)
	if moved > movedMost {
		return fmt.Errorf("%d connections moved between targets that stayed", moved)
	}
	if e.Baton.Agents[2], err = e.Baton.StartAgent(e.Ctx, e.Target(3)); err != nil {
		return err
	}
	if err := e.Baton.Ready(e.Ctx); err != nil {
		return err
	}
	third, err := e.spread()
	if err != nil {
		return err
	}
	if !slices.Equal(third, first) {
		return fmt.Errorf("with t3 again connections go to %v, at first to %v", third, first)
	}
	return nil
}

// resumeDownloads kills the routing host's daemon under running downloads and starts it again: only the table knows then
// whose they are.
func (e *Env) resumeDownloads() error {
	file, err := e.Lab.File(resumed)
	if err != nil {
		return err
	}
	errs := make([]error, resumes)
	var all sync.WaitGroup
	for i := range resumes {
		all.Go(func() { errs[i] = e.downloadSlowly(file) })
	}
	err = cmp.Or(e.untilRunning(resumes), e.reviveRouter())
	all.Wait()
	if err := errors.Join(append(errs, err)...); err != nil {
		return err
	}
	return e.wantCounter("packet", "recovered", resumes, resumes)
}

func (e *Env) downloadSlowly(file *judge.Digest) error {
	got, err := e.Curl("any.example", fmt.Sprintf("/static/data-%d", resumed), "--limit-rate", resumedRate)
	if err != nil {
		return err
	}
	if d := judge.DigestOf(got.Response.Data); got.Response.StatusCode != 200 || *d != *file {
		return fmt.Errorf("status %d, %v instead of %v", got.Response.StatusCode, *d, *file)
	}
	return nil
}

// untilRunning waits until the forwarder has so many connections that their clients have not ended.
func (e *Env) untilRunning(n int) error {
	return lab.Until(e.Ctx, fmt.Sprintf("%d downloads run", n), func() error {
		shares, err := e.shares()
		if err != nil {
			return err
		}
		running := 0
		for _, s := range shares {
			running += s.Connections
		}
		if running != n {
			return fmt.Errorf("%d do", running)
		}
		return nil
	})
}

// reviveRouter kills the routing host's daemon and starts it again.
func (e *Env) reviveRouter() (err error) {
	e.Baton.Router.Kill()
	if e.Baton.Router, err = e.Baton.StartRouter(e.Ctx); err != nil {
		return err
	}
	return e.Baton.Ready(e.Ctx)
}

// runLeastConn makes t1 busy while the others drain, and then lets connections find their level.
func runLeastConn(e *Env) error {
	if err := errors.Join(e.drain("t2", "drain"), e.drain("t3", "drain")); err != nil {
		return err
	}
	busy, err := e.holdAll(busyConns, 0)
	if err != nil {
		return err
	}
	if got := tally(targetsOf(busy)); got["t1"] != busyConns {
		return errors.Join(fmt.Errorf("with t2 and t3 draining, connections go to %v", got), closeAll(busy))
	}
	if err := errors.Join(e.drain("t2", "undrain"), e.drain("t3", "undrain")); err != nil {
		return errors.Join(err, closeAll(busy))
	}
	more, err := e.holdAll(2*busyConns, 0)
	if err != nil {
		return errors.Join(err, closeAll(busy))
	}
	if got := tally(targetsOf(more)); got["t2"] != busyConns || got["t3"] != busyConns {
		err = fmt.Errorf("beside a busy target connections go to %v", got)
	}
	err = cmp.Or(err, e.untilConnections(map[string]int{"t1": busyConns, "t2": busyConns, "t3": busyConns}),
		e.askAll(busy, "/still"), closeAll(busy),
		e.untilConnections(map[string]int{"t1": 0, "t2": busyConns, "t3": busyConns}))
	if err != nil {
		return errors.Join(err, closeAll(more))
	}
	last, err := e.holdAll(2, 0)
	if got := tally(targetsOf(last)); err == nil && got["t1"] != 2 {
		err = fmt.Errorf("when the busy target is free, connections go to %v", got)
	}
	return errors.Join(err, closeAll(more), closeAll(last))
}

// run makes connections one after the other and expects so many at each target.
func (e *Env) run(n int, want map[string]int) error {
	var served []string
	for i := range n {
		r, err := e.Fetch(lab.Request("any.example", fmt.Sprintf("/%d", i)))
		if err != nil {
			return fmt.Errorf("connection %d: %w", i+1, err)
		}
		served = append(served, r.Target())
	}
	if got := tally(served); !maps.Equal(got, want) {
		return fmt.Errorf("connections go to %v, want %v", got, want)
	}
	return nil
}

func runWeighted(e *Env) error {
	kept, err := e.hold(0)
	if err != nil {
		return err
	}
	if kept.target != "t1" {
		return errors.Join(fmt.Errorf("the first connection goes to %s, want the heavier target", kept.target), kept.Close())
	}
	err = cmp.Or(
		e.run(weightedRun, map[string]int{"t1": 3 * weightedRun / 4, "t2": weightedRun / 4}),
		e.drain("t1", "drain"),
		e.run(drainedRun, map[string]int{"t2": drainedRun}),
		e.askAll([]*held{kept}, "/while-draining"),
		e.wantShare("t1", admin.Service{Weight: 3, Connections: 1}),
		e.drain("t1", "undrain"),
		e.run(drainedRun, map[string]int{"t1": 3 * drainedRun / 4, "t2": drainedRun / 4}),
		e.wantCounter("packet", "picked", 1+weightedRun+2*drainedRun, 1+weightedRun+2*drainedRun),
		e.straysAreDropped(e.Target(1)))
	return errors.Join(err, kept.Close())
}

// wantShare compares what batonctl shows of a target.
func (e *Env) wantShare(target string, want admin.Service) error {
	shares, err := e.shares()
	if err != nil {
		return err
	}
	got := shares[target]
	if got.Weight != want.Weight || got.Connections != want.Connections || got.Ready != want.Ready || got.Distribute != "weighted" {
		return fmt.Errorf("batonctl shows %+v of %s, want %+v", got, target, want)
	}
	return nil
}

// straysAreDropped sends a direct service's host segments of no connection, from the DVIPA's clients' side.
func (e *Env) straysAreDropped(h *lab.Host) error {
	before, err := e.guardDrops(h, "listener")
	if err != nil {
		return err
	}
	if err := e.strayTo(h, wire.ACK, wire.ACK|wire.PSH, wire.ACK|wire.FIN); err != nil {
		return err
	}
	after, err := e.guardDrops(h, "listener")
	if err != nil {
		return err
	}
	if got := after - before; got != strays {
		return fmt.Errorf("the guard of %s dropped %d stray segments, want %d", h.Name, got, strays)
	}
	return nil
}

// guardDrops is how many segments a target's guard dropped for a reason.
func (e *Env) guardDrops(h *lab.Host, reason string) (n uint64, err error) {
	counters, err := h.Admin().Counters(e.Ctx)
	for _, c := range counters {
		if c.Group == "guard_drop" && c.Name == reason {
			n += c.Value
		}
	}
	return n, err
}

func runDrain(e *Env) error {
	kept, err := e.Dial()
	if err != nil {
		return err
	}
	ask := func(path string) error {
		r, err := lab.RoundTrip(e.Ctx, kept, lab.Request("a.example", path))
		if err != nil {
			return err
		}
		return want(r, "t1", "a.example", path)
	}
	err = cmp.Or(ask("/first"), e.Settled(kept.Local(), "t1"), e.drain("t1", "drain"),
		e.curls([]fetched{{"a.example", "/", "t2"}}), ask("/while-draining"), e.drain("t1", "undrain"),
		e.curls([]fetched{{"a.example", "/", "t1"}}))
	return errors.Join(err, kept.Close())
}
