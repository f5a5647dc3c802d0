package target

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"

	"baton/control/agent"
	"baton/control/config"
	"baton/control/transfer"
	"baton/fastpath/wire"
)

// readyMSS is the client's MSS for which a job's first window is told to routing hosts; that of an offer is looked at
// when it comes.
const readyMSS = 1460

// space is a network namespace in which jobs have listeners, set up to take connections.
type space struct {
	ns       *Namespace
	jobs     []config.TargetJob
	undo     *undo
	guard    *Guard
	flows    *flows
	diag     *diag // for lists; the importer has its own, which they do not hold up
	importer *Importer
	lockstep *Lockstep // nil: no job has it
	mover    *Mover    // nil if no job's connections go back
}

// openSpace sets a namespace up. The guard stands before the DVIPAs exist; the TAP comes last.
func openSpace(c *config.Target, name string, log *slog.Logger, ended func(Socket), closed func(*space, transfer.Record)) (
	s *space, err error,
) {
	s = &space{jobs: jobsIn(c, name)}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.ns, err = OpenNamespace(name); err != nil {
		return s, err
	}
	dir := pinDir(c.Guard.BPFFS, name)
	if s.undo, err = openPins(s.ns, dir); err != nil {
		return s, err
	}
	if s.flows, err = openFlows(dir); err != nil {
		return s, err
	}
	if s.guard, err = OpenGuard(s.ns, dir, c.Guard.Interfaces, guardedOf(s.jobs), c.Guard.TunnelSources); err != nil {
		return s, err
	}
	if c.Guard.Addresses == "manage" {
		if err = s.ns.Do(func() error { return manageHost(s.undo, dvipasOf(s.jobs)) }); err != nil {
			return s, err
		}
	}
	err = s.ns.Do(func() (err error) {
		s.diag, err = openDiag()
		return err
	})
	if err != nil {
		return s, err
	}
	if s.importer, err = OpenImporter(s.ns, ended); err != nil {
		return s, err
	}
	if slices.ContainsFunc(s.jobs, config.TargetJob.Lockstep) {
		if s.lockstep, err = OpenLockstep(s.ns, dir, s.importer); err != nil {
			return s, err
		}
	} else if err = retireLockstep(s.ns, dir, s.importer); err != nil {
		return s, err
	}
	if slices.ContainsFunc(s.jobs, func(j config.TargetJob) bool { return j.Reroutes() || j.Asks() }) {
		s.mover, err = OpenMover(s.ns, c.Guard.Interfaces, s.importer, log, func(r transfer.Record) { closed(s, r) })
	}
	return s, err
}

// openPins makes the directory of a namespace's pins. Pins of another namespace that had this name are removed: a
// link to its interface would be taken for one to ours.
func openPins(n *Namespace, dir string) (*undo, error) {
	for {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		u, err := openUndo(dir)
		if err != nil {
			return nil, err
		}
		if err := u.remember(undoNamespace, n.id()); err != nil {
			u.Close()
			return nil, err
		}
		changes, err := u.all()
		if err != nil || changes[undoNamespace] == n.id() {
			return u, err
		}
		u.Close()
		if err := removePins(dir); err != nil {
			return nil, err
		}
	}
}

