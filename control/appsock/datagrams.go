package appsock

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"sync"
	"time"

	"baton/control/admin"
	"baton/control/app"
)

// maxSessions is how many applications may be there over UDP, and have been there in the time of a lease.
const maxSessions = 256

// Counts are totals of datagrams by what they were. The zero value has none yet; it may be used by several goroutines.
type Counts struct {
	mu     sync.Mutex
	totals map[string]uint64
}

// What datagrams of applications are.
const (
	countMessage   = "message"         // that is new
	countControl   = "control"         // about messages and the session
	countDuplicate = "duplicate"       // message, or one before its turn
	countRepeated  = "repeated"        // by this host, because it was not acknowledged
	countMalformed = "malformed"       // dropped
	countOversized = "oversized"       // dropped
	countToken     = "wrong token"     // dropped
	countUnknown   = "unknown session" // answered by leave, if it expects an answer
	countFull      = "too many sessions"
)

func (c *Counts) count(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.totals == nil {
		c.totals = make(map[string]uint64)
	}
	c.totals[name]++
}

// Counters lists the totals for operators.
func (c *Counts) Counters() []admin.Counter {
	c.mu.Lock()
	defer c.mu.Unlock()
	totals := map[string]uint64{countMessage: 0, countControl: 0, countDuplicate: 0, countRepeated: 0, countMalformed: 0,
		countOversized: 0, countToken: 0, countUnknown: 0, countFull: 0}
	maps.Copy(totals, c.totals)
	return admin.Counters("control_udp", totals)
}

// datagrams is a Server's control socket over UDP.
type datagrams struct {
	server *Server
	conn   *net.UDPConn
	lease  time.Duration
	peers  sync.WaitGroup

	mu       sync.Mutex
	sessions map[session]*app.Exchange // also those that ended in the time of a lease, so that no repetition begins them anew
}

// session names an application: by itself, and by where it is, so nobody else can speak for it.
type session struct {
	from netip.AddrPort
	name string
}

// ServeDatagrams takes control sockets over UDP at an address until ctx ends, and then ends them all. Applications are known
// by the tokens of Rights.
func (s *Server) ServeDatagrams(ctx context.Context, conn *net.UDPConn, lease time.Duration) error {
	d := &datagrams{server: s, conn: conn, lease: lease, sessions: make(map[session]*app.Exchange)}
	defer conn.Close() // after the farewells
	defer d.peers.Wait()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	b := make([]byte, app.MaxDatagram+1)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(b)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("control sockets over UDP: %w", err)
		}
		d.take(ctx, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), b[:n])
	}
}

// take brings a datagram to its session.
func (d *datagrams) take(ctx context.Context, from netip.AddrPort, b []byte) {
	g, err := app.ParseDatagram(b)
	switch {
	case errors.Is(err, app.ErrTooLarge):
		d.server.Counts.count(countOversized)
		return
	case err != nil:
		d.server.Counts.count(countMalformed)
		return
	}
	right, ok := d.server.holder(g.Token)
	if !ok {
		d.server.Counts.count(countToken)
		return
	}
	x := d.find(ctx, session{from, g.Session}, &g, right)
	switch {
	case x == nil:
	case x.Take(g):
		d.server.Counts.count(countMessage)
	case g.IsMessage():
		d.server.Counts.count(countDuplicate)
	default:
		d.server.Counts.count(countControl)
	}
}

// holder finds whom a token stands for. How long it takes does not tell what the tokens are.
func (s *Server) holder(token string) (found Right, ok bool) {
	for _, r := range s.Rights {
		if r.Token != "" && subtle.ConstantTimeCompare([]byte(r.Token), []byte(token)) == 1 {
			found, ok = r, true
		}
	}
	return found, ok
}

// find returns a session, which the first message begins. Nil: there is none, and the application was told.
func (d *datagrams) find(ctx context.Context, key session, g *app.Datagram, right Right) *app.Exchange {
	d.mu.Lock()
	defer d.mu.Unlock()
	x, known := d.sessions[key]
	switch {
	case known && !x.Ended():
		return x
	case known || !g.IsMessage() || g.Number != 1:
		d.server.Counts.count(countUnknown)
		if g.IsMessage() || g.Type == app.TypePing {
			d.dismiss(key, "the daemon knows no such session: register in a new one")
		}
		return nil
	case len(d.sessions) >= maxSessions:
		d.server.Counts.count(countFull)
		d.dismiss(key, fmt.Sprintf("there are %d sessions already, or were until now", maxSessions))
		return nil
	}
	x = app.NewExchange(func(b []byte, again bool) { d.send(key.from, b, again) }, "", key.name, d.lease)
	d.sessions[key] = x
	d.peers.Go(func() {
		d.server.attend(ctx, x, newPeer("udp "+key.from.String(), right, x, true))
		time.AfterFunc(d.lease, func() { d.forget(key) })
	})
	return x
}

// send sends a datagram. An error is a loss.
func (d *datagrams) send(to netip.AddrPort, b []byte, again bool) {
	if again {
		d.server.Counts.count(countRepeated)
	}
	_, _ = d.conn.WriteToUDPAddrPort(b, to)
}

// dismiss tells an application that its session is over.
func (d *datagrams) dismiss(key session, why string) {
	g := app.Datagram{Session: key.name, Message: app.Message{Type: app.TypeLeave, Detail: why}}
	if b, err := g.Pack(); err == nil {
		d.send(key.from, b, false)
	}
}

func (d *datagrams) forget(key session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.sessions, key)
}
