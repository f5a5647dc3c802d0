package appsock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// streamBuffer is the send buffer of a stream, octets of memory: room for a whole window in 2000 pieces, each of which
// costs the kernel up to 1 KiB. What comes in smaller pieces waits, and goes on together when the application reads.
const streamBuffer = 1 << 20

// stream is the daemon's end of a connection to a routing application: one end of a pair of Unix sockets, or connected to
// one at which the application listens. It implements router.Stream.
type stream struct {
	file    *os.File   // non-blocking
	inode   uint32     // of the application's end; 0: not known yet
	own     uint32     // inode of this end, if the application's has none before it is accepted
	reading sync.Mutex // held from reading octets until the router has them
}

// newStream makes a pair; the application's end is the caller's to close once it is passed on.
func newStream() (ours *stream, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	theirs = os.NewFile(uintptr(fds[1]), "connection")
	var stat unix.Stat_t
	err = errors.Join(unix.SetNonblock(fds[0], true), unix.Fstat(fds[1], &stat),
		unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, streamBuffer))
	ours = &stream{file: os.NewFile(uintptr(fds[0]), "connection"), inode: uint32(stat.Ino)}
	if err != nil {
		ours.file.Close()
		theirs.Close()
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return ours, theirs, nil
}

// wait waits until there is something to read, or the end; false: the stream is closed.
func (s *stream) wait() bool {
	raw, err := s.file.SyscallConn()
	if err != nil {
		return false
	}
	return raw.Read(func(fd uintptr) bool {
		n, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return n > 0 || !errors.Is(err, unix.EAGAIN)
	}) == nil
}

// read takes what is there: io.EOF at the end, EAGAIN if there is nothing.
func (s *stream) read() (octets []byte, err error) {
	raw, err := s.file.SyscallConn()
	if err != nil {
		return nil, err
	}
	b := make([]byte, 32<<10)
	n := 0
	failed := raw.Control(func(fd uintptr) { n, _, err = unix.Recvfrom(int(fd), b, unix.MSG_DONTWAIT) })
	switch {
	case failed != nil:
		return nil, failed
	case errors.Is(err, unix.ECONNRESET):
		return nil, io.EOF // it closed without reading everything
	case err != nil:
		return nil, err
	case n == 0:
		return nil, io.EOF
	}
	return b[:n], nil
}

// Write implements router.Stream. What an application that has closed its end would have read is lost to it only.
func (s *stream) Write(p []byte) (n int) {
	raw, err := s.file.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		n, err = unix.SendmsgN(int(fd), p, nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
	})
	if err != nil {
		return 0
	}
	return n
}

// CloseWrite implements router.Stream.
func (s *stream) CloseWrite() {
	raw, err := s.file.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_WR) })
}

// Close implements router.Stream.
func (s *stream) Close() { s.file.Close() }

// Unread implements router.Stream: the kernel is asked for the length of the other end's queue, of which octets that
// were peeked at are a part (net/unix/diag.c). The line with which a stream begins counts until it was read, and nothing is
// read before: it never looks as if more had been read than was.
func (s *stream) Unread() (n int, known bool) {
	if s.inode == 0 {
		s.inode, _ = ask(s.own, udiagShowPeer, unixDiagPeer)
	}
	if s.inode == 0 { // the application has not accepted it
		return 0, false
	}
	queue, known := ask(s.inode, udiagShowRQLen, unixDiagRQLen)
	return int(queue), known
}

// Constants of linux/unix_diag.h.
const (
	udiagShowPeer  = 1 << 2
	udiagShowRQLen = 1 << 4
	unixDiagPeer   = 2
	unixDiagRQLen  = 4
	unixDiagHeader = 16 // struct unix_diag_msg
)

// diagRequest is struct unix_diag_req: what is to be shown of a connected socket.
type diagRequest struct{ inode, show uint32 }

// Len implements nl.NetlinkRequestData.
func (diagRequest) Len() int { return 24 }

// Serialize implements nl.NetlinkRequestData.
func (d diagRequest) Serialize() []byte {
	b := make([]byte, d.Len())
	b[0] = unix.AF_UNIX
	binary.NativeEndian.PutUint32(b[4:], 1<<1) // TCP_ESTABLISHED
	binary.NativeEndian.PutUint32(b[8:], d.inode)
	binary.NativeEndian.PutUint32(b[12:], d.show)
	binary.NativeEndian.PutUint64(b[16:], ^uint64(0)) // INET_DIAG_NOCOOKIE
	return b
}

// ask asks the kernel for an attribute of a socket, of which the first word is returned.
func ask(inode, show uint32, attribute uint16) (word uint32, known bool) {
	r := nl.NewNetlinkRequest(unix.SOCK_DIAG_BY_FAMILY, 0)
	r.AddData(diagRequest{inode, show})
	replies, err := r.Execute(unix.NETLINK_SOCK_DIAG, unix.SOCK_DIAG_BY_FAMILY)
	if err != nil {
		return 0, false
	}
	for _, reply := range replies {
		if word, known := readAttribute(reply, attribute); known {
			return word, true
		}
	}
	return 0, false
}

// readAttribute reads the first word of an attribute in a reply.
func readAttribute(reply []byte, attribute uint16) (word uint32, known bool) {
	if len(reply) < unixDiagHeader {
		return 0, false
	}
	attributes, err := nl.ParseRouteAttr(reply[unixDiagHeader:])
	if err != nil {
		return 0, false
	}
	for _, a := range attributes {
		if a.Attr.Type == attribute && len(a.Value) >= 4 {
			return binary.NativeEndian.Uint32(a.Value), true
		}
	}
	return 0, false
}
