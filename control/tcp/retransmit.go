package tcp

import (
	"time"

	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// RFC 6298 §2 and RFC 9293 §3.8.3.
const (
	initialRTO = time.Second
	minRTO     = time.Second       // (2.4)
	maxRTO     = 60 * time.Second  // (2.5)
	clockG     = time.Millisecond  // G, the granularity of timestamps
	timeoutR2  = 100 * time.Second // R2: give up when nothing was acknowledged for so long
)

// never stops a timer.
var never time.Time

// rto is the retransmission timeout (RFC 6298).
type rto struct {
	srtt, rttvar time.Duration // zero before the first measurement
	base         time.Duration // RTO without backoff
	backoff      uint          // how often it was doubled
	since        time.Time     // when the wait for the client's acknowledgment began

	timing   bool      // a segment is being timed, for clients without timestamps
	timedEnd seq.Value // its end
	timedAt  time.Time // when it was sent
}

// newRTO is (2.1).
func newRTO() rto { return rto{base: initialRTO} }

// interval is the timeout with backoff, (5.5).
func (r *rto) interval() time.Duration {
	if r.backoff >= 6 { // 2^6 times minRTO is beyond the maximum
		return maxRTO
	}
	return min(r.base<<r.backoff, maxRTO)
}

// startTiming times a segment that ends at end and is sent for the first time, unless another one is being timed.
func (r *rto) startTiming(end seq.Value, now time.Time) {
	if !r.timing {
		r.timing, r.timedEnd, r.timedAt = true, end, now
	}
}

// stopTiming is Karn's algorithm: nothing is measured across a retransmission (RFC 6298 §3).
func (r *rto) stopTiming() { r.timing = false }

// handshakeDone takes the round trip of the handshake, or, if the SYN-ACK was repeated, starts at 3 s (RFC 6298 §5.7).
func (r *rto) handshakeDone(rtt time.Duration) {
	if r.backoff > 0 {
		r.base, r.backoff = lostSYNRTO, 0
		return
	}
	r.sample(rtt)
}

// sample takes a measured round trip, (2.2) and (2.3).
func (r *rto) sample(rtt time.Duration) {
	if r.srtt == 0 {
		r.srtt, r.rttvar = rtt, rtt/2
	} else {
		r.rttvar = (3*r.rttvar + (r.srtt - rtt).Abs()) / 4
		r.srtt = (7*r.srtt + rtt) / 8
	}
	r.base = min(max(r.srtt+max(clockG, 4*r.rttvar), minRTO), maxRTO)
}

// progress notes that something was acknowledged.
func (r *rto) progress() {
	r.backoff = 0
	r.since = never
}

// measure takes the round trip out of an acknowledgment that advances SND.UNA: by its timestamp (which also tells a
// retransmission from the original, RFC 7323 §4.1), else by the segment being timed.
func (c *Conn) measure(seg *wire.Segment) {
	r := &c.snd.rto
	timed := r.timing && !seg.Ack.Before(r.timedEnd)
	if timed {
		r.timing = false
	}
	if rtt, ok := c.echoedRTT(seg); ok {
		r.sample(rtt)
	} else if timed {
		r.sample(c.now.Sub(r.timedAt))
	}
}

// armRetransmit starts the timer if something waits for the client and it is not running, (5.1); else stops it, (5.2).
func (c *Conn) armRetransmit() {
	s := &c.snd
	switch {
	case s.queued() == 0:
		c.timers.retransmit = never
	case c.timers.retransmit.IsZero():
		c.timers.retransmit = c.now.Add(s.interval())
		if s.since.IsZero() {
			s.since = c.now
		}
	}
}

// retransmit is what the timer does, (5.4) to (5.6): it sends the first unacknowledged segment again, or, where the
// client's window forbids everything, a probe of one octet (RFC 9293 §3.8.6.1).
func (c *Conn) retransmit() {
	s := &c.snd
	switch {
	case c.state == SynReceived:
		c.repeatSYN()
		return
	case c.now.Sub(s.since) >= c.patience():
		c.abort(ErrTimeout)
		return
	}
	if s.wnd > 0 && s.nxt != s.una {
		s.collapse(c.mss())
	}
	s.backoff++
	s.rtx = s.una
	c.timers.retransmit = never // flush starts it again
	c.sendNext(true)
}

// patience is R2, or the user timeout (RFC 9293 §3.8.3). Where timeouts are long it has room for three of them: a single
// lost probe of a window that has been shut for long must not end the connection.
func (c *Conn) patience() time.Duration {
	if c.settings.UserTimeout > 0 {
		return c.settings.UserTimeout
	}
	return max(timeoutR2, 3*c.snd.interval())
}

// repeatFirst sends the first unacknowledged segment again, and goes on where sending was.
func (c *Conn) repeatFirst() {
	_, end := c.snd.hole(0)
	c.resend(c.snd.una, seq.Min(end, c.snd.una.Add(max(1, int(c.snd.wnd)))))
}
