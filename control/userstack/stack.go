package userstack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"baton/control/agent"
	"baton/control/tcp"
	"baton/control/timer"
	"baton/fastpath/flow"
	"baton/fastpath/wire"
)

// Sizes of what a Stack keeps.
const (
	puntBatch    = 64          // punts handled before applications and timers have their turn
	inboxSize    = 1024        // calls of other goroutines; a full inbox makes them wait
	backlogMax   = 4096        // frames that wait for room in the forwarder's ring; the network loses the others
	maxSleep     = time.Second // between two turns without anything to do
	commandRetry = 100 * time.Microsecond
	farewell     = 50 * time.Millisecond // for the forwarder to send the last frames
	endsSize     = 1024
)

// Dataplane is the forwarder as a Stack needs it. *fastpath.Forwarder implements it, with services that adopt. All methods
// but Wake are for one goroutine. Commands are carried out in the order in which they were given, frames included; they
// return an error only when they were not taken.
type Dataplane interface {
	// Receive fills dst with what the forwarder punted, oldest first, and returns how many. It never blocks.
	Receive(dst []flow.Punt) int
	// Wait blocks until there is something to receive, Wake is called, or d has passed.
	Wait(d time.Duration)
	// Wake ends a Wait, now or the next one. Safe from any goroutine.
	Wake()
	// Transmit sends a whole Ethernet frame (copied) on a data port.
	Transmit(port uint16, frame []byte) error
	// Adopt has the segments of a connection punted from now on. Answered by flow.Adopted.
	Adopt(port uint16, inc wire.Incarnation, from flow.OwnerID) error
	// CloseFlow forgets an adopted flow.
	CloseFlow(id flow.ID) error
	// Port returns the MAC and the configured address of data port i (0-based).
	Port(i uint16) (mac wire.MAC, addr netip.Prefix)
}

// Config is what a Stack works with. It does not change.
type Config struct {
	Ports    int        // data ports of the Dataplane
	Gateway  netip.Addr // next hop to clients on no port's network; the zero Addr: there are none
	Jobs     []agent.Job
	Window   uint32           // receive window of a connection, octets, as far as its client's scaling allows
	MaxConns int              // at once; not more than the Dataplane has room for
	Clock    func() time.Time // wall and monotonic clock; time.Now outside of tests
	Log      *slog.Logger
}

// ErrStopped is returned to other goroutines when the loop has ended.
var ErrStopped = errors.New("stack has stopped")

// ErrNoRoute says that a client is on no data port's network, and there is no gateway.
var ErrNoRoute = errors.New("no way to the client: it is on no data port's network; set data.gateway")

// Stack is a TCP stack for connections that were handed over. Run is called once; everything else is safe for concurrent
// use, except Turn and Idle, which replace Run in tests.
type Stack struct {
	cfg  Config
	dp   Dataplane
	log  *slog.Logger
	to   agent.Reporter
	jobs map[agent.Job]*job

	ports []port

	// The loop's.
	now        time.Time // of this turn
	punts      [puntBatch]flow.Punt
	conns      map[wire.Tuple]*endpoint
	flows      map[flow.ID]*endpoint
	touched    []*endpoint // in this batch of punts
	stalled    []*endpoint // that have data to send and wait for the backlog to clear
	neighbours neighbours
	timers     timer.Queue
	commands   []func() error // not yet taken by the data plane, in order; frames among them
	frame      []byte         // scratch for outgoing frames

	inbox   chan func()
	ends    chan wire.Incarnation // to be reported; a goroutine of its own may wait for the agent
	stopped chan struct{}
	count   counts

	mu     sync.Mutex // guards marked
	marked []*Conn    // whose application has done something
}

// port is a data port.
type port struct {
	mac wire.MAC
	own netip.Prefix
}

// New makes a Stack for the jobs, none of which is ready until Listen or Relay.
func New(cfg Config, dp Dataplane) *Stack {
	s := &Stack{
		cfg: cfg, dp: dp, log: cfg.Log, jobs: map[agent.Job]*job{},
		conns: map[wire.Tuple]*endpoint{}, flows: map[flow.ID]*endpoint{},
		inbox: make(chan func(), inboxSize), ends: make(chan wire.Incarnation, endsSize), stopped: make(chan struct{}),
	}
	for _, j := range cfg.Jobs {
		s.jobs[j] = &job{}
	}
	for i := range cfg.Ports {
		mac, own := dp.Port(uint16(i))
		s.ports = append(s.ports, port{mac, own})
	}
	s.neighbours = neighbours{stack: s, byAddr: map[netip.Addr]*neighbour{}}
	return s
}

