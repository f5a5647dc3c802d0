package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// ErrRejected is an application's registration or request that the daemon has turned down.
var ErrRejected = errors.New("the daemon refuses")

// matchTime is how long a connection waits for its offer: it may be accepted before the daemon has said that it arrived.
const matchTime = 2 * time.Second

// Registration says what an application registers for.
type Registration struct {
	Job     string // of a target application
	Service string // DVIPA and port, as "10.77.0.10:110"; of a target application "" if its job has only one
	Name    string // for operators; "": the process's
}

// Offer is a connection that may come, and what comes with it.
type Offer struct {
	Client  netip.AddrPort
	Service string
	Job     string
	State   []byte // application state; nil: none
	From    Party  // the application that gives it, and its host
}

// Conn is a connection that came by a transfer. The zero Offer is that of one which the daemon knows nothing of: it came
// from this host itself.
type Conn struct {
	net.Conn
	Offer Offer
	l     *Listener
}

// Destination is where a connection is given: to a job, on the host if it is named, else on any other than this one. The
// zero Destination is the routing application.
type Destination struct {
	Job, Host string
	State     []byte // for who takes it, at most MaxState
}

// Give hands the connection on and waits for the answer; meanwhile nobody may read or write. After nil the connection is
// somebody else's, and is closed here. After ErrRejected, which says why, it goes on. After any other error it is over.
func (c *Conn) Give(to Destination) error {
	t, ok := c.Conn.(interface{ File() (*os.File, error) })
	if !ok {
		return fmt.Errorf("%w: %T has no socket", ErrRejected, c.Conn)
	}
	f, err := t.File()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRejected, err)
	}
	defer f.Close()
	answer, err := c.l.ask(Message{Type: TypeGive, Job: to.Job, Host: to.Host, State: to.State,
		Files: []string{FileConnection}}, f)
	switch {
	case errors.Is(err, ErrTooLarge), errors.Is(err, ErrMalformed): // it was not sent
		return fmt.Errorf("%w: %w", ErrRejected, err)
	case err == nil && (answer.Type == TypeRejected || answer.Type == TypeError):
		return fmt.Errorf("%w: %s: %s", ErrRejected, answer.Code, answer.Detail)
	case err == nil && answer.Type != TypeGiven:
		err = fmt.Errorf("connection is lost: %s", answer.Detail)
	}
	return errors.Join(err, c.Close())
}

// ask sends a request with a file and waits for its answer.
func (l *Listener) ask(m Message, f *os.File) (Message, error) {
	answer := make(chan Message, 1)
	l.mu.Lock()
	l.seq++
	m.Seq = l.seq
	l.asked[m.Seq] = answer
	l.mu.Unlock()
	if err := l.socket.Send(m, f); err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.asked, m.Seq)
		return Message{}, err
	}
	select {
	case a := <-answer:
		return a, nil
	case <-l.ended:
		return Message{}, l.why
	}
}

// answered brings an answer to who waits for it.
func (l *Listener) answered(m Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.asked[m.Seq]; c != nil {
		c <- m
		delete(l.asked, m.Seq)
	}
}

// Listener is a target application's: it takes the connections of its job, each with its state.
type Listener struct {
	net.Listener
	*notes
	socket link
	decide func(Offer) error
	conns  chan net.Conn
	ended  chan struct{} // closed when nothing will come any more
	end    sync.Once
	why    error // valid after ended

	mu       sync.Mutex
	expected map[netip.AddrPort]*expected
	asked    map[uint64]chan Message // by Seq
	seq      uint64
}

// expected is a connection that is to come, or its offer; whichever is first waits for the other.
type expected struct {
	offer Offer
	known chan struct{} // closed once offer is valid
}

// Listen registers at the daemon's control socket, a path or as DialUDP has it, and takes connections from inner, which listens as ever and is the
// Listener's from then on. It must not be of Multipath TCP, to which no connection can be handed over: that is what
// net.Listen makes, unless a net.ListenConfig has SetMultipathTCP(false).
//
// decide is asked about each offer, from goroutines of its own; its error rejects the offer, and is the reason that the
// routing application gets. Nil takes everything. When the control socket ends, so does the Listener: Accept says why,
// and the application may listen anew.
func Listen(path string, r Registration, inner net.Listener, decide func(Offer) error) (*Listener, error) {
	s, err := register(path, Message{Role: RoleTarget, Job: r.Job, Service: r.Service, Name: r.Name})
	if err != nil {
		return nil, err
	}
	if decide == nil {
		decide = func(Offer) error { return nil }
	}
	l := &Listener{Listener: inner, notes: newNotes(s), socket: s, decide: decide, conns: make(chan net.Conn), ended: make(chan struct{}),
		expected: make(map[netip.AddrPort]*expected), asked: make(map[uint64]chan Message)}
	go l.receive()
	go l.accept()
	return l, nil
}

