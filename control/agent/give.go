package agent

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"baton/control/transfer"
	"baton/fastpath/wire"
)

// ErrLost says that nobody knows who owns a connection that was given away: it is over here.
var ErrLost = errors.New("the routing host did not say whether it has taken the connection")

// Exporter is an Importer whose applications can give connections away.
type Exporter interface {
	// Export freezes the connection of a socket, which remains the caller's, and makes its record.
	Export(socket *os.File) (Export, *Problem)
}

// Export is a connection that is frozen. Job and Hops of its record are the Agent's to fill in.
type Export struct {
	Record transfer.Record
	Talked bool            // octets went to or from the client while it was here
	Settle func(left bool) // as of Reporter.Back; also lets go of the socket
}

// Gift is a connection that a target application gives away: to a job, at one of its hosts or any other than this one, or
// without a job back to the routing application.
type Gift struct {
	Socket  *os.File // closed when Give returns
	Jobs    []Job    // of the application: the connection must be of one of them
	Job     string
	Host    string
	State   []byte                       // application state for who takes it
	From    string                       // the application
	Settled func(host string, err error) // once, from any goroutine: nil: host, the routing host, has taken it; ErrLost; else it stays
}

// Give has a routing host take a connection back, which goes on from there as the gift says. Until that has taken it, it
// stays; so what cannot go on comes back with the reason, a *Problem.
func (a *Agent) Give(g Gift) {
	defer g.Socket.Close()
	exporter, able := a.importer.(Exporter)
	if !able {
		g.Settled("", &Problem{transfer.ReasonHost, "connections that are continued in userspace cannot be given away"})
		return
	}
	x, problem := exporter.Export(g.Socket)
	if problem != nil {
		g.Settled("", problem)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	flow, problem := a.mayGive(&g, x.Record.Inc)
	if problem != nil {
		x.Settle(false)
		g.Settled("", problem)
		return
	}
	r := x.Record
	r.Epoch, r.Job = flow.Epoch, g.Job
	if !x.Talked {
		r.Hops = max(flow.Hops, flow.Hops+1)
	}
	b := &back{record: r}
	b.settle = func(left bool) {
		x.Settle(left)
		g.Settled(flow.Host, b.outcome(left))
	}
	a.beginBack(b, flow.Host, transfer.Offer{Host: g.Host, State: g.State, From: g.From, FromHost: a.config.Host})
}

// mayGive finds the flow of a gift, or says why it cannot be given. Called with mu held.
func (a *Agent) mayGive(g *Gift, inc wire.Incarnation) (transfer.Flow, *Problem) {
	flow, live := a.taker.Flow(inc)
	switch {
	case a.stopping.Err() != nil:
		return flow, &Problem{transfer.ReasonDraining, "the agent ends"}
	case !live || flow.Host == "":
		return flow, &Problem{transfer.ReasonReservation, "the connection is not known to have come from a routing host"}
	case !slices.Contains(g.Jobs, Job{flow.Job, inc.Service}):
		return flow, &Problem{transfer.ReasonApplication, fmt.Sprintf("the application is not registered for job %s of %s",
			flow.Job, inc.Service)}
	case g.Job == flow.Job && g.Host == a.config.Host:
		return flow, &Problem{transfer.ReasonHops, "the connection is there already"}
	}
	return flow, nil
}

// outcome is what the application of a gift is told.
func (b *back) outcome(left bool) error {
	switch {
	case left && b.why.Cause != transfer.CauseNone:
		return ErrLost
	case left:
		return nil
	}
	return &Problem{b.why.Reason, b.why.Detail}
}
