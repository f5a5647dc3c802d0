package peers

import (
	"bytes"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// faults are percentages of frames.
type faults struct {
	lose, repeat, delay, damage int
}

// link is one direction of a bad link. It is used by one goroutine.
type link struct {
	faults
	r     *rand.Rand
	to    func(frame []byte) // from any goroutine
	count atomic.Int64       // of faults
}

func newLink(f faults, seed uint64, to func([]byte)) *link {
	return &link{faults: f, r: rand.New(rand.NewPCG(seed, 7)), to: to}
}

func (l *link) chance(percent int) bool {
	hit := l.r.IntN(100) < percent
	if hit {
		l.count.Add(1)
	}
	return hit
}

// carry sends a frame, or does with it what the link does.
func (l *link) carry(frame []byte) {
	frame = bytes.Clone(frame)
	if l.chance(l.lose) {
		return
	}
	if l.chance(l.damage) {
		frame[34+l.r.IntN(len(frame)-34)] ^= 1 << l.r.IntN(8) // in TCP: the header before it is someone else's
	}
	copies := 1
	if l.chance(l.repeat) {
		copies = 2
	}
	for range copies {
		if l.chance(l.delay) {
			time.AfterFunc(time.Duration(1+l.r.IntN(10))*time.Millisecond, func() { l.to(frame) })
		} else {
			l.to(frame)
		}
	}
}
