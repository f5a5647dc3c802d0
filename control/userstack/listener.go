package userstack

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"baton/control/agent"
	"baton/control/transfer"
)

// Backlog is how many connections may wait for Accept, as net.core.somaxconn has it.
const Backlog = 4096

// Listener gives the connections of a job to a Go application. It implements net.Listener and is safe for concurrent use.
type Listener struct {
	stack *Stack
	job   agent.Job
	by    deadline
	queue chan *Conn    // as long as room
	room  chan struct{} // one for each connection that waits, or is being made
	done  chan struct{} // closed by Close

	mu     sync.Mutex // guards closed against give
	closed bool
}

// Listen makes the application of a job ready: its connections are got from Accept. There can be one for each job.
func (s *Stack) Listen(name agent.Job) (*Listener, error) { return s.listen(name, Backlog) }

func (s *Stack) listen(name agent.Job, backlog int) (*Listener, error) {
	l := &Listener{stack: s, job: name, queue: make(chan *Conn, backlog), room: make(chan struct{}, backlog),
		done: make(chan struct{})}
	if err := s.attach(name, l); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return l, nil
}

// Accept implements net.Listener. The connection may have ended already.
func (l *Listener) Accept() (net.Conn, error) {
	if l.by.passed() {
		return nil, l.failed(os.ErrDeadlineExceeded)
	}
	for {
		select {
		case <-l.done:
			return nil, l.failed(net.ErrClosed)
		case <-l.by.done():
			if l.by.passed() { // and was not moved
				return nil, l.failed(os.ErrDeadlineExceeded)
			}
		case c := <-l.queue:
			<-l.room
			return c, nil
		}
	}
}

// Close implements net.Listener: the job is not ready any more, and connections that nobody accepted are reset.
func (l *Listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return l.failed(net.ErrClosed)
	}
	l.closed = true
	close(l.done)
	l.stack.detach(l.job, l)
	for {
		select {
		case c := <-l.queue:
			c.reset()
		default:
			return nil
		}
	}
}

// Addr is the service's address, a *net.TCPAddr.
func (l *Listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.job.Service) }

// SetDeadline bounds Accept; zero: not at all.
func (l *Listener) SetDeadline(t time.Time) error {
	l.by.set(t)
	return nil
}

func (l *Listener) failed(err error) error {
	return &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: err}
}

// problem implements acceptor.
func (l *Listener) problem() *agent.Problem { return nil }

// admit implements acceptor.
func (l *Listener) admit(ctx context.Context) (give func(*Conn), p *agent.Problem) {
	select {
	case l.room <- struct{}{}:
		return l.give, nil
	default:
	}
	select {
	case l.room <- struct{}{}:
		return l.give, nil
	case <-ctx.Done():
		return nil, &agent.Problem{Reason: transfer.ReasonCapacity, Detail: "the application does not accept: " +
			fmt.Sprintf("%d connections wait", cap(l.room))}
	}
}

// give puts a connection into the queue, which has room.
func (l *Listener) give(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case c == nil:
		<-l.room
	case l.closed:
		c.reset()
	default:
		l.queue <- c
	}
}

// reset closes a connection that nobody wants.
func (c *Conn) reset() {
	_ = c.SetLinger(0) // fails where Close does, which then has nothing to do
	_ = c.Close()
}
