// Package faults does to frames what bad links do: it loses, repeats, delays and damages them. Its central type is Link,
// one direction. What happens to the n-th frame depends on the seed only; when things happen is left to real time.
// Callers: the laboratory's wires (bench/lab), and the TCP core's tests against other systems (control/peers).
package faults

import (
	"bytes"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// Rates are percentages of frames, 0 to 100. A delayed frame is overtaken by those that follow within 1 to 10 ms.
type Rates struct{ Lose, Repeat, Delay, Damage int }

// Counts are numbers of frames. A repeated one of which a copy was delayed is both.
type Counts struct{ Carried, Lost, Repeated, Delayed, Damaged int64 }

// headers is what damage spares, octets: Ethernet and IPv4, which another router would have checked. Frames of no more
// are not damaged.
const headers = 34

// Link is one direction of a bad link. One goroutine carries; Count may be called by any.
type Link struct {
	rates Rates
	r     *rand.Rand
	to    func(frame []byte)

	carried, lost, repeated, delayed, damaged atomic.Int64
}

// New makes a link that ends at to, which is called from any goroutine with frames of its own.
func New(rates Rates, seed uint64, to func(frame []byte)) *Link {
	return &Link{rates: rates, r: rand.New(rand.NewPCG(seed, 7)), to: to}
}

// Carry sends a frame (copied), or does with it what the link does.
func (l *Link) Carry(frame []byte) {
	l.carried.Add(1)
	if l.strikes(l.rates.Lose, &l.lost) {
		return
	}
	frame = bytes.Clone(frame)
	if len(frame) > headers && l.strikes(l.rates.Damage, &l.damaged) {
		frame[headers+l.r.IntN(len(frame)-headers)] ^= 1 << l.r.IntN(8)
	}
	copies := 1
	if l.strikes(l.rates.Repeat, &l.repeated) {
		copies = 2
	}
	for range copies {
		if l.strikes(l.rates.Delay, &l.delayed) {
			time.AfterFunc(time.Duration(1+l.r.IntN(10))*time.Millisecond, func() { l.to(bytes.Clone(frame)) })
		} else {
			l.to(bytes.Clone(frame))
		}
	}
}

func (l *Link) strikes(percent int, count *atomic.Int64) bool {
	hit := l.r.IntN(100) < percent
	if hit {
		count.Add(1)
	}
	return hit
}

// Count returns what the link has done so far.
func (l *Link) Count() Counts {
	return Counts{Carried: l.carried.Load(), Lost: l.lost.Load(), Repeated: l.repeated.Load(), Delayed: l.delayed.Load(),
		Damaged: l.damaged.Load()}
}

// Faults is how many faults there were, of any kind.
func (c Counts) Faults() int64 { return c.Lost + c.Repeated + c.Delayed + c.Damaged }
