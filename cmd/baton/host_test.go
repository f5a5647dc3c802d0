package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func goodPlan() plan {
	return plan{
		dvipas:  []netip.Addr{netip.MustParseAddr("10.77.0.10"), netip.MustParseAddr("2001:db8::10")},
		devices: []string{"net_af_xdp0,iface=data0", "0000:03:00.0"},
		packet:  1500,
		xcf:     netip.MustParseAddrPort("10.78.0.1:7600"),
	}
}

func goodHost() hostView {
	return hostView{
		addresses: map[netip.Addr]string{
			netip.MustParseAddr("127.0.0.1"): "lo",
			netip.MustParseAddr("10.78.0.1"): "xcf0",
		},
		interfaces: map[string]bool{"lo": true, "xcf0": true, "data0": true},
		mtus:       map[string]int{"lo": 65536, "xcf0": 1500, "data0": 1500},
		forwards:   map[string][]string{"xcf0": {"net/ipv4/conf/xcf0/forwarding"}}, // not a data port: allowed
	}
}

func TestChecksPassOnAGoodHost(t *testing.T) {
	for _, f := range check(goodPlan(), goodHost()) {
		if !f.OK {
			t.Errorf("%s: %s", f.Check, f.Detail)
		}
	}
}

func TestChecksSayWhatToSet(t *testing.T) {
	tests := []struct {
		name   string
		spoil  func(*plan, *hostView)
		check  string
		advice string
	}{
		{"DVIPA on lo", func(_ *plan, v *hostView) { v.addresses[netip.MustParseAddr("10.77.0.10")] = "lo" },
			"dvipa", "ip address del 10.77.0.10/32 dev lo"},
		{"IPv6 DVIPA", func(_ *plan, v *hostView) { v.addresses[netip.MustParseAddr("2001:db8::10")] = "data0" },
			"dvipa", "ip address del 2001:db8::10/128 dev data0"},
		{"IPv4 forwarding", func(_ *plan, v *hostView) { v.forwards["data0"] = []string{"net/ipv4/conf/data0/forwarding"} },
			"port data0", "sysctl -w net/ipv4/conf/data0/forwarding=0"},
		{"interface down", func(_ *plan, v *hostView) { v.interfaces["data0"] = false },
			"port data0", "ip link set data0 up"},
		{"interface missing", func(_ *plan, v *hostView) { delete(v.interfaces, "data0") },
			"port data0", "there is no interface data0"},
		{"MSS above the MTU", func(p *plan, _ *hostView) { p.packet = 9000 },
			"port data0", "ip link set data0 mtu 9000, or lower mss by 7500"},
		{"XCF on a DPDK NIC", func(_ *plan, v *hostView) { delete(v.addresses, netip.MustParseAddr("10.78.0.1")) },
			"xcf", "set xcf.listen"},
		{"XCF on a data port", func(_ *plan, v *hostView) { v.addresses[netip.MustParseAddr("10.78.0.1")] = "data0" },
			"xcf", "on data port data0"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p, v := goodPlan(), goodHost()
			test.spoil(&p, &v)
			for _, f := range check(p, v) {
				if bad := f.Check == test.check; bad == f.OK {
					t.Errorf("%s: ok %t, %s", f.Check, f.OK, f.Detail)
				} else if bad && !strings.Contains(f.Detail, test.advice) {
					t.Errorf("%s: %q, want it to say %q", f.Check, f.Detail, test.advice)
				}
			}
		})
	}
}

func TestKernelInterfaceOfDeviceStrings(t *testing.T) {
	tests := []struct {
		device, name string
		shared       bool
	}{
		{"net_af_xdp0,iface=data0", "data0", true},
		{"net_af_packet0,qpairs=1,iface=eth1,blocksz=4096", "eth1", true},
		{"net_memif0,role=client", "", false},
		{"0000:03:00.0", "", false},
		{"net_af_xdp0", "", false},
	}
	for _, test := range tests {
		t.Run(test.device, func(t *testing.T) {
			if name, shared := kernelInterface(test.device); name != test.name || shared != test.shared {
				t.Errorf("got %q, %t; want %q, %t", name, shared, test.name, test.shared)
			}
		})
	}
}

func TestForwardingListsWhatIsOn(t *testing.T) {
	root := t.TempDir()
	write := func(path, value string) {
		full := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("ipv4/conf/data0/forwarding", "0\n")
	write("ipv4/conf/data1/forwarding", "1\n")
	if got := forwarding(root, "data0"); got != nil {
		t.Errorf("data0: %v, want nothing", got)
	}
	write("ipv6/conf/all/forwarding", "1\n")
	want := []string{"net/ipv4/conf/data1/forwarding", "net/ipv6/conf/all/forwarding"}
	if got := forwarding(root, "data1"); !slices.Equal(got, want) {
		t.Errorf("data1: %v, want %v", got, want)
	}
}

func TestReadHostSeesLoopback(t *testing.T) {
	v, err := readHost()
	if err != nil {
		t.Fatal(err)
	}
	if name := v.addresses[netip.MustParseAddr("127.0.0.1")]; name != "lo" || !v.interfaces["lo"] {
		t.Skipf("no loopback interface that is up here (127.0.0.1 on %q)", name)
	}
}
