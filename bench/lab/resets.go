package lab

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// resetFilter passes IPv4 TCP segments with RST, as a classic BPF program (bpf(4)) on Ethernet frames.
var resetFilter = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 12}, // EtherType
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ETH_P_IP, Jf: 6},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 23}, // protocol
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.IPPROTO_TCP, Jf: 4},
	{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH, K: 14},     // length of the IP header
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_IND, K: 14 + 13}, // flags
	{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: 0x04, Jf: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
}

// ResetCounter counts the segments with RST on a host's data interface, in both directions: what a capture of a long run
// would have no room for. It is safe for concurrent use.
type ResetCounter struct {
	fd    int
	mu    sync.Mutex
	count int
}

// CountResets begins to count. IPv4 only; the interface must not tag frames.
func (h *Host) CountResets() (*ResetCounter, error) {
	r := &ResetCounter{fd: -1}
	if err := h.Do(r.open); err != nil {
		return nil, errors.Join(fmt.Errorf("count resets on %s: %w", h.Name, err), r.Close())
	}
	return r, nil
}

// open makes the packet socket, on a thread in the host's namespace. Nothing is received before bind.
func (r *ResetCounter) open() (err error) {
	dev, err := net.InterfaceByName(DataInterface)
	if err != nil {
		return err
	}
	if r.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(resetFilter)), Filter: unsafe.SliceData(resetFilter)}
	if err := unix.SetsockoptSockFprog(r.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program); err != nil {
		return fmt.Errorf("attach filter: %w", err)
	}
	return unix.Bind(r.fd, allFrames(dev.Index))
}

// Count returns how many resets there have been. Those that the socket had no room for count as well: it is read here
// only.
func (r *ResetCounter) Count() (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	stats, err := unix.GetsockoptTpacketStats(r.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS) // and sets them to 0
	if err != nil {
		return 0, err
	}
	r.count += int(stats.Packets) // with the dropped ones (packet(7))
	return r.count, nil
}

// Close ends the counter.
func (r *ResetCounter) Close() error {
	if r.fd < 0 {
		return nil
	}
	return unix.Close(r.fd)
}
