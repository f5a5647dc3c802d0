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
	fastRecovery              // RFC 6582 §3.2: duplicate ACKs without SACK
	sackRecovery              // RFC 6675 §5
	timedOut                  // going back after a timeout; duplicate ACKs are of our own making then (RFC 6582 §4)
)

// duplicates is how many duplicate ACKs are a loss (RFC 5681 §3.2; DupThresh of RFC 6675 §2).
const duplicates = 3

// congestion is NewReno (RFC 5681, 6582) with the initial window of RFC 6928. Octets.
type congestion struct {
	cwnd, ssthresh int
	phase          phase
	recover        seq.Value // what was SND.NXT at the loss
	dups           int       // duplicate ACKs in a row
}

// initialWindow is IW10 (RFC 6928 §2).
func initialWindow(mss int) int { return min(10*mss, max(2*mss, 14600)) }

// newCongestion is the state before anything was sent.
func newCongestion(mss int) congestion {
	return congestion{cwnd: initialWindow(mss), ssthresh: math.MaxInt32}
}

// allowance is how many octets from SND.UNA on may be under way. The first two duplicate ACKs allow a new segment each
// (limited transmit, RFC 3042 §2). In a recovery with SACK it is the pipe that counts, see outputRecovery.
func (g *congestion) allowance(mss int) int {
	switch {
	case g.phase == sackRecovery:
		return math.MaxInt32
	case g.phase == open && g.dups < duplicates:
		return g.cwnd + g.dups*mss
	}
	return g.cwnd
}

// restart begins anew after a pause of more than a RTO (RFC 5681 §4.1, with the window of RFC 6928): what was learnt about
// the path may not be true any more.
func (c *Conn) restart() {
	s := &c.snd
	if s.nxt == s.una && s.phase == open && !s.sentAt.IsZero() && c.now.Sub(s.sentAt) > s.base {
		s.cwnd = min(s.cwnd, initialWindow(c.segmentSize()))
	}
}

// grow takes n newly acknowledged octets up to una. It reports whether the next segment is lost too: a partial
// acknowledgment (RFC 6582 §3.2 step 3), with SACK unless that segment was sent again already.
func (s *sender) grow(n int, mss int) (lost bool) {
	s.dups = 0
	whole := !s.una.Before(s.recover)
	switch {
	case s.phase == fastRecovery && !whole:
		s.cwnd = max(s.cwnd-n+mss, mss)
		return true
	case s.phase == sackRecovery && !whole:
		return !s.high.After(s.una)
	case s.phase == fastRecovery, s.phase == sackRecovery:
		s.cwnd = s.ssthresh
		s.phase = open
		return false
	case s.phase == timedOut && whole:
		s.phase = open
	}
	if s.cwnd < s.ssthresh {
		s.cwnd += min(n, mss) // slow start, RFC 5681 §3.1 equation 2
	} else {
		s.cwnd += max(mss*mss/s.cwnd, 1) // congestion avoidance, equation 3
	}
	return false
}

// duplicate takes a duplicate ACK. It reports whether the first segment is lost (RFC 5681 §3.2, RFC 6675 §5).
func (s *sender) duplicate(mss int) (lost bool) {
	s.dups++
	switch {
	case s.phase == fastRecovery:
		s.cwnd += mss // a segment has left the network
	case s.phase == open && (s.dups == duplicates || s.lost(0, mss)):
		s.recoverFrom(mss)
		return true
	}
	return false
}

// recoverFrom starts a fast recovery. What limited transmit sent is no part of the flight (RFC 5681 §3.2 step 2).
func (s *sender) recoverFrom(mss int) {
	s.ssthresh = max(min(s.nxt.Sub(s.una), s.cwnd)/2, 2*mss) // equation 4
	s.cwnd = s.ssthresh
	s.phase, s.recover, s.high = sackRecovery, s.nxt, s.una
	if len(s.held) == 0 {
		s.phase = fastRecovery
		s.cwnd += duplicates * mss
	}
}

// collapse follows a timeout (RFC 5681 §3.1): the loss window is one segment. Only the first timeout of a segment lowers
// ssthresh.
func (s *sender) collapse(mss int) {
	if s.phase != timedOut {
		s.ssthresh = max(s.nxt.Sub(s.una)/2, 2*mss)
	}
	s.goBack()
	s.cwnd = mss
	s.held = s.held[:0]
}

// goBack sends everything under way again.
func (s *sender) goBack() {
	if s.phase == fastRecovery {
		s.cwnd = s.ssthresh // without what duplicate ACKs had added
	}
	s.rtx = s.una
	s.phase, s.recover, s.dups = timedOut, s.nxt, 0
}

// isDuplicate is the definition of RFC 5681 §2: it acknowledges nothing new while data is outstanding, and says nothing
// else either. It has to be asked before the segment is taken. Answers to window probes look alike but mean no loss.
func (c *Conn) isDuplicate(seg *wire.Segment) bool {
	s := &c.snd
	return s.nxt != s.una && s.wnd > 0 &&
		seg.Ack == s.una && seg.Len() == 0 && uint32(seg.Window)<<c.sndScale() == s.wnd
}
