package sim

import (
	"net/netip"
	"slices"
	"time"

	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// A client is a TCP of its own making, written from the RFC and independent of control/tcp: what the two agree on by
// mistake, two copies of one implementation would agree on too. It is simple (go-back-N, ten segments in flight) and
// strict: it never shrinks its window and remembers all it has said, for the judge.

// Times of a client.
const (
	clientRTO    = time.Second // RFC 6298 (2.1)
	clientMinRTO = 250 * time.Millisecond
	clientMaxRTO = 20 * time.Second
	clientGiveUp = 100 * time.Second // R2 of RFC 9293 §3.8.3
	clientDelay  = 40 * time.Millisecond
	clientFlight = 10 // segments
	clientGrace  = 6 * time.Second
)

// clientState is where a client stands.
type clientState uint8

const (
	waiting clientState = iota
	synSent
	open
	over
)

func (s clientState) String() string {
	return [...]string{"waiting", "SYN-SENT", "open", "over"}[s]
}

// Outcomes of connections.
const (
	served        = "served"          // the whole response of a target, and its FIN
	refused       = "refused"         // a whole refusal of the router, and its FIN
	cutShort      = "cut short"       // a FIN before all was said: the application ended an incomplete request
	resetByClient = "reset by client" // as the plan wanted
	resetByServer = "reset by server"
	lost          = "lost"      // the client gave up, and the judge found a reason
	movedOn       = "moved on"  // no end: a target's socket went to another process
	gaveBack      = "gave back" // no end: a target's application gave it to the routing host
)

// client is one client host with one port, and its connections one after the other.
type client struct {
	w     *world
	index int
	name  string
	plan  *ClientPlan
	addr  netip.AddrPort
	to    netip.AddrPort
	up    *link
	down  *link

	state             clientState
	lives             int   // connections that are over
	life              *life // of the one that is open
	isn               seq.Value
	iss               seq.Value
	began             time.Time
	scaleOut, scaleIn uint8 // shifts of our windows and of the server's
	scaling, ts, sack bool

	// sending
	una, nxt, max seq.Value // SND.UNA, SND.NXT, and the highest ever
	edge          seq.Value // highest right edge that the server announced
	piece         int       // of the request that is released
	released      int       // octets
	planned       int       // pieces whose time is planned
	finWanted     bool
	finAcked      bool
	rto           time.Duration
	rtoAt         time.Time
	progress      time.Time
	dups          int
	lastWindow    uint16

	// receiving
	rcv      seq.Value    // RCV.NXT
	early    []wire.Block // received after rcv, disjoint
	memory   []byte       // octets of the stream by place, from iss+1 on
	taken    int          // octets that the application has read
	promised seq.Value    // highest right edge announced
	recent   uint32       // TS.Recent
	fin      bool         // the server's FIN was received in order
	finAt    seq.Value
	finKnown bool
	ackAt    time.Time
	reading  bool // the application reads later
	hurry    bool // the next connection comes soon

	timer uint64
	clock uint32 // offset of our TSval
	ended time.Time
}

func newClient(w *world, i int) *client {
	p := &w.plan.Clients[i]
	c := &client{w: w, index: i, name: "c" + string(rune('1'+i)), plan: p, to: services[p.Service].addr}
	ip := netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i)})
	if c.to.Addr().Is6() {
		ip = netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(100 + i)})
	}
	c.addr = netip.AddrPortFrom(ip, p.Port)
	half := w.plan.NetRTT / 2
	c.up = &link{w: w, name: c.name + ">", delay: half, jitter: half / 8, faults: w.plan.Net}
	c.down = &link{w: w, name: c.name + "<", delay: half, jitter: half / 8, faults: w.plan.Net}
	w.in(p.Start, c.connect)
	return c
}

// toClient carries a frame of the host or of a target to the client that it is for.
func (w *world) toClient(frame []byte) {
	f, err := wire.ParseTCP(frame)
	if err != nil {
		w.fail("a host sends a bad frame: %v", err)
		return
	}
	for _, c := range w.clients {
		if c.addr == f.Dst {
			w.logf(">"+c.name, "%s", c.show(&f.Segment, false))
			c.down.carry(frame, c.arrive)
			return
		}
	}
	w.fail("a host sends to %v, which is nobody", f.Dst)
}

