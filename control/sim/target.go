package sim

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"time"

	"baton/control/tcp"
	"baton/control/transfer"
	"baton/fastpath/wire"
)

// Times of a target host.
const (
	appIdle  = 20 * time.Second // an application ends a connection on which nothing happens
	reboot   = 20 * time.Second // longer than a giver waits, as that of a real host
	sendRoom = 32 << 10         // octets that a kernel takes from an application
	remember = 40 * time.Second
)

func targetName(i int) string { return fmt.Sprintf("t%d", i+1) }

func targetAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 77, 0, byte(21 + i)}) }

// target is a target host: the taker that its agent runs, a kernel whose sockets are imported control/tcp connections,
// and its applications.
type target struct {
	w      *world
	index  int
	name   string
	addr   netip.Addr
	mac    wire.MAC
	skew   time.Duration // of its clock
	stream *stream
	lan    *link // to the routing host

	taker   *transfer.Taker
	planned uint64 // serial of the planned look at its deadline
	agent   int    // counts the agents; what an older one began is void
	running map[attempt]transfer.Record
	conns   map[wire.Tuple]*socket
	pins    map[wire.Incarnation]transfer.Flow // survive the agent
	off     bool                               // the host is down
	paused  time.Time                          // it stands still until then
	gifts   []*gift                            // on their way back to the routing host
	giftID  transfer.ID                        // of the last one
}

// attempt names an import.
type attempt struct {
	host string
	id   transfer.ID
}

func newTarget(w *world, i int) *target {
	t := &target{w: w, index: i, name: targetName(i), addr: targetAddr(i), mac: wire.MAC{2, 0, 0, 0, 0, byte(21 + i)},
		conns: map[wire.Tuple]*socket{}, pins: map[wire.Incarnation]transfer.Flow{}}
	t.skew = w.between(-w.plan.Skew, w.plan.Skew)
	t.lan = &link{w: w, name: "lan<" + t.name, delay: 20 * time.Microsecond, faults: w.plan.LAN}
	t.stream = &stream{w: w, t: t}
	t.boot()
	w.in(w.between(0, 50*time.Millisecond), t.stream.open)
	return t
}

// boot starts an agent with what the host remembers.
func (t *target) boot() {
	t.agent++
	t.running = map[attempt]transfer.Record{}
	limits := transfer.DefaultLimits()
	limits.Remember = remember
	var live, ended []transfer.Flow
	for inc, f := range t.sortedPins() {
		if s := t.conns[inc.Tuple]; s != nil && s.life.inc == inc {
			live = append(live, f)
		} else {
			ended = append(ended, f)
			t.w.judge.lives[inc].restartedOver()
		}
	}
	t.taker = transfer.NewTaker(limits, live, ended, t.w.now)
	t.plan()
}

// crashAgent restarts the agent; the kernel goes on.
func (t *target) crashAgent(d time.Duration) {
	if t.off || len(t.gifts) > 0 { // their freeze would end with it
		return
	}
	t.w.tally.fault(AgentCrashed)
	t.w.logf(t.name, "agent crashes")
	t.agent++ // results of this one find nobody
	t.taker = nil
	t.stream.targetUp = false
	t.stream.fail(streamNotices)
	t.stream.targetUp = false
	agent := t.agent
	t.w.in(d, func() {
		if t.agent == agent && !t.off {
			t.w.logf(t.name, "agent starts")
			t.boot()
			t.stream.open()
		}
	})
}

// crash loses everything of the host. It is back when no routing host waits for it any more.
func (t *target) crash() {
	if t.off {
		return
	}
	t.w.tally.fault(TargetCrashed)
	t.w.logf(t.name, "host crashes")
	t.off = true
	t.agent++
	t.taker = nil
	t.stream.fail(streamNotices)
	t.stream.targetUp = false
	for _, s := range t.conns {
		s.gone = true
		s.timer++
		s.life.crashed(t)
	}
	for inc := range t.pins { // also what has ended and nobody could be told of
		t.w.judge.lives[inc].lostHost = true
	}
	t.conns, t.pins = map[wire.Tuple]*socket{}, map[wire.Incarnation]transfer.Flow{}
	t.gifts = nil
	t.w.in(reboot, func() {
		t.w.logf(t.name, "host is back")
		t.off = false
		t.boot()
		t.stream.open()
	})
}

// pause lets the host stand still.
func (t *target) pause(d time.Duration) {
	t.w.tally.fault(TargetPaused)
	t.w.logf(t.name, "host pauses for %v", d)
	t.paused = t.w.now.Add(d)
}

// resume ends a pause.
func (t *target) resume() { t.paused = time.Time{} }

