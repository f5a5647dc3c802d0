package fastpath

import (
	"time"

	"baton/cgo"
)

// LoopInfo is a poll loop as operators see it. Times are brought up to date once a second.
type LoopInfo struct {
	Polls      uint64
	Busy, Idle time.Duration // since Start; busy: in polls that found frames or commands
	Share      float64       // busy share of the last whole second, 0 to 1
	// Gap is the longest time from one poll to the next in the last whole second, and GapMax since Start, without what
	// the loop slept on purpose: so long a frame may have waited, as something else ran on the loop's CPU.
	Gap, GapMax time.Duration
	Waits       uint64 // for a receive interrupt, since Start
	Flows       int    // connections of this loop that the router owns
	Entries     uint64 // in this loop's part of the CRT
	Counters    []Counter
}

// Loops reads all poll loops, in order.
func (f *Forwarder) Loops() []LoopInfo {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.closed {
		return nil
	}
	all := make([]LoopInfo, len(f.loops))
	for i, l := range f.loops {
		p := l.Pace()
		all[i] = LoopInfo{
			Polls: p.Polls, Busy: time.Duration(p.BusyNS), Idle: time.Duration(p.IdleNS), Share: p.Busy,
			Gap: time.Duration(p.GapNS), GapMax: time.Duration(p.GapMaxNS), Waits: p.Waits,
			Flows: l.Flows(), Entries: l.Table(false).Used() + l.Table(true).Used(),
			Counters: counters([]*cgo.Forwarder{l}),
		}
	}
	return all
}

// Count reads one counter of the loop by group and name; 0 if there is none.
func (l *LoopInfo) Count(group, name string) uint64 {
	for _, c := range l.Counters {
		if c.Group == group && c.Name == name {
			return c.Value
		}
	}
	return 0
}
