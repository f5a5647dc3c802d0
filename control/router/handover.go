package router

import (
	"cmp"
	"slices"
	"time"

	"baton/control/inspect"
	"baton/control/transfer"
	"baton/fastpath/wire"
)

// handover is the transfer of one connection, over all its attempts.
type handover struct {
	giver   *transfer.Giver
	job     string
	first   transfer.ID // of the attempts' IDs
	ids     int         // how many
	refusal inspect.Decision
	target  *target // of the current attempt

	decided  time.Time // when the routing application decided
	offered  time.Time // when the current attempt began
	frozen   time.Time // zero: not yet
	accepted time.Time // the current attempt's; zero: not yet
	gave     time.Time // when the target confirmed; zero: not yet
	bytes    int       // that the commit carries
	over     bool      // the target has reported the connection's end, before the switch
}

// choice is what a routing application has decided.
type choice struct {
	job           string
	state         []byte // for the target application
	from          string // the application, if it is in another process
	fromHost      string // a target application's
	unconditional bool
	dialogue      []inspect.Turn // for a server that speaks first
}

// route begins to hand a connection to a target that serves the job of the decision.
func (r *Router) route(c *conn, d inspect.Decision) {
	job := d.Job
	fit, why := r.candidates(job, c.service)
	if len(fit) == 0 {
		r.ended(c, &handover{job: job, decided: r.now, offered: r.now}, transfer.CauseNoCandidate.String(), why)
		r.unavailable(c)
		return
	}
	r.handTo(c, fit, choice{job: job, unconditional: c.service.Unconditional, dialogue: d.Dialogue})
}

// handTo begins to hand a connection to the first of some hosts that takes it.
func (r *Router) handTo(c *conn, fit []string, to choice) {
	job := to.job
	data := len(c.tcp.Peek())
	h := &handover{job: job, first: r.transferID, ids: len(fit), decided: r.now,
		refusal: inspect.Decision{Cause: inspect.Unavailable}}
	r.transferID += transfer.ID(len(fit))
	h.giver = transfer.NewGiver(transfer.Give{
		Offer: transfer.Offer{Inc: c.inc, Epoch: r.cfg.Epoch, Job: job, Bytes: data, MSS: c.shake.MSS,
			Window: c.window, Timestamps: c.shake.Timestamps, Hops: c.tcp.Hops(), State: to.state, From: to.from,
			FromHost: to.fromHost, Dialogue: r.dialogue(c, to)},
		Candidates:    fit,
		First:         h.first,
		Timeouts:      timeouts(c.service),
		Unconditional: to.unconditional,
	})
	c.stage, c.handover = handing, h
	r.handing[c.inc] = c
	for i := range h.ids {
		r.transfers[h.first+transfer.ID(i)] = c
	}
	r.step(c, transfer.Start{})
}

// dialogue is what a server that speaks first has to be played. Without a record there is none; the transfer then ends when
// the connection is frozen, for the same cause.
func (r *Router) dialogue(c *conn, to choice) transfer.Dialogue {
	if len(to.dialogue) == 0 {
		return transfer.Dialogue{}
	}
	rec, err := c.tcp.Preview(to.job, r.cfg.Epoch)
	if err != nil {
		return transfer.Dialogue{}
	}
	b, err := rec.Encode()
	if err != nil {
		return transfer.Dialogue{}
	}
	d := transfer.Dialogue{Record: b, Turns: make([]transfer.Turn, 0, len(to.dialogue))}
	for _, t := range to.dialogue {
		d.Turns = append(d.Turns, transfer.Turn(t))
	}
	return d
}

func timeouts(s *Service) transfer.Timeouts {
	t := transfer.DefaultTimeouts()
	t.Offer, t.Confirm, t.GiveUp = s.OfferTimeout, s.ConfirmTimeout, s.GiveUp
	return t
}

// step gives the transfer's machine an event and does what it says. A message that does not leave is another event,
// which comes once its predecessor's actions are done.
func (r *Router) step(c *conn, e transfer.Event) {
	var unsent []string
	for _, a := range c.handover.giver.Step(e, r.now) {
		if host, lost := r.perform(c, a); lost {
			unsent = append(unsent, host)
		}
	}
	for _, host := range unsent {
		r.count.SendFailed++
		r.step(c, transfer.PeerLost{Host: host})
	}
	r.arm(c)
}

