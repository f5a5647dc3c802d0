package target

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"baton/control/admin"
	"baton/control/config"
	"baton/control/transfer"
	"baton/control/xcf"
	"baton/fastpath/wire"
)

// Periods of the agent's own work.
const (
	lookPeriod   = 200 * time.Millisecond // at listeners and settings
	reopenPeriod = time.Second            // between attempts to set up a namespace that is not there
)

// outcomeImported is the outcome of a connection that exists; the others are transfer.Reasons.
const outcomeImported = "imported"

// Agent is the whole of a target host: it takes offers and commits from routing hosts and makes the connections. Its
// methods are safe for concurrent use.
type Agent struct {
	config  *config.Target
	log     *slog.Logger
	dialer  *xcf.Dialer
	observe func(outcome string, took time.Duration)
	mounted string // where it had to mount a bpffs
	imports sync.WaitGroup
	wake    chan struct{} // the deadline has changed
	lookNow chan struct{} // a listener has gone
	reopen  time.Time     // when to try namespaces again that are not set up; for the goroutine that looks

	mu       sync.Mutex // guards what follows; held while actions are carried out, so they keep their order
	stopping context.Context
	taker    *transfer.Taker
	spaces   map[string]*space // by namespace; those that are set up
	failed   map[string]error  // namespaces that are not, and why
	live     map[wire.Tuple]liveFlow
	cookies  map[uint64]wire.Tuple // of live flows' sockets
	leaving  map[wire.Tuple]bool   // sockets that have shrunk to a FIN-WAIT-2
	running  map[attempt]context.CancelFunc
	ready    map[string]readiness // by job
	outcomes map[string]uint64    // imports
}

// liveFlow is a flow and where its socket is.
type liveFlow struct {
	Flow
	netns  string
	cookie uint64
}

// attempt names an import under way.
type attempt struct {
	host string
	id   transfer.ID
}

// Open sets the host up, with whatever an earlier agent left, and loads nothing twice. software is told to routing
// hosts; observe, called for every commit, may be nil. A namespace that cannot be set up yet is tried again later:
// its jobs say why they are not ready.
func Open(c *config.Target, software string, log *slog.Logger, observe func(outcome string, took time.Duration)) (
	*Agent, error,
) {
	a := &Agent{
		config: c, log: log, observe: observe,
		wake: make(chan struct{}, 1), lookNow: make(chan struct{}, 1),
		spaces: make(map[string]*space), failed: make(map[string]error),
		live: make(map[wire.Tuple]liveFlow), cookies: make(map[uint64]wire.Tuple), leaving: make(map[wire.Tuple]bool),
		running: make(map[attempt]context.CancelFunc), ready: make(map[string]readiness),
		outcomes: make(map[string]uint64),
		stopping: context.Background(),
	}
	var err error
	if a.dialer, err = newDialer(c, software, a, log); err != nil {
		return nil, err
	}
	if a.mounted, err = mountBPFFS(c.Guard.BPFFS); err != nil {
		return nil, fmt.Errorf("guard.bpffs: %w", err)
	}
	live, ended := a.restore()
	a.taker = transfer.NewTaker(a.limits(), live, ended, time.Now())
	a.openSpaces()
	return a, nil
}

func newDialer(c *config.Target, software string, h xcf.Handler, log *slog.Logger) (*xcf.Dialer, error) {
	routers := make([]xcf.Router, 0, len(c.XCF.Routers))
	for _, r := range c.XCF.Routers {
		routers = append(routers, xcf.Router{Host: r.Host, Address: r.Address})
	}
	files := xcf.Files{CA: c.XCF.CA, Cert: c.XCF.Cert, Key: c.XCF.Key}
	return xcf.NewDialer(xcf.Config{Name: c.Host, Files: files, Software: software}, routers, h, log)
}

func (a *Agent) limits() transfer.Limits {
	l := transfer.DefaultLimits()
	l.Reservations = a.config.Limits.Reservations
	l.Import = max(l.Import, 2*time.Duration(a.config.Limits.BacklogRetry))
	return l
}

