package cgo

/*
#cgo CFLAGS: -std=gnu11 -O3 -Wall -Wextra -Werror
#cgo LDFLAGS: -lpthread
#include <stdlib.h>
#include "baton.h"

#cgo noescape baton_open
#cgo nocallback baton_open
#cgo noescape baton_poll
#cgo nocallback baton_poll
#cgo noescape baton_secrets_set
#cgo nocallback baton_secrets_set
#cgo noescape baton_command_send
#cgo nocallback baton_command_send
#cgo noescape baton_targets_publish
#cgo nocallback baton_targets_publish
#cgo noescape baton_connections_read
#cgo nocallback baton_connections_read
#cgo noescape baton_receive
#cgo nocallback baton_receive
#cgo noescape baton_punt_sleep
#cgo nocallback baton_punt_sleep
#cgo noescape baton_crt_read
#cgo nocallback baton_crt_read
#cgo noescape baton_counter_read
#cgo nocallback baton_counter_read
#cgo noescape baton_port_mem_open
#cgo nocallback baton_port_mem_open
#cgo noescape baton_port_mem_inject
#cgo nocallback baton_port_mem_inject
#cgo noescape baton_port_mem_collect
#cgo nocallback baton_port_mem_collect
*/
import "C"

import (
	"syscall"
	"unsafe"
)

// IP is struct baton_ip: an address of either family, IPv4 as IPv4-mapped IPv6, host order.
type IP struct{ Hi, Lo uint64 }

// Tuple is struct baton_tuple.
type Tuple struct {
	Client, Service         IP
	ClientPort, ServicePort uint16
	_                       uint32
}

// Service is struct baton_service.
type Service struct {
	Addr         IP
	Port         uint16
	ID           uint16
	OwnMSS       uint16
	Scale        uint8
	Adopts       uint8
	Window       uint32
	SpeaksFirst  bool
	Distribution uint8
	Closed       bool
	_            [1]uint8
}

// Candidate is struct baton_candidate.
type Candidate struct{ Owner, Weight uint16 }

// MaxOwners is BATON_MAX_OWNERS.
const MaxOwners = C.BATON_MAX_OWNERS

// Config is struct baton_config.
type Config struct {
	Secret                   [32]byte
	IPv4Entries, IPv6Entries uint64
	RouterFlows, HeldPackets uint32
	RouterIdleMS, LingerMS   uint32
	IdleSpinUS, IdleSleepUS  uint32
	ServiceCount, PortCount  uint32
	Seed                     uint64
	SourceFlows              uint32
	SourcePunts, Punts       uint32
	HalfOpen                 uint32
	TargetIdleS, EndedIdleS  uint32
	EvictIdleS               uint32
	Interrupts               uint32
}

// The kinds of Command: enum baton_command_kind.
const (
	Transmit = C.BATON_TRANSMIT
	Freeze   = C.BATON_FREEZE
	Thaw     = C.BATON_THAW
	Switch   = C.BATON_SWITCH
	Close    = C.BATON_CLOSE
	Remove   = C.BATON_REMOVE
	SetOwner = C.BATON_SET_OWNER
	Adopt    = C.BATON_ADOPT
	Restore  = C.BATON_RESTORE
	Serve    = C.BATON_SERVE
)

// The values of Command.Tunnel: enum baton_tunnel_kind.
const (
	TunnelNone = C.BATON_TUNNEL_NONE
	TunnelIPIP = C.BATON_TUNNEL_IPIP
	TunnelGUE  = C.BATON_TUNNEL_GUE
)

// Command is struct baton_command.
type Command struct {
	Flow     uint64
	Kind     uint32
	FrameLen uint32
	Owner    uint16
	Port     uint16
	Discard  uint8
	Tunnel   uint8
	MAC      [6]byte
	MTU      uint16
	_        uint16
	IRS, ISS uint32
	Tuple    Tuple
}

// Bits of Punt.Has: BATON_HAS_*.
const (
	HasScaling    = C.BATON_HAS_SCALING
	HasSACK       = C.BATON_HAS_SACK
	HasTimestamps = C.BATON_HAS_TIMESTAMPS
)