// done reports whether nothing more is to be expected of the client.
func (c *client) done() bool { return c.state == over && (!c.plan.Again || c.lives == 2) }

// connect begins a connection.
func (c *client) connect() {
	*c = client{w: c.w, index: c.index, name: c.name, plan: c.plan, addr: c.addr, to: c.to, up: c.up, down: c.down,
		lives: c.lives, timer: c.timer}
	c.isn = c.plan.ISN
	if c.lives > 0 {
		c.isn = c.isn.Add(1 << 28)
	}
	c.state, c.began, c.progress = synSent, c.w.now, c.w.now
	c.una, c.nxt, c.max = c.isn, c.isn.Add(1), c.isn.Add(1)
	c.rto, c.clock = clientRTO, c.w.rng.Uint32()
	c.w.logf(c.name, "connects to %v", c.to)
	c.synchronize()
	if c.plan.ResetAt > 0 {
		lives := c.lives
		c.w.in(c.plan.ResetAt, func() {
			if c.lives == lives {
				c.reset()
			}
		})
	}
	c.arm()
}

// synchronize sends the SYN.
func (c *client) synchronize() {
	o := wire.Options{MSS: c.plan.MSS, SACKPermitted: c.plan.SACK}
	if c.plan.Scale >= 0 {
		o.HasScale, o.Scale = true, uint8(c.plan.Scale)
	}
	if c.plan.Timestamps {
		o.HasTimestamps, o.TSVal = true, c.tsval()
	}
	c.rtoAt = c.w.now.Add(c.rto)
	c.put(wire.Segment{Seq: c.isn, Flags: wire.SYN, Window: uint16(min(c.plan.Buffer, 0xffff)), Options: o})
}

func (c *client) tsval() uint32 { return uint32(c.w.now.UnixMilli()) + c.clock }

// put sends a segment as it is.
func (c *client) put(s wire.Segment) {
	c.w.logf(c.name, "%s", c.show(&s, true))
	frame := wire.AppendTCP(nil, wire.Link{Dst: c.w.host.mac, Src: clientMAC}, c.addr, c.to, s)
	c.up.carry(frame, c.w.host.arrive)
}

// emit sends a segment with all that every segment says.
func (c *client) emit(at seq.Value, flags wire.Flags, payload []byte) {
	s := wire.Segment{Seq: at, Ack: c.rcv, Flags: flags | wire.ACK, Window: c.window(), Payload: payload}
	if c.ts {
		s.Options.HasTimestamps, s.Options.TSVal, s.Options.TSEcr = true, c.tsval(), c.recent
	}
	if c.sack {
		s.Options.NSACK = copy(s.Options.SACK[:3], c.early)
	}
	c.ackAt = time.Time{}
	if s.Len() > 0 && at.Before(c.max) {
		c.w.tally.Retransmitted++
	}
	if end := at.Add(s.Len()); end.After(c.max) {
		c.max = end
		if c.life != nil {
			c.life.clientSent(end)
		}
	}
	c.put(s)
}

// window is the window field, and a promise: the edge never goes back.
func (c *client) window() uint16 {
	room := c.plan.Buffer - (c.rcv.Sub(c.iss) - 1 - c.taken)
	if c.fin {
		room++
	}
	edge := c.rcv.Add(max(room, 0))
	// The small steps of a slow reader are saved up (RFC 9293 §3.8.6.2.2).
	if edge.Sub(c.promised) < min(c.plan.Buffer/2, int(c.plan.MSS)) {
		edge = c.promised
	}
	w := max(edge.Sub(c.rcv), 0)
	w = min((w+1<<c.scaleOut-1)>>c.scaleOut, 0xffff)
	if got := c.rcv.Add(w << c.scaleOut); got.After(c.promised) {
		c.promised = got
		c.life.clientPromises(got)
	}
	return uint16(w)
}

// arrive takes a frame from the wire.
func (c *client) arrive(frame []byte) {
	f, err := wire.ParseTCP(frame)
	if err != nil {
		c.w.logf(c.name, "drops a frame: %v", err)
		return
	}
	c.segment(&f.Segment)
	c.arm()
}

