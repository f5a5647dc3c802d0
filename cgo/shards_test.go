package cgo

import (
	"net/netip"
	"testing"
)

// microsoftKey and the hashes below are those of "Verifying the RSS hash calculation" (Microsoft, NDIS).
var microsoftKey = SteerKey{
	0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
	0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
	0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
}

func openShards(t *testing.T, n int) *Shards {
	t.Helper()
	s, err := OpenShards(&Config{IPv4Entries: 64, IPv6Entries: 64, RouterFlows: 16, HeldPackets: 1, PortCount: 1, Seed: 7},
		[]Service{{Addr: ipOf("10.0.0.1"), Port: 80, ID: 1, OwnMSS: 1460, Window: 1024}}, n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func tupleOf(client, service string) *Tuple {
	c, s := netip.MustParseAddrPort(client), netip.MustParseAddrPort(service)
	return &Tuple{Client: ipOf(c.Addr().String()), Service: ipOf(s.Addr().String()),
		ClientPort: c.Port(), ServicePort: s.Port()}
}

func TestHashIsThatOfReceiveSideScaling(t *testing.T) {
	tests := []struct {
		client, service string
		want            uint32
	}{
		{"66.9.149.187:2794", "161.142.100.80:1766", 0x51ccc178},
		{"199.92.111.2:14230", "65.69.140.83:4739", 0xc626b0ea},
		{"24.19.198.95:12898", "12.22.207.184:38024", 0x5c2b394a},
		{"38.27.205.30:48228", "209.142.163.6:2217", 0xafc7327f},
		{"153.39.163.191:44251", "202.188.127.2:1303", 0x10e828a2},
		{"[3ffe:2501:200:1fff::7]:2794", "[3ffe:2501:200:3::1]:1766", 0x40207d3d},
		{"[3ffe:501:8::260:97ff:fe40:efab]:14230", "[ff02::1]:4739", 0xdde51bbf},
		{"[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251", "[fe80::200:f8ff:fe21:67cf]:38024", 0x02d1feef},
	}
	s := openShards(t, 2)
	s.SetKey(microsoftKey)
	for _, tt := range tests {
		if got := s.Toeplitz(tupleOf(tt.client, tt.service)); got != tt.want {
			t.Errorf("%s to %s: %#x, want %#x", tt.client, tt.service, got, tt.want)
		}
	}
}

func TestConnectionsAreSpreadOverAllShards(t *testing.T) {
	const shards, ports = 3, 3000
	s := openShards(t, shards)
	var count [shards]int
	for port := range ports {
		tuple := tupleOf("10.0.0.9:1", "10.0.0.1:80")
		tuple.ClientPort = uint16(1000 + port)
		count[s.Of(tuple)]++
	}
	for i, n := range count {
		if n < ports/shards/2 || n > 2*ports/shards {
			t.Errorf("shard %d has %d of %d connections", i, n, ports)
		}
	}
}

func TestNumberOfShardsIsChecked(t *testing.T) {
	for _, n := range []int{0, MaxShards + 1} {
		if s, err := OpenShards(&Config{IPv4Entries: 64, IPv6Entries: 64, RouterFlows: 16, HeldPackets: 1, PortCount: 1},
			nil, n); err == nil {
			s.Close()
			t.Errorf("%d shards were opened", n)
		}
	}
}
