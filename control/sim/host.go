package sim

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"baton/control/inspect"
	"baton/control/router"
	"baton/control/tcp"
	"baton/control/transfer"
	"baton/fastpath"
	"baton/fastpath/flow"
	"baton/fastpath/wire"
)

// What the routing host is set up with.
const (
	hostName       = "router"
	requestTimeout = 4 * time.Second
	offerTimeout   = 200 * time.Millisecond
	confirmTimeout = 500 * time.Millisecond
	maxHeld        = 16 // frames of one frozen flow
)

var (
	clientMAC = wire.MAC{2, 0, 0, 0, 0, 100}
	hostNet   = netip.MustParsePrefix("10.77.0.1/24")
	errNoRoom = errors.New("ring full")
	errNoPeer = errors.New("no stream")
	theHTTP   = newHTTP()
	noLog     = slog.New(slog.DiscardHandler)
)

// host is the routing host: the forwarder in C on an in-memory port, and the router, each of which turns when it would.
type host struct {
	w      *world
	fwd    *fastpath.Forwarder
	router *router.Router
	mac    wire.MAC
	lan    []*link // to each target

	polling bool          // a poll is planned
	turning time.Time     // when a turn is planned; zero: not
	turn    uint64        // serial of that plan
	frame   []byte        // scratch
	stopped time.Time     // the whole host stands still until then
	stalled time.Time     // the router does
	halted  time.Time     // the forwarder does
	asked   chan struct{} // the question of snapshot is posted
	first   *life         // of the First or Adopted punt that the router is handling
	adopts  bool          // it is an Adopted one
}

func newHost(w *world) *host {
	h := &host{w: w}
	var key [32]byte
	for i := range key {
		key[i] = byte(w.rng.Uint32())
	}
	cfg := fastpath.Config{
		Ports: []fastpath.PortConfig{{Device: "mem0", Address: hostNet}},
		Key:   key, IPv4Entries: 256, IPv6Entries: 64, RouterFlows: 64, HeldPackets: maxHeld,
	}
	rc := router.Config{
		Epoch: 1, Ports: 1, Jobs: jobs(w.plan.Targets), Targets: map[string]netip.Addr{}, MaxConns: 64,
		Clock: func() time.Time { return w.now }, Log: noLog, Observer: h,
	}
	for i, s := range services {
		first := tcp.FirstWindow(w.plan.Window, s.scale)
		if s.scale == 0 {
			first = min(first, 0xffff)
		}
		cfg.Services = append(cfg.Services, fastpath.Service{ID: uint16(i + 1), Addr: s.addr,
			OwnMSS: uint16(1460 - 20*s.v6()), Window: first, Scale: s.scale, SpeaksFirst: s.first})
		rc.Services = append(rc.Services, router.Service{Address: s.addr, Window: w.plan.Window, Announced: first,
			Hold: w.plan.Hold, RequestTimeout: requestTimeout, OfferTimeout: offerTimeout,
			ConfirmTimeout: confirmTimeout, GiveUp: transfer.DefaultTimeouts().GiveUp, NewSession: h.newSession(s),
			Unconditional: w.plan.Unconditional})
	}
	for i := range w.plan.Targets {
		rc.Targets[targetName(i)] = targetAddr(i)
		h.lan = append(h.lan, &link{w: w, name: "lan>" + targetName(i), delay: 20 * time.Microsecond,
			jitter: 10 * time.Microsecond, faults: w.plan.LAN})
	}
	var err error
	if h.fwd, err = fastpath.Open(cfg); err != nil {
		panic(err)
	}
	h.mac, _ = h.fwd.Port(0)
	h.fwd.SetClock(w.now)
	if h.router, err = router.New(rc, &plane{Forwarder: h.fwd, h: h}, &cluster{h}); err != nil {
		panic(err)
	}
	h.planTurn(0)
	w.in(upkeep, h.upkeep)
	return h
}

func (h *host) close() { _ = h.fwd.Close() }

// newSession makes the routing application of the flow that the router takes.
func (h *host) newSession(s service) func() inspect.Session {
	return func() inspect.Session {
		l := h.first
		if h.adopts {
			l.takenBack()
		} else {
			l.opened()
		}
		switch {
		case s.first:
			return &watched{Session: &greeter{}, life: l}
		case s.talks:
			return &watched{Session: &talker{}, life: l}
		}
		return &watched{Session: theHTTP.Session(tcp.Readable(h.w.plan.Window, s.scale)), life: l}
	}
}

// upkeep lets both loops look at their timers now and then, as idle ones do.
func (h *host) upkeep() {
	h.w.upkeeps++
	h.planPoll()
	h.planTurn(0)
	h.w.in(upkeep, h.upkeep)
}

// resume ends pauses.
func (h *host) resume() { h.stopped, h.stalled, h.halted = time.Time{}, time.Time{}, time.Time{} }