// Run turns until ctx ends; then it resets all connections.
func (s *Stack) Run(ctx context.Context) error {
	var reports sync.WaitGroup
	reports.Go(s.reportEnds)
	stop := context.AfterFunc(ctx, s.dp.Wake)
	defer stop()
	for ctx.Err() == nil {
		if now := s.cfg.Clock(); !s.Turn(now) {
			if d := s.Idle(s.cfg.Clock()); d > 0 {
				s.dp.Wait(d)
			}
		}
	}
	s.leave()
	close(s.stopped)
	close(s.ends)
	reports.Wait()
	return nil
}

// leave resets all connections and gives the forwarder the time to say so.
func (s *Stack) leave() {
	s.now = s.cfg.Clock()
	for _, e := range s.conns {
		s.act(e, e.tcp.Abort(s.now))
	}
	for deadline := time.Now().Add(farewell); time.Now().Before(deadline); time.Sleep(commandRetry) {
		s.retry()
	}
}

// Turn handles what there is at the time now. It reports whether there was anything. now must not go back.
func (s *Stack) Turn(now time.Time) bool {
	s.now = now
	n := s.dp.Receive(s.punts[:])
	for i := range s.punts[:n] {
		s.punted(&s.punts[i])
	}
	for _, e := range s.touched {
		e.touched = false
		s.exchange(e)
	}
	s.touched = s.touched[:0]
	n += s.drain() + s.serveMarked()
	s.retry()
	n += s.timers.Run(now)
	return n > 0
}

// Idle is how long nothing has to be done after a turn that found nothing, unless something comes in. For the caller of
// Turn.
func (s *Stack) Idle(now time.Time) time.Duration {
	d := maxSleep
	if len(s.commands) > 0 {
		d = commandRetry
	}
	if next := s.timers.Next(); !next.IsZero() {
		d = min(d, next.Sub(now))
	}
	return d
}

// post runs f on the loop, some time later. It returns false when the loop has ended.
func (s *Stack) post(f func()) bool {
	select {
	case s.inbox <- f:
		s.dp.Wake()
		return true
	case <-s.stopped:
		return false
	}
}

// do runs f on the loop and waits for it. Errors: ErrStopped.
func (s *Stack) do(f func()) error {
	done := make(chan struct{})
	if !s.post(func() { f(); close(done) }) {
		return ErrStopped
	}
	select {
	case <-done:
		return nil
	case <-s.stopped:
		return ErrStopped
	}
}

func (s *Stack) drain() int {
	for n := range inboxSize {
		select {
		case f := <-s.inbox:
			f()
		default:
			return n
		}
	}
	return inboxSize
}

// mark has the loop look at a connection whose application has done something.
func (s *Stack) mark(c *Conn) {
	if c.marked.Swap(true) {
		return
	}
	s.mu.Lock()
	s.marked = append(s.marked, c)
	s.mu.Unlock()
	s.dp.Wake()
}

func (s *Stack) serveMarked() int {
	s.mu.Lock()
	marked := s.marked
	s.marked = nil
	s.mu.Unlock()
	for _, c := range marked {
		c.marked.Store(false) // before the look: what comes later marks it again
		s.exchange(c.endpoint)
	}
	return len(marked)
}

// punted handles one thing that the forwarder handed over.
func (s *Stack) punted(p *flow.Punt) {
	switch p.Kind {
	case flow.Segment:
		s.segment(p)
	case flow.ICMP:
		s.pathError(p)
	case flow.Adopted:
		s.adopted(p)
	case flow.Gone:
		s.gone(p)
	case flow.Neighbour:
		s.neighbours.answered(p.Addr, p.MAC)
	default: // nothing else comes of flows that are adopted
	}
}

func (s *Stack) segment(p *flow.Punt) {
	e := s.flows[p.Flow]
	if e == nil {
		s.forget(p.Flow)
		return
	}
	f, err := wire.ParseTCP(p.Frame)
	if err != nil {
		s.count.badFrames.Add(1)
		return
	}
	s.act(e, e.tcp.Segment(f.Segment, s.now))
	if !e.touched {
		e.touched = true
		s.touched = append(s.touched, e)
	}
}

// pathError tells a connection's endpoint of an ICMP error about a segment that was sent; it judges what to make of it.
func (s *Stack) pathError(p *flow.Punt) {
	e := s.flows[p.Flow]
	f, err := wire.ParseICMPError(p.Frame)
	switch {
	case e == nil: // ended meanwhile
		return
	case err != nil || f.Tuple != e.inc.Tuple:
		s.count.badFrames.Add(1)
		return
	}
	s.count.icmpErrors.Add(1)
	s.act(e, e.tcp.ICMP(f, s.now))
	s.exchange(e)
}

