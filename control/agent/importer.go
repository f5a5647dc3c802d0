package agent

import (
	"context"
	"net/netip"
	"time"

	"baton/control/admin"
	"baton/control/transfer"
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// Importer makes connections at this host and sees them end. All methods may be called from several goroutines.
type Importer interface {
	// Begin is called once, before everything else: the Importer says what it has of an earlier process, as
	// transfer.NewTaker wants it, and may report to the Agent from the first Look on.
	Begin(to Reporter) (live, ended []transfer.Flow)
	// Look finds out which jobs can take connections now. It is called every so often, and when Reporter.LookAgain
	// asks for it. Jobs that it leaves out cannot. The map is the Agent's.
	Look() map[Job]Readiness
	// Check says why an offer cannot be taken; nil: it can. It does not block.
	Check(o *transfer.Offer) *Problem
	// Import makes the connection, or makes sure that it never exists. While something is full that may empty
	// (transfer.ReasonCapacity) it tries again until ctx ends; it must not block when ctx has ended before.
	Import(ctx context.Context, i *transfer.Import) (Imported, *Problem)
	// Forget drops what is kept of an ended connection for the next process.
	Forget(inc wire.Incarnation)
	// Flows lists the connections that are alive, in no order.
	Flows() []admin.Flow
}

// Imported is a connection that exists.
type Imported struct {
	RcvNxt seq.Value     // what it expects next from the client
	Took   time.Duration // to make it
	// Known is called when the machine knows that the connection exists. From then on its end is reported, and at once
	// if it came before: reported any earlier, it would be an end of nothing.
	Known func()
}

// Reporter is what an Importer tells the Agent. It must not hold a lock that the Importer's own methods need.
type Reporter interface {
	// Ended says that a connection is over at this host.
	Ended(inc wire.Incarnation)
	// Back says that a connection is to go back to its routing host: r is its state, and it is frozen. Once it is known
	// what comes of it, settle is called, once and maybe at once: the connection left, and nothing of it may be heard from
	// this host any more, or it is this host's as before. settle must not call the Agent.
	Back(r transfer.Record, settle func(left bool))
	// LookAgain says that a job's readiness may have changed.
	LookAgain()
}

// Job names what this host serves: a job on one address and port of a DVIPA.
type Job struct {
	Name    string
	Service netip.AddrPort
}

// Readiness is what a job can do right now.
type Readiness struct {
	Window  uint32   // first window, octets; 0 unknown
	Direct  bool     // the application takes clients' SYNs itself, and nothing is handed over to it
	Problem *Problem // nil: it takes connections
}

// Problem is why a job cannot take a connection. Detail is one line that says what to set.
type Problem struct {
	Reason transfer.Reason
	Detail string
}

// Error makes a Problem an error.
func (p *Problem) Error() string { return p.Detail }