// idleUntil is when the forwarder runs again; in the past if it runs.
func (h *host) idleUntil() time.Time {
	if h.halted.After(h.stopped) {
		return h.halted
	}
	return h.stopped
}

// arrive takes a frame from the wire.
func (h *host) arrive(frame []byte) {
	if err := h.fwd.Inject(0, frame); err != nil {
		h.w.logf("fwd", "port is full")
		return
	}
	h.planPoll()
}

// planPoll has the forwarder poll soon.
func (h *host) planPoll() {
	if h.polling {
		return
	}
	h.polling = true
	at := h.w.now.Add(2 * time.Microsecond)
	if until := h.idleUntil(); at.Before(until) {
		at = until
	}
	h.w.upkeeps++ // a poll is not counted, what it carries is
	h.w.at(at, h.poll)
}

// poll runs the forwarder until it is idle.
func (h *host) poll() {
	if until := h.idleUntil(); h.w.now.Before(until) {
		h.w.upkeeps++
		h.w.at(until, h.poll)
		return
	}
	h.polling = false
	h.fwd.SetClock(h.w.now)
	work := 0
	for n := h.fwd.Poll(); n > 0; n = h.fwd.Poll() {
		work += n
		h.collect()
	}
	h.collect()
	if work > 0 {
		h.planTurn(h.w.between(5*time.Microsecond, 40*time.Microsecond))
	}
}

// collect puts what the forwarder sent on the wire.
func (h *host) collect() {
	for {
		frame, ok := h.fwd.Collect(0, h.frame[:0])
		if !ok {
			return
		}
		h.frame = frame
		h.sent(frame)
	}
}

// sent carries a frame to where its link address says.
func (h *host) sent(frame []byte) {
	w := h.w
	if a, err := wire.ParseARP(frame); err == nil {
		if a.Op == wire.ARPRequest {
			for i, t := range w.targets {
				h.lan[i].carry(frame, t.arrive)
			}
		}
		return
	}
	dst := wire.MAC(frame[:6])
	if dst == clientMAC {
		frame = w.spoil(frame)
		w.judge.towardsClient(frame, nil)
		w.toClient(frame)
		return
	}
	for i, t := range w.targets {
		if t.mac == dst {
			h.lan[i].carry(frame, t.arrive)
			return
		}
	}
	w.fail("the forwarder sends to %v, which is nobody", dst)
}

// planTurn has the router turn after d, unless it does so earlier anyway.
func (h *host) planTurn(d time.Duration) {
	w := h.w
	at := w.now.Add(d)
	if !w.healed && w.chance(w.plan.Stall) {
		w.tally.fault(RouterStalled)
		h.stalled = w.now.Add(w.between(time.Millisecond, 80*time.Millisecond))
	}
	for _, until := range []time.Time{h.stalled, h.stopped} {
		if at.Before(until) {
			at = until
		}
	}
	if !h.turning.IsZero() && !h.turning.After(at) {
		return
	}
	h.turning = at
	h.turn++
	serial := h.turn
	w.upkeeps++
	w.at(at, func() {
		if h.turn == serial {
			h.turning = time.Time{}
			h.turns()
		}
	})
}

// turns runs the router until it is idle, and then the forwarder for what it was told.
func (h *host) turns() {
	w := h.w
	if w.now.Before(h.stalled) || w.now.Before(h.stopped) {
		h.planTurn(0)
		return
	}
	for i := 0; h.router.Turn(w.now); i++ {
		if i > 10_000 {
			w.fail("the router never comes to rest")
			return
		}
	}
	h.planTurn(max(h.router.Idle(w.now), time.Microsecond))
}

// snapshot asks the router for its state. That takes a goroutine; this thread waits for it.
func (h *host) snapshot() router.Snapshot {
	h.asked = make(chan struct{}, 1)
	done := make(chan router.Snapshot, 1)
	go func() {
		s, _ := h.router.Snapshot(context.Background())
		done <- s
	}()
	<-h.asked
	h.router.Turn(h.w.now)
	h.asked = nil
	return <-done
}

// TransferEnded implements router.Observer.
func (h *host) TransferEnded(outcome, target string) {
	h.w.tally.transfer(outcome)
	h.w.logf("router", "transfer to %s ended: %s", target, outcome)
}

// PhaseTook implements router.Observer.
func (h *host) PhaseTook(string, time.Duration) {}

// Refused implements router.Observer.
func (h *host) Refused(cause string) { h.w.logf("router", "refuses the client: %s", cause) }

// plane is the forwarder as the router sees it, with the judge and full rings in between.
type plane struct {
	*fastpath.Forwarder
	h    *host
	last []byte // the last frame
}

// full says that the command ring has no room now.
func (p *plane) full() bool {
	w := p.h.w
	if w.healed || !w.chance(w.plan.RingFull) {
		p.h.planPoll()
		return false
	}
	w.tally.fault(RingFull)
	w.logf("fwd", "command ring is full")
	return true
}

