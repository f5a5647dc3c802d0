package tcp

import (
	"slices"

	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// maxHeld bounds what is remembered of the client's SACK blocks; what is beyond is sent again needlessly at worst.
const maxHeld = 32

// scoreboard is what the client has said it holds beyond SND.UNA (RFC 6675 §3): disjoint, in order, with gaps between. A
// timeout forgets it all, because the client may have thrown it away (RFC 2018 §8).
//
//	una      held[0]          held[1]           nxt
//	 |--hole-0--[####]--hole-1--[####]--the rest--|
type scoreboard struct {
	held []wire.Block
	high seq.Value // HighRxt: the end of what was sent again in this recovery
}

// note takes the SACK blocks of an acknowledgment of ack. It reports whether one tells of octets that were not known to
// have arrived. What does not lie between ack and SND.NXT is a duplicate (RFC 2883 §4) or nonsense.
func (s *sender) note(o *wire.Options, ack seq.Value) (news bool) {
	for _, b := range o.SACK[:o.NSACK] {
		if b.Left.After(ack) && b.Left.Before(b.Right) && !b.Right.After(s.nxt) && s.hold(b) {
			news = true
		}
	}
	return news
}

// hold adds a range to the scoreboard, and reports whether any of it is new.
func (s *scoreboard) hold(b wire.Block) bool {
	i := 0
	for i < len(s.held) && s.held[i].Right.Before(b.Left) {
		i++
	}
	j := i // [i, j) are those that b touches
	for j < len(s.held) && !s.held[j].Left.After(b.Right) {
		j++
	}
	if j == i+1 && !b.Left.Before(s.held[i].Left) && !b.Right.After(s.held[i].Right) || j == i && len(s.held) == maxHeld {
		return false
	}
	if j > i {
		b.Left, b.Right = seq.Min(b.Left, s.held[i].Left), seq.Max(b.Right, s.held[j-1].Right)
	}
	s.held = slices.Replace(s.held, i, j, b)
	return true
}

// drop forgets what begins before una, or there: a client that holds what it does not acknowledge contradicts itself.
func (s *scoreboard) drop(una seq.Value) {
	n := 0
	for n < len(s.held) && !s.held[n].Left.After(una) {
		n++
	}
	s.held = append(s.held[:0], s.held[n:]...)
}

// hole is the range before held[i], or after all of them.
func (s *sender) hole(i int) (left, right seq.Value) {
	left, right = s.una, s.nxt
	if i > 0 {
		left = s.held[i-1].Right
	}
	if i < len(s.held) {
		right = s.held[i].Left
	}
	return left, right
}

// lost is IsLost of RFC 6675 §4 for a hole: three ranges, or more than two segments, have arrived after it.
func (s *sender) lost(i, mss int) bool {
	after := 0
	for _, b := range s.held[i:] {
		after += b.Right.Sub(b.Left)
	}
	return len(s.held)-i >= duplicates || after > (duplicates-1)*mss
}

// pipe is SetPipe of RFC 6675 §4: how many octets are in the network.
func (s *sender) pipe(mss int) int {
	n := 0
	for i := range len(s.held) + 1 {
		left, right := s.hole(i)
		if !s.lost(i, mss) {
			n += right.Sub(left)
		}
		n += max(0, seq.Min(s.high, right).Sub(left))
	}
	return n
}

// nextHole is what NextSeg of RFC 6675 §4 would send again: by rule 1 of a lost hole, by rule 3 of any before held data.
func (s *sender) nextHole(mss int, lost bool) (at, end seq.Value, ok bool) {
	for i := range s.held {
		left, right := s.hole(i)
		at = seq.Max(left, s.high)
		if at.Before(right) && (!lost || s.lost(i, mss)) {
			return at, right, true
		}
	}
	return 0, 0, false
}

// skipHeld moves rtx over what the client holds, and returns how far it is from there to what it holds next.
func (s *sender) skipHeld() (room int) {
	for _, b := range s.held {
		if s.rtx.Before(b.Left) {
			return b.Left.Sub(s.rtx)
		}
		s.rtx = seq.Max(s.rtx, b.Right)
	}
	return len(s.buf) + 1
}

// heldBefore is how much of what lies before at does not burden the network any more while sending goes back.
func (s *sender) heldBefore(at seq.Value) (n int) {
	for _, b := range s.held {
		if s.phase == timedOut && b.Left.Before(at) {
			n += b.Right.Sub(b.Left)
		}
	}
	return n
}

// outputRecovery is RFC 6675 §5 (C): as long as a segment fits into the network, send lost ones again (rule 1), then new
// ones (rule 2), then doubtful ones (rule 3).
func (c *Conn) outputRecovery() {
	s := &c.snd
	for mss := c.mss(); s.cwnd-s.pipe(mss) >= mss; {
		at, end, ok := s.nextHole(mss, true)
		if !ok && c.sendNext(false) {
			continue
		}
		if !ok {
			at, end, ok = s.nextHole(mss, false)
		}
		if !ok {
			return
		}
		c.resend(at, end)
	}
}

// resend sends one segment of a range again.
func (c *Conn) resend(at, end seq.Value) {
	s := &c.snd
	offset := at.Sub(s.una)
	n := min(len(s.buf)-offset, c.mss(), end.Sub(at))
	c.transmit(at, n, s.finQueued() && at.Add(n).Before(end) && offset+n == len(s.buf))
}
