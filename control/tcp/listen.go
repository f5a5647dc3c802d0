package tcp

import (
	"time"

	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// Initial round trips of a handshake (RFC 6298).
const (
	// synRetries is how often a SYN-ACK is repeated: with backoff for 63 s, as Linux's tcp_synack_retries of 5. A caller
	// that must bound its half-open connections ends them sooner with Abort.
	synRetries = 5
	// lostSYNRTO is the RTO of a connection whose SYN-ACK had to be repeated (RFC 6298 §5.7).
	lostSYNRTO = 3 * time.Second
)

// Listener is the LISTEN state (RFC 9293 §3.10.7.2): what we offer to clients whose SYN is not answered with a cookie,
// because their server speaks first. The zero value of everything but Window is valid.
type Listener struct {
	MSS       uint16 // ours, octets
	Scale     uint8  // of the windows that we send, if the client scales
	Window    uint32 // W, as in Config
	Announced uint32 // the window of the SYN-ACK, as in Config
}

// Reset is the answer of the CLOSED state (RFC 9293 §3.10.7.1) to a segment: the RST, or false for a RST, which is never
// answered. The forwarder sends none for unknown segments; this is for ports of one's own on which nobody listens.
func Reset(seg wire.Segment) (wire.Segment, bool) {
	switch {
	case seg.Flags.Has(wire.RST):
		return wire.Segment{}, false
	case seg.Flags.Has(wire.ACK):
		return wire.Segment{Seq: seg.Ack, Flags: wire.RST}, true
	}
	return wire.Segment{Ack: seg.Seq.Add(seg.Len()), Flags: wire.RST | wire.ACK}, true
}

// Segment takes a segment of a tuple that has no connection, the checks in the order of RFC 9293 §3.10.7.2. A SYN makes
// a Conn in SYN-RECEIVED with the initial sequence number iss, and the Actions have its SYN-ACK; else the Conn is nil.
// Data and FIN on a SYN are left to the client to repeat: they are neither kept nor acknowledged (so a cookie-less
// TCP Fast Open, RFC 7413, is declined, as is ECN, RFC 3168 §6.1.1, by an answer without ECE).
func (l *Listener) Segment(t wire.Tuple, seg wire.Segment, iss seq.Value, tsOffset uint32,
	now time.Time) (*Conn, Actions) {
	switch {
	case seg.Flags.Has(wire.RST): // first, check for a RST
		return nil, Actions{}
	case seg.Flags.Has(wire.ACK): // second, check for an ACK
		rst, _ := Reset(seg)
		return nil, Actions{Segments: []wire.Segment{rst}}
	case !seg.Flags.Has(wire.SYN): // third, check for a SYN; fourth, other data or control
		return nil, Actions{}
	}
	cfg := Config{
		Inc:       wire.Incarnation{Tuple: t, IRS: seg.Seq, ISS: iss},
		Handshake: l.agree(&seg.Options), TSOffset: tsOffset, Window: l.Window, Announced: l.Announced,
	}
	c := Accept(cfg, now)
	c.state = SynReceived
	c.opened = now
	if cfg.Handshake.Timestamps {
		c.ts.recent, c.ts.seen = seg.Options.TSVal, now
	}
	c.synNow = true
	return c, c.flush()
}

// agree is what both sides offer.
func (l *Listener) agree(o *wire.Options) wire.Handshake {
	h := wire.Handshake{MSS: o.MSS, OwnMSS: l.MSS, SACK: o.SACKPermitted, Timestamps: o.HasTimestamps}
	if o.HasScale { // RFC 7323 §2.2: only if both say so
		h.Scaling, h.SndScale, h.RcvScale = true, min(o.Scale, maxScale), min(l.Scale, maxScale)
	}
	return h
}

// emitSYN sends the SYN-ACK, the same each time. Its window is never scaled (RFC 7323 §2.2).
func (c *Conn) emitSYN() {
	h := &c.cfg.Handshake
	o := wire.Options{MSS: c.ownMSS(), SACKPermitted: h.SACK, Scale: c.rcvScale(), HasScale: h.Scaling}
	if h.Timestamps {
		o.HasTimestamps, o.TSVal, o.TSEcr = true, c.tsval(), c.ts.recent
	}
	c.put(wire.Segment{Seq: c.cfg.Inc.ISS, Flags: wire.SYN | wire.ACK, Options: o,
		Window: uint16(min(c.rcv.window(), 0xffff))})
}

// repeatSYN is the timer's work in SYN-RECEIVED.
func (c *Conn) repeatSYN() {
	if c.snd.backoff >= synRetries {
		c.becomeClosed(c.failure(ErrTimeout))
		return
	}
	c.snd.backoff++
	c.timers.retransmit = c.now.Add(c.snd.interval())
	c.synNow = true
}

// repeatsSYN answers the client's SYN, arriving again because our SYN-ACK was lost, with the same SYN-ACK.
func (c *Conn) repeatsSYN(seg *wire.Segment) bool {
	if c.state != SynReceived || seg.Flags&(wire.SYN|wire.ACK|wire.RST) != wire.SYN || seg.Seq != c.cfg.Inc.IRS {
		return false
	}
	c.synNow = true
	return true
}

// acknowledgesSYN is the fifth check in SYN-RECEIVED: SND.UNA < SEG.ACK =< SND.NXT, and only our SYN is under way.
// Anything else is of another connection and gets a RST (RFC 9293 §3.10.7.4).
func (c *Conn) acknowledgesSYN(seg *wire.Segment) bool {
	if seg.Ack != c.snd.una {
		if !c.frozen {
			c.put(wire.Segment{Seq: seg.Ack, Flags: wire.RST})
		}
		return false
	}
	c.becomeEstablished()
	return true
}
