package fastpath

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"baton/cgo"
	"baton/fastpath/wire"
)

// PortConfig is one data port.
type PortConfig struct {
	// Device is a DPDK device string: a virtual device with its arguments ("net_af_xdp0,iface=data0") or a PCI address
	// ("0000:3b:00.0"). "mem" and a number is an in-memory port; with ",tight" each received frame ends where its
	// memory ends, so that an address sanitizer sees every read beyond it; with ",bare" it begins there; with ",mixed"
	// the first of several loops receives for all, as with a device of one queue. A forwarder has ports of one kind only.
	Device string
	// Address is the port's own address on the data network: it asks for neighbours with it and answers ARP and ping.
	// The zero value is none.
	Address netip.Prefix
	// VLAN, 1 to 4094, is the one that the port is in: frames of others, and without a tag, are dropped, and all that
	// it sends is tagged. 0: frames have no tag, or one with a priority alone.
	VLAN uint16
	// Exception has frames that are not for Baton punted (flow.Exception), for the host's kernel: to other addresses and
	// protocols, and ARP and neighbour discovery for them. Nothing to a DVIPA is among them. At most 10000 a second.
	Exception bool
}

// Hugepages says whether DPDK's memory is in hugepages.
type Hugepages uint8

// The ways to choose memory.
const (
	HugepagesAuto   Hugepages = iota // hugepages if enough of them are free
	HugepagesAlways                  // refuse to start without
	HugepagesNever                   // 4 KiB pages: some 20 ns a frame slower
)

// ParseHugepages reads the configuration's word.
func ParseHugepages(s string) (Hugepages, error) {
	switch s {
	case "auto", "":
		return HugepagesAuto, nil
	case "always":
		return HugepagesAlways, nil
	case "never":
		return HugepagesNever, nil
	}
	return 0, fmt.Errorf("hugepages %q: auto, always and never are possible", s)
}

// PortInfo is a data port as operators see it.
type PortInfo struct {
	Index              uint16
	Device             string // as configured
	Driver             string // DPDK driver, or "memory"
	MAC                wire.MAC
	Address            netip.Prefix
	FrameMax           int // octets of the largest frame
	Up                 bool
	RxPackets, RxBytes uint64 // that the pipeline saw
	TxPackets, TxBytes uint64
	Stats              map[string]uint64 // of the driver: rte_eth_stats; nil for memory ports
}

// memoryDevice takes a device string apart; ok is false for a DPDK device.
func memoryDevice(device string) (mode cgo.MemoryMode, ok bool) {
	name, args, _ := strings.Cut(device, ",")
	digits := strings.TrimPrefix(name, "mem")
	ok = digits != name && strings.Trim(digits, "0123456789") == ""
	switch args {
	case "tight":
		mode = cgo.MemoryTight
	case "bare":
		mode = cgo.MemoryBare
	case "mixed":
		mode = cgo.MemoryMixed
	}
	return mode, ok
}

// carrier says whether the kernel's interface under a virtual device (iface=) has a link: the drivers that use one do not
// look themselves. A device without one has its driver's word only.
func carrier(device string) bool {
	for arg := range strings.SplitSeq(device, ",") {
		if name, ok := strings.CutPrefix(arg, "iface="); ok {
			i, err := net.InterfaceByName(name)
			return err == nil && i.Flags&net.FlagRunning != 0
		}
	}
	return true
}

// memoryMAC is a locally administered address for in-memory port i.
func memoryMAC(i int) wire.MAC { return wire.MAC{0x02, 0xba, 0x70, 0x00, byte(i >> 8), byte(i)} }

var errMixedPorts = errors.New("in-memory and DPDK ports cannot share a forwarder")

func (f *Forwarder) openPorts() error {
	memory := 0
	for _, p := range f.config.Ports {
		if _, ok := memoryDevice(p.Device); ok {
			memory++
		}
	}
	switch memory {
	case len(f.config.Ports):
		return f.openMemoryPorts()
	case 0:
		return f.openDPDKPorts()
	default:
		return errMixedPorts
	}
}

func (f *Forwarder) openMemoryPorts() error {
	for i, p := range f.config.Ports {
		mode, _ := memoryDevice(p.Device)
		for _, l := range f.loops {
			if err := l.OpenMemory(uint16(i), memoryMAC(i), mode); err != nil {
				return fmt.Errorf("open port %q: %w", p.Device, err)
			}
		}
	}
	f.setPorts()
	return nil
}

// setPorts tells the loops what the configuration says of ports that are open.
func (f *Forwarder) setPorts() {
	for i, p := range f.config.Ports {
		for _, l := range f.loops {
			l.SetVLAN(uint16(i), p.VLAN)
			l.SetException(uint16(i), p.Exception)
			if p.Address.IsValid() {
				l.SetAddress(uint16(i), toIP(p.Address.Addr()))
			}
		}
	}
}

