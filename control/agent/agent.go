package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"baton/control/admin"
	"baton/control/config"
	"baton/control/metrics"
	"baton/control/transfer"
	"baton/control/xcf"
	"baton/fastpath/wire"
)

// lookPeriod is the time between two looks at the jobs.
const lookPeriod = 200 * time.Millisecond

// outcomeImported is the outcome of a connection that exists; the others are transfer.Reasons.
const outcomeImported = "imported"

// Config is what an Agent works with. It does not change.
type Config struct {
	Host     string // as in its certificate
	Software string // told to routing hosts
	XCF      config.TargetXCF
	Jobs     []Job
	Limits   config.Limits
	Log      *slog.Logger
	// Applications are asked before they get a connection; nil: all applications are conventional.
	Applications Applications
	Notes        Notes                                    // nil: messages between applications are ignored
	Lockstep     Lockstep                                 // nil: no job's server speaks first
	Observe      func(outcome string, took time.Duration) // called for every commit; may be nil
}

// Agent is a target host. Its methods are safe for concurrent use.
type Agent struct {
	config   Config
	log      *slog.Logger
	importer Importer
	dialer   *xcf.Dialer
	imports  sync.WaitGroup
	wake     chan struct{} // the deadline has changed
	lookNow  chan struct{} // a job may have changed

	mu       sync.Mutex // guards what follows; held while actions are carried out, so they keep their order
	stopping context.Context
	taker    *transfer.Taker
	running  map[attempt]context.CancelFunc
	ready    map[Job]Readiness
	outcomes map[string]uint64 // of imports

	backs        map[transfer.ID]*back // connections on their way back
	backID       transfer.ID           // the next one
	backOver     chan struct{}         // one of them is settled
	outcomesBack map[string]uint64
}

// attempt names an import under way.
type attempt struct {
	host string
	id   transfer.ID
}

// New makes an Agent, which begins with what the Importer has of an earlier process, and looks at the jobs for the first
// time. The only error is about the certificate.
func New(c Config, im Importer) (*Agent, error) {
	a := &Agent{
		config: c, log: c.Log, importer: im,
		wake: make(chan struct{}, 1), lookNow: make(chan struct{}, 1),
		running: make(map[attempt]context.CancelFunc), ready: make(map[Job]Readiness),
		outcomes: make(map[string]uint64),
		backs:    make(map[transfer.ID]*back), outcomesBack: make(map[string]uint64), backOver: make(chan struct{}, 1),
		// A restarted agent must not repeat the IDs that routing hosts remember of its predecessor.
		backID:   transfer.ID(time.Now().UnixNano()),
		stopping: context.Background(),
	}
	var err error
	if a.dialer, err = newDialer(c, a); err != nil {
		return nil, err
	}
	if c.Applications != nil {
		c.Applications.Begin(a)
	}
	live, ended := im.Begin(a)
	a.taker = transfer.NewTaker(limits(c.Limits), live, ended, time.Now())
	a.look()
	return a, nil
}

func newDialer(c Config, h xcf.Handler) (*xcf.Dialer, error) {
	routers := make([]xcf.Router, 0, len(c.XCF.Routers))
	for _, r := range c.XCF.Routers {
		routers = append(routers, xcf.Router{Host: r.Host, Address: r.Address})
	}
	files := xcf.Files{CA: c.XCF.CA, Cert: c.XCF.Cert, Key: c.XCF.Key}
	return xcf.NewDialer(xcf.Config{Name: c.Host, Files: files, Software: c.Software}, routers, h, c.Log)
}

func limits(c config.Limits) transfer.Limits {
	l := transfer.DefaultLimits()
	l.Reservations = c.Reservations
	l.Import = max(l.Import, 2*time.Duration(c.BacklogRetry))
	return l
}

// Run serves routing hosts until ctx ends, and then as long as it takes to learn what comes of connections that are on their
// way back, at most stopTime. The others go on then, as far as the Importer lets them.
func (a *Agent) Run(ctx context.Context) {
	a.mu.Lock()
	a.stopping = ctx
	a.mu.Unlock()
	streams, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	defer hangUp()
	var parts sync.WaitGroup
	parts.Go(func() { a.dialer.Run(streams) })
	parts.Go(func() { a.keepTime(streams) })
	parts.Go(func() { a.keepLooking(ctx) })
	<-ctx.Done()
	a.settleBacks()
	hangUp()
	parts.Wait()
	a.imports.Wait()
}

// Up implements xcf.Handler: the routing host learns about the jobs first.
func (a *Agent) Up(p *xcf.Peer) {
	a.log.Info("routing host is up", "host", p.Name(), "address", p.Addr())
	a.mu.Lock()
	a.tellJobs(p.Name())
	a.mu.Unlock()
	a.step(transfer.PeerUp{Host: p.Name()})
	a.allBack(transfer.PeerUp{Host: p.Name()})
}

// Down implements xcf.Handler.
func (a *Agent) Down(p *xcf.Peer, err error) {
	a.log.Warn("routing host is down", "host", p.Name(), "error", err)
	a.step(transfer.PeerLost{Host: p.Name()})
	a.allBack(transfer.PeerLost{Host: p.Name()})
}

// Message implements xcf.Handler.
func (a *Agent) Message(p *xcf.Peer, e *xcf.Envelope) {
	if a.config.Notes != nil && a.config.Notes.Heard(p.Name(), e) {
		return
	}
	m, err := xcf.Unpack(e)
	if err != nil {
		a.log.Error("malformed message", "host", p.Name(), "error", err)
		return
	}
	if m != nil && !a.answeredBack(p.Name(), m) {
		a.step(transfer.Received{Host: p.Name(), Message: m})
	}
}

