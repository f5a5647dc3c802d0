package router

import (
	"net/netip"
	"time"

	"baton/control/timer"
	"baton/fastpath/wire"
)

// Neighbour resolution (RFC 826, RFC 4861 §7.2, in the roles that a sender of packets needs).
const (
	probeInterval   = time.Second      // RFC 4861 §10 RETRANS_TIMER
	reachableTime   = 30 * time.Second // RFC 4861 §10 REACHABLE_TIME: an answer is believed this long, then asked again
	maxProbes       = 3                // RFC 4861 §10: this many unanswered ones make a known neighbour unknown
	neighbourDelay  = time.Millisecond // between the first questions for two targets
	maxFrameHeaders = 128              // octets: enough for ARP and NDP frames
)

// neighbour is the link address of one target, or of the router that leads to it, as its state machine sees it: unknown, or known and believed until the
// next question. It is asked for from start-up on and for ever, because a target that cannot be reached on the data
// network must not be offered connections.
type neighbour struct {
	addr  netip.Addr
	port  uint16 // data port whose network addr is in
	mac   wire.MAC
	known bool
	asked int // questions since the last answer
	timer timer.Timer
}

// neighbours resolves addresses on the data network. Answers come as punts.
type neighbours struct {
	dp     Dataplane
	timers *timer.Queue
	byAddr map[netip.Addr]*neighbour
	learn  func(*neighbour) // called when the link address of a neighbour becomes known or changes
	lose   func(*neighbour) // called when it becomes unknown
	frame  []byte
}

func newNeighbours(dp Dataplane, ts *timer.Queue, learn, lose func(*neighbour)) *neighbours {
	return &neighbours{dp: dp, timers: ts, byAddr: map[netip.Addr]*neighbour{}, learn: learn, lose: lose,
		frame: make([]byte, 0, maxFrameHeaders)}
}

// add begins to resolve addr on a data port, at the given time, if nobody has begun it yet: several targets may be behind
// one router.
func (ns *neighbours) add(addr netip.Addr, port uint16, at time.Time) *neighbour {
	if n := ns.byAddr[addr]; n != nil {
		return n
	}
	n := &neighbour{addr: addr, port: port}
	n.timer.Fire = func(now time.Time) { ns.ask(n, now) }
	ns.byAddr[addr] = n
	ns.timers.Set(&n.timer, at)
	return n
}

// ask sends a question and sets the time of the next one.
func (ns *neighbours) ask(n *neighbour, now time.Time) {
	if n.asked++; n.asked > maxProbes && n.known {
		n.known = false
		ns.lose(n)
	}
	ns.timers.Set(&n.timer, now.Add(probeInterval))
	mac, own := ns.dp.Port(n.port)
	ns.frame = wire.AppendQuestion(ns.frame[:0], mac, own.Addr(), n.addr)
	_ = ns.dp.Transmit(n.port, ns.frame) // a full ring loses one question like the network does
}

// answered takes what the forwarder saw. Addresses that nobody asked about change nothing.
func (ns *neighbours) answered(addr netip.Addr, mac wire.MAC, now time.Time) {
	n := ns.byAddr[addr]
	if n == nil {
		return
	}
	news := !n.known || n.mac != mac
	n.mac, n.known, n.asked = mac, true, 0
	ns.timers.Set(&n.timer, now.Add(reachableTime))
	if news {
		ns.learn(n)
	}
}
