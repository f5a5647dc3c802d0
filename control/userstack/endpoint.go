package userstack

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"baton/control/tcp"
	"baton/control/timer"
	"baton/control/transfer"
	"baton/fastpath/flow"
	"baton/fastpath/wire"
)

const (
	// chunk is the size of an application's buffers, octets.
	chunk = 64 << 10
	// sendMax is what an endpoint may have queued; with the application's buffer it fits into a record.
	sendMax = transfer.MaxSendData - chunk
	// An idle connection's client is asked whether it is still there (RFC 9293 §3.8.4): else those that vanished would
	// stay for ever with an application that waits for them.
	keepIdle     = time.Minute
	keepInterval = 15 * time.Second
	keepProbes   = 9
)

// errReplaced is what an application sees of a connection whose client has begun anew with the same port.
var errReplaced = fmt.Errorf("%w: its client has begun another connection", syscall.ECONNRESET)

// errFull says that the stack has as many connections as it may.
var errFull = errors.New("as many connections as limits.connections allows")

// chunks are the buffers of applications.
var chunks = sync.Pool{New: func() any { return new([chunk]byte) }}

// endpoint is the loop's side of a connection.
type endpoint struct {
	inc   wire.Incarnation
	flow  transfer.Flow
	since time.Time
	id    flow.ID // 0: the forwarder has not said yet
	tcp   *tcp.Conn
	hop   *neighbour
	app   *Conn
	timer timer.Timer

	touched bool // by this batch of punts
	stalled bool // waits for the forwarder to take frames
	closing bool // the application's Close was carried out
	halved  bool // its CloseWrite was
	over    bool // nothing is left to do
	known   bool // the agent has been told of the import
	ended   bool // for the agent: it needs no segments of its client any more
	told    bool // and knows
}

// open makes the endpoint of a record and its application's Conn.
func (s *Stack) open(i *transfer.Import) (*endpoint, error) {
	r := &i.Record
	hop, err := s.route(r.Inc.Client.Addr())
	if err != nil {
		return nil, err
	}
	c, err := tcp.Import(*r, s.window(r), s.now)
	if err != nil {
		return nil, err
	}
	if old := s.conns[r.Inc.Tuple]; old != nil {
		s.replace(old)
	}
	if len(s.conns) >= s.cfg.MaxConns {
		return nil, errFull
	}
	c.AutoACK(true)
	e := &endpoint{inc: r.Inc, flow: transfer.Flow{Inc: r.Inc, Epoch: r.Epoch, Job: r.Job, Host: i.Host,
		Transfer: i.Transfer, RcvNxt: r.RcvNxt}, since: s.now, tcp: c, hop: hop}
	e.app = newConn(s, e)
	e.timer.Fire = func(now time.Time) {
		s.act(e, c.Tick(now))
		s.exchange(e)
	}
	hop.join()
	s.conns[e.inc.Tuple] = e
	s.command(func() error { return s.dp.Adopt(hop.port, e.inc, flow.Router) })
	settings := c.Settings()
	if settings.KeepIdle == 0 {
		settings.KeepIdle, settings.KeepInterval, settings.KeepProbes = keepIdle, keepInterval, keepProbes
	}
	s.act(e, c.Configure(settings, s.now))
	s.act(e, c.Announce(s.now))
	s.exchange(e)
	return e, nil
}

// window is the receive window of a connection: ours, as far as the client's scaling can express it, and not less than
// what the client was promised.
func (s *Stack) window(r *transfer.Record) uint32 {
	most := uint64(0xffff)
	if r.Handshake.Scaling {
		most <<= r.Handshake.RcvScale
	}
	promised := max(0, r.RcvEdge.Sub(r.ReadFrom))
	return uint32(max(min(uint64(s.cfg.Window), most), uint64(promised)))
}

// exchange moves octets between an endpoint and its application, and carries out what the application wants.
func (s *Stack) exchange(e *endpoint) {
	if e.over {
		return
	}
	s.deliver(e)
	s.collect(e)
	if e.over {
		return
	}
	if e.tcp.State() == tcp.TimeWait { // it only repeats the last ACK, and the routing host's entry lingers for that
		s.end(e)
	}
	s.timers.Set(&e.timer, e.tcp.Deadline())
}

// deliver gives the application what arrived, once it has read what it had. The window follows.
func (s *Stack) deliver(e *endpoint) {
	n := e.app.arrive(e.tcp.Peek(), e.tcp.EOF())
	if n == 0 {
		return
	}
	e.tcp.Receive(n)
	if due := e.tcp.Deadline(); !due.IsZero() && !due.After(s.now) { // a client that may be waiting for room
		s.act(e, e.tcp.Tick(s.now))
	}
}

// collect takes what the application wrote, as far as there is room, and its wish to close.
func (s *Stack) collect(e *endpoint) {
	if len(s.commands) > 0 { // the forwarder is behind; let the application wait
		if !e.stalled {
			e.stalled = true
			s.stalled = append(s.stalled, e)
		}
		return
	}
	e.stalled = false
	out, wish := e.app.depart(sendMax - e.tcp.Queued())
	if out != nil {
		s.act(e, e.tcp.Write(out.octets(), s.now))
		out.free()
	}
	switch {
	case e.over || e.closing:
	case wish == abort:
		e.closing = true
		s.act(e, e.tcp.Abort(s.now))
	case wish == leave:
		e.closing = true
		s.act(e, e.tcp.Close(s.now))
	case wish == halve && !e.halved:
		e.halved = true
		s.act(e, e.tcp.CloseWrite(s.now))
	}
}

// closed ends an endpoint that is in CLOSED.
func (s *Stack) closed(e *endpoint) {
	if e.over {
		return
	}
	s.drop(e, reasonOf(e.tcp.Err()))
	s.forget(e.id)
}

// replace ends a connection without a word to its client, who has begun another one on the tuple.
func (s *Stack) replace(e *endpoint) {
	s.count.replaced.Add(1)
	s.drop(e, errReplaced)
	// The forwarder forgets the old flow when it adopts the new one.
}

// drop takes an endpoint out of the tables.
func (s *Stack) drop(e *endpoint, why error) {
	e.over = true
	s.timers.Stop(&e.timer)
	if s.conns[e.inc.Tuple] == e {
		delete(s.conns, e.inc.Tuple)
	}
	delete(s.flows, e.id)
	e.hop.leave()
	e.app.end(e.tcp.Peek(), e.tcp.EOF(), why)
	s.end(e)
}

// end reports the end of a connection to the agent, as soon as that knows of the connection at all.
func (s *Stack) end(e *endpoint) {
	e.ended = true
	if !e.known || e.told {
		return
	}
	e.told = true
	s.ends <- e.inc
}

// reasonOf is why a connection ended, as applications know it of kernels; nil after an orderly end.
func reasonOf(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, tcp.ErrReset):
		return syscall.ECONNRESET
	case errors.Is(err, tcp.ErrTimeout):
		return syscall.ETIMEDOUT
	case errors.Is(err, tcp.ErrAborted):
		return net.ErrClosed
	}
	return err
}