// adopted learns the forwarder's name of a connection, which may have ended meanwhile.
func (s *Stack) adopted(p *flow.Punt) {
	e := s.conns[p.Inc.Tuple]
	switch {
	case e == nil || e.inc != p.Inc:
		s.forget(p.Flow)
	case p.Flow == 0:
		s.log.Error("the forwarder has no room for a connection", "client", p.Inc.Client)
		s.act(e, e.tcp.Abort(s.now))
	default:
		e.id = p.Flow
		s.flows[p.Flow] = e
	}
}

// gone is the end of a flow that made way for another incarnation, whose import has ended the connection already.
func (s *Stack) gone(p *flow.Punt) { delete(s.flows, p.Flow) }

func (s *Stack) forget(id flow.ID) {
	if id != 0 {
		s.command(func() error { return s.dp.CloseFlow(id) })
	}
}

// command gives the data plane a command, or keeps it, in order, until the ring has room again.
func (s *Stack) command(c func() error) {
	if len(s.commands) == 0 && c() == nil {
		return
	}
	s.commands = append(s.commands, c)
}

// transmit sends one segment of a connection.
func (s *Stack) transmit(e *endpoint, seg *wire.Segment) {
	link := wire.Link{Dst: e.hop.mac, Src: s.ports[e.hop.port].mac}
	s.frame = wire.AppendTCP(s.frame[:0], link, e.inc.Service, e.inc.Client, *seg)
	if !e.hop.known() {
		e.hop.hold(s.frame)
		return
	}
	s.send(e.hop.port, s.frame)
}

// send gives the forwarder a frame. While it takes none, a bounded number waits; the others are lost, as a network would.
func (s *Stack) send(port uint16, frame []byte) {
	if len(s.commands) == 0 && s.dp.Transmit(port, frame) == nil {
		return
	}
	if len(s.commands) >= backlogMax {
		s.count.framesLost.Add(1)
		return
	}
	s.count.framesDelayed.Add(1)
	kept := append([]byte(nil), frame...)
	s.commands = append(s.commands, func() error { return s.dp.Transmit(port, kept) })
}

// retry gives what was not taken again. Once all is, those go on who had to wait for it.
func (s *Stack) retry() {
	n := 0
	for n < len(s.commands) && s.commands[n]() == nil {
		n++
	}
	if n > 0 {
		s.commands = append(s.commands[:0], s.commands[n:]...)
	}
	if len(s.commands) > 0 || len(s.stalled) == 0 {
		return
	}
	stalled := s.stalled
	s.stalled = nil
	for _, e := range stalled {
		s.exchange(e)
	}
}

// act does what an endpoint wants done.
func (s *Stack) act(e *endpoint, a tcp.Actions) {
	for i := range a.Segments {
		s.transmit(e, &a.Segments[i])
	}
	if a.Closed {
		s.closed(e)
	}
}

// reportEnds tells the agent what has ended. It may wait for the agent; the loop must not.
func (s *Stack) reportEnds() {
	for inc := range s.ends {
		s.to.Ended(inc)
	}
}

// counts are totals since the start; read by any goroutine.
type counts struct {
	badFrames, icmpErrors, framesLost, framesDelayed, imported, replaced atomic.Uint64
}

// Counts returns the totals since the start, by name.
func (s *Stack) Counts() map[string]uint64 {
	return map[string]uint64{
		"imported":          s.count.imported.Load(),
		"replaced":          s.count.replaced.Load(),
		"bad_frames":        s.count.badFrames.Load(),
		"icmp_errors":       s.count.icmpErrors.Load(),
		"frames_delayed":    s.count.framesDelayed.Load(),
		"frames_lost":       s.count.framesLost.Load(),
		"neighbour_unknown": s.neighbours.lost.Load(),
	}
}

// route returns the next hop to a client, and sees to it that its link address is known or asked for.
func (s *Stack) route(client netip.Addr) (*neighbour, error) {
	hop, port, err := s.via(client)
	if err != nil {
		return nil, err
	}
	return s.neighbours.use(hop, port), nil
}

// via finds whom frames to a client go to: itself, if it is on the network of a port, else the gateway. Safe from any
// goroutine.
func (s *Stack) via(client netip.Addr) (hop netip.Addr, port uint16, err error) {
	for _, hop := range []netip.Addr{client, s.cfg.Gateway} {
		for i, p := range s.ports {
			if hop.IsValid() && p.own.Contains(hop) && hop.Is4() == client.Is4() {
				return hop, uint16(i), nil
			}
		}
	}
	return netip.Addr{}, 0, fmt.Errorf("%w (%s)", ErrNoRoute, client)
}
