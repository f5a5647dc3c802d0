package agent

import (
	"errors"
	"testing"
	"time"

	"baton/control/admin"
	"baton/control/transfer"
	"baton/control/xcf"
	"baton/fastpath/seq"
)

// closing is an agent with one connection, whose application closes it.
type closing struct {
	*rig
	settled chan bool
}

func newClosing(t *testing.T) *closing {
	r := newRig(t, importing())
	if c := r.give(1); !c.Imported {
		t.Fatalf("confirmation %+v", c)
	}
	b := &closing{r, make(chan bool, 2)}
	next := seq.Value(100)
	go r.to.Back(transfer.Record{Epoch: 1, Inc: inc, ReadFrom: next, RcvNxt: next, RcvAcked: next,
		RcvEdge: next.Add(32768), SndUna: 7, SndNxt: 7}, func(left bool) { b.settled <- left })
	return b
}

func (b *closing) wantSettled(left bool) {
	b.t.Helper()
	select {
	case got := <-b.settled:
		if got != left {
			b.t.Errorf("settled as left %v, want %v", got, left)
		}
	case <-time.After(answerTimeout):
		b.t.Fatal("not settled")
	}
}

func (b *closing) wantCounted(name string) {
	b.t.Helper()
	for end := time.Now().Add(answerTimeout); ; time.Sleep(time.Millisecond) {
		for _, c := range b.agent.Counters() {
			if c == (admin.Counter{Group: "back", Name: name, Value: 1}) {
				return
			}
		}
		if time.Now().After(end) {
			b.t.Fatalf("counters %+v, want back %s", b.agent.Counters(), name)
		}
	}
}

func TestConnectionGoesBack(t *testing.T) {
	b := newClosing(t)
	a := hear[transfer.Assign](b.rig)
	r, err := transfer.Decode(a.Record)
	if err != nil || a.Offer.Job != "" || a.Offer.Hops != 0 || r.Inc != inc || r.RcvNxt != 100 {
		t.Errorf("%+v with %+v, %v", a.Offer, r, err)
	}
	b.say(transfer.Confirm{Transfer: a.Offer.Transfer, Imported: true, RcvNxt: r.RcvNxt})
	b.wantSettled(true)
	b.wantCounted("taken")
	// It is the routing host's, which may give it again.
	b.say(transfer.Query{Transfer: 1, Inc: inc})
	if got := hear[transfer.QueryReply](b.rig); got.State != transfer.FlowEnded {
		t.Errorf("reply %+v", got)
	}
	if c := b.give(2); !c.Imported {
		t.Errorf("confirmation %+v", c)
	}
}

func TestRefusedConnectionStays(t *testing.T) {
	b := newClosing(t)
	a := hear[transfer.Assign](b.rig)
	b.say(transfer.Confirm{Transfer: a.Offer.Transfer, Reason: transfer.ReasonHost, Detail: "no"})
	b.wantSettled(false)
	b.wantCounted("not_imported")
	b.say(transfer.Query{Transfer: 1, Inc: inc})
	if got := hear[transfer.QueryReply](b.rig); got.State != transfer.FlowLive {
		t.Errorf("reply %+v", got)
	}
}

// After a lost answer only the routing host knows.
func TestLostAnswerIsAskedFor(t *testing.T) {
	b := newClosing(t)
	a := hear[transfer.Assign](b.rig)
	q := hear[transfer.Query](b.rig)
	if q.Transfer != a.Offer.Transfer || len(b.settled) != 0 {
		t.Errorf("query %+v, settled %d", q, len(b.settled))
	}
	b.say(transfer.QueryReply{Transfer: q.Transfer, Inc: inc, State: transfer.FlowLive, RcvNxt: 100})
	b.wantSettled(true)
}

// Without a stream nobody can have taken it: its client must not wait until the transfer is given up.
func TestConnectionStaysWithoutAStream(t *testing.T) {
	r := newRig(t, importing())
	if c := r.give(1); !c.Imported {
		t.Fatalf("confirmation %+v", c)
	}
	r.hangUp()
	for end := time.Now().Add(answerTimeout); !errors.Is(r.agent.dialer.Send("rh1", xcf.Pack(transfer.Release{})),
		xcf.ErrNotConnected); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the stream stays")
		}
	}
	settled := make(chan bool, 1)
	r.to.Back(transfer.Record{Epoch: 1, Inc: inc, ReadFrom: 100, RcvNxt: 100, RcvAcked: 100, RcvEdge: 200, SndUna: 7, SndNxt: 7},
		func(left bool) { settled <- left })
	select {
	case left := <-settled:
		if left {
			t.Error("it left")
		}
	default:
		t.Error("it is not settled at once")
	}
}

func TestConnectionOfNobodyStays(t *testing.T) {
	r := newRig(t, importing())
	settled := make(chan bool, 1)
	r.to.Back(transfer.Record{Inc: inc}, func(left bool) { settled <- left })
	if <-settled {
		t.Error("it left")
	}
}

// An agent that ends hears what becomes of a connection on its way, as two owners, or none, would be worse than to wait.
func TestEndingAgentWaitsForTheRoutingHost(t *testing.T) {
	for name, answer := range map[string]*transfer.Confirm{
		"taken":        {Imported: true, RcvNxt: 100},
		"not_imported": {Reason: transfer.ReasonHost, Detail: "no"},
		"aborted":      nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newClosing(t)
			a := hear[transfer.Assign](b.rig)
			ended := make(chan struct{})
			go func() {
				b.stop()
				close(ended)
			}()
			late := make(chan bool, 1)
			for b.agent.stops() == nil {
				time.Sleep(time.Millisecond)
			}
			b.to.Back(transfer.Record{Epoch: 1, Inc: inc}, func(left bool) { late <- left })
			if <-late {
				t.Error("another connection left meanwhile")
			}
			if answer != nil {
				answer.Transfer = a.Offer.Transfer
				b.say(*answer)
			}
			b.wantSettled(name != "not_imported")
			b.wantCounted(name)
			<-ended
		})
	}
}