func (c *client) segment(s *wire.Segment) {
	switch c.state {
	case waiting:
	case synSent:
		c.handshake(s)
	case over:
		c.late(s)
	case open:
		c.segmentArrives(s)
	}
}

// handshake is SYN-SENT (RFC 9293 §3.10.7.3).
func (c *client) handshake(s *wire.Segment) {
	if !s.Flags.Has(wire.ACK) || s.Ack != c.isn.Add(1) {
		if !s.Flags.Has(wire.RST) && s.Flags.Has(wire.ACK) { // of an older connection
			c.put(wire.Segment{Seq: s.Ack, Flags: wire.RST})
		}
		return
	}
	if s.Flags.Has(wire.RST) {
		c.end(resetByServer)
		return
	}
	if !s.Flags.Has(wire.SYN) {
		return
	}
	o := &s.Options
	c.iss, c.rcv, c.una = s.Seq, s.Seq.Add(1), s.Ack
	c.scaling = o.HasScale && c.plan.Scale >= 0
	if c.scaling {
		c.scaleOut, c.scaleIn = uint8(c.plan.Scale), min(o.Scale, 14)
	}
	c.ts, c.sack = o.HasTimestamps && c.plan.Timestamps, o.SACKPermitted && c.plan.SACK
	c.recent = o.TSVal
	c.edge = s.Ack.Add(int(s.Window))
	c.promised = c.rcv.Add(min(c.plan.Buffer, 0xffff))
	c.state, c.progress, c.rto = open, c.w.now, clientRTO
	c.rtoAt = time.Time{}
	c.life = c.w.judge.begin(c, s)
	c.emit(c.nxt, 0, nil)
	c.release()
}

// segmentArrives is RFC 9293 §3.10.7.4 for a client.
func (c *client) segmentArrives(s *wire.Segment) {
	switch {
	case c.ts && !s.Flags.Has(wire.RST) && s.Options.HasTimestamps && seq.Value(s.Options.TSVal).Before(seq.Value(c.recent)),
		!c.acceptable(s):
		if !s.Flags.Has(wire.RST) {
			c.emit(c.nxt, 0, nil)
		}
		return
	case s.Flags.Has(wire.RST):
		if s.Seq == c.rcv {
			c.life.resetBy()
			c.end(resetByServer)
		}
		return
	case s.Flags.Has(wire.SYN), !s.Flags.Has(wire.ACK), s.Ack.After(c.max):
		c.emit(c.nxt, 0, nil)
		return
	}
	if c.ts && s.Options.HasTimestamps && !s.Seq.After(c.rcv) {
		c.recent = s.Options.TSVal
	}
	c.acknowledged(s)
	c.text(s)
	c.release()
	c.maybeOver()
}

func (c *client) acceptable(s *wire.Segment) bool {
	window := uint32(max(c.promised.Sub(c.rcv), 0))
	switch n := s.Len(); {
	case n == 0 && window == 0:
		return s.Seq == c.rcv
	case n == 0:
		return s.Seq.InWindow(c.rcv, window) || s.Seq == c.rcv
	default:
		return s.Seq.InWindow(c.rcv, window) || s.Seq.Add(n-1).InWindow(c.rcv, window)
	}
}

// acknowledged takes what the server says about our stream.
func (c *client) acknowledged(s *wire.Segment) {
	if edge := s.Ack.Add(int(s.Window) << c.scaleIn); edge.After(c.edge) {
		if !c.edge.After(c.una) { // the window was shut
			c.nxt, c.rto, c.progress = seq.Max(c.una, s.Ack), clientRTO, c.w.now
		}
		c.edge = edge
		c.dups = 0
	}
	switch n := s.Ack.Sub(c.una); {
	case n > 0:
		c.una = s.Ack
		c.nxt = seq.Max(c.nxt, c.una)
		c.dups, c.rto, c.progress = 0, max(clientMinRTO, 3*c.w.plan.NetRTT), c.w.now
		c.rtoAt = time.Time{}
		c.finAcked = c.finWanted && c.una == c.finSeq().Add(1)
	case n == 0 && s.Len() == 0 && s.Window == c.lastWindow && c.max != c.una:
		if c.dups++; c.dups == 3 {
			c.retransmitFirst()
		}
	}
	c.lastWindow = s.Window
	if !c.edge.After(c.una) {
		c.progress = c.w.now // an answer to a probe keeps the connection (RFC 9293 §3.8.6.1)
	}
}

