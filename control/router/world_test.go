package router

import (
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"baton/control/inspect"
	"baton/control/transfer"
	"baton/fastpath/flow"
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// The world of these tests: a router over a data plane and target hosts that do what they are told, in virtual time.

var (
	service   = netip.MustParseAddrPort("10.77.0.10:80")
	portMAC   = wire.MAC{2, 0, 0, 0, 0, 1}
	clientMAC = wire.MAC{2, 0, 0, 0, 0, 100}
	targetMAC = map[string]wire.MAC{"t1": {2, 0, 0, 0, 0, 21}, "t2": {2, 0, 0, 0, 0, 22}}
	hostAddr  = map[string]netip.Addr{"t1": netip.MustParseAddr("10.77.0.21"), "t2": netip.MustParseAddr("10.77.0.22")}
	errBusy   = errors.New("ring full")
)

const window = 4096 // W

type world struct {
	t       *testing.T
	now     time.Time
	plane   *plane
	cluster *cluster
	router  *Router
	seen    *observed
	lastID  transfer.ID // of a hand-back
}

// newWorld has a router and two targets that are connected, announced and known on the data network.
func newWorld(t *testing.T) *world {
	w := bareWorld(t)
	w.meet("web-a", "web-b")
	return w
}

// meet has both targets come and announce jobs.
func (w *world) meet(jobs ...string) {
	for _, host := range []string{"t1", "t2"} {
		w.router.HostUp(host)
		w.router.HostJobs(host, ready(jobs...))
	}
	w.run()
}

// bareWorld has a router and targets that nobody has heard of yet.
func bareWorld(t *testing.T, change ...func(*Config)) *world {
	t.Helper()
	w := &world{t: t, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), seen: &observed{}}
	w.plane = &plane{w: w, flows: map[flow.ID]*planeFlow{}, clients: map[wire.Incarnation]*client{}, owners: map[flow.OwnerID]flow.Nexthop{},
		targets: map[netip.AddrPort][]flow.Targets{}, answerARP: true}
	w.cluster = &cluster{w: w, reply: map[string]func(transfer.Message) transfer.Message{}}
	http, err := inspect.NewHTTP(inspect.HTTPConfig{Rules: []inspect.Rule{
		{Host: "a.example", Choice: inspect.Choice{Job: "web-a"}}, {Host: "b.example", Choice: inspect.Choice{Job: "web-b"}}, {Host: "x.example", Choice: inspect.Choice{Job: "web-x"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	config := Config{
		Epoch: 7,
		Ports: 1,
		Services: []Service{{
			Address: service, Window: window, Hold: flow.HoldBuffer, RequestTimeout: 10 * time.Second,
			OfferTimeout: 200 * time.Millisecond, ConfirmTimeout: time.Second, GiveUp: 15 * time.Second,
			NewSession: func() inspect.Session { return http.Session(window) },
		}},
		Jobs:     map[string][]string{"web-a": {"t1", "t2"}, "web-b": {"t2"}},
		Targets:  hostAddr,
		MaxConns: 4,
		Clock:    func() time.Time { return w.now },
		Log:      slog.New(slog.DiscardHandler),
		Observer: w.seen,
	}
	for _, c := range change {
		c(&config)
	}
	w.router, err = New(config, w.plane, w.cluster)
	if err != nil {
		t.Fatal(err)
	}
	w.advance(10 * time.Millisecond) // the first neighbour questions
	return w
}

func ready(names ...string) []Job {
	var jobs []Job
	for _, n := range names {
		jobs = append(jobs, Job{Name: n, Service: service, Ready: true, Window: window})
	}
	return jobs
}

// run lets the router work until nothing is left to do at this time.
func (w *world) run() {
	w.t.Helper()
	for range 1000 {
		if !w.router.Turn(w.now) {
			return
		}
	}
	w.t.Fatal("the router never comes to rest")
}

// advance lets d pass, and the router work at each of its deadlines.
func (w *world) advance(d time.Duration) {
	w.t.Helper()
	end := w.now.Add(d)
	for range 10000 {
		w.run()
		next := w.router.timers.Next()
		if next.IsZero() || next.After(end) {
			w.now = end
			w.run()
			return
		}
		if next.After(w.now) {
			w.now = next
		}
	}
	w.t.Fatal("time does not pass")
}

// observed is an Observer that remembers.
type observed struct {
	ended   []string // "outcome target"
	phases  map[string]int
	refused []string
}

func (o *observed) TransferEnded(outcome, target string) {
	o.ended = append(o.ended, outcome+" "+target)
}
func (o *observed) Refused(cause string) { o.refused = append(o.refused, cause) }
func (o *observed) PhaseTook(phase string, _ time.Duration) {
	if o.phases == nil {
		o.phases = map[string]int{}
	}
	o.phases[phase]++
}

// plane is a Dataplane that carries commands out at once.
type plane struct {
	mute      bool // adoptions are not answered
	w         *world
	punts     []flow.Punt
	flows     map[flow.ID]*planeFlow
	last      flow.ID
	owners    map[flow.OwnerID]flow.Nexthop
	removed   []wire.Incarnation
	restored  []restored
	targets   map[netip.AddrPort][]flow.Targets // all that were published
	serving   []bool                            // what Serve said
	questions int                               // ARP requests seen
	answerARP bool                              // the targets are there
	busy      int                               // so many commands find the ring full
	slow      bool                              // freezes and switches are not reported until report
	held      []flow.Punt
	clients   map[wire.Incarnation]*client
}

// restored is what Restore was given.
type restored struct {
	inc   wire.Incarnation
	owner flow.OwnerID
	port  uint16
	frame string
}

// planeFlow is a flow as the lcore has it.
type planeFlow struct {
	client *client
	frozen bool
	held   [][]byte
}

func (p *plane) Receive(dst []flow.Punt) int {
	n := copy(dst, p.punts)
	p.punts = slices.Clone(p.punts[n:])
	return n
}

func (p *plane) Wait(time.Duration) {}
func (p *plane) Wake()              {}

func (p *plane) full() bool {
	if p.busy > 0 {
		p.busy--
		return true
	}
	return false
}

func (p *plane) Transmit(_ uint16, frame []byte) error {
	if p.full() {
		return errBusy
	}
	if a, err := wire.ParseARP(frame); err == nil {
		p.question(a)
		return nil
	}
	f, err := wire.ParseTCP(slices.Clone(frame))
	if err != nil {
		p.w.t.Fatalf("the router sent a bad frame: %v", err)
	}
	for _, fl := range p.flows {
		if fl.client.addr == f.Dst {
			fl.client.received(f)
			return nil
		}
	}
	p.w.t.Fatalf("the router sent a frame for %v, which has no flow", f.Dst)
	return nil
}

func (p *plane) question(a wire.ARP) {
	p.questions++
	if !p.answerARP {
		return
	}
	for host, addr := range hostAddr {
		if addr == a.TargetIP {
			p.punts = append(p.punts, flow.Punt{Kind: flow.Neighbour, Addr: addr, MAC: targetMAC[host]})
		}
	}
}

// answer reports a mark, now or when report is called.
func (p *plane) answer(punt flow.Punt) {
	if p.slow {
		p.held = append(p.held, punt)
		return
	}
	p.punts = append(p.punts, punt)
}

func (p *plane) report() {
	p.punts = append(p.punts, p.held...)
	p.held = nil
}

func (p *plane) Freeze(id flow.ID, _ flow.HoldMode) error {
	if p.full() {
		return errBusy
	}
	if f := p.flows[id]; f != nil {
		f.frozen = true
		p.answer(flow.Punt{Kind: flow.Frozen, Flow: id})
	}
	return nil
}

func (p *plane) Thaw(id flow.ID) error {
	if p.full() {
		return errBusy
	}
	if f := p.flows[id]; f != nil {
		f.frozen = false
		for _, frame := range f.held {
			p.punts = append(p.punts, flow.Punt{Kind: flow.Segment, Flow: id, Frame: frame})
		}
		f.held = nil
	}
	return nil
}

func (p *plane) Switch(id flow.ID, owner flow.OwnerID) error {
	if p.full() {
		return errBusy
	}
	if f := p.flows[id]; f != nil {
		f.client.owner = owner
		f.client.flushed = len(f.held)
		delete(p.flows, id)
		p.answer(flow.Punt{Kind: flow.Switched, Flow: id, Held: len(f.held), Owner: owner})
	}
	return nil
}

func (p *plane) CloseFlow(id flow.ID) error {
	if p.full() {
		return errBusy
	}
	if f := p.flows[id]; f != nil {
		f.client.closed = true
		delete(p.flows, id)
	}
	return nil
}

func (p *plane) Remove(inc wire.Incarnation, _ flow.OwnerID) error {
	p.removed = append(p.removed, inc)
	return nil
}

// Adopt takes the flow of a client back from its owner, unless the test says that there is no room.
func (p *plane) Adopt(_ uint16, inc wire.Incarnation, from flow.OwnerID) error {
	if p.full() {
		return errBusy
	}
	if p.mute {
		return nil
	}
	punt := flow.Punt{Kind: flow.Adopted, Inc: inc}
	if c := p.clients[inc]; c != nil && c.owner == from {
		p.last++
		c.owner, c.flow, punt.Flow = flow.Router, p.last, p.last
		p.flows[c.flow] = &planeFlow{client: c}
	}
	p.answer(punt)
	return nil
}

func (p *plane) Restore(inc wire.Incarnation, owner flow.OwnerID, port uint16, frame []byte) error {
	if p.full() {
		return errBusy
	}
	p.restored = append(p.restored, restored{inc, owner, port, string(frame)})
	return nil
}

func (p *plane) Serve(s netip.AddrPort, open bool) error {
	if p.full() {
		return errBusy
	}
	p.serving = append(p.serving, open)
	p.answer(flow.Punt{Kind: flow.Served, Open: open, Inc: wire.Incarnation{Tuple: wire.Tuple{Service: s}}})
	return nil
}

func (p *plane) SetOwner(id flow.OwnerID, hop flow.Nexthop) error {
	if p.full() {
		return errBusy
	}
	p.owners[id] = hop
	return nil
}

func (p *plane) SetTargets(service netip.AddrPort, t flow.Targets) error {
	if p.full() {
		return errBusy
	}
	p.targets[service] = append(p.targets[service], t)
	return nil
}

func (p *plane) Port(uint16) (wire.MAC, netip.Prefix) {
	return portMAC, netip.MustParsePrefix("10.77.0.1/24")
}

// client is a scripted client behind the plane, after its handshake.
type client struct {
	w       *world
	addr    netip.AddrPort
	inc     wire.Incarnation
	flow    flow.ID
	next    seq.Value // to send
	acked   seq.Value // highest ACK seen
	want    seq.Value // expected from the router
	edge    seq.Value // highest right edge seen
	got     []byte
	fin     bool // the router closed
	rst     bool
	frames  int          // segments received
	owner   flow.OwnerID // after a switch
	flushed int          // frames held until the switch
	closed  bool         // the router closed the flow
}

// connect makes a client on a port of its own; its first data makes the First punt.
func (w *world) connect(port uint16) *client {
	addr := netip.AddrPortFrom(netip.MustParseAddr("10.77.0.100"), port)
	irs, iss := seq.Value(0xfffffff0), seq.Value(0x7ffffff0+uint32(port)) // both wrap soon
	return &client{w: w, addr: addr, next: irs.Add(1), acked: irs.Add(1), want: iss.Add(1), edge: irs.Add(1 + window),
		inc: wire.Incarnation{Tuple: wire.Tuple{Client: addr, Service: service}, IRS: irs, ISS: iss}}
}

// ask connects a client and sends a whole request to a host.
func (w *world) ask(host string) *client {
	c := w.connect(4000)
	c.send("GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
	return c
}

func (c *client) send(data string) { c.segment(wire.ACK|wire.PSH, data) }

func (c *client) segment(flags wire.Flags, data string) {
	c.w.t.Helper()
	s := wire.Segment{Seq: c.next, Ack: c.want, Flags: flags, Window: 60000, Payload: []byte(data)}
	c.next = c.next.Add(s.Len())
	c.put(s)
}

// put gives a segment to the plane, as it is, and lets the router work.
func (c *client) put(s wire.Segment) {
	c.w.t.Helper()
	frame := wire.AppendTCP(nil, wire.Link{Dst: portMAC, Src: clientMAC}, c.addr, service, s)
	p := c.w.plane
	f := p.flows[c.flow]
	switch {
	case c.flow == 0:
		p.last++
		c.flow = p.last
		p.flows[c.flow], p.clients[c.inc] = &planeFlow{client: c}, c
		p.punts = append(p.punts, flow.Punt{Kind: flow.First, Flow: c.flow, Inc: c.inc,
			Handshake: wire.Handshake{MSS: 1460, OwnMSS: 1460}, Frame: frame})
	case f == nil: // a target's, or nobody's
	case f.frozen:
		f.held = append(f.held, frame)
	default:
		p.punts = append(p.punts, flow.Punt{Kind: flow.Segment, Flow: c.flow, Frame: frame})
	}
	c.w.run()
}

// received checks what every client may expect, and acknowledges nothing by itself.
func (c *client) received(f wire.Frame) {
	t, s := c.w.t, f.Segment
	t.Helper()
	c.frames++
	if f.Link != (wire.Link{Dst: clientMAC, Src: portMAC}) {
		t.Errorf("link %v, want from the port to the client", f.Link)
	}
	if s.Flags.Has(wire.RST) {
		c.rst = true
		return
	}
	edge := s.Ack.Add(int(s.Window))
	if edge.Before(c.edge) || s.Ack.Before(c.acked) {
		t.Errorf("ack %d or right edge %d went back (from %d, %d)", s.Ack, edge, c.acked, c.edge)
	}
	c.acked, c.edge = s.Ack, edge
	if s.Seq == c.want {
		c.got = append(c.got, s.Payload...)
		c.want = c.want.Add(s.Len())
		c.fin = c.fin || s.Flags.Has(wire.FIN)
	}
}

// finish acknowledges what came and closes the client's side.
func (c *client) finish() { c.segment(wire.ACK|wire.FIN, "") }

// cluster is a Cluster whose hosts answer as told.
type cluster struct {
	w     *world
	reply map[string]func(transfer.Message) transfer.Message // nil: silence
	down  map[string]bool
	sent  []sentMessage
}

type sentMessage struct {
	host    string
	message transfer.Message
}

func (c *cluster) Send(host string, m transfer.Message) error {
	if c.down[host] {
		return errors.New("no stream")
	}
	c.sent = append(c.sent, sentMessage{host, m})
	if f := c.reply[host]; f != nil {
		if answer := f(m); answer != nil {
			c.w.router.HostSays(host, answer)
		}
	}
	return nil
}

// last returns the newest message of a type to a host.
func last[M transfer.Message](c *cluster, host string) (M, bool) {
	for i := len(c.sent) - 1; i >= 0; i-- {
		if m, ok := c.sent[i].message.(M); ok && c.sent[i].host == host {
			return m, true
		}
	}
	var none M
	return none, false
}

// willing takes every connection.
func willing(m transfer.Message) transfer.Message {
	switch m := m.(type) {
	case transfer.Offer:
		return transfer.OfferReply{Transfer: m.Transfer, Accepted: true}
	case transfer.Commit:
		rec, err := transfer.Decode(m.Record)
		if err != nil {
			return transfer.Confirm{Transfer: m.Transfer, Reason: transfer.ReasonVersion}
		}
		return transfer.Confirm{Transfer: m.Transfer, Imported: true, RcvNxt: rec.RcvNxt}
	}
	return nil
}

// unwilling rejects every offer.
func unwilling(m transfer.Message) transfer.Message {
	if m, ok := m.(transfer.Offer); ok {
		return transfer.OfferReply{Transfer: m.Transfer, Reason: transfer.ReasonCapacity}
	}
	return nil
}