// restore takes over the flows of earlier agents.
func (a *Agent) restore() (live, ended []transfer.Flow) {
	for _, name := range namespacesOf(a.config) {
		here, over, err := restoreFlows(name, pinDir(a.config.Guard.BPFFS, name))
		if err != nil {
			a.log.Error("flows of an earlier agent cannot be looked up", "netns", name, "error", err)
		}
		for _, f := range here {
			a.hold(f)
			live = append(live, f.Flow.Flow)
		}
		for _, f := range over {
			ended = append(ended, f.Flow)
		}
	}
	return live, ended
}

// openSpaces tries to set up the namespaces that are not.
func (a *Agent) openSpaces() {
	if time.Now().Before(a.reopen) {
		return
	}
	a.reopen = time.Now().Add(reopenPeriod)
	for _, name := range namespacesOf(a.config) {
		if a.space(name) != nil {
			continue
		}
		s, err := openSpace(a.config, name, func(e Socket) { a.socketEnded(name, e) })
		if err == nil && a.mounted != "" {
			err = s.undo.remember(undoMount+a.mounted, "")
		}
		a.opened(name, s, err)
	}
}

func (a *Agent) space(name string) *space {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.spaces[name]
}

// opened takes the result of openSpace.
func (a *Agent) opened(name string, s *space, err error) {
	a.mu.Lock()
	if err != nil {
		if before := a.failed[name]; before == nil || before.Error() != err.Error() {
			a.log.Error("namespace is not set up", "netns", name, "error", err)
		}
		a.failed[name] = err
		a.mu.Unlock()
		return
	}
	a.log.Info("namespace is set up", "netns", name, "jobs", len(s.jobs))
	delete(a.failed, name)
	a.spaces[name] = s
	a.mu.Unlock()
	a.reconcile(name) // what has ended before the kernel's reports were listened to
}

// Run serves routing hosts until ctx ends. Then the guards stay, and the connections go on.
func (a *Agent) Run(ctx context.Context) {
	a.mu.Lock()
	a.stopping = ctx
	a.mu.Unlock()
	a.look()
	var parts sync.WaitGroup
	parts.Go(func() { a.dialer.Run(ctx) })
	parts.Go(func() { a.keepTime(ctx) })
	parts.Go(func() { a.keepLooking(ctx) })
	parts.Wait()
	a.imports.Wait()
}

