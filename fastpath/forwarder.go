package fastpath

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"baton/cgo"
	"baton/fastpath/flow"
	"baton/fastpath/wire"
)

// Config is what a Forwarder is made from. Zero values stand for the defaults that the fields name.
type Config struct {
	Ports    []PortConfig
	Services []Service
	// Key is the cluster's secret for SYN cookies and timestamp offsets. It must be random.
	Key [32]byte

	IPv4Entries int // CRT, flows; default 1048576
	IPv6Entries int // CRT, flows; default 65536
	RouterFlows int // flows that the router may own at once; default 65536, at most 1048576
	HeldPackets int // frames held for one frozen flow; default 256

	// What one client address (IPv6: its /64) may have of the router: flows at a time, default 16384, and handshakes and
	// punted segments a second, default 20000; Punts bounds those of all addresses, default 200000. What exceeds them is
	// dropped and counted as punt_limited.
	SourceFlows, SourcePunts, Punts int

	// HalfOpen is how many handshakes of services that speak first have their SYN-ACK repeated at a time; others have
	// their cookie only. Default 4096, at most 1048576; negative: none.
	HalfOpen int

	RouterIdle time.Duration // a flow that the router owns ends after this without a segment; default 60 s, negative: never
	Linger     time.Duration // a removed entry is forgotten after this; default 2 s
	// When a flow of a target counts as idle because its client sends nothing; whole seconds, at most 8 hours; negative:
	// never. Within the next minute it is punted as flow.Idle, and if no Restore renews it, it is forgotten two to three
	// minutes after. A later segment of it is an orphan, and the control plane asks the targets whose it is.
	TargetIdle time.Duration // default 1 h
	EndedIdle  time.Duration // after the client's FIN or RST; default 5 min
	// EvictIdle is how long a target's flow must have been idle to make room for a new one when the table is full;
	// default 10 min; negative: it never has to, and new flows are refused.
	EvictIdle time.Duration
	IdleSpin  time.Duration // poll this long without a frame before sleeping; default 50 us
	// IdleSleep is the longest sleep between two polls; a loop that has been idle for 100 ms sleeps up to 3 times as
	// long. A command ends every sleep. Default 100 us; negative: never sleep.
	IdleSleep time.Duration
	// Interrupts makes a loop that has been idle for 100 ms wait for an interrupt of its ports, or a command. If a port has
	// none (NoInterrupts), its loops sleep as above.
	Interrupts bool

	// Lcores is how many poll loops share the ports and connections, each on a CPU of its own: default 1, at most 16.
	// CPUs names them; empty: the last ones of the affinity mask (memory ports: any).
	Lcores    int
	CPUs      []int
	Hugepages Hugepages // DPDK ports only
	MemoryMB  int       // for DPDK; default 256
}

// Service is one address and port of a DVIPA that clients connect to.
type Service struct {
	ID           uint16            // names the service in CRT keys; unique
	Addr         netip.AddrPort    // the DVIPA and its port
	Distribution flow.Distribution // if conventional, what follows is not used: its targets answer the handshake
	OwnMSS       uint16            // the MSS that we announce, octets
	Window       uint32            // W: the first window, octets; a multiple of 1<<Scale
	Scale        uint8             // the window scale that we announce, 0-14
	// Adopts makes it a service of a target host: its flows come by Adopt only, everything of no flow is dropped, and
	// nobody is told that its address is here. OwnMSS, Window and Scale do not matter then.
	Adopts bool
	// SpeaksFirst: the client waits for a greeting. Its first bare ACK is punted, and until then the SYN-ACK is repeated.
	SpeaksFirst bool
	// Closed: it begins as Serve(Addr, false) leaves it.
	Closed bool
}

// Errors that callers tell apart.
var (
	// ErrBusy says that the command ring is full: try again later.
	ErrBusy = errors.New("forwarder's command ring is full")
	// ErrClosed says that the forwarder was closed.
	ErrClosed = errors.New("forwarder is closed")
	// ErrNoService says that an address and port is none of the configured services.
	ErrNoService = errors.New("no such service")
	// ErrNoDPDK says that a port needs DPDK, and the program was built without it.
	ErrNoDPDK = errors.New("built without DPDK (-tags dpdk): only in-memory ports (mem0)")
)

