package transfer

import (
	"fmt"
	"slices"

	"baton/fastpath/seq"
)

// path is the way of the client's octets: the lcore with its two rings, and the router's endpoint. Of the octets only the
// last one is of interest: those before it made the router decide, so that each record has them. The client repeats the
// last one at any time until it is acknowledged, and old copies of it may come at any time later.
type path struct {
	acked    bool // somebody told the client that it has arrived
	endpoint bool // the router has it
	held     bool // the lcore does, for the owner to be
	lcore    byte // toRouter, frozen, closed, or toTarget and a target's index
	commands [4]byte
	// The punt ring, in this order.
	punted   bool // the octet
	marker   bool // the answer to the freeze
	switched bool // the answer to the switch
}

// modelBug is a mistake of the hosts around the machines, to prove that the model would show it.
type modelBug uint8

const (
	noBug          modelBug = iota
	hastyRecord             // the record is made before the lcore has answered
	noThaw                  // the lcore is not told to go on
	wrongSwitch             // it is told to send everything to another host
	forgottenOctet          // the record lacks the octet that the router has
)

// States of the lcore's entry, which are also the commands that lead there.
const (
	toRouter byte = iota + 1
	freezing
	closed
	toTarget
)

// ends are where a record may end: before the octet or behind it.
var ends = map[bool]Frozen{false: frozenAt(1001), true: frozenAt(1002)}

func frozenAt(nxt seq.Value) Frozen {
	r := record7()
	r.Data = append(r.Data, make([]byte, nxt.Sub(r.RcvNxt))...)
	r.RcvNxt, r.RcvAcked = nxt, nxt
	r.RcvEdge = seq.Max(r.RcvEdge, nxt)
	return Frozen{Record: encoded(r), RcvNxt: nxt}
}

// recorded reports whether the record has the octet.
func (w *world) recorded() bool { return w.giver.frozen && w.giver.rcvNxt == ends[true].RcvNxt }

// order is what the lcore is to do by an action of the Giver; 0: nothing.
func (m *model) order(a Action) byte {
	switch a := a.(type) {
	case Freeze:
		return freezing
	case Thaw:
		if m.bug == noThaw {
			return 0
		}
		return toRouter
	case Switch:
		if m.bug == wrongSwitch {
			return toTarget + byte(len(m.hosts))
		}
		return toTarget + byte(slices.Index(m.hosts, a.Host))
	case Remove, Abort:
		return closed
	}
	return 0
}

// command puts an order into the ring. One that waits there already changes nothing, nor does one about a flow that is, or
// will be, closed.
func (p *path) command(order byte) {
	if order == 0 || p.lcore == closed || slices.Contains(p.commands[:], closed) || slices.Contains(p.commands[:], order) {
		return
	}
	p.commands[slices.Index(p.commands[:], 0)] = order
}

// read takes what the router has handled out of the punt ring.
func (p *path) read(e Event) {
	switch e.(type) {
	case Frozen:
		p.marker = false
	case Switched:
		p.switched = false
	}
}

// pathEvents are what the client, the lcore and the owner's TCP do.
func (m *model) pathEvents(w *world) {
	switch p := &w.path; {
	case p.punted:
		m.walk(w, "router reads the octet", func(next *world) {
			if w.giver.frozen && w.giver.State() != GiverRefused {
				m.fail(next, "an octet comes to the router after the record was made")
			}
			next.path.punted, next.path.endpoint = false, true
		})
	case p.marker, m.bug == hastyRecord && slices.Contains(p.commands[:], freezing):
		m.stepGiver(w, ends[p.endpoint && m.bug != forgottenOctet])
	case p.switched:
		m.stepGiver(w, Switched{})
	}
	if !m.data {
		return
	}
	m.walk(w, "client sends the octet", func(next *world) { next.arrives() })
	if w.path.commands[0] != 0 {
		m.walk(w, "lcore does what it was told", func(next *world) { next.obeyOne() })
	}
	if s := w.giver.State(); w.path.endpoint && (s == GiverIdle || s == GiverRefused) {
		m.walk(w, "router acknowledges the octet", func(next *world) { next.path.acked = true })
	}
	for i := range w.targets {
		if w.targets[i].octet && w.targets[i].lives() {
			m.walk(w, m.hosts[i]+": acknowledges the octet", func(next *world) { next.path.acked = true })
		}
	}
}

// walk visits what w becomes by a change of the path.
func (m *model) walk(w *world, what string, change func(next *world)) {
	next := *w
	next.targets = slices.Clone(w.targets)
	next.before = w
	next.how = func() string { return what }
	change(&next)
	m.visit(&next)
}

// arrives is the octet at the lcore.
func (w *world) arrives() {
	switch p := &w.path; p.lcore {
	case 0, toRouter:
		p.punted = true
	case freezing:
		p.held = true
	case closed:
	default:
		w.deliver(p.lcore - toTarget)
	}
}

// deliver is the octet at a target.
func (w *world) deliver(i byte) {
	if int(i) < len(w.targets) && w.targets[i].lives() {
		w.targets[i].octet = true
	}
}

// obey has the lcore do all that it was told.
func (w *world) obey() {
	for w.path.commands[0] != 0 {
		w.obeyOne()
	}
}

// obeyOne has the lcore do the first thing that it was told. What it held goes to the owner.
func (w *world) obeyOne() {
	p := &w.path
	p.lcore = p.commands[0]
	copy(p.commands[:], append(p.commands[1:], 0))
	held := p.held
	p.held = false
	switch {
	case p.lcore == freezing:
		p.marker = true
	case p.lcore >= toTarget:
		p.switched = true
	}
	if held {
		w.arrives()
	}
}

// lives reports whether the target has the connection.
func (t *target) lives() bool {
	_, _, live, _ := t.Counts()
	return live > 0
}

// checkOctet: what was acknowledged is not lost, as the client may have no copy of it any more.
func (m *model) checkOctet(w *world) {
	if !w.path.acked {
		return
	}
	switch s := w.giver.State(); {
	case s.Owns() && !w.path.endpoint:
		m.fail(w, "the router lost an octet that was acknowledged")
	case (s == GiverCommitted || s == GiverQuerying) && w.made() == 0 && !w.recorded():
		m.fail(w, "the record lacks an octet that was acknowledged")
	}
	for i := range w.targets {
		if w.targets[i].lives() && !w.targets[i].octet {
			m.fail(w, m.hosts[i]+" lost an octet that was acknowledged")
		}
	}
}

// checkWay: when the transfer is over and the lcore has done what it was told, the client's octets go to the owner, or to
// nobody if there is none. So no flow stays frozen.
func (m *model) checkWay(w *world) {
	lcore, s := w.path.lcore, w.giver.State()
	if !s.Final() || w.path.commands[0] != 0 || lcore == closed {
		return
	}
	wrong := s == GiverAborted || s == GiverRefused && lcore > toRouter ||
		s == GiverSwitched && lcore != toTarget+byte(slices.Index(m.hosts, w.giver.Host()))
	if wrong {
		m.fail(w, fmt.Sprintf("the transfer is %s, and the lcore's entry in state %d", s, lcore))
	}
}

// key is equal for paths that go on alike.
func (p *path) key() []byte {
	return append(p.commands[:], bit(p.acked), bit(p.endpoint), bit(p.held), p.lcore, bit(p.punted), bit(p.marker),
		bit(p.switched))
}
