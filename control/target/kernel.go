package target

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"baton/control/admin"
	"baton/control/agent"
	"baton/control/config"
	"baton/control/transfer"
	"baton/fastpath/wire"
)

// reopenPeriod is the time between attempts to set up a namespace that is not there.
const reopenPeriod = time.Second

// Kernel is the agent's Importer that has the host's kernel continue connections. It has one space for each network
// namespace with a listener.
type Kernel struct {
	config  *config.Target
	log     *slog.Logger
	mounted string // where it had to mount a bpffs
	to      agent.Reporter
	reopen  time.Time // when to try namespaces again that are not set up; for the goroutine that looks

	mu      sync.Mutex        // guards what follows
	spaces  map[string]*space // by namespace; those that are set up
	failed  map[string]error  // namespaces that are not, and why
	live    map[wire.Tuple]liveFlow
	cookies map[uint64]wire.Tuple // of live flows' sockets
	leaving map[wire.Tuple]bool   // sockets that have shrunk to a FIN-WAIT-2
}

var (
	_ agent.Importer = (*Kernel)(nil)
	_ agent.Lockstep = (*Kernel)(nil)
)

// liveFlow is a flow and where its socket is.
type liveFlow struct {
	Flow
	netns  string
	cookie uint64
}

// Open prepares the host. What an earlier agent left is taken over, and nothing is loaded twice. A namespace that
// cannot be set up yet is tried again later: its jobs say why they are not ready.
func Open(c *config.Target, log *slog.Logger) (*Kernel, error) {
	k := &Kernel{
		config: c, log: log, spaces: make(map[string]*space), failed: make(map[string]error),
		live: make(map[wire.Tuple]liveFlow), cookies: make(map[uint64]wire.Tuple), leaving: make(map[wire.Tuple]bool),
	}
	var err error
	if k.mounted, err = mountBPFFS(c.Guard.BPFFS); err != nil {
		return nil, fmt.Errorf("guard.bpffs: %w", err)
	}
	return k, nil
}

// Jobs are the jobs of a configuration, as the agent knows them.
func Jobs(c *config.Target) []agent.Job {
	jobs := make([]agent.Job, 0, len(c.Jobs))
	for _, j := range c.Jobs {
		jobs = append(jobs, jobOf(j))
	}
	return jobs
}

// Asked are those of them whose applications are asked.
func Asked(c *config.Target) (jobs []agent.Job) {
	for _, j := range c.Jobs {
		if j.Asks() {
			jobs = append(jobs, jobOf(j))
		}
	}
	return jobs
}

// Begin implements agent.Importer: it takes over the flows of earlier agents.
func (k *Kernel) Begin(to agent.Reporter) (live, ended []transfer.Flow) {
	k.to = to
	for _, name := range namespacesOf(k.config) {
		here, over, err := restoreFlows(name, pinDir(k.config.Guard.BPFFS, name))
		if err != nil {
			k.log.Error("flows of an earlier agent cannot be looked up", "netns", name, "error", err)
		}
		for _, f := range here {
			k.hold(f)
			live = append(live, f.Flow.Flow)
		}
		for _, f := range over {
			ended = append(ended, f.Flow)
		}
	}
	return live, ended
}

// openSpaces tries to set up the namespaces that are not.
func (k *Kernel) openSpaces() {
	if time.Now().Before(k.reopen) {
		return
	}
	k.reopen = time.Now().Add(reopenPeriod)
	for _, name := range namespacesOf(k.config) {
		if k.space(name) != nil {
			continue
		}
		s, err := openSpace(k.config, name, k.log, func(e Socket) { k.socketEnded(name, e) }, k.closing)
		if err == nil && k.mounted != "" {
			err = s.undo.remember(undoMount+k.mounted, "")
		}
		k.opened(name, s, err)
	}
}

func (k *Kernel) space(name string) *space {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.spaces[name]
}

