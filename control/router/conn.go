package router

import (
	"time"

	"baton/control/inspect"
	"baton/control/tcp"
	"baton/control/timer"
	"baton/control/transfer"
	"baton/fastpath/flow"
	"baton/fastpath/wire"
)

// stage says what the router does with a connection.
type stage uint8

const (
	reading stage = iota // the routing application has not decided
	handing              // it has, and a target is being given the connection
	closing              // our FIN is queued or sent: the endpoint ends by itself, in bounded time
	over                 // nothing is left; the flow's name may be dead
)

// conn is one connection in the router's hands: from its first punt until a target owns it or it has ended.
type conn struct {
	id       flow.ID
	inc      wire.Incarnation
	shake    wire.Handshake
	service  *Service
	port     uint16   // data port of the client's latest frame: answers go out there
	peer     wire.MAC // who sent that frame: the client, or the gateway to it
	tcp      *tcp.Conn
	session  inspect.Session
	app      *external       // the application, if it is in another process
	window   uint32          // W, or more if the client was promised more before the connection came back
	taken    *transfer.Offer // by which it came back, until the application has it; nil: it did not come back
	giver    string          // the host that gave it back
	unsent   int             // octets that this had left and the client has not acknowledged, of one that is to go on
	stage    stage
	idle     bool      // reading: it came back between two requests, and the next one has not begun
	by       time.Time // reading: 408 then; idle: our FIN; to be passed on: our RST
	check    *check    // reading: of a password; nil: none is under way
	handover *handover // from the decision on
	timer    timer.Timer
}

// punted handles one thing that the forwarder handed over.
func (r *Router) punted(p *flow.Punt) {
	switch p.Kind {
	case flow.First:
		r.opened(p)
	case flow.Segment:
		r.segment(p)
	case flow.Frozen:
		r.frozen(r.conns[p.Flow])
	case flow.Switched:
		r.switched(r.conns[p.Flow], p.Held)
	case flow.Gone:
		r.gone(r.conns[p.Flow])
	case flow.End:
		r.count.EndHints++
		r.askOwner(p)
	case flow.Exception:
		r.exception(p)
	case flow.Idle:
		r.count.IdleAsked++
		r.askOwner(p)
	case flow.Orphan:
		r.orphan(p)
	case flow.Neighbour:
		r.neighbours.answered(p.Addr, p.MAC, r.now)
	case flow.Adopted:
		r.adopted(p)
	case flow.Served:
		if p.Open {
			r.cfg.Applications.Serving(p.Inc.Service)
		}
	case flow.ICMP:
		r.pathError(p)
	}
}

// opened takes a new connection. One that cannot be taken is forgotten by the forwarder too, so the client's
// retransmission makes it new again.
func (r *Router) opened(p *flow.Punt) {
	s := r.services[p.Inc.Service]
	switch {
	case s == nil:
		r.count.UnknownServices++
		r.forget(p.Flow)
		return
	case r.past.has(p.Inc):
		r.count.Repeated++
		r.forget(p.Flow)
		return
	case len(r.conns) >= r.cfg.MaxConns:
		r.count.TableFull++
		r.forget(p.Flow)
		return
	}
	c := &conn{
		id: p.Flow, inc: p.Inc, shake: p.Handshake, service: s, window: s.Window, session: s.NewSession(), by: r.now.Add(s.RequestTimeout),
		tcp: tcp.Accept(tcp.Config{Inc: p.Inc, Handshake: p.Handshake, TSOffset: p.TSOffset,
			Window: s.Window, Announced: s.Announced}, r.now),
	}
	c.timer.Fire = func(time.Time) { r.due(c) }
	r.conns[c.id] = c
	r.count.Opened++
	if s.External && !r.attach(c, Origin{}) {
		c.stage = closing // nobody reads
	}
	r.arrived(c, p)
	if c.stage == closing && s.External {
		r.unavailable(c)
	}
}

// segment handles a later segment. Of a flow that the router does not have, the First was lost on the way here.
func (r *Router) segment(p *flow.Punt) {
	c := r.conns[p.Flow]
	if c == nil {
		r.count.UnknownFlows++
		r.forget(p.Flow)
		return
	}
	r.arrived(c, p)
}

func (r *Router) arrived(c *conn, p *flow.Punt) {
	f, err := wire.ParseTCP(p.Frame)
	if err != nil {
		r.count.BadFrames++
		return
	}
	c.port, c.peer = p.Port, f.Link.Src
	r.act(c, c.tcp.Segment(f.Segment, r.now))
	if c.idle && len(c.tcp.Peek()) > 0 {
		c.idle, c.by = false, r.now.Add(c.service.RequestTimeout)
	}
	r.advance(c)
}

// pathError tells a connection's endpoint of an ICMP error about a segment that was sent; it judges what to make of it.
func (r *Router) pathError(p *flow.Punt) {
	c := r.conns[p.Flow]
	e, err := wire.ParseICMPError(p.Frame)
	switch {
	case c == nil: // ended meanwhile
		return
	case err != nil || e.Tuple != c.inc.Tuple:
		r.count.BadFrames++
		return
	}
	r.count.ICMPErrors++
	r.act(c, c.tcp.ICMP(e, r.now))
	r.arm(c)
}

// act does what the endpoint wants done.
func (r *Router) act(c *conn, a tcp.Actions) {
	for _, s := range a.Segments {
		r.transmit(c, s)
	}
	if a.Closed {
		r.closed(c)
	}
}