// Ended implements Reporter.
func (a *Agent) Ended(inc wire.Incarnation) { a.step(transfer.Ended{Inc: inc}) }

// LookAgain implements Reporter.
func (a *Agent) LookAgain() { poke(a.lookNow) }

// step gives events to the machine and does what it asks for. Imports come last and without the lock.
func (a *Agent) step(e ...transfer.Event) {
	for _, i := range a.stepLocked(e) {
		a.runImport(i)
	}
}

func (a *Agent) stepLocked(events []transfer.Event) (imports []transfer.Import) {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.taker.Deadline()
	for ; len(events) > 0; events = events[1:] {
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
		return a.check(action)
	case transfer.StopImport:
		if stop := a.running[attempt{action.Host, action.Transfer}]; stop != nil {
			stop()
		}
	case transfer.Lapsed:
		a.lapsed(action)
	case transfer.Forget:
		a.importer.Forget(action.Inc)
	case transfer.Fault:
		a.log.Error("routing host breaks the protocol", "host", action.Host, "detail", action.Detail)
	}
	return nil
}

// check answers an offer, or has an application answer it. Called with mu held.
func (a *Agent) check(c transfer.Check) []transfer.Event {
	p := a.offerProblem(&c.Offer)
	switch {
	case p == nil && a.plays(jobOf(&c.Offer)):
		a.play(c)
		return nil
	case p == nil:
		return a.ask(c)
	}
	a.log.Info("offer rejected", "host", c.Host, "client", c.Offer.Inc.Client, "job", c.Offer.Job, "detail", p.Detail)
	return []transfer.Event{checked(c.Host, c.Offer.Transfer, p)}
}

func jobOf(o *transfer.Offer) Job { return Job{o.Job, o.Inc.Service} }

func (a *Agent) offerProblem(o *transfer.Offer) *Problem {
	job := jobOf(o)
	if !slices.Contains(a.config.Jobs, job) {
		detail := fmt.Sprintf("no job %q for %v here: add it to jobs", job.Name, job.Service)
		return &Problem{transfer.ReasonUnknownJob, detail}
	}
	if p := a.ready[job].Problem; p != nil && p.Reason == transfer.ReasonHost {
		return p
	}
	return a.importer.Check(o)
}

// keepTime tells the machine when its deadlines have passed.
func (a *Agent) keepTime(ctx context.Context) {
	for {
		a.mu.Lock()
		deadline := a.deadline()
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
			a.allBack(transfer.Timeout{})
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
	}
}

// look finds out about every job, and tells the routing hosts when something has changed. Looking is done without the
// lock: transfers do not wait for it.
func (a *Agent) look() {
	ready := a.importer.Look()
	a.withApplications(ready)
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

// tellJobs sends the whole list to a routing host that is up. Called with mu held.
func (a *Agent) tellJobs(host string) {
	jobs := make([]*xcf.Job, 0, len(a.config.Jobs))
	for _, j := range a.jobs() {
		jobs = append(jobs, &xcf.Job{
			Name: j.Name, Address: j.Service.Addr().AsSlice(), Port: uint32(j.Service.Port()), Ready: j.Ready,
			Reason: j.Reason, Window: j.Window, Direct: j.Direct,
		})
	}
	err := a.dialer.Send(host, &xcf.Envelope{Message: &xcf.Envelope_Jobs{Jobs: &xcf.Jobs{Jobs: jobs}}})
	if err != nil && !errors.Is(err, xcf.ErrNotConnected) {
		a.log.Warn("job list not sent", "host", host, "error", err)
	}
}

// JobStatus is what routing hosts are told about a job.
type JobStatus struct {
	Job
	Ready  bool
	Reason string // why not: one line that says what to set
	Window uint32 // first window, octets; 0 unknown
	Direct bool   // as in Readiness
}

// jobs lists the jobs as routing hosts see them. Called with mu held.
func (a *Agent) jobs() []JobStatus {
	list := make([]JobStatus, 0, len(a.config.Jobs))
	for _, j := range a.config.Jobs {
		r, looked := a.ready[j]
		status := JobStatus{Job: j, Ready: looked && r.Problem == nil, Window: r.Window, Direct: r.Direct}
		switch {
		case !looked:
			status.Reason = "not looked at yet"
		case r.Problem != nil:
			status.Reason = r.Problem.Detail
		}
		list = append(list, status)
	}
	return list
}

// Flows lists the connections that this host has taken and that are alive, oldest first.
func (a *Agent) Flows() []admin.Flow {
	return slices.SortedFunc(slices.Values(a.importer.Flows()), func(x, y admin.Flow) int {
		return cmp.Or(x.Since.Compare(y.Since), cmp.Compare(x.Client, y.Client))
	})
}

// Counters lists the totals of imports and hand-backs since the agent started, by outcome.
func (a *Agent) Counters() []admin.Counter {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append(admin.Counters("import", a.outcomes), admin.Counters("back", a.outcomesBack)...)
}

// Sample is what a scrape reads of the agent.
func (a *Agent) Sample() metrics.TargetSample {
	var s metrics.TargetSample
	for _, p := range a.dialer.Stats() {
		s.Routers = append(s.Routers, metrics.Peer{Host: p.Host, Up: p.Up, RTT: p.RTT})
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	s.Reservations, _, s.Flows, _ = a.taker.Counts()
	return s
}
