package target

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"baton/control/agent"
	"baton/control/transfer"
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// Why a connection cannot be exported. It goes on as before.
var (
	ErrNotTCP    = errors.New("the file is no connected TCP socket")
	ErrNotOpen   = errors.New("the connection is not established, or one side has closed it")
	ErrQueued    = errors.New("the socket holds more octets than a record: read or write less before giving it")
	ErrProtected = errors.New("the kernel encrypts the connection")
	errUnknown   = errors.New("it did not come from a routing host")
)

// timestampSlack is how far, in ms, the socket's last segment may be ahead of what TCP_TIMESTAMP says: they are rounded
// differently, and what the client sees must not go back.
const timestampSlack = 3

// knownTime is how long an application may be faster than the agent, which learns of an import after it.
const knownTime = 200 * time.Millisecond

// Queues of a socket in repair mode (linux/tcp.h).
const (
	queueNone = iota
	queueReceive
	queueSend
)

// Options of struct tcp_info (linux/tcp.h).
const (
	infoTimestamps = 1 << iota
	infoSACK
	infoScaling
)

var _ agent.Exporter = (*Kernel)(nil)

// Export implements agent.Exporter by TCP_REPAIR: the packet filter stops the connection in both directions, then the
// socket is read. What comes meanwhile is dropped, and its sender repeats it.
func (k *Kernel) Export(socket *os.File) (agent.Export, *agent.Problem) {
	x := &export{kernel: k}
	if err := x.own(socket); err != nil {
		return agent.Export{}, notExported(err)
	}
	if err := x.hold(); err != nil {
		unix.Close(x.fd)
		return agent.Export{}, notExported(err)
	}
	if err := x.read(); err != nil {
		x.thaw()
		return agent.Export{}, notExported(err)
	}
	return agent.Export{Record: x.record, Talked: x.talked, Settle: x.settle}, nil
}

func notExported(err error) *agent.Problem {
	return &agent.Problem{Reason: transfer.ReasonHost, Detail: "the connection cannot be exported: " + err.Error()}
}

// export is a connection on its way out.
type export struct {
	kernel *Kernel
	space  *space
	fd     int // of our own
	flow   liveFlow
	reuse  int // SO_REUSEADDR, which repair mode forgets
	record transfer.Record
	talked bool
}