// advance lets the routing application see what has arrived. In the other stages nobody reads: while handing, the
// frozen endpoint keeps the bytes for the record.
func (r *Router) advance(c *conn) {
	switch {
	case c.stage != reading:
	case c.taken != nil:
		r.passOn(c)
	case c.app != nil:
		r.relay(c)
	default:
		r.inspect(c)
	}
	r.arm(c)
}

// inspect shows the routing application what has arrived. The acknowledgement waits for its verdict: the segment that
// decides is best left to the client, which then still holds it.
func (r *Router) inspect(c *conn) {
	for again := true; again; {
		again = r.decide(c, c.session.Inspect(c.tcp.Peek()))
	}
}

// decide does what the routing application wants. It reports whether that is to be asked again at once.
func (r *Router) decide(c *conn, d inspect.Decision) bool {
	switch d.Verdict {
	case inspect.NeedMore:
		return r.converse(c, d)
	case inspect.Route:
		// A kernel could not repeat what the client has not acknowledged. It comes within the request's time, and brings
		// this decision again.
		if c.tcp.Queued() == 0 {
			r.route(c, d)
		}
	case inspect.Refuse:
		r.refuse(c, d.Cause, d.Reply)
	case inspect.End:
		r.act(c, c.tcp.Write(d.Reply, r.now))
		r.close(c)
	case inspect.Ask:
		r.ask(c, *d.Login)
	}
	return false
}

// converse answers, and waits for more. It reports whether there are octets left to look at.
func (r *Router) converse(c *conn, d inspect.Decision) bool {
	c.tcp.Receive(d.Consumed)
	if len(d.Reply) > 0 {
		r.act(c, c.tcp.Write(d.Reply, r.now))
	}
	r.act(c, c.tcp.AckNow(r.now))
	switch {
	case c.stage != reading:
		return false
	case d.Consumed > 0 && len(c.tcp.Peek()) > 0:
		return true
	case c.tcp.EOF(): // nothing more can come
		r.close(c)
	}
	return false
}

// refuse answers the client with an error and closes.
func (r *Router) refuse(c *conn, cause inspect.Cause, reply []byte) {
	r.count.Refused++
	r.cfg.Observer.Refused(cause.String())
	r.log.Debug("connection refused", "client", c.inc.Client, "service", c.inc.Service, "cause", cause)
	r.act(c, c.tcp.Write(reply, r.now))
	r.close(c)
}

// close sends our FIN after what was written. The endpoint then drops what the client still sends until that closes
// too, because a RST could overtake the answer (RFC 9112 §9.6).
func (r *Router) close(c *conn) {
	r.detach(c, "", "closed")
	if c.stage != over {
		c.stage = closing
		r.act(c, c.tcp.Linger(r.now))
	}
}

// due handles the connection's deadlines.
func (r *Router) due(c *conn) {
	if at := c.tcp.Deadline(); !at.IsZero() && !at.After(r.now) {
		r.act(c, c.tcp.Tick(r.now))
	}
	switch {
	case c.stage == reading && !c.by.After(r.now) && c.taken != nil:
		r.act(c, c.tcp.Abort(r.now)) // a FIN amid what its next owner would have gone on with would say that this was all
	case c.stage == reading && !c.by.After(r.now) && c.giver != "" && len(c.tcp.Peek()) == 0:
		r.close(c) // nothing was asked since it came back: there is nothing to answer
	case c.stage == reading && !c.by.After(r.now):
		r.refuse(c, inspect.Timeout, c.session.Refusal(inspect.Timeout))
	case c.stage == reading && c.app != nil:
		r.relay(c)
	case c.stage == reading && c.check != nil && !c.check.at.IsZero() && !c.check.at.After(r.now):
		r.answer(c)
	case c.stage == handing:
		r.step(c, transfer.Timeout{})
	}
	r.arm(c)
}

// arm sets the connection's timer to its next deadline.
func (r *Router) arm(c *conn) {
	at := c.tcp.Deadline()
	switch c.stage {
	case over:
		return
	case reading:
		at = earlier(at, c.by)
		if c.app != nil {
			at = earlier(at, c.app.look)
		}
		if c.check != nil {
			at = earlier(at, c.check.at)
		}
	case handing:
		at = earlier(at, c.handover.giver.Deadline())
	case closing:
	}
	r.timers.Set(&c.timer, at)
}

// earlier is the earlier of two deadlines; the zero time is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// closed ends a connection whose endpoint is in CLOSED.
func (r *Router) closed(c *conn) {
	if c.stage == over {
		return
	}
	if err := c.tcp.Err(); err != nil {
		r.count.Reset++
		r.log.Debug("connection ended", "client", c.inc.Client, "service", c.inc.Service, "err", err)
	}
	r.leave(c, "client is gone")
	r.forget(c.id)
}

// gone ends a connection that the forwarder gave up; its name is dead.
func (r *Router) gone(c *conn) {
	if c == nil {
		return
	}
	r.count.Vanished++
	r.leave(c, "the forwarder gave the flow up")
}

// leave ends what the router knows of a connection.
func (r *Router) leave(c *conn, why string) {
	r.detach(c, "", why)
	c.stage = over
	delete(r.conns, c.id)
	r.past.put(c.inc)
	r.past.reached(c.inc, way{c.port, c.peer})
	r.timers.Stop(&c.timer)
	if c.handover != nil {
		r.abandon(c, why)
	}
	r.left(c.inc)
}

func (r *Router) forget(id flow.ID) {
	r.command(func() error { return r.dp.CloseFlow(id) })
}