// opened takes the result of openSpace.
func (k *Kernel) opened(name string, s *space, err error) {
	k.mu.Lock()
	if err != nil {
		if before := k.failed[name]; before == nil || before.Error() != err.Error() {
			k.log.Error("namespace is not set up", "netns", name, "error", err)
		}
		k.failed[name] = err
		k.mu.Unlock()
		return
	}
	k.log.Info("namespace is set up", "netns", name, "jobs", len(s.jobs))
	delete(k.failed, name)
	k.spaces[name] = s
	k.mu.Unlock()
	k.reconcile(name) // what has ended before the kernel's reports were listened to
}

// Close lets go of the namespaces. Guards and connections stay. After the agent's Run has returned.
func (k *Kernel) Close() error {
	k.mu.Lock()
	spaces := slices.Collect(maps.Values(k.spaces))
	clear(k.spaces)
	k.mu.Unlock() // an Importer waits for its last report, which takes the lock
	var errs []error
	for _, s := range spaces {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// Look implements agent.Importer.
func (k *Kernel) Look() map[agent.Job]agent.Readiness {
	k.dropGone()
	k.openSpaces()
	k.mu.Lock()
	spaces, failed := maps.Clone(k.spaces), maps.Clone(k.failed)
	k.mu.Unlock()
	ready := make(map[agent.Job]agent.Readiness)
	for name, s := range spaces {
		found, err := s.look()
		if err != nil {
			k.log.Error("listeners cannot be listed", "netns", name, "error", err)
		}
		maps.Copy(ready, found)
	}
	for _, j := range k.config.Jobs {
		if err := failed[j.Netns]; err != nil {
			ready[jobOf(j)] = agent.Readiness{Problem: &agent.Problem{Reason: transfer.ReasonHost, Detail: err.Error()}}
		}
	}
	k.followLeaving()
	return ready
}

// dropGone lets go of namespaces whose name stands for another one now, and with them of their connections.
func (k *Kernel) dropGone() {
	k.mu.Lock()
	spaces := maps.Clone(k.spaces)
	k.mu.Unlock()
	for name, s := range spaces {
		if !s.ns.Gone() {
			continue
		}
		k.log.Warn("namespace is gone", "netns", name)
		k.mu.Lock()
		delete(k.spaces, name)
		k.failed[name] = fmt.Errorf("network namespace %q is gone", name)
		k.mu.Unlock()
		k.reconcile(name)
		s.Close()
	}
}

// find finds a job and its namespace if that is set up.
func (k *Kernel) find(name string, t wire.Tuple) (*config.TargetJob, *space) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, j := range k.config.Jobs {
		if jobOf(j) == (agent.Job{Name: name, Service: t.Service}) {
			return &k.config.Jobs[i], k.spaces[j.Netns]
		}
	}
	return nil, nil
}

// Check implements agent.Importer.
func (k *Kernel) Check(o *transfer.Offer) *agent.Problem {
	job, s := k.find(o.Job, o.Inc.Tuple)
	if job == nil || s == nil {
		return notSetUp(job)
	}
	if job.Lockstep() && o.Dialogue.None() {
		detail := fmt.Sprintf("job %s has dialogue: lockstep, and the routing host's application has none: set dialogue: none if "+
			"the server does not speak first", job.Name)
		return &agent.Problem{Reason: transfer.ReasonDialogue, Detail: detail}
	}
	// What the client has said again takes its place in the first window.
	return s.offered(*job, o.MSS, o.Window+uint32(o.Dialogue.Said()))
}

// Plays implements agent.Lockstep.
func (k *Kernel) Plays(job agent.Job) bool {
	return slices.ContainsFunc(k.config.Jobs, func(j config.TargetJob) bool { return jobOf(j) == job && j.Lockstep() })
}

// Play implements agent.Lockstep.
func (k *Kernel) Play(ctx context.Context, host string, o *transfer.Offer) *agent.Problem {
	job, s := k.find(o.Job, o.Inc.Tuple)
	if job == nil || s == nil {
		return notSetUp(job)
	}
	if err := s.lockstep.Play(ctx, host, o, listenerOf(*job)); err != nil {
		return problemOf(err)
	}
	return nil
}

// Abandon implements agent.Lockstep.
func (k *Kernel) Abandon(host string, id transfer.ID) {
	k.mu.Lock()
	spaces := maps.Clone(k.spaces)
	k.mu.Unlock()
	for name, s := range spaces {
		if s.lockstep == nil {
			continue
		}
		if err := s.lockstep.Abandon(host, id); err != nil {
			k.log.Error("a server's connection stays, without a client", "netns", name, "error", err)
		}
	}
}

func notSetUp(job *config.TargetJob) *agent.Problem {
	if job == nil {
		return &agent.Problem{Reason: transfer.ReasonUnknownJob, Detail: "no such job here"}
	}
	detail := fmt.Sprintf("network namespace %q is not set up", job.Netns)
	return &agent.Problem{Reason: transfer.ReasonHost, Detail: detail}
}

// Import implements agent.Importer.
func (k *Kernel) Import(ctx context.Context, i *transfer.Import) (agent.Imported, *agent.Problem) {
	r := &i.Record
	job, s := k.find(r.Job, r.Inc.Tuple)
	if job == nil || s == nil {
		return agent.Imported{}, notSetUp(job)
	}
	flow := flowOf(i)
	if err := s.flows.put(flow); err != nil {
		return agent.Imported{}, problemOf(err)
	}
	var done Imported
	err := s.follow(*job, r)
	if err == nil {
		done, err = s.take(ctx, i, *job)
	}
	if err != nil {
		k.Forget(r.Inc)
		k.unfollow(s, r.Inc)
		k.checkEnd(r.Inc.Tuple) // of a leftover that was removed for nothing
		return agent.Imported{}, problemOf(err)
	}
	return agent.Imported{RcvNxt: done.RcvNxt, Took: done.Took, Known: func() {
		k.mu.Lock()
		k.hold(liveFlow{flow, job.Netns, done.Cookie})
		k.mu.Unlock()
		k.checkEnd(r.Inc.Tuple) // of a connection that was over at once
	}}, nil
}

func flowOf(i *transfer.Import) Flow {
	r := &i.Record
	return Flow{
		Flow: transfer.Flow{
			Inc: r.Inc, Epoch: r.Epoch, Job: r.Job, Host: i.Host, Transfer: i.Transfer, RcvNxt: r.RcvNxt,
		},
		Since: time.Now(),
	}
}

// problemOf is an import's error as a routing host is told.
func problemOf(err error) *agent.Problem {
	return &agent.Problem{Reason: reasonOf(err), Detail: err.Error()}
}

func reasonOf(err error) transfer.Reason {
	switch {
	case errors.Is(err, ErrNotListening):
		return transfer.ReasonNotListening
	case errors.Is(err, ErrBacklog):
		return transfer.ReasonCapacity
	case errors.Is(err, ErrLeftover):
		return transfer.ReasonLeftover
	case errors.Is(err, ErrSwallowed):
		return transfer.ReasonHost
	case errors.Is(err, ErrDialogue):
		return transfer.ReasonDialogue
	case errors.Is(err, ErrNoPlay):
		return transfer.ReasonReservation
	}
	return transfer.ReasonImport
}

// Forget implements agent.Importer: it removes a flow from the pins.
func (k *Kernel) Forget(inc wire.Incarnation) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name, s := range k.spaces {
		if err := s.flows.forget(inc); err != nil {
			k.log.Error("pinned flow stays", "netns", name, "error", err)
		}
	}
}

// Flows implements agent.Importer.
func (k *Kernel) Flows() []admin.Flow {
	k.mu.Lock()
	flows, spaces := slices.Collect(maps.Values(k.live)), maps.Clone(k.spaces)
	k.mu.Unlock()
	states := make(map[wire.Tuple]SocketState)
	for name, s := range spaces {
		if err := s.states(states); err != nil {
			k.log.Error("sockets cannot be listed", "netns", name, "error", err)
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