// own takes a reference to the socket, which must be that of a flow.
func (x *export) own(socket *os.File) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var dup error
	err = raw.Control(func(fd uintptr) { x.fd, dup = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if err := errors.Join(err, dup); err != nil {
		return err
	}
	err = x.find()
	for end := time.Now().Add(knownTime); errors.Is(err, errUnknown) && time.Now().Before(end); err = x.find() {
		time.Sleep(time.Millisecond)
	}
	if err != nil {
		unix.Close(x.fd)
	}
	return err
}

func (x *export) find() error {
	local, err1 := unix.Getsockname(x.fd)
	remote, err2 := unix.Getpeername(x.fd)
	tuple := wire.Tuple{Client: addrPortOf(remote), Service: addrPortOf(local)}
	if err1 != nil || err2 != nil || !tuple.Client.IsValid() || !tuple.Service.IsValid() {
		return ErrNotTCP
	}
	cookie, err := unix.GetsockoptUint64(x.fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return ErrNotTCP
	}
	k := x.kernel
	k.mu.Lock()
	defer k.mu.Unlock()
	flow, ours := k.live[tuple]
	x.flow, x.space = flow, k.spaces[flow.netns]
	switch {
	case !ours || flow.cookie != cookie:
		return errUnknown
	case x.space == nil || x.space.mover == nil:
		return fmt.Errorf("network namespace %q is not set up", flow.netns)
	}
	return nil
}

// addrPortOf is a socket's address; invalid if it is none of TCP.
func addrPortOf(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// hold stops the connection.
func (x *export) hold() (err error) {
	if x.reuse, err = unix.GetsockoptInt(x.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR); err != nil {
		return err
	}
	return x.space.mover.Hold(x.flow.Inc)
}

// read reads a stopped connection. Leaving repair mode, in which the socket is not yet, makes it send a probe: that is
// not let out, but shows which timestamp of the client it echoes.
func (x *export) read() error {
	for _, mode := range []int{unix.TCP_REPAIR_OFF, unix.TCP_REPAIR_ON} {
		if err := unix.SetsockoptInt(x.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, mode); err != nil {
			return fmt.Errorf("TCP_REPAIR: %w", err)
		}
	}
	if err := x.options(); err != nil {
		return err
	}
	if err := x.received(); err != nil {
		return err
	}
	if err := x.sent(); err != nil {
		return err
	}
	return x.window()
}

// options reads what SYN and SYN-ACK had agreed on, and the clock.
func (x *export) options() error {
	info, err := unix.GetsockoptTCPInfo(x.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return err
	}
	if SocketState(info.State) != Established {
		return ErrNotOpen
	}
	if name, err := unix.GetsockoptString(x.fd, unix.IPPROTO_TCP, unix.TCP_ULP); err == nil && name != "" {
		return fmt.Errorf("%w: %s", ErrProtected, name)
	}
	mss, err := unix.GetsockoptInt(x.fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG)
	if err != nil {
		return err
	}
	scales := (*[8]uint8)(unsafe.Pointer(info))[6] // tcpi_snd_wscale and tcpi_rcv_wscale, in the order of bit fields
	x.record.Inc = x.flow.Inc
	x.record.Handshake = wire.Handshake{
		MSS: uint16(mss), OwnMSS: uint16(info.Advmss), SndScale: scales & 15, RcvScale: scales >> 4,
		Scaling: info.Options&infoScaling != 0, SACK: info.Options&infoSACK != 0,
		Timestamps: info.Options&infoTimestamps != 0,
	}
	if !x.record.Handshake.Timestamps {
		return nil
	}
	tsval, err := unix.GetsockoptInt(x.fd, unix.IPPROTO_TCP, unix.TCP_TIMESTAMP)
	if err != nil {
		return err
	}
	x.record.TSLast = uint32(tsval) + timestampSlack
	x.record.TSOffset = uint32(tsval) - uint32(time.Now().UnixMilli())
	return nil
}

// received reads the receive queue. A segment that was past the packet filter before the freeze may still arrive; its
// acknowledgment is not let out.
func (x *export) received() error {
	for range 10 {
		before, data, err := x.queue(queueReceive, transfer.MaxData)
		if err != nil {
			return err
		}
		after, err := unix.GetsockoptInt(x.fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
		if err != nil {
			return err
		}
		if uint32(after) != uint32(before) {
			continue
		}
		r := &x.record
		r.RcvNxt = seq.Value(uint32(after))
		r.ReadFrom, r.Data = r.RcvNxt.Add(-len(data)), data
		return x.said(len(data))
	}
	return ErrNotOpen
}

// said notes whether the application has read or written anything.
func (x *export) said(unread int) error {
	info, err := unix.GetsockoptTCPInfo(x.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return err
	}
	x.talked = info.Bytes_sent > 0 || info.Bytes_received > uint64(unread)
	return nil
}

// sent reads the send queue: what the client has not acknowledged, and what was never sent. How much of it has left is
// counted generously, and sent again, because its acknowledgment may have been lost in the freeze.
func (x *export) sent() error {
	unsent, err := unix.IoctlGetInt(x.fd, unix.SIOCOUTQNSD)
	if err != nil {
		return err
	}
	end, data, err := x.queue(queueSend, transfer.MaxSendData)
	if err != nil {
		return err
	}
	r := &x.record
	r.SndUna, r.SendData = seq.Value(uint32(end)).Add(-len(data)), data
	r.SndNxt = r.SndUna.Add(max(0, len(data)-unsent))
	r.ToRepeat = uint32(r.SndNxt.Sub(r.SndUna))
	x.talked = x.talked || len(data) > 0
	return nil
}

// queue reads a queue of the socket: its TCP_QUEUE_SEQ and octets.
func (x *export) queue(which, most int) (at int, data []byte, err error) {
	if err := unix.SetsockoptInt(x.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, which); err != nil {
		return 0, nil, fmt.Errorf("TCP_REPAIR_QUEUE: %w", err)
	}
	if at, err = unix.GetsockoptInt(x.fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ); err != nil {
		return 0, nil, fmt.Errorf("TCP_QUEUE_SEQ: %w", err)
	}
	data = make([]byte, most+1)
	n, _, err := unix.Recvfrom(x.fd, data, unix.MSG_PEEK|unix.MSG_DONTWAIT)
	if errors.Is(err, unix.EAGAIN) {
		n, err = 0, nil
	}
	switch {
	case err != nil:
		return 0, nil, fmt.Errorf("queue %d: %w", which, err)
	case n > most:
		return 0, nil, ErrQueued
	}
	return at, append([]byte(nil), data[:n]...), nil
}

// window reads the client's window (struct tcp_repair_window), and what the client was promised.
func (x *export) window() error {
	var w struct{ SndWL1, SndWnd, MaxWindow, RcvWnd, RcvWup uint32 }
	b := make([]byte, unsafe.Sizeof(w))
	if err := getsockopt(x.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_WINDOW, b); err != nil {
		return fmt.Errorf("TCP_REPAIR_WINDOW: %w", err)
	}
	if _, err := binary.Decode(b, binary.NativeEndian, &w); err != nil {
		return err
	}
	r := &x.record
	var err error
	if r.RcvAcked, r.RcvEdge, r.TSRecent, err = x.space.mover.Promised(x.flow.Inc.Tuple); err != nil {
		return err
	}
	r.RcvAcked, r.RcvEdge = seq.Min(r.RcvAcked, r.RcvNxt), seq.Max(r.RcvEdge, r.RcvNxt)
	r.SndWnd, r.SndMaxWnd, r.SndWL1, r.SndWL2 = w.SndWnd, w.MaxWindow, seq.Value(w.SndWL1), r.SndUna
	return nil
}

func getsockopt(fd, level, option int, b []byte) error {
	n := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// settle ends the socket without a word, before anything else can come of it, or has it go on.
func (x *export) settle(left bool) {
	if !left {
		x.thaw()
		return
	}
	k := x.kernel
	k.left(x.flow.Inc)
	err := disconnect(x.fd)
	if err == nil {
		k.unfollow(x.space, x.flow.Inc) // else it stays frozen
	}
	if err := errors.Join(err, unix.Close(x.fd)); err != nil {
		k.log.Error("connection that was given away is stuck", "client", x.flow.Inc.Client, "error", err)
	}
}

// disconnect takes a socket in repair mode out of the kernel's tables; its application gets ECONNABORTED.
func disconnect(fd int) error {
	var unspecified [16]byte
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unspecified[0])),
		uintptr(len(unspecified)))
	if errno != 0 {
		return fmt.Errorf("disconnect: %w", errno)
	}
	return nil
}

// thaw lets the connection go on, with a probe that makes the client repeat what was lost meanwhile.
func (x *export) thaw() {
	err := errors.Join(
		unix.SetsockoptInt(x.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, queueNone),
		x.space.mover.Release(x.flow.Inc),
		unix.SetsockoptInt(x.fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_OFF),
		unix.SetsockoptInt(x.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, x.reuse),
		unix.Close(x.fd),
	)
	if err != nil {
		x.kernel.log.Error("connection does not thaw", "client", x.flow.Inc.Client, "error", err)
	}
}
