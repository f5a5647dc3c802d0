package xcf

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Timing and limits of a stream.
const (
	ProtocolVersion = 1 // Hello.version

	handshakeTime = 5 * time.Second // TCP connection, TLS and Hello together
	pingInterval  = time.Second
	deadAfter     = 3 * time.Second // without an answer to a ping, or without anything at all
	queueMax      = 8 << 20         // octets that may wait for a peer that does not read
	notesMax      = 1 << 20         // octets of notes that may wait, beside the others
	directMax     = 64 << 10        // octets on their way that surely fit into the socket's send buffer
	sendBuffer    = 208 << 10       // SO_SNDBUF asked for: the default net.core.wmem_max, which Linux doubles
)

// Errors of streams.
var (
	// ErrNotConnected is returned by Send for a host without a stream.
	ErrNotConnected = errors.New("no stream to this host")
	// ErrQueueFull is returned by Send when the peer has not read for so long that 8 MiB wait for it, or 1 MiB of notes.
	ErrQueueFull = errors.New("queue to this host is full")
	// ErrDead ends a stream whose peer did not answer in time.
	ErrDead = errors.New("peer does not answer")
	// ErrReplaced ends a stream when its peer has opened a new one.
	ErrReplaced = errors.New("peer opened a new stream")
	// ErrProtocol ends a stream whose peer breaks the protocol.
	ErrProtocol = errors.New("protocol error")
	// ErrClosed ends a stream that this side closed.
	ErrClosed = errors.New("stream closed")
)

// Handler gets what happens on the streams. All calls for one peer come from one goroutine, in order: Up, any number of
// Message, Down; and with a new stream again from Up. Calls for different peers are concurrent.
type Handler interface {
	// Up is called when both Hellos are exchanged.
	Up(p *Peer)
	// Message is called for every message but Hello, Ping and Pong. The Envelope is the handler's to keep.
	Message(p *Peer, e *Envelope)
	// Down is called once the stream is closed; err says why, never nil.
	Down(p *Peer, err error)
}

// Peer is the authenticated host at the other end of one stream. Its methods are safe for concurrent use.
type Peer struct {
	id    Identity
	hello *Hello
	count *counters // of the host, over all its streams
	conn  *tls.Conn
	raw   *net.TCPConn
	sys   syscall.RawConn // of raw
	done  chan struct{}   // closed after Down has returned

	once   sync.Once
	closed chan struct{} // closed by close
	reason error         // why; written before closed is closed

	mu      sync.Mutex
	queue   []byte // frames that wait for the writer
	notes   notes  // frames that wait until no other does
	scratch []byte // the frame that a caller of Send writes itself; whoever set writing owns it
	writing bool   // someone writes to conn
	wake    chan struct{}

	sentNonce atomic.Uint64 // of the last ping
	sentAt    atomic.Int64  // when it went out, ns since epoch
	seenNonce atomic.Uint64 // of the last pong
	rtt       atomic.Int64  // ns; 0 unknown
}

// Name is the host's name.
func (p *Peer) Name() string { return p.id.Name }

// Identity is the host's role and name, from its certificate.
func (p *Peer) Identity() Identity { return p.id }

// Epoch is the epoch in the peer's Hello; a routing host's ownership of its DVIPAs.
func (p *Peer) Epoch() uint64 { return p.hello.GetEpoch() }

// Software is the version in the peer's Hello, for operators.
func (p *Peer) Software() string { return p.hello.GetSoftware() }

// Addr is the peer's end of the TCP connection.
func (p *Peer) Addr() net.Addr { return p.raw.RemoteAddr() }

// RTT is the round trip of the last ping, the peer's scheduling included; 0 before the first.
func (p *Peer) RTT() time.Duration { return time.Duration(p.rtt.Load()) }

// newPeer takes over a connection that has done the TLS handshake and exchanged Hellos.
func newPeer(s *stream, count *counters) (*Peer, error) {
	sys, err := s.raw.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &Peer{
		id: s.id, hello: s.hello, conn: s.conn, raw: s.raw, sys: sys, count: count,
		done: make(chan struct{}), closed: make(chan struct{}), wake: make(chan struct{}, 1),
	}, nil
}

// Send sends e, after all messages sent before. It does not wait for the network: what cannot go out at once is queued,
// and the octets are copied before it returns. The message may still be lost with the stream; Down tells. A Note or
// Undelivered comes after those before and may be overtaken by everything else: a transfer waits for one of them at most,
// and for what the socket holds (notSent).
func (p *Peer) Send(e *Envelope) error {
	direct, err := p.enqueue(e)
	if err != nil {
		p.count.refused.Add(1)
		return err
	}
	p.count.sent.Add(1)
	if !direct {
		return nil
	}
	_, err = p.conn.Write(p.scratch)
	p.count.sentBytes.Add(uint64(len(p.scratch)))
	p.release()
	if err != nil {
		p.close(fmt.Errorf("write: %w", explainAlert(err)))
	}
	return err
}

// enqueue encodes e, and reports whether the caller is to write p.scratch itself: nobody else writes, nothing waits,
// and the send buffer has room for it.
func (p *Peer) enqueue(e *Envelope) (direct bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.closed:
		return false, p.reason
	default:
	}
	if isNote(e) && (p.writing || len(p.queue) > 0 || p.notes.size > 0) {
		p.signal()
		return false, p.notes.add(e, p.id.Name)
	}
	if !p.writing && len(p.queue) == 0 {
		if p.scratch, err = appendFrame(recycle(p.scratch), e); err != nil {
			return false, err
		}
		if p.unsent()+len(p.scratch) <= directMax {
			p.writing = true
			return true, nil
		}
		p.queue, p.scratch = p.scratch, p.queue
		p.signal()
		return false, nil
	}
	if len(p.queue) >= queueMax {
		return false, fmt.Errorf("%w: %d octets wait for %s", ErrQueueFull, len(p.queue), p.id.Name)
	}
	p.queue, err = appendFrame(p.queue, e)
	p.signal()
	return false, err
}

