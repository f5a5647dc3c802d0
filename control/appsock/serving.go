package appsock

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"baton/control/admin"
	"baton/control/agent"
	"baton/control/app"
	"baton/control/transfer"
)

// Bounds of what a target application may cause.
const (
	maxOffers = 1024 // that one application has not answered, or whose connections have not arrived
	maxReason = 1000 // octets of why it rejects
)

// Serving is a target host's end of control sockets: the Handler of its Server and the Applications of its agent. Its
// methods are safe for concurrent use.
//
// No call to the agent is made with the lock held, because the agent calls with its own.
type Serving struct {
	host string
	jobs []agent.Job // whose applications are asked
	log  *slog.Logger
	to   agent.Decider

	notes  *Notes
	counts Counts

	mu      sync.Mutex
	members map[agent.Job][]*member // in turn
	offers  map[uint64]*offer       // by the number that the application knows
	numbers map[offered]uint64
	last    uint64 // number
}

var _ agent.Applications = (*Serving)(nil)

// member is an application that has registered for a job.
type member struct {
	peer  *Peer
	name  string
	since time.Time
	open  int    // offers that are not settled
	taken uint64 // connections that have arrived
}

// offered names an offer as the agent knows it.
type offered struct {
	host string
	id   transfer.ID
}

// offer is a connection that may come, or is about to.
type offer struct {
	offered
	to       *member
	message  app.Message // TypeOffer, without the state once it is sent
	assigned bool        // the application has not been told
	answered bool
}

// NewServing makes the end for a host that asks the applications of these jobs.
func NewServing(host string, jobs []agent.Job, notes *Notes, log *slog.Logger) *Serving {
	return &Serving{host: host, jobs: jobs, notes: notes, log: log, members: map[agent.Job][]*member{}, offers: map[uint64]*offer{},
		numbers: map[offered]uint64{}}
}

// Run serves control sockets until ctx ends.
func (s *Serving) Run(ctx context.Context, at Sockets) error {
	return (&Server{Rights: at.Rights, Handler: s, Log: s.log, Counts: &s.counts}).Run(ctx, at)
}

// Counters are what operators see of control sockets.
func (s *Serving) Counters() []admin.Counter { return s.counts.Counters() }

// Begin implements agent.Applications.
func (s *Serving) Begin(to agent.Decider) { s.to = to }

// Asks implements agent.Applications.
func (s *Serving) Asks(job agent.Job) bool { return slices.Contains(s.jobs, job) }

// Problem implements agent.Applications.
func (s *Serving) Problem(job agent.Job) *agent.Problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.members[job]) == 0 {
		return unregistered(job)
	}
	return nil
}

func unregistered(job agent.Job) *agent.Problem {
	return &agent.Problem{Reason: transfer.ReasonNotListening, Detail: fmt.Sprintf(
		"no application is registered for job %s of %s: start it, or set application: conventional", job.Name, job.Service)}
}

// Offer implements agent.Applications: applications are asked in turn.
func (s *Serving) Offer(c *transfer.Check) *agent.Problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	job := agent.Job{Name: c.Offer.Job, Service: c.Offer.Inc.Service}
	m := s.next(job, len(c.Offer.State))
	switch {
	case m == nil && len(s.members[job]) > 0:
		return &agent.Problem{Reason: transfer.ReasonHost, Detail: fmt.Sprintf("the applications of job %s are registered over "+
			"UDP, which carries %d octets of state, not %d: let one register at the Unix socket", job.Name, app.MaxInline,
			len(c.Offer.State))}
	case m == nil:
		return unregistered(job)
	case m.open >= maxOffers:
		return &agent.Problem{Reason: transfer.ReasonCapacity, Detail: fmt.Sprintf(
			"application %s has %d offers that are not settled", m.name, m.open)}
	}
	s.last++
	o := &offer{offered: offered{c.Host, c.Offer.Transfer}, to: m, assigned: c.Assigned, message: app.Message{
		Type: app.TypeOffer, Transfer: s.last, Client: c.Offer.Inc.Client.String(), Service: job.Service.String(),
		Job: job.Name, State: c.Offer.State, From: &app.Party{Host: cmp.Or(c.Offer.FromHost, c.Host), Name: c.Offer.From},
	}}
	s.offers[s.last], s.numbers[o.offered] = o, s.last
	m.open++
	if !c.Assigned {
		m.peer.Send(o.message)
		o.message.State = nil
	}
	return nil
}

// next is the application whose turn it is, among those that can be told so many octets of state. Called with mu held.
func (s *Serving) next(job agent.Job, state int) *member {
	members := s.members[job]
	i := slices.IndexFunc(members, func(m *member) bool { return m.peer.Carries(state) })
	if i < 0 {
		return nil
	}
	m := members[i]
	copy(members[i:], members[i+1:])
	members[len(members)-1] = m
	return m
}

// settle forgets an offer. Called with mu held.
func (s *Serving) settle(number uint64) *offer {
	o := s.offers[number]
	if o == nil {
		return nil
	}
	delete(s.offers, number)
	delete(s.numbers, o.offered)
	o.to.open--
	return o
}

// Arrived implements agent.Applications. An application that was not asked is told all that an offer tells.
func (s *Serving) Arrived(host string, id transfer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.settle(s.numbers[offered{host, id}])
	if o == nil {
		return
	}
	o.to.taken++
	m := app.Message{Transfer: o.message.Transfer, Client: o.message.Client}
	if o.assigned {
		m = o.message
	}
	m.Type = app.TypeArrived
	o.to.peer.Send(m)
}

