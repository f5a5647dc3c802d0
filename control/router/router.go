package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"baton/control/inspect"
	"baton/control/timer"
	"baton/control/transfer"
	"baton/fastpath/flow"
	"baton/fastpath/wire"
)

// Sizes of what a Router keeps.
const (
	puntBatch    = 64          // punts handled before timers and the cluster have their turn
	inboxSize    = 4096        // events of other goroutines; a full inbox makes them wait
	inboxBatch   = 256         // events handled before punts have their turn
	historySize  = 1024        // attempts kept for operators
	maxSleep     = time.Second // between two turns without anything to do
	commandRetry = time.Millisecond
)

// Errors of New.
var (
	ErrConfig = errors.New("router configuration")
	// ErrStopped is returned to other goroutines when the loop has ended.
	ErrStopped = errors.New("router has stopped")
)

// Service is one DVIPA and port. The router answers it, unless its Distribution is conventional: then targets do, and only
// Job and Weights matter.
type Service struct {
	Address        netip.AddrPort
	Distribution   flow.Distribution
	Job            string                 // of a conventional service: its targets are the hosts of this job
	Weights        map[string]uint16      // of a conventional service, by host: 1 where there is none; 0: no new connections
	Window         uint32                 // W, octets
	Announced      uint32                 // first window that the forwarder announces (tcp.FirstWindow); 0 means W
	Hold           flow.HoldMode          // what a freeze does with the client's packets
	RequestTimeout time.Duration          // from a connection's first segment to the decision
	IdleTimeout    time.Duration          // of a connection that came back, until its next request
	OfferTimeout   time.Duration          // a target's answer to an offer
	Reroute        bool                   // targets hand connections back between two requests
	ConfirmTimeout time.Duration          // a target's answer to a commit; then it is asked again and again
	GiveUp         time.Duration          // from a commit that nothing is heard of to the client's RST
	Unconditional  bool                   // give connections in one message, without asking the target application
	NewSession     func() inspect.Session // the routing application, for one connection
	Greets         bool                   // it begins with a greeting
	Passwords      Passwords              // of a routing application that asks for passwords; nil: none does
	WrongDelay     time.Duration          // until a client is told that its password is wrong
	// External: routing applications in other processes decide; NewSession's only knows how to refuse.
	External bool
}

// Config is what a Router works with. It does not change.
type Config struct {
	Epoch    uint64
	Ports    int // data ports of the Dataplane
	Services []Service
	Jobs     map[string][]string   // job -> hosts, in the order in which they are tried
	Targets  map[string]netip.Addr // host -> its address on the data network, or where its tunnel ends
	Tunnels  map[string]Tunnel     // host -> how it is reached, of those that are not on the data network
	MaxConns int                   // connections that the router may have at once; more are refused by silence
	Clock    func() time.Time      // wall and monotonic clock; time.Now outside of tests
	Log      *slog.Logger
	Observer Observer
	// Kernel is given frames for the host's kernel that came in by a data port, and says whether it took them: it copies
	// and never blocks. nil: there are no such ports.
	Kernel func(port uint16, frame []byte) bool
	// Applications are needed if a Service is External.
	Applications Applications
}

// Observer is told what happens. *metrics.Router implements it.
type Observer interface {
	TransferEnded(outcome, target string)
	PhaseTook(phase string, d time.Duration) // a phase of a transfer that succeeded, or "total"
	Refused(cause string)                    // the router answered a connection with an error
}

// Router is the control plane of a routing host. One goroutine runs it (Run, or Turn in tests) and owns all its state;
// only the Host methods, Do and the methods of observe.go may be called from others.
type Router struct {
	cfg      Config
	dp       Dataplane
	cluster  Cluster
	log      *slog.Logger
	services map[netip.AddrPort]*Service

	now        time.Time // of this turn
	punts      [puntBatch]flow.Punt
	conns      map[flow.ID]*conn
	handing    map[wire.Incarnation]*conn // whose transfer is under way
	transfers  map[transfer.ID]*conn      // the same, by the IDs of their attempts
	transferID transfer.ID                // the next one
	past       memory                     // incarnations that were here lately
	targets    map[string]*target
	byOwner    []*target // by flow.OwnerID; [0] is nil: the router itself
	balances   []*balance
	settling   timer.Timer // fires when they have
	settled    time.Time   // from when on targets that were not heard of are taken for absent
	neighbours *neighbours
	timers     timer.Queue
	commands   []func() error // not yet taken by the data plane, in order
	frame      []byte         // scratch for outgoing frames
	orphans    orphans
	back       takeBack
	history    history
	count      Counts

	inbox   chan event
	stopped chan struct{}
}