// recycle empties a buffer, and lets go of one that an unusually long message has grown.
func recycle(buf []byte) []byte {
	if cap(buf) > keptBuffer {
		return nil
	}
	return buf[:0]
}

// unsent is how many octets the socket's send buffer still holds (SIOCOUTQ, tcp(7)).
func (p *Peer) unsent() int {
	n := directMax // if it cannot be known, the writer takes over
	_ = p.sys.Control(func(fd uintptr) {
		if q, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err == nil {
			n = q
		}
	})
	return n
}

// release ends a direct write, and lets the writer take what has queued up meanwhile.
func (p *Peer) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writing = false
	if len(p.queue) > 0 || p.notes.size > 0 {
		p.signal()
	}
}

// signal wakes the writer. p.mu is held.
func (p *Peer) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// take gives the writer everything that waits, or one note, or nil; the writer then holds writing.
func (p *Peer) take(spare []byte) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.writing:
		return nil
	case len(p.queue) > 0:
		batch := p.queue
		p.queue = recycle(spare)
		p.writing = true
		return batch
	case p.notes.size > 0:
		p.writing = true
		return p.notes.next()
	}
	return nil
}

// write is the writer goroutine: it writes all that has queued up in one go, and then notes, until the stream is closed.
func (p *Peer) write() {
	var batch []byte
	for {
		select {
		case <-p.closed:
			return
		case <-p.wake:
		}
		for {
			batch = p.take(batch)
			if batch == nil {
				break
			}
			_, err := p.conn.Write(batch)
			p.count.sentBytes.Add(uint64(len(batch)))
			p.release()
			if err != nil {
				p.close(fmt.Errorf("write: %w", explainAlert(err)))
				return
			}
		}
	}
}

// run serves the stream until it is closed: it reads, the writer and the pinger have goroutines of their own.
func (p *Peer) run(frames *frameReader, h Handler) error {
	defer close(p.done)
	var helpers sync.WaitGroup
	helpers.Go(p.write)
	helpers.Go(p.ping)
	p.count.up(p)
	h.Up(p)
	p.close(p.read(frames, h))
	helpers.Wait()
	p.count.down(p)
	h.Down(p, p.reason)
	return p.reason
}

// read hands messages to h until the stream fails.
func (p *Peer) read(frames *frameReader, h Handler) error {
	for {
		if err := p.conn.SetReadDeadline(time.Now().Add(deadAfter)); err != nil {
			return fmt.Errorf("read: %w", err)
		}
		e, size, err := frames.next()
		if err != nil {
			return explainRead(err)
		}
		p.count.received.Add(1)
		p.count.receivedBytes.Add(uint64(size))
		switch m := e.GetMessage().(type) {
		case *Envelope_Ping:
			// A full queue loses the answer; the peer then finds us dead, which is what we are to it.
			_ = p.Send(&Envelope{Message: &Envelope_Pong{Pong: &Pong{Nonce: m.Ping.GetNonce()}}})
		case *Envelope_Pong:
			p.pong(m.Pong.GetNonce())
		case *Envelope_Hello:
			return fmt.Errorf("%w: a second Hello", ErrProtocol)
		case nil: // of a newer peer
		default:
			h.Message(p, e)
		}
	}
}

// explainRead says in the operator's words how reading ended.
func explainRead(err error) error {
	var timeout net.Error
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("read: peer closed the stream: %w", err)
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%w: nothing came for %s", ErrDead, deadAfter)
	}
	return fmt.Errorf("read: %w", explainAlert(err))
}

// ping sends a ping every second, and closes the stream when one stays unanswered.
func (p *Peer) ping() {
	tick := time.NewTicker(pingInterval)
	defer tick.Stop()
	p.sendPing() // the first round trip is of interest at once
	answered := time.Now()
	for {
		select {
		case <-p.closed:
			return
		case now := <-tick.C:
			if p.seenNonce.Load() == p.sentNonce.Load() {
				answered = now
				p.sendPing()
			} else if now.Sub(answered) >= deadAfter {
				p.close(fmt.Errorf("%w: a ping for %s", ErrDead, deadAfter))
			}
		}
	}
}

// sendPing sends the next ping. A full queue loses it, which counts as unanswered.
func (p *Peer) sendPing() {
	nonce := p.sentNonce.Add(1)
	p.sentAt.Store(time.Now().UnixNano())
	_ = p.Send(&Envelope{Message: &Envelope_Ping{Ping: &Ping{Nonce: nonce}}})
}

// pong takes the answer to the last ping.
func (p *Peer) pong(nonce uint64) {
	if nonce == p.sentNonce.Load() && nonce != p.seenNonce.Load() {
		p.rtt.Store(time.Now().UnixNano() - p.sentAt.Load())
		p.seenNonce.Store(nonce)
	}
}

// Close ends the stream; a Dialer will open a new one.
func (p *Peer) Close() { p.close(ErrClosed) }

// close ends the stream, once, for the reason given.
func (p *Peer) close(reason error) {
	p.once.Do(func() {
		p.mu.Lock()
		p.reason = reason
		close(p.closed)
		p.mu.Unlock()
		// Not the TLS connection: its closing alert could wait for a peer that does not read. Messages have lengths, so
		// a cut is noticed without it.
		_ = p.raw.Close()
	})
}