// Punt is struct baton_punt, with struct baton_handshake spelled out. It is followed by FrameLen octets: see Frame.
type Punt struct {
	Flow               uint64
	Tuple              Tuple
	IRS, ISS           uint32
	TSOffset           uint32
	Held               uint32
	MSS, OwnMSS        uint16
	SndScale, RcvScale uint8
	Has                uint8
	_                  uint8
	FrameLen           uint32
	Port, Owner        uint16
	Kind               uint8
	_                  uint8
	MAC                [6]byte
}

// Frame is the frame behind the punt; it lives as long as the punt does.
func (p *Punt) Frame() []byte {
	if p.FrameLen == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(p), unsafe.Sizeof(*p))), p.FrameLen)
}

// The states of a CRT entry: enum baton_state.
const (
	StateRouter = C.BATON_ROUTER
	StateFrozen = C.BATON_FROZEN
	StateTarget = C.BATON_TARGET
	StateLinger = C.BATON_LINGER
)

// Entry is struct baton_entry.
type Entry struct {
	Key   [3]uint64
	Value uint64
}

// State returns one of the State constants.
func (e *Entry) State() int { return int(e.Value >> C.BATON_VALUE_STATE_SHIFT & 3) }

// Index returns the owner (StateTarget, StateLinger) or the slot of the router's flow.
func (e *Entry) Index() uint32 {
	if e.State() >= StateTarget {
		return uint32(e.Value & C.BATON_VALUE_OWNER)
	}
	return uint32(e.Value & C.BATON_VALUE_INDEX)
}

// Incarnation returns the 24-bit hash of the entry's incarnation.
func (e *Entry) Incarnation() uint32 { return uint32(e.Value>>C.BATON_VALUE_INC_SHIFT) & 0xffffff }

// Ended says whether the client's FIN or RST was reported.
func (e *Entry) Ended() bool { return e.Value&C.BATON_VALUE_END != 0 }

// Second returns the wall clock's second of the last packet, modulo 2^15.
func (e *Entry) Second() uint16 { return uint16(e.Value >> C.BATON_VALUE_AGE_SHIFT) }

// A difference in layout makes an index out of range, which stops the compiler.
var (
	_ = [1]struct{}{}[unsafe.Sizeof(Tuple{})-C.sizeof_struct_baton_tuple]
	_ = [1]struct{}{}[unsafe.Sizeof(Service{})-C.sizeof_struct_baton_service]
	_ = [1]struct{}{}[unsafe.Sizeof(Candidate{})-C.sizeof_struct_baton_candidate]
	_ = [1]struct{}{}[unsafe.Offsetof(Service{}.Distribution)-unsafe.Offsetof(C.struct_baton_service{}.distribution)]
	_ = [1]struct{}{}[unsafe.Offsetof(Service{}.Window)-unsafe.Offsetof(C.struct_baton_service{}.window)]
	_ = [1]struct{}{}[unsafe.Sizeof(Config{})-C.sizeof_struct_baton_config]
	_ = [1]struct{}{}[unsafe.Offsetof(Config{}.PortCount)-unsafe.Offsetof(C.struct_baton_config{}.port_count)]
	_ = [1]struct{}{}[unsafe.Offsetof(Config{}.Punts)-unsafe.Offsetof(C.struct_baton_config{}.punts)]
	_ = [1]struct{}{}[unsafe.Sizeof(Command{})-C.sizeof_struct_baton_command]
	_ = [1]struct{}{}[unsafe.Offsetof(Command{}.MAC)-unsafe.Offsetof(C.struct_baton_command{}.mac)]
	_ = [1]struct{}{}[unsafe.Offsetof(Command{}.Tunnel)-unsafe.Offsetof(C.struct_baton_command{}.tunnel)]
	_ = [1]struct{}{}[unsafe.Offsetof(Command{}.MTU)-unsafe.Offsetof(C.struct_baton_command{}.mtu)]
	_ = [1]struct{}{}[unsafe.Offsetof(Command{}.IRS)-unsafe.Offsetof(C.struct_baton_command{}.irs)]
	_ = [1]struct{}{}[unsafe.Offsetof(Command{}.Tuple)-unsafe.Offsetof(C.struct_baton_command{}.tuple)]
	_ = [1]struct{}{}[unsafe.Sizeof(Punt{})-C.sizeof_struct_baton_punt]
	_ = [1]struct{}{}[unsafe.Offsetof(Punt{}.MSS)-unsafe.Offsetof(C.struct_baton_punt{}.handshake)]
	_ = [1]struct{}{}[unsafe.Offsetof(Punt{}.FrameLen)-unsafe.Offsetof(C.struct_baton_punt{}.frame_len)]
	_ = [1]struct{}{}[unsafe.Offsetof(Punt{}.MAC)-unsafe.Offsetof(C.struct_baton_punt{}.mac)]
	_ = [1]struct{}{}[unsafe.Sizeof(Entry{})-C.sizeof_struct_baton_entry]
)