// New makes a Router. It sends nothing until its first turn. Errors wrap ErrConfig.
func New(cfg Config, dp Dataplane, cluster Cluster) (*Router, error) {
	r := &Router{
		cfg: cfg, dp: dp, cluster: cluster, log: cfg.Log,
		services:  make(map[netip.AddrPort]*Service, len(cfg.Services)),
		conns:     map[flow.ID]*conn{},
		handing:   map[wire.Incarnation]*conn{},
		transfers: map[transfer.ID]*conn{},
		// A restarted router must not repeat the IDs that targets remember of its predecessor.
		transferID: transfer.ID(cfg.Clock().UnixNano()),
		past:       newMemory(2 * cfg.MaxConns),
		targets:    make(map[string]*target, len(cfg.Targets)),
		byOwner:    []*target{nil},
		history:    newHistory(historySize),
		inbox:      make(chan event, inboxSize),
		stopped:    make(chan struct{}),
		back:       newTakeBack(cfg.Clock()),
	}
	r.back.timer.Fire = func(time.Time) { r.stepTaker(transfer.Timeout{}) }
	for i := range cfg.Services {
		r.services[cfg.Services[i].Address] = &cfg.Services[i]
	}
	r.neighbours = newNeighbours(dp, &r.timers, r.learned, r.lost)
	if err := r.addTargets(cfg.Clock()); err != nil {
		return nil, err
	}
	r.addBalances(cfg.Clock())
	return r, nil
}

// addTargets numbers the targets by name, so that a restart numbers them alike, and begins to look for them.
func (r *Router) addTargets(now time.Time) error {
	if len(r.cfg.Targets) >= flow.MaxOwners {
		return fmt.Errorf("%w: %d targets, at most %d", ErrConfig, len(r.cfg.Targets), flow.MaxOwners-1)
	}
	for i, name := range slices.Sorted(maps.Keys(r.cfg.Targets)) {
		addr := r.cfg.Targets[name]
		tunnel := r.cfg.Tunnels[name]
		hop := addr
		if tunnel.Via.IsValid() {
			hop = tunnel.Via
		}
		port, err := r.portFor(hop)
		if err != nil {
			return fmt.Errorf("%w: target %s: %w", ErrConfig, name, err)
		}
		at := now.Add(time.Duration(i) * neighbourDelay)
		t := &target{name: name, owner: flow.OwnerID(i + 1), addr: addr, neighbour: r.neighbours.add(hop, port, at)}
		if tunnel.Kind != flow.NoTunnel {
			_, own := r.dp.Port(port)
			t.tunnel = flow.Tunnel{Kind: tunnel.Kind, Src: own.Addr(), Dst: addr, MTU: tunnel.MTU}
		}
		r.targets[name] = t
		r.byOwner = append(r.byOwner, t)
	}
	for job, hosts := range r.cfg.Jobs {
		for _, h := range hosts {
			if r.targets[h] == nil {
				return fmt.Errorf("%w: job %s: no target %s", ErrConfig, job, h)
			}
		}
	}
	return nil
}

// portFor finds the data port on whose network addr is.
func (r *Router) portFor(addr netip.Addr) (uint16, error) {
	for i := range r.cfg.Ports {
		if _, own := r.dp.Port(uint16(i)); own.Contains(addr) {
			return uint16(i), nil
		}
	}
	return 0, fmt.Errorf("%s is on no data port's network", addr)
}

// Run turns until ctx ends. It may be called once.
func (r *Router) Run(ctx context.Context) error {
	defer close(r.stopped)
	stop := context.AfterFunc(ctx, r.dp.Wake)
	defer stop()
	for ctx.Err() == nil {
		if now := r.cfg.Clock(); !r.Turn(now) {
			if d := r.Idle(r.cfg.Clock()); d > 0 {
				r.dp.Wait(d)
			}
		}
	}
	return nil
}

// Turn handles what there is at the time now: a batch of punts, a batch of events, timers. It reports whether there was
// anything. now must not go back.
func (r *Router) Turn(now time.Time) bool {
	r.now = now
	n := r.dp.Receive(r.punts[:])
	for i := range r.punts[:n] {
		r.punted(&r.punts[i])
	}
	n += r.drain()
	r.retry()
	n += r.timers.Run(now)
	return n > 0
}

// Idle is how long nothing has to be done after a turn that found nothing, unless something comes in. For the caller of
// Turn.
func (r *Router) Idle(now time.Time) time.Duration {
	d := maxSleep
	if len(r.commands) > 0 {
		d = commandRetry
	}
	if next := r.timers.Next(); !next.IsZero() {
		d = min(d, next.Sub(now))
	}
	return d
}

