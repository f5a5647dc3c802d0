package tcp

import (
	"time"

	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

const (
	// recentLifetime is how long TS.Recent is good for (RFC 7323 §5.5): afterwards the client's clock may have wrapped.
	recentLifetime = 24 * 24 * time.Hour
	// clockSkew is how far an echoed timestamp may lie ahead of our clock and still be ours, ms: the forwarder sent the
	// SYN-ACK by its own reading of the clock, or the clock was set back since.
	clockSkew = 1000
)

// timestamps is the state of RFC 7323. Both numbers are compared as sequence numbers are.
type timestamps struct {
	last   uint32    // the highest TSval sent
	recent uint32    // TS.Recent
	seen   time.Time // when recent was set; zero: never
}

// clock is what TSval would be by the clock alone.
func (c *Conn) clock() uint32 { return uint32(c.now.UnixMilli()) + c.cfg.TSOffset }

// tsval is our TSval now. It never goes back, also when the clock is set back: the client would drop everything (PAWS).
func (c *Conn) tsval() uint32 { return laterTS(c.ts.last, c.clock()) }

// laterTS returns the later of two timestamps.
func laterTS(a, b uint32) uint32 { return uint32(seq.Max(seq.Value(a), seq.Value(b))) }

// beforeTS reports whether a is before b.
func beforeTS(a, b uint32) bool { return seq.Value(a).Before(seq.Value(b)) }

// checkTimestamps is PAWS (RFC 7323 §5.3, R1), and drops segments that lack the option (§3.2). RST is exempt from both; so
// is SYN, which only ever gets a challenge ACK.
func (c *Conn) checkTimestamps(seg *wire.Segment) bool {
	switch {
	case !c.cfg.Handshake.Timestamps, seg.Flags&(wire.RST|wire.SYN) != 0:
		return true
	case !seg.Options.HasTimestamps:
		return false
	case c.recentValid() && beforeTS(seg.Options.TSVal, c.ts.recent):
		c.ackOutOfOrder(seg)
		return false
	}
	return true
}

// recentValid reports whether TS.Recent can be compared with.
func (c *Conn) recentValid() bool {
	return !c.ts.seen.IsZero() && c.now.Sub(c.ts.seen) < recentLifetime
}

// updateRecent takes a segment's timestamp for the next echo if the segment begins at or before the last acknowledgment
// sent (RFC 7323 §4.3 and §5.3, R3): under delayed ACKs the oldest is echoed, so that the client's RTT includes the delay.
func (c *Conn) updateRecent(seg *wire.Segment) {
	if !c.cfg.Handshake.Timestamps {
		return
	}
	o := &seg.Options
	if o.HasTimestamps && c.ts.seen.IsZero() && c.ts.recent == 0 {
		// The SYN's is lost with a SYN cookie, and this segment is not the first one that was sent. It is good for the
		// echo that each segment must have, not for comparing with.
		c.ts.recent = o.TSVal
	}
	if o.HasTimestamps && !seg.Seq.After(c.rcv.acked) && (!c.recentValid() || !beforeTS(o.TSVal, c.ts.recent)) {
		c.ts.recent, c.ts.seen = o.TSVal, c.now
	}
	if ahead := o.TSEcr - c.clock(); ahead > 0 && ahead <= clockSkew {
		c.ts.last = laterTS(c.ts.last, o.TSEcr)
	}
}

// echoedRTT is the round trip that an echoed timestamp shows (RFC 7323 §4.1); ok is false without a believable one.
func (c *Conn) echoedRTT(seg *wire.Segment) (rtt time.Duration, ok bool) {
	if !c.cfg.Handshake.Timestamps || !seg.Options.HasTimestamps {
		return 0, false
	}
	ms := c.tsval() - seg.Options.TSEcr
	return time.Duration(ms) * time.Millisecond, ms < uint32(maxRTO/time.Millisecond)
}