// batch is how many punts one call of Receive can return.
const batch = 64

// Forwarder is struct baton_forwarder. Its methods are as concurrent as baton.h says.
type Forwarder struct {
	c     *C.struct_baton_forwarder
	punts **C.struct_baton_punt // batch pointers, in C's memory
}

// errno wraps what C returned (0 or -errno).
func errno(n C.int) error {
	if n == 0 {
		return nil
	}
	return syscall.Errno(-n)
}

// Open makes a forwarder whose ports are still to be opened.
func Open(c *Config, services []Service) (*Forwarder, error) {
	var err C.int
	c.ServiceCount = uint32(len(services))
	f := C.baton_open((*C.struct_baton_config)(unsafe.Pointer(c)),
		(*C.struct_baton_service)(unsafe.Pointer(unsafe.SliceData(services))), &err)
	if f == nil {
		return nil, errno(err)
	}
	return wrap(f), nil
}

func wrap(f *C.struct_baton_forwarder) *Forwarder {
	punts := C.calloc(batch, C.size_t(unsafe.Sizeof(uintptr(0))))
	return &Forwarder{c: f, punts: (**C.struct_baton_punt)(punts)}
}

func (f *Forwarder) unwrap() {
	C.free(unsafe.Pointer(f.punts))
	f.c, f.punts = nil, nil
}

// Close frees everything. The loop must have ended.
func (f *Forwarder) Close() {
	C.baton_close(f.c)
	f.unwrap()
}

// MemoryMode says how an in-memory port treats frames: enum baton_mem_mode.
type MemoryMode uint32

// The ways to treat frames.
const (
	MemoryPool  MemoryMode = C.BATON_MEM_POOL  // in buffers of a pool
	MemoryTight MemoryMode = C.BATON_MEM_TIGHT // received frames end where their memory ends
	MemoryBare  MemoryMode = C.BATON_MEM_BARE  // they begin where their memory begins
	MemoryMixed MemoryMode = C.BATON_MEM_MIXED // as tight, and the first shard receives the frames of all
)

// OpenMemory makes port i an in-memory port.
func (f *Forwarder) OpenMemory(i uint16, mac [6]byte, mode MemoryMode) error {
	return errno(C.baton_port_mem_open(f.c, C.uint16_t(i), (*C.uint8_t)(unsafe.Pointer(&mac)),
		C.enum_baton_mem_mode(mode)))
}

// Inject gives in-memory port i a frame.
func (f *Forwarder) Inject(i uint16, frame []byte) error {
	return errno(C.baton_port_mem_inject(f.c, C.uint16_t(i), (*C.uint8_t)(unsafe.Pointer(unsafe.SliceData(frame))),
		C.uint32_t(len(frame))))
}

// Collect takes a frame that in-memory port i sent and returns its length, 0: none.
func (f *Forwarder) Collect(i uint16, frame []byte) int {
	return int(C.baton_port_mem_collect(f.c, C.uint16_t(i), (*C.uint8_t)(unsafe.Pointer(unsafe.SliceData(frame))),
		C.uint32_t(len(frame))))
}

// BuffersInUse is how many buffers of in-memory port i are held, staged, or lost. For the caller of Poll.
func (f *Forwarder) BuffersInUse(i uint16) int {
	return int(C.baton_port_mem_in_use(f.c, C.uint16_t(i)))
}

// SetAddress sets port i's own address, before the first poll.
func (f *Forwarder) SetAddress(i uint16, addr IP) {
	C.baton_port_address(f.c, C.uint16_t(i), C.struct_baton_ip{hi: C.uint64_t(addr.Hi), lo: C.uint64_t(addr.Lo)})
}

