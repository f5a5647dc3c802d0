package target

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"baton/fastpath/wire"
)

// endsBuffer holds about 8,000 reports while the agent is busy. When it overflows, nothing is lost but time: the agent
// compares its flows with the kernel's.
const endsBuffer = 4 << 20 // octets

// ends is the kernel's report of every TCP socket of a namespace that ceases to exist (sock_diag's destroy groups). A
// full socket also ceases when a smaller one takes over its FIN-WAIT-2 or TIME-WAIT. One that its application aborted
// has lost its tuple (tcp_disconnect): client's port and local address are zero, the cookie still names it.
type ends struct {
	fd   int
	stop [2]int // a pipe; its closing wakes the reader
	done chan struct{}

	mu       sync.Mutex
	expected wire.Tuple
	ignored  uint64        // cookie of the tuple's last leftover, whose end is not the one meant
	arrived  chan struct{} // holds one once expected has ended
}

// openEnds subscribes in the calling thread's namespace.
func openEnds() (*ends, error) {
	fd, err := openSockDiag(1<<(groupTCPDestroy-1) | 1<<(groupTCP6Destroy-1))
	if err != nil {
		return nil, err
	}
	// Fails without CAP_NET_ADMIN in the first namespace; the default buffer then has to do.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, endsBuffer)
	e := &ends{fd: fd, arrived: make(chan struct{}, 1)}
	if err := unix.Pipe2(e.stop[:], unix.O_CLOEXEC); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("pipe: %w", err)
	}
	return e, nil
}

// watch starts to call ended for every report, with the zero Socket when some were lost.
func (e *ends) watch(ended func(Socket)) {
	e.done = make(chan struct{})
	go func() {
		defer close(e.done)
		buf := make([]byte, 64<<10)
		for e.wait() {
			e.read(buf, ended)
		}
	}()
}

// wait waits for a report; false: it is over.
func (e *ends) wait() bool {
	poll := []unix.PollFd{{Fd: int32(e.fd), Events: unix.POLLIN}, {Fd: int32(e.stop[0]), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(poll, -1)
		if err == unix.EINTR {
			continue
		}
		return err == nil && poll[1].Revents == 0
	}
}

func (e *ends) read(buf []byte, ended func(Socket)) {
	n, err := receive(e.fd, buf)
	if errors.Is(err, unix.ENOBUFS) {
		ended(Socket{})
	}
	if err != nil {
		return
	}
	_, _ = eachMessage(buf[:n], func(s Socket) {
		e.note(s)
		ended(s)
	})
}

// expect makes seen watch for the end of t's socket. One tuple at a time: the Importer's lock sees to it.
func (e *ends) expect(t wire.Tuple) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.expected = t
	select {
	case <-e.arrived:
	default:
	}
}

// ignore has seen not take the end of this socket for the expected one.
func (e *ends) ignore(cookie uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ignored = cookie
}

func (e *ends) note(s Socket) {
	e.mu.Lock()
	defer e.mu.Unlock()
	aborted := wire.Tuple{
		Client:  netip.AddrPortFrom(e.expected.Client.Addr(), 0),
		Service: netip.AddrPortFrom(s.Tuple.Service.Addr(), e.expected.Service.Port()),
	}
	if s.Tuple != e.expected && s.Tuple != aborted || s.Cookie == e.ignored {
		return
	}
	select {
	case e.arrived <- struct{}{}:
	default:
	}
}

// seen reports whether the expected socket has ended, waiting for the report up to d.
func (e *ends) seen(d time.Duration) bool {
	select {
	case <-e.arrived:
		return true
	case <-time.After(d):
		return false
	}
}

// Close ends it, after the last call of ended has returned.
func (e *ends) Close() error {
	err := unix.Close(e.stop[1])
	if e.done != nil {
		<-e.done
	}
	return errors.Join(err, unix.Close(e.stop[0]), unix.Close(e.fd))
}