// finSeq is the sequence number of our FIN.
func (c *client) finSeq() seq.Value { return c.isn.Add(1 + c.released) }

// text takes octets and FIN.
func (c *client) text(s *wire.Segment) {
	if s.Len() == 0 {
		return
	}
	c.progress = c.w.now
	in := s.Seq == c.rcv && len(c.early) == 0
	c.store(s)
	c.advance()
	c.take()
	if in && !c.fin && c.plan.DelayedACK && c.ackAt.IsZero() {
		c.ackAt = c.w.now.Add(clientDelay)
		return
	}
	c.emit(c.nxt, 0, nil)
}

// store keeps the octets that lie inside what we promised.
func (c *client) store(s *wire.Segment) {
	left, right := s.Seq, s.Seq.Add(len(s.Payload))
	if s.Flags.Has(wire.FIN) {
		c.finKnown, c.finAt = true, right
	}
	left, right = seq.Max(left, c.rcv), seq.Min(right, c.promised)
	if !left.Before(right) {
		return
	}
	from, to := left.Sub(c.iss)-1, right.Sub(c.iss)-1
	if to > len(c.memory) {
		c.memory = append(c.memory, make([]byte, to-len(c.memory))...)
	}
	copy(c.memory[from:to], s.Payload[left.Sub(s.Seq):])
	c.early = unite(c.early, wire.Block{Left: left, Right: right})
}

// unite puts a range among disjoint ones.
func unite(all []wire.Block, b wire.Block) []wire.Block {
	var rest []wire.Block
	for _, e := range all {
		if e.Left.After(b.Right) || b.Left.After(e.Right) {
			rest = append(rest, e)
			continue
		}
		b.Left, b.Right = seq.Min(b.Left, e.Left), seq.Max(b.Right, e.Right)
	}
	return append([]wire.Block{b}, rest...)
}

// advance moves RCV.NXT over what has become complete.
func (c *client) advance() {
	for i, e := range c.early {
		if e.Left == c.rcv {
			c.rcv = e.Right
			c.early = slices.Delete(c.early, i, i+1)
			break
		}
	}
	if c.finKnown && c.rcv == c.finAt && !c.fin {
		c.fin = true
		c.rcv = c.rcv.Add(1)
	}
	c.life.clientHas(c.received())
}

// received is the part of the server's stream that has arrived in order.
func (c *client) received() []byte {
	n := c.rcv.Sub(c.iss) - 1
	if c.fin {
		n--
	}
	return c.memory[:n]
}

// take lets the application read, now or later.
func (c *client) take() {
	if c.plan.ReadEvery == 0 {
		c.taken = len(c.received())
		return
	}
	if c.reading || c.taken == len(c.received()) {
		return
	}
	c.reading = true
	lives := c.lives
	c.w.in(c.plan.ReadEvery, func() {
		if c.lives != lives || c.state != open {
			return
		}
		c.reading = false
		c.taken = min(c.taken+c.plan.ReadChunk, len(c.received()))
		before := c.promised
		if w := c.window(); c.promised != before && w > 0 && !c.fin {
			c.emit(c.nxt, 0, nil)
		}
		c.take()
		c.release()
		c.maybeOver()
		c.arm()
	})
}

// release lets the application write what its plan allows now, and decides about closing.
func (c *client) release() {
	if c.state != open {
		return
	}
	for c.piece < len(c.plan.Pieces) && !c.finWanted {
		p := c.plan.Pieces[c.piece]
		if p.Wait > len(c.received()) {
			break
		}
		if p.After > 0 {
			c.later(p.After)
			break
		}
		c.piece++
		c.released += p.Size
	}
	wrote := c.released == len(c.plan.Request)
	switch {
	case c.fin, wrote && c.plan.HalfClose, wrote && c.plan.HangUp && c.life.responseComplete():
		c.finWanted = true
	}
	c.output()
	if wrote && c.plan.ResetSoon && c.max == c.finSeq() {
		c.reset()
	}
}

