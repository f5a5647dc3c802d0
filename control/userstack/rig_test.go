package userstack

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"baton/control/agent"
	"baton/control/transfer"
	"baton/fastpath/flow"
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

const (
	patience = 30 * time.Second
	window   = 32768
)

var (
	service  = netip.MustParseAddrPort("10.77.0.10:80")
	client   = netip.MustParseAddrPort("10.77.0.100:40000")
	web      = agent.Job{Name: "web", Service: service}
	peerJob  = agent.Job{Name: "web", Service: client} // the client's end of the link is a stack as well
	errBusy  = errors.New("busy")
	targetAt = netip.MustParsePrefix("10.77.0.21/24")
)

// plane is one end of a link in memory: a Dataplane whose frames arrive at its peer.
type plane struct {
	mac  wire.MAC
	own  netip.Prefix
	also netip.Addr // another address that it answers ARP for: a client's own
	peer *plane
	wake chan struct{}

	mu      sync.Mutex
	flows   map[wire.Tuple]flow.Punt // adopted
	next    flow.ID
	arrived []flow.Punt
	lose    func(frame []byte) bool // of the frames that are sent
	busy    func() bool             // refuses frames
	silent  bool                    // answers no ARP
	asked   int                     // ARP requests that came
	sent    int                     // frames
}

// newLink makes the two ends of a link.
func newLink() (target, far *plane) {
	target = &plane{mac: wire.MAC{2, 0, 0, 0, 0, 21}, own: targetAt}
	far = &plane{mac: wire.MAC{2, 0, 0, 0, 0, 100}, own: netip.MustParsePrefix("10.77.0.100/24"), also: client.Addr()}
	target.also = service.Addr() // a real target answers for its own address only; the far end has to find it, though
	target.peer, far.peer = far, target
	for _, p := range []*plane{target, far} {
		p.wake, p.flows = make(chan struct{}, 1), map[wire.Tuple]flow.Punt{}
	}
	return target, far
}

func (p *plane) Receive(dst []flow.Punt) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := copy(dst, p.arrived)
	p.arrived = p.arrived[n:]
	return n
}

func (p *plane) Wait(d time.Duration) {
	select {
	case <-p.wake:
	case <-time.After(d):
	}
}

func (p *plane) Wake() { poke(p.wake) }

func (p *plane) punt(q flow.Punt) {
	p.mu.Lock()
	p.arrived = append(p.arrived, q)
	p.mu.Unlock()
	p.Wake()
}

func (p *plane) Transmit(_ uint16, frame []byte) error {
	p.mu.Lock()
	busy, lost := p.busy != nil && p.busy(), p.lose != nil && p.lose(frame)
	if !busy {
		p.sent++
	}
	p.mu.Unlock()
	switch {
	case busy:
		return errBusy
	case !lost:
		p.peer.arrive(append([]byte(nil), frame...))
	}
	return nil
}

// arrive takes a frame from the peer.
func (p *plane) arrive(frame []byte) {
	if q, err := wire.ParseARP(frame); err == nil {
		p.mu.Lock()
		p.asked++
		answers := !p.silent && (q.TargetIP == p.own.Addr() || q.TargetIP == p.also)
		p.mu.Unlock()
		if answers {
			p.peer.punt(flow.Punt{Kind: flow.Neighbour, Addr: q.TargetIP, MAC: p.mac})
		}
		return
	}
	f, err := wire.ParseTCP(frame)
	if err != nil || f.Link.Dst != p.mac {
		return
	}
	p.mu.Lock()
	q, known := p.flows[wire.Tuple{Client: f.Src, Service: f.Dst}]
	p.mu.Unlock()
	if known {
		q.Kind, q.Frame = flow.Segment, frame
		p.punt(q)
	}
}

func (p *plane) Adopt(_ uint16, inc wire.Incarnation, _ flow.OwnerID) error {
	p.mu.Lock()
	old := p.flows[inc.Tuple]
	p.next++
	q := flow.Punt{Kind: flow.Adopted, Flow: p.next, Inc: inc}
	p.flows[inc.Tuple] = q
	p.mu.Unlock()
	if old.Flow != 0 {
		p.punt(flow.Punt{Kind: flow.Gone, Flow: old.Flow, Inc: old.Inc})
	}
	p.punt(q)
	return nil
}

func (p *plane) CloseFlow(id flow.ID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for t, q := range p.flows {
		if q.Flow == id {
			delete(p.flows, t)
		}
	}
	return nil
}

func (p *plane) Port(uint16) (wire.MAC, netip.Prefix) { return p.mac, p.own }

