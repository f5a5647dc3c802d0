package tcp

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"baton/control/transfer"
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// The core is symmetric once the handshake is done, so two of them can talk to each other. Here they do, in virtual time,
// over a link that loses, repeats, delays and reorders, while the server's side is moved to a new owner at random moments.

// flight is a segment under way.
type flight struct {
	at  time.Time
	to  *endpoint
	seg wire.Segment
}

// endpoint is a Conn with its application.
type endpoint struct {
	c       *Conn
	peer    *endpoint
	out, in []byte // what it writes, and what it has read
	written int
	ack     seq.Value
	edge    seq.Value
	tsval   uint32
	sent    seq.Value // the end of everything sent
	seen    bool
}

// duplex is the world.
type duplex struct {
	t              *testing.T
	r              *rand.Rand
	now            time.Time
	loss           int // percent; the other faults are as frequent
	client, server *endpoint
	queue          []flight
	moves, thaws   int
}

// newDuplex is a fresh connection whose ends have n octets for each other.
func newDuplex(t *testing.T, b base, seed uint64, loss, n int, options ...option) *duplex {
	d := &duplex{t: t, r: rand.New(rand.NewPCG(seed, 1)), now: epoch, loss: loss}
	here := config(b, options...)
	there := here
	there.Inc.IRS, there.Inc.ISS = here.Inc.ISS, here.Inc.IRS
	there.Handshake.MSS, there.Handshake.OwnMSS = here.Handshake.OwnMSS, here.Handshake.MSS
	there.Handshake.SndScale, there.Handshake.RcvScale = here.Handshake.RcvScale, here.Handshake.SndScale
	there.Announced = FirstWindow(there.Window, there.Handshake.RcvScale)
	there.TSOffset = 12345
	d.server = &endpoint{c: Accept(here, d.now), out: d.bytes(n)}
	d.client = &endpoint{c: Accept(there, d.now), out: d.bytes(n)}
	d.server.peer, d.client.peer = d.client, d.server
	d.client.c.ackNow = true // the third segment of the handshake
	d.carry(d.client, d.client.c.flush())
	return d
}

// bytes is n random octets.
func (d *duplex) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(d.r.Uint32())
	}
	return b
}

// chance is true in so many percent of calls.
func (d *duplex) chance(percent int) bool { return d.r.IntN(100) < percent }

// carry checks what an endpoint sends and puts it on the link, with faults.
func (d *duplex) carry(from *endpoint, a Actions) {
	for _, s := range a.Segments {
		from.check(d.t, s)
		s.Payload = bytes.Clone(s.Payload)
		copies := 1
		switch {
		case d.chance(d.loss):
			copies = 0
		case d.chance(d.loss):
			copies = 2
		}
		for range copies {
			delay := 5 * time.Millisecond
			if d.chance(d.loss) {
				delay += time.Duration(d.r.IntN(50)) * time.Millisecond // overtaken by others
			}
			d.queue = append(d.queue, flight{d.now.Add(delay), from.peer, s})
		}
	}
}

// check is what a judge would see on the wire: nothing goes back.
func (e *endpoint) check(t *testing.T, s wire.Segment) {
	edge := s.Ack.Add(int(s.Window) << e.c.rcvScale())
	if e.seen {
		if s.Ack.Before(e.ack) {
			t.Fatalf("ACK goes back by %d", e.ack.Sub(s.Ack))
		}
		if e.edge.Sub(edge) >= 1<<e.c.rcvScale() {
			t.Fatalf("edge goes back by %d", e.edge.Sub(edge))
		}
		if beforeTS(s.Options.TSVal, e.tsval) {
			t.Fatalf("TSval goes back from %d to %d", e.tsval, s.Options.TSVal)
		}
	}
	if end := s.Seq.Add(s.Len()); s.Len() > 1 && end.After(e.peer.c.rcv.edge) {
		t.Fatalf("sends up to %d beyond the announced edge", end.Sub(e.peer.c.rcv.edge))
	}
	e.checkLoad(t, s)
	if !e.seen || edge.After(e.edge) {
		e.edge = edge
	}
	e.seen, e.ack, e.tsval = true, s.Ack, s.Options.TSVal
	if len(s.Payload)+s.Options.Len() > int(e.c.cfg.Handshake.MSS) {
		t.Fatalf("segment of %d octets", len(s.Payload))
	}
}

// checkLoad is what RFC 5681 and RFC 6675 ask of a segment with data: no more new data than the congestion window lets into
// the network, and nothing again that the client holds.
func (e *endpoint) checkLoad(t *testing.T, s wire.Segment) {
	snd, mss := &e.c.snd, e.c.mss()
	end, load := s.Seq.Add(s.Len()), snd.nxt.Sub(snd.una)-snd.heldBefore(snd.nxt)
	if snd.phase == sackRecovery {
		load = snd.pipe(mss)
	}
	if e.seen && end.After(e.sent) && s.Len() > 1 && load > snd.cwnd+2*mss {
		t.Fatalf("sends new data with %d octets in the network and a window of %d", load, snd.cwnd)
	}
	for _, h := range snd.held {
		if s.Len() > 0 && s.Seq.Before(h.Right) && h.Left.Before(end) {
			t.Fatalf("sends %d octets again that the client holds", s.Len())
		}
	}
	if !e.seen || end.After(e.sent) {
		e.sent = end
	}
}

