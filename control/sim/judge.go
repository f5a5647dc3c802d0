package sim

import (
	"bytes"
	"fmt"
	"time"

	"baton/control/inspect"
	"baton/control/transfer"
	"baton/fastpath"
	"baton/fastpath/flow"
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// frozenMax is how long a flow may be frozen: all offers, the commit and its queries, and the pauses of hosts.
const frozenMax = 40 * time.Second

// judge knows everything and says what is wrong. It changes nothing.
type judge struct {
	w         *world
	lives     map[wire.Incarnation]*life
	order     []*life
	byFlow    map[flow.ID]*life
	transfers map[transfer.ID]*life
}

func newJudge(w *world) *judge {
	return &judge{w: w, lives: map[wire.Incarnation]*life{}, byFlow: map[flow.ID]*life{},
		transfers: map[transfer.ID]*life{}}
}

// life is one incarnation of a tuple: who owns it, and what everybody has said.
type life struct {
	w      *world
	client *client
	inc    wire.Incarnation

	// Who may send. The router may until the freeze, and again after a thaw; then a target, from its import on.
	begun       bool // the router has heard of it
	frozen      bool
	frozenAt    time.Time
	routerGone  bool
	holder      *target // has a socket
	given       *target // the last that had one; nil after it came back
	tasted      bool    // some target had one
	committedTo map[*target]bool
	committedAt time.Time // the last time
	lostHost    bool      // its target crashed
	mustThaw    bool      // the router has sent while it was frozen
	unsure      bool      // its target's agent crashed during the import, and says that it ended
	abandoned   bool      // the router gave it up after the commit

	// What was written: by the client's application its plan's request, by the server's side this.
	expected []byte
	refusal  int // octets of the refusal at its end; 0: none
	answered int // octets that the target's application wrote
	cause    inspect.Cause
	cut      int  // the client's application stops here; -1: not
	heard    int  // octets of the client's stream that the router was shown
	idle     bool // the target's application lost patience
	got      int  // octets of expected that the client has

	// The wire towards the client.
	ack, edge seq.Value
	tsval     uint32
	sent      seq.Value // end of what was sent
	finAt     seq.Value
	fin       bool
	scale     uint8 // of the windows there
	hs        wire.Handshake

	// What the client has said.
	clientEnd  seq.Value // of what it sent
	clientEdge seq.Value // of its window
	clientGone bool
}

// begin notes a connection that exists for the client, by the SYN-ACK that it took.
func (j *judge) begin(c *client, s *wire.Segment) *life {
	inc := wire.Incarnation{Tuple: wire.Tuple{Client: c.addr, Service: c.to}, IRS: c.isn, ISS: c.iss}
	l := &life{w: j.w, client: c, inc: inc, cut: -1, committedTo: map[*target]bool{},
		ack: s.Ack, edge: s.Ack.Add(int(s.Window)), tsval: s.Options.TSVal, sent: c.iss.Add(1),
		scale: c.scaleIn,
		hs: wire.Handshake{MSS: c.plan.MSS, Scaling: c.scaling, SACK: c.sack, Timestamps: c.ts, SndScale: c.scaleOut,
			RcvScale: c.scaleIn},
		clientEnd: c.isn.Add(1), clientEdge: c.promised}
	j.lives[inc] = l
	j.order = append(j.order, l)
	return l
}

// fail reports what is wrong with the connection.
func (l *life) fail(format string, args ...any) {
	l.w.fail("%s: %s", l.client.name, fmt.Sprintf(format, args...))
}

// punted sees what the forwarder hands to the router.
func (j *judge) punted(p *flow.Punt) {
	switch p.Kind {
	case flow.First:
		l := j.lives[p.Inc]
		if l == nil {
			j.w.fail("the forwarder takes a connection that no client has: %v", p.Inc)
			return
		}
		j.byFlow[p.Flow] = l
		j.w.host.first, j.w.host.adopts = l, false
		l.checkHandshake(&p.Handshake)
	case flow.Adopted:
		if l := j.lives[p.Inc]; p.Flow != 0 {
			j.byFlow[p.Flow] = l
			j.w.host.first, j.w.host.adopts = l, true
		}
	case flow.Gone:
		if l := j.byFlow[p.Flow]; l != nil {
			j.w.logf("router", "%s: the forwarder gave the flow up", l.client.name)
			l.routerGone = true
		}
	case flow.Segment, flow.Frozen, flow.Switched, flow.End, flow.Orphan, flow.Neighbour, flow.ICMP, flow.Idle,
		flow.Exception, flow.Served:
	}
}

// opened sees the router take the connection.
func (l *life) opened() {
	l.w.logf("router", "%s: opens", l.client.name)
	if l.begun {
		l.fail("the router takes a connection as new that it had before, owner %s", l.ownerName())
	}
	l.begun = true
}

// checkHandshake compares what the cookie remembers with what was agreed.
func (l *life) checkHandshake(h *wire.Handshake) {
	want := l.hs
	want.MSS, want.OwnMSS = h.MSS, h.OwnMSS // the cookie rounds it down
	if h.MSS > l.hs.MSS || *h != want {
		l.fail("the handshake came out as %+v", *h)
	}
}

// about is the connection that a message of a transfer is about, nil if it is none's.
func (j *judge) about(m transfer.Message) *life {
	switch m := m.(type) {
	case transfer.Offer:
		j.transfers[m.Transfer] = j.lives[m.Inc]
		return j.lives[m.Inc]
	case transfer.Assign:
		return j.about(m.Offer)
	case transfer.OfferReply:
		return j.transfers[m.Transfer]
	case transfer.Commit:
		return j.transfers[m.Transfer]
	case transfer.Confirm:
		return j.transfers[m.Transfer]
	}
	return nil
}

// committed sees a commit leave.
func (j *judge) committed(id transfer.ID, t *target) {
	l := j.transfers[id]
	if !l.frozen {
		l.fail("the router commits a connection that is not frozen")
	}
	l.committedTo[t], l.committedAt = true, l.w.now
}

// froze sees the router freeze.
func (l *life) froze() {
	if !l.frozen {
		l.w.logf("router", "%s: freezes", l.client.name)
		l.frozen, l.frozenAt = true, l.w.now
	}
}

// thawed sees the router go on by itself.
func (l *life) thawed() {
	l.w.logf("router", "%s: thaws", l.client.name)
	switch {
	case l.holder != nil:
		l.fail("two owners: the router goes on, and %s has the connection", l.holder.name)
	case l.given != nil:
		l.fail("the router goes on with a connection that %s had", l.given.name)
	}
	l.frozen, l.mustThaw = false, false
}

// switchedTo sees the router give the flow's packets to a target.
func (l *life) switchedTo(t *target) {
	l.w.logf("router", "%s: switches to %s", l.client.name, t.name)
	if l.given != t && !l.lostHost && !l.unsure {
		l.fail("the router switches to %s, which never had the connection", t.name)
	}
	l.routerGone = true
}

// closed sees the router forget the flow.
func (l *life) closed() {
	l.w.logf("router", "%s: forgets the flow", l.client.name)
	l.abandoned = l.abandoned || l.frozen && len(l.committedTo) > 0
	l.routerGone = true
}

// imported sees a target's kernel make the connection from a record.
func (l *life) imported(t *target, rec *transfer.Record) {
	l.w.logf(t.name, "%s: imports %d octets at %d", l.client.name, len(rec.Data), rec.ReadFrom.Sub(rec.Inc.IRS))
	switch {
	case l.holder != nil:
		l.fail("two owners: %s imports, and %s has the connection", t.name, l.holder.name)
	case l.given != nil:
		l.fail("%s imports a connection that %s had", t.name, l.given.name)
	case !l.frozen && !l.routerGone:
		l.fail("two owners: %s imports, and the router has not frozen the connection", t.name)
	case l.mustThaw && !l.routerGone:
		l.fail("two owners: %s imports, and the router has sent since the freeze", t.name)
	case !l.committedTo[t]:
		l.fail("%s imports without a commit", t.name)
	case rec.SndNxt.Sub(rec.Inc.ISS)-1 != len(l.expected):
		l.fail("the record continues at octet %d of the server's stream, %d were written",
			rec.SndNxt.Sub(rec.Inc.ISS)-1, len(l.expected))
	case rec.RcvAcked.Before(l.ack), rec.RcvNxt.Before(l.ack):
		l.fail("the record goes behind the ACK of the wire")
	case rec.RcvEdge.Before(l.edge):
		l.fail("the record goes behind the right edge of the wire by %d", l.edge.Sub(rec.RcvEdge))
	}
	l.holder, l.given, l.tasted = t, t, true
}

// takenBack sees the router become the owner of a connection that a target hands back, and has frozen.
func (l *life) takenBack() {
	l.w.logf("router", "%s: takes the connection back", l.client.name)
	switch {
	case !l.routerGone:
		l.fail("the router takes back what it has")
	case l.holder != nil && !l.holder.conns[l.inc.Tuple].frozen:
		l.fail("two owners: the router takes the connection back, and %s goes on", l.holder.name)
	}
	l.holder, l.given = nil, nil
	l.routerGone, l.frozen, l.mustThaw = false, false, false
	clear(l.committedTo)
}

// keptBy sees a target go on with a connection that it has not got rid of.
func (l *life) keptBy(t *target) {
	if l.holder != t {
		l.fail("two owners: %s goes on, and has handed the connection back", t.name)
	}
}

// ended sees the connection end at its target.
func (l *life) ended(t *target) {
	if l.holder == t {
		l.holder = nil
	}
}

// crashed sees its target host lose it.
func (l *life) crashed(t *target) {
	l.ended(t)
	l.lostHost = true
}

// restartedOver sees an agent start that finds a pin and no socket: it says that the connection has ended, also if it
// never was made.
func (l *life) restartedOver() { l.unsure = l.unsure || l.given == nil }

// writes notes what the server's side wrote for the client.
func (l *life) writes(p []byte) {
	l.expected = append(l.expected, p...)
	if l.holder != nil {
		l.answered += len(p)
	}
}

// refuses notes the router's last word.
func (l *life) refuses(p []byte, cause inspect.Cause) {
	l.expected = append(l.expected, p...)
	l.refusal, l.cause = len(p), cause
}

// routerReads compares what the routing application is shown with what the client wrote, from an octet on.
func (l *life) routerReads(at int, data []byte) {
	if at+len(data) < l.heard {
		l.fail("the router shows %d octets, it was %d before", at+len(data), l.heard)
		return
	}
	l.reads("the router", at, data)
	l.heard = at + len(data)
}

// targetReads compares what the target application reads.
func (l *life) targetReads(at int, p []byte) { l.reads(l.holder.name, at, p) }

func (l *life) reads(who string, at int, p []byte) {
	request := l.client.plan.Request
	if at+len(p) > len(request) || request[at:at+len(p)] != string(p) {
		l.fail("%s reads %d octets at %d that the client did not write there", who, len(p), at)
	}
	if end := l.inc.IRS.Add(1 + at + len(p)); end.After(l.clientEnd) {
		l.fail("%s reads up to %d octets that were not sent", who, end.Sub(l.clientEnd))
	}
}

// cutBy notes that the client's application stops early.
func (l *life) cutBy(n int) { l.cut = n }

// clientSent notes the end of what the client sent.
func (l *life) clientSent(end seq.Value) { l.clientEnd = seq.Max(l.clientEnd, end) }

// clientPromises notes the right edge that the client announced.
func (l *life) clientPromises(edge seq.Value) { l.clientEdge = seq.Max(l.clientEdge, edge) }

// clientHas compares what the client has received with what was written.
func (l *life) clientHas(p []byte) {
	if len(p) > len(l.expected) || !bytes.Equal(p[l.got:], l.expected[l.got:len(p)]) {
		l.fail("the client received octets within %d to %d that nobody wrote there", l.got, len(p))
		return
	}
	l.got = len(p)
}

// complete reports whether the server's side has written all that it will.
func (l *life) complete() bool {
	return l.refusal > 0 || l.tasted && l.answered == l.client.plan.Response
}

// responseComplete reports whether the client has all that the server's side will write.
func (l *life) responseComplete() bool { return l.complete() && l.got == len(l.expected) }

// outcome is what an orderly end amounts to for the client.
func (l *life) outcome() string {
	switch {
	case l.got != len(l.expected):
		l.fail("the connection ended with %d of %d octets delivered", l.got, len(l.expected))
		return cutShort
	case l.refusal > 0:
		return refused + " " + l.cause.String()
	case l.complete():
		return served
	}
	asked := l.client.released == len(l.client.plan.Request) && len(l.client.plan.Request) > 0
	if asked && l.cut < 0 && !l.idle && l.tasted {
		l.fail("the connection ended without an answer")
	}
	return cutShort
}

// disowned sees the router reset a connection that it has committed, and nothing is heard of.
func (l *life) disowned() {
	if len(l.committedTo) == 0 || l.w.now.Sub(l.committedAt) < transfer.DefaultTimeouts().GiveUp {
		l.fail("the router resets the connection before it may give it up")
	}
	l.abandoned = true
}

// lostBy sees a client give up an established connection. There must have been a reason.
func (l *life) lostBy(c *client) {
	if !l.lostHost && !l.unsure && !l.abandoned {
		l.fail("the client gave up: nothing came any more (una %d of %d, received %d of %d, owner %s)",
			c.una.Sub(c.isn)-1, c.released, l.got, len(l.expected), l.ownerName())
	}
}

// resetBy sees the server's side reset a connection. There must have been a reason.
func (l *life) resetBy() {
	if !l.lostHost && !l.unsure && !l.abandoned {
		l.fail("reset by the server's side, owner %s", l.ownerName())
	}
}

func (l *life) ownerName() string {
	switch {
	case l.holder != nil:
		return l.holder.name
	case l.routerGone:
		return "nobody"
	case l.frozen:
		return "router, frozen"
	}
	return "router"
}

// unreachable sees a client whose SYN was never answered.
func (j *judge) unreachable(c *client) { j.w.fail("%s: its SYN was never answered", c.name) }

// routerSends sees a frame when the router hands it to the forwarder. That is the moment at which it must be the owner.
func (j *judge) routerSends(frame []byte) {
	f, err := wire.ParseTCP(frame)
	if err != nil {
		return // a neighbour question; bad frames are noticed on the wire
	}
	l := j.lifeOf(&f)
	switch {
	case l == nil:
		j.w.fail("the router sends to a client that it does not have: %+v", f)
	case l.frozen && !l.routerGone && f.Segment.Flags.Has(wire.RST):
		l.disowned()
	case l.frozen && !l.routerGone && j.w.tally.Faults[RingFull] == 0:
		l.fail("the router sends while the connection is frozen")
	case l.holder != nil:
		l.fail("the router sends, and %s owns the connection", l.holder.name)
	default:
		l.mustThaw = l.frozen                                        // by a command that waits for room in the ring
		l.sent = seq.Max(l.sent, f.Segment.Seq.Add(f.Segment.Len())) // whether the ring has room or not
	}
}

// lifeOf is the newest incarnation that a segment of the routing host can belong to: sequence numbers of two
// incarnations of a tuple are far apart.
func (j *judge) lifeOf(f *wire.Frame) *life {
	const near = 1 << 24
	for i := len(j.order) - 1; i >= 0; i-- {
		l := j.order[i]
		if l.inc.Client == f.Dst && l.inc.Service == f.Src && f.Segment.Seq.InWindow(l.inc.ISS, near) &&
			(f.Segment.Ack.InWindow(l.inc.IRS, near) || !f.Segment.Flags.Has(wire.ACK)) {
			return l
		}
	}
	return nil
}

// towardsClient sees every frame to a client when it is sent, by the socket of a target or, if that is nil, by the
// routing host.
func (j *judge) towardsClient(frame []byte, s *socket) {
	f, err := wire.ParseTCP(frame)
	if err != nil {
		j.w.fail("a host sends a bad frame: %v", err)
		return
	}
	if f.Segment.Flags.Has(wire.SYN) {
		j.synAck(&f, s)
		return
	}
	var l *life
	if s != nil {
		l = s.life
	} else {
		l = j.lifeOf(&f)
	}
	switch {
	case l == nil:
		j.w.fail("the forwarder sends a segment of no connection: %+v", f)
	case s != nil && l.holder != s.t:
		l.fail("%s sends, and does not own the connection", s.t.name)
	case s == nil && l.holder != nil:
		l.fail("the routing host sends, and %s owns the connection", l.holder.name)
	default:
		l.onWire(&f.Segment, len(frame))
	}
}

// synAck checks a SYN-ACK: only what was asked for is agreed to, and the window is what the control plane thinks it is.
func (j *judge) synAck(f *wire.Frame, s *socket) {
	if s != nil {
		j.w.fail("%s sends a SYN", s.t.name)
		return
	}
	for _, c := range j.w.clients {
		if c.addr != f.Dst || c.state != synSent || f.Segment.Ack != c.isn.Add(1) {
			continue
		}
		o := f.Segment.Options
		if o.HasScale && c.plan.Scale < 0 || o.HasTimestamps != c.plan.Timestamps || o.SACKPermitted && !c.plan.SACK {
			j.w.fail("%s: the SYN-ACK agrees to what was not asked for: %+v", c.name, o)
		}
	}
}

// onWire checks a segment towards the client against all that was said before.
func (l *life) onWire(s *wire.Segment, frame int) {
	c, end := l.client, s.Seq.Add(s.Len())
	if s.Flags.Has(wire.RST) {
		return
	}
	edge := s.Ack.Add(int(s.Window) << l.scale)
	o := &s.Options
	switch {
	case !s.Flags.Has(wire.ACK):
		l.fail("a segment without ACK")
	case s.Ack.Before(l.ack):
		l.fail("the ACK goes back by %d", l.ack.Sub(s.Ack))
	case s.Ack.After(l.clientEnd):
		l.fail("an ACK of %d octets that were not sent", s.Ack.Sub(l.clientEnd))
	case l.edge.Sub(edge) >= 1<<l.scale:
		l.fail("the right edge goes back by %d", l.edge.Sub(edge))
	case o.HasTimestamps != l.hs.Timestamps:
		l.fail("timestamps are %v on a segment", o.HasTimestamps)
	case l.hs.Timestamps && seq.Value(o.TSVal).Before(seq.Value(l.tsval)):
		l.fail("TSval goes back by %d", l.tsval-o.TSVal)
	case o.MSS != 0, o.HasScale, o.SACKPermitted, o.NSACK > 0 && !l.hs.SACK:
		l.fail("options of a SYN, or SACK that was not agreed to: %+v", *o)
	case len(s.Payload)+o.Len() > int(c.plan.MSS):
		l.fail("%d octets and %d of options exceed the MSS of %d", len(s.Payload), o.Len(), c.plan.MSS)
	case frame-14 > c.plan.Path:
		l.fail("a packet of %d octets exceeds the path", frame-14)
	case s.Seq.After(l.sent):
		l.fail("a segment begins %d octets after all that was sent", s.Seq.Sub(l.sent))
	case end.After(l.clientEdge) && (s.Len() != 1 || s.Seq != l.clientEdge):
		l.fail("%d octets beyond the client's window", end.Sub(l.clientEdge))
	}
	l.blocks(s)
	l.content(s, end)
	l.ack, l.edge, l.tsval, l.sent = s.Ack, seq.Max(edge, l.edge), o.TSVal, seq.Max(l.sent, end)
}

// blocks checks SACK blocks: of octets that were sent, above the ACK (or below it, as the first one: RFC 2883).
func (l *life) blocks(s *wire.Segment) {
	for i, b := range s.Options.SACK[:s.Options.NSACK] {
		if !b.Left.Before(b.Right) || b.Right.After(l.clientEnd) || i > 0 && !b.Left.After(s.Ack) {
			l.fail("SACK block %d-%d, the ACK is %d, %d was sent", b.Left, b.Right, s.Ack, l.clientEnd)
		}
	}
}

// content compares octets and FIN with what was written.
func (l *life) content(s *wire.Segment, end seq.Value) {
	at := s.Seq.Sub(l.inc.ISS) - 1
	if n := len(s.Payload); n > 0 && (at < 0 || at+n > len(l.expected) ||
		!bytes.Equal(s.Payload, l.expected[at:at+n])) {
		l.fail("%d octets at %d that nobody wrote there", n, at)
	}
	if l.fin && end.After(l.finAt) {
		l.fail("something after the FIN")
	}
	if s.Flags.Has(wire.FIN) {
		if l.fin && end != l.finAt || at+len(s.Payload) != len(l.expected) {
			l.fail("the FIN is at %d, %d octets were written", at+len(s.Payload), len(l.expected))
		}
		l.fin, l.finAt = true, end
	}
}

// step checks after every event what no single event shows.
func (j *judge) step() {
	for _, l := range j.order {
		if l.frozen && !l.routerGone && j.w.now.Sub(l.frozenAt) > frozenMax {
			l.fail("frozen for more than %v", frozenMax)
		}
	}
}

// leftover names the first thing that is left although all clients are through; "" is that nothing is.
func (j *judge) leftover() string {
	h := j.w.host
	if n := h.fwd.Flows(); n > 0 {
		return fmt.Sprintf("%d flows of the router in the forwarder", n)
	}
	if n := h.fwd.BuffersInUse(0); n > 0 {
		return fmt.Sprintf("%d frames in the forwarder", n)
	}
	for _, e := range h.fwd.Snapshot() {
		if !j.excused(&e) {
			return fmt.Sprintf("entry of %v in state %v", e.Tuple, e.State)
		}
	}
	for _, t := range j.w.targets {
		if left := t.leftover(); left != "" {
			return t.name + ": " + left
		}
	}
	s := h.snapshot()
	if s.Conns > 0 {
		return fmt.Sprintf("%d connections of the router", s.Conns)
	}
	for _, t := range s.Targets {
		if t.Pending > 0 {
			return fmt.Sprintf("%d transfers to %s under way", t.Pending, t.Host)
		}
	}
	return ""
}

// excused reports whether an entry may outlive its connection: the target that owned it lost all memory, and nobody
// can tell the forwarder.
func (j *judge) excused(e *fastpath.Entry) bool {
	for _, l := range j.order {
		if l.inc.Tuple == e.Tuple && l.lostHost {
			return true
		}
	}
	return false
}

func (t *target) leftover() string {
	if t.taker == nil {
		return "agent is down"
	}
	reserved, importing, live, past := t.taker.Counts()
	switch {
	case len(t.conns) > 0:
		return fmt.Sprintf("%d connections", len(t.conns))
	case reserved+importing+live+past > 0:
		return fmt.Sprintf("%d reserved, %d importing, %d live, %d remembered", reserved, importing, live, past)
	case len(t.pins) > 0:
		return fmt.Sprintf("%d pins", len(t.pins))
	case len(t.running) > 0:
		return fmt.Sprintf("%d imports", len(t.running))
	case len(t.gifts) > 0:
		return fmt.Sprintf("%d gifts", len(t.gifts))
	}
	return ""
}

// end checks what must be true of a schedule as a whole.
func (j *judge) end() {
	if n := j.w.host.snapshot().Counts.Faults; n > 0 {
		j.w.fail("the router found %d contradictions", n)
	}
}
