package agent

import (
	"fmt"

	"baton/control/transfer"
	"baton/control/xcf"
)

// Applications are this host's target applications with a control socket (package appsock). The Agent calls its methods
// while it holds its lock: they neither block nor call the Agent before they return.
type Applications interface {
	// Begin is called once, before everything else.
	Begin(to Decider)
	// Asks reports whether the applications of a job are asked. Those of others are conventional.
	Asks(job Job) bool
	// Problem says why nobody can be asked now; nil: somebody can.
	Problem(job Job) *Problem
	// Offer asks one of the job's applications whether it takes a connection, or says why nobody can be asked. The answer
	// comes by Decider.Decided. After an assigned one nobody is asked: the application hears of it when it has arrived.
	Offer(c *transfer.Check) *Problem
	// Arrived tells the application that the connection of an offer is in its accept queue.
	Arrived(host string, id transfer.ID)
	// Lapsed tells the application that the connection of an offer will not come.
	Lapsed(host string, id transfer.ID)
}

// Decider is what Applications tell the Agent.
type Decider interface {
	// Decided is an application's answer to an offer: nil takes the connection.
	Decided(host string, id transfer.ID, p *Problem)
	// LookAgain says that applications have come or gone.
	LookAgain()
	// Give gives a connection of an application away.
	Give(g Gift)
}

// Notes carry messages between applications (package appsock), which the Agent only brings and takes away.
type Notes interface {
	// Heard takes a message of a routing host, and reports whether it was about notes.
	Heard(host string, e *xcf.Envelope) bool
}

// Send sends to a routing host, as the Dialer of package xcf does.
func (a *Agent) Send(host string, e *xcf.Envelope) error { return a.dialer.Send(host, e) }

// Decided implements Decider.
func (a *Agent) Decided(host string, id transfer.ID, p *Problem) {
	if p != nil {
		a.log.Info("application rejects an offer", "host", host, "transfer", uint64(id), "detail", p.Detail)
	}
	a.step(checked(host, id, p))
}

func checked(host string, id transfer.ID, p *Problem) transfer.Checked {
	c := transfer.Checked{Host: host, Transfer: id}
	if p != nil {
		c.Reason, c.Detail = p.Reason, p.Detail
	}
	return c
}

// asks reports whether a job's applications are asked.
func (a *Agent) asks(j Job) bool {
	return a.config.Applications != nil && a.config.Applications.Asks(j)
}

// ask asks an application about an offer that this host could take, and returns what came of it so far. Called with mu
// held.
func (a *Agent) ask(c transfer.Check) []transfer.Event {
	host, id := c.Host, c.Offer.Transfer
	switch job := jobOf(&c.Offer); {
	case a.asks(job):
		if p := a.config.Applications.Offer(&c); p != nil {
			return []transfer.Event{checked(host, id, p)}
		}
		asked := transfer.Asked{Host: host, Transfer: id}
		if c.Assigned {
			return []transfer.Event{asked, checked(host, id, nil)}
		}
		return []transfer.Event{asked}
	case len(c.Offer.State) > 0:
		// Nobody could be given it, and it would be lost without a word.
		detail := fmt.Sprintf("job %s cannot be given application state: set application: ask", job.Name)
		return []transfer.Event{checked(host, id, &Problem{transfer.ReasonHost, detail})}
	}
	return []transfer.Event{checked(host, id, nil)}
}

// withApplications adds to what jobs can do that their applications can be asked.
func (a *Agent) withApplications(ready map[Job]Readiness) {
	for j, r := range ready {
		if r.Problem == nil && a.asks(j) {
			r.Problem = a.config.Applications.Problem(j)
			ready[j] = r
		}
	}
}