// SetVLAN puts port i into a VLAN, before the first poll.
func (f *Forwarder) SetVLAN(i, vlan uint16) { C.baton_port_vlan(f.c, C.uint16_t(i), C.uint16_t(vlan)) }

// SetException has frames of port i that are not for Baton punted for the kernel, before the first poll.
func (f *Forwarder) SetException(i uint16, on bool) {
	C.baton_port_exception(f.c, C.uint16_t(i), C.bool(on))
}

// Port is what a port has and counted.
type Port struct {
	MAC                                    [6]byte
	FrameMax                               int // octets
	RxPackets, RxBytes, TxPackets, TxBytes uint64
}

// Port reads port i. Any thread.
func (f *Forwarder) Port(i uint16) Port {
	p := C.baton_port(f.c, C.uint16_t(i))
	read := func(w *C.baton_word) uint64 {
		if p.elsewhere {
			return 0 // the first shard counts
		}
		return loadWord(unsafe.Pointer(w))
	}
	return Port{
		MAC:       *(*[6]byte)(unsafe.Pointer(&p.mac)),
		FrameMax:  int(p.frame_max),
		RxPackets: read(&p.rx_packets), RxBytes: read(&p.rx_bytes),
		TxPackets: read(&p.tx_packets), TxBytes: read(&p.tx_bytes),
	}
}

// Poll does one burst of every port.
func (f *Forwarder) Poll() int { return int(C.baton_poll(f.c)) }

// Start runs the loop on a thread of its own, pinned to cpu (-1: anywhere).
func (f *Forwarder) Start(cpu int) error { return errno(C.baton_start(f.c, C.int(cpu))) }

// Stop ends the loop that Start began and waits for it.
func (f *Forwarder) Stop() {
	C.baton_stop(f.c)
	C.baton_join(f.c)
}

// SetClock replaces the wall clock (ms; 0: the real one).
func (f *Forwarder) SetClock(ms uint64) { C.baton_clock_set(f.c, C.uint64_t(ms)) }

// Now is the wall clock of the last poll, ms.
func (f *Forwarder) Now() uint64 { return uint64(C.baton_now_ms(f.c)) }

// Secret is struct baton_secret.
type Secret struct {
	FromMS uint64
	Octets [32]byte
}

// MaxSecrets bounds the secrets of SetSecrets.
const MaxSecrets = C.BATON_SECRETS

// CookieLifeMS is how long a cookie may be good, and the least time between two secrets, ms.
const CookieLifeMS = C.BATON_COOKIE_LIFE_MS

var _ = [1]struct{}{}[unsafe.Sizeof(Secret{})-C.sizeof_struct_baton_secret]

// SetSecrets replaces the secrets of cookies: 1 to MaxSecrets, in rising order. Any thread, one at a time.
func (f *Forwarder) SetSecrets(secrets []Secret) error {
	return errno(C.baton_secrets_set(f.c, (*C.struct_baton_secret)(unsafe.Pointer(unsafe.SliceData(secrets))),
		C.uint32_t(len(secrets))))
}

// Send queues a command and its frame. syscall.EBUSY: the ring is full.
func (f *Forwarder) Send(c *Command, frame []byte) error {
	c.FrameLen = uint32(len(frame))
	return errno(C.baton_command_send(f.c, (*C.struct_baton_command)(unsafe.Pointer(c)),
		(*C.uint8_t)(unsafe.Pointer(unsafe.SliceData(frame)))))
}

// SetTargets publishes the targets of the service with that number, in the order of Open. syscall.EBUSY: the ring is full.
func (f *Forwarder) SetTargets(service uint16, candidates []Candidate, table []uint16, recovers bool) error {
	return errno(C.baton_targets_publish(f.c, C.uint16_t(service),
		(*C.struct_baton_candidate)(unsafe.Pointer(unsafe.SliceData(candidates))), C.uint32_t(len(candidates)),
		(*C.uint16_t)(unsafe.Pointer(unsafe.SliceData(table))), C.uint32_t(len(table)), C.bool(recovers)))
}

