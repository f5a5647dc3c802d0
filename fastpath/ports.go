package fastpath

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"baton/cgo"
	"baton/fastpath/wire"
)

// PortConfig is one data port.
type PortConfig struct {
	// Device is a DPDK device string: a virtual device with its arguments ("net_af_xdp0,iface=data0") or a PCI address
	// ("0000:3b:00.0"). "mem" and a number is an in-memory port; with ",tight" each received frame ends where its
	// memory ends, so that an address sanitizer sees every read beyond it; with ",bare" it begins there. A
	// forwarder has ports of one kind only.
	Device string
	// Address is the port's own address on the data network: it asks for neighbours with it and answers ARP and ping.
	// The zero value is none.
	Address netip.Prefix
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
func memoryDevice(device string) (tight, bare, ok bool) {
	name, args, _ := strings.Cut(device, ",")
	digits := strings.TrimPrefix(name, "mem")
	ok = digits != name && strings.Trim(digits, "0123456789") == ""
	return args == "tight", args == "bare", ok
}

// memoryMAC is a locally administered address for in-memory port i.
func memoryMAC(i int) wire.MAC { return wire.MAC{0x02, 0xba, 0x70, 0x00, byte(i >> 8), byte(i)} }

var errMixedPorts = errors.New("in-memory and DPDK ports cannot share a forwarder")

func (f *Forwarder) openPorts() error {
	memory := 0
	for _, p := range f.config.Ports {
		if _, _, ok := memoryDevice(p.Device); ok {
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
		tight, bare, _ := memoryDevice(p.Device)
		if err := f.c.OpenMemory(uint16(i), memoryMAC(i), tight, bare); err != nil {
			return fmt.Errorf("open port %q: %w", p.Device, err)
		}
	}
	f.setAddresses()
	return nil
}

func (f *Forwarder) setAddresses() {
	for i, p := range f.config.Ports {
		if p.Address.IsValid() {
			f.c.SetAddress(uint16(i), toIP(p.Address.Addr()))
		}
	}
}

// openDPDKPorts gives the EAL all devices at once and makes each one a port, in order.
func (f *Forwarder) openDPDKPorts() error {
	if !cgo.HasDPDK {
		return ErrNoDPDK
	}
	lcore, others, err := chooseCPUs(f.config.Lcore)
	if err != nil {
		return fmt.Errorf("choose the poll loop's CPU: %w", err)
	}
	if err := leaveCPU(others); err != nil {
		return fmt.Errorf("move threads away from CPU %d: %w", lcore, err)
	}
	args, err := ealArgs(f.config, lcore, others)
	if err != nil {
		return err
	}
	if err := cgo.StartEAL(args); err != nil {
		return fmt.Errorf("start DPDK with %s: %w", strings.Join(args, " "), err)
	}
	f.dpdk = true
	for i, p := range f.config.Ports {
		if err := f.c.OpenDPDK(uint16(i), ethdevName(p.Device)); err != nil {
			return fmt.Errorf("open port %q: %w", p.Device, err)
		}
	}
	f.setAddresses()
	return nil
}

// launch starts the loop: an EAL lcore for DPDK ports, for its packet caches; a thread otherwise.
func (f *Forwarder) launch() error {
	if f.dpdk {
		return f.c.StartLcore()
	}
	if f.config.Lcore == AutoLcore || f.config.Lcore == 0 {
		return f.c.Start(-1)
	}
	return f.c.Start(f.config.Lcore)
}

func (f *Forwarder) halt() {
	if f.dpdk {
		f.c.StopLcore()
		return
	}
	f.c.Stop()
}

func (f *Forwarder) closePorts() { f.c.Close() }

// Port returns the MAC and the configured address of data port i (0-based).
func (f *Forwarder) Port(i uint16) (mac wire.MAC, addr netip.Prefix) {
	if f.closed || int(i) >= len(f.config.Ports) {
		return wire.MAC{}, netip.Prefix{}
	}
	return f.c.Port(i).MAC, f.config.Ports[i].Address
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
		p := f.c.Port(uint16(i))
		out[i] = PortInfo{
			Index: uint16(i), Device: config.Device, Driver: "memory", MAC: p.MAC, Address: config.Address,
			FrameMax: p.FrameMax, Up: true,
			RxPackets: p.RxPackets, RxBytes: p.RxBytes, TxPackets: p.TxPackets, TxBytes: p.TxBytes,
		}
		if f.dpdk {
			out[i].Driver, out[i].Up, out[i].Stats = f.c.Driver(uint16(i))
		}
	}
	return out
}

// Inject gives in-memory port i a frame, as if it had come over the wire. One goroutine at a time per port; another one
// than the caller of Poll is fine.
func (f *Forwarder) Inject(i uint16, frame []byte) error {
	if err := f.c.Inject(i, frame); err != nil {
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
	n := f.c.Collect(i, dst[at:])
	return dst[:at+n], n > 0
}

// BuffersInUse is how many frames of in-memory port i are held or wait to be sent. For the caller of Poll.
func (f *Forwarder) BuffersInUse(i uint16) int {
	if f.closed {
		return 0
	}
	return f.c.BuffersInUse(i)
}
