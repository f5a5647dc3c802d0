package target

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// arpSettings are what a host needs before it may have a DVIPA: it must not say that the address is its own, neither
// when asked nor as the sender of a question. For both the kernel takes the larger of "all" and the interface's, so
// this holds for every interface, also for those to come. IPv6 needs nothing: a host answers only for the interface's
// own addresses.
var arpSettings = []struct{ key, value string }{
	{"net/ipv4/conf/all/arp_ignore", "1"},
	{"net/ipv4/conf/all/arp_announce", "2"},
}

// The kinds of change that are undone.
const (
	undoSysctl  = "sysctl "  // key of the sysctl; the value it had
	undoAddress = "address " // address that lo did not have; nothing
	undoMount   = "mount "   // where there was no bpffs; nothing

	undoNamespace = "namespace" // not a change: whose these pins are
)

// undo remembers what was changed at the host, in a pinned map: like the changes themselves it lasts until the host is
// restarted, agents come and go.
type undo struct{ entries *ebpf.Map }

// undoKey and undoValue are zero-padded strings; a sysctl's name has at most 2 x 15 octets of interface names in it.
type (
	undoKey   [128]byte
	undoValue [64]byte
)

func openUndo(dir string) (*undo, error) {
	m, err := openPinned(dir, &ebpf.MapSpec{
		Name: "undo", Type: ebpf.Hash, KeySize: 128, ValueSize: 64, MaxEntries: 1024, Flags: unix.BPF_F_NO_PREALLOC,
	})
	return &undo{entries: m}, err
}

// remember notes a change before it is made. The first note of a change counts: it has the original value.
func (u *undo) remember(change, before string) error {
	var key undoKey
	var value undoValue
	if len(change) > len(key) || len(before) > len(value) {
		return fmt.Errorf("%s%s: too long to be remembered", change, before)
	}
	copy(key[:], change)
	copy(value[:], before)
	err := u.entries.Update(key, value, ebpf.UpdateNoExist)
	if errors.Is(err, ebpf.ErrKeyExist) {
		return nil
	}
	return err
}

// all are the changes and what was before.
func (u *undo) all() (map[string]string, error) {
	changes := make(map[string]string)
	var key undoKey
	var value undoValue
	entries := u.entries.Iterate()
	for entries.Next(&key, &value) {
		changes[cString(key[:])] = cString(value[:])
	}
	return changes, entries.Err()
}

func cString(b []byte) string { return strings.TrimRight(string(b), "\x00") }

func (u *undo) Close() error { return u.entries.Close() }

// manageHost sets the host up for the DVIPAs, in the calling thread's namespace. ARP first: there is no moment at
// which the host answers for a DVIPA.
func manageHost(u *undo, dvipas []netip.Addr) error {
	for _, s := range arpSettings {
		if err := raiseSysctl(u, s.key, s.value); err != nil {
			return fmt.Errorf("set %s=%s: %w", s.key, s.value, err)
		}
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	for _, a := range dvipas {
		if err := addDVIPA(u, lo, a); err != nil {
			return fmt.Errorf("add %v to lo: %w", a, err)
		}
	}
	return nil
}

// raiseSysctl sets a sysctl unless it has that value, or a higher one, which is stricter.
func raiseSysctl(u *undo, key, value string) error {
	before, err := readSysctl(key)
	if err != nil || before >= value {
		return err
	}
	if err := u.remember(undoSysctl+key, before); err != nil {
		return err
	}
	return writeSysctl(key, value)
}

func addDVIPA(u *undo, lo netlink.Link, a netip.Addr) error {
	if isLocal(a) {
		return nil
	}
	if err := u.remember(undoAddress+a.String(), ""); err != nil {
		return err
	}
	err := netlink.AddrAdd(lo, hostAddr(a))
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// hostAddr is the address alone, without the network around it.
func hostAddr(a netip.Addr) *netlink.Addr {
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}}
	if a.Is6() {
		addr.Flags = unix.IFA_F_NODAD // nobody is to be asked: the routing host has it as well
	}
	return addr
}

// isLocal reports whether the namespace delivers packets for a to itself.
func isLocal(a netip.Addr) bool {
	routes, err := netlink.RouteGet(a.AsSlice())
	return err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL
}

// restoreHost takes back every remembered change of the calling thread's namespace. Mounts are left to the caller.
func restoreHost(changes map[string]string) error {
	var errs []error
	for change := range changes {
		if address, ok := strings.CutPrefix(change, undoAddress); ok {
			errs = append(errs, removeDVIPA(address))
		}
	}
	// Only when the addresses are gone may the host answer ARP as before.
	for change, before := range changes {
		if key, ok := strings.CutPrefix(change, undoSysctl); ok {
			errs = append(errs, writeSysctlIfThere(key, before))
		}
	}
	return errors.Join(errs...)
}

func removeDVIPA(address string) error {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.AddrDel(lo, hostAddr(a)); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("remove %v from lo: %w", a, err)
	}
	return nil
}