// HostUp tells that a target host is connected. Like the other Host methods it may be called from any goroutine, and
// waits while the router is busy; calls for one host must come in order. Hosts that are not configured are counted and
// ignored.
func (r *Router) HostUp(host string) { r.post(event{kind: hostUp, host: host}) }

// HostJobs replaces a target host's part of the destination port table. The slice is the router's from then on.
func (r *Router) HostJobs(host string, jobs []Job) {
	r.post(event{kind: hostJobs, host: host, jobs: jobs})
}

// HostSays hands over a target host's message.
func (r *Router) HostSays(host string, m transfer.Message) {
	r.post(event{kind: hostSays, host: host, message: m})
}

// HostDown tells that a target host's stream is gone.
func (r *Router) HostDown(host string) { r.post(event{kind: hostDown, host: host}) }

// Do runs f on the loop and waits for it: the way for other goroutines to see the router's state. Errors: ErrStopped,
// or the context's.
func (r *Router) Do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case r.inbox <- event{kind: call, call: func() { f(); close(done) }}:
		r.dp.Wake()
	case <-r.stopped:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-r.stopped:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *Router) post(e event) {
	select {
	case r.inbox <- e:
		r.dp.Wake()
	case <-r.stopped:
	}
}

func (r *Router) drain() int {
	for n := range inboxBatch {
		select {
		case e := <-r.inbox:
			r.happened(e)
		default:
			return n
		}
	}
	return inboxBatch
}

// happened handles an event, which may have come after the turn began: a target can answer what this turn has sent.
func (r *Router) happened(e event) {
	r.now = r.cfg.Clock()
	if e.kind == call {
		e.call()
		return
	}
	t := r.targets[e.host]
	if t == nil {
		r.count.UnknownHosts++
		return
	}
	switch e.kind {
	case hostUp:
		t.connected, t.rows = true, nil
		r.tell()
		r.peer(t, true)
	case hostJobs:
		t.announce(e.jobs)
		r.tell()
	case hostSays:
		r.hear(t, e.message)
		return
	case hostDown:
		t.connected, t.rows = false, nil
		r.tell()
		r.peer(t, false)
	case call: // above
	}
	r.rebalance()
}

// command gives the data plane a command, or keeps it, in order, until the ring has room again. Frames are not
// commands: they may be lost.
func (r *Router) command(c func() error) {
	if len(r.commands) == 0 && c() == nil {
		return
	}
	r.commands = append(r.commands, c)
	r.count.CommandsDelayed++
}

func (r *Router) retry() {
	n := 0
	for n < len(r.commands) && r.commands[n]() == nil {
		n++
	}
	if n > 0 {
		r.commands = slices.Delete(r.commands, 0, n)
	}
}

// learned publishes a target's new link address: its packets go there from now on.
func (r *Router) learned(n *neighbour) {
	for _, t := range r.byOwner[1:] {
		if t.neighbour == n {
			owner, hop := t.owner, flow.Nexthop{MAC: n.mac, Port: n.port, Tunnel: t.tunnel}
			r.command(func() error { return r.dp.SetOwner(owner, hop) })
			r.log.Info("target found", "target", t.name, "address", t.addr, "via", n.addr, "mac", n.mac)
		}
	}
	r.rebalance()
}

// lost takes the targets that do not answer any more out of the sets of conventional services.
func (r *Router) lost(*neighbour) { r.rebalance() }

// candidates are the hosts of a job that can be given a connection now, in the order of the configuration, and, when
// there are none, why.
func (r *Router) candidates(job string, s *Service) (fit []string, why string) {
	for _, host := range r.cfg.Jobs[job] {
		t := r.targets[host]
		reason := t.unfit(job, s)
		if reason == "" {
			fit = append(fit, host)
			continue
		}
		why += fmt.Sprintf("; %s: %s", host, reason)
	}
	if why == "" {
		return fit, "no host has the job"
	}
	return fit, why[2:]
}

// transmit sends one segment of a connection. A full ring loses it, as the network might.
func (r *Router) transmit(c *conn, s wire.Segment) {
	if c.peer == (wire.MAC{}) { // it came back, and nothing was heard of its client yet
		r.count.FramesLost++
		return
	}
	mac, _ := r.dp.Port(c.port)
	link := wire.Link{Dst: c.peer, Src: mac}
	r.frame = wire.AppendTCP(r.frame[:0], link, c.inc.Service, c.inc.Client, s)
	if err := r.dp.Transmit(c.port, r.frame); err != nil {
		r.count.FramesLost++
	}
}