// register connects, registers, and waits for the answer.
func register(path string, m Message) (link, error) {
	s, err := dial(path, &m)
	if err != nil {
		return nil, err
	}
	m.Type = TypeRegister
	if err := s.Send(m); err != nil {
		s.Close()
		return nil, err
	}
	answer, files, err := s.Receive()
	closeAll(files)
	if err == nil && answer.Type != TypeRegistered {
		err = fmt.Errorf("%w: %s: %s", ErrRejected, answer.Code, answer.Detail)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Accept returns the next connection, a *Conn.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.ended:
		return nil, l.why
	}
}

// Close ends the registration and the listener. Connections that were accepted go on.
func (l *Listener) Close() error {
	l.stop(net.ErrClosed)
	return nil
}

func (l *Listener) stop(why error) {
	l.end.Do(func() {
		l.why = why
		close(l.ended)
		l.socket.Close()
		l.Listener.Close()
	})
}

// accept takes connections, each of which waits for its offer by itself.
func (l *Listener) accept() {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			l.stop(err)
			return
		}
		go l.match(c)
	}
}

// match finds the offer of a connection by its client, and gives the connection to Accept.
func (l *Listener) match(c net.Conn) {
	found := &Conn{Conn: c, l: l}
	if client, err := netip.ParseAddrPort(c.RemoteAddr().String()); err == nil {
		found.Offer = l.offerOf(netip.AddrPortFrom(client.Addr().Unmap(), client.Port()))
	}
	select {
	case l.conns <- found:
	case <-l.ended:
		c.Close()
	}
}

func (l *Listener) offerOf(client netip.AddrPort) Offer {
	x := l.expect(client)
	ctx, cancel := context.WithTimeout(context.Background(), matchTime)
	defer cancel()
	defer l.forget(client, x)
	select {
	case <-x.known:
		return x.offer
	case <-ctx.Done():
	case <-l.ended:
	}
	return Offer{}
}

// expect returns what is known of a client's connection, or where that will be.
func (l *Listener) expect(client netip.AddrPort) *expected {
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.expected[client]
	if x == nil {
		x = &expected{known: make(chan struct{})}
		l.expected[client] = x
	}
	return x
}

// forget drops it again; another offer of the same client may have taken its place.
func (l *Listener) forget(client netip.AddrPort, x *expected) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.expected[client] == x {
		delete(l.expected, client)
	}
}

// announce makes an offer known to the connection of its client. A client has one connection from an address and port, so a
// later offer replaces one that nothing came of.
func (l *Listener) announce(o Offer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.expected[o.Client]
	if x == nil || isClosed(x.known) {
		x = &expected{known: make(chan struct{})}
		l.expected[o.Client] = x
	}
	x.offer = o
	close(x.known)
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// receive takes the daemon's messages until the control socket ends.
func (l *Listener) receive() {
	defer close(l.taken)
	for {
		m, files, err := l.socket.Receive()
		closeAll(files)
		switch {
		case errors.Is(err, ErrMalformed), errors.Is(err, ErrTooLarge):
		case err != nil:
			l.stop(err)
			return
		case l.notes.hear(m):
		default:
			l.hear(m)
		}
	}
}

func (l *Listener) hear(m Message) {
	if m.Seq != 0 {
		l.answered(m)
		return
	}
	client, err := netip.ParseAddrPort(m.Client)
	if err != nil {
		return // nothing that is about a connection
	}
	switch {
	case m.Type == TypeOffer:
		go l.answer(m.Transfer, offerOf(client, m))
	case m.Type == TypeArrived && m.Job != "": // it was never offered
		l.announce(offerOf(client, m))
	case m.Type == TypeCanceled:
		l.mu.Lock()
		delete(l.expected, client)
		l.mu.Unlock()
	}
}

func offerOf(client netip.AddrPort, m Message) Offer {
	o := Offer{Client: client, Service: m.Service, Job: m.Job, State: m.State}
	if m.From != nil {
		o.From = *m.From
	}
	return o
}

// answer asks the application. The offer is made known first: the connection follows its acceptance at once.
func (l *Listener) answer(transfer uint64, o Offer) {
	m := Message{Type: TypeAccept, Transfer: transfer}
	if err := l.decide(o); err != nil {
		m.Type, m.Detail = TypeReject, err.Error()
	} else {
		l.announce(o)
	}
	if err := l.socket.Send(m); err != nil {
		l.stop(err)
	}
}
