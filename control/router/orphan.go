package router

import (
	"slices"
	"time"

	"baton/control/transfer"
	"baton/fastpath/flow"
	"baton/fastpath/wire"
)

// Targets are the only truth about flows that the router does not have: it asks them, forgets what they have forgotten,
// and gives back to the forwarder what it has lost.
const (
	orphanMemory = 10 * time.Second // a tuple without an entry is not asked about again for this long
	maxOrphans   = 4096             // tuples remembered; beyond, orphans are only counted
)

// askOwner asks what became of a flow of a target: its client has sent a FIN or RST, which may be forged, or nothing for
// long. The forwarder's entry has only a hash of the incarnation, so which one is meant comes from memory.
func (r *Router) askOwner(p *flow.Punt) {
	if int(p.Owner) >= len(r.byOwner) || r.byOwner[p.Owner] == nil {
		return
	}
	inc := p.Inc
	if known, ok := r.past.get(inc.Tuple); ok && inc.IRS == 0 && inc.ISS == 0 {
		inc = known
	}
	if t := r.byOwner[p.Owner]; t.connected {
		r.say(t, transfer.Query{Inc: inc})
	}
}

// orphan asks all targets, once, whose a tuple without an entry is. The segment waits for the answer.
func (r *Router) orphan(p *flow.Punt) {
	r.count.Orphans++
	if !r.orphans.first(p, r.now) {
		return
	}
	r.count.OrphansAsked++
	for _, t := range r.byOwner[1:] {
		if t.connected {
			r.say(t, transfer.Query{Inc: wire.Incarnation{Tuple: p.Inc.Tuple}})
		}
	}
}

// learnedOf takes the answer to a query that was not about a transfer. What has ended at its owner, or is not known
// there any more, needs no entry; the forwarder makes sure that the entry is of this incarnation.
func (r *Router) learnedOf(t *target, m transfer.QueryReply) {
	switch m.State {
	case transfer.FlowEnded, transfer.FlowUnknown:
		if m.Inc.IRS != 0 || m.Inc.ISS != 0 {
			r.remove(m.Inc, t)
		}
	case transfer.FlowLive:
		r.lives(t, m.Inc)
	case transfer.FlowReserved: // not decided; its transfer will
	}
}

// lives has the forwarder know, or know again, that a flow is the target's. A segment that waits goes there.
func (r *Router) lives(t *target, inc wire.Incarnation) {
	o, orphan := r.orphans.asked[inc.Tuple]
	if orphan {
		r.count.OrphansLive++
		r.orphans.asked[inc.Tuple] = asked{at: o.at} // the segment is sent once
		r.log.Debug("flow has an entry again", "target", t.name, "flow", inc.Tuple)
	}
	r.past.put(inc) // a restarted router does not know it yet
	r.command(func() error { return r.dp.Restore(inc, t.owner, o.port, o.frame) })
}

// orphans is a cache of tuples that were asked about, oldest first: bounded, and without a timer of its own.
type orphans struct {
	asked map[wire.Tuple]asked
	order []wire.Tuple // in the order of asking
}

// asked is a tuple that was asked about.
type asked struct {
	at    time.Time
	frame []byte // the segment that made the question necessary, until it is sent
	port  uint16 // where it came in
}

// first reports whether the tuple of p is to be asked about now, and remembers that it was.
func (o *orphans) first(p *flow.Punt, now time.Time) bool {
	o.forget(now)
	t := p.Inc.Tuple
	if _, again := o.asked[t]; again || len(o.asked) >= maxOrphans {
		return false
	}
	if o.asked == nil {
		o.asked = map[wire.Tuple]asked{}
	}
	o.asked[t] = asked{at: now, frame: slices.Clone(p.Frame), port: p.Port}
	o.order = append(o.order, t)
	return true
}

func (o *orphans) forget(now time.Time) {
	n := 0
	for n < len(o.order) && now.Sub(o.asked[o.order[n]].at) >= orphanMemory {
		delete(o.asked, o.order[n])
		n++
	}
	o.order = o.order[n:]
}

// memory holds the incarnations that the router had lately. It tells which one of a tuple a hint is about, the newest,
// and keeps the router from taking any of them as new: the SYN cookie is still good when the first segment comes again,
// late or repeated by the client, and there is no TIME-WAIT to catch it. When it is full, the oldest is forgotten: an
// entry whose target lost it then lives until its tuple is used again.
type memory struct {
	had    map[wire.Incarnation]way
	newest map[wire.Tuple]wire.Incarnation
	ring   []wire.Incarnation // in the order of their first put
	next   int
}

// way is how a client was reached.
type way struct {
	port uint16
	peer wire.MAC
}

func (w way) known() bool { return w.peer != wire.MAC{} }

func newMemory(size int) memory {
	return memory{had: map[wire.Incarnation]way{}, newest: map[wire.Tuple]wire.Incarnation{},
		ring: make([]wire.Incarnation, max(size, 1))}
}

func (m *memory) put(inc wire.Incarnation) {
	if !m.has(inc) {
		m.drop(m.ring[m.next])
		m.ring[m.next] = inc
		m.next = (m.next + 1) % len(m.ring)
		m.had[inc] = way{}
	}
	m.newest[inc.Tuple] = inc
}

// reached notes how the client of an incarnation that was put is reached.
func (m *memory) reached(inc wire.Incarnation, w way) { m.had[inc] = w }

// way is how the client of an incarnation was reached, as far as that is known.
func (m *memory) way(inc wire.Incarnation) way { return m.had[inc] }

// get returns the incarnation of a tuple that was put last.
func (m *memory) get(t wire.Tuple) (wire.Incarnation, bool) {
	inc, ok := m.newest[t]
	return inc, ok
}

// has reports whether inc is remembered.
func (m *memory) has(inc wire.Incarnation) bool {
	_, ok := m.had[inc]
	return ok
}

func (m *memory) drop(inc wire.Incarnation) {
	delete(m.had, inc)
	if m.newest[inc.Tuple] == inc {
		delete(m.newest, inc.Tuple)
	}
}
