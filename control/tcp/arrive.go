package tcp

import "baton/fastpath/wire"

// arrives is SEGMENT ARRIVES in all states but CLOSED and LISTEN (RFC 9293 §3.10.7.4), the checks in the RFC's order. Each check
// says whether to go on. The third (security and precedence) is obsolete, and the sixth (URG) does nothing: urgent data is
// read in line.
func (c *Conn) arrives(seg *wire.Segment) {
	switch {
	case c.repeatsSYN(seg):
	case c.reopens(seg):
	case !c.checkTimestamps(seg): // RFC 7323 §5.3 puts PAWS before everything else
	case !c.checkSequence(seg): // first, check sequence number
	case !c.checkReset(seg): // second, check the RST bit
	case !c.checkSYN(seg): // fourth, check the SYN bit
	case !c.checkACK(seg): // fifth, check the ACK field
	default:
		c.text(seg) // seventh, process the segment text, and eighth, check the FIN bit
	}
}

// checkSequence is the first check. At a zero window nothing with text is acceptable, but the ACK and RST of a segment
// that is exactly the next one still count.
func (c *Conn) checkSequence(seg *wire.Segment) bool {
	switch {
	case c.acceptable(seg):
		return true
	case c.rcv.window() == 0 && seg.Seq == c.rcv.nxt:
		seg.Payload = nil
		seg.Flags &^= wire.FIN
		c.ackNow = true
		return true
	case !seg.Flags.Has(wire.RST):
		c.ackOutOfOrder(seg)
	}
	return false
}

// acceptable is the test of RFC 9293 §3.4 (table 6), four cases. The window is what lies below the highest edge announced.
func (c *Conn) acceptable(seg *wire.Segment) bool {
	n, window := seg.Len(), c.rcv.window()
	switch {
	case n == 0 && window == 0:
		return seg.Seq == c.rcv.nxt
	case n == 0:
		return seg.Seq.InWindow(c.rcv.nxt, window)
	case window == 0:
		return false
	default:
		return seg.Seq.InWindow(c.rcv.nxt, window) || seg.Seq.Add(n-1).InWindow(c.rcv.nxt, window)
	}
}

// ackOutOfOrder answers a segment that is not acceptable with an ACK. Empty ones could be half of a loop of ACKs, so they
// are answered at a limited rate.
func (c *Conn) ackOutOfOrder(seg *wire.Segment) {
	if seg.Len() > 0 && !seg.Flags.Has(wire.SYN) {
		if len(seg.Payload) > 0 && seg.Seq.Before(c.rcv.nxt) {
			c.rcv.noteDuplicate(seg)
		}
		c.ackNow = true
		return
	}
	c.challenge()
}

// challenge sends a challenge ACK, unless one went out just now (RFC 5961 §7).
func (c *Conn) challenge() {
	if !c.challenged.IsZero() && c.now.Sub(c.challenged) < challengeInterval {
		return
	}
	c.challenged = c.now
	c.ackNow = true
}

// checkReset is the second check. Only the exact sequence number resets, because a blind attacker can guess one in the
// window (RFC 5961 §3.2).
func (c *Conn) checkReset(seg *wire.Segment) bool {
	switch {
	case !seg.Flags.Has(wire.RST):
		return true
	case seg.Seq != c.rcv.nxt:
		c.challenge()
	case c.state == TimeWait:
		c.becomeClosed(nil)
	default:
		c.becomeClosed(ErrReset)
	}
	return false
}

// checkSYN is the fourth check: a SYN is never right here. A client that really restarted answers the challenge ACK with
// a RST (RFC 5961 §4.2). SYN-RECEIVED goes back to LISTEN (RFC 9293 §3.10.7.4: ours was a passive OPEN).
func (c *Conn) checkSYN(seg *wire.Segment) bool {
	switch {
	case !seg.Flags.Has(wire.SYN):
		return true
	case c.state == SynReceived:
		c.becomeClosed(ErrReset)
	default:
		c.challenge()
	}
	return false
}

