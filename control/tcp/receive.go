package tcp

import (
	"slices"

	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// maxGaps bounds the ranges that wait for data before them. Real loss makes a few; a client that makes more is only told
// to send again.
const maxGaps = 32

// receiver is the receive sequence space (RFC 9293 §3.3.1) and the data in it.
//
//	read                nxt         gaps[1]      gaps[0]         edge   limit
//	 |-- buf, in order --|    ...    [####]  ...  [####]  ...      |      |
//
// Data that came too early lies in buf already at its place, so closing a gap copies nothing.
type receiver struct {
	read  seq.Value // S: the first octet not consumed, at buf[0]
	nxt   seq.Value // RCV.NXT
	acked seq.Value // the highest acknowledgment sent: Last.ACK.sent of RFC 7323
	edge  seq.Value // the highest right edge announced; RCV.WND = edge - nxt
	limit seq.Value // the highest edge that may be announced

	buf       []byte
	gaps      []wire.Block // ranges after nxt, disjoint, the newest first (the order of RFC 2018 §4)
	fin       bool         // the client's FIN is known
	finAt     seq.Value    // its sequence number
	duplicate wire.Block   // what arrived twice, to be told once; zero: nothing
	waiting   uint8        // segments with data since the last acknowledgment sent
	reader    reader
}

// reader says what happens to data that arrives.
type reader uint8

const (
	reads    reader = iota // it is kept until it is consumed
	discards               // it is acknowledged and dropped (Linger)
	refuses                // it resets the connection (Close)
)

// acknowledged notes that everything up to nxt was acknowledged just now.
func (r *receiver) acknowledged() {
	r.acked, r.waiting, r.duplicate = r.nxt, 0, wire.Block{}
}

// window is RCV.WND.
func (r *receiver) window() uint32 { return uint32(r.edge.Sub(r.nxt)) }

// data is what arrived in order. A FIN that was received takes a sequence number and no octet.
func (r *receiver) data() []byte {
	n := r.nxt.Sub(r.read)
	if r.fin && r.nxt.After(r.finAt) {
		n--
	}
	return r.buf[:n]
}

// finished reports whether the FIN is the last thing that arrived in order.
func (r *receiver) finished() bool { return r.fin && r.nxt == r.finAt.Add(1) }

// add takes text and FIN of an acceptable segment: what lies in the window and is new.
func (r *receiver) add(seg *wire.Segment) {
	at, text := seg.Seq, seg.Payload
	end := at.Add(len(text)) // of the text
	fin := seg.Flags.Has(wire.FIN) && end.Before(r.edge)
	if old := r.nxt.Sub(at); old > 0 {
		text = text[min(old, len(text)):]
		at = r.nxt
	}
	if excess := end.Sub(r.edge); excess > 0 {
		text = text[:max(0, len(text)-excess)]
	}
	if r.fin && at.Add(len(text)).After(r.finAt) { // text after a FIN is none
		text = text[:max(0, r.finAt.Sub(at))]
	}
	if len(text) > 0 && !r.store(at, text) {
		return
	}
	if fin && !r.fin && !end.Before(r.nxt) && r.nothingAfter(end) {
		r.fin, r.finAt = true, end
	}
	r.join()
}

// noteDuplicate remembers the first octets of a segment that had arrived before, for the next acknowledgment (RFC 2883 §4).
func (r *receiver) noteDuplicate(seg *wire.Segment) {
	left, right := seg.Seq, seg.Seq.Add(len(seg.Payload))
	if left.Before(r.nxt) {
		r.duplicate = wire.Block{Left: left, Right: seq.Min(right, r.nxt)}
		return
	}
	for _, g := range r.gaps {
		if both := (wire.Block{Left: seq.Max(left, g.Left), Right: seq.Min(right, g.Right)}); both.Left.Before(both.Right) {
			r.duplicate = both
			return
		}
	}
}

// nothingAfter reports whether no data after at is held: a FIN before data that was already received is a lie.
func (r *receiver) nothingAfter(at seq.Value) bool {
	for _, g := range r.gaps {
		if g.Right.After(at) {
			return false
		}
	}
	return true
}

// store puts text, which begins at or after nxt, into its place. It refuses text that would make too many gaps.
func (r *receiver) store(at seq.Value, text []byte) bool {
	if at != r.nxt && len(r.gaps) == maxGaps && !r.touches(at, at.Add(len(text))) {
		return false
	}
	offset := at.Sub(r.read)
	if need := offset + len(text); need > len(r.buf) {
		r.buf = slices.Grow(r.buf, need-len(r.buf))[:need] // what lies in the gaps is never read
	}
	copy(r.buf[offset:], text)
	r.merge(wire.Block{Left: at, Right: at.Add(len(text))})
	return true
}

// touches reports whether a range overlaps or meets one that is held.
func (r *receiver) touches(left, right seq.Value) bool {
	for _, g := range r.gaps {
		if !g.Left.After(right) && !left.After(g.Right) {
			return true
		}
	}
	return false
}

// merge puts a range in front of the others, and unites it with those that it touches.
func (r *receiver) merge(b wire.Block) {
	kept := r.gaps[:0]
	for _, g := range r.gaps {
		if g.Left.After(b.Right) || b.Left.After(g.Right) {
			kept = append(kept, g)
			continue
		}
		b.Left, b.Right = seq.Min(b.Left, g.Left), seq.Max(b.Right, g.Right)
	}
	r.gaps = append(kept, wire.Block{})
	copy(r.gaps[1:], r.gaps)
	r.gaps[0] = b
}

// join moves nxt over the range that begins there (ranges that meet are one), and over the FIN.
func (r *receiver) join() {
	for i, g := range r.gaps {
		if g.Left == r.nxt {
			r.nxt = g.Right
			r.gaps = append(r.gaps[:i], r.gaps[i+1:]...)
			break
		}
	}
	if r.fin && r.nxt == r.finAt {
		r.nxt = r.nxt.Add(1)
	}
}

// owe puts an acknowledgment off until the router has seen the data (RFC 9293 §3.8.6.3).
func (c *Conn) owe() {
	if c.timers.ack.IsZero() {
		c.timers.ack = c.now.Add(delayedACK)
	}
}

// consume drops n octets from the front of the buffer and lets the window follow, in steps that are worth a segment
// (RFC 9293 §3.8.6.2.2). A client that may be waiting for room gets an ACK as soon as the caller lets us.
func (c *Conn) consume(n int) {
	r := &c.rcv
	r.buf = append(r.buf[:0], r.buf[n:]...)
	r.read = r.read.Add(n)
	limit := r.read.Add(int(c.cfg.Window))
	if limit.Sub(r.limit) < min(int(c.cfg.Window)/2, int(c.ownMSS())) {
		return
	}
	r.limit = limit
	if c.state.receives() && r.window() < c.cfg.Window/2 {
		c.timers.ack = c.now
	}
}

// ownMSS is the MSS that we announced (RFC 9293 §3.7.1: 536 if none).
func (c *Conn) ownMSS() uint16 {
	if c.cfg.Handshake.OwnMSS == 0 {
		return 536
	}
	return c.cfg.Handshake.OwnMSS
}

// FirstWindow is the window that a SYN-ACK should announce for a connection with window W and a shift of scale: a quarter
// less than W, and a multiple of the scale's unit. The rest is what announce needs to keep its promises.
func FirstWindow(w uint32, scale uint8) uint32 {
	first := (w - w/4) >> scale << scale
	if first == 0 {
		return w
	}
	return first
}

// Readable is how many octets a client can deliver in any case before anything is consumed: the last unit of W may be too
// small to be announced. Whoever waits for more waits for ever.
func Readable(w uint32, scale uint8) int { return int(w) - (1<<scale - 1) }

// announce returns the window field of the segment that goes out, and notes the edge it announces.
//
// A scaled window says only multiples of 2^scale, and nxt moves by any number of octets. So that the edge never goes
// back it is rounded up, which moves it on by less than a unit with each acknowledgment; a quarter of W is kept back for
// that. Only when that is used up, by a request of nearly W, it is rounded down to stay within limit (see doc.go).
func (c *Conn) announce() uint16 {
	r, scale := &c.rcv, c.rcvScale()
	edge := seq.Max(r.edge, r.limit.Add(-int(c.cfg.Window/4)))
	edge = seq.Max(edge, r.nxt.Add(2*int(c.ownMSS()))) // a large request may use what was kept back
	up := (edge.Sub(r.nxt) + 1<<scale - 1) >> scale
	w := min(up, max(0, r.limit.Sub(r.nxt))>>scale, 0xffff)
	r.edge = seq.Max(r.edge, r.nxt.Add(w<<scale))
	return uint16(w)
}

// maxScale is the largest shift (RFC 7323 §2.3).
const maxScale = 14

// rcvScale is the shift of the windows that we send; 0 without scaling.
func (c *Conn) rcvScale() uint8 { return c.cfg.Handshake.RcvScale }
