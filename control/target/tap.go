package target

import (
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"baton/fastpath/wire"
)

// tapMTU is the most that a TAP takes: 65,535 less the Ethernet header.
const tapMTU = 65521

// The two ends of the "wire" in front of the TAP. Locally administered; nobody else sees them.
var (
	tapMAC   = wire.MAC{0x02, 'b', 'a', 't', 'o', 0x01}
	agentMAC = wire.MAC{0x02, 'b', 'a', 't', 'o', 0x02}
)

// tapAddr is an address for the TAP that means nothing: with rp_filter on, the kernel drops whatever arrives by a
// device that has none (fib_validate_source: no_addr).
func tapAddr() *netlink.Addr {
	return &netlink.Addr{
		IPNet: &net.IPNet{IP: net.IPv4(127, 'b', 'a', 't'), Mask: net.CIDRMask(32, 32)},
		Scope: unix.RT_SCOPE_HOST,
	}
}

// tap is a TAP device that exists as long as it is open. What is written to it is received by the namespace's stack.
type tap struct {
	file  *os.File
	fd    int
	index int
}

// openTAP makes a TAP in the calling thread's namespace and sets it up. name may hold one %d.
func openTAP(name string) (*tap, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun (is the module tun there?): %w", err)
	}
	t := &tap{file: os.NewFile(uintptr(fd), "tap"), fd: fd}
	if err := t.configure(name); err != nil {
		t.Close()
		return nil, fmt.Errorf("TAP: %w", err)
	}
	return t, nil
}

func (t *tap) configure(name string) error {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(t.fd, unix.TUNSETIFF, request); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	if err := quieten(request.Name()); err != nil {
		return err
	}
	t.index, err = linkUp(request.Name())
	return err
}

// quieten keeps the stack from talking over the TAP and from judging source addresses by it.
func quieten(name string) error {
	settings := []struct{ key, value string }{
		// 2 (loose), not 0: the kernel takes the larger of this and conf/all, and strict would drop every client.
		{"net/ipv4/conf/" + name + "/rp_filter", "2"},
		{"net/ipv4/conf/" + name + "/arp_ignore", "8"}, // answer nothing
		{"net/ipv6/conf/" + name + "/disable_ipv6", "0"},
		{"net/ipv6/conf/" + name + "/addr_gen_mode", "1"}, // no link-local address
		{"net/ipv6/conf/" + name + "/accept_ra", "0"},
	}
	for _, s := range settings {
		if err := writeSysctlIfThere(s.key, s.value); err != nil {
			return fmt.Errorf("set %s=%s: %w", s.key, s.value, err)
		}
	}
	return nil
}

func linkUp(name string) (int, error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return 0, err
	}
	if err := netlink.LinkSetHardwareAddr(link, tapMAC[:]); err != nil {
		return 0, fmt.Errorf("set address: %w", err)
	}
	if err := netlink.LinkSetMTU(link, tapMTU); err != nil {
		return 0, fmt.Errorf("set MTU: %w", err)
	}
	if err := netlink.AddrAdd(link, tapAddr()); err != nil {
		return 0, fmt.Errorf("add address: %w", err)
	}
	if err := netlink.LinkSetARPOff(link); err != nil {
		return 0, fmt.Errorf("set noarp: %w", err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return 0, fmt.Errorf("set up: %w", err)
	}
	return link.Attrs().Index, nil
}

// Write hands one frame to the stack and returns when the stack is done with it.
func (t *tap) Write(frame []byte) error {
	for {
		_, err := unix.Write(t.fd, frame)
		if err == unix.EINTR {
			continue
		}
		return err
	}
}

// Close removes the device.
func (t *tap) Close() error { return t.file.Close() }