// later releases the next piece after d.
func (c *client) later(d time.Duration) {
	if c.planned > c.piece {
		return
	}
	lives, piece := c.lives, c.piece
	c.planned = piece + 1
	c.w.in(d, func() {
		if c.lives == lives && c.state == open && c.piece == piece && !c.finWanted {
			c.piece++
			c.released += c.plan.Pieces[piece].Size
			c.release()
			c.arm()
		}
	})
}

// output sends what the windows allow.
func (c *client) output() {
	for c.state == open {
		limit := seq.Min(c.edge, c.una.Add(clientFlight*c.segmentSize()))
		end := c.finSeq()
		switch {
		case c.nxt.Before(end):
			n := min(limit.Sub(c.nxt), end.Sub(c.nxt), c.segmentSize())
			if n <= 0 || n < min(c.segmentSize(), end.Sub(c.nxt)) && c.nxt != c.una { // silly windows
				return
			}
			c.transmit(c.nxt, n)
		case c.finWanted && c.nxt == end && limit.After(end):
			c.emit(c.nxt, wire.FIN, nil)
			c.nxt = c.nxt.Add(1)
		default:
			return
		}
		if c.rtoAt.IsZero() {
			c.rtoAt = c.w.now.Add(c.rto)
		}
	}
}

// segmentSize is the most payload of a segment.
func (c *client) segmentSize() int {
	n := min(int(c.plan.MSS), 1460-20*services[c.plan.Service].v6())
	if c.ts {
		n -= 12
	}
	if c.sack {
		n -= min(len(c.early), 3)*8 + 4
	}
	return n
}

// transmit sends n octets, and the FIN with the last ones.
func (c *client) transmit(at seq.Value, n int) {
	from := at.Sub(c.isn) - 1
	flags := wire.PSH
	end := at.Add(n)
	if c.finWanted && end == c.finSeq() && c.edge.After(end) {
		flags |= wire.FIN
		end = end.Add(1)
	}
	c.emit(at, flags, []byte(c.plan.Request[from:from+n]))
	c.nxt = seq.Max(c.nxt, end)
}

// retransmitFirst sends the first segment that is not acknowledged again.
func (c *client) retransmitFirst() {
	n := min(c.finSeq().Sub(c.una), c.segmentSize(), max(c.edge.Sub(c.una), 1))
	switch {
	case n > 0:
		c.transmit(c.una, n)
	case c.finWanted && !c.finAcked:
		c.emit(c.finSeq(), wire.FIN, nil)
		c.nxt = seq.Max(c.nxt, c.finSeq().Add(1))
	}
}

// pending reports whether something waits for the server.
func (c *client) pending() bool {
	return c.una != c.finSeq() && !c.finAcked || c.finWanted && !c.finAcked
}

// arm plans the next tick.
func (c *client) arm() {
	if c.state != synSent && c.state != open {
		c.timer++
		return
	}
	if c.state == open && !c.pending() {
		c.rtoAt = time.Time{}
	} else if c.rtoAt.IsZero() {
		c.rtoAt = c.w.now.Add(c.rto)
	}
	at := c.progress.Add(clientGiveUp)
	for _, t := range []time.Time{c.rtoAt, c.ackAt} {
		if !t.IsZero() && t.Before(at) {
			at = t
		}
	}
	c.timer++
	serial := c.timer
	c.w.upkeeps++
	c.w.at(at, func() {
		if c.timer == serial {
			c.tick()
		}
	})
}

func (c *client) tick() {
	if !c.ackAt.IsZero() && !c.w.now.Before(c.ackAt) {
		c.emit(c.nxt, 0, nil)
	}
	switch {
	case !c.w.now.Before(c.progress.Add(clientGiveUp)):
		c.giveUp()
	case !c.rtoAt.IsZero() && !c.w.now.Before(c.rtoAt):
		c.rto = min(2*c.rto, clientMaxRTO)
		c.rtoAt = time.Time{}
		c.timeout()
	}
	c.arm()
}

// timeout goes back to the first segment that is not acknowledged.
func (c *client) timeout() {
	if c.state == synSent {
		c.synchronize()
		return
	}
	c.nxt = seq.Max(c.una, c.isn.Add(1))
	c.dups = 0
	c.retransmitFirst()
}