// step does the next thing that is due, or lets an application act.
func (d *duplex) step() {
	e := d.client
	if d.chance(50) {
		e = d.server
	}
	switch {
	case d.chance(20) && e.written < len(e.out):
		n := min(1+d.r.IntN(3000), len(e.out)-e.written)
		d.carry(e, e.c.Write(e.out[e.written:e.written+n], d.now))
		e.written += n
	case d.chance(30):
		d.read(e)
	case d.chance(30):
		d.carry(e, e.c.AckNow(d.now))
	case d.chance(10):
		d.move(e)
	default:
		d.next()
	}
}

// read consumes some of what has arrived, and compares it.
func (d *duplex) read(e *endpoint) {
	p := e.c.Peek()
	if len(p) == 0 {
		return
	}
	n := 1 + d.r.IntN(len(p))
	e.in = append(e.in, p[:n]...)
	e.c.Receive(n)
	if !bytes.HasPrefix(e.peer.out, e.in) {
		d.t.Fatalf("received octets differ within the first %d", len(e.in))
	}
}

// next moves time to the next arrival or deadline.
func (d *duplex) next() {
	i, at := -1, time.Time{}
	for j, f := range d.queue {
		if i < 0 || f.at.Before(at) {
			i, at = j, f.at
		}
	}
	var ticking *endpoint
	for _, e := range []*endpoint{d.client, d.server} {
		if t := e.c.Deadline(); !t.IsZero() && (at.IsZero() || t.Before(at)) {
			ticking, at = e, t
		}
	}
	if ticking != nil {
		d.now = maxTime(d.now, at)
		d.carry(ticking, ticking.c.Tick(d.now))
		return
	}
	if i < 0 {
		return
	}
	f := d.queue[i]
	d.queue = slices.Delete(d.queue, i, i+1)
	d.now = maxTime(d.now, f.at)
	d.carry(f.to, f.to.c.Segment(f.seg, d.now))
}

// move gives one of the ends to a new owner, whatever it is doing, or thaws it after a while.
func (d *duplex) move(e *endpoint) {
	old := e.c
	old.Freeze()
	if d.chance(20) {
		d.thaws++
		d.now = d.now.Add(time.Duration(d.r.IntN(100)) * time.Millisecond)
		d.carry(e, old.Thaw(d.now))
		return
	}
	rec, err := old.Export("next", 1)
	if err != nil {
		if old.State() != Closed {
			d.t.Fatal(err)
		}
		return
	}
	d.moves++
	octets, err := rec.Encode()
	if err != nil {
		d.t.Fatal(err)
	}
	if rec, err = transfer.Decode(octets); err != nil {
		d.t.Fatal(err)
	}
	if e.c, err = Import(rec, testWindow, d.now); err != nil {
		d.t.Fatal(err)
	}
	e.c.AutoACK(d.chance(50))
	if a := old.Tick(d.now.Add(time.Hour)); len(a.Segments) > 0 || !old.Deadline().IsZero() {
		d.t.Fatal("the old owner still sends")
	}
}

// done reports whether both streams have arrived.
func (d *duplex) done() bool {
	return len(d.client.in) == len(d.server.out) && len(d.server.in) == len(d.client.out)
}

// run lets everything be delivered, then closes both ends; it fails when that takes longer than it may.
func (d *duplex) run() {
	for i := 0; !d.done(); i++ {
		if i > 200_000 {
			d.t.Fatalf("stuck at %d/%d and %d/%d octets, %v and %v", len(d.client.in), len(d.server.out),
				len(d.server.in), len(d.client.out), d.client.c.State(), d.server.c.State())
		}
		d.step()
	}
	first, second := d.client, d.server
	if d.chance(50) {
		first, second = second, first
	}
	d.carry(first, first.c.Linger(d.now))
	if d.chance(50) {
		for i := 0; !second.c.EOF() && i < 10_000; i++ {
			d.next()
		}
	}
	d.carry(second, second.c.Linger(d.now))
	for i := 0; d.client.c.State() != Closed || d.server.c.State() != Closed; i++ {
		if i > 10_000 {
			d.t.Fatalf("not closed: %v and %v", d.client.c.State(), d.server.c.State())
		}
		if d.chance(5) {
			d.move(d.server)
			d.move(d.client)
		}
		d.next()
	}
}

func TestStreamsSurviveABadLinkAndMoves(t *testing.T) {
	for _, c := range []struct {
		name    string
		loss    int
		options []option
	}{
		{"clean", 0, nil},
		{"1 %", 1, nil},
		{"10 %", 10, nil},
		{"20 %", 20, nil},
		{"10 % without options", 10, []option{noTimestamps, noSACK, noScaling}},
		{"10 %, MSS 88", 10, []option{mss(88)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			moves, thaws := 0, 0
			for i, b := range bases {
				for seed := range uint64(8) {
					t.Run(fmt.Sprintf("base %d seed %d", i, seed), func(t *testing.T) {
						d := newDuplex(t, b, seed, c.loss, 20_000, c.options...)
						d.run()
						moves, thaws = moves+d.moves, thaws+d.thaws
					})
				}
			}
			if moves < 200 || thaws < 50 {
				t.Errorf("%d moves, %d thaws: the test does not test what it should", moves, thaws)
			}
		})
	}
}