// namespacesOf lists the namespaces of all jobs, each once.
func namespacesOf(c *config.Target) []string {
	var names []string
	for _, j := range c.Jobs {
		names = append(names, j.Netns)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func jobsIn(c *config.Target, namespace string) []config.TargetJob {
	return slices.DeleteFunc(slices.Clone(c.Jobs), func(j config.TargetJob) bool { return j.Netns != namespace })
}

func guardedOf(jobs []config.TargetJob) []Guarded {
	services := make([]Guarded, 0, len(jobs))
	for _, j := range jobs {
		services = append(services, Guarded{netip.AddrPortFrom(j.Address, j.Port), j.Direct()})
	}
	return services
}

func dvipasOf(jobs []config.TargetJob) []netip.Addr {
	var addrs []netip.Addr
	for _, j := range jobs {
		if !slices.Contains(addrs, j.Address) {
			addrs = append(addrs, j.Address)
		}
	}
	return addrs
}

// Close takes the TAP away and lets everything else be: the guard at its post, the DVIPAs, the connections.
func (s *space) Close() error {
	var errs []error
	if s.mover != nil {
		errs = append(errs, s.mover.Close())
	}
	if s.lockstep != nil {
		errs = append(errs, s.lockstep.Close())
	}
	if s.importer != nil {
		errs = append(errs, s.importer.Close())
	}
	if s.diag != nil {
		errs = append(errs, s.diag.Close())
	}
	if s.guard != nil {
		errs = append(errs, s.guard.Close())
	}
	if s.flows != nil {
		errs = append(errs, s.flows.Close())
	}
	if s.undo != nil {
		errs = append(errs, s.undo.Close())
	}
	if s.ns != nil {
		errs = append(errs, s.ns.Close())
	}
	return errors.Join(errs...)
}

// look finds out about each job.
func (s *space) look() (map[agent.Job]agent.Readiness, error) {
	listeners, err := s.diag.Dump(Listen)
	if err != nil {
		return nil, err
	}
	host := s.hostProblem()
	found := make(map[agent.Job]agent.Readiness)
	for _, j := range s.jobs {
		window, problem := checkListener(listeners, listenerOf(j), readyMSS, j.Window)
		if j.Direct() {
			window, problem = 0, checkDirect(listeners, listenerOf(j))
		}
		if host != nil {
			problem = host
		}
		found[jobOf(j)] = agent.Readiness{Window: window, Direct: j.Direct(), Problem: problem}
	}
	return found, nil
}

// jobOf is a job as the agent knows it.
func jobOf(j config.TargetJob) agent.Job {
	return agent.Job{Name: j.Name, Service: netip.AddrPortFrom(j.Address, j.Port)}
}

// listenerOf is where to look for the application's listener: on the wildcard means on the DVIPA, too.
func listenerOf(j config.TargetJob) netip.AddrPort {
	if j.Listener.Addr().IsUnspecified() {
		return netip.AddrPortFrom(j.Address, j.Listener.Port())
	}
	return j.Listener
}

// hostProblem is the first thing of the namespace that keeps all its jobs from taking connections.
func (s *space) hostProblem() *agent.Problem {
	var problem *agent.Problem
	err := s.ns.Do(func() error {
		for _, c := range append(checkSysctls(), checkAddresses(dvipasOf(s.jobs))...) {
			if !c.OK {
				problem = &agent.Problem{Reason: transfer.ReasonHost, Detail: c.Detail}
				return nil
			}
		}
		return nil
	})
	if err != nil {
		return &agent.Problem{Reason: transfer.ReasonHost, Detail: err.Error()}
	}
	return problem
}

// states adds the state of every connection in the namespace.
func (s *space) states(to map[wire.Tuple]SocketState) error {
	sockets, err := s.diag.Dump(Established, SynRecv, FinWait1, FinWait2, TimeWait, CloseWait, LastAck, Closing)
	for _, socket := range sockets {
		to[socket.Tuple] = socket.State
	}
	return err
}

// take gives a job a connection, or what was played of it.
func (s *space) take(ctx context.Context, i *transfer.Import, j config.TargetJob) (Imported, error) {
	if j.Lockstep() {
		return s.lockstep.Continue(i.Host, i.Transfer, &i.Record)
	}
	return s.importer.Import(ctx, &i.Record, listenerOf(j))
}

// offered says whether a job could take a client with this MSS and a first window of want. Of a SO_REUSEPORT group it
// asks one member; look, which tells the routing hosts what is ready, asks all.
func (s *space) offered(j config.TargetJob, mss uint16, want uint32) *agent.Problem {
	if j.Direct() {
		detail := fmt.Sprintf("job %s takes clients' connections itself: set connections: transferred", j.Name)
		return &agent.Problem{Reason: transfer.ReasonHost, Detail: detail}
	}
	least := uint16(MinMSS4)
	if j.Address.Is6() {
		least = MinMSS6
	}
	if mss < least {
		detail := fmt.Sprintf("the client's MSS is %d; the kernel takes none below %d", mss, least)
		return &agent.Problem{Reason: transfer.ReasonMSS, Detail: detail}
	}
	listener, err := s.diag.Listener(listenerOf(j))
	if err != nil {
		return &agent.Problem{Reason: transfer.ReasonHost, Detail: err.Error()}
	}
	_, problem := checkListener([]Socket{listener}, listenerOf(j), mss, want)
	return problem
}