// Receive implements router.Dataplane. It gives one at a time, so that it is clear what a new session is for.
func (p *plane) Receive(dst []flow.Punt) int {
	n := p.Forwarder.Receive(dst[:1])
	for i := range dst[:n] {
		p.h.w.judge.punted(&dst[i])
	}
	return n
}

// Wait implements router.Dataplane; nobody waits here.
func (p *plane) Wait(time.Duration) {}

// Wake implements router.Dataplane.
func (p *plane) Wake() {
	if p.h.asked != nil {
		p.h.asked <- struct{}{}
		return
	}
	p.h.planTurn(5 * time.Microsecond)
}

// Transmit implements router.Dataplane.
func (p *plane) Transmit(port uint16, frame []byte) error {
	p.h.w.judge.routerSends(frame)
	p.last = append(p.last[:0], frame...)
	if p.full() {
		return errNoRoom
	}
	return p.Forwarder.Transmit(port, frame)
}

// Freeze implements router.Dataplane.
func (p *plane) Freeze(id flow.ID, mode flow.HoldMode) error {
	l := p.h.w.judge.byFlow[id]
	if p.full() {
		return errNoRoom
	}
	if l != nil {
		l.froze()
		p.h.w.reach(AtFreeze, l.client, nil)
	}
	if p.h.w.has(sendsFrozen) && len(p.last) > 0 {
		p.h.w.judge.routerSends(p.last)
	}
	return p.Forwarder.Freeze(id, mode)
}

// Thaw implements router.Dataplane.
func (p *plane) Thaw(id flow.ID) error {
	if l := p.h.w.judge.byFlow[id]; l != nil && l.frozen {
		l.thawed()
	}
	if p.full() {
		return errNoRoom
	}
	return p.Forwarder.Thaw(id)
}

// Switch implements router.Dataplane.
func (p *plane) Switch(id flow.ID, owner flow.OwnerID) error {
	if l := p.h.w.judge.byFlow[id]; l != nil && !l.routerGone {
		l.switchedTo(p.h.w.targets[owner-1])
		p.h.w.reach(AtSwitch, l.client, p.h.w.targets[owner-1])
	}
	if p.full() {
		return errNoRoom
	}
	if n := len(p.h.w.targets); p.h.w.has(wrongSwitch) && n > 1 {
		owner = owner%flow.OwnerID(n) + 1
	}
	return p.Forwarder.Switch(id, owner)
}

// CloseFlow implements router.Dataplane.
func (p *plane) CloseFlow(id flow.ID) error {
	if l := p.h.w.judge.byFlow[id]; l != nil && !l.routerGone {
		l.closed()
	}
	if p.full() {
		return errNoRoom
	}
	if p.h.w.has(flowLeak) {
		return nil
	}
	return p.Forwarder.CloseFlow(id)
}

// Adopt implements router.Dataplane.
func (p *plane) Adopt(port uint16, inc wire.Incarnation, from flow.OwnerID) error {
	if p.full() {
		return errNoRoom
	}
	return p.Forwarder.Adopt(port, inc, from)
}

// Remove implements router.Dataplane.
func (p *plane) Remove(inc wire.Incarnation, owner flow.OwnerID) error {
	if p.full() {
		return errNoRoom
	}
	p.h.w.logf("router", "port %v: removes the entry", inc.Client.Port())
	return p.Forwarder.Remove(inc, owner)
}

// Restore implements router.Dataplane.
func (p *plane) Restore(inc wire.Incarnation, owner flow.OwnerID, port uint16, frame []byte) error {
	if p.full() {
		return errNoRoom
	}
	p.h.w.logf("router", "port %v: restores the entry, owner %d", inc.Client.Port(), owner)
	return p.Forwarder.Restore(inc, owner, port, frame)
}

// SetOwner implements router.Dataplane.
func (p *plane) SetOwner(id flow.OwnerID, hop flow.Nexthop) error {
	if p.full() {
		return errNoRoom
	}
	return p.Forwarder.SetOwner(id, hop)
}

// SetTargets implements router.Dataplane.
func (p *plane) SetTargets(service netip.AddrPort, t flow.Targets) error {
	if p.full() {
		return errNoRoom
	}
	return p.Forwarder.SetTargets(service, t)
}

// cluster is the targets as the router sees them.
type cluster struct{ h *host }

// Send implements router.Cluster.
func (c *cluster) Send(name string, m transfer.Message) error {
	w := c.h.w
	i := slices.IndexFunc(w.targets, func(t *target) bool { return t.name == name })
	t := w.targets[i]
	l := w.judge.about(m)
	switch m := m.(type) {
	case transfer.Offer:
		w.reach(AtOffer, l.client, t)
	case transfer.Commit:
		w.judge.committed(m.Transfer, t)
		w.reach(AtCommit, l.client, t)
	case transfer.Assign:
		w.judge.committed(m.Offer.Transfer, t)
		w.reach(AtCommit, l.client, t)
	}
	if !t.stream.down(m) {
		return errNoPeer
	}
	return nil
}