// change lets a test change how the plane behaves while it is used.
func (p *plane) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// reporter is the agent of a test.
type reporter chan wire.Incarnation

func (r reporter) Ended(inc wire.Incarnation) { r <- inc }
func (r reporter) LookAgain()                 {}

// Back is for kernels only.
func (r reporter) Back(transfer.Record, func(bool)) {}

// end is a running stack with its reports.
type end struct {
	*Stack
	ends reporter
	stop func()
}

// startStack runs a stack until the test ends.
func startStack(t testing.TB, dp Dataplane, job agent.Job, change ...func(*Config)) *end {
	t.Helper()
	cfg := Config{Ports: 1, Jobs: []agent.Job{job}, Window: 1 << 18, MaxConns: 1000, Clock: time.Now,
		Log: slog.New(slog.DiscardHandler)}
	for _, c := range change {
		c(&cfg)
	}
	e := &end{Stack: New(cfg, dp), ends: make(reporter, 1000)}
	e.Begin(e.ends)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := e.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	e.stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(e.stop)
	return e
}

// recordOf is a connection that just began, as the owner of the service side has it; data is what it has to read.
func recordOf(client netip.AddrPort, irs seq.Value, data string) transfer.Record {
	iss := irs.Add(1 << 30) // no incarnation's segments fit another
	first := irs.Add(1)
	return transfer.Record{
		Epoch: 1, Inc: wire.Incarnation{Tuple: wire.Tuple{Client: client, Service: service}, IRS: irs, ISS: iss}, Job: "web",
		Handshake: wire.Handshake{MSS: 1460, OwnMSS: 1460, Scaling: true, SndScale: 7, RcvScale: 7, SACK: true,
			Timestamps: true},
		ReadFrom: first, RcvNxt: first.Add(len(data)), RcvAcked: first, RcvEdge: first.Add(window), Data: []byte(data),
		SndUna: iss + 1, SndNxt: iss + 1, SndWnd: window, SndWL1: irs, SndWL2: iss + 1,
	}
}

// mirrored is the same connection as the client has it.
func mirrored(r transfer.Record) transfer.Record {
	m := r
	m.Inc = wire.Incarnation{Tuple: wire.Tuple{Client: r.Inc.Service, Service: r.Inc.Client}, IRS: r.Inc.ISS, ISS: r.Inc.IRS}
	m.Data, m.ReadFrom, m.RcvNxt, m.RcvAcked = nil, r.SndNxt, r.SndNxt, r.SndNxt
	m.RcvEdge = r.SndNxt.Add(window)
	m.SndUna, m.SndNxt, m.SendData = r.ReadFrom, r.RcvNxt, r.Data
	m.SndWL1, m.SndWL2 = r.Inc.ISS, r.ReadFrom
	return m
}

// give imports a record.
func (e *end) give(t testing.TB, r transfer.Record) {
	t.Helper()
	done, p := e.Import(t.Context(), &transfer.Import{Host: "rh1", Transfer: 1, Record: r})
	if p != nil {
		t.Fatalf("import: %v, %v", p.Reason, p)
	}
	if done.RcvNxt != r.RcvNxt || done.Took <= 0 {
		t.Fatalf("imported %+v, want rcv.nxt %v", done, r.RcvNxt)
	}
	done.Known()
}

// world is a target's stack and a client's, with a listener each.
type world struct {
	target, far       *plane
	server, peer      *end
	accepted, dialled *Listener
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{}
	w.target, w.far = newLink()
	w.server, w.peer = startStack(t, w.target, web), startStack(t, w.far, peerJob)
	var err1, err2 error
	w.accepted, err1 = w.server.Listen(web)
	w.dialled, err2 = w.peer.Listen(peerJob)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return w
}

// connect makes a connection and returns its two ends. The client has sent data already.
func (w *world) connect(t testing.TB, data string) (server, peer *Conn) {
	t.Helper()
	r := recordOf(client, 5000, data)
	w.peer.give(t, mirrored(r))
	w.server.give(t, r)
	return accept(t, w.accepted), accept(t, w.dialled)
}

func accept(t testing.TB, l *Listener) *Conn {
	t.Helper()
	if err := l.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
	return c.(*Conn)
}

// ended waits for the report of an end.
func (e *end) ended(t testing.TB) wire.Incarnation {
	t.Helper()
	select {
	case inc := <-e.ends:
		return inc
	case <-time.After(patience):
		t.Fatal("no end is reported")
		return wire.Incarnation{}
	}
}
