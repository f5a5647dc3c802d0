package lab

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"baton/bench/lab/trunk"
)

// The names of every host's interfaces, in its own namespace.
const (
	DataInterface = "data0"
	XCFInterface  = "xcf0"
	FarInterface  = "far0" // of the gateway, to the targets
)

// dataSwitch, farSwitch and xcfSwitch name the namespaces of the bridges.
func (l *Lab) dataSwitch() string { return l.Prefix + "-sw" }
func (l *Lab) farSwitch() string  { return l.Prefix + "-far" }
func (l *Lab) xcfSwitch() string  { return l.Prefix + "-xcf" }

// network makes namespaces, bridges and links. The routing host's data interface gets no address: it is the
// forwarder's, and the kernel must not answer there.
func (l *Lab) network() error {
	bridges := []string{l.dataSwitch(), l.xcfSwitch()}
	if l.Gateway != nil {
		bridges = append(bridges, l.farSwitch())
	}
	for _, ns := range bridges {
		if err := addNamespace(ns); err != nil {
			return err
		}
		if err := ip(ns, "link add br0 type bridge mcast_snooping 0\nlink set br0 up\n"); err != nil {
			return err
		}
	}
	if l.Gateway != nil {
		if err := l.gateway(); err != nil {
			return err
		}
	}
	for _, h := range l.Hosts() {
		if err := addNamespace(h.Namespace); err != nil {
			return err
		}
		if err := ip(h.Namespace, "link set lo up\n"); err != nil {
			return err
		}
		if err := l.plugData(h); err != nil {
			return err
		}
		if h == l.Client {
			continue
		}
		if err := l.plug(h, l.xcfSwitch(), XCFInterface, h.XCF); err != nil {
			return err
		}
	}
	return nil
}

// plugData connects a host to its data segment.
func (l *Lab) plugData(h *Host) error {
	switch {
	case h == l.Router, h.Userspace:
		return l.plug(h, l.dataSwitch(), DataInterface, netip.Prefix{})
	case h == l.Client || l.Gateway == nil:
		return l.plug(h, l.dataSwitch(), DataInterface, h.Data)
	}
	if err := l.plug(h, l.farSwitch(), DataInterface, h.Data); err != nil {
		return err
	}
	return ip(h.Namespace, fmt.Sprintf("route add default via %s\n", address(farNetwork, gatewayNumber).Addr()))
}

// gateway makes the router to the targets. Their answers come from an address that is elsewhere by its routes.
func (l *Lab) gateway() error {
	g := l.Gateway
	if err := addNamespace(g.Namespace); err != nil {
		return err
	}
	for key, value := range map[string]string{"ip_forward": "1", "conf.all.rp_filter": "0", "conf.default.rp_filter": "0"} {
		if _, err := g.SetSysctl("net.ipv4."+key, value); err != nil {
			return err
		}
	}
	if err := l.plug(g, l.dataSwitch(), DataInterface, g.Data); err != nil {
		return err
	}
	return l.plug(g, l.farSwitch(), FarInterface, address(farNetwork, gatewayNumber))
}

// plug connects a host to a bridge. An invalid addr is none.
func (l *Lab) plug(h *Host, bridge, name string, addr netip.Prefix) error {
	port := "p-" + h.Name
	err := ip(bridge, fmt.Sprintf("link add %s type veth peer name %s netns %s\nlink set %s master br0 up\n",
		port, name, h.Namespace, port))
	if err != nil {
		return err
	}
	if err := likeWire(bridge, port); err != nil {
		return err
	}
	if err := likeWire(h.Namespace, name); err != nil {
		return err
	}
	if l.ipv6 && name == DataInterface && addr.IsValid() {
		if err := h.enableIPv6(name); err != nil {
			return err
		}
	}
	commands := fmt.Sprintf("link set %s up\n", name)
	if addr.IsValid() {
		commands = fmt.Sprintf("addr add %s dev %s\n", addr, name) + commands
		if l.ipv6 && name == DataInterface {
			commands += fmt.Sprintf("addr add %s dev %s nodad\n", h.Data6, name)
		}
	}
	return ip(h.Namespace, commands)
}

// Trunk makes the switch's port of a host one for frames with VLAN tags, until it is closed: the host is in vlan, and other
// is on its cable, too. The tags are in the frames, as the port's device is not to carry them besides.
func (l *Lab) Trunk(h *Host, vlan, other uint16) (t *trunk.Trunk, err error) {
	port := "p-" + h.Name
	err = ipNetns("exec", l.dataSwitch(), "ethtool", "-K", port, "txvlan", "off", "rxvlan", "off")
	if err != nil {
		return nil, err
	}
	err = inNamespace(l.dataSwitch(), func() error {
		dev, err := net.InterfaceByName(port)
		if err == nil {
			t, err = trunk.Open(dev.Index, vlan, other)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("trunk to %s: %w", h.Name, err)
	}
	return t, nil
}

// SetLink takes the link of a host's data interface up or down, at the switch.
func (l *Lab) SetLink(h *Host, up bool) error {
	state := "down"
	if up {
		state = "up"
	}
	return ip(l.dataSwitch(), fmt.Sprintf("link set p-%s %s\n", h.Name, state))
}

// enableIPv6 gives an interface IPv6, and the host's lo, where a target's DVIPA will be. Nobody looks for duplicate
// addresses: a kernel solicits no neighbour meanwhile, for a second.
func (h *Host) enableIPv6(name string) error {
	for _, set := range [][2]string{{name + ".dad_transmits", "0"}, {name + ".disable_ipv6", "0"}, {"lo.disable_ipv6", "0"}} {
		if _, err := h.SetSysctl("net.ipv6.conf."+set[0], set[1]); err != nil {
			return err
		}
	}
	return nil
}

// addNamespace makes a network namespace without IPv6 (its neighbour discovery would only be noise in captures), and
// without the metrics of former connections that a kernel applies to new ones.
func addNamespace(name string) error {
	if err := ipNetns("add", name); err != nil {
		return err
	}
	return inNamespace(name, func() error {
		for key, value := range map[string]string{
			"net/ipv6/conf/all/disable_ipv6": "1", "net/ipv6/conf/default/disable_ipv6": "1",
			"net/ipv4/ip_forward":          "0", // inherited from the machine's own namespace
			"net/ipv4/tcp_no_metrics_save": "1",
		} {
			err := os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0)
			if err != nil && !os.IsNotExist(err) {
				return err
			}
		}
		return nil
	})
}

// likeWire makes an interface behave as one on a wire: one frame per segment, with its checksum, and in order. A veth
// queues what it receives on the CPU that sent it, so a sender that changes its CPU would overtake itself; steering all
// of it to CPU 0 (receive packet steering) keeps the order, and leaves the last CPU to the forwarder.
func likeWire(namespace, name string) error {
	if err := ipNetns("exec", namespace, "ethtool", "-K", name,
		"rx", "off", "tx", "off", "sg", "off", "tso", "off", "gso", "off", "gro", "off"); err != nil {
		return err
	}
	return ipNetns("exec", namespace, "sh", "-c", "echo 1 >/sys/class/net/"+name+"/queues/rx-0/rps_cpus")
}

// ip runs commands of ip(8), one a line, in a namespace.
func ip(namespace, commands string) error {
	cmd := exec.Command("ip", "-n", namespace, "-batch", "-")
	cmd.Stdin = strings.NewReader(commands)
	return output(cmd)
}

// ipNetns runs "ip netns" with arguments.
func ipNetns(args ...string) error {
	return output(exec.Command("ip", append([]string{"netns"}, args...)...))
}

// output runs a command; what it printed becomes part of the error.
func output(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
