package router

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"baton/control/app"
	"baton/control/transfer"
	"baton/fastpath/flow"
)

// Applications deals connections out to routing applications in other processes (over package appsock). Its methods are
// called from the loop and do not block. What applications do enters by Router.AppWrote, AppClosed and AppTransfers.
type Applications interface {
	// Open gives a connection to an application that is registered for the service, and returns the way to it; nil if
	// none is.
	Open(id flow.ID, client, service netip.AddrPort, from Origin) Stream
	// Present reports whether an application is registered for the service.
	Present(service netip.AddrPort) bool
	// Serving tells the applications of a service that clients' handshakes are answered from now on.
	Serving(service netip.AddrPort)
	// Accepted tells the application that its connection has another owner.
	Accepted(id flow.ID, host string)
	// Rejected tells the application that nobody took its connection, which goes on.
	Rejected(id flow.ID, why Rejection)
	// Ended tells the application that its connection is over.
	Ended(id flow.ID, why string)
	// Table tells all applications that the destination port table has changed.
	Table(rows []TargetStatus)
}

// Origin is where a connection comes from that was a target application's; zero: it is new.
type Origin struct {
	Host, Name string // of the application
	State      []byte // from it
}

// Stream is the way of a client's octets to a routing application.
type Stream interface {
	// Write delivers octets, as many as there is room for, without blocking.
	Write(p []byte) int
	// CloseWrite says that no more will come.
	CloseWrite()
	// Unread returns how many of the delivered octets the application has not read; it may have peeked at them.
	// known is false if the application has closed its end.
	Unread() (n int, known bool)
	// Close lets go of the stream: the application sees its end.
	Close()
}

// AppTransfer is an application's wish to hand a connection over.
type AppTransfer struct {
	Job           string
	Host          string // "": any host of the job
	State         []byte // for the target application; nobody changes it
	From          string // name of the application
	Quiescent     bool   // wait until the client has acknowledged everything, instead of failing
	Unconditional bool   // do not ask the target application
}

// Rejection says why a connection was not handed over.
type Rejection struct {
	By     string // "router", "stack" or "application"
	Code   string // app.Code...
	Detail string
}

// Bounds of what an application may have under way.
const (
	appUnsent = 256 << 10            // octets to the client; more wait in the stream
	appRetry  = 5 * time.Millisecond // until a full stream is looked at again
)

// external is a connection's application in another process.
type external struct {
	stream    Stream
	delivered int       // octets from the start of tcp.Peek that it has been given
	answered  bool      // it has said something since the client did
	said      []byte    // during a transfer: nobody's if that succeeds
	ended     bool      // it let go of the connection during a transfer
	eof       bool      // the stream was told of the client's end
	look      time.Time // when the stream is looked at next, without anything new; zero: no need
	wish      *AppTransfer
	blocked   []chan<- struct{} // writers that wait for the client
}

// tell lets applications know the destination port table.
func (r *Router) tell() {
	if r.cfg.Applications != nil {
		r.cfg.Applications.Table(r.status())
	}
}

// AppWrote gives the router what an application says to a client. room is closed once the client has taken enough that
// there is room for more. Safe from any goroutine but the loop's, as are AppClosed and AppTransfers; calls for one
// connection must come in order. The octets are the router's from then on.
func (r *Router) AppWrote(id flow.ID, octets []byte) (room <-chan struct{}) {
	c := make(chan struct{})
	r.post(event{kind: call, call: func() { r.appWrote(r.conns[id], octets, c) }})
	return c
}

// AppClosed says that the application has let go of a connection: it is closed once all that was said is sent, or refused
// if the application has not answered what the client said last.
func (r *Router) AppClosed(id flow.ID) {
	r.post(event{kind: call, call: func() { r.appClosed(r.conns[id]) }})
}

// AppTransfers asks for a transfer. The answer comes by Applications.Accepted, Rejected or Ended.
func (r *Router) AppTransfers(id flow.ID, t AppTransfer) {
	r.post(event{kind: call, call: func() { r.appTransfers(id, t) }})
}

