package lab

import (
	"crypto/sha256"
	"errors"
	"hash"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"baton/bench/judge"
)

// Conn is a client's connection that remembers what its application sent and received, for the judge.
type Conn struct {
	net.Conn       // not *net.TCPConn: its ReadFrom and WriteTo would pass the digests by
	mu             sync.Mutex
	sent, received counter
}

// counter digests a stream.
type counter struct {
	octets int64
	sum    hash.Hash
}

func (c *counter) add(p []byte) {
	c.octets += int64(len(p))
	c.sum.Write(p)
}

func (c *counter) digest() *judge.Digest {
	d := &judge.Digest{Octets: c.octets}
	c.sum.Sum(d.SHA256[:0])
	return d
}

func newConn(tcp *net.TCPConn) *Conn {
	return &Conn{Conn: tcp, sent: counter{sum: sha256.New()}, received: counter{sum: sha256.New()}}
}

// Read reads like net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.received.add(p[:n])
	return n, err
}

// Write writes like net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent.add(p[:n])
	return n, err
}

// CloseWrite sends a FIN.
func (c *Conn) CloseWrite() error { return c.TCP().CloseWrite() }

// Abort closes the connection with an RST.
func (c *Conn) Abort() error {
	if err := c.TCP().SetLinger(0); err != nil {
		return err
	}
	return c.Close()
}

// TCP is the connection itself, for options; octets that pass it are not remembered.
func (c *Conn) TCP() *net.TCPConn { return c.Conn.(*net.TCPConn) }

// DelayACKs has the client's kernel delay the ACK of what comes next, by 40 ms on Linux, unless there is something to
// send.
func (c *Conn) DelayACKs() error {
	raw, err := c.TCP().SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 0)
	})
	return errors.Join(err, set)
}

// Local is the client's end.
func (c *Conn) Local() netip.AddrPort {
	local := c.LocalAddr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
}

// Stream is what the application has sent and received so far.
func (c *Conn) Stream() judge.Stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	return judge.Stream{Sent: c.sent.digest(), Received: c.received.digest()}
}

// reuseAddress lets a client bind a port whose former connection is in TIME-WAIT.
func reuseAddress(_, _ string, raw syscall.RawConn) error {
	var err error
	if e := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}); e != nil {
		return e
	}
	return err
}