// Forwarder is one or several poll loops with their ports and tables. Each connection is in one of them, its shard, which
// a hash of its tuple names. Forwarder implements router.Dataplane, whose methods but Wake belong to one goroutine. Counters, Snapshot, Ports, Tables, Loops and Flows may be called from any goroutine at any time.
type Forwarder struct {
	shards   *cgo.Shards
	loops    []*cgo.Forwarder // of the shards
	next     int              // loop whose punts are received first
	config   Config
	services map[uint16]netip.AddrPort // by ID
	serving  map[netip.AddrPort]serving
	served   uint64 // number of the last Serve
	dpdk     bool
	naps     string // device without interrupts that they were asked of
	started  int    // loops

	bell  *os.File      // the loop's eventfd
	woken chan struct{} // holds one: Wait has a reason to return
	alarm *time.Timer   // of Wait
	asked bool          // since the last Wait, a command that a loop answers

	mu     sync.RWMutex // readers of counters and tables against Close
	closed bool
}

// maxIdle is BATON_IDLE_MAX.
const maxIdle = 8 * time.Hour

// withDefaults fills in what is zero.
func (c Config) withDefaults() Config {
	setInt := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	setDuration := func(p *time.Duration, v time.Duration) {
		if *p == 0 {
			*p = v
		}
	}
	setInt(&c.IPv4Entries, 1<<20)
	setInt(&c.IPv6Entries, 1<<16)
	setInt(&c.RouterFlows, 1<<16)
	setInt(&c.HeldPackets, 256)
	setInt(&c.SourceFlows, 16384)
	setInt(&c.SourcePunts, 20_000)
	setInt(&c.Punts, 200_000)
	setInt(&c.HalfOpen, 4096)
	setInt(&c.MemoryMB, 256)
	setInt(&c.Lcores, max(1, len(c.CPUs)))
	setDuration(&c.RouterIdle, 60*time.Second)
	setDuration(&c.Linger, 2*time.Second)
	setDuration(&c.TargetIdle, time.Hour)
	setDuration(&c.EndedIdle, 5*time.Minute)
	setDuration(&c.EvictIdle, 10*time.Minute)
	setDuration(&c.IdleSpin, 50*time.Microsecond)
	setDuration(&c.IdleSleep, 100*time.Microsecond)
	return c
}

// Open makes a forwarder and opens its ports. Nothing moves until Start, or until Poll is called.
//
// With DPDK ports it first moves all threads of the process away from the loop's CPU and then initialises DPDK's EAL,
// which a process can do once: a second Open with DPDK ports returns an error.
func Open(config Config) (*Forwarder, error) {
	config = config.withDefaults()
	if err := config.check(); err != nil {
		return nil, err
	}
	f := &Forwarder{config: config, services: map[uint16]netip.AddrPort{}, serving: map[netip.AddrPort]serving{},
		woken: make(chan struct{}, 1)}
	for _, s := range config.Services {
		f.services[s.ID] = s.Addr
	}
	shards, err := cgo.OpenShards(config.layout(), serviceLayouts(config.Services), config.Lcores)
	if err != nil {
		return nil, fmt.Errorf("make forwarder: %w", err)
	}
	f.shards, f.loops = shards, shards.All
	err = f.openPorts()
	if err == nil && config.Interrupts {
		err = f.watch()
	}
	if err == nil {
		err = f.openBell()
	}
	if err != nil {
		shards.Close()
		return nil, err
	}
	return f, nil
}

// watch has the loops wait for interrupts, as far as their ports have them.
func (f *Forwarder) watch() error {
	for i, l := range f.loops {
		port, err := l.Watch()
		if err != nil {
			return fmt.Errorf("make loop %d wait for interrupts: %w", i, err)
		}
		if port >= 0 {
			f.naps = f.config.Ports[port].Device
		}
	}
	return nil
}

