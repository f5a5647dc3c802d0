package agent

import (
	"context"
	"sync"
	"testing"
	"time"

	"baton/control/transfer"
)

// asked are Applications whose answers a test chooses; it hears what they are told.
type asked struct {
	to     Decider
	offers chan *transfer.Check
	told   chan string

	mu     sync.Mutex
	absent *Problem
}

func newAsked() *asked {
	return &asked{offers: make(chan *transfer.Check, 16), told: make(chan string, 16)}
}

func (a *asked) Begin(to Decider)  { a.to = to }
func (a *asked) Asks(job Job) bool { return job == web }
func (a *asked) Problem(Job) *Problem {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.absent
}

func (a *asked) Offer(c *transfer.Check) *Problem {
	if p := a.Problem(web); p != nil {
		return p
	}
	a.offers <- c
	return nil
}
func (a *asked) Arrived(host string, _ transfer.ID) { a.told <- "arrived " + host }
func (a *asked) Lapsed(host string, _ transfer.ID)  { a.told <- "lapsed " + host }

func (a *asked) wantTold(t *testing.T, what string) {
	t.Helper()
	select {
	case got := <-a.told:
		if got != what {
			t.Errorf("the application is told %q, want %q", got, what)
		}
	case <-time.After(answerTimeout):
		t.Errorf("the application is not told %q", what)
	}
}

// importing is an Importer that makes every connection.
func importing() *fake {
	return &fake{imported: func(_ context.Context, i *transfer.Import) (Imported, *Problem) {
		return Imported{RcvNxt: i.Record.RcvNxt, Known: func() {}}, nil
	}}
}

func (r *rig) offer(state string) {
	r.t.Helper()
	r.say(transfer.Offer{Transfer: 1, Inc: inc, Epoch: 1, Job: "web", RecordVersion: transfer.RecordVersion, MSS: 1460,
		Window: 32768, Reserve: answerTimeout, State: []byte(state), From: "front"})
}

func TestApplicationIsAskedAndHearsOfItsConnection(t *testing.T) {
	apps := newAsked()
	r := newRigWith(t, importing(), apps)
	go func() {
		c := <-apps.offers
		apps.to.Decided(c.Host, c.Offer.Transfer, nil)
	}()
	if c := r.give(1); !c.Imported {
		t.Errorf("confirmation %+v", c)
	}
	apps.wantTold(t, "arrived rh1")
}

func TestApplicationRejects(t *testing.T) {
	apps := newAsked()
	r := newRigWith(t, importing(), apps)
	r.offer("user=ada")
	c := <-apps.offers
	if string(c.Offer.State) != "user=ada" || c.Offer.From != "front" || c.Assigned {
		t.Errorf("%+v", c)
	}
	apps.to.Decided("rh1", 1, &Problem{transfer.ReasonApplication, "mailbox is locked"})
	reply := hear[transfer.OfferReply](r)
	if reply.Accepted || reply.Reason != transfer.ReasonApplication || reply.Detail != "mailbox is locked" {
		t.Errorf("reply %+v", reply)
	}
	apps.wantTold(t, "lapsed rh1")
}

func TestApplicationHearsThatTheRouterGaveUp(t *testing.T) {
	apps := newAsked()
	r := newRigWith(t, importing(), apps)
	r.offer("")
	<-apps.offers
	r.say(transfer.Release{Transfer: 1})
	apps.wantTold(t, "lapsed rh1")
	apps.to.Decided("rh1", 1, nil) // too late: nothing comes of it
	r.say(transfer.Query{Transfer: 1, Inc: inc})
	if got := hear[transfer.QueryReply](r); got.State != transfer.FlowUnknown {
		t.Errorf("reply %+v", got)
	}
}

func TestJobWithoutItsApplicationIsNotReady(t *testing.T) {
	apps := newAsked()
	apps.absent = &Problem{transfer.ReasonNotListening, "start it"}
	r := newRigWith(t, importing(), apps)
	if job := r.hearJob(false); job.Reason != "start it" {
		t.Errorf("reason %q", job.Reason)
	}
	r.offer("")
	if reply := hear[transfer.OfferReply](r); reply.Accepted || reply.Detail != "start it" {
		t.Errorf("reply %+v", reply)
	}
	apps.mu.Lock()
	apps.absent = nil
	apps.mu.Unlock()
	apps.to.LookAgain()
	r.hearJob(true)
}

// State that nobody can be given is not lost without a word.
func TestConventionalApplicationGetsNoState(t *testing.T) {
	r := newRig(t, importing())
	r.offer("user=ada")
	want := "job web cannot be given application state: set application: ask"
	if reply := hear[transfer.OfferReply](r); reply.Accepted || reply.Detail != want {
		t.Errorf("reply %+v, want %q", reply, want)
	}
}
