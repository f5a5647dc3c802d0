package tcp

import (
	"flag"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"baton/control/transfer"
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// base is where the sequence numbers of a test start. Every test runs with each, so that every comparison is made across
// both places where 32 bits go wrong.
type base struct{ irs, iss seq.Value }

var bases = []base{
	{1000, 500000},
	{1<<32 - 100, 1<<32 - 3},
	{1<<31 - 2, 1<<31 - 50},
	{1<<32 - 1, 1<<31 - 1},
}

const (
	testWindow = 4096 // W
	testScale  = 3    // of the windows that we send; W is a multiple of 2^3
	testFirst  = 3072 // the window of the SYN-ACK
)

// epoch is when tests begin. Its milliseconds and the offset make TSval start shortly before its wrap.
var epoch = time.UnixMilli(1_000_000_000_000)

const tsOffset = uint32(0xffffff00 - 1_000_000_000_000%(1<<32))

// migrate runs the whole suite with a transfer after every event: export, octets, import, the old object poisoned.
var migrate = flag.Bool("migrate", false, "give the connection to a new owner after every event")

// rig drives one Conn in virtual time as its client, and checks every segment that leaves.
type rig struct {
	t    testing.TB
	c    *Conn
	b    base
	now  time.Time
	ts   uint32 // the client's TSval
	wnd  uint16 // the client's window field
	sent []wire.Segment

	una     int // highest acknowledgment that the client sent, octets after ISS+1
	wndEdge int // highest right edge that the client announced, octets after ISS+1
	edge    seq.Value
	acked   seq.Value
	tsLast  uint32
}

// option changes the configuration of a rig.
type option func(*Config)

func noTimestamps(c *Config) { c.Handshake.Timestamps = false }
func noSACK(c *Config)       { c.Handshake.SACK = false }
func noScaling(c *Config)    { c.Handshake.Scaling = false }
func mss(n uint16) option    { return func(c *Config) { c.Handshake.MSS = n } }

// config is that of a rig.
func config(b base, options ...option) Config {
	cfg := Config{
		Inc: wire.Incarnation{
			Tuple: wire.Tuple{
				Client:  netip.MustParseAddrPort("192.0.2.1:40000"),
				Service: netip.MustParseAddrPort("192.0.2.10:80"),
			},
			IRS: b.irs, ISS: b.iss,
		},
		Handshake: wire.Handshake{MSS: 1000, OwnMSS: 1460, SndScale: 2, RcvScale: testScale, Scaling: true, SACK: true,
			Timestamps: true},
		TSOffset: tsOffset,
		Window:   testWindow, Announced: FirstWindow(testWindow, testScale),
	}
	for _, o := range options {
		o(&cfg)
	}
	return cfg
}

// newRig is a connection whose client has not sent anything after the handshake.
func newRig(t testing.TB, b base, options ...option) *rig {
	cfg := config(b, options...)
	r := &rig{t: t, b: b, now: epoch, ts: 0xfffffff0, wnd: 10000, acked: b.irs + 1, edge: b.irs.Add(1 + cfg.announced())}
	r.c = Accept(cfg, r.now)
	r.tsLast = r.c.ts.last
	return r
}

// eachBase runs a test with every base.
func eachBase(t *testing.T, f func(t *testing.T, b base)) {
	t.Helper()
	for _, b := range bases {
		t.Run(fmt.Sprintf("irs=%d,iss=%d", uint32(b.irs), uint32(b.iss)), func(t *testing.T) { f(t, b) })
	}
}

// testListener agrees on what config has.
var testListener = Listener{MSS: 1460, Scale: testScale, Window: testWindow, Announced: FirstWindow(testWindow, testScale)}

// syn is the SYN of a client that offers everything.
func syn(b base) wire.Segment {
	return wire.Segment{Seq: b.irs, Flags: wire.SYN, Window: 10000, Options: wire.Options{
		MSS: 1000, HasScale: true, Scale: 2, SACKPermitted: true, HasTimestamps: true, TSVal: 0xffffffe0}}
}

// synReceived is a connection that has answered a SYN.
func synReceived(t testing.TB, b base) *rig {
	r := &rig{t: t, b: b, now: epoch, ts: 0xfffffff0, wnd: 10000, acked: b.irs + 1, edge: b.irs.Add(1 + testFirst)}
	c, a := testListener.Segment(config(b).Inc.Tuple, syn(b), b.iss, tsOffset, r.now)
	if c == nil || len(a.Segments) != 1 {
		t.Fatalf("a SYN makes %v, %v", c, a)
	}
	r.c, r.tsLast = c, a.Segments[0].Options.TSVal
	return r.in(SynReceived)
}

// established is a connection after the client's handshake ACK.
func established(t testing.TB, b base, options ...option) *rig {
	r := newRig(t, b, options...)
	r.quiet(r.send(r.seg(0, "", wire.ACK)))
	return r.in(Established)
}

// closeWait is one whose client has sent its FIN, acknowledged.
func closeWait(t testing.TB, b base) *rig {
	r := established(t, b)
	r.send(r.seg(0, "", wire.ACK|wire.FIN))
	r.one(r.do(r.c.AckNow(r.now)))
	return r.in(CloseWait)
}

// finWait1 is one that has sent its FIN.
func finWait1(t testing.TB, b base) *rig {
	r := established(t, b)
	if s := r.one(r.do(r.c.Linger(r.now))); !s.Flags.Has(wire.FIN) {
		t.Fatalf("no FIN: %v", s)
	}
	return r.in(FinWait1)
}

// finWait2 is one whose FIN is acknowledged.
func finWait2(t testing.TB, b base) *rig {
	r := finWait1(t, b)
	r.una = 1
	r.quiet(r.send(r.seg(0, "", wire.ACK)))
	return r.in(FinWait2)
}

// closing is one whose client sent its FIN before it saw ours.
func closing(t testing.TB, b base) *rig {
	r := finWait1(t, b)
	r.one(r.send(r.seg(0, "", wire.ACK|wire.FIN)))
	return r.in(Closing)
}

// lastAck is one that sent its FIN after the client's.
func lastAck(t testing.TB, b base) *rig {
	r := closeWait(t, b)
	r.one(r.do(r.c.Linger(r.now)))
	return r.in(LastAck)
}

// timeWaiting is one in which both FINs are acknowledged.
func timeWaiting(t testing.TB, b base) *rig {
	r := finWait2(t, b)
	r.one(r.send(r.seg(0, "", wire.ACK|wire.FIN)))
	return r.in(TimeWait)
}

// closed is one that was reset.
func closed(t testing.TB, b base) *rig {
	r := established(t, b)
	r.do(r.c.Abort(r.now))
	return r.in(Closed)
}

// states are the constructors of all states.
var states = map[State]func(testing.TB, base) *rig{
	SynReceived: synReceived,
	Established: func(t testing.TB, b base) *rig { return established(t, b) },
	FinWait1:    func(t testing.TB, b base) *rig { return finWait1(t, b) },
	FinWait2:    finWait2, CloseWait: closeWait, Closing: closing, LastAck: lastAck, TimeWait: timeWaiting, Closed: closed,
}

// seg is a segment of the client: text begins at octet at of its stream, and everything sent so far is acknowledged
// up to una.
func (r *rig) seg(at int, text string, flags wire.Flags) wire.Segment {
	s := wire.Segment{Seq: r.b.irs.Add(1 + at), Ack: r.b.iss.Add(1 + r.una), Flags: flags, Window: r.wnd,
		Payload: []byte(text)}
	if r.c.cfg.Handshake.Timestamps {
		s.Options.HasTimestamps, s.Options.TSVal, s.Options.TSEcr = true, r.ts, r.tsLast
	}
	return s
}

// data is an ordinary segment with text.
func (r *rig) data(at int, text string) wire.Segment { return r.seg(at, text, wire.ACK|wire.PSH) }

// send gives a segment to the Conn.
func (r *rig) send(s wire.Segment) []wire.Segment {
	if s.Flags.Has(wire.ACK) {
		edge := s.Ack.Sub(r.b.iss) - 1 + int(s.Window)<<r.c.sndScale()
		r.wndEdge = max(r.wndEdge, edge)
	}
	return r.do(r.c.Segment(s, r.now))
}

// fill sends and acknowledges n octets of the client's stream, as fast as the window lets it.
func (r *rig) fill(n int) {
	r.t.Helper()
	for at := r.c.rcv.nxt.Sub(r.b.irs) - 1; at < n; {
		k := min(n-at, int(r.c.rcv.window()))
		if k == 0 {
			r.t.Fatalf("the window is shut at %d of %d octets", at, n)
		}
		r.send(r.data(at, strings.Repeat("f", k)))
		at += k
		r.bareACK(r.do(r.c.AckNow(r.now)), at)
	}
}

// ack acknowledges octets of our stream.
func (r *rig) ack(una int) []wire.Segment {
	r.una = una
	r.ts++
	return r.send(r.seg(r.c.rcv.nxt.Sub(r.b.irs)-1, "", wire.ACK))
}

// wait lets time pass up to the Conn's next deadline, at most d, and calls Tick.
func (r *rig) wait(d time.Duration) []wire.Segment {
	end := r.now.Add(d)
	for {
		next := r.c.Deadline()
		if next.IsZero() || next.After(end) {
			r.now = end
			return nil
		}
		r.now = maxTime(r.now, next)
		if out := r.do(r.c.Tick(r.now)); len(out) > 0 || r.c.State() == Closed {
			return out
		}
	}
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// do checks what the Conn sends, and returns it. What must hold for every segment is checked here and nowhere else.
func (r *rig) do(a Actions) []wire.Segment {
	r.t.Helper()
	defer r.migrate()
	if a.Closed != (r.c.State() == Closed) {
		r.t.Errorf("Closed is %v in %v", a.Closed, r.c.State())
	}
	for _, s := range a.Segments {
		r.check(s)
		s.Payload = append([]byte(nil), s.Payload...)
		r.sent = append(r.sent, s)
	}
	return r.sent[len(r.sent)-len(a.Segments):]
}

// freeze and receive are calls that send nothing.
func (r *rig) freeze() {
	r.c.Freeze()
	r.migrate()
}

func (r *rig) receive(n int) {
	r.c.Receive(n)
	r.migrate()
}

// migrate moves the connection to a new object, if the whole suite is to run so. What is not the connection's but its
// owner's is set again, as the next owner would.
func (r *rig) migrate() {
	r.t.Helper()
	if !*migrate || r.c.state == SynReceived || r.c.state == Closed {
		return
	}
	old := r.c
	frozen, exported := old.frozen, old.exported
	old.Freeze()
	rec, err := old.Export("next", 1)
	if err != nil {
		r.t.Fatalf("export in %v: %v", old.state, err)
	}
	octets, err := rec.Encode()
	if err != nil {
		r.t.Fatalf("encode in %v: %v", old.state, err)
	}
	if rec, err = transfer.Decode(octets); err != nil {
		r.t.Fatalf("decode in %v: %v", old.state, err)
	}
	if r.c, err = Import(rec, old.cfg.Window, old.now); err != nil {
		r.t.Fatalf("import in %v: %v", old.state, err)
	}
	r.c.frozen, r.c.exported, r.c.given, r.c.autoACK, r.c.soft = frozen, exported, old.given, old.autoACK, old.soft
	*old = Conn{state: 255}
}

// check holds a segment against the promises: nothing goes back, nothing passes a limit.
func (r *rig) check(s wire.Segment) {
	r.t.Helper()
	cfg := &r.c.cfg
	if s.Flags.Has(wire.SYN) || s.Flags == wire.RST {
		return // the tests of LISTEN and SYN-RECEIVED look at them
	}
	if r.c.frozen {
		r.t.Errorf("frozen connection sends %v", s)
	}
	if s.Ack.Before(r.acked) {
		r.t.Errorf("ACK goes back from %d to %d", r.acked, s.Ack)
	}
	r.acked = s.Ack
	edge := s.Ack.Add(int(s.Window) << r.c.rcvScale())
	limit := r.c.rcv.limit
	if back := r.edge.Sub(edge); back >= 1<<r.c.rcvScale() || back > 0 && r.edge.Add(1<<r.c.rcvScale()).Before(limit) {
		r.t.Errorf("right edge goes back by %d, %d before the limit", back, limit.Sub(r.edge))
	}
	r.edge = seq.Max(r.edge, edge)
	if r.edge != r.c.rcv.edge || r.edge.After(r.c.rcv.read.Add(int(cfg.Window))) {
		r.t.Errorf("announced edge %d, noted %d, S+W %d", r.edge, r.c.rcv.edge, r.c.rcv.read.Add(int(cfg.Window)))
	}
	if s.Options.HasTimestamps != cfg.Handshake.Timestamps || s.Options.NSACK > 0 && !cfg.Handshake.SACK {
		r.t.Errorf("options %+v were not agreed on so", s.Options)
	}
	if cfg.Handshake.Timestamps && beforeTS(s.Options.TSVal, r.tsLast) {
		r.t.Errorf("TSval goes back from %d to %d", r.tsLast, s.Options.TSVal)
	}
	r.tsLast = s.Options.TSVal
	if n := s.Options.Len() + len(s.Payload); n > int(cfg.Handshake.MSS) && len(s.Payload) > minPayload {
		r.t.Errorf("%d octets of options and payload with MSS %d", n, cfg.Handshake.MSS)
	}
	end := s.Seq.Sub(r.b.iss) - 1 + s.Len()
	if s.Len() > 0 && end > r.wndEdge && (s.Len() != 1 || r.c.snd.wnd != 0) {
		r.t.Errorf("octets up to %d, but the client's window ends at %d", end, r.wndEdge)
	}
	if !s.Flags.Has(wire.ACK) {
		r.t.Errorf("segment without ACK: %v", s.Flags)
	}
}

// in checks the state.
func (r *rig) in(s State) *rig {
	r.t.Helper()
	if r.c.State() != s {
		r.t.Fatalf("state is %v, want %v", r.c.State(), s)
	}
	return r
}

// quiet checks that nothing was sent.
func (r *rig) quiet(out []wire.Segment) {
	r.t.Helper()
	if len(out) != 0 {
		r.t.Fatalf("sent %v, want nothing", out)
	}
}

// one checks that one segment was sent.
func (r *rig) one(out []wire.Segment) wire.Segment {
	r.t.Helper()
	if len(out) != 1 {
		r.t.Fatalf("sent %d segments, want 1: %v", len(out), out)
	}
	return out[0]
}

// bareACK checks that one ACK was sent, of so many octets of the client's stream.
func (r *rig) bareACK(out []wire.Segment, octets int) wire.Segment {
	r.t.Helper()
	s := r.one(out)
	if s.Flags != wire.ACK || len(s.Payload) != 0 || s.Ack != r.b.irs.Add(1+octets) {
		r.t.Fatalf("sent %v ack %d, want a bare ACK of %d octets", s.Flags, s.Ack.Sub(r.b.irs)-1, octets)
	}
	return s
}

// holds checks what can be read.
func (r *rig) holds(want string) {
	r.t.Helper()
	if got := string(r.c.Peek()); got != want {
		r.t.Fatalf("holds %q, want %q", got, want)
	}
}