// Serve opens or closes a service, of whose applications the first has come or the last has gone. That it is open is told
// by Applications.Serving.
func (r *Router) Serve(service netip.AddrPort, open bool) {
	r.post(event{kind: call, call: func() { r.command(func() error { return r.dp.Serve(service, open) }) }})
}

// Unregistered ends the connections of applications that are gone.
func (r *Router) Unregistered(ids []flow.ID) {
	r.post(event{kind: call, call: func() {
		for _, id := range ids {
			r.appClosed(r.conns[id])
		}
	}})
}

// attach finds an application for a new connection. It reports whether there is one.
func (r *Router) attach(c *conn, from Origin) bool {
	stream := r.cfg.Applications.Open(c.id, c.inc.Client, c.inc.Service, from)
	if stream == nil {
		return false
	}
	c.app = &external{stream: stream}
	return true
}

func (r *Router) appWrote(c *conn, octets []byte, room chan<- struct{}) {
	switch {
	case c == nil || c.app == nil || c.stage == closing:
		close(room)
		return
	case c.stage == handing:
		c.app.said = append(c.app.said, octets...)
		c.app.blocked = append(c.app.blocked, room)
		return
	}
	c.by = r.now.Add(c.service.RequestTimeout)
	c.app.blocked = append(c.app.blocked, room)
	r.pass(c, octets)
	r.arm(c)
}

// pass sends what an application says.
func (r *Router) pass(c *conn, octets []byte) {
	c.app.answered = true
	r.act(c, c.tcp.Write(octets, r.now))
	if c.app != nil { // else that was the end
		c.app.unblock(c.tcp.Queued())
	}
}

// unblock lets writers go on when few octets are under way to the client.
func (x *external) unblock(queued int) {
	if queued < appUnsent {
		x.release()
	}
}

func (x *external) release() {
	for _, room := range x.blocked {
		close(room)
	}
	x.blocked = nil
}

func (r *Router) appClosed(c *conn) {
	switch {
	case c == nil || c.app == nil:
	case c.stage == reading:
		r.abandoned(c)
	default:
		c.app.ended = true // decided when the transfer has its result
	}
}

// abandoned ends a connection whose application is gone, and tells the client if nobody else has.
func (r *Router) abandoned(c *conn) {
	if c.app.answered || c.tcp.EOF() {
		r.close(c)
	} else {
		r.unavailable(c)
	}
	r.arm(c)
}

func (r *Router) appTransfers(id flow.ID, t AppTransfer) {
	c := r.conns[id]
	switch {
	case c == nil || c.app == nil || c.stage == closing:
		r.cfg.Applications.Rejected(id, Rejection{"router", app.CodeUnknownConn, "no such connection, or it has ended"})
	case c.stage == handing || c.app.wish != nil:
		r.cfg.Applications.Rejected(id, Rejection{"router", app.CodeBusy, "a transfer of the connection is under way"})
	default:
		c.app.wish = &t
		r.grant(c)
	}
}

// grant begins the transfer that an application wishes for, when its moment has come.
func (r *Router) grant(c *conn) {
	t := c.app.wish
	if t == nil || c.stage != reading || t.Quiescent && c.tcp.Queued() > 0 {
		return
	}
	c.app.wish = nil
	fit, rejection := r.choose(c, t)
	if rejection != nil {
		r.cfg.Applications.Rejected(c.id, *rejection)
		return
	}
	r.settle(c)
	r.handTo(c, fit, choice{job: t.Job, state: t.State, from: t.From, unconditional: t.Unconditional})
}

