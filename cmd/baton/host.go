package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"baton/control/admin"
)

// hostView is what the checks of a routing host's set-up look at. They are pure functions of it.
type hostView struct {
	addresses  map[netip.Addr]string // addresses of the kernel -> interface
	interfaces map[string]bool       // of the kernel -> up
	mtus       map[string]int        // of the kernel's interfaces, octets
	forwards   map[string][]string   // interface -> sysctls that make the kernel forward packets arriving there
}

// plan is the part of the configuration that can collide with the host.
type plan struct {
	dvipas  []netip.Addr
	devices []string // DPDK device strings of the data ports
	packet  int      // longest IP packet that the announced MSS lets a client send, octets
	xcf     netip.AddrPort
}

// readHost looks at the network namespace that the process is in.
func readHost() (hostView, error) {
	v := hostView{addresses: map[netip.Addr]string{}, interfaces: map[string]bool{}, mtus: map[string]int{},
		forwards: map[string][]string{}}
	interfaces, err := net.Interfaces()
	if err != nil {
		return v, fmt.Errorf("list interfaces: %w", err)
	}
	for _, i := range interfaces {
		v.interfaces[i.Name], v.mtus[i.Name] = i.Flags&net.FlagUp != 0, i.MTU
		addrs, err := i.Addrs()
		if err != nil {
			return v, fmt.Errorf("list addresses of %s: %w", i.Name, err)
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				v.addresses[p.Addr().Unmap()] = i.Name
			}
		}
		v.forwards[i.Name] = forwarding("/proc/sys/net", i.Name)
	}
	return v, nil
}

// forwarding lists the sysctls that are on and make the kernel forward what arrives on an interface. IPv4 goes by the
// interface's own (net/ipv4/devinet.c, IN_DEV_FORWARD), IPv6 by that of all (net/ipv6/ip6_output.c, ip6_forward).
func forwarding(root, name string) []string {
	var on []string
	for _, path := range []string{"ipv4/conf/" + name + "/forwarding", "ipv6/conf/all/forwarding"} {
		b, err := os.ReadFile(filepath.Join(root, path))
		if err == nil && strings.TrimSpace(string(b)) != "0" {
			on = append(on, "net/"+path)
		}
	}
	return on
}

// check compares the plan with the host. Each finding that is not OK says what to set.
func check(p plan, v hostView) []admin.Finding { return append(checkNetwork(p, v), checkXCF(p, v)) }

// checkNetwork looks at what hosts of both roles need: the DVIPAs and the data ports are theirs alone.
func checkNetwork(p plan, v hostView) []admin.Finding {
	findings := []admin.Finding{checkDVIPAs(p, v)}
	for _, device := range p.devices {
		if name, shared := kernelInterface(device); shared {
			findings = append(findings, checkPort(name, p, v))
		}
	}
	return findings
}

// checkDVIPAs refuses a DVIPA that the kernel has as well: it would answer clients with RSTs.
func checkDVIPAs(p plan, v hostView) admin.Finding {
	f := admin.Finding{Check: "dvipa"}
	for _, a := range p.dvipas {
		if name, there := v.addresses[a]; there {
			f.Detail = fmt.Sprintf("the kernel has DVIPA %s on %s and would answer its clients: ip address del %s/%d dev %s",
				a, name, a, a.BitLen(), name)
			return f
		}
	}
	f.OK, f.Detail = true, "no DVIPA is configured in the kernel"
	return f
}

// checkPort refuses an interface that the kernel forwards from: packets to a DVIPA would travel twice, or loop, because
// the kernel sees what arrives on an interface that it shares with the forwarder. It also refuses one that is too small
// for the packets that clients are invited to send: fragments are dropped.
func checkPort(name string, p plan, v hostView) admin.Finding {
	f := admin.Finding{Check: "port " + name}
	up, there := v.interfaces[name]
	switch {
	case !there:
		f.Detail = fmt.Sprintf("there is no interface %s", name)
	case !up:
		f.Detail = fmt.Sprintf("%s is down: ip link set %s up", name, name)
	case len(v.forwards[name]) > 0:
		f.Detail = fmt.Sprintf("the kernel forwards what arrives on %s: sysctl -w %s=0", name, v.forwards[name][0])
	case v.mtus[name] < p.packet:
		f.Detail = fmt.Sprintf("%s has MTU %d, and the configured mss asks clients for packets of %d octets: "+
			"ip link set %s mtu %d, or lower mss by %d", name, v.mtus[name], p.packet, name, p.packet, p.packet-v.mtus[name])
	default:
		f.OK, f.Detail = true, name+" is up and the kernel does not forward from it"
	}
	return f
}

// checkXCF refuses an XCF address that the kernel does not have (DPDK owns its NIC, or it is nowhere), or that is on an
// interface whose packets the forwarder takes.
func checkXCF(p plan, v hostView) admin.Finding {
	f := admin.Finding{Check: "xcf"}
	a := p.xcf.Addr()
	if a.IsUnspecified() {
		f.OK, f.Detail = true, "listens on all addresses of the kernel"
		return f
	}
	name, there := v.addresses[a.Unmap()]
	if !there {
		f.Detail = fmt.Sprintf("no interface of the kernel has %s: "+
			"set xcf.listen to an address outside of the NICs that DPDK owns", a)
		return f
	}
	for _, device := range p.devices {
		if port, shared := kernelInterface(device); shared && port == name {
			f.Detail = fmt.Sprintf("%s is on data port %s: set xcf.listen to an address on another interface", a, name)
			return f
		}
	}
	f.OK, f.Detail = true, fmt.Sprintf("%s is on %s", a, name)
	return f
}

// kernelInterface is the interface that a DPDK device shares with the kernel: of net_af_packet and net_af_xdp.
func kernelInterface(device string) (name string, shared bool) {
	driver, args, _ := strings.Cut(device, ",")
	if !strings.HasPrefix(driver, "net_af_packet") && !strings.HasPrefix(driver, "net_af_xdp") &&
		!strings.HasPrefix(driver, "eth_af_packet") {
		return "", false
	}
	for arg := range strings.SplitSeq(args, ",") {
		if value, ok := strings.CutPrefix(arg, "iface="); ok {
			return value, true
		}
	}
	return "", false
}
