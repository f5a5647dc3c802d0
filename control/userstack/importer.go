package userstack

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"baton/control/admin"
	"baton/control/agent"
	"baton/control/transfer"
	"baton/fastpath/wire"
)

var _ agent.Importer = (*Stack)(nil)

// acceptor is who gets a job's connections.
type acceptor interface {
	// problem says why it can take none now; nil: it can. It may take some milliseconds.
	problem() *agent.Problem
	// admit makes room for one connection, before that exists. give hands it over, or with nil gives the room back; it is
	// called once and does not block. The problem is transfer.ReasonCapacity where trying again may help; admit tries
	// until ctx ends, and does not block when it has ended before.
	admit(ctx context.Context) (give func(*Conn), p *agent.Problem)
}

// job is a job and who gets its connections.
type job struct {
	mu sync.Mutex
	to acceptor // nil: nobody
}

func (j *job) acceptor() acceptor {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.to
}

// set makes to the job's acceptor, in the place of what was there before if that is from.
func (j *job) set(from, to acceptor) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.to != from {
		return false
	}
	j.to = to
	return true
}

var (
	errUnknownJob = errors.New("no such job")
	errTaken      = errors.New("the job has somebody who takes its connections")
)

// attach gives a job its acceptor.
func (s *Stack) attach(name agent.Job, to acceptor) error {
	j := s.jobs[name]
	switch {
	case j == nil:
		return fmt.Errorf("%w: %s on %s", errUnknownJob, name.Name, name.Service)
	case !j.set(nil, to):
		return fmt.Errorf("%w: %s on %s", errTaken, name.Name, name.Service)
	}
	s.lookAgain()
	return nil
}

// detach takes it away again.
func (s *Stack) detach(name agent.Job, from acceptor) {
	s.jobs[name].set(from, nil)
	s.lookAgain()
}

// lookAgain tells the agent, once there is one.
func (s *Stack) lookAgain() {
	if s.to != nil {
		s.to.LookAgain()
	}
}

// Begin implements agent.Importer: no connection outlives its stack.
func (s *Stack) Begin(to agent.Reporter) (live, ended []transfer.Flow) {
	s.to = to
	return nil, nil
}

// Look implements agent.Importer.
func (s *Stack) Look() map[agent.Job]agent.Readiness {
	ready := make(map[agent.Job]agent.Readiness, len(s.jobs))
	for name, j := range s.jobs {
		r := agent.Readiness{Window: s.cfg.Window}
		if to := j.acceptor(); to == nil {
			r.Problem = nobody(name)
		} else {
			r.Problem = to.problem()
		}
		ready[name] = r
	}
	return ready
}

func nobody(j agent.Job) *agent.Problem {
	detail := fmt.Sprintf("nobody takes the connections of job %s: start the application", j.Name)
	return &agent.Problem{Reason: transfer.ReasonNotListening, Detail: detail}
}

// Check implements agent.Importer. The client's link address is asked for meanwhile, for the first answer.
func (s *Stack) Check(o *transfer.Offer) *agent.Problem {
	name := agent.Job{Name: o.Job, Service: o.Inc.Service}
	j := s.jobs[name]
	if j == nil || j.acceptor() == nil {
		return nobody(name)
	}
	client := o.Inc.Client.Addr()
	if _, _, err := s.via(client); err != nil {
		return &agent.Problem{Reason: transfer.ReasonHost, Detail: err.Error()}
	}
	select {
	case s.inbox <- func() { _, _ = s.route(client) }:
		s.dp.Wake()
	default: // the agent must not wait for the loop
	}
	return nil
}

// Import implements agent.Importer.
func (s *Stack) Import(ctx context.Context, i *transfer.Import) (agent.Imported, *agent.Problem) {
	start := time.Now()
	name := agent.Job{Name: i.Record.Job, Service: i.Record.Inc.Service}
	j := s.jobs[name]
	if j == nil {
		return agent.Imported{}, nobody(name)
	}
	to := j.acceptor()
	if to == nil {
		return agent.Imported{}, nobody(name)
	}
	give, p := to.admit(ctx)
	if p != nil {
		return agent.Imported{}, p
	}
	var e *endpoint
	var err error
	if stopped := s.do(func() { e, err = s.open(i) }); stopped != nil {
		err = stopped
	}
	if err != nil {
		give(nil)
		return agent.Imported{}, problemOf(err)
	}
	s.count.imported.Add(1)
	give(e.app)
	return agent.Imported{RcvNxt: i.Record.RcvNxt, Took: time.Since(start), Known: func() { s.known(e) }}, nil
}

func problemOf(err error) *agent.Problem {
	reason := transfer.ReasonImport
	switch {
	case errors.Is(err, errFull):
		reason = transfer.ReasonCapacity
	case errors.Is(err, ErrNoRoute), errors.Is(err, ErrStopped):
		reason = transfer.ReasonHost
	}
	return &agent.Problem{Reason: reason, Detail: err.Error()}
}

// known lets the end of a connection be reported, which may have come.
func (s *Stack) known(e *endpoint) {
	s.post(func() {
		e.known = true
		if e.ended {
			s.end(e)
		}
	})
}

// Forget implements agent.Importer: nothing is kept for another process.
func (s *Stack) Forget(wire.Incarnation) {}

// Flows implements agent.Importer. After the loop's end there are none.
func (s *Stack) Flows() []admin.Flow {
	var list []admin.Flow
	_ = s.do(func() {
		for _, e := range s.conns {
			if e.ended {
				continue
			}
			list = append(list, admin.Flow{
				Client: e.inc.Client.String(), Service: e.inc.Service.String(), Job: e.flow.Job, Router: e.flow.Host,
				Since: e.since, State: e.tcp.State().String(),
			})
		}
	})
	return list
}