// awake calls do when the host runs.
func (t *target) awake(do func()) {
	switch {
	case t.off:
	case t.w.now.Before(t.paused):
		t.w.upkeeps++
		t.w.at(t.paused, func() { t.awake(do) })
	default:
		do()
	}
}

// hear takes a message of the routing host.
func (t *target) hear(m transfer.Message) {
	agent := t.agent
	t.awake(func() {
		if t.agent == agent && !t.answered(m) {
			t.step(transfer.Received{Host: hostName, Message: m})
		}
	})
}

// step gives the taker an event and does what it says.
func (t *target) step(e transfer.Event) {
	if t.taker == nil {
		return
	}
	agent := t.agent
	for _, a := range t.taker.Step(e, t.w.now) {
		t.perform(a)
		if t.agent != agent { // it crashed meanwhile
			return
		}
	}
	t.allGifts(e)
	t.plan()
}

// plan has the taker look at its deadlines in time.
func (t *target) plan() {
	at := t.taker.Deadline()
	if at.IsZero() {
		return
	}
	t.planned++
	serial, agent := t.planned, t.agent
	t.w.upkeeps++
	t.w.at(at, func() {
		t.awake(func() {
			if t.planned == serial && t.agent == agent {
				t.step(transfer.Timeout{})
			}
		})
	})
}

// perform does one action of the taker.
func (t *target) perform(a transfer.Action) {
	switch a := a.(type) {
	case transfer.Send:
		t.say(a.Message)
	case transfer.Check:
		t.check(a)
	case transfer.Import:
		t.begin(a)
	case transfer.StopImport:
		t.stopImport(a)
	case transfer.Forget:
		if !t.w.has(pinLeak) {
			delete(t.pins, a.Inc)
		}
	case transfer.Fault:
		t.w.fail("%s: the routing host contradicts itself: %s", t.name, a.Detail)
	}
}

func (t *target) say(m transfer.Message) {
	agent := t.agent
	switch m := m.(type) {
	case transfer.OfferReply:
		if m.Accepted {
			t.w.reach(AtAccept, t.w.judge.about(m).client, t)
		}
	case transfer.Confirm:
		if l := t.w.judge.about(m); l != nil {
			t.w.reach(AtConfirm, l.client, t)
		}
	}
	if t.agent == agent {
		t.stream.up(m)
	}
}

// check answers whether the connection could be taken.
func (t *target) check(a transfer.Check) {
	agent := t.agent
	t.w.in(t.w.between(0, t.w.plan.Check), func() {
		t.awake(func() {
			if t.agent != agent {
				return
			}
			result := transfer.Checked{Host: a.Host, Transfer: a.Offer.Transfer}
			if !t.w.healed && t.w.chance(t.w.plan.Reject) {
				result.Reason = transfer.ReasonCapacity
			}
			t.step(result)
		})
	})
}

// begin imports, after a while. The flow is pinned before there is a socket.
func (t *target) begin(a transfer.Import) {
	l := t.w.judge.lives[a.Record.Inc]
	t.w.reach(AtImport, l.client, t)
	if t.taker == nil {
		return
	}
	t.pins[a.Record.Inc] = transfer.Flow{Inc: a.Record.Inc, Epoch: a.Record.Epoch, Job: a.Record.Job, Host: a.Host,
		Transfer: a.Transfer, RcvNxt: a.Record.RcvNxt}
	t.running[attempt{a.Host, a.Transfer}] = a.Record
	agent := t.agent
	t.w.in(t.w.between(0, t.w.plan.Import), func() {
		t.awake(func() {
			if t.agent == agent {
				t.imports(attempt{a.Host, a.Transfer})
			}
		})
	})
}

// imports makes the socket, unless it was told not to.
func (t *target) imports(key attempt) {
	record, ok := t.running[key]
	if !ok {
		return
	}
	delete(t.running, key)
	if !t.w.healed && t.w.chance(t.w.plan.NoImport) {
		delete(t.pins, record.Inc)
		t.step(transfer.NotImported{Host: key.host, Transfer: key.id, Reason: transfer.ReasonImport})
		return
	}
	conn, err := tcp.Import(record, t.w.plan.Window, t.w.now.Add(t.skew))
	if err != nil {
		t.w.fail("%s: import: %v", t.name, err)
		return
	}
	if old := t.conns[record.Inc.Tuple]; old != nil { // a leftover, killed without a word
		old.over()
	}
	l := t.w.judge.lives[record.Inc]
	s := &socket{t: t, conn: conn, life: l, plan: l.client.plan, active: t.w.now, skew: t.skew,
		read: record.ReadFrom.Sub(record.Inc.IRS) - 1, wrote: l.answered}
	s.readBefore, s.wroteBefore = s.read, s.wrote
	t.conns[record.Inc.Tuple] = s
	l.imported(t, &record)
	t.importElsewhere(s, &record)
	t.step(transfer.Imported{Host: key.host, Transfer: key.id, RcvNxt: record.RcvNxt})
	s.starts()
	s.run()
}

