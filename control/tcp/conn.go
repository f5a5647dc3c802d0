package tcp

import (
	"errors"
	"fmt"
	"time"

	"baton/control/transfer"
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// Why a connection ended other than by two FINs.
var (
	ErrReset       = errors.New("connection reset by the client")
	ErrTimeout     = errors.New("client does not answer")
	ErrAborted     = errors.New("connection aborted")
	ErrUnreachable = errors.New("client is unreachable") // with ErrTimeout, or alone in SYN-RECEIVED
)

// How long things take.
const (
	// delayedACK is how long in-order data waits for the router's verdict at most; RFC 9293 §3.8.6.3 allows 500 ms, Linux
	// takes 40.
	delayedACK = 40 * time.Millisecond
	// challengeInterval is the least time between two challenge ACKs (RFC 5961 §7); Linux: tcp_invalid_ratelimit.
	challengeInterval = 500 * time.Millisecond
	// closeTimeout bounds FIN-WAIT-1, CLOSING and LAST-ACK once the application has left, also for a client that keeps
	// its window shut, and FIN-WAIT-2 after Close; Linux: tcp_fin_timeout.
	closeTimeout = 60 * time.Second
	// lingerIdle and lingerTotal bound FIN-WAIT-2 after Linger, as nginx's lingering_timeout and lingering_time do.
	lingerIdle  = 5 * time.Second
	lingerTotal = 30 * time.Second
	// timeWait is long enough to answer a retransmitted FIN. The 2 MSL of RFC 9293 §3.4.2 also keep a port from being
	// reused too early; here a SYN cookie starts a new incarnation, and that is the forwarder's decision.
	timeWait = 2 * time.Second
)

// Config is what the forwarder knows about a connection when its cookie has come back.
type Config struct {
	Inc       wire.Incarnation
	Handshake wire.Handshake
	TSOffset  uint32 // our TSval = wall clock in ms + TSOffset, mod 2^32
	Window    uint32 // W, octets, at least 4 units of the window scale
	// Announced is the window of the SYN-ACK, octets; 0: W, or 65535 if that is less. With FirstWindow(W, scale) the right
	// edge never goes back, not even by the rounding of scaled windows.
	Announced uint32
}

// announced is the window of the SYN-ACK, which is never scaled (RFC 7323 §2.2).
func (cfg *Config) announced() int {
	if cfg.Announced != 0 {
		return int(cfg.Announced)
	}
	return int(min(cfg.Window, 0xffff))
}

// Actions is what a call asks its caller to do. It is valid until the next call of the same Conn.
type Actions struct {
	Segments []wire.Segment // to send, in this order
	Closed   bool           // the connection is in CLOSED; Err says why
	// Reopen: TIME-WAIT ended because of the SYN that was just given to Segment. It may go to a Listener now, whose initial
	// sequence number must lie beyond all that this connection has sent (RFC 9293 §3.10.7.4, RFC 6191).
	Reopen bool
}

// Conn is one connection. It is not safe for concurrent use.
type Conn struct {
	cfg      Config
	settings transfer.Settings
	state    State
	err      error
	soft     error // what ICMP said last; nil again when something is acknowledged
	given    given // by the owner before; zero: it began here

	snd sender
	rcv receiver
	ts  timestamps

	now         time.Time // of the running call; while frozen, of the freeze
	opened      time.Time // when the SYN arrived, for SYN-RECEIVED
	timers      timers
	lingerUntil time.Time
	challenged  time.Time // when the last challenge ACK went out
	heard       time.Time // when the client was last heard of
	probes      uint8     // keepalive probes since then
	autoACK     bool      // acknowledge as RFC 9293 §3.8.6.3 says, without a caller that inspects first

	synNow    bool // send the SYN-ACK in this call
	ackNow    bool // send an ACK in this call
	repeatNow bool // send the first unacknowledged segment again in this call
	reopen    bool // TIME-WAIT ends for a new SYN in this call
	frozen    bool // send nothing
	exported  bool // a record is out: the state must not change any more
	out       []wire.Segment
}

// timers are the times at which something is due; zero: never.
type timers struct {
	ack        time.Time // the delayed ACK
	retransmit time.Time // retransmission or window probe
	keepalive  time.Time // the next keepalive probe
	end        time.Time // the end of waiting for the other side
}

// Accept makes the Conn of a connection whose handshake is done. The segment that brought the cookie back is yet to be
// given to Segment.
func Accept(cfg Config, now time.Time) *Conn {
	h := &cfg.Handshake
	h.SndScale, h.RcvScale = min(h.SndScale, maxScale), min(h.RcvScale, maxScale)
	if !h.Scaling {
		h.SndScale, h.RcvScale = 0, 0
	}
	first := cfg.Inc.IRS.Add(1)
	c := &Conn{cfg: cfg, state: Established, now: now, heard: now}
	c.snd = newSender(&c.cfg, cfg.Inc.ISS.Add(1))
	c.snd.wl1 = cfg.Inc.IRS // older than any segment: the first one sets SND.WND
	c.rcv = receiver{
		read: first, nxt: first, acked: first,
		limit: first.Add(int(cfg.Window)),
		edge:  first.Add(c.cfg.announced()),
	}
	c.ts.last = c.clock()
	return c
}

// Segment takes a segment that arrived from the client. Its payload is copied.
func (c *Conn) Segment(seg wire.Segment, now time.Time) Actions {
	c.begin(now)
	if c.state != Closed && !c.exported {
		c.heard, c.probes = c.now, 0
		c.arrives(&seg)
	}
	return c.flush()
}

// Tick does what is due. It may be called at any time.
func (c *Conn) Tick(now time.Time) Actions {
	c.begin(now)
	if c.frozen {
		return c.flush()
	}
	if due(c.timers.ack, now) {
		c.ackNow = true
	}
	if due(c.timers.retransmit, now) {
		c.retransmit()
	}
	if due(c.timers.keepalive, now) {
		c.keepalive()
	}
	if due(c.timers.end, now) {
		c.endOfWait()
	}
	return c.flush()
}

// due reports whether a timer has run out.
func due(t, now time.Time) bool { return !t.IsZero() && !t.After(now) }

// endOfWait gives up on a client that does not close. Before our FIN is acknowledged that is an abort; afterwards the
// response has arrived, and a RST would only do harm.
func (c *Conn) endOfWait() {
	if c.state == FinWait2 || c.state == TimeWait {
		c.becomeClosed(nil)
		return
	}
	c.abort(ErrTimeout)
}

// Deadline returns when Tick has to be called next; zero: no need.
func (c *Conn) Deadline() time.Time {
	var first time.Time
	if c.frozen {
		return first
	}
	for _, t := range [...]time.Time{c.timers.ack, c.timers.retransmit, c.timers.keepalive, c.timers.end} {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}

// Peek returns all data that was received in order and not consumed. It aliases the Conn's memory and is valid until the
// next Receive or Segment.
func (c *Conn) Peek() []byte { return c.rcv.data() }

// Receive consumes n octets; more than Peek returns is the caller's mistake and panics. It moves the window: from now on
// the next owner need not read them.
func (c *Conn) Receive(n int) {
	if n > len(c.rcv.data()) {
		panic(fmt.Sprintf("tcp: %d octets consumed of %d", n, len(c.rcv.data())))
	}
	c.consume(n)
}

// EOF reports whether the client has sent its FIN and all data before it has arrived.
func (c *Conn) EOF() bool { return c.rcv.finished() }

// AckNow sends the acknowledgment that is owed, if any.
func (c *Conn) AckNow(now time.Time) Actions {
	c.begin(now)
	c.ackNow = !c.timers.ack.IsZero()
	return c.flush()
}

// Write queues p (copied) for the client and sends what the windows allow. It is ignored after CloseWrite and in CLOSED.
func (c *Conn) Write(p []byte, now time.Time) Actions {
	c.begin(now)
	if c.state.sends() {
		c.snd.append(p)
	}
	return c.flush()
}

// Queued returns how many octets of the sequence space (a FIN is one) the client has not acknowledged, sent or not.
func (c *Conn) Queued() int { return c.snd.queued() }

// Configure changes what the connection's user may choose. A new connection has the zero Settings.
func (c *Conn) Configure(s transfer.Settings, now time.Time) Actions {
	c.begin(now)
	c.settings = s
	return c.flush()
}

// Settings returns what Configure was told, or the record said.
func (c *Conn) Settings() transfer.Settings { return c.settings }

// AutoACK makes Segment acknowledge data as RFC 9293 §3.8.6.3 and RFC 5681 §4.2 say: every second segment at once, and
// one that closes a gap or brings a FIN. For owners that read everything in the end; it does not go along with a transfer.
func (c *Conn) AutoACK(on bool) { c.autoACK = on }

// CloseWrite sends a FIN after everything queued: a half-close. Reading goes on until EOF (RFC 9293 §3.6).
func (c *Conn) CloseWrite(now time.Time) Actions {
	c.begin(now)
	c.closeWrite()
	return c.flush()
}

// closeWrite is the CLOSE of RFC 9293 §3.10.4. In SYN-RECEIVED it waits for ESTABLISHED.
func (c *Conn) closeWrite() {
	switch c.state {
	case SynReceived:
		c.snd.closing = true
	case Established:
		c.becomeFinWait1()
	case CloseWait:
		c.becomeLastAck()
	default: // it was closed before
	}
}

// Linger sends a FIN after everything queued, and ends the conversation in peace: what was not consumed is dropped, and
// what the client still sends is acknowledged and dropped until it closes too or has had its time, because a RST could
// overtake the last response and destroy it (RFC 2525 §2.17, RFC 9112 §9.6).
func (c *Conn) Linger(now time.Time) Actions {
	c.begin(now)
	c.leave(discards)
	return c.flush()
}

// Close sends a FIN after everything queued, and nobody reads any more. If something was not consumed, or arrives later,
// the connection is reset, so that the client learns that it was not read (RFC 9293 §3.6.1, RFC 2525 §2.17).
func (c *Conn) Close(now time.Time) Actions {
	c.begin(now)
	if c.state != Closed && len(c.rcv.data()) > 0 {
		c.abort(ErrAborted)
		return c.flush()
	}
	c.leave(refuses)
	return c.flush()
}

// leave ends the reading side as how says, and closes the sending side.
func (c *Conn) leave(how reader) {
	if c.state == Closed || c.rcv.reader != reads {
		return
	}
	c.rcv.reader = how
	if c.state.sends() {
		c.closeWrite()
	} else if c.state != TimeWait {
		c.boundWait()
	}
	if how == discards {
		c.consume(len(c.rcv.data()))
	}
}

// Abort ends the connection with a RST (RFC 9293 §3.10.5). A frozen one ends silently: it may have another owner already.
func (c *Conn) Abort(now time.Time) Actions {
	c.begin(now)
	if c.state != Closed {
		c.abort(ErrAborted)
	}
	return c.flush()
}

// Disown ends a frozen connection with a RST. It is for one whose new owner cannot be heard: the RST ends the connection if
// nobody has it, or if its owner has said nothing yet.
func (c *Conn) Disown(now time.Time) Actions {
	c.frozen = false
	return c.Abort(now)
}

// abort sends a RST and closes.
func (c *Conn) abort(err error) {
	if !c.frozen && c.state != TimeWait { // in TIME-WAIT both sides are done
		c.emit(c.snd.nxt, wire.RST|wire.ACK, nil)
	}
	c.becomeClosed(c.failure(err))
}

// failure adds to a timeout what ICMP said about it (RFC 5927 §4.1: a soft error is reported only in the end).
func (c *Conn) failure(err error) error {
	if c.soft != nil && errors.Is(err, ErrTimeout) {
		return fmt.Errorf("%w: %w", err, c.soft)
	}
	return err
}

// State returns the state.
func (c *Conn) State() State { return c.state }

// Err says why the connection is in CLOSED: nil for an orderly end, else ErrReset, ErrTimeout or ErrAborted.
func (c *Conn) Err() error { return c.err }

// begin starts a call. Time never goes back, whatever the caller says, and stands still while the connection is frozen.
func (c *Conn) begin(now time.Time) {
	if !c.frozen && now.After(c.now) {
		c.now = now
	}
	c.out = c.out[:0]
	c.synNow, c.ackNow, c.repeatNow, c.reopen = false, false, false, false
}

// flush ends a call: it sends what is to be sent and says what happened.
func (c *Conn) flush() Actions {
	switch {
	case c.state == Closed:
	case c.frozen: // what is missing now is made up for by Thaw and the client's retransmission
	case c.state == SynReceived:
		c.flushSYN()
	default:
		if c.ackNow {
			c.emit(c.snd.nxt, wire.ACK, nil)
		}
		if c.repeatNow {
			c.repeatFirst()
		}
		c.output()
		c.armRetransmit()
		c.armKeepalive()
	}
	return Actions{Segments: c.out, Closed: c.state == Closed, Reopen: c.reopen}
}

// flushSYN is flush before our SYN is acknowledged: nothing else is sent yet.
func (c *Conn) flushSYN() {
	switch {
	case c.synNow:
		c.emitSYN()
	case c.ackNow:
		c.emit(c.snd.nxt, wire.ACK, nil)
	}
	if c.timers.retransmit.IsZero() {
		c.timers.retransmit = c.now.Add(c.snd.interval())
	}
}

// emit makes a segment that carries the newest acknowledgment, window and timestamps.
func (c *Conn) emit(at seq.Value, flags wire.Flags, payload []byte) {
	c.put(wire.Segment{
		Seq:     at,
		Ack:     c.rcv.nxt,
		Flags:   flags,
		Window:  c.announce(),
		Options: c.options(),
		Payload: payload,
	})
	c.rcv.acknowledged()
	c.timers.ack = time.Time{}
}

// put sends a segment. Everything that leaves passes here, so this is where the promise of a freeze is kept.
func (c *Conn) put(s wire.Segment) {
	if c.frozen {
		panic("tcp: a frozen connection sends")
	}
	if s.Flags.Has(wire.SYN) {
		s.Ack = c.rcv.nxt
	}
	c.ts.last = c.tsval()
	c.out = append(c.out, s)
}

// options are those of every segment after the handshake: timestamps (RFC 7323 §3.2), and SACK blocks as long as there are
// gaps (RFC 2018 §4), a duplicate before them (RFC 2883 §4).
func (c *Conn) options() wire.Options {
	var o wire.Options
	if c.cfg.Handshake.Timestamps {
		o.HasTimestamps, o.TSVal, o.TSEcr = true, c.tsval(), c.ts.recent
	}
	if !c.cfg.Handshake.SACK {
		return o
	}
	blocks := o.SACK[:maxBlocks(o.HasTimestamps)]
	if c.rcv.duplicate != (wire.Block{}) {
		o.NSACK = copy(blocks, []wire.Block{c.rcv.duplicate})
	}
	o.NSACK += copy(blocks[o.NSACK:], c.rcv.gaps)
	return o
}

// maxBlocks is how many SACK blocks fit into a header (RFC 2018 §3).
func maxBlocks(timestamps bool) int {
	if timestamps {
		return 3
	}
	return 4
}
