package sim

import (
	"slices"
	"time"

	"baton/control/tcp"
	"baton/control/transfer"
)

// gift is a connection that its application gives away: frozen, and on its way back to the routing host, by the machine
// that the agent runs for it.
type gift struct {
	s      *socket
	giver  *transfer.Giver
	record transfer.Record
}

// gives freezes the connection and begins to hand it back, to be served by another target. The agent must know that it
// has it; and a kernel only gives what is open on both sides.
func (s *socket) gives() {
	t, w := s.t, s.t.w
	if t.taker == nil || s.closing || s.left || s.conn.EOF() || s.wrote >= s.plan.Response {
		return
	}
	flow, live := t.taker.Flow(s.life.inc)
	if !live || flow.Host == "" {
		return
	}
	s.act(s.conn.Tick(s.clock())) // timers travel as distances from the last event
	if s.gone || s.conn.State() != tcp.Established {
		return
	}
	job := []string{"web", "web", "web", "solo", "void"}[w.rng.IntN(5)]
	s.conn.Freeze()
	record, err := s.conn.Export(job, flow.Epoch)
	if err != nil {
		s.act(s.conn.Thaw(s.clock()))
		return
	}
	record.Hops = 0
	if s.read == s.readBefore && s.wrote == s.wroteBefore {
		record.Hops = flow.Hops + 1
	}
	w.shorten(&record)
	w.logf(t.name, "%s: gives the connection to %s", s.life.client.name, job)
	s.frozen = true
	t.giftID++
	g := &gift{s: s, record: record}
	g.giver = transfer.NewGiver(transfer.Give{
		Offer: transfer.Offer{Inc: record.Inc, Epoch: record.Epoch, Job: job, MSS: record.Handshake.MSS,
			Timestamps: record.Handshake.Timestamps, Bytes: len(record.Data), Hops: record.Hops, From: "app", FromHost: t.name},
		Candidates: []string{flow.Host}, First: t.giftID, Timeouts: transfer.DefaultTimeouts(), Unconditional: true})
	t.gifts = append(t.gifts, g)
	g.step(transfer.Start{})
}

// step gives the gift's machine an event, and does what it says.
func (g *gift) step(e transfer.Event) {
	t := g.s.t
	for events := []transfer.Event{e}; len(events) > 0; events = events[1:] {
		for _, a := range slices.Clone(g.giver.Step(events[0], t.w.now)) {
			if next := g.perform(a); next != nil {
				events = append(events, next)
			}
		}
	}
	if g.giver.State().Final() {
		t.gifts = slices.DeleteFunc(t.gifts, func(o *gift) bool { return o == g })
		return
	}
	g.plan()
}

// plan has the machine look at its deadline in time.
func (g *gift) plan() {
	t, at := g.s.t, g.giver.Deadline()
	t.w.upkeeps++
	t.w.at(at, func() {
		t.awake(func() {
			if slices.Contains(t.gifts, g) && g.giver.Deadline().Equal(at) {
				g.step(transfer.Timeout{})
			}
		})
	})
}

// perform does one action; the event that follows from it is nil if there is none.
func (g *gift) perform(a transfer.Action) transfer.Event {
	w := g.s.t.w
	switch a := a.(type) {
	case transfer.Freeze:
		b, err := g.record.Encode()
		if err != nil {
			g.s.life.fail("encode: %v", err)
		}
		return transfer.Frozen{Record: b, RcvNxt: g.record.RcvNxt}
	case transfer.Send:
		return g.say(a.Message)
	case transfer.Switch:
		w.tally.conn(gaveBack)
		g.leaves()
		return transfer.Switched{}
	case transfer.Thaw:
		g.stays()
	case transfer.Failed:
		w.tally.transfer("back " + a.Cause.String())
	case transfer.Abort:
		g.s.life.abandoned = true
		g.leaves()
	case transfer.Fault:
		w.fail("%s: the routing host contradicts itself: %s", g.s.t.name, a.Detail)
	}
	return nil
}

// say sends a message to the routing host. What surely has not left leaves the connection here.
func (g *gift) say(m transfer.Message) transfer.Event {
	t := g.s.t
	if t.stream.targetUp {
		t.stream.up(m)
		return nil
	}
	if assign, begins := m.(transfer.Assign); begins {
		return transfer.Received{Host: hostName, Message: transfer.Confirm{Transfer: assign.Offer.Transfer,
			Reason: transfer.ReasonHost, Detail: "no stream"}}
	}
	return transfer.PeerLost{Host: hostName}
}

// leaves ends what is left of the connection here, without a word to anybody.
func (g *gift) leaves() {
	s := g.s
	if s.t.w.has(giverGoesOn) {
		g.stays()
		return
	}
	if !s.gone {
		s.gone = true
		s.timer++
		delete(s.t.conns, s.life.inc.Tuple)
		s.life.ended(s.t)
	}
	s.t.step(transfer.Left{Inc: s.life.inc})
}

// stays goes on with the connection.
func (g *gift) stays() {
	s := g.s
	if s.gone {
		return
	}
	s.t.w.logf(s.t.name, "%s: keeps the connection", s.life.client.name)
	s.frozen = false
	s.life.keptBy(s.t)
	s.act(s.conn.Thaw(s.clock()))
	s.t.w.in(time.Microsecond, func() { s.t.awake(s.run) })
}

// answered gives an answer of the routing host to the gift that it is about; false: it is about none.
func (t *target) answered(m transfer.Message) bool {
	var id transfer.ID
	switch m := m.(type) {
	case transfer.Confirm:
		id = m.Transfer
	case transfer.QueryReply:
		id = m.Transfer
	default:
		return false
	}
	for _, g := range slices.Clone(t.gifts) {
		if g.giver.Transfer() == id {
			g.step(transfer.Received{Host: hostName, Message: m})
		}
	}
	return true
}

// allGifts gives all connections on their way back an event of the stream.
func (t *target) allGifts(e transfer.Event) {
	switch e.(type) {
	case transfer.PeerUp, transfer.PeerLost:
		for _, g := range slices.Clone(t.gifts) {
			g.step(e)
		}
	}
}
