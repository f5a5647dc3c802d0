package userstack

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Conn is a connection as its application has it. It implements net.Conn, and as *net.TCPConn does CloseWrite and
// SetLinger. Its methods are safe for concurrent use; of several Reads, or Writes, at a time each takes its turn.
type Conn struct {
	stack         *Stack
	endpoint      *endpoint // for the loop
	local, remote *net.TCPAddr
	marked        atomic.Bool // the loop has been told to look

	reading, writing sync.Mutex    // one at a time
	readable         chan struct{} // holds one: there may be something to read
	writable         chan struct{} // holds one: there may be room
	readBy, writeBy  deadline

	mu     sync.Mutex // guards what follows; nobody waits with it
	in     *buffer    // received, not read yet; nil: nothing
	out    *buffer    // written, not taken by the loop yet; nil: nothing
	rest   []byte     // follows in, of a connection that has ended
	eof    bool       // nothing comes after that
	why    error      // why the connection has ended; valid with ended
	ended  bool
	closed bool // by Close
	halved bool // by CloseWrite
	hard   bool // Close resets, as SetLinger(0) wants it
}

// wish is what an application wants of its connection, beyond octets.
type wish uint8

const (
	stay  wish = iota
	halve      // CloseWrite
	leave      // Close
	abort      // Close with octets unread, or with SetLinger(0)
)

// buffer is at most chunk octets, read from the front and written at the end.
type buffer struct {
	memory   *[chunk]byte
	from, to int
}

func newBuffer() *buffer { return &buffer{memory: chunks.Get().(*[chunk]byte)} }

func (b *buffer) octets() []byte { return b.memory[b.from:b.to] }

// write appends as much of p as there is room for.
func (b *buffer) write(p []byte) (n int) {
	n = copy(b.memory[b.to:], p)
	b.to += n
	return n
}

// read takes octets from the front.
func (b *buffer) read(p []byte) (n int) {
	n = copy(p, b.octets())
	b.from += n
	return n
}

// free gives the memory back. b must not be used any more.
func (b *buffer) free() {
	chunks.Put(b.memory)
	b.memory = nil
}

func newConn(s *Stack, e *endpoint) *Conn {
	return &Conn{
		stack: s, endpoint: e,
		local: net.TCPAddrFromAddrPort(e.inc.Service), remote: net.TCPAddrFromAddrPort(e.inc.Client),
		readable: make(chan struct{}, 1), writable: make(chan struct{}, 1),
	}
}

// LocalAddr is the DVIPA and its port, a *net.TCPAddr.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is the client's address and port, a *net.TCPAddr.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// Read implements net.Conn. What arrived before the client reset the connection can still be read.
func (c *Conn) Read(p []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	for {
		if c.readBy.passed() {
			return 0, c.failed("read", os.ErrDeadlineExceeded)
		}
		n, err := c.take(p)
		if n > 0 || err != nil || len(p) == 0 {
			return n, c.failed("read", err)
		}
		select {
		case <-c.readable:
		case <-c.readBy.done():
		}
	}
}

// take reads what is there. When that was all, the loop is to bring more.
func (c *Conn) take(p []byte) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return 0, net.ErrClosed
	case c.in != nil:
		n = c.in.read(p)
		if len(c.in.octets()) == 0 {
			c.in.free()
			c.in = nil
			c.stack.mark(c)
		}
		return n, nil
	case len(c.rest) > 0:
		n = copy(p, c.rest)
		c.rest = c.rest[n:]
		return n, nil
	case c.eof:
		return 0, io.EOF
	case c.ended:
		return 0, c.why
	}
	return 0, nil
}

// Write implements net.Conn. It returns when the stack has taken everything; the client may not have it yet.
func (c *Conn) Write(p []byte) (n int, err error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	for {
		if c.writeBy.passed() {
			return n, c.failed("write", os.ErrDeadlineExceeded)
		}
		m, err := c.put(p[n:])
		n += m
		if err != nil || n == len(p) {
			return n, c.failed("write", err)
		}
		select {
		case <-c.writable:
		case <-c.writeBy.done():
		}
	}
}

// put writes what there is room for.
func (c *Conn) put(p []byte) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return 0, net.ErrClosed
	case c.halved:
		return 0, syscall.EPIPE
	case c.ended && c.why == nil:
		return 0, syscall.EPIPE
	case c.ended:
		return 0, c.why
	case len(p) == 0:
		return 0, nil
	case c.out == nil:
		c.out = newBuffer()
	}
	n = c.out.write(p)
	if n > 0 {
		c.stack.mark(c)
	}
	return n, nil
}

// Close implements net.Conn. What was written is sent, and a FIN after it. If something was not read, the client learns
// that by a reset (RFC 2525 §2.17).
func (c *Conn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return c.failed("close", net.ErrClosed)
	}
	c.closed = true
	if c.in != nil {
		c.hard = true
		c.in.free()
		c.in = nil
	}
	c.mu.Unlock()
	c.wakeBoth()
	c.stack.mark(c)
	return nil
}

// CloseWrite sends a FIN after what was written. Reading goes on.
func (c *Conn) CloseWrite() error {
	c.mu.Lock()
	closed := c.closed
	c.halved = true
	c.mu.Unlock()
	if closed {
		return c.failed("close", net.ErrClosed)
	}
	poke(c.writable)
	c.stack.mark(c)
	return nil
}

// SetLinger with 0 makes Close reset the connection and drop what was not sent. Any other value makes it send on in the
// background, which is the default.
func (c *Conn) SetLinger(sec int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.failed("set", net.ErrClosed)
	}
	c.hard = sec == 0
	return nil
}

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadline(&c.readBy, t) }

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(&c.writeBy, t) }

func (c *Conn) setDeadline(d *deadline, t time.Time) error {
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return c.failed("set", net.ErrClosed)
	}
	d.set(t)
	return nil
}

// failed makes an error one of the net package. io.EOF and nil stay what they are.
func (c *Conn) failed(op string, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}

// arrive gives the application what arrived in order, if it has read everything before. It returns how many octets it
// took. Called by the loop.
func (c *Conn) arrive(data []byte, eof bool) (n int) {
	c.mu.Lock()
	if c.in == nil && !c.closed {
		if len(data) > 0 {
			c.in = newBuffer()
			n = c.in.write(data)
		}
		c.eof = eof && n == len(data)
	}
	wake := n > 0 || c.eof
	c.mu.Unlock()
	if wake {
		poke(c.readable)
	}
	return n
}

// depart takes what the application wrote, if there is room for all of it, and what it wants once that is sent. The
// buffer is the caller's. Called by the loop.
func (c *Conn) depart(room int) (out *buffer, w wish) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed && c.hard {
		return nil, abort
	}
	if c.out != nil && len(c.out.octets()) > room && !c.closed {
		return nil, stay
	}
	if c.out != nil {
		out, c.out = c.out, nil
		poke(c.writable)
	}
	switch {
	case c.closed:
		return out, leave
	case c.halved:
		return out, halve
	}
	return out, stay
}

// end says that the connection is over. What arrived can still be read. Called by the loop.
func (c *Conn) end(data []byte, eof bool, why error) {
	c.mu.Lock()
	c.ended, c.why = true, why
	c.rest = append(c.rest, data...)
	c.eof = eof || why == nil
	if c.out != nil {
		c.out.free()
		c.out = nil
	}
	c.mu.Unlock()
	c.wakeBoth()
}

func (c *Conn) wakeBoth() {
	poke(c.readable)
	poke(c.writable)
}

// poke puts one into a channel that holds one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