// perform does one action. When it is a message that did not leave, it returns for whom.
func (r *Router) perform(c *conn, a transfer.Action) (host string, lost bool) {
	h := c.handover
	switch a := a.(type) {
	case transfer.Send:
		switch a.Message.(type) {
		case transfer.Offer, transfer.Assign:
			r.begin(h, a.Host)
		}
		return a.Host, r.cluster.Send(a.Host, a.Message) != nil
	case transfer.Freeze:
		c.tcp.Freeze()
		r.command(func() error { return r.dp.Freeze(c.id, c.service.Hold) })
	case transfer.Thaw:
		r.thaw(c)
	case transfer.Switch:
		if h.gave.IsZero() { // else it is repeated
			h.gave = r.now
		}
		owner := r.targets[a.Host].owner
		r.command(func() error { return r.dp.Switch(c.id, owner) })
	case transfer.Remove:
		r.remove(c.inc, r.targets[c.handover.giver.Host()])
	case transfer.Refuse:
		r.refused(c, a.Failure)
	case transfer.Abort:
		if a.Reset {
			r.disown(c)
		}
		r.leave(c, a.Detail)
		r.forget(c.id)
	case transfer.Failed:
		r.ended(c, h, a.Cause.String(), reason(a.Failure))
	case transfer.Fault:
		r.count.Faults++
		r.log.Error("target contradicts itself", "target", a.Host, "detail", a.Detail)
	}
	return "", false
}

// disown tells the client of a connection that its target, of which nothing is heard any more, may have or not.
func (r *Router) disown(c *conn) {
	r.count.Aborted++
	for _, s := range c.tcp.Disown(r.now).Segments {
		r.transmit(c, s)
	}
}

// begin notes that an attempt begins.
func (r *Router) begin(h *handover, host string) {
	h.target, h.offered, h.accepted = r.targets[host], r.now, time.Time{}
	h.target.pending++
}

func (r *Router) thaw(c *conn) {
	if c.stage != handing {
		return // the flow is gone
	}
	r.command(func() error { return r.dp.Thaw(c.id) })
	r.act(c, c.tcp.Thaw(r.now))
}

// refused answers the client of a connection that nobody took, or whose requests in hand turned out not to go together.
func (r *Router) refused(c *conn, f transfer.Failure) {
	if c.stage != handing {
		return
	}
	d := c.handover.refusal
	r.unlist(c)
	switch {
	case c.taken != nil:
		r.stranded(c, reason(f))
		return
	case c.app != nil:
		r.rejected(c, f)
		return
	}
	if d.Verdict == inspect.Refuse {
		r.refuse(c, d.Cause, d.Reply)
		return
	}
	r.unavailable(c)
}

func (r *Router) unavailable(c *conn) {
	r.refuse(c, inspect.Unavailable, c.session.Refusal(inspect.Unavailable))
}

// frozen makes the record: all that was punted before the freeze has arrived by now. What arrived since the decision
// may have changed it.
func (r *Router) frozen(c *conn) {
	if c == nil || c.stage != handing || !c.handover.frozen.IsZero() {
		return // it was thawed or ended meanwhile
	}
	h := c.handover
	h.frozen = r.now
	if d := r.reviewed(c); d.Verdict == inspect.Refuse {
		h.refusal = d
		r.step(c, transfer.Cancel{Detail: d.Detail})
		return
	}
	rec, err := c.tcp.ExportPlain(h.job, r.cfg.Epoch)
	if err != nil {
		r.step(c, transfer.Cancel{Detail: err.Error()})
		return
	}
	b, err := rec.Encode()
	if err != nil {
		r.step(c, transfer.Cancel{Detail: err.Error()})
		return
	}
	h.bytes = len(rec.Data)
	r.step(c, transfer.Frozen{Record: b, RcvNxt: rec.RcvNxt})
}

// switched ends a transfer that succeeded: from here on the forwarder's entry and the target know the connection.
func (r *Router) switched(c *conn, held int) {
	if c == nil || c.stage != handing {
		return
	}
	h := c.handover
	r.step(c, transfer.Switched{})
	if h.giver.State() != transfer.GiverSwitched {
		return
	}
	r.count.Transferred++
	if !h.over {
		h.target.active++
	}
	a := r.attempt(c, h, "switched", "")
	a.Held = held
	for p := range phases {
		r.cfg.Observer.PhaseTook(p.String(), a.Phases[p])
	}
	r.cfg.Observer.PhaseTook("total", a.Total)
	r.record(h, a)
	r.detach(c, h.giver.Host(), "")
	r.leave(c, "")
}

// reviewed is what a built-in application says of what has arrived since its decision.
func (r *Router) reviewed(c *conn) inspect.Decision {
	if c.app != nil || c.taken != nil {
		return inspect.Decision{Verdict: inspect.Route}
	}
	return c.session.Inspect(c.tcp.Peek())
}

// ended notes that an attempt came to nothing.
func (r *Router) ended(c *conn, h *handover, cause, why string) {
	r.record(h, r.attempt(c, h, cause, why))
}

// attempt describes the current attempt at its end.
func (r *Router) attempt(c *conn, h *handover, outcome, why string) Attempt {
	a := Attempt{Time: h.decided, Inc: c.inc, Job: h.job, Outcome: outcome, Reason: why, Bytes: h.bytes,
		Total: r.now.Sub(h.decided)}
	if h.target != nil {
		a.Target = h.target.name
	}
	a.Phases[Frozen] = since(h.decided, h.frozen)
	a.Phases[Accepted] = since(h.offered, h.accepted)
	if !h.gave.IsZero() {
		a.Phases[Confirmed] = since(later(h.frozen, h.accepted), h.gave)
		a.Phases[Switched] = since(h.gave, r.now)
	}
	return a
}