// reopens is the SYN of a new connection in TIME-WAIT: it is believed if its sequence number, or its timestamp, is later
// than all of this one (RFC 9293 §3.10.7.4 and RFC 6191 §2). Whatever else comes with it is as wrong as ever.
func (c *Conn) reopens(seg *wire.Segment) bool {
	if c.state != TimeWait || seg.Flags&(wire.SYN|wire.ACK|wire.RST) != wire.SYN || c.frozen {
		return false
	}
	o := &seg.Options
	later := c.cfg.Handshake.Timestamps && o.HasTimestamps && c.recentValid() && beforeTS(c.ts.recent, o.TSVal)
	if !later && !seg.Seq.After(c.rcv.nxt) {
		return false
	}
	c.becomeClosed(nil)
	c.reopen = true
	return true
}

// checkACK is the fifth check. Acknowledgments that are too old or of what was never sent are answered and dropped whole
// (RFC 5961 §5.2).
func (c *Conn) checkACK(seg *wire.Segment) bool {
	switch {
	case !seg.Flags.Has(wire.ACK):
		return false
	case c.state == SynReceived && !c.acknowledgesSYN(seg):
		return false
	case !seg.Ack.Between(c.snd.una.Add(-int(c.snd.maxWnd)), c.snd.nxt):
		c.challenge()
		return false
	}
	c.updateRecent(seg)
	if !seg.Ack.Before(c.snd.una) {
		c.acknowledged(seg)
	}
	return c.state != Closed
}

// acknowledged takes an acknowledgment with SND.UNA =< SEG.ACK =< SND.NXT, and moves on the states that wait for the one
// of our FIN.
func (c *Conn) acknowledged(seg *wire.Segment) {
	duplicate := c.isDuplicate(seg)
	news := c.cfg.Handshake.SACK && c.snd.note(&seg.Options, seg.Ack)
	n := seg.Ack.Sub(c.snd.una)
	switch {
	case n > 0:
		c.advance(seg, n)
	case news, duplicate && len(c.snd.held) == 0: // RFC 6675 §2, or RFC 5681 §2 without SACK
		c.repeatNow = c.snd.duplicate(c.mss())
	}
	c.updateWindow(seg, n > 0)
	if !c.snd.finAcked {
		return
	}
	switch c.state {
	case FinWait1:
		c.becomeFinWait2()
	case Closing:
		c.becomeTimeWait()
	case LastAck:
		c.becomeClosed(nil)
	default: // the others do not wait for it
	}
}

// text is the seventh and the eighth step: text and FIN go into the receive buffer together, because both can come
// out of order. Past the client's FIN there is no text.
func (c *Conn) text(seg *wire.Segment) {
	r := &c.rcv
	if !c.state.receives() || len(seg.Payload) == 0 && !seg.Flags.Has(wire.FIN) {
		return
	}
	if r.reader == refuses && seg.Seq.Add(len(seg.Payload)).After(r.nxt) && len(seg.Payload) > 0 {
		c.abort(ErrAborted) // RFC 9293 §3.6.1
		return
	}
	before, gaps := r.nxt, len(r.gaps)
	r.noteDuplicate(seg)
	r.add(seg)
	switch {
	case r.nxt == before || r.reader != reads: // a gap before it (RFC 5681 §4.2), or no reader
		c.ackNow = true
	case c.autoACK && (gaps > 0 || r.finished() || r.waiting > 0):
		c.ackNow = true // every second segment, and what closes a gap
	default:
		r.waiting++
		c.owe()
	}
	c.linger()
	if r.reader == discards {
		c.consume(len(r.data()))
	}
	if r.finished() {
		c.finArrived()
	}
}

// linger prolongs FIN-WAIT-2 for a client that is still sending.
func (c *Conn) linger() {
	if c.state != FinWait2 || c.rcv.reader != discards {
		return
	}
	c.timers.end = c.now.Add(lingerIdle)
	if c.lingerUntil.Before(c.timers.end) {
		c.timers.end = c.lingerUntil
	}
}

// finArrived is the eighth step, once everything before the FIN has arrived.
func (c *Conn) finArrived() {
	switch c.state {
	case Established:
		c.becomeCloseWait()
	case FinWait1: // our FIN is not acknowledged yet, else this would be FIN-WAIT-2
		c.becomeClosing()
	default:
		c.becomeTimeWait()
	}
}
