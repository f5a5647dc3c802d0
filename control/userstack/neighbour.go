package userstack

import (
	"net/netip"
	"sync/atomic"
	"time"

	"baton/control/timer"
	"baton/fastpath/wire"
)

// Neighbour resolution (RFC 826, RFC 4861 §7.2) of those that connections are with.
const (
	probeInterval   = time.Second      // RFC 4861 §10 RETRANS_TIMER
	maxProbes       = 3                // RFC 4861 §10: then nobody is there
	reachableTime   = 30 * time.Second // RFC 4861 §10: an answer is believed this long, then asked again when it is used
	neighbourLinger = time.Minute      // one without connections is forgotten after this
	heldMax         = 64               // frames that wait for a link address
)

// neighbour is a client, or the gateway to clients, on a data port's network.
type neighbour struct {
	addr  netip.Addr
	port  uint16
	mac   wire.MAC  // zero: not known
	until time.Time // the answer is believed
	used  time.Time // last
	conns int       // connections that send there
	asked int       // questions without an answer
	held  [][]byte
	timer timer.Timer
	of    *neighbours
}

// neighbours are for the loop only, except lost.
type neighbours struct {
	stack  *Stack
	byAddr map[netip.Addr]*neighbour
	frame  []byte
	lost   atomic.Uint64 // frames for somebody who does not answer
}

// use returns the neighbour with that address, and sees to it that its link address is known or asked for.
func (ns *neighbours) use(addr netip.Addr, port uint16) *neighbour {
	n := ns.byAddr[addr]
	if n == nil {
		n = &neighbour{addr: addr, port: port, of: ns}
		n.timer.Fire = func(time.Time) { ns.due(n) }
		ns.byAddr[addr] = n
	}
	n.used = ns.stack.now
	if n.asked == 0 && !n.until.After(ns.stack.now) {
		ns.ask(n)
	}
	return n
}

// known reports whether frames can be sent, and asks again when the last answer is old.
func (n *neighbour) known() bool {
	now := n.of.stack.now
	n.used = now
	if n.asked == 0 && !n.until.After(now) {
		n.of.ask(n)
	}
	return n.mac != wire.MAC{}
}

// hold keeps a frame until the link address is known; the oldest goes first.
func (n *neighbour) hold(frame []byte) {
	if len(n.held) == heldMax {
		n.held = n.held[1:]
		n.of.lost.Add(1)
	}
	n.held = append(n.held, append([]byte(nil), frame...))
}

// ask sends a question and sets the time for the next one.
func (ns *neighbours) ask(n *neighbour) {
	n.asked++
	p := &ns.stack.ports[n.port]
	ns.frame = wire.AppendQuestion(ns.frame[:0], p.mac, p.own.Addr(), n.addr)
	_ = ns.stack.dp.Transmit(n.port, ns.frame) // a full ring loses one question like the network does
	ns.stack.timers.Set(&n.timer, ns.stack.now.Add(probeInterval))
}

// due asks again for an answer that did not come, and forgets who is not used.
func (ns *neighbours) due(n *neighbour) {
	switch {
	case n.asked > 0 && n.asked < maxProbes:
		ns.ask(n)
		return
	case n.asked > 0: // the next use begins anew
		ns.lost.Add(uint64(len(n.held)))
		n.asked, n.mac, n.held = 0, wire.MAC{}, nil
	}
	ns.keep(n)
}

// keep lets a neighbour stay as long as it is of use.
func (ns *neighbours) keep(n *neighbour) {
	if n.conns > 0 {
		return // leave sets the timer
	}
	if left := n.used.Add(neighbourLinger); left.After(ns.stack.now) {
		ns.stack.timers.Set(&n.timer, left)
		return
	}
	delete(ns.byAddr, n.addr)
}

// join and leave count the connections.
func (n *neighbour) join() { n.conns++ }

func (n *neighbour) leave() {
	if n.conns--; n.asked == 0 {
		n.of.keep(n)
	}
}

// answered takes what the forwarder saw. Addresses that nobody asked about change nothing.
func (ns *neighbours) answered(addr netip.Addr, mac wire.MAC) {
	n := ns.byAddr[addr]
	if n == nil {
		return
	}
	n.mac, n.asked, n.until = mac, 0, ns.stack.now.Add(reachableTime)
	ns.stack.timers.Set(&n.timer, time.Time{})
	ns.keep(n)
	for _, frame := range n.held {
		copy(frame, mac[:])
		ns.stack.send(n.port, frame)
	}
	n.held = nil
}