// choose finds the hosts that a wish can be tried at, or says why there are none.
func (r *Router) choose(c *conn, t *AppTransfer) (fit []string, why *Rejection) {
	hosts, known := r.cfg.Jobs[t.Job]
	switch {
	case !known:
		return nil, &Rejection{"router", app.CodeUnknownJob, fmt.Sprintf("no job %q in the configuration", t.Job)}
	case t.Host != "" && !slices.Contains(hosts, t.Host):
		return nil, &Rejection{"router", app.CodeUnknownHost, fmt.Sprintf("job %q has no host %q", t.Job, t.Host)}
	case c.tcp.Queued() > 0:
		return nil, &Rejection{"router", app.CodeDataQueued,
			fmt.Sprintf("the client has not acknowledged %d octets", c.tcp.Queued())}
	}
	fit, reasons := r.candidates(t.Job, c.service)
	if t.Host != "" {
		fit = slices.DeleteFunc(fit, func(host string) bool { return host != t.Host })
	}
	if len(fit) == 0 {
		return nil, &Rejection{"router", app.CodeNoTarget, reasons}
	}
	return fit, nil
}

// relay gives the application what has arrived. All is acknowledged, because it is the application's to keep now; the
// window moves on as it reads.
func (r *Router) relay(c *conn) {
	r.settle(c)
	data := c.tcp.Peek()
	if fresh := data[c.app.delivered:]; len(fresh) > 0 {
		n := c.app.stream.Write(fresh)
		c.app.delivered += n
		c.app.answered = c.app.answered && n == 0
		c.by = r.now.Add(c.service.RequestTimeout) // the conversation goes on
	}
	if c.tcp.EOF() && c.app.delivered == len(data) && !c.app.eof {
		c.app.eof = true
		c.app.stream.CloseWrite()
	}
	c.app.look = time.Time{}
	if 2*len(data) > int(c.window) || c.app.delivered < len(data) {
		c.app.look = r.now.Add(appRetry) // the window, or the stream, is nearly full
	}
	r.act(c, c.tcp.AckNow(r.now))
	if c.stage != reading {
		return
	}
	c.app.unblock(c.tcp.Queued())
	r.grant(c)
}

// settle notes what the application has read: the target need not read it again.
func (r *Router) settle(c *conn) {
	if c.app.delivered == 0 {
		return
	}
	unread, known := c.app.stream.Unread()
	if !known || unread > c.app.delivered {
		return
	}
	c.tcp.Receive(c.app.delivered - unread)
	c.app.delivered = unread
}

// rejected lets the application of a connection that nobody took go on.
func (r *Router) rejected(c *conn, f transfer.Failure) {
	c.stage, c.handover = reading, nil
	if said := c.app.said; said != nil {
		c.app.said = nil
		r.pass(c, said)
	}
	switch {
	case c.stage != reading: // that was the end
	case c.app.ended:
		r.abandoned(c)
	default:
		c.by = r.now.Add(c.service.RequestTimeout)
		r.cfg.Applications.Rejected(c.id, rejectionOf(f))
		r.relay(c)
	}
}

func rejectionOf(f transfer.Failure) Rejection {
	switch {
	case f.Reason == transfer.ReasonApplication:
		return Rejection{"application", app.CodeApplication, f.Detail}
	case f.Cause == transfer.CauseNoAnswer:
		return Rejection{"stack", app.CodeTimeout, reason(f)}
	case f.Cause == transfer.CauseCanceled || f.Cause == transfer.CauseFreeze:
		return Rejection{"router", app.CodeStack, f.Detail}
	}
	return Rejection{"stack", app.CodeStack, reason(f)}
}

// detach ends what the router and an application have to do with each other. host: who owns the connection now, "" if it
// is over.
func (r *Router) detach(c *conn, host, why string) {
	if c.app == nil {
		return
	}
	c.app.release()
	c.app.stream.Close()
	if host != "" {
		if n := len(c.app.said); n > 0 {
			r.log.Warn("what an application has said during a transfer is nobody's", "client", c.inc.Client, "octets", n)
		}
		r.cfg.Applications.Accepted(c.id, host)
	} else {
		r.cfg.Applications.Ended(c.id, why)
	}
	c.app = nil
}
