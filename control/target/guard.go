package target

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"

	"baton/control/target/bpf"
)

// linkPrefix begins the names of pinned links; the interface follows.
const linkPrefix = "link-"

// Guard is the guard program on the interfaces of one namespace. It works as long as its pins exist, with or without a
// process that holds a Guard. Methods may be called concurrently.
type Guard struct {
	dir      string
	services *ebpf.Map
	sources  *ebpf.Map // of tunnels
	plays    *ebpf.Map // shared with Lockstep
	counters *ebpf.Map
}

// Guarded is a service at which the guard stands. Clients begin connections to it by themselves when it is direct.
type Guarded struct {
	Service netip.AddrPort
	Direct  bool
}

// OpenGuard guards services on the interfaces of a namespace; what an earlier agent pinned in dir is taken over
// without a gap. Interfaces that the namespace does not have are left out; with none at all it is an error. sources are
// the addresses from which packets for the services may come through a tunnel. dir must be in a bpffs and exist.
func OpenGuard(n *Namespace, dir string, interfaces []string, services []Guarded, sources []netip.Addr) (
	*Guard, error,
) {
	g := &Guard{dir: dir}
	err := n.Do(func() error { return g.open(interfaces, services, sources) })
	if err != nil {
		g.Close()
		return nil, fmt.Errorf("guard: %w", err)
	}
	return g, nil
}

func (g *Guard) open(interfaces []string, services []Guarded, sources []netip.Addr) error {
	indexes, err := indexesOf(interfaces)
	if err != nil {
		return err
	}
	program, err := g.load()
	if err != nil {
		return err
	}
	defer program.Close()
	// First the services, then the interfaces: there is no moment at which a guarded service is open.
	if err := g.setServices(services); err != nil {
		return fmt.Errorf("guard services: %w", err)
	}
	if err := g.setSources(sources); err != nil {
		return fmt.Errorf("allow tunnels: %w", err)
	}
	for name, index := range indexes {
		if err := g.attach(name, index, program); err != nil {
			return fmt.Errorf("attach to %s: %w", name, err)
		}
	}
	return g.detachAllBut(indexes)
}

// indexesOf finds the interfaces that are there.
func indexesOf(names []string) (map[string]int, error) {
	found := make(map[string]int)
	for _, name := range names {
		if i, err := net.InterfaceByName(name); err == nil {
			found[name] = i.Index
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("none of the interfaces %s is there: set guard.interfaces", strings.Join(names, ", "))
	}
	return found, nil
}

// load loads the program with the pinned maps.
func (g *Guard) load() (*ebpf.Program, error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, err
	}
	spec, err := bpf.LoadGuard()
	if err != nil {
		return nil, err
	}
	if g.services, err = openPinned(g.dir, spec.Maps[bpf.GuardMapServices]); err != nil {
		return nil, err
	}
	if g.sources, err = openPinned(g.dir, spec.Maps[bpf.GuardMapTunnelSources]); err != nil {
		return nil, err
	}
	if g.counters, err = openPinned(g.dir, spec.Maps[bpf.GuardMapCounters]); err != nil {
		return nil, err
	}
	if g.plays, err = openPinned(g.dir, spec.Maps[bpf.GuardMapPlays]); err != nil {
		return nil, err
	}
	var programs bpf.GuardPrograms
	err = spec.LoadAndAssign(&programs, &ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{
		bpf.GuardMapServices: g.services, bpf.GuardMapTunnelSources: g.sources, bpf.GuardMapCounters: g.counters,
		bpf.GuardMapPlays: g.plays,
	}})
	if err != nil {
		return nil, fmt.Errorf("load program: %w", err)
	}
	return programs.BatonGuard, nil
}

// attach puts the program on an interface: into the pinned link if that is still good, else by a new one. The pin is
// the link's only reference, so removing the pin detaches.
func (g *Guard) attach(name string, index int, program *ebpf.Program) error {
	path := filepath.Join(g.dir, linkPrefix+pinName(name))
	if l, err := link.LoadPinnedLink(path, nil); err == nil {
		defer l.Close()
		if isOn(l, index) {
			return l.Update(program)
		}
		if err := l.Unpin(); err != nil {
			return err
		}
	}
	l, err := attachIngress(index, program)
	if err != nil {
		return err
	}
	defer l.Close()
	return l.Pin(path)
}

// isOn reports whether a link still holds on to this interface; one of a removed interface does not.
func isOn(l link.Link, index int) bool {
	info, err := l.Info()
	if err != nil || info.TCX() == nil {
		return false
	}
	return info.TCX().Ifindex == uint32(index)
}

