package tcp

import (
	"fmt"
	"time"

	"baton/fastpath/wire"
)

// minMTU is the least path MTU that is believed, octets: RFC 1191 §3 and RFC 8201 §4.
const (
	minMTU4 = 68
	minMTU6 = 1280
)

// plateaus are what to try when a router does not say its MTU (RFC 1191 §7.1).
var plateaus = [...]int{32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, minMTU4}

// ICMP takes an error about a segment that was sent (RFC 5927). It must quote a sequence number under way, or it is
// forged or late, and ignored (§4.1). Frozen connections ignore it too: the router in between will say so again.
func (c *Conn) ICMP(e wire.ICMPError, now time.Time) Actions {
	c.begin(now)
	switch {
	case c.state == Closed, c.frozen, !c.quotes(e):
	case e.Kind == wire.TooBig:
		c.tooBig(e.MTU)
	case c.state == SynReceived && e.Kind == wire.Hard:
		c.becomeClosed(fmt.Errorf("%w: %s", ErrUnreachable, e.Detail()))
	default: // in the synchronized states a hard error is as soft as the others (RFC 5927 §5.2)
		c.soft = fmt.Errorf("%w: %s", ErrUnreachable, e.Detail())
	}
	return c.flush()
}

// quotes reports whether an error is about something under way: SND.UNA =< SEQ < SND.NXT.
func (c *Conn) quotes(e wire.ICMPError) bool {
	if c.state == SynReceived {
		return e.Seq == c.cfg.Inc.ISS
	}
	return !e.Seq.Before(c.snd.una) && e.Seq.Before(c.snd.nxt)
}

// tooBig lowers the segment size to what the path takes, and sends what is under way again at once: nothing of it was lost
// to congestion, so the windows stay (RFC 1191 §6.4). An MTU that is no less than ours says nothing new.
func (c *Conn) tooBig(mtu int) {
	s, headers, least := &c.snd, 40, minMTU4
	if c.cfg.Inc.Client.Addr().Is6() {
		headers, least = 60, minMTU6
	}
	size := c.segmentSize()
	if mtu == 0 {
		mtu = plateauBelow(size + headers)
	}
	if mss := max(mtu, least) - headers; mss < size {
		s.pathMSS = uint16(mss)
		s.goBack()
		c.timers.retransmit = never
	}
}

// plateauBelow is the next plateau below an MTU.
func plateauBelow(mtu int) int {
	for _, p := range plateaus {
		if p < mtu {
			return p
		}
	}
	return minMTU4
}
