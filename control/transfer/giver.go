package transfer

import (
	"fmt"
	"time"

	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// GiverState is a Giver's state.
type GiverState uint8

// The states of a Giver, in the order of a transfer that succeeds, and then the others.
const (
	GiverIdle      GiverState = iota // nothing happened yet
	GiverFreezing                    // unconditional: the forwarder was told to freeze the flow
	GiverOffering                    // an offer is out; the flow is frozen, or the forwarder was told to
	GiverAccepted                    // a target has a reservation; the flow is not known to be frozen
	GiverCommitted                   // the commit is out: the target may be the owner
	GiverQuerying                    // its confirmation did not come, and it is asked
	GiverConfirmed                   // the target is the owner; the forwarder was told
	GiverSwitched                    // the forwarder has done it. Final
	GiverRefused                     // this host is the owner, and nobody takes the connection. Final
	GiverAborted                     // nobody knows; this host forgets the connection. Final
)

var giverStates = [...]string{"idle", "freezing", "offering", "accepted", "committed", "querying", "confirmed", "switched",
	"refused", "aborted"}

// String is the state's word in logs.
func (s GiverState) String() string {
	if int(s) < len(giverStates) {
		return giverStates[s]
	}
	return "invalid"
}

// Final reports whether nothing happens after the state.
func (s GiverState) Final() bool { return s >= GiverSwitched }

// Owns reports whether in this state the routing host is the connection's owner, though maybe a frozen one.
func (s GiverState) Owns() bool { return s <= GiverAccepted || s == GiverRefused }

// giverMoves are the transitions of the table in the package comment.
var giverMoves = [...][]GiverState{
	GiverIdle:      {GiverFreezing, GiverOffering, GiverRefused},
	GiverFreezing:  {GiverCommitted, GiverRefused},
	GiverOffering:  {GiverOffering, GiverAccepted, GiverCommitted, GiverRefused},
	GiverAccepted:  {GiverOffering, GiverCommitted, GiverRefused},
	GiverCommitted: {GiverOffering, GiverCommitted, GiverQuerying, GiverConfirmed, GiverRefused},
	GiverQuerying:  {GiverOffering, GiverCommitted, GiverQuerying, GiverConfirmed, GiverRefused, GiverAborted},
	GiverConfirmed: {GiverConfirmed, GiverSwitched, GiverAborted},
	GiverAborted:   nil,
}

// Timeouts are how long a Giver waits. Each must be positive.
type Timeouts struct {
	Offer   time.Duration // for the answer to an offer
	Freeze  time.Duration // for the forwarder: Frozen after an accepted offer, Switched
	Confirm time.Duration // for the answer to a commit; then it is queried
	Query   time.Duration // between two queries
	GiveUp  time.Duration // from the commit, or the confirmation, to the abort
}

// DefaultTimeouts returns the timeouts of a local network.
func DefaultTimeouts() Timeouts {
	return Timeouts{
		Offer:   200 * time.Millisecond,
		Freeze:  time.Second, // an lcore that is not scheduled also delays what a refusal would be: waiting costs least
		Confirm: time.Second,
		Query:   250 * time.Millisecond,
		GiveUp:  15 * time.Second,
	}
}

// Give is what a Giver is to do.
type Give struct {
	// Offer is sent to each candidate; Transfer, RecordVersion and Reserve are filled in.
	Offer Offer
	// Candidates are the target hosts to try, in order.
	Candidates []string
	// First is the ID of the first attempt. The attempts after it take those that follow, one for each candidate, so the
	// caller leaves len(Candidates) of them to this Giver.
	First    ID
	Timeouts Timeouts
	// Unconditional transfers are one message, Assign: quicker, but the target application is not asked.
	Unconditional bool
}

// Giver is the routing host's machine: it hands one connection to the first of some target hosts that takes it. It is
// for one goroutine.
type Giver struct {
	give    Give
	state   GiverState
	attempt int       // index of the current candidate
	frozen  bool      // Frozen came
	record  []byte    // from Frozen
	rcvNxt  seq.Value // of record

	deadline time.Time // of the state; zero when final or idle
	giveUp   time.Time // from the commit on
	actions  []Action  // reused by each Step
}

// NewGiver makes a machine in GiverIdle. Start starts it.
func NewGiver(g Give) *Giver {
	g.Offer.RecordVersion = RecordVersion
	// The target's reservation must outlast our patience, or commits would be refused that are in time for us.
	g.Offer.Reserve = 2 * (g.Timeouts.Offer + g.Timeouts.Freeze)
	return &Giver{give: g}
}

// State returns the state.
func (g *Giver) State() GiverState { return g.state }

// Host returns the candidate of the current, or last, attempt; "" if there are none.
func (g *Giver) Host() string {
	if len(g.give.Candidates) == 0 {
		return ""
	}
	return g.give.Candidates[g.attempt]
}

// Transfer returns the ID of the current, or last, attempt.
func (g *Giver) Transfer() ID { return g.give.First + ID(g.attempt) }

// Inc returns the connection's incarnation.
func (g *Giver) Inc() wire.Incarnation { return g.give.Offer.Inc }

// Deadline returns when Timeout is due. It is zero only before Start and in a final state.
func (g *Giver) Deadline() time.Time { return g.deadline }

// Step takes an event that happened at now. The actions are valid until the next Step.
func (g *Giver) Step(e Event, now time.Time) []Action {
	g.actions = g.actions[:0]
	if _, ok := e.(Timeout); ok && (g.deadline.IsZero() || now.Before(g.deadline)) {
		return nil
	}
	if r, ok := e.(Received); ok && !g.current(r) {
		g.stale(r)
		return g.actions
	}
	switch g.state {
	case GiverIdle:
		g.idle(e, now)
	case GiverFreezing:
		g.freezing(e, now)
	case GiverOffering:
		g.offering(e, now)
	case GiverAccepted:
		g.accepted(e, now)
	case GiverCommitted:
		g.committed(e, now)
	case GiverQuerying:
		g.querying(e, now)
	case GiverConfirmed:
		g.confirmed(e, now)
	case GiverSwitched, GiverRefused, GiverAborted:
		g.final(e)
	}
	return g.actions
}

// current reports whether a message belongs to the current attempt: its ID, or for a report its flow, and its host.
func (g *Giver) current(r Received) bool {
	if r.Host != g.Host() || g.state == GiverIdle {
		return false
	}
	if report, ok := r.Message.(EndReport); ok {
		return report.Inc == g.give.Offer.Inc
	}
	id, ok := answers(r.Message)
	return ok && id == g.Transfer()
}

// answers returns the transfer that a target's message is about.
func answers(m Message) (ID, bool) {
	switch m := m.(type) {
	case OfferReply:
		return m.Transfer, true
	case Confirm:
		return m.Transfer, true
	case QueryReply:
		return m.Transfer, true
	}
	return 0, false
}

// stale handles a message of an older attempt, or of none.
func (g *Giver) stale(r Received) {
	if answer := Stray(r.Message); answer != nil {
		g.send(r.Host, answer)
	}
	if c, ok := r.Message.(Confirm); ok && c.Imported {
		g.do(Fault{r.Host, fmt.Sprintf("%s: imported by transfer %d, which is over", g.give.Offer.Inc.Tuple, c.Transfer)})
	}
}

// Stray returns what to answer a message that no Giver waits for, or nil: a reservation that nobody will use is given
// back.
func Stray(m Message) Message {
	if r, ok := m.(OfferReply); ok && r.Accepted {
		return Release{r.Transfer}
	}
	return nil
}

// idle: nothing happened yet.
func (g *Giver) idle(e Event, now time.Time) {
	switch e := e.(type) {
	case Start:
		if len(g.give.Candidates) == 0 {
			g.becomeRefused(Failure{Cause: CauseNoCandidate})
			return
		}
		g.do(Freeze{})
		g.try(0, now)
	case Cancel:
		g.becomeRefused(Failure{Cause: CauseCanceled, Detail: e.Detail})
	}
}

// freezing: nothing can be said to the target before the record is made.
func (g *Giver) freezing(e Event, now time.Time) {
	switch e := e.(type) {
	case Frozen:
		g.keep(e)
		g.becomeCommitted(now)
	case Received: // nothing was asked yet
		g.stale(e)
	case Timeout:
		g.becomeRefused(notFrozen)
	case Cancel:
		g.becomeRefused(Failure{Cause: CauseCanceled, Detail: e.Detail})
	}
}

// notFrozen is the failure of a forwarder that does not answer.
var notFrozen = Failure{Cause: CauseFreeze, Detail: "the forwarder did not freeze the flow"}

// offering: an offer is out.
func (g *Giver) offering(e Event, now time.Time) {
	switch e := e.(type) {
	case Received:
		reply, ok := e.Message.(OfferReply)
		switch {
		case !ok:
			g.stale(e) // it cannot be an answer: nothing was committed
		case !reply.Accepted:
			g.next(Failure{Host: e.Host, Cause: CauseRejected, Reason: reply.Reason, Detail: reply.Detail}, now)
		case g.frozen:
			g.becomeCommitted(now)
		default:
			g.become(GiverAccepted, now.Add(g.give.Timeouts.Freeze))
		}
	case Frozen:
		g.keep(e)
	case PeerLost:
		g.lost(e, now)
	case Timeout:
		g.release()
		g.next(Failure{Host: g.Host(), Cause: CauseNoAnswer, Detail: "no answer to the offer"}, now)
	case Cancel:
		g.cancel(e)
	}
}

// accepted: a target has a reservation, and the commit waits for the forwarder.
func (g *Giver) accepted(e Event, now time.Time) {
	switch e := e.(type) {
	case Received:
		if _, ok := e.Message.(OfferReply); !ok { // that would be the same one again
			g.stale(e)
		}
	case Frozen:
		g.keep(e)
		g.becomeCommitted(now)
	case PeerLost:
		g.lost(e, now)
	case Timeout:
		g.release()
		g.becomeRefused(notFrozen)
	case Cancel:
		g.cancel(e)
	}
}

// committed: the commit is out. From here only the target's word gives the connection back.
func (g *Giver) committed(e Event, now time.Time) {
	switch e := e.(type) {
	case Received:
		g.verdict(e, now)
	case PeerLost:
		if e.Host == g.Host() {
			g.becomeQuerying(now)
		}
	case Timeout:
		g.query()
		g.becomeQuerying(now)
	}
}

// querying: the confirmation did not come in time, or with the stream.
func (g *Giver) querying(e Event, now time.Time) {
	switch e := e.(type) {
	case Received:
		g.verdict(e, now)
	case PeerUp:
		if e.Host == g.Host() {
			g.query()
		}
	case Timeout:
		if !now.Before(g.giveUp) {
			g.becomeAborted(Abort{Reset: true,
				Failure: Failure{Host: g.Host(), Cause: CauseNoAnswer, Detail: "no answer to the commit and the queries"}})
			return
		}
		g.query()
		g.becomeQuerying(now)
	}
}

// verdict takes what the target says after the commit: to it the connection lives, is over, or never will be.
func (g *Giver) verdict(r Received, now time.Time) {
	switch m := r.Message.(type) {
	case Confirm:
		if !m.Imported {
			g.next(Failure{Host: r.Host, Cause: CauseNotImported, Reason: m.Reason, Detail: m.Detail}, now)
			return
		}
		g.compare(m)
		g.becomeConfirmed(now)
	case QueryReply:
		switch m.State {
		case FlowLive:
			g.becomeConfirmed(now)
		case FlowEnded:
			g.becomeConfirmed(now)
			g.do(Remove{})
		case FlowUnknown:
			g.next(Failure{Host: r.Host, Cause: CauseFenced, Detail: "the commit did not arrive"}, now)
		case FlowReserved: // it is being imported; the next query will tell
		}
	case EndReport: // it was imported, and is over already
		g.becomeConfirmed(now)
		g.do(Remove{})
	}
}

// compare checks that the target begins where the record ends. Whatever it says, it is the owner; but a difference is a
// fault of one of us that must not stay unseen.
func (g *Giver) compare(c Confirm) {
	if c.RcvNxt != g.rcvNxt {
		g.do(Fault{g.Host(), fmt.Sprintf("%s: RCV.NXT is %d at the target, %d in the record",
			g.give.Offer.Inc.Tuple, c.RcvNxt, g.rcvNxt)})
	}
}

// confirmed: the target is the owner, and the forwarder was told.
func (g *Giver) confirmed(e Event, now time.Time) {
	switch e := e.(type) {
	case Received:
		if _, ok := e.Message.(EndReport); ok {
			g.do(Remove{})
		}
		g.contradiction(e)
	case Switched:
		g.become(GiverSwitched, time.Time{})
	case Timeout:
		if !now.Before(g.giveUp) {
			g.becomeAborted(Abort{Failure: Failure{Cause: CauseFreeze, Detail: "the forwarder did not switch the flow"}})
			return
		}
		g.do(Switch{g.Host()})
		g.become(GiverConfirmed, now.Add(g.give.Timeouts.Freeze))
	}
}

// final: repeated messages of the last attempt.
func (g *Giver) final(e Event) {
	r, ok := e.(Received)
	if !ok {
		return
	}
	if g.state == GiverRefused { // it owns the connection, so the target cannot have it; a reservation was not used
		g.stale(r)
	}
	if g.state == GiverSwitched {
		g.contradiction(r)
	}
}

// contradiction reports a target that imported the connection and then says that it did not.
func (g *Giver) contradiction(r Received) {
	if c, ok := r.Message.(Confirm); ok && !c.Imported {
		g.do(Fault{r.Host, fmt.Sprintf("%s: transfer %d is confirmed and then refused", g.give.Offer.Inc.Tuple, c.Transfer)})
	}
}

// lost goes on to the next candidate when the current one's stream is gone. Its reservation lapses, and so no Release.
func (g *Giver) lost(e PeerLost, now time.Time) {
	if e.Host == g.Host() {
		g.next(Failure{Host: e.Host, Cause: CausePeerLost, Detail: "stream lost"}, now)
	}
}

// cancel ends the transfer before the commit.
func (g *Giver) cancel(e Cancel) {
	g.release()
	g.becomeRefused(Failure{Cause: CauseCanceled, Detail: e.Detail})
}

// next goes on to the next candidate, or refuses when that was the last. This host is the owner.
func (g *Giver) next(f Failure, now time.Time) {
	if g.attempt+1 == len(g.give.Candidates) {
		g.becomeRefused(f)
		return
	}
	g.do(Failed{f})
	g.try(g.attempt+1, now)
}

// try begins an attempt.
func (g *Giver) try(attempt int, now time.Time) {
	g.attempt = attempt
	switch {
	case !g.give.Unconditional:
		g.becomeOffering(now)
	case g.frozen:
		g.becomeCommitted(now)
	default:
		g.become(GiverFreezing, now.Add(g.give.Timeouts.Freeze))
	}
}

// keep stores the record. A repeated Frozen changes nothing.
func (g *Giver) keep(e Frozen) {
	if !g.frozen {
		g.frozen, g.record, g.rcvNxt = true, e.Record, e.RcvNxt
	}
}

func (g *Giver) becomeOffering(now time.Time) {
	g.send(g.Host(), g.offer())
	g.become(GiverOffering, now.Add(g.give.Timeouts.Offer))
}

func (g *Giver) becomeCommitted(now time.Time) {
	if !g.frozen {
		panic("transfer: commit of a flow that is not frozen")
	}
	if g.give.Unconditional {
		g.send(g.Host(), Assign{g.offer(), g.record})
	} else {
		g.send(g.Host(), Commit{g.Transfer(), g.record})
	}
	g.giveUp = now.Add(g.give.Timeouts.GiveUp)
	g.become(GiverCommitted, now.Add(g.give.Timeouts.Confirm))
}

func (g *Giver) becomeQuerying(now time.Time) {
	deadline := now.Add(g.give.Timeouts.Query)
	if deadline.After(g.giveUp) {
		deadline = g.giveUp
	}
	g.become(GiverQuerying, deadline)
}

// becomeConfirmed hands the flow to the target.
func (g *Giver) becomeConfirmed(now time.Time) {
	g.do(Switch{g.Host()})
	g.record = nil
	g.giveUp = now.Add(g.give.Timeouts.GiveUp)
	g.become(GiverConfirmed, now.Add(g.give.Timeouts.Freeze))
}

// becomeRefused makes this host a working owner again, which tells the client.
func (g *Giver) becomeRefused(f Failure) {
	g.do(Failed{f})
	if g.state != GiverIdle {
		g.do(Thaw{})
	}
	g.do(Refuse{f})
	g.record = nil
	g.become(GiverRefused, time.Time{})
}

func (g *Giver) becomeAborted(a Abort) {
	g.do(Failed{a.Failure})
	g.do(a)
	g.record = nil
	g.become(GiverAborted, time.Time{})
}

// become makes each transition. A state that is not final has a deadline: nothing stays frozen for ever.
func (g *Giver) become(s GiverState, deadline time.Time) {
	allowed := false
	for _, to := range giverMoves[g.state] {
		allowed = allowed || to == s
	}
	if !allowed || deadline.IsZero() != s.Final() {
		panic(fmt.Sprintf("transfer: giver goes from %s to %s with deadline %s", g.state, s, deadline))
	}
	g.state, g.deadline = s, deadline
}

// offer is that of the current attempt.
func (g *Giver) offer() Offer {
	offer := g.give.Offer
	offer.Transfer = g.Transfer()
	return offer
}

// query asks the current target what became of the commit.
func (g *Giver) query() { g.send(g.Host(), Query{g.Transfer(), g.give.Offer.Inc}) }

// release gives the current target's reservation back.
func (g *Giver) release() { g.send(g.Host(), Release{g.Transfer()}) }

func (g *Giver) send(host string, m Message) { g.do(Send{host, m}) }

func (g *Giver) do(a Action) { g.actions = append(g.actions, a) }
