package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Errors of a Client.
var (
	ErrEnded = errors.New("the client is gone")
	ErrBusy  = errors.New("a transfer of the connection is under way")
)

// RejectedError says why a connection was not handed over. It goes on, as the application's.
type RejectedError struct {
	By     string // "router", "stack" or "application"
	Code   string // Code...
	Detail string
}

// Error makes it an error.
func (e *RejectedError) Error() string { return fmt.Sprintf("%s: %s: %s", e.By, e.Code, e.Detail) }

// Router is a routing application: it talks with clients, and has their connections handed over.
type Router struct {
	*notes
	socket  link
	clients chan *Client
	ended   chan struct{}
	end     sync.Once
	why     error // valid after ended

	mu      sync.Mutex
	conns   map[uint64]*Client
	targets []Target
}

// NewRouter registers for a service at the daemon's control socket, a path or as DialUDP has it.
func NewRouter(path string, r Registration) (*Router, error) {
	s, err := register(path, Message{Role: RoleRouter, Service: r.Service, Name: r.Name})
	if err != nil {
		return nil, err
	}
	router := &Router{notes: newNotes(s), socket: s, clients: make(chan *Client), ended: make(chan struct{}), conns: make(map[uint64]*Client)}
	go router.receive()
	return router, nil
}

// Accept returns the next client. After the control socket's end it says why that ended.
func (r *Router) Accept() (*Client, error) {
	select {
	case c := <-r.clients:
		return c, nil
	case <-r.ended:
		return nil, r.why
	}
}

// Targets is the destination port table as of now: who listens where.
func (r *Router) Targets() []Target {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.targets)
}

// Close ends the registration; the daemon takes back what the application has not handed over.
func (r *Router) Close() error {
	r.stop(net.ErrClosed)
	return nil
}

func (r *Router) stop(why error) {
	r.end.Do(func() {
		r.why = why
		close(r.ended)
		r.socket.Close()
	})
}

func (r *Router) receive() {
	defer close(r.taken)
	for {
		m, files, err := r.socket.Receive()
		switch {
		case errors.Is(err, ErrMalformed), errors.Is(err, ErrTooLarge):
		case err != nil:
			r.stop(err)
			return
		case m.Type == TypeConnection:
			r.open(m, files)
		case r.notes.hear(m):
		default:
			r.hear(m)
		}
		closeAll(files)
	}
}

// open takes a new client.
func (r *Router) open(m Message, files []*os.File) {
	i := slices.Index(m.Files, FileConnection)
	if i < 0 {
		return
	}
	stream, err := net.FileConn(files[i]) // has a descriptor of its own
	if err != nil {
		return
	}
	c := &Client{Conn: stream, Service: m.Service, id: m.Conn, router: r, answers: make(chan Message, 1)}
	c.Address, _ = netip.ParseAddrPort(m.Client) // a daemon says nothing else
	r.mu.Lock()
	r.conns[c.id] = c
	r.mu.Unlock()
	go func() { // control messages of other connections do not wait for Accept
		select {
		case r.clients <- c:
		case <-r.ended:
			c.Close()
		}
	}()
}

func (r *Router) hear(m Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch c := r.conns[m.Conn]; {
	case m.Type == TypeDPT:
		r.targets = m.Targets
	case c == nil:
	case m.Type == TypeAccepted, m.Type == TypeEnded:
		delete(r.conns, m.Conn)
		c.answer(m)
	case m.Type == TypeRejected:
		c.answer(m)
	}
}

// Client is a connection in the application's hands: octets that it reads are its own, what it only peeks at stays for the
// target. It closes a Client that it does not hand over; one that it has is closed already.
type Client struct {
	net.Conn
	Address netip.AddrPort // of the client
	Service string

	id       uint64
	router   *Router
	answers  chan Message
	transfer sync.Mutex // held during a transfer
}

// answer brings the daemon's answer to Transfer. Called with the router's lock held; there is room, because each transfer
// has one answer and is over with it, but for an end that nobody asked for.
func (c *Client) answer(m Message) {
	select {
	case c.answers <- m:
	default:
	}
}

// Wish is what a routing application wants of a transfer.
type Wish struct {
	Job           string
	Host          string // "": any of the job
	State         []byte // for the target application
	Quiescent     bool   // wait until the client has acknowledged everything, instead of being rejected
	Unconditional bool   // do not ask the target application
}

// Peek waits until there are octets that were not read, and copies them to p without reading them. The error is io.EOF at
// the client's end. The next call returns the same octets and what has come since, without waiting.
func (c *Client) Peek(p []byte) (n int, err error) {
	raw, err := c.Conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		n, _, failed = unix.Recvfrom(int(fd), p, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return !errors.Is(failed, unix.EAGAIN)
	})
	if err := errors.Join(err, failed); err != nil {
		return 0, err
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Transfer hands the connection over and waits for the answer. Nil: it has another owner, and the Client is closed. A
// *RejectedError: it goes on, and another wish may be tried. ErrEnded: the client is gone. When ctx ends before the answer
// comes, the Client is closed: nobody knows who owns the connection, but for the daemon. Nothing may be read meanwhile.
func (c *Client) Transfer(ctx context.Context, w Wish) error {
	if !c.transfer.TryLock() {
		return ErrBusy
	}
	defer c.transfer.Unlock()
	m := Message{Type: TypeTransfer, Conn: c.id, Job: w.Job, Host: w.Host, State: w.State, When: Now,
		Unconditional: w.Unconditional}
	if w.Quiescent {
		m.When = Quiescent
	}
	if err := c.router.socket.Send(m); err != nil {
		return err
	}
	select {
	case m = <-c.answers:
	case <-ctx.Done():
		c.Close()
		return ctx.Err()
	case <-c.router.ended:
		c.Close()
		return c.router.why
	}
	if m.Type == TypeAccepted {
		return c.Close()
	}
	if m.Type == TypeRejected {
		return &RejectedError{By: m.By, Code: m.Code, Detail: m.Detail}
	}
	c.Close()
	return ErrEnded
}
