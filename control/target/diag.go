package target

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"baton/fastpath/wire"
)

// The part of linux/sock_diag.h and linux/inet_diag.h that is used here. Ports and addresses are in network byte order,
// everything else in the host's.
const (
	sockDiagByFamily = 20 // SOCK_DIAG_BY_FAMILY

	groupTCPDestroy  = 1 // SKNLGRP_INET_TCP_DESTROY
	groupTCP6Destroy = 3 // SKNLGRP_INET6_TCP_DESTROY

	diagInfo      = 2  // INET_DIAG_INFO: struct tcp_info
	diagSkMemInfo = 7  // INET_DIAG_SKMEMINFO: u32 indexed by SK_MEMINFO_*
	diagSkV6Only  = 11 // INET_DIAG_SKV6ONLY: u8
	diagMD5Sig    = 18 // INET_DIAG_MD5SIG: struct tcp_diag_md5sig of each key
	diagULPInfo   = 19 // INET_DIAG_ULP_INFO: nested
	ulpInfoName   = 1  // INET_ULP_INFO_NAME: string

	memInfoRcvbuf = 1 // SK_MEMINFO_RCVBUF

	diagRequestLen = 56 // struct inet_diag_req_v2
	diagMessageLen = 72 // struct inet_diag_msg

	// struct inet_diag_sockid, from its start.
	sockidDstPort = 2
	sockidSrc     = 4
	sockidDst     = 20
	sockidIf      = 36
	sockidCookie  = 40
	// struct inet_diag_msg, from its start.
	msgState  = 1
	msgSockid = 4
	msgRqueue = 56
	msgWqueue = 60

	diagTimeout = 2 // s: the kernel answers at once, or something is broken
)

// SocketState is a TCP state as the kernel numbers it (include/net/tcp_states.h).
type SocketState uint8

// The states. None, which the kernel does not have, means that there is no socket.
const (
	None SocketState = iota
	Established
	SynSent
	SynRecv
	FinWait1
	FinWait2
	TimeWait
	Close
	CloseWait
	LastAck
	Listen
	Closing
	NewSynRecv
)

var stateNames = [...]string{"NONE", "ESTABLISHED", "SYN-SENT", "SYN-RECEIVED", "FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT",
	"CLOSED", "CLOSE-WAIT", "LAST-ACK", "LISTEN", "CLOSING", "NEW-SYN-RECEIVED"}

// String is the name of RFC 9293 section 3.3.2.
func (s SocketState) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Socket is what inet_diag says about one socket.
type Socket struct {
	Tuple     wire.Tuple // Client is the remote end, Service the local one
	State     SocketState
	Cookie    uint64 // names the socket as long as the kernel runs
	Interface uint32 // bound to this device, 0 to none
	Rqueue    uint32 // LISTEN: connections in the accept queue; else octets not read
	Wqueue    uint32 // LISTEN: most connections in it; else octets not acknowledged
	Rcvbuf    uint32 // octets, as the kernel accounts them (twice what SO_RCVBUF set)
	Received  uint64 // octets of sequence space received, FIN included (tcpi_bytes_received)
	V6Only    bool
	IPv6      bool // an AF_INET6 socket, whatever its addresses are
	MPTCP     bool // a subflow of an MPTCP socket
	MD5       bool // has keys for TCP MD5 (RFC 2385)
}

// diag asks the kernel about TCP sockets of one namespace. Safe for concurrent use; requests wait for each other.
type diag struct {
	mu  sync.Mutex
	fd  int
	buf []byte
}

// openDiag opens it in the calling thread's namespace.
func openDiag() (*diag, error) {
	fd, err := openSockDiag(0)
	if err != nil {
		return nil, err
	}
	return &diag{fd: fd, buf: make([]byte, 64<<10)}, nil
}

func openSockDiag(groups uint32) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return -1, fmt.Errorf("sock_diag socket: %w", err)
	}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups})
	if err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: diagTimeout})
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("sock_diag socket: %w", err)
	}
	return fd, nil
}

// Close ends it.
func (d *diag) Close() error { return unix.Close(d.fd) }

// Lookup finds the socket of a tuple; its State is None when there is none, listeners do not count.
func (d *diag) Lookup(t wire.Tuple) (Socket, error) {
	found, err := d.find(t)
	if found.State == Listen {
		return Socket{}, err
	}
	return found, err
}

// Listener finds the socket to which the kernel would give a new connection to at, any one of a SO_REUSEPORT group; its
// State is None when there is none. It takes a tenth of the time of a Dump, which goes through the tables of all
// namespaces.
func (d *diag) Listener(at netip.AddrPort) (Socket, error) {
	nobody := netip.IPv4Unspecified()
	if at.Addr().Is6() {
		nobody = netip.IPv6Unspecified()
	}
	found, err := d.find(wire.Tuple{Client: netip.AddrPortFrom(nobody, 0), Service: at})
	if found.State != Listen {
		return Socket{}, err
	}
	return found, err
}

// find finds the socket that gets a tuple's segments, be it a listener.
func (d *diag) find(t wire.Tuple) (Socket, error) {
	request := diagRequest(family(t.Service.Addr()), 0, ^uint32(0))
	id := request[unix.SizeofNlMsghdr+8:]
	putEndpoint(id[0:], id[sockidSrc:], t.Service)
	putEndpoint(id[sockidDstPort:], id[sockidDst:], t.Client)
	for i := sockidCookie; i < sockidCookie+8; i++ {
		id[i] = 0xff // INET_DIAG_NOCOOKIE
	}
	var found Socket
	err := d.exchange(request, func(s Socket) { found = s })
	if errors.Is(err, unix.ENOENT) {
		return Socket{}, nil
	}
	return found, err
}