// giveUp ends a connection whose server is silent.
func (c *client) giveUp() {
	if c.state == open {
		c.emit(c.max, wire.RST, nil)
	}
	c.end(c.verdict())
}

// verdict names the outcome of a connection that the client leaves behind because nothing comes any more.
func (c *client) verdict() string {
	switch {
	case c.life == nil:
		c.w.judge.unreachable(c)
		return lost
	case c.fin, c.life.responseComplete() && c.finWanted: // it has what it came for; only the goodbye is missing
		return c.life.outcome()
	}
	c.life.lostBy(c)
	return lost
}

// maybeOver ends a connection of which both FINs are acknowledged, after a time for the last ACK to get lost in.
func (c *client) maybeOver() {
	if c.state != open || !c.fin || !c.finAcked || !c.ended.IsZero() {
		return
	}
	c.ended = c.w.now
	lives := c.lives
	c.w.in(clientGrace, func() {
		if c.lives == lives && c.state == open {
			c.end(c.life.outcome())
		}
	})
}

// end leaves the connection behind.
func (c *client) end(outcome string) {
	c.w.logf(c.name, "is through: %s", outcome)
	if c.life != nil {
		c.life.clientGone = true
	}
	c.w.tally.conn(outcome)
	c.state = over
	c.lives++
	c.timer++
	if c.plan.Again && c.lives == 1 {
		pause := 2 * time.Second
		if c.plan.ResetSoon || c.hurry { // a client in a hurry: its transfer may still be under way
			pause = 100 * time.Millisecond
		}
		c.w.in(c.w.between(0, pause), c.connect)
	}
}

// late answers what comes for a connection that is over (RFC 9293 §3.10.7.1).
func (c *client) late(s *wire.Segment) {
	if s.Flags.Has(wire.RST) || !s.Flags.Has(wire.ACK) {
		return
	}
	c.put(wire.Segment{Seq: s.Ack, Flags: wire.RST})
}

// reset aborts the connection.
func (c *client) reset() {
	switch c.state {
	case synSent:
		c.end(resetByClient)
	case open:
		c.emit(c.nxt, wire.RST, nil)
		c.end(resetByClient)
	case waiting, over:
	}
}

// restart forgets the connection without a word; the next one comes soon.
func (c *client) restart() {
	if c.state == open && c.plan.Again {
		c.hurry = true
		c.end(resetByClient)
	}
}

// finish shuts down writing, whatever was still to be written.
func (c *client) finish() {
	if c.state == open {
		c.life.cutBy(c.released)
		c.finWanted = true
		c.output()
		c.arm()
	}
}

// blindSYN is somebody else's, or an older self's.
func (c *client) blindSYN() {
	c.w.tally.fault(BlindSYN)
	c.put(wire.Segment{Seq: seq.Value(c.w.rng.Uint32()), Flags: wire.SYN, Window: 1000})
}

// forge sends in the client's name what no owner may believe (RFC 5961 §3, §5; RFC 7323 §5). It waits until somebody is
// the owner: whoever knows the cookie and speaks first is the client.
func (c *client) forge(kind ActKind) {
	if c.state != open || c.una == c.isn.Add(1) || c.max != c.finSeq() || c.finWanted {
		return
	}
	s := wire.Segment{Seq: c.max, Ack: c.rcv, Flags: wire.ACK, Window: 1}
	if c.ts {
		s.Options.HasTimestamps, s.Options.TSVal, s.Options.TSEcr = true, c.tsval(), c.recent
	}
	switch {
	case kind == ForgeReset && c.piece == len(c.plan.Pieces): // else its number may become the next octet's
		s.Seq, s.Flags = s.Seq.Add(2+c.w.rng.IntN(500)), wire.RST
	case kind == ForgeACK:
		s.Ack, s.Payload = s.Ack.Add(1<<22), []byte("forged")
	case kind == ForgeOld && c.ts:
		s.Options.TSVal -= 1_000_000
		s.Payload = []byte("forged")
	default:
		return
	}
	c.w.tally.fault(Forged)
	c.put(s)
}

// probe is a keep-alive probe (RFC 9293 §3.8.4).
func (c *client) probe() {
	if c.state == open {
		c.emit(c.nxt.Add(-1), 0, nil)
	}
}
