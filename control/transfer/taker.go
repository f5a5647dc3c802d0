package transfer

import (
	"container/heap"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"time"

	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// Limits bound a Taker. Each must be positive.
type Limits struct {
	Reservations int           // offers that are checked or accepted, at once
	Remembered   int           // ended or left flows and refused transfers that are remembered; the oldest go first
	Reserve      time.Duration // longest time that a reservation stands
	Check        time.Duration // for the host's own checks of an offer; those of an application may take Reserve
	Import       time.Duration // for an import; then StopImport, again and again
	// Remember is how long ended flows and refused transfers are remembered. It must be longer than any Giver's
	// Timeouts.GiveUp and than a message may be on its way, because the memory is what fences a transfer.
	Remember time.Duration
}

// DefaultLimits returns the limits of a target host.
func DefaultLimits() Limits {
	return Limits{
		Reservations: 4096,
		Remembered:   1 << 16,
		Reserve:      5 * time.Second,
		Check:        150 * time.Millisecond,
		Import:       time.Second,
		Remember:     2 * time.Minute,
	}
}

// Flow is a connection that the target owns.
type Flow struct {
	Inc      wire.Incarnation
	Epoch    uint64 // of the record
	Job      string
	Hops     uint8     // of the record; 0 unknown
	Host     string    // the routing host that gave it; "" unknown: its end is reported to all
	Transfer ID        // 0 unknown
	RcvNxt   seq.Value // at the import
}

// takerState is what a transfer, or its flow, is to a Taker.
type takerState uint8

const (
	takerChecking  takerState = iota // the host's checks run
	takerReserved                    // accepted, not committed
	takerImporting                   // committed, no result yet
	takerLive                        // this host owns the flow
	takerEnded                       // it did
	takerLeft                        // it did, and another host does now
	takerRefused                     // the transfer will never import anything
	takerGone                        // forgotten
)

var takerStates = [...]string{"checking", "reserved", "importing", "live", "ended", "left", "refused", "gone"}

func (s takerState) String() string { return takerStates[s] }

// takerMoves are the transitions of the table in the package comment.
var takerMoves = [...][]takerState{
	takerChecking:  {takerReserved, takerRefused, takerGone},
	takerReserved:  {takerImporting, takerRefused, takerGone},
	takerImporting: {takerLive, takerRefused},
	takerLive:      {takerEnded, takerLeft},
	takerEnded:     {takerGone},
	takerLeft:      {takerGone},
	takerRefused:   {takerGone},
}

// key names a transfer: IDs are unique per routing host only.
type key struct {
	host string
	id   ID
}

// entry is all that a Taker knows of one transfer and the flow it made.
type entry struct {
	flow     Flow
	state    takerState
	reserve  time.Duration // asked for
	deadline time.Time     // of checking, reserved and importing; of the past: when it is forgotten
	place    int           // in Taker.waiting; meaningful there
	took     time.Duration // the import
	reason   Reason        // refused
	detail   string        // refused
	reported bool          // ended: a stream took the report
	assigned *Commit       // checking: to be carried out if the checks go well
	asked    bool          // an application waits to hear what becomes of the transfer
	waits    *Record       // importing: to be imported once the import of an older incarnation has a result
}

func (e *entry) key() key { return key{e.flow.Host, e.flow.Transfer} }

// holds reports whether the entry keeps its incarnation from others.
func (e *entry) holds() bool { return e.state <= takerEnded }

// Taker is a target host's machine: all its reservations, and all flows that it owns or owned lately. It is for one
// goroutine.
type Taker struct {
	limits  Limits
	byKey   map[key]*entry          // all with a transfer ID
	byTuple map[wire.Tuple][]*entry // those that hold their incarnation; more than one when ports are reused
	waiting deadlines               // checking, reserved, importing: by deadline
	past    []*entry                // ended, left and refused: oldest first, which is also by deadline
	epochs  map[netip.Addr]uint64   // highest epoch seen, per DVIPA
	up      map[string]bool         // routing hosts with a stream
	count   [takerGone]int          // entries per state
	actions []Action                // reused by each Step
}

// NewTaker makes a machine. After a restart it is given the flows that the host owns, and those that it owned and has
// not been told to forget (Forget); a flow of which it is not sure that it never was made belongs to the latter. It
// must know all of them: what it does not know it reports as unknown, and the giver takes that connection back.
func NewTaker(l Limits, live, ended []Flow, now time.Time) *Taker {
	t := &Taker{
		limits:  l,
		byKey:   make(map[key]*entry),
		byTuple: make(map[wire.Tuple][]*entry),
		epochs:  make(map[netip.Addr]uint64),
		up:      make(map[string]bool),
	}
	for _, f := range live {
		t.seen(f.Inc, f.Epoch)
		t.add(&entry{flow: f, state: takerLive})
	}
	for _, f := range ended {
		t.seen(f.Inc, f.Epoch)
		t.add(&entry{flow: f, state: takerEnded, deadline: now.Add(l.Remember)})
	}
	return t
}

// Counts returns how many offers are being checked or reserved, how many imports run, how many flows live, and how many
// ended flows and refused transfers are remembered.
func (t *Taker) Counts() (reserved, importing, live, past int) {
	return t.reservations(), t.count[takerImporting], t.count[takerLive], len(t.past)
}

// Live yields the flows that this host owns, in no order.
func (t *Taker) Live() iter.Seq[Flow] {
	return func(yield func(Flow) bool) {
		for _, entries := range t.byTuple {
			for _, e := range entries {
				if e.state == takerLive && !yield(e.flow) {
					return
				}
			}
		}
	}
}

// Flow returns the flow of an incarnation that this host owns.
func (t *Taker) Flow(inc wire.Incarnation) (Flow, bool) {
	if e := t.find(inc); e != nil && e.state == takerLive {
		return e.flow, true
	}
	return Flow{}, false
}

// Knows reports whether a transfer of a host is remembered here, whatever became of it.
func (t *Taker) Knows(host string, id ID) bool { return t.byKey[key{host, id}] != nil }

// Epoch returns the highest epoch seen for a DVIPA.
func (t *Taker) Epoch(dvipa netip.Addr) uint64 { return t.epochs[dvipa] }

// Deadline returns when Timeout is due; zero if nothing waits.
func (t *Taker) Deadline() time.Time {
	var first time.Time
	if len(t.waiting) > 0 {
		first = t.waiting[0].deadline
	}
	if len(t.past) > 0 && (first.IsZero() || t.past[0].deadline.Before(first)) {
		first = t.past[0].deadline
	}
	return first
}

// Step takes an event that happened at now. The actions are valid until the next Step.
func (t *Taker) Step(ev Event, now time.Time) []Action {
	t.actions = t.actions[:0]
	switch ev := ev.(type) {
	case Received:
		t.received(ev.Host, ev.Message, now)
	case Asked:
		t.asked(key{ev.Host, ev.Transfer})
	case Checked:
		t.checked(ev, now)
	case Imported:
		t.imported(ev, now)
	case NotImported:
		t.notImported(ev, now)
	case Ended:
		t.ended(ev.Inc, now)
	case Left:
		t.left(ev.Inc, now)
	case PeerUp:
		t.peerUp(ev.Host)
	case PeerLost:
		delete(t.up, ev.Host)
	case Timeout:
		t.timeout(now)
	}
	return t.actions
}

// received takes a message. Those that only targets send are ignored.
func (t *Taker) received(host string, m Message, now time.Time) {
	switch m := m.(type) {
	case Offer:
		t.offer(host, m, now)
	case Release:
		t.release(key{host, m.Transfer})
	case Commit:
		t.commit(key{host, m.Transfer}, m, now)
	case Assign:
		t.assign(host, m, now)
	case Query:
		t.query(host, m, now)
	}
}

// offer: absent -> checking, or a rejection.
func (t *Taker) offer(host string, m Offer, now time.Time) {
	if e := t.byKey[key{host, m.Transfer}]; e != nil {
		t.repeatedOffer(e)
		return
	}
	if reason, detail := t.unacceptable(m); reason != ReasonNone {
		t.send(host, OfferReply{Transfer: m.Transfer, Reason: reason, Detail: detail})
		return
	}
	t.becomeChecking(host, m, nil, now)
}

// assign: absent -> checking, or refused. A repeated one is as a repeated commit.
func (t *Taker) assign(host string, m Assign, now time.Time) {
	commit := Commit{Transfer: m.Offer.Transfer, Record: m.Record}
	k := key{host, m.Offer.Transfer}
	if e := t.byKey[k]; e != nil {
		t.confirm(e)
		return
	}
	reason, detail := t.unacceptable(m.Offer)
	switch {
	case reason == ReasonNone:
		t.becomeChecking(host, m.Offer, &commit, now)
	case k.id == 0:
		t.send(host, Confirm{Reason: reason, Detail: detail})
	default:
		t.refuseUnknown(k, reason, detail, now)
		t.confirm(t.byKey[k])
	}
}

// becomeChecking takes in an acceptable offer; assigned: with its commit.
func (t *Taker) becomeChecking(host string, m Offer, assigned *Commit, now time.Time) {
	if older := t.find(m.Inc); older != nil { // its giver has gone on without it, or is the owner no more
		t.refuse(older, ReasonReservation, "a later offer took the reservation's place", now)
	}
	t.seen(m.Inc, m.Epoch)
	e := &entry{
		flow:     Flow{Inc: m.Inc, Epoch: m.Epoch, Job: m.Job, Hops: m.Hops, Host: host, Transfer: m.Transfer},
		state:    takerChecking,
		reserve:  min(m.Reserve, t.limits.Reserve),
		assigned: assigned,
	}
	e.deadline = now.Add(max(t.limits.Check, e.reserve))
	t.add(e)
	t.do(Check{Host: host, Offer: m, Assigned: assigned != nil})
}

// repeatedOffer answers an offer again, if it still matters.
func (t *Taker) repeatedOffer(e *entry) {
	switch e.state {
	case takerReserved:
		t.accept(e)
	case takerRefused:
		t.send(e.flow.Host, OfferReply{Transfer: e.flow.Transfer, Reason: e.reason, Detail: e.detail})
	case takerChecking, takerImporting, takerLive, takerEnded, takerLeft, takerGone:
	}
}

// unacceptable returns why an offer is rejected before the host's own checks.
func (t *Taker) unacceptable(m Offer) (Reason, string) {
	if m.Transfer == 0 {
		return ReasonReservation, "transfer 0"
	}
	if m.RecordVersion != RecordVersion {
		return ReasonVersion, fmt.Sprintf("record version %d, this host knows %d", m.RecordVersion, RecordVersion)
	}
	if reason, detail := t.outdated(m.Inc, m.Epoch); reason != ReasonNone {
		return reason, detail
	}
	if e := t.find(m.Inc); e != nil && e.state >= takerImporting {
		return ReasonLeftover, "this host has taken the connection before: " + e.state.String()
	}
	if t.reservations() >= t.limits.Reservations {
		return ReasonCapacity, fmt.Sprintf("%d reservations", t.limits.Reservations)
	}
	return ReasonNone, ""
}

// outdated returns ReasonEpoch for an epoch lower than one seen for the same DVIPA: whoever has it is the owner no
// more.
func (t *Taker) outdated(inc wire.Incarnation, epoch uint64) (Reason, string) {
	if highest := t.epochs[inc.Service.Addr()]; epoch < highest {
		return ReasonEpoch, fmt.Sprintf("epoch %d, seen %d for %s", epoch, highest, inc.Service.Addr())
	}
	return ReasonNone, ""
}

// checked: checking -> reserved, or a rejection. Late results find another state, or nothing.
func (t *Taker) checked(ev Checked, now time.Time) {
	e := t.byKey[key{ev.Host, ev.Transfer}]
	if e == nil || e.state != takerChecking {
		return
	}
	if ev.Reason != ReasonNone {
		t.reject(e, ev.Reason, ev.Detail, now)
		return
	}
	t.become(e, takerReserved, now.Add(e.reserve))
	if e.assigned == nil {
		t.accept(e)
		return
	}
	t.begin(e, *e.assigned, now)
	e.assigned = nil
	t.confirm(e)
}

// asked remembers whom to tell. A transfer that has come to nothing meanwhile has lapsed.
func (t *Taker) asked(k key) {
	e := t.byKey[k]
	if e == nil || e.state != takerChecking {
		t.do(Lapsed{k.host, k.id})
		return
	}
	e.asked = true
}

// release: checking or reserved -> gone. It is never sent for a transfer that was committed.
func (t *Taker) release(k key) {
	if e := t.byKey[k]; e != nil && (e.state == takerChecking || e.state == takerReserved) {
		t.become(e, takerGone, time.Time{})
	}
}

// commit: reserved -> importing, or refused. A repeated one gets the same answer again, without a second import.
func (t *Taker) commit(k key, m Commit, now time.Time) {
	if k.id == 0 {
		t.send(k.host, Confirm{Reason: ReasonReservation, Detail: "transfer 0"})
		return
	}
	e := t.byKey[k]
	if e == nil {
		t.refuseUnknown(k, ReasonReservation, "no such reservation; it may have lapsed", now)
		e = t.byKey[k]
	}
	switch e.state {
	case takerChecking:
		t.refuse(e, ReasonReservation, "commit before the offer was accepted", now)
	case takerReserved:
		t.begin(e, m, now)
	case takerImporting, takerLive, takerEnded, takerLeft, takerRefused, takerGone:
	}
	t.confirm(e)
}

// begin imports what a commit carries, if it is what was offered.
func (t *Taker) begin(e *entry, m Commit, now time.Time) {
	record, err := Decode(m.Record)
	if err != nil {
		reason := ReasonImport
		if errors.Is(err, ErrVersion) {
			reason = ReasonVersion
		}
		t.refuse(e, reason, err.Error(), now)
		return
	}
	if record.Inc != e.flow.Inc || record.Job != e.flow.Job || record.Epoch != e.flow.Epoch || record.Hops != e.flow.Hops {
		t.refuse(e, ReasonImport, "the record is not of the connection that was offered", now)
		return
	}
	if reason, detail := t.outdated(record.Inc, record.Epoch); reason != ReasonNone {
		t.refuse(e, reason, detail, now)
		return
	}
	if t.late(e) {
		t.refuse(e, ReasonLeftover, "a newer connection of the same client's port has been handed over", now)
		return
	}
	older := t.superseded(e, now)
	t.become(e, takerImporting, now.Add(t.limits.Import))
	if older != nil {
		e.waits = &record
		t.stop(older)
		return
	}
	t.do(Import{Host: e.flow.Host, Transfer: e.flow.Transfer, Record: record})
}

// late reports whether the same routing host has handed over a newer incarnation of the tuple: its client knows nothing of
// this one any more. Assigned transfers come here in the order in which their checks end.
func (t *Taker) late(e *entry) bool {
	return slices.ContainsFunc(t.byTuple[e.flow.Inc.Tuple], func(other *entry) bool {
		return other.state >= takerImporting && other.flow.Host == e.flow.Host && other.flow.Transfer > e.flow.Transfer
	})
}

// superseded returns the import under way of another incarnation of the tuple, whose client has begun anew. It must have
// its result before the next one begins: a host has one connection per tuple, and the newest is to stay. One that has
// not begun never will.
func (t *Taker) superseded(e *entry, now time.Time) (running *entry) {
	for _, other := range slices.Clone(t.byTuple[e.flow.Inc.Tuple]) {
		switch {
		case other == e || other.state != takerImporting:
		case other.waits == nil:
			running = other
		default:
			t.giveUp(other, now)
		}
	}
	return running
}

// giveUp refuses a transfer whose import never began.
func (t *Taker) giveUp(e *entry, now time.Time) {
	e.waits = nil
	t.refuse(e, ReasonImport, "another incarnation of the tuple is being imported", now)
	t.confirm(e)
}

// resume begins the import that has waited for the one before it.
func (t *Taker) resume(tuple wire.Tuple, now time.Time) {
	for _, e := range t.byTuple[tuple] {
		if e.state == takerImporting && e.waits != nil {
			t.do(Import{Host: e.flow.Host, Transfer: e.flow.Transfer, Record: *e.waits})
			e.waits = nil
			e.deadline = now.Add(t.limits.Import)
			heap.Fix(&t.waiting, e.place)
		}
	}
}

func (t *Taker) stop(e *entry) {
	t.do(StopImport{Host: e.flow.Host, Transfer: e.flow.Transfer, Inc: e.flow.Inc})
}

// imported: importing -> live. Older incarnations of the tuple are over: a host has one connection per tuple.
func (t *Taker) imported(ev Imported, now time.Time) {
	e := t.importing(ev.Host, ev.Transfer)
	for _, other := range slices.Clone(t.byTuple[e.flow.Inc.Tuple]) {
		if other.state == takerLive {
			t.end(other, now)
		}
	}
	e.flow.RcvNxt, e.took = ev.RcvNxt, ev.Took
	t.become(e, takerLive, time.Time{})
	t.confirm(e)
	t.resume(e.flow.Inc.Tuple, now)
}

// notImported: importing -> refused.
func (t *Taker) notImported(ev NotImported, now time.Time) {
	e := t.importing(ev.Host, ev.Transfer)
	t.refuse(e, ev.Reason, ev.Detail, now)
	t.confirm(e)
	t.resume(e.flow.Inc.Tuple, now)
}

// importing returns the entry that an import's result belongs to. There is exactly one result for each Import: another
// would mean that a connection was made twice.
func (t *Taker) importing(host string, id ID) *entry {
	e := t.byKey[key{host, id}]
	if e == nil || e.state != takerImporting || e.waits != nil {
		panic(fmt.Sprintf("transfer: import result for transfer %d of %s, which is not being imported", id, host))
	}
	return e
}

// query answers who an incarnation is to this host. A transfer that it names is fenced first, if it has not been
// committed, so that the answers unknown and ended are final for it.
//
// The answer is about the incarnation, whichever transfer made it: after a restart the host knows its flows, but not
// the transfers that they came by. But a flow that left may be back by another transfer, which says nothing of this one.
func (t *Taker) query(host string, m Query, now time.Time) {
	if m.Transfer != 0 {
		t.fence(key{host, m.Transfer}, now)
	}
	e := t.findAny(m.Inc)
	if e != nil && m.Transfer != 0 && e.state < takerImporting {
		e = nil // another transfer's reservation says nothing of this one
	}
	if own := t.byKey[key{host, m.Transfer}]; own != nil && own.state == takerLeft {
		e = own
	}
	reply := QueryReply{Transfer: m.Transfer, Inc: m.Inc, State: flowState(e)}
	if e != nil {
		reply.Inc, reply.RcvNxt = e.flow.Inc, e.flow.RcvNxt
	}
	t.send(host, reply)
}

// fence makes sure that a transfer which was not committed yet never will be.
func (t *Taker) fence(k key, now time.Time) {
	const why = "fenced by a query"
	e := t.byKey[k]
	switch {
	case e == nil:
		t.refuseUnknown(k, ReasonReservation, why, now)
	case e.state < takerImporting:
		t.refuse(e, ReasonReservation, why, now)
	}
}

// flowState is the entry that holds an incarnation, or nil, as a QueryReply tells it.
func flowState(e *entry) FlowState {
	switch {
	case e == nil:
		return FlowUnknown
	case e.state == takerLive:
		return FlowLive
	case e.state == takerEnded, e.state == takerLeft:
		return FlowEnded
	}
	return FlowReserved
}

// ended: live -> ended. What this host does not own is none of its business.
func (t *Taker) ended(inc wire.Incarnation, now time.Time) {
	if e := t.find(inc); e != nil && e.state == takerLive {
		t.end(e, now)
	}
}

// left: live -> left. Nobody needs to hear of it: whoever owns the flow now took it from here. So nothing is kept for a
// restart, or its end would be reported then.
func (t *Taker) left(inc wire.Incarnation, now time.Time) {
	if e := t.find(inc); e != nil && e.state == takerLive {
		t.become(e, takerLeft, now.Add(t.limits.Remember))
		t.do(Forget{inc})
	}
}

// end remembers a flow that is over, and reports it.
func (t *Taker) end(e *entry, now time.Time) {
	t.become(e, takerEnded, now.Add(t.limits.Remember))
	if e.flow.Host != "" {
		t.report(e.flow.Host, e)
		return
	}
	for _, host := range sorted(t.up) {
		t.report(host, e)
	}
}

// report sends an end report if the host can be reached now; peerUp does it again.
func (t *Taker) report(host string, e *entry) {
	if t.up[host] {
		e.reported = true
		t.send(host, EndReport{Inc: e.flow.Inc, Epoch: e.flow.Epoch, Job: e.flow.Job})
	}
}

// peerUp reports again what ended lately: reports may have been lost with the last stream. A repeated one does no harm,
// because it names the incarnation.
func (t *Taker) peerUp(host string) {
	t.up[host] = true
	for _, e := range t.past {
		if e.state == takerEnded && (e.flow.Host == host || e.flow.Host == "") {
			t.report(host, e)
		}
	}
}

// timeout handles all deadlines that have passed.
func (t *Taker) timeout(now time.Time) {
	for len(t.waiting) > 0 && !now.Before(t.waiting[0].deadline) {
		t.overdue(t.waiting[0], now)
	}
	for len(t.past) > 0 && !now.Before(t.past[0].deadline) {
		t.pass(now)
	}
}

// pass forgets the oldest entry of the past, unless it is a flow whose end nobody could be told yet: that one stays, as
// the newest, while there is room.
func (t *Taker) pass(now time.Time) {
	e := t.past[0]
	if e.state != takerEnded || e.reported {
		t.forget()
		return
	}
	t.past = append(t.past[1:], e)
	e.deadline = now.Add(t.limits.Remember)
}

// overdue handles one entry whose deadline has passed.
func (t *Taker) overdue(e *entry, now time.Time) {
	switch e.state {
	case takerChecking:
		t.reject(e, ReasonHost, "no answer to the offer in time", now)
	case takerReserved:
		t.become(e, takerGone, time.Time{})
	case takerImporting:
		if e.waits != nil {
			t.giveUp(e, now)
			return
		}
		// only the importer knows what exists
		e.deadline = now.Add(t.limits.Import)
		heap.Fix(&t.waiting, e.place)
		t.stop(e)
	case takerLive, takerEnded, takerLeft, takerRefused, takerGone:
		panic("transfer: " + e.state.String() + " waits")
	}
}

// accept tells the giver that its reservation stands.
func (t *Taker) accept(e *entry) {
	t.send(e.flow.Host, OfferReply{Transfer: e.flow.Transfer, Accepted: true})
}

// reject ends a transfer that has no reservation yet. It need not be remembered: its giver never commits it. An assigned
// one is, because its giver has.
func (t *Taker) reject(e *entry, reason Reason, detail string, now time.Time) {
	if e.assigned != nil {
		t.refuse(e, reason, detail, now)
		t.confirm(e)
		return
	}
	t.send(e.flow.Host, OfferReply{Transfer: e.flow.Transfer, Reason: reason, Detail: detail})
	t.become(e, takerGone, time.Time{})
}

// confirm answers a commit, once there is an answer.
func (t *Taker) confirm(e *entry) {
	c := Confirm{Transfer: e.flow.Transfer}
	switch e.state {
	case takerLive, takerEnded, takerLeft:
		c.Imported, c.RcvNxt, c.Took = true, e.flow.RcvNxt, e.took
	case takerRefused:
		c.Reason, c.Detail = e.reason, e.detail
	case takerChecking, takerReserved, takerImporting, takerGone:
		return
	}
	t.send(e.flow.Host, c)
}

// refuse makes sure that a transfer never imports anything, and remembers why.
func (t *Taker) refuse(e *entry, reason Reason, detail string, now time.Time) {
	e.reason, e.detail, e.assigned = reason, detail, nil
	t.become(e, takerRefused, now.Add(t.limits.Remember))
}

// refuseUnknown does so for a transfer without an entry.
func (t *Taker) refuseUnknown(k key, reason Reason, detail string, now time.Time) {
	t.add(&entry{
		flow:  Flow{Host: k.host, Transfer: k.id},
		state: takerRefused, reason: reason, detail: detail,
		deadline: now.Add(t.limits.Remember),
	})
}

// find returns the entry that holds an incarnation, or nil.
func (t *Taker) find(inc wire.Incarnation) *entry {
	for _, e := range t.byTuple[inc.Tuple] {
		if e.flow.Inc == inc {
			return e
		}
	}
	return nil
}

// findAny is find, and for IRS = ISS = 0 the incarnation of the tuple that says most: live before being made before
// ended.
func (t *Taker) findAny(inc wire.Incarnation) *entry {
	if inc.IRS != 0 || inc.ISS != 0 {
		return t.find(inc)
	}
	var best *entry
	for _, e := range t.byTuple[inc.Tuple] {
		if best == nil || e.state == takerLive || best.state == takerEnded {
			best = e
		}
		if best.state == takerLive {
			break
		}
	}
	return best
}

// add takes in a new entry in its first state.
func (t *Taker) add(e *entry) {
	if e.flow.Transfer != 0 {
		t.byKey[e.key()] = e
	}
	if e.holds() {
		tuple := e.flow.Inc.Tuple
		t.byTuple[tuple] = append(t.byTuple[tuple], e)
	}
	t.enter(e)
}

// become makes each transition.
func (t *Taker) become(e *entry, s takerState, deadline time.Time) {
	if !slices.Contains(takerMoves[e.state], s) {
		panic(fmt.Sprintf("transfer: transfer %d of %s goes from %s to %s", e.flow.Transfer, e.flow.Host, e.state, s))
	}
	held := e.holds()
	if e.asked && (s == takerRefused || s == takerGone) {
		t.do(Lapsed{e.flow.Host, e.flow.Transfer})
	}
	e.asked = e.asked && s < takerLive
	t.leave(e)
	e.state, e.deadline = s, deadline
	if held && !e.holds() {
		t.letGo(e)
	}
	if s == takerGone {
		delete(t.byKey, e.key())
		return
	}
	t.enter(e)
}

// leave takes an entry out of its state's queue. Those of the past leave by forget only.
func (t *Taker) leave(e *entry) {
	t.count[e.state]--
	if e.state <= takerImporting {
		heap.Remove(&t.waiting, e.place)
	}
}

// enter puts an entry into its state's queue. All but live flows have a deadline: nothing waits for ever.
func (t *Taker) enter(e *entry) {
	if e.deadline.IsZero() != (e.state == takerLive) {
		panic(fmt.Sprintf("transfer: %s with deadline %s", e.state, e.deadline))
	}
	t.count[e.state]++
	switch e.state {
	case takerChecking, takerReserved, takerImporting:
		heap.Push(&t.waiting, e)
	case takerEnded, takerLeft, takerRefused:
		t.past = append(t.past, e)
		if len(t.past) > t.limits.Remembered {
			t.forget()
		}
	case takerLive, takerGone:
	}
}

// forget drops the oldest entry of the past.
func (t *Taker) forget() {
	e := t.past[0]
	t.past[0] = nil
	t.past = t.past[1:]
	if e.state == takerEnded {
		t.do(Forget{e.flow.Inc})
	}
	t.become(e, takerGone, time.Time{})
}

// letGo takes an entry out of its tuple's list.
func (t *Taker) letGo(e *entry) {
	tuple := e.flow.Inc.Tuple
	rest := slices.DeleteFunc(t.byTuple[tuple], func(other *entry) bool { return other == e })
	if len(rest) == 0 {
		delete(t.byTuple, tuple)
		return
	}
	t.byTuple[tuple] = rest
}

// seen remembers the highest epoch of a DVIPA.
func (t *Taker) seen(inc wire.Incarnation, epoch uint64) {
	dvipa := inc.Service.Addr()
	t.epochs[dvipa] = max(t.epochs[dvipa], epoch)
}

// reservations is how many entries count against Limits.Reservations.
func (t *Taker) reservations() int { return t.count[takerChecking] + t.count[takerReserved] }

func (t *Taker) send(host string, m Message) { t.do(Send{host, m}) }

func (t *Taker) do(a Action) { t.actions = append(t.actions, a) }

// sorted returns the keys of a set in order, so that a run can be repeated exactly.
func sorted(set map[string]bool) []string {
	keys := make([]string, 0, len(set))
	for k := range set {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// deadlines is a heap (container/heap) of entries, the earliest deadline first.
type deadlines []*entry

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].deadline.Before(d[j].deadline) }
func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].place, d[j].place = i, j
}

// Push and Pop are container/heap's.
func (d *deadlines) Push(x any) {
	e := x.(*entry)
	e.place = len(*d)
	*d = append(*d, e)
}

// Pop removes the last entry.
func (d *deadlines) Pop() any {
	last := len(*d) - 1
	e := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	return e
}
