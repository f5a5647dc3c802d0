package agent

import (
	"context"
	"testing"
	"time"

	"baton/control/transfer"
)

// player is a Lockstep whose plays end when a test says so.
type player struct {
	plays     chan *transfer.Offer
	end       chan *Problem
	abandoned chan transfer.ID
}

func (p *player) Plays(j Job) bool { return j == web }
func (p *player) Play(_ context.Context, _ string, o *transfer.Offer) *Problem {
	p.plays <- o
	return <-p.end
}
func (p *player) Abandon(_ string, id transfer.ID) { p.abandoned <- id }

func (p *player) wantAbandoned(t *testing.T, id transfer.ID) {
	t.Helper()
	select {
	case got := <-p.abandoned:
		if got != id {
			t.Errorf("transfer %d is abandoned, want %d", got, id)
		}
	case <-time.After(answerTimeout):
		t.Errorf("transfer %d is not abandoned", id)
	}
}

// playing is a rig whose job's server is played to.
func playing(t *testing.T) (*rig, *player) {
	t.Helper()
	p := &player{plays: make(chan *transfer.Offer, 16), end: make(chan *Problem, 16), abandoned: make(chan transfer.ID, 16)}
	return newRigWith(t, importing(), nil, func(c *Config) { c.Lockstep = p }), p
}

func lockstepOffer(id transfer.ID) transfer.Offer {
	return transfer.Offer{Transfer: id, Inc: inc, Epoch: 1, Job: "web", RecordVersion: transfer.RecordVersion, MSS: 1460,
		Window: 32768, Reserve: 5 * time.Second,
		Dialogue: transfer.Dialogue{Record: []byte{1}, Turns: []transfer.Turn{{Last: "+OK"}}}}
}

// An offer is accepted when its dialogue was played, not before.
func TestOfferIsAcceptedOncePlayed(t *testing.T) {
	r, p := playing(t)
	r.say(lockstepOffer(1))
	if o := <-p.plays; o.Transfer != 1 || o.Dialogue.Turns[0].Last != "+OK" {
		t.Errorf("played %+v", o)
	}
	select {
	case e := <-r.heard:
		if e.GetOfferReply() != nil {
			t.Error("answered before the end of the play")
		}
	case <-time.After(20 * time.Millisecond):
	}
	p.end <- nil
	if reply := hear[transfer.OfferReply](r); !reply.Accepted {
		t.Errorf("%+v, want it accepted", reply)
	}
}

// A server that answers otherwise rejects the offer, with the reason.
func TestMismatchRejectsTheOffer(t *testing.T) {
	r, p := playing(t)
	p.end <- &Problem{transfer.ReasonDialogue, "dialogue mismatch: another banner"}
	r.say(lockstepOffer(1))
	reply := hear[transfer.OfferReply](r)
	if reply.Accepted || reply.Reason != transfer.ReasonDialogue || reply.Detail != "dialogue mismatch: another banner" {
		t.Errorf("%+v", reply)
	}
}

// What was played and is not wanted any more is abandoned, whether that is known before the end of the play or after it.
func TestReleasedPlayIsAbandoned(t *testing.T) {
	r, p := playing(t)
	r.say(lockstepOffer(1))
	<-p.plays
	r.say(transfer.Release{Transfer: 1})
	r.say(transfer.Query{Transfer: 9, Inc: inc}) // its answer says that the release has arrived
	hear[transfer.QueryReply](r)
	p.end <- nil
	p.wantAbandoned(t, 1)

	r.say(lockstepOffer(2))
	p.end <- nil
	hear[transfer.OfferReply](r)
	r.say(transfer.Release{Transfer: 2})
	p.wantAbandoned(t, 2)
}
