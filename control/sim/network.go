package sim

import (
	"slices"
	"time"
)

// ethernetHeader is what a link never corrupts: a bad Ethernet FCS would drop the frame before anybody saw it.
const ethernetHeader = 14

// Faults is what a network does to frames, each as a probability per frame.
type Faults struct {
	Loss, Duplicate, Reorder, Corrupt, Spike float64
}

// link carries frames one way.
type link struct {
	w      *world
	name   string
	delay  time.Duration
	jitter time.Duration
	faults Faults
	cut    bool // partitioned
	room   int  // octets of the largest frame that passes now; 0: any
	last   time.Time
}

// carry takes a frame (copied) and delivers it, or not.
func (l *link) carry(frame []byte, deliver func([]byte)) {
	w := l.w
	f := l.faults
	if w.healed {
		f = Faults{}
	}
	switch {
	case l.cut:
		w.tally.fault(Partition)
		w.logf("net", "%s: lost, cut off", l.name)
		return
	case l.room > 0 && len(frame) > l.room:
		w.tally.fault(MTU)
		w.logf("net", "%s: lost, %d octets are too many", l.name, len(frame))
		return
	case w.chance(f.Loss):
		w.tally.fault(Loss)
		w.logf("net", "%s: lost", l.name)
		return
	}
	frame = slices.Clone(frame)
	if w.chance(f.Corrupt) && protected(frame) {
		w.tally.fault(Corrupt)
		w.logf("net", "%s: corrupted", l.name)
		i := ethernetHeader + w.rng.IntN(len(frame)-ethernetHeader)
		frame[i] ^= 1 << w.rng.IntN(8)
	}
	l.send(frame, f, deliver)
	if w.chance(f.Duplicate) {
		w.tally.fault(Duplicate)
		w.logf("net", "%s: duplicated", l.name)
		l.send(slices.Clone(frame), f, deliver)
	}
}

// send delivers a frame after the delay: in order, but for those that are delayed by a fault.
func (l *link) send(frame []byte, f Faults, deliver func([]byte)) {
	w := l.w
	at := w.now.Add(l.delay + w.between(0, l.jitter))
	switch {
	case w.chance(f.Reorder):
		w.tally.fault(Reorder)
		w.logf("net", "%s: delayed, others overtake", l.name)
		at = at.Add(w.between(time.Millisecond, 30*time.Millisecond))
	case w.chance(f.Spike):
		w.tally.fault(Delay)
		w.logf("net", "%s: delayed", l.name)
		at = at.Add(w.between(50*time.Millisecond, 900*time.Millisecond))
		l.last = at
	default:
		if at.Before(l.last) {
			at = l.last
		}
		l.last = at
	}
	w.at(at, func() { deliver(frame) })
}

// protected reports whether the frame has checksums of its own, as ARP has not.
func protected(frame []byte) bool {
	const etherTypeARP = 0x0806
	return len(frame) > ethernetHeader && int(frame[12])<<8|int(frame[13]) != etherTypeARP
}