// Lapsed implements agent.Applications.
func (s *Serving) Lapsed(host string, id transfer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.settle(s.numbers[offered{host, id}]); o != nil && !o.assigned {
		o.to.peer.Send(app.Message{Type: app.TypeCanceled, Transfer: o.message.Transfer, Client: o.message.Client,
			Detail: "the routing host has gone on without it, or it could not be imported"})
	}
}

// Joined implements Handler.
func (s *Serving) Joined(*Peer) {}

// Said implements Handler.
func (s *Serving) Said(p *Peer, m app.Message, files []*os.File) {
	if m.Type == app.TypeGive {
		s.give(p, m, files)
		return
	}
	defer closeAll(files)
	switch m.Type {
	case app.TypeRegister:
		s.register(p, m)
	case app.TypeMessage:
		s.notes.send(p, m)
	case app.TypeAccept:
		s.answer(p, m, nil)
	case app.TypeReject:
		why := cmp.Or(m.Detail[:min(len(m.Detail), maxReason)], "the application gives no reason")
		s.answer(p, m, &agent.Problem{Reason: transfer.ReasonApplication, Detail: why})
	default:
		p.Error(m.Seq, app.CodeMalformed, "a target host knows no "+string(m.Type))
	}
}

// Left implements Handler: nobody waits for an application that is gone.
func (s *Serving) Left(p *Peer) {
	s.notes.leave(p)
	s.mu.Lock()
	for job, members := range s.members {
		s.members[job] = slices.DeleteFunc(members, func(m *member) bool { return m.peer == p })
	}
	var unanswered []offered
	for number, o := range s.offers {
		if o.to.peer != p {
			continue
		}
		if s.settle(number); !o.answered && !o.assigned {
			unanswered = append(unanswered, o.offered)
		}
	}
	s.mu.Unlock()
	for _, o := range unanswered {
		s.to.Decided(o.host, o.id, &agent.Problem{Reason: transfer.ReasonApplication, Detail: "the application is gone"})
	}
	s.to.LookAgain()
}

// register takes an application for a job.
func (s *Serving) register(p *Peer, m app.Message) {
	switch {
	case m.Role != app.RoleTarget:
		p.Error(m.Seq, app.CodeMalformed, "a target host takes applications with the role target")
		return
	case len(m.Name) > app.MaxText:
		p.Error(m.Seq, app.CodeTooLarge, nameTooLong)
		return
	}
	job, code, err := s.find(m.Job, m.Service)
	switch {
	case err != nil:
		p.Error(m.Seq, code, err.Error())
		return
	case !p.May(job.Service.String()):
		p.Error(m.Seq, app.CodeNotAllowed, "applications.allow does not let this user register for "+job.Service.String())
		return
	}
	s.mu.Lock()
	if !slices.ContainsFunc(s.members[job], func(old *member) bool { return old.peer == p }) {
		name := cmp.Or(m.Name, p.Name)
		s.members[job] = append(s.members[job], &member{peer: p, name: name, since: time.Now()})
		s.log.Info("target application is registered", "name", name, "job", job.Name, "service", job.Service)
	}
	s.mu.Unlock()
	s.notes.join(p, cmp.Or(m.Name, p.Name), app.RoleTarget, job.Name,
		app.Message{Type: app.TypeRegistered, Seq: m.Seq, Host: s.host, Job: job.Name, Service: job.Service.String()})
	s.to.LookAgain()
}

// find finds the job of a registration, which need not name the service of a job that has only one.
func (s *Serving) find(name, service string) (job agent.Job, code string, err error) {
	var at netip.AddrPort
	if service != "" {
		if at, err = netip.ParseAddrPort(service); err != nil {
			return job, app.CodeMalformed, fmt.Errorf("service: %w", err)
		}
	}
	var found []agent.Job
	for _, j := range s.jobs {
		if j.Name == name && (!at.IsValid() || j.Service == at) {
			found = append(found, j)
		}
	}
	switch len(found) {
	case 0:
		return job, app.CodeUnknownJob, fmt.Errorf("no job %q of %s with application: ask here", name, cmp.Or(service, "any service"))
	case 1:
		return found[0], "", nil
	}
	return job, app.CodeMalformed, fmt.Errorf("job %q is on %d services: name one", name, len(found))
}

// answer takes an application's word. One that comes too late is ignored: what tells the application so is on its way.
func (s *Serving) answer(p *Peer, m app.Message, problem *agent.Problem) {
	s.mu.Lock()
	o := s.offers[m.Transfer]
	known := m.Transfer > 0 && m.Transfer <= s.last
	fresh := o != nil && o.to.peer == p && !o.answered && !o.assigned
	if fresh {
		o.answered = true
		if problem != nil {
			s.settle(m.Transfer) // it knows already that the connection will not come
		}
	}
	s.mu.Unlock()
	switch {
	case fresh:
		s.to.Decided(o.host, o.id, problem)
	case !known:
		p.Error(m.Seq, app.CodeUnknownTransfer, fmt.Sprintf("transfer %d was never offered", m.Transfer))
	}
}

// Registered lists the applications, for operators.
func (s *Serving) Registered() []admin.Application {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []admin.Application{}
	for job, members := range s.members {
		for _, m := range members {
			list = append(list, admin.Application{Name: m.name, Role: string(app.RoleTarget), Job: job.Name,
				Service: job.Service.String(), Since: m.since, Open: m.open, Taken: m.taken})
		}
	}
	sortApplications(list)
	return list
}