func (r *Router) record(h *handover, a Attempt) {
	if h.target != nil {
		h.target.pending--
		h.target = nil
	}
	r.history.add(a)
	r.cfg.Observer.TransferEnded(a.Outcome, a.Target)
	log := r.log.Info
	if a.Outcome == "switched" {
		log = r.log.Debug
	}
	log("transfer", "client", a.Inc.Client, "service", a.Inc.Service, "job", a.Job, "target", a.Target,
		"outcome", a.Outcome, "reason", a.Reason, "bytes", a.Bytes, "held", a.Held, "took", a.Total)
}

func since(from, to time.Time) time.Duration {
	if from.IsZero() || to.Before(from) {
		return 0
	}
	return to.Sub(from)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// reason is a failure for people.
func reason(f transfer.Failure) string {
	if f.Reason == transfer.ReasonNone {
		return f.Detail
	}
	if f.Detail == "" {
		return f.Reason.String()
	}
	return f.Reason.String() + ": " + f.Detail
}

// peer tells the transfers of a host that its stream came or went.
func (r *Router) peer(t *target, up bool) {
	var e transfer.Event = transfer.PeerLost{Host: t.name}
	if up {
		e = transfer.PeerUp{Host: t.name}
	}
	var theirs []*conn
	for _, c := range r.handing {
		if c.handover.giver.Host() == t.name {
			theirs = append(theirs, c)
		}
	}
	slices.SortFunc(theirs, func(a, b *conn) int { return cmp.Compare(a.handover.first, b.handover.first) })
	for _, c := range theirs {
		r.step(c, e)
	}
}

// hear takes a target's message.
func (r *Router) hear(t *target, m transfer.Message) {
	switch m := m.(type) {
	case transfer.OfferReply:
		if c := r.transfers[m.Transfer]; c != nil && m.Accepted && c.handover.giver.Transfer() == m.Transfer {
			c.handover.accepted = r.now
		}
		r.answered(t, m.Transfer, m)
	case transfer.Confirm:
		r.answered(t, m.Transfer, m)
	case transfer.QueryReply:
		if m.Transfer == 0 {
			r.learnedOf(t, m)
			return
		}
		r.answered(t, m.Transfer, m)
	case transfer.EndReport:
		r.endReported(t, m)
	case transfer.Assign, transfer.Query:
		r.handsBack(t, m)
	default:
		r.count.StrayMessages++ // a target has no business to send it
	}
}

// answered gives an answer to the transfer that it is about, if that goes on.
func (r *Router) answered(t *target, id transfer.ID, m transfer.Message) {
	if c := r.transfers[id]; c != nil {
		r.step(c, transfer.Received{Host: t.name, Message: m})
		return
	}
	r.count.StrayMessages++
	if reply := transfer.Stray(m); reply != nil {
		r.say(t, reply)
	}
	if confirm, ok := m.(transfer.Confirm); ok && confirm.Imported {
		r.log.Warn("target imported a connection that was given up", "target", t.name, "transfer", id)
	}
}

// say sends a message that nobody waits for.
func (r *Router) say(t *target, m transfer.Message) {
	if r.cluster.Send(t.name, m) != nil {
		r.count.SendFailed++
	}
}

// endReported forgets a flow that ended at its target, after the forwarder's linger. Of an older incarnation it changes
// nothing: the forwarder compares.
func (r *Router) endReported(t *target, m transfer.EndReport) {
	r.count.EndReports++
	if c := r.handing[m.Inc]; c != nil {
		c.handover.over = c.handover.over || c.handover.target == t
		r.step(c, transfer.Received{Host: t.name, Message: m})
		return
	}
	if t.active > 0 {
		t.active--
	}
	r.remove(m.Inc, t)
}

// remove forgets the entry of a target's flow.
func (r *Router) remove(inc wire.Incarnation, t *target) {
	r.command(func() error { return r.dp.Remove(inc, t.owner) })
}

// unlist takes a connection's transfer out of the tables.
func (r *Router) unlist(c *conn) {
	h := c.handover
	delete(r.handing, c.inc)
	for i := range h.ids {
		delete(r.transfers, h.first+transfer.ID(i))
	}
	if h.target != nil {
		h.target.pending--
		h.target = nil
	}
}

// abandon ends the transfer of a connection that is over. Before the commit a reservation is given back; after it only
// the target decides what becomes of its connection, whose client is gone.
func (r *Router) abandon(c *conn, why string) {
	if !c.handover.giver.State().Final() {
		r.step(c, transfer.Cancel{Detail: why})
	}
	if !c.handover.giver.State().Final() {
		r.ended(c, c.handover, "abandoned", why)
	}
	r.unlist(c)
}