// Close lets go of the namespaces. After Run has returned.
func (a *Agent) Close() error {
	a.mu.Lock()
	spaces := slices.Collect(maps.Values(a.spaces))
	clear(a.spaces)
	a.mu.Unlock() // an Importer waits for its last report, which takes the lock
	var errs []error
	for _, s := range spaces {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// Up implements xcf.Handler: the routing host learns about the jobs first.
func (a *Agent) Up(p *xcf.Peer) {
	a.log.Info("routing host is up", "host", p.Name(), "address", p.Addr())
	a.mu.Lock()
	a.tellJobs(p.Name())
	a.mu.Unlock()
	a.step(transfer.PeerUp{Host: p.Name()})
}

// Down implements xcf.Handler.
func (a *Agent) Down(p *xcf.Peer, err error) {
	a.log.Warn("routing host is down", "host", p.Name(), "error", err)
	a.step(transfer.PeerLost{Host: p.Name()})
}

// Message implements xcf.Handler.
func (a *Agent) Message(p *xcf.Peer, e *xcf.Envelope) {
	m, err := xcf.Unpack(e)
	if err != nil {
		a.log.Error("malformed message", "host", p.Name(), "error", err)
		return
	}
	if m != nil {
		a.step(transfer.Received{Host: p.Name(), Message: m})
	}
}

// step gives an event to the machine and does what it asks for. Imports come last and without the lock.
func (a *Agent) step(e transfer.Event) {
	for _, i := range a.stepLocked(e) {
		a.runImport(i)
	}
}

func (a *Agent) stepLocked(e transfer.Event) (imports []transfer.Import) {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.taker.Deadline()
	for events := []transfer.Event{e}; len(events) > 0; events = events[1:] {
		for _, action := range a.taker.Step(events[0], time.Now()) {
			switch action := action.(type) {
			case transfer.Import:
				imports = append(imports, action)
			default:
				events = append(events, a.do(action)...)
			}
		}
	}
	if d := a.taker.Deadline(); !d.Equal(before) {
		poke(a.wake)
	}
	return imports
}

// poke puts one into a channel that holds one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// do carries out an action and returns what came of it. Called with mu held.
func (a *Agent) do(action transfer.Action) []transfer.Event {
	switch action := action.(type) {
	case transfer.Send:
		if err := a.dialer.Send(action.Host, xcf.Pack(action.Message)); err != nil {
			a.log.Warn("message not sent", "host", action.Host, "error", err)
			return []transfer.Event{transfer.PeerLost{Host: action.Host}}
		}
	case transfer.Check:
		return []transfer.Event{a.check(action)}
	case transfer.StopImport:
		if stop := a.running[attempt{action.Host, action.Transfer}]; stop != nil {
			stop()
		}
	case transfer.Forget:
		a.forget(action.Inc)
	case transfer.Fault:
		a.log.Error("routing host breaks the protocol", "host", action.Host, "detail", action.Detail)
	}
	return nil
}

// forget removes a flow from the pins. Called with mu held.
func (a *Agent) forget(inc wire.Incarnation) {
	for name, s := range a.spaces {
		if err := s.flows.forget(inc); err != nil {
			a.log.Error("pinned flow stays", "netns", name, "error", err)
		}
	}
}

// check answers an offer. Called with mu held.
func (a *Agent) check(c transfer.Check) transfer.Event {
	checked := transfer.Checked{Host: c.Host, Transfer: c.Offer.Transfer}
	if p := a.offerProblem(c.Offer); p != nil {
		checked.Reason, checked.Detail = p.Reason, p.Detail
		a.log.Info("offer rejected", "host", c.Host, "client", c.Offer.Inc.Client, "job", c.Offer.Job, "detail", p.Detail)
	}
	return checked
}

func (a *Agent) offerProblem(o transfer.Offer) *Problem {
	job, s := a.find(o.Job, o.Inc.Tuple)
	if job == nil {
		detail := fmt.Sprintf("no job %q for %v here: add it to jobs", o.Job, o.Inc.Service)
		return &Problem{transfer.ReasonUnknownJob, detail}
	}
	if s == nil {
		detail := fmt.Sprintf("network namespace %q is not set up: %v", job.Netns, a.failed[job.Netns])
		return &Problem{transfer.ReasonHost, detail}
	}
	if p := a.ready[job.Name].problem; p != nil && p.Reason == transfer.ReasonHost {
		return p
	}
	return s.offered(*job, o.MSS, o.Window)
}

// find finds a job by name and service, and its namespace if that is set up. Called with mu held.
func (a *Agent) find(name string, t wire.Tuple) (*config.TargetJob, *space) {
	for i, j := range a.config.Jobs {
		if j.Name == name && j.Address == t.Service.Addr() && j.Port == t.Service.Port() {
			return &a.config.Jobs[i], a.spaces[j.Netns]
		}
	}
	return nil, nil
}

// keepTime tells the machine when its deadlines have passed.
func (a *Agent) keepTime(ctx context.Context) {
	for {
		a.mu.Lock()
		deadline := a.taker.Deadline()
		a.mu.Unlock()
		due := make(<-chan time.Time)
		if !deadline.IsZero() {
			due = time.After(time.Until(deadline))
		}
		select {
		case <-ctx.Done():
			return
		case <-a.wake:
		case <-due:
			a.step(transfer.Timeout{})
		}
	}
}

// keepLooking keeps the jobs' readiness up to date.
func (a *Agent) keepLooking(ctx context.Context) {
	ticks := time.NewTicker(lookPeriod)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		case <-a.lookNow:
		}
		a.look()
		a.followLeaving()
	}
}