func (t *target) stopImport(a transfer.StopImport) {
	key := attempt{a.Host, a.Transfer}
	if _, ok := t.running[key]; !ok {
		return
	}
	delete(t.running, key)
	delete(t.pins, a.Inc)
	agent := t.agent
	t.w.in(0, func() {
		if t.agent == agent {
			t.step(transfer.NotImported{Host: a.Host, Transfer: a.Transfer, Reason: transfer.ReasonImport, Detail: "stopped"})
		}
	})
}

// arrive takes a frame from the wire.
func (t *target) arrive(frame []byte) { t.awake(func() { t.frame(frame) }) }

func (t *target) frame(frame []byte) {
	if a, err := wire.ParseARP(frame); err == nil {
		if a.Op == wire.ARPRequest && a.TargetIP == t.addr {
			reply := wire.ARP{Op: wire.ARPReply, SenderMAC: t.mac, SenderIP: t.addr, TargetMAC: a.SenderMAC,
				TargetIP: a.SenderIP}
			t.lan.carry(wire.AppendARP(nil, reply), t.w.host.arrive)
		}
		return
	}
	f, err := wire.ParseTCP(frame)
	if err != nil {
		t.w.logf(t.name, "drops a frame: %v", err)
		return
	}
	s := t.conns[wire.Tuple{Client: f.Src, Service: f.Dst}]
	if t.w.has(deafTarget) && f.Src.Port()%2 == 0 {
		return
	}
	if s == nil { // the guard lets nothing else pass
		t.w.logf(t.name, "drops a segment of no connection")
		return
	}
	if s.frozen {
		t.w.logf(t.name, "drops a segment of a frozen connection")
		return
	}
	if t.w.chance(t.w.plan.Move) {
		s.moves()
	}
	if !s.gone && t.w.chance(t.w.plan.Give) {
		s.gives()
	}
	if s.gone || s.frozen {
		return
	}
	s.act(s.conn.Segment(f.Segment, s.clock()))
	s.run()
}

// socket is a connection at a target, with the application that serves it.
type socket struct {
	t      *target
	conn   *tcp.Conn
	life   *life
	plan   *ClientPlan
	timer  uint64 // serial of the planned tick
	active time.Time
	skew   time.Duration // of the clock

	read    int  // octets of the client's stream that the application has read
	wrote   int  // octets of its response that it has written
	closing bool // it has sent its FIN
	left    bool // it reads no more
	waits   bool // for its next look
	gone    bool
	frozen  bool // it is on its way back

	readBefore, wroteBefore int // by those who had it before
}

// act sends what the connection wants sent.
func (s *socket) act(a tcp.Actions) {
	for i := range a.Segments {
		if s.gone {
			return
		}
		l := wire.Link{Dst: clientMAC, Src: s.t.mac}
		frame := wire.AppendTCP(nil, l, s.life.inc.Service, s.life.inc.Client, a.Segments[i])
		frame = s.t.w.spoil(frame)
		s.t.w.judge.towardsClient(frame, s)
		s.t.w.toClient(frame)
	}
	if a.Closed && !s.gone {
		s.over()
	}
}

// over ends the connection here.
func (s *socket) over() {
	s.gone = true
	s.timer++
	s.t.w.logf(s.t.name, "%s: connection is over", s.life.client.name)
	delete(s.t.conns, s.life.inc.Tuple)
	s.life.ended(s.t)
	inc, t, agent := s.life.inc, s.t, s.t.agent
	if t.w.has(endLeak) {
		return
	}
	t.w.in(10*time.Microsecond, func() {
		if t.agent == agent {
			t.step(transfer.Ended{Inc: inc})
		}
	})
}

// run lets the application do what it can, and plans the next tick.
func (s *socket) run() {
	for more := true; more && !s.gone && !s.frozen; {
		more = s.application()
	}
	if s.gone || s.frozen {
		return
	}
	s.timer++
	at := s.conn.Deadline()
	if idle := s.active.Add(appIdle + s.skew); !s.left && (at.IsZero() || idle.Before(at)) {
		at = idle
	}
	if at.IsZero() {
		return
	}
	serial := s.timer
	s.t.w.upkeeps++
	s.t.w.at(at.Add(-s.skew), func() {
		if s.timer == serial {
			s.t.awake(s.tick)
		}
	})
}

func (s *socket) tick() {
	if s.gone || s.frozen {
		return
	}
	if s.t.w.chance(s.t.w.plan.Move) {
		s.moves()
	}
	if !s.gone && s.t.w.chance(s.t.w.plan.Give) {
		s.gives()
	}
	if s.frozen {
		return
	}
	if !s.gone {
		s.act(s.conn.Tick(s.clock()))
	}
	if !s.gone && !s.left && s.t.w.now.Sub(s.active) >= appIdle {
		s.t.w.logf(s.t.name, "%s: idle, closes", s.life.client.name)
		s.life.idle = true
		s.closes(true)
	}
	s.run()
}

