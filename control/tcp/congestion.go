package tcp

import (
	"math"

	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// phase is where the sender stands after a loss.
type phase uint8

const (
	open         phase = iota // no loss that is not repaired
	fastRecovery              // RFC 6582 §3.2
	timedOut                  // going back after a timeout; duplicate ACKs are of our own making then (RFC 6582 §4)
)

// duplicates is how many duplicate ACKs are a loss (RFC 5681 §3.2).
const duplicates = 3

// congestion is NewReno (RFC 5681, 6582) with the initial window of RFC 6928. Octets.
type congestion struct {
	cwnd, ssthresh int
	phase          phase
	recover        seq.Value // what was SND.NXT at the loss
	dups           int       // duplicate ACKs in a row
}

// newCongestion has the initial window IW10 (RFC 6928 §2).
func newCongestion(mss int) congestion {
	return congestion{cwnd: min(10*mss, max(2*mss, 14600)), ssthresh: math.MaxInt32}
}

// grow takes n newly acknowledged octets up to una. It reports whether the next segment is lost too (a partial
// acknowledgment, RFC 6582 §3.2 step 3).
func (g *congestion) grow(n int, una seq.Value, mss int) (lost bool) {
	g.dups = 0
	whole := !una.Before(g.recover)
	switch {
	case g.phase == fastRecovery && !whole:
		g.cwnd = max(g.cwnd-n+mss, mss)
		return true
	case g.phase == fastRecovery:
		g.cwnd = g.ssthresh
		g.phase = open
		return false
	case g.phase == timedOut && whole:
		g.phase = open
	}
	if g.cwnd < g.ssthresh {
		g.cwnd += min(n, mss) // slow start, RFC 5681 §3.1 equation 2
	} else {
		g.cwnd += max(mss*mss/g.cwnd, 1) // congestion avoidance, equation 3
	}
	return false
}

// duplicate takes a duplicate ACK. It reports whether the first segment is lost (RFC 5681 §3.2).
func (g *congestion) duplicate(nxt seq.Value, flight, mss int) (lost bool) {
	g.dups++
	switch {
	case g.phase == fastRecovery:
		g.cwnd += mss // a segment has left the network
	case g.phase == open && g.dups == duplicates:
		g.ssthresh = max(flight/2, 2*mss) // equation 4
		g.cwnd = g.ssthresh + duplicates*mss
		g.phase, g.recover = fastRecovery, nxt
		return true
	}
	return false
}

// collapse follows a timeout (RFC 5681 §3.1): the loss window is one segment. Only the first timeout of a segment lowers
// ssthresh.
func (g *congestion) collapse(nxt seq.Value, flight, mss int) {
	if g.phase != timedOut {
		g.ssthresh = max(flight/2, 2*mss)
	}
	g.cwnd = mss
	g.phase, g.recover, g.dups = timedOut, nxt, 0
}

// isDuplicate is the definition of RFC 5681 §2: it acknowledges nothing new while data is outstanding, and says nothing
// else either. It has to be asked before the segment is taken. Answers to window probes look alike but mean no loss.
func (c *Conn) isDuplicate(seg *wire.Segment) bool {
	s := &c.snd
	return s.nxt != s.una && s.wnd > 0 &&
		seg.Ack == s.una && seg.Len() == 0 && uint32(seg.Window)<<c.sndScale() == s.wnd
}