// look finds out about every job, and tells the routing hosts when something has changed. Looking is done without the
// lock: transfers do not wait for it.
func (a *Agent) look() {
	a.dropGone()
	a.openSpaces()
	a.mu.Lock()
	spaces := maps.Clone(a.spaces)
	a.mu.Unlock()
	ready := make(map[string]readiness)
	for name, s := range spaces {
		found, err := s.look()
		if err != nil {
			a.log.Error("listeners cannot be listed", "netns", name, "error", err)
		}
		maps.Copy(ready, found)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.jobs()
	a.ready = ready
	if a.changed(before) {
		for _, r := range a.config.XCF.Routers {
			a.tellJobs(r.Host)
		}
	}
}

// dropGone lets go of namespaces whose name stands for another one now, and with them of their connections.
func (a *Agent) dropGone() {
	a.mu.Lock()
	spaces := maps.Clone(a.spaces)
	a.mu.Unlock()
	for name, s := range spaces {
		if !s.ns.Gone() {
			continue
		}
		a.log.Warn("namespace is gone", "netns", name)
		a.mu.Lock()
		delete(a.spaces, name)
		a.failed[name] = fmt.Errorf("network namespace %q is gone", name)
		a.mu.Unlock()
		a.reconcile(name)
		s.Close()
	}
}

// changed compares the job list with what it was, and logs the differences. Called with mu held.
func (a *Agent) changed(before []JobStatus) bool {
	after := a.jobs()
	for i, j := range after {
		switch {
		case j == before[i]:
		case j.Ready:
			a.log.Info("job is ready", "job", j.Name, "window", j.Window)
		default:
			a.log.Warn("job is not ready", "job", j.Name, "detail", j.Reason)
		}
	}
	return !slices.Equal(before, after)
}

func (r readiness) text() string {
	if r.problem == nil {
		return ""
	}
	return r.problem.Detail
}

// tellJobs sends the whole list to a routing host that is up. Called with mu held.
func (a *Agent) tellJobs(host string) {
	jobs := make([]*xcf.Job, 0, len(a.config.Jobs))
	for _, j := range a.jobs() {
		jobs = append(jobs, &xcf.Job{
			Name: j.Name, Address: j.address.AsSlice(), Port: uint32(j.port), Ready: j.Ready, Reason: j.Reason,
			Window: j.Window,
		})
	}
	err := a.dialer.Send(host, &xcf.Envelope{Message: &xcf.Envelope_Jobs{Jobs: &xcf.Jobs{Jobs: jobs}}})
	if err != nil && !errors.Is(err, xcf.ErrNotConnected) {
		a.log.Warn("job list not sent", "host", host, "error", err)
	}
}

// Flows lists the connections that this host has taken and that are alive, oldest first.
func (a *Agent) Flows() []admin.Flow {
	a.mu.Lock()
	flows := slices.SortedFunc(maps.Values(a.live), func(x, y liveFlow) int {
		return cmp.Or(x.Since.Compare(y.Since), x.Inc.Client.Compare(y.Inc.Client))
	})
	spaces := maps.Clone(a.spaces)
	a.mu.Unlock()
	states := make(map[wire.Tuple]SocketState)
	for name, s := range spaces {
		if err := s.states(states); err != nil {
			a.log.Error("sockets cannot be listed", "netns", name, "error", err)
		}
	}
	list := make([]admin.Flow, 0, len(flows))
	for _, f := range flows {
		list = append(list, admin.Flow{
			Client: f.Inc.Client.String(), Service: f.Inc.Service.String(), Job: f.Job, Router: f.Host, Since: f.Since,
			State: states[f.Inc.Tuple].String(),
		})
	}
	return list
}
