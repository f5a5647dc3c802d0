package app

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Times of an Exchange.
const (
	DefaultLease = 10 * time.Second       // until the daemon says another
	repeatFirst  = 50 * time.Millisecond  // after a message, if it is not acknowledged; doubled each time
	repeatMost   = 400 * time.Millisecond // between two repetitions
)

// maxUnread is how many messages wait for Receive. One more is not acknowledged, so it comes again.
const maxUnread = 64

// Exchange is one end of a control socket over UDP: it makes messages, each of which arrives once and in order, of
// datagrams, which may be lost, repeated and reordered. A message is repeated until it is acknowledged, before the next is
// sent. The exchange ends when nothing was heard from the peer for the time of the lease, or a message was not acknowledged
// in that time. It may be used by several goroutines.
type Exchange struct {
	transmit func(datagram []byte, again bool)
	token    string
	session  string
	in       chan Message
	ended    chan struct{}
	end      sync.Once
	why      error // valid after ended

	sending sync.Mutex // held while a message is under way

	mu     sync.Mutex
	lease  time.Duration
	expiry *time.Timer
	sent   uint64        // number of the last message to the peer
	acked  chan struct{} // closed once that is acknowledged; nil: it was
	taken  uint64        // number of the last message from the peer
}

// NewExchange makes the end of a session that begins. transmit sends datagrams, may lose them, and must not block; again:
// it is a repetition. Token is "" at a daemon.
func NewExchange(transmit func(datagram []byte, again bool), token, session string, lease time.Duration) *Exchange {
	x := &Exchange{transmit: transmit, token: token, session: session, lease: lease, in: make(chan Message, maxUnread),
		ended: make(chan struct{})}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.expiry = time.AfterFunc(lease, func() { x.stop(fmt.Errorf("control socket: %w", ErrLease)) })
	return x
}

// Send sends a message and waits until the peer has it. Files cannot be passed. Errors: ErrMalformed, ErrTooLarge, of
// which nothing was sent; and those of the exchange's end.
func (x *Exchange) Send(m Message, _ ...*os.File) error {
	x.sending.Lock()
	defer x.sending.Unlock()
	datagram, acked, err := x.next(m)
	if err != nil {
		return err
	}
	x.mu.Lock()
	patience := time.NewTimer(x.lease)
	x.mu.Unlock()
	defer patience.Stop()
	for wait := repeatFirst; ; wait = min(2*wait, repeatMost) {
		x.transmit(datagram, wait > repeatFirst)
		select {
		case <-acked:
			return nil
		case <-x.ended:
			return x.why
		case <-patience.C:
			x.stop(fmt.Errorf("control socket: %s is not acknowledged: %w", m.Type, ErrLease))
			return x.why
		case <-time.After(wait):
		}
	}
}

// next gives a message its number.
func (x *Exchange) next(m Message) (datagram []byte, acked chan struct{}, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if m.Type == TypeRegistered {
		m.Lease = x.lease.Milliseconds()
	}
	d := Datagram{Token: x.token, Session: x.session, Number: x.sent + 1, Message: m}
	if datagram, err = d.Pack(); err != nil {
		return nil, nil, err
	}
	x.sent++
	x.acked = make(chan struct{})
	return datagram, x.acked, nil
}

// Receive waits for the next message; those that came before the end come before its error. Errors: io.EOF when the peer
// has left, net.ErrClosed after Close, ErrLease; ErrMalformed, after which the next message may be received.
func (x *Exchange) Receive() (Message, []*os.File, error) {
	select {
	case m := <-x.in:
		return fileless(m)
	default:
	}
	select {
	case m := <-x.in:
		return fileless(m)
	case <-x.ended:
		return Message{}, nil, x.why
	}
}

// fileless refuses a message that says it has files.
func fileless(m Message) (Message, []*os.File, error) {
	if len(m.Files) > 0 {
		return Message{}, nil, fmt.Errorf("%w: %s has files, which cannot be passed over UDP: use the Unix socket",
			ErrMalformed, m.Type)
	}
	return m, nil, nil
}

// Close ends the session and tells the peer so.
func (x *Exchange) Close() error {
	x.stop(net.ErrClosed)
	return nil
}

// stop ends the exchange. Whoever did not end it himself is told.
func (x *Exchange) stop(why error) {
	x.end.Do(func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.expiry.Stop()
		x.why = why
		switch {
		case errors.Is(why, io.EOF):
		case errors.Is(why, net.ErrClosed):
			x.post(Datagram{Message: Message{Type: TypeLeave}})
		default:
			x.post(Datagram{Message: Message{Type: TypeLeave, Detail: why.Error()}})
		}
		close(x.ended)
	})
}

// Ended reports whether it has ended.
func (x *Exchange) Ended() bool { return isClosed(x.ended) }

// post sends a datagram once.
func (x *Exchange) post(d Datagram) {
	d.Token, d.Session = x.token, x.session
	if b, err := d.Pack(); err == nil {
		x.transmit(b, false)
	}
}

// Take takes a datagram of the peer in this session, and reports whether it brought a message that is new. It does not block.
func (x *Exchange) Take(d Datagram) (fresh bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if isClosed(x.ended) {
		return false
	}
	x.expiry.Reset(x.lease)
	switch d.Type {
	case TypeAck:
		if d.Number == x.sent && x.acked != nil {
			close(x.acked)
			x.acked = nil
		}
	case TypePing:
		x.post(Datagram{Message: Message{Type: TypePong}})
	case TypePong:
	case TypeLeave:
		go x.stop(fmt.Errorf("%w: %s", io.EOF, d.Detail)) // takes the lock
	default:
		return x.deliver(d)
	}
	return false
}

// deliver takes a message if it is the next, and acknowledges it if it was taken, now or before. Called with mu held.
func (x *Exchange) deliver(d Datagram) (fresh bool) {
	if d.Number == x.taken+1 {
		select {
		case x.in <- d.Message:
		default:
			return false
		}
		x.taken++
		fresh = true
		if x.token != "" && d.Type == TypeRegistered && d.Lease > 0 {
			x.lease = time.Duration(d.Lease) * time.Millisecond
			x.expiry.Reset(x.lease)
		}
	}
	if d.Number <= x.taken {
		x.post(Datagram{Number: d.Number, Message: Message{Type: TypeAck}})
	}
	return fresh
}

// ping renews the lease, once the daemon knows the session.
func (x *Exchange) ping() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.taken > 0 {
		x.post(Datagram{Message: Message{Type: TypePing}})
	}
}
