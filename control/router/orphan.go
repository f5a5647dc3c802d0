package router

import (
	"time"

	"baton/control/transfer"
	"baton/fastpath/flow"
	"baton/fastpath/wire"
)

// Targets are the only truth about flows that the router does not have: it asks them, and forgets what they have
// forgotten.
const (
	orphanMemory = 10 * time.Second // a tuple without an entry is not asked about again for this long
	maxOrphans   = 4096             // tuples remembered; beyond, orphans are only counted
)

// endHint follows a client's FIN or RST on a flow of a target. It may be forged, so the owner is asked. The forwarder's
// entry has only a hash of the incarnation, so which one is meant comes from memory.
func (r *Router) endHint(p *flow.Punt) {
	r.count.EndHints++
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

// orphan asks all targets, once, whose a tuple without an entry is.
func (r *Router) orphan(p *flow.Punt) {
	r.count.Orphans++
	if !r.orphans.first(p.Inc.Tuple, r.now) {
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
// there any more, needs no entry; the forwarder makes sure that the entry is of this incarnation. For one that lives
// without an entry there is nothing that the forwarder could be told yet; it is counted.
func (r *Router) learnedOf(t *target, m transfer.QueryReply) {
	switch m.State {
	case transfer.FlowEnded, transfer.FlowUnknown:
		if m.Inc.IRS != 0 || m.Inc.ISS != 0 {
			r.remove(m.Inc)
		}
	case transfer.FlowLive:
		if _, asked := r.orphans.asked[m.Inc.Tuple]; asked {
			r.count.OrphansLive++
			r.log.Warn("target owns a flow without an entry", "target", t.name, "flow", m.Inc.Tuple)
		}
	case transfer.FlowReserved: // not decided; its transfer will
	}
}

// orphans is a cache of tuples that were asked about, oldest first: bounded, and without a timer of its own.
type orphans struct {
	asked map[wire.Tuple]time.Time
	order []wire.Tuple // in the order of asking
}

// first reports whether t is to be asked about now, and remembers that it was.
func (o *orphans) first(t wire.Tuple, now time.Time) bool {
	o.forget(now)
	if _, again := o.asked[t]; again || len(o.asked) >= maxOrphans {
		return false
	}
	if o.asked == nil {
		o.asked = map[wire.Tuple]time.Time{}
	}
	o.asked[t] = now
	o.order = append(o.order, t)
	return true
}

func (o *orphans) forget(now time.Time) {
	n := 0
	for n < len(o.order) && now.Sub(o.asked[o.order[n]]) >= orphanMemory {
		delete(o.asked, o.order[n])
		n++
	}
	o.order = o.order[n:]
}

// memory holds the newest incarnations that the router had, one for each tuple. It tells which one a hint is about, and
// keeps the router from taking one as new: the SYN cookie is still good when the first segment comes again, late or
// repeated by the client, and there is no TIME-WAIT to catch it. When it is full, the oldest is forgotten: an entry whose
// target lost it then lives until its tuple is used again.
type memory struct {
	incs map[wire.Tuple]wire.Incarnation
	ring []wire.Incarnation // in the order of put
	next int
}

func newMemory(size int) memory {
	return memory{incs: map[wire.Tuple]wire.Incarnation{}, ring: make([]wire.Incarnation, max(size, 1))}
}

func (m *memory) put(inc wire.Incarnation) {
	if m.incs[inc.Tuple] == inc {
		return
	}
	m.drop(m.ring[m.next])
	m.ring[m.next] = inc
	m.next = (m.next + 1) % len(m.ring)
	m.incs[inc.Tuple] = inc
}

func (m *memory) get(t wire.Tuple) (wire.Incarnation, bool) {
	inc, ok := m.incs[t]
	return inc, ok
}

// has reports whether inc is remembered.
func (m *memory) has(inc wire.Incarnation) bool { return m.incs[inc.Tuple] == inc }

// drop forgets inc, unless its tuple has another incarnation by now.
func (m *memory) drop(inc wire.Incarnation) {
	if m.incs[inc.Tuple] == inc {
		delete(m.incs, inc.Tuple)
	}
}
