package tcp

import (
	"time"

	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// sender is the send sequence space (RFC 9293 §3.3.1), the data in it and the congestion state.
//
//	una               rtx           nxt            una+len(buf)
//	 |--- in flight ---|-- to repeat --|--- not sent ---|  FIN
//	 |------------------------ buf --------------------|
type sender struct {
	una, nxt seq.Value // SND.UNA, SND.NXT
	rtx      seq.Value // next octet to transmit: nxt, except while going back after a timeout
	wnd      uint32    // SND.WND, scaled
	wl1, wl2 seq.Value // SND.WL1, SND.WL2
	maxWnd   uint32    // the largest wnd ever: MAX.SND.WND of RFC 5961, Max(SND.WND) of RFC 9293 §3.8.6.2.1
	buf      []byte    // octets from una on; at the end of what is used of room
	room     []byte    // the memory of buf and of octets that were acknowledged before it
	closing  bool      // a FIN follows buf
	finAcked bool      // and was acknowledged
	pathMSS  uint16    // what ICMP said about the path; 0: nothing
	sentAt   time.Time // when data was last sent

	congestion
	scoreboard
	rto
}

// newSender starts at sequence number first.
func newSender(cfg *Config, first seq.Value) sender {
	s := sender{una: first, nxt: first, rtx: first, wl2: first}
	s.congestion = newCongestion(segmentSize(cfg))
	s.rto = newRTO()
	return s
}

// append puts octets behind buf. What was acknowledged makes room only when there is none behind buf, and not when most of
// the memory is in use: so an octet is moved less than once, however large buf is.
func (s *sender) append(p []byte) {
	if need := len(s.buf) + len(p); need > cap(s.buf) {
		if need > cap(s.room)/2 {
			s.room = make([]byte, 0, 2*need)
		}
		s.buf = append(s.room[:0], s.buf...)
	}
	s.buf = append(s.buf, p...)
}

// acknowledge takes octets off the front of buf; an idle connection keeps no memory.
func (s *sender) acknowledge(n int) {
	if s.buf = s.buf[n:]; len(s.buf) == 0 {
		s.buf, s.room = nil, nil
	}
}

// queued is the unacknowledged sequence space, sent or not.
func (s *sender) queued() int {
	if s.finQueued() {
		return len(s.buf) + 1
	}
	return len(s.buf)
}

// end is the sequence number after everything that was written.
func (s *sender) end() seq.Value {
	end := s.una.Add(len(s.buf))
	if s.finQueued() {
		return end.Add(1)
	}
	return end
}

// finQueued reports whether a FIN follows buf.
func (s *sender) finQueued() bool { return s.closing && !s.finAcked }

// minPayload is the least room for payload that is left beside options, octets. It only matters for clients whose MSS is
// below anything that RFC 9293 knows.
const minPayload = 8

// segmentSize is the most octets of TCP options and payload that a segment may have: Eff.snd.MSS of RFC 9293 §3.7.1
// before the options are taken off. Our own MSS stands for the link.
func segmentSize(cfg *Config) int {
	mss := int(cfg.Handshake.MSS)
	if mss == 0 {
		mss = 536
		if cfg.Inc.Client.Addr().Is6() {
			mss = 1220
		}
	}
	if own := int(cfg.Handshake.OwnMSS); own > 0 {
		mss = min(mss, own)
	}
	return mss
}

// segmentSize is the same, with what is known of the path.
func (c *Conn) segmentSize() int {
	n := segmentSize(&c.cfg)
	if c.snd.pathMSS != 0 {
		n = min(n, int(c.snd.pathMSS))
	}
	return n
}

// mss is the most payload of the next segment: options are paid for out of the MSS (RFC 6691).
func (c *Conn) mss() int {
	o := c.options()
	return max(c.segmentSize()-o.Len(), minPayload)
}

// output sends what the client's window and the congestion window allow.
func (c *Conn) output() {
	c.restart()
	if c.snd.phase == sackRecovery {
		c.outputRecovery()
		return
	}
	for c.sendNext(false) {
	}
}

// sendNext sends the segment at rtx, if there is one to send now; probe overrides the windows.
func (c *Conn) sendNext(probe bool) bool {
	s := &c.snd
	wanted := s.skipHeld()
	offset := s.rtx.Sub(s.una)
	left := len(s.buf) - offset // of text; negative after the FIN
	if left < 0 || left == 0 && !s.finQueued() {
		return false
	}
	window := int(s.wnd) - offset
	room := min(window, s.allowance(c.mss())-offset+s.heldBefore(s.rtx))
	if probe {
		window, room = max(window, 1), max(window, 1)
	}
	n := max(0, min(left, room, wanted, c.mss()))
	fin := s.finQueued() && n == left && window > n
	if n == 0 && !fin || !probe && n < wanted && c.silly(n, left) {
		return false
	}
	at := s.rtx
	s.rtx = c.transmit(at, n, fin)
	return true
}

// silly reports whether a segment of n octets, with left ones waiting, is too small to be sent now: by the sender's side
// of silly window avoidance (RFC 9293 §3.8.6.2.1), and by Nagle's rule (§3.7.4) for users who want it.
func (c *Conn) silly(n, left int) bool {
	s := &c.snd
	if n < left {
		return n < c.mss() && n < int(s.maxWnd)/2
	}
	return c.settings.Nagle && n < c.mss() && s.rtx == s.nxt && s.nxt != s.una && !s.closing
}

// transmit sends n octets from at on, and the FIN after them if asked. It returns where they end.
func (c *Conn) transmit(at seq.Value, n int, fin bool) (end seq.Value) {
	s := &c.snd
	offset := at.Sub(s.una)
	flags := wire.ACK
	if n > 0 && offset+n == len(s.buf) {
		flags |= wire.PSH
	}
	end = at.Add(n)
	if fin {
		flags |= wire.FIN
		end = end.Add(1)
	}
	if at == s.nxt {
		s.startTiming(end, c.now)
	} else {
		s.stopTiming() // Karn: what was sent twice cannot be timed
		s.high = seq.Max(s.high, end)
	}
	c.emit(at, flags, s.buf[offset:offset+n])
	s.sentAt = c.now
	s.nxt = seq.Max(s.nxt, end)
	return end
}

// advance takes an acknowledgment of n > 0 new octets.
func (c *Conn) advance(seg *wire.Segment, n int) {
	s := &c.snd
	c.measure(seg)
	text := min(n, len(s.buf))
	s.acknowledge(text)
	s.finAcked = n > text
	s.una = seg.Ack
	s.rtx = seq.Max(s.rtx, s.una)
	s.drop(s.una)
	s.progress()
	c.soft = nil
	c.timers.retransmit = never // RFC 6298 (5.2) and (5.3): armRetransmit starts it anew if anything is left
	c.repeatNow = s.grow(n, c.mss())
}

// updateWindow is the window update rule of RFC 9293 §3.10.7.4: a reordered older segment must not bring back its window.
// One that advances SND.UNA is never older, though: a retransmission has a new ACK and an old sequence number, and its
// window has to be taken along, or the old one would reach further than the client ever said. (Linux has the same rule.)
func (c *Conn) updateWindow(seg *wire.Segment, advanced bool) {
	s := &c.snd
	if !advanced && (s.wl1.After(seg.Seq) || s.wl1 == seg.Seq && s.wl2.After(seg.Ack)) {
		return
	}
	shut := s.wnd == 0
	s.wnd = uint32(seg.Window) << c.sndScale()
	s.wl1, s.wl2 = seg.Seq, seg.Ack
	s.maxWnd = max(s.maxWnd, s.wnd)
	if !shut {
		return
	}
	s.since = c.now // a client that answers probes may keep its window shut (RFC 9293 §3.8.6.1)
	if s.wnd > 0 {
		s.rtx = s.una // a probe's octet was dropped
		s.backoff = 0
		c.timers.retransmit = never
	}
}

// sndScale is the shift of the windows that the client sends; 0 without scaling.
func (c *Conn) sndScale() uint8 { return c.cfg.Handshake.SndScale }