// NoInterrupts is a device of which Config.Interrupts wanted interrupts, and which has none; "": there is none.
func (f *Forwarder) NoInterrupts() string { return f.naps }

// check refuses what C would refuse with a number only.
func (c Config) check() error {
	if len(c.Ports) == 0 || len(c.Ports) > 16 {
		return fmt.Errorf("%d data ports: 1 to 16 are possible", len(c.Ports))
	}
	if c.Lcores < 1 || c.Lcores > cgo.MaxShards || (len(c.CPUs) > 0 && len(c.CPUs) != c.Lcores) {
		return fmt.Errorf("%d lcores on %d CPUs: 1 to %d are possible, each on its own", c.Lcores, len(c.CPUs), cgo.MaxShards)
	}
	for _, p := range c.Ports {
		if p.VLAN > 4094 {
			return fmt.Errorf("port %q: VLAN %d: 1 to 4094 are possible, or none", p.Device, p.VLAN)
		}
	}
	if c.RouterFlows < 1 || c.RouterFlows > 1<<20 {
		return fmt.Errorf("%d router flows: 1 to %d are possible", c.RouterFlows, 1<<20)
	}
	if c.IPv4Entries < 1 || c.IPv6Entries < 1 || c.HeldPackets < 1 {
		return errors.New("table sizes must be positive")
	}
	if c.SourceFlows < 1 || c.SourcePunts < 1 || c.Punts < 1 {
		return errors.New("limits of sources must be positive")
	}
	if c.HalfOpen > 1<<20 {
		return fmt.Errorf("%d half-open handshakes: at most %d are possible", c.HalfOpen, 1<<20)
	}
	if max(c.TargetIdle, c.EndedIdle, c.EvictIdle) > maxIdle {
		return fmt.Errorf("flows of targets cannot be kept longer than %v without a segment", maxIdle)
	}
	return checkServices(c.Services)
}

func checkServices(services []Service) error {
	ids := map[uint16]bool{}
	for _, s := range services {
		switch {
		case !s.Addr.IsValid() || s.Addr.Port() == 0 || s.Addr.Addr().Is4In6():
			return fmt.Errorf("service %v: not an address and a port", s.Addr)
		case ids[s.ID]:
			return fmt.Errorf("service %v: ID %d is used twice", s.Addr, s.ID)
		case s.Distribution.Conventional() && s.Adopts:
			return fmt.Errorf("service %v: %v, and its flows are adopted", s.Addr, s.Distribution)
		case s.Distribution.Conventional() || s.Adopts:
		case s.Scale > 14 || s.Window == 0 || s.Window%(1<<s.Scale) != 0 || s.Window>>s.Scale > 65535:
			return fmt.Errorf("service %v: window %d with scale %d is impossible", s.Addr, s.Window, s.Scale)
		case s.OwnMSS < 64:
			return fmt.Errorf("service %v: MSS %d is below 64", s.Addr, s.OwnMSS)
		}
		ids[s.ID] = true
	}
	return nil
}

// layout is the config as C wants it.
func (c Config) layout() *cgo.Config {
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // never fails (crypto/rand)
	return &cgo.Config{
		Secret:       c.Key,
		IPv4Entries:  uint64(c.IPv4Entries),
		IPv6Entries:  uint64(c.IPv6Entries),
		RouterFlows:  uint32(c.RouterFlows),
		HeldPackets:  uint32(c.HeldPackets),
		RouterIdleMS: milliseconds(c.RouterIdle),
		LingerMS:     milliseconds(c.Linger),
		TargetIdleS:  milliseconds(c.TargetIdle) / 1000,
		EndedIdleS:   milliseconds(c.EndedIdle) / 1000,
		EvictIdleS:   milliseconds(c.EvictIdle) / 1000,
		IdleSpinUS:   microseconds(c.IdleSpin),
		IdleSleepUS:  microseconds(c.IdleSleep),
		PortCount:    uint32(len(c.Ports)),
		Seed:         binary.NativeEndian.Uint64(seed[:]),
		SourceFlows:  uint32(c.SourceFlows),
		SourcePunts:  uint32(c.SourcePunts),
		Punts:        uint32(c.Punts),
		HalfOpen:     uint32(max(0, c.HalfOpen)),
		Interrupts:   oneIf(c.Interrupts),
	}
}