// Dump lists the sockets of both families whose state is one of states.
func (d *diag) Dump(states ...SocketState) ([]Socket, error) {
	var mask uint32
	for _, s := range states {
		mask |= 1 << s
	}
	var found []Socket
	for _, f := range []uint8{unix.AF_INET, unix.AF_INET6} {
		request := diagRequest(f, unix.NLM_F_DUMP, mask)
		if err := d.exchange(request, func(s Socket) { found = append(found, s) }); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func putEndpoint(port, addr []byte, ap netip.AddrPort) {
	binary.BigEndian.PutUint16(port, ap.Port())
	copy(addr, ap.Addr().AsSlice())
}

// diagRequest is a request with an empty socket id.
func diagRequest(family uint8, flags uint16, states uint32) []byte {
	b := make([]byte, unix.SizeofNlMsghdr+diagRequestLen)
	binary.NativeEndian.PutUint32(b[0:], uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], sockDiagByFamily)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|flags)
	b[16] = family
	b[17] = unix.IPPROTO_TCP
	b[18] = 1<<(diagInfo-1) | 1<<(diagSkMemInfo-1)
	binary.NativeEndian.PutUint32(b[20:], states)
	return b
}

// exchange sends a request and calls each for every socket in the answer.
func (d *diag) exchange(request []byte, each func(Socket)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := unix.Sendto(d.fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("inet_diag request: %w", err)
	}
	dump := binary.NativeEndian.Uint16(request[6:])&unix.NLM_F_DUMP != 0
	for {
		n, err := receive(d.fd, d.buf)
		if err != nil {
			return fmt.Errorf("inet_diag answer: %w", err)
		}
		done, err := eachMessage(d.buf[:n], each)
		if err != nil || done || !dump {
			return err
		}
	}
}

func receive(fd int, buf []byte) (int, error) {
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// eachMessage parses a datagram of netlink messages. done: it held the end of a dump.
func eachMessage(b []byte, each func(Socket)) (done bool, err error) {
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return true, fmt.Errorf("netlink message of %d octets in %d", size, len(b))
		}
		body := b[unix.SizeofNlMsghdr:size]
		switch binary.NativeEndian.Uint16(b[4:]) {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			return true, netlinkError(body)
		case sockDiagByFamily:
			if s, ok := parseSocket(body); ok {
				each(s)
			}
		}
		b = b[min(align4(size), len(b)):]
	}
	return false, nil
}

func netlinkError(body []byte) error {
	if len(body) < 4 {
		return errors.New("truncated netlink error")
	}
	if code := int32(binary.NativeEndian.Uint32(body)); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}

func align4(n int) int { return (n + 3) &^ 3 }

// parseSocket parses a struct inet_diag_msg and its attributes.
func parseSocket(b []byte) (Socket, bool) {
	if len(b) < diagMessageLen {
		return Socket{}, false
	}
	id := b[msgSockid:]
	s := Socket{
		State:     SocketState(b[msgState]),
		Cookie:    binary.NativeEndian.Uint64(id[sockidCookie:]),
		Interface: binary.NativeEndian.Uint32(id[sockidIf:]),
		Rqueue:    binary.NativeEndian.Uint32(b[msgRqueue:]),
		Wqueue:    binary.NativeEndian.Uint32(b[msgWqueue:]),
		IPv6:      b[0] == unix.AF_INET6,
	}
	s.Tuple.Service = endpoint(s.IPv6, id[0:], id[sockidSrc:])
	s.Tuple.Client = endpoint(s.IPv6, id[sockidDstPort:], id[sockidDst:])
	eachAttribute(b[diagMessageLen:], s.attribute)
	return s, true
}

func endpoint(ipv6 bool, port, addr []byte) netip.AddrPort {
	a := netip.AddrFrom4([4]byte(addr))
	if ipv6 {
		a = netip.AddrFrom16([16]byte(addr)).Unmap()
	}
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(port))
}

// eachAttribute calls each for every netlink attribute of b.
func eachAttribute(b []byte, each func(kind uint16, value []byte)) {
	for len(b) >= unix.SizeofNlAttr {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofNlAttr || size > len(b) {
			return
		}
		each(binary.NativeEndian.Uint16(b[2:])&^unix.NLA_F_NESTED, b[unix.SizeofNlAttr:size])
		b = b[min(align4(size), len(b)):]
	}
}

func (s *Socket) attribute(kind uint16, value []byte) {
	const bytesReceived = int(unsafe.Offsetof(unix.TCPInfo{}.Bytes_received))
	switch {
	case kind == diagInfo && len(value) >= bytesReceived+8:
		s.Received = binary.NativeEndian.Uint64(value[bytesReceived:])
	case kind == diagSkMemInfo && len(value) >= 4*(memInfoRcvbuf+1):
		s.Rcvbuf = binary.NativeEndian.Uint32(value[4*memInfoRcvbuf:])
	case kind == diagSkV6Only && len(value) > 0:
		s.V6Only = value[0] != 0
	case kind == diagMD5Sig:
		s.MD5 = len(value) > 0
	case kind == diagULPInfo:
		eachAttribute(value, func(kind uint16, value []byte) {
			s.MPTCP = s.MPTCP || kind == ulpInfoName && string(value) == "mptcp\x00"
		})
	}
}
