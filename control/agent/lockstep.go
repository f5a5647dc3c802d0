package agent

import (
	"context"
	"time"

	"baton/control/transfer"
)

// Lockstep plays to unmodified servers that speak first what client and routing host have said. Its methods may be called
// concurrently.
type Lockstep interface {
	// Plays reports whether that is done for a job's server.
	Plays(job Job) bool
	// Play has the dialogue of an offer, unseen by the client; nil: the connection exists, and Importer.Import will
	// continue it. It returns before long when ctx has ended.
	Play(ctx context.Context, host string, o *transfer.Offer) *Problem
	// Abandon ends the connection of a Play if it was not continued.
	Abandon(host string, id transfer.ID)
}

// Bounds of a dialogue's time. The routing host's patience with its offer is in between, if it says so.
const (
	playLeast = 150 * time.Millisecond
	playMost  = 5 * time.Second
)

func (a *Agent) plays(j Job) bool { return a.config.Lockstep != nil && a.config.Lockstep.Plays(j) }

// play has the server of a job take an offer, and answers it then. Called with mu held.
func (a *Agent) play(c transfer.Check) {
	ctx, cancel := context.WithTimeout(a.stopping, min(max(c.Offer.Reserve, playLeast), playMost))
	a.imports.Go(func() {
		defer cancel()
		host, id := c.Host, c.Offer.Transfer
		if p := a.config.Lockstep.Play(ctx, host, &c.Offer); p != nil {
			a.log.Info("offer rejected", "host", host, "client", c.Offer.Inc.Client, "job", c.Offer.Job, "detail", p.Detail)
			a.step(checked(host, id, p))
			return
		}
		// If the routing host has gone on meanwhile, Lapsed comes at once.
		a.step(transfer.Asked{Host: host, Transfer: id}, checked(host, id, nil))
	})
}

// lapsed tells whoever was asked about a transfer that it comes to nothing. Called with mu held.
func (a *Agent) lapsed(l transfer.Lapsed) {
	if a.config.Applications != nil {
		a.config.Applications.Lapsed(l.Host, l.Transfer)
	}
	if a.config.Lockstep != nil {
		a.imports.Go(func() { a.config.Lockstep.Abandon(l.Host, l.Transfer) })
	}
}