// detachAllBut takes the program off interfaces that are not configured any more.
func (g *Guard) detachAllBut(keep map[string]int) error {
	kept := make(map[string]bool)
	for name := range keep {
		kept[linkPrefix+pinName(name)] = true
	}
	entries, err := os.ReadDir(g.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), linkPrefix) && !kept[e.Name()] {
			if err := os.Remove(filepath.Join(g.dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// serviceKey names a service for the program; port 0 says that the address has services.
func serviceKey(address netip.Addr, port uint16) bpf.GuardBatonService {
	return bpf.GuardBatonService{AddressBe: words(netip.AddrFrom16(address.As16())), PortBe: swap16(port)}
}

// setServices makes the map hold exactly these services.
func (g *Guard) setServices(services []Guarded) error {
	wanted := make(map[bpf.GuardBatonService]bpf.GuardBatonMode)
	for _, s := range services {
		mode := bpf.GuardBatonModeBATON_MODE_TRANSFERRED
		if s.Direct {
			mode = bpf.GuardBatonModeBATON_MODE_DIRECT
		}
		wanted[serviceKey(s.Service.Addr(), 0)] = mode
		wanted[serviceKey(s.Service.Addr(), s.Service.Port())] = mode
	}
	return setKeys(g.services, wanted)
}

// setSources makes the map hold exactly these addresses.
func (g *Guard) setSources(sources []netip.Addr) error {
	wanted := make(map[bpf.GuardBatonAddress]uint32) // the values are not read
	for _, a := range sources {
		wanted[bpf.GuardBatonAddress{AddressBe: words(netip.AddrFrom16(a.As16()))}] = 1
	}
	return setKeys(g.sources, wanted)
}

// setKeys makes a map hold exactly these keys. There is no moment without those that stay.
func setKeys[K comparable, V ~uint32](m *ebpf.Map, wanted map[K]V) error {
	for key, value := range wanted {
		if err := m.Put(&key, uint32(value)); err != nil {
			return err
		}
	}
	var key K
	var value uint32
	var stale []K
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		if _, stays := wanted[key]; !stays {
			stale = append(stale, key)
		}
	}
	for _, key := range stale {
		if err := m.Delete(&key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	return entries.Err()
}

// Counters are totals of the guard since it was first pinned; packets for a guarded service each count once.
type Counters struct {
	Passed    uint64 // of a connection
	SYN       uint64 // dropped: would start a connection that nobody routed
	Listener  uint64 // dropped: of no connection, would hit the listener
	NoSocket  uint64 // dropped: of no connection, nobody listens
	Fragment  uint64 // dropped: fragments whose first one did not pass before them
	Malformed uint64 // dropped: truncated, or too many IPv6 extension headers
	PlayedTo  uint64 // dropped: its connection is being told what it has missed (Lockstep)

	Decapsulated uint64 // taken out of a tunnel, and counted above as what they are
	TunnelSource uint64 // dropped: in a tunnel from an address that is not configured
	TunnelECN    uint64 // dropped: marked as congested on its way, and its sender does not know ECN
}

// Drops are the dropped ones by reason, as metrics and batonctl name them.
func (c Counters) Drops() map[string]uint64 {
	return map[string]uint64{
		"syn": c.SYN, "listener": c.Listener, "no_socket": c.NoSocket, "fragment": c.Fragment, "malformed": c.Malformed,
		"played_to":     c.PlayedTo,
		"tunnel_source": c.TunnelSource, "tunnel_ecn": c.TunnelECN,
	}
}

// Counters reads the totals.
func (g *Guard) Counters() (Counters, error) {
	var c Counters
	fields := map[bpf.GuardBatonCounter]*uint64{
		bpf.GuardBatonCounterBATON_COUNTER_PASSED:    &c.Passed,
		bpf.GuardBatonCounterBATON_COUNTER_SYN:       &c.SYN,
		bpf.GuardBatonCounterBATON_COUNTER_LISTENER:  &c.Listener,
		bpf.GuardBatonCounterBATON_COUNTER_NO_SOCKET: &c.NoSocket,
		bpf.GuardBatonCounterBATON_COUNTER_FRAGMENT:  &c.Fragment,
		bpf.GuardBatonCounterBATON_COUNTER_MALFORMED: &c.Malformed,
		bpf.GuardBatonCounterBATON_COUNTER_PLAYED_TO: &c.PlayedTo,

		bpf.GuardBatonCounterBATON_COUNTER_DECAPSULATED:  &c.Decapsulated,
		bpf.GuardBatonCounterBATON_COUNTER_TUNNEL_SOURCE: &c.TunnelSource,
		bpf.GuardBatonCounterBATON_COUNTER_TUNNEL_ECN:    &c.TunnelECN,
	}
	for key, field := range fields {
		var perCPU []uint64
		if err := g.counters.Lookup(uint32(key), &perCPU); err != nil {
			return c, fmt.Errorf("guard counters: %w", err)
		}
		for _, n := range perCPU {
			*field += n
		}
	}
	return c, nil
}

// Close lets go. The guard stays at its post.
func (g *Guard) Close() error {
	return errors.Join(g.services.Close(), g.sources.Close(), g.counters.Close(), g.plays.Close())
}