// application reads or writes once; false: there is nothing to do now.
func (s *socket) application() bool {
	p := s.plan
	switch {
	case s.waits || s.left:
		return false
	case len(s.conn.Peek()) > 0:
		s.reads()
	case s.conn.State() == tcp.Closed:
		return false
	case s.answers() && s.wrote < p.Response && s.conn.Queued() < sendRoom && !s.closing:
		s.writes()
	case s.conn.EOF() && (s.wrote == p.Response || !s.answers()), s.answers() && s.wrote == p.Response && p.AppCloses:
		s.closes(!p.AppHalf || s.conn.EOF())
		return false
	default:
		return false
	}
	s.active = s.t.w.now
	return true
}

// answers reports whether the application has read enough to answer.
func (s *socket) answers() bool { return s.read >= len(s.plan.Request) || s.plan.Early && s.read > 0 }

func (s *socket) reads() {
	p := s.conn.Peek()
	if s.plan.AppEvery > 0 {
		p = p[:min(len(p), 2000)]
		s.sleep(s.plan.AppEvery)
	}
	s.life.targetReads(s.read, p)
	s.read += len(p)
	if s.t.w.has(lateOctet) {
		s.read--
	}
	s.conn.Receive(len(p))
}

func (s *socket) writes() {
	n := min(s.plan.AppChunk, s.plan.Response-s.wrote)
	p := s.plan.response(s.wrote, n)
	s.wrote += n
	s.life.writes(p)
	s.act(s.conn.Write(p, s.clock()))
	if s.plan.AppEvery > 0 {
		s.sleep(s.plan.AppEvery)
	}
}

// closes sends the FIN; leave says that nobody reads any more.
func (s *socket) closes(leave bool) {
	if leave {
		s.closing, s.left = true, true
		s.act(s.conn.Linger(s.clock()))
		return
	}
	if !s.closing {
		s.closing = true
		s.act(s.conn.CloseWrite(s.clock()))
	}
}

// moves hands the connection to another process, or host, by a record, as it is; it goes on there without a word or
// with one. Only the clock is another one.
func (s *socket) moves() {
	w := s.t.w
	s.act(s.conn.Tick(s.clock())) // timers travel as distances from the last event
	if s.gone {
		return
	}
	s.conn.Freeze()
	rec, err := s.conn.Export("next", 1)
	if err != nil {
		s.act(s.conn.Thaw(s.clock()))
		return
	}
	b, err := rec.Encode()
	if err != nil {
		s.life.fail("encode: %v", err)
		return
	}
	if rec, err = transfer.Decode(b); err != nil {
		s.life.fail("decode: %v", err)
		return
	}
	s.skew = w.between(-w.plan.Skew, w.plan.Skew)
	if s.conn, err = tcp.Import(rec, w.plan.Window, s.clock()); err != nil {
		s.life.fail("move: %v", err)
		return
	}
	w.tally.conn(movedOn)
	w.logf(s.t.name, "%s: moves on in %v", s.life.client.name, s.conn.State())
	s.starts()
}

// starts begins to own the connection.
func (s *socket) starts() {
	s.conn.AutoACK(s.t.w.plan.AutoACK)
	if s.t.w.plan.Announce {
		s.act(s.conn.Announce(s.clock()))
	}
}

// clock is that of the host that has the connection.
func (s *socket) clock() time.Time { return s.t.w.now.Add(s.skew) }

// sleep keeps the application from looking for a time.
func (s *socket) sleep(d time.Duration) {
	s.waits = true
	s.t.w.in(d, func() {
		s.t.awake(func() {
			s.waits = false
			s.run()
		})
	})
}

// response is n octets of the application's answer, from one on.
func (c *ClientPlan) response(from, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		at := from + i
		b[i] = byte('A' + (at^at>>8^at>>4+int(c.Port))%26)
	}
	return b
}

// sortedPins yields the pins in an order that a replay has too.
func (t *target) sortedPins() iter.Seq2[wire.Incarnation, transfer.Flow] {
	incs := slices.SortedFunc(maps.Keys(t.pins), func(a, b wire.Incarnation) int {
		return cmp.Or(a.Client.Compare(b.Client), cmp.Compare(a.ISS, b.ISS), cmp.Compare(a.IRS, b.IRS))
	})
	return func(yield func(wire.Incarnation, transfer.Flow) bool) {
		for _, inc := range incs {
			if !yield(inc, t.pins[inc]) {
				return
			}
		}
	}
}