// openDPDKPorts gives the EAL all devices at once and makes each one a port, in order.
func (f *Forwarder) openDPDKPorts() error {
	if !cgo.HasDPDK {
		return ErrNoDPDK
	}
	lcores, others, err := chooseCPUs(f.config)
	if err != nil {
		return fmt.Errorf("choose the poll loops' CPUs: %w", err)
	}
	if err := leaveCPUs(others); err != nil {
		return fmt.Errorf("move threads away from CPUs %v: %w", lcores, err)
	}
	args, err := ealArgs(f.config, lcores, others)
	if err != nil {
		return err
	}
	if err := cgo.StartEAL(args); err != nil {
		return fmt.Errorf("start DPDK with %s: %w", strings.Join(args, " "), err)
	}
	f.dpdk = true
	for i, p := range f.config.Ports {
		if err := f.loops[0].OpenDPDK(uint16(i), ethdevName(p.Device)); err != nil {
			return fmt.Errorf("open port %q: %w", p.Device, err)
		}
	}
	f.setPorts()
	return nil
}

// launch starts loop i: on an EAL lcore for DPDK ports, for its packet caches; on a thread otherwise.
func (f *Forwarder) launch(i int) error {
	switch {
	case f.dpdk:
		return f.loops[i].StartLcore()
	case len(f.config.CPUs) == 0:
		return f.loops[i].Start(-1)
	default:
		return f.loops[i].Start(f.config.CPUs[i])
	}
}

func (f *Forwarder) halt(i int) {
	if f.dpdk {
		f.loops[i].StopLcore()
		return
	}
	f.loops[i].Stop()
}

func (f *Forwarder) closePorts() { f.shards.Close() }

// Port returns the MAC and the configured address of data port i (0-based).
func (f *Forwarder) Port(i uint16) (mac wire.MAC, addr netip.Prefix) {
	if f.closed || int(i) >= len(f.config.Ports) {
		return wire.MAC{}, netip.Prefix{}
	}
	return f.loops[0].Port(i).MAC, f.config.Ports[i].Address
}

// Ports reads all data ports.
func (f *Forwarder) Ports() []PortInfo {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.closed {
		return nil
	}
	out := make([]PortInfo, len(f.config.Ports))
	for i, config := range f.config.Ports {
		p := f.port(uint16(i))
		out[i] = PortInfo{
			Index: uint16(i), Device: config.Device, Driver: "memory", MAC: p.MAC, Address: config.Address,
			FrameMax: p.FrameMax, Up: true,
			RxPackets: p.RxPackets, RxBytes: p.RxBytes, TxPackets: p.TxPackets, TxBytes: p.TxBytes,
		}
		if f.dpdk {
			out[i].Driver, out[i].Up, out[i].Stats = f.loops[0].Driver(uint16(i))
			out[i].Up = out[i].Up && carrier(config.Device)
		}
	}
	return out
}

// Inject gives in-memory port i a frame, as if it had come over the wire. One goroutine at a time per port; another one
// than the caller of Poll is fine.
func (f *Forwarder) Inject(i uint16, frame []byte) error {
	l := f.loops[0]
	if mode, _ := memoryDevice(f.config.Ports[i].Device); mode != cgo.MemoryMixed {
		l = f.loops[f.shards.OfRequest(frame)] // as a network card sorts them
	}
	if err := l.Inject(i, frame); err != nil {
		return fmt.Errorf("inject into port %d: %w", i, err)
	}
	return nil
}

// Collect appends to dst the next frame that in-memory port i sent. ok is false when there is none. One goroutine at a
// time per port.
func (f *Forwarder) Collect(i uint16, dst []byte) (frame []byte, ok bool) {
	const room = 9216 // of an in-memory port
	at := len(dst)
	dst = append(dst, make([]byte, room)...)
	for _, l := range f.senders(i) {
		if n := l.Collect(i, dst[at:]); n > 0 {
			return dst[:at+n], true
		}
	}
	return dst[:at], false
}

// BuffersInUse is how many frames of in-memory port i are held or wait to be sent. For the caller of Poll.
func (f *Forwarder) BuffersInUse(i uint16) int {
	if f.closed {
		return 0
	}
	n := 0
	for _, l := range f.senders(i) {
		n += l.BuffersInUse(i)
	}
	return n
}

// senders are the loops that have a queue of their own of in-memory port i.
func (f *Forwarder) senders(i uint16) []*cgo.Forwarder {
	if mode, _ := memoryDevice(f.config.Ports[i].Device); mode == cgo.MemoryMixed {
		return f.loops[:1]
	}
	return f.loops
}

// port sums up what the loops counted of a port.
func (f *Forwarder) port(i uint16) cgo.Port {
	sum := f.loops[0].Port(i)
	for _, l := range f.loops[1:] {
		p := l.Port(i)
		sum.RxPackets += p.RxPackets
		sum.RxBytes += p.RxBytes
		sum.TxPackets += p.TxPackets
		sum.TxBytes += p.TxBytes
	}
	return sum
}
