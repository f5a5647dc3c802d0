package agent

import (
	"errors"
	"os"
	"testing"
	"time"

	"baton/control/transfer"
)

// giving is an agent whose application gives a connection, if it has any.
type giving struct {
	*rig
	export  Export
	settled chan bool  // of the export
	answers chan error // to the application
}

func newGiving(t *testing.T) *giving {
	f := importing()
	g := &giving{rig: newRig(t, f), settled: make(chan bool, 1), answers: make(chan error, 1)}
	if c := g.give(1); !c.Imported {
		t.Fatalf("confirmation %+v", c)
	}
	g.export = Export{Record: transfer.Record{Epoch: 1, Inc: inc, ReadFrom: 100, RcvNxt: 100, RcvAcked: 100, RcvEdge: 200,
		SndUna: 7, SndNxt: 7}, Settle: func(left bool) { g.settled <- left }}
	f.exported = func() (Export, *Problem) { return g.export, nil }
	return g
}

// away has the application of the job web give the connection.
func (g *giving) away(to Gift) {
	g.t.Helper()
	var err error
	if to.Socket, err = os.Open(os.DevNull); err != nil {
		g.t.Fatal(err)
	}
	to.Settled = func(_ string, err error) { g.answers <- err }
	if to.Jobs == nil {
		to.Jobs = []Job{web}
	}
	g.agent.Give(to)
}

func (g *giving) wantAnswer(left bool, answer func(error) bool) {
	g.t.Helper()
	select {
	case got := <-g.settled:
		if got != left {
			g.t.Errorf("settled as left %v, want %v", got, left)
		}
	case <-time.After(answerTimeout):
		g.t.Fatal("not settled")
	}
	if err := <-g.answers; !answer(err) {
		g.t.Errorf("the application is told %v", err)
	}
}

// refused is an answer with a reason.
func refused(reason transfer.Reason) func(error) bool {
	return func(err error) bool {
		var p *Problem
		return errors.As(err, &p) && p.Reason == reason && p.Detail != ""
	}
}

func TestGiftThatCannotBeStays(t *testing.T) {
	elsewhere := Job{"mail", service}
	for name, try := range map[string]struct {
		gift   Gift
		change func(*giving)
		reason transfer.Reason
	}{
		"of another's job":        {gift: Gift{Jobs: []Job{elsewhere}}, reason: transfer.ReasonApplication},
		"to where it is":          {gift: Gift{Job: "web", Host: "t1"}, reason: transfer.ReasonHops},
		"of a connection of none": {change: func(g *giving) { g.export.Record.Inc.ISS++ }, reason: transfer.ReasonReservation},
		"while the agent ends":    {change: func(g *giving) { g.stop() }, reason: transfer.ReasonDraining},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGiving(t)
			if try.change != nil {
				try.change(g)
			}
			g.away(try.gift)
			g.wantAnswer(false, refused(try.reason))
		})
	}
}

func TestSocketThatCannotBeExportedIsNotGiven(t *testing.T) {
	g := newGiving(t)
	g.exported = func() (Export, *Problem) { return Export{}, &Problem{transfer.ReasonHost, "queued"} }
	g.away(Gift{})
	if err := <-g.answers; !refused(transfer.ReasonHost)(err) || len(g.settled) != 0 {
		t.Errorf("the application is told %v", err)
	}
}

func TestGiftGoesWithStateToTheRoutingHost(t *testing.T) {
	g := newGiving(t)
	g.away(Gift{Job: "mail", Host: "t2", State: []byte("state"), From: "pop3d"})
	a := hear[transfer.Assign](g.rig)
	if o := a.Offer; o.Job != "mail" || o.Host != "t2" || string(o.State) != "state" || o.From != "pop3d" || o.FromHost != "t1" ||
		o.Hops != 1 {
		t.Errorf("%+v", o)
	}
	g.say(transfer.Confirm{Transfer: a.Offer.Transfer, Imported: true, RcvNxt: 100})
	g.wantAnswer(true, func(err error) bool { return err == nil })
}

// The application must not go on with a connection that may have another owner, also if its agent ends.
func TestGiverIsToldThatNobodyKnows(t *testing.T) {
	g := newGiving(t)
	g.away(Gift{})
	hear[transfer.Assign](g.rig)
	go g.stop()
	g.wantAnswer(true, func(err error) bool { return errors.Is(err, ErrLost) })
}