// Connections reads how many connections of the service with that number each owner has. Any thread.
func (f *Forwarder) Connections(service uint16, out *[MaxOwners]uint32) {
	C.baton_connections_read(f.c, C.uint16_t(service), (*C.uint32_t)(unsafe.Pointer(out)))
}

// Receive gives back the punts it returned before, and returns up to n new ones.
func (f *Forwarder) Receive(n int) []*Punt {
	got := C.baton_receive(f.c, f.punts, C.int(min(n, batch)))
	return unsafe.Slice((**Punt)(unsafe.Pointer(f.punts)), got)
}

// PuntReady tells whether there is something to receive. For the goroutine that receives.
func (f *Forwarder) PuntReady() bool { return bool(C.baton_punt_ready(f.c)) }

// PreparePuntWait announces a sleep on PuntFD; false: there is something to receive already.
func (f *Forwarder) PreparePuntWait() bool { return bool(C.baton_punt_sleep(f.c)) }

// PuntFD is the eventfd that becomes readable when a punt comes after PreparePuntWait.
func (f *Forwarder) PuntFD() int { return int(C.baton_punt_fd(f.c)) }

// Counter describes a counter and reads it. ok is false beyond the last.
func (f *Forwarder) Counter(i int) (group, name, help string, value uint64, ok bool) {
	info := C.baton_counter_describe(C.uint(i))
	if info == nil {
		return "", "", "", 0, false
	}
	return C.GoString(info.group), C.GoString(info.name), C.GoString(info.help),
		uint64(C.baton_counter_read(f.c, C.uint(i))), true
}

// Watch makes the idle loop wait for receive interrupts. The first port that has none, if it is not -1, makes it nap
// instead. Before the loop starts, with ports that were opened with Config.Interrupts.
func (f *Forwarder) Watch() (port int, err error) {
	n := C.baton_watch(f.c)
	if n < 0 {
		return -1, errno(n)
	}
	return int(n) - 1, nil
}

// Pace is struct baton_pace.
type Pace struct {
	Polls           uint64
	BusyNS, IdleNS  uint64
	GapNS, GapMaxNS uint64
	Waits           uint64  // for an interrupt
	Busy            float64 // share of the last whole second, 0-1
}

// Pace tells how the loop spends its time. Any thread.
func (f *Forwarder) Pace() Pace {
	p := C.baton_pace_of(f.c)
	read := func(w *C.baton_word) uint64 { return loadWord(unsafe.Pointer(w)) }
	return Pace{
		Polls: read(&p.polls), BusyNS: read(&p.busy_ns), IdleNS: read(&p.idle_ns),
		GapNS: read(&p.gap_ns), GapMaxNS: read(&p.gap_max_ns), Waits: read(&p.waits), Busy: float64(read(&p.busy_ppm)) / 1e6,
	}
}

// Flows is how many flows the router owns.
func (f *Forwarder) Flows() int { return int(C.baton_flows_used(f.c)) }

// Table is one connection routing table, or a table of a test's own.
type Table struct{ c *C.struct_baton_crt }

// Table returns the forwarder's table of a family. It lives as long as the forwarder.
func (f *Forwarder) Table(ipv6 bool) Table {
	return Table{C.baton_crt_of(f.c, C.bool(ipv6))}
}

// Buckets is the number of buckets that Read takes.
func (t Table) Buckets() uint32 { return uint32(t.c.bucket_count) }

// Used and Limit are entries; Displaced is how often an entry changed its bucket, which may hide it from a scan.
func (t Table) Used() uint64 { return loadWord(unsafe.Pointer(&t.c.used)) }

// Limit is the number of entries that the table may hold.
func (t Table) Limit() uint64 { return uint64(t.c.limit) }

// Displaced counts entries that moved to another bucket since the start: a concurrent scan may miss such a one.
func (t Table) Displaced() uint64 { return loadWord(unsafe.Pointer(&t.c.displaced)) }

// Read copies the entries of a bucket as they were at one instant and returns how many. Any thread.
func (t Table) Read(bucket uint32, out *[4]Entry) int {
	return int(C.baton_crt_read(t.c, C.uint32_t(bucket), (*C.struct_baton_entry)(unsafe.Pointer(out))))
}