func milliseconds(d time.Duration) uint32 { return uint32(max(0, d.Milliseconds())) }
func microseconds(d time.Duration) uint32 { return uint32(max(0, d.Microseconds())) }

func oneIf(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

func serviceLayouts(services []Service) []cgo.Service {
	out := make([]cgo.Service, len(services))
	for i, s := range services {
		out[i] = cgo.Service{
			Addr: toIP(s.Addr.Addr()), Port: s.Addr.Port(), ID: s.ID,
			OwnMSS: s.OwnMSS, Scale: s.Scale, Window: s.Window, SpeaksFirst: s.SpeaksFirst, Closed: s.Closed,
			Distribution: uint8(s.Distribution),
		}
		if s.Adopts {
			out[i].Adopts = 1
		}
	}
	return out
}

// Start runs each poll loop on a thread of its own until Close.
func (f *Forwarder) Start() error {
	if f.closed {
		return ErrClosed
	}
	if f.started > 0 {
		return errors.New("forwarder is started already")
	}
	for i := range f.loops {
		if err := f.launch(i); err != nil {
			return fmt.Errorf("start poll loop %d: %w", i, err)
		}
		f.started++
	}
	return nil
}

// Close stops the loops when they have done what they were told, closes the ports and frees everything, frames of Receive included. A second one does nothing.
// No other method but the readers named at Forwarder may be running.
func (f *Forwarder) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	f.stop()
	f.closePorts()
	return f.bell.Close()
}

// stop ends the loops, each when it has done the commands that are queued for it and sent their frames.
func (f *Forwarder) stop() {
	for ; f.started > 0; f.started-- {
		f.halt(f.started - 1) // the first loop, which may send for others, comes last
	}
}

// Poll does one burst of every port and returns how many frames and commands it handled. Tests call it instead of Start.
// Several loops take turns, so that what one hands to another is handled, too.
func (f *Forwarder) Poll() int {
	work := 0
	for range f.loops { // at least as often as a frame may change hands
		for _, l := range f.loops {
			work += l.Poll()
		}
	}
	return work
}

// SetClock replaces the wall clock from the next poll on, for tests. The zero time gives the real one back. The
// forwarder's clock never goes back.
func (f *Forwarder) SetClock(now time.Time) {
	var ms uint64
	if !now.IsZero() {
		ms = uint64(now.UnixMilli())
	}
	for _, l := range f.loops {
		l.SetClock(ms)
	}
}

// Flows is how many connections the router owns at the moment, those included of which it has not heard yet.
func (f *Forwarder) Flows() int {
	f.mu.RLock()
	defer f.mu.RUnlock()
	n := 0
	if f.closed {
		return n
	}
	for _, l := range f.loops {
		n += l.Flows()
	}
	return n
}

func toIP(a netip.Addr) cgo.IP {
	b := a.As16()
	return cgo.IP{Hi: binary.BigEndian.Uint64(b[:8]), Lo: binary.BigEndian.Uint64(b[8:])}
}

func fromIP(ip cgo.IP) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], ip.Hi)
	binary.BigEndian.PutUint64(b[8:], ip.Lo)
	return netip.AddrFrom16(b).Unmap()
}

func toTuple(t wire.Tuple) cgo.Tuple {
	return cgo.Tuple{
		Client: toIP(t.Client.Addr()), ClientPort: t.Client.Port(),
		Service: toIP(t.Service.Addr()), ServicePort: t.Service.Port(),
	}
}

func fromTuple(t cgo.Tuple) wire.Tuple {
	return wire.Tuple{
		Client:  netip.AddrPortFrom(fromIP(t.Client), t.ClientPort),
		Service: netip.AddrPortFrom(fromIP(t.Service), t.ServicePort),
	}
}
