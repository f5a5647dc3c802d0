package fastpath

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"baton/fastpath/flow"
	"baton/fastpath/wire"
)

func TestARPIsAnsweredForOwnAddresses(t *testing.T) {
	tests := []struct {
		addr string
		ok   bool
	}{{"10.77.0.10", true}, {"10.77.0.1", true}, {"10.77.0.11", false}}
	for _, tt := range tests {
		t.Run(tt.addr, func(t *testing.T) {
			r := newRig(t)
			addr := netip.MustParseAddr(tt.addr)
			r.put(wire.AppendARP(nil, wire.ARP{Op: wire.ARPRequest,
				SenderMAC: clientMAC, SenderIP: client4.Addr(), TargetIP: addr}))
			frames := r.out()
			if (len(frames) == 1) != tt.ok {
				t.Fatalf("%d answers", len(frames))
			}
			if !tt.ok {
				r.wantCount("drops", "arp", 1)
				return
			}
			a, err := wire.ParseARP(frames[0])
			want := wire.ARP{Op: wire.ARPReply, SenderMAC: r.mac,
				SenderIP: addr, TargetMAC: clientMAC, TargetIP: client4.Addr()}
			if err != nil || a != want {
				t.Errorf("answer %+v, %v; want %+v", a, err, want)
			}
		})
	}
}

func TestARPOfAnotherPortsAddressIsNotAnswered(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Ports = append(c.Ports, PortConfig{Device: "mem1", Address: netip.MustParsePrefix("10.79.0.1/24")})
	})
	ask := func(addr string) {
		r.put(wire.AppendARP(nil, wire.ARP{Op: wire.ARPRequest,
			SenderMAC: clientMAC, SenderIP: client4.Addr(), TargetIP: netip.MustParseAddr(addr)}))
	}
	ask("10.79.0.1")
	r.none()
	ask("10.77.0.1")
	if len(r.out()) != 1 {
		t.Error("no answer for the port's own address")
	}
}

func TestNeighboursArePunted(t *testing.T) {
	target := netip.MustParseAddr("10.77.0.21")
	target6 := netip.MustParseAddr("2001:db8::21")
	r := newRig(t)
	r.put(wire.AppendARP(nil, wire.ARP{Op: wire.ARPReply,
		SenderMAC: targetMACs[1], SenderIP: target, TargetMAC: r.mac, TargetIP: portAddr.Addr()}))
	if p := r.punted(flow.Neighbour); p.Addr != target || p.MAC != targetMACs[1] || p.Port != 0 {
		t.Errorf("neighbour %+v", p)
	}
	r.put(wire.AppendNDP(nil, wire.NDP{Link: wire.Link{Dst: r.mac, Src: targetMACs[2]}, Type: wire.NDPAdvertisement,
		Src: target6, Dst: netip.MustParseAddr("2001:db8::1"), Target: target6, MAC: targetMACs[2], HasMAC: true,
		Flags: wire.NDPSolicited}))
	if p := r.punted(flow.Neighbour); p.Addr != target6 || p.MAC != targetMACs[2] {
		t.Errorf("neighbour %+v", p)
	}
}

func TestNeighbourSolicitationIsAnswered(t *testing.T) {
	r := newRig(t)
	r.put(wire.AppendNDP(nil, wire.Solicit(clientMAC, client6.Addr(), service6.Addr())))
	frames := r.out()
	if len(frames) != 1 {
		t.Fatalf("%d answers", len(frames))
	}
	n, err := wire.ParseNDP(frames[0])
	if err != nil || n.Type != wire.NDPAdvertisement || n.Target != service6.Addr() || n.MAC != r.mac ||
		n.Dst != client6.Addr() || n.Link != (wire.Link{Dst: clientMAC, Src: r.mac}) {
		t.Errorf("answer %+v, %v", n, err)
	}
}

// serialize builds a frame with right lengths and checksums.
func serialize(t testing.TB, l ...gopacket.SerializableLayer) []byte {
	t.Helper()
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, l...); err != nil {
		t.Fatal(err)
	}
	return append([]byte(nil), b.Bytes()...)
}

func (r *rig) ethernet(etherType layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: clientMAC[:], DstMAC: append(net.HardwareAddr(nil), r.mac[:]...), EthernetType: etherType}
}

func ip4(dst string, proto layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 5, Protocol: proto, SrcIP: net.IP{10, 77, 0, 100}, DstIP: net.ParseIP(dst).To4()}
}

func echo4(r *rig, dst string, change func(*layers.IPv4, *layers.ICMPv4), payload string) []byte {
	ip, icmp := ip4(dst, layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: 8 << 8, Id: 77, Seq: 3}
	if change != nil {
		change(ip, icmp)
	}
	return serialize(r.t, r.ethernet(layers.EthernetTypeIPv4), ip, icmp, gopacket.Payload(payload))
}

func TestEchoIsAnswered(t *testing.T) {
	options := func(ip *layers.IPv4, _ *layers.ICMPv4) {
		ip.Options = []layers.IPv4Option{{OptionType: 1}, {OptionType: 1}, {OptionType: 1}, {OptionType: 0}}
	}
	tests := []struct {
		name    string
		dst     string
		change  func(*layers.IPv4, *layers.ICMPv4)
		payload string
	}{
		{"DVIPA", "10.77.0.10", nil, "abcdefg"},
		{"own address", "10.77.0.1", nil, "ab"},
		{"no payload", "10.77.0.1", nil, ""},
		{"IP options", "10.77.0.1", options, "abc"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			r.put(echo4(r, tt.dst, tt.change, tt.payload))
			frames := r.out()
			if len(frames) != 1 {
				t.Fatalf("%d answers", len(frames))
			}
			reply := ip4("10.77.0.100", layers.IPProtocolICMPv4)
			reply.SrcIP, reply.TTL, reply.Flags = net.ParseIP(tt.dst).To4(), 64, layers.IPv4DontFragment
			eth := &layers.Ethernet{SrcMAC: r.mac[:], DstMAC: clientMAC[:], EthernetType: layers.EthernetTypeIPv4}
			want := serialize(t, eth, reply, &layers.ICMPv4{Id: 77, Seq: 3}, gopacket.Payload(tt.payload))
			want = want[:14+binary.BigEndian.Uint16(want[16:])] // gopacket pads
			if !bytes.Equal(frames[0], want) {
				t.Errorf("answer\n%x, want\n%x", frames[0], want)
			}
		})
	}
}

func TestEcho6IsAnswered(t *testing.T) {
	r := newRig(t)
	ip := &layers.IPv6{Version: 6, HopLimit: 5, NextHeader: layers.IPProtocolICMPv6,
		SrcIP: client6.Addr().AsSlice(), DstIP: service6.Addr().AsSlice()}
	icmp := &layers.ICMPv6{TypeCode: 128 << 8}
	if err := icmp.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	r.put(serialize(t, r.ethernet(layers.EthernetTypeIPv6), ip, icmp, gopacket.Payload("\x00\x01\x00\x02abc")))
	frames := r.out()
	if len(frames) != 1 {
		t.Fatalf("%d answers", len(frames))
	}
	ip.SrcIP, ip.DstIP, ip.HopLimit, icmp.TypeCode = ip.DstIP, ip.SrcIP, 64, 129<<8
	eth := &layers.Ethernet{SrcMAC: r.mac[:], DstMAC: clientMAC[:], EthernetType: layers.EthernetTypeIPv6}
	if want := serialize(t, eth, ip, icmp, gopacket.Payload("\x00\x01\x00\x02abc")); !bytes.Equal(frames[0], want) {
		t.Errorf("answer\n%x, want\n%x", frames[0], want)
	}
}

// fixIPv4 puts the right header checksum in.
func fixIPv4(frame []byte) {
	header := frame[14 : 14+int(frame[14]&15)*4]
	header[10], header[11] = 0, 0
	sum := uint32(0)
	for i := 0; i < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(header[10:], ^uint16(sum))
}

func TestBadFramesAreDroppedUnderTheirCounter(t *testing.T) {
	tests := []struct {
		name   string // of the counter
		damage func(frame []byte) []byte
	}{
		{"not_ours", func(f []byte) []byte { f[5]++; return f }},
		{"not_ours", func(f []byte) []byte { f[33]++; fixIPv4(f); return f }},
		{"ethertype", func(f []byte) []byte { f[12], f[13] = 0x88, 0xcc; return f }},
		{"ip_version", func(f []byte) []byte { f[14] = 0x55; return f }},
		{"bad_length", func(f []byte) []byte { f[14] = 0x44; return f }},                     // header of 16 octets
		{"bad_length", func(f []byte) []byte { f[16], f[17] = 0, 19; fixIPv4(f); return f }}, // total < header
		{"truncated", func(f []byte) []byte { f[16] = 0xff; fixIPv4(f); return f }},          // total > frame
		{"truncated", func(f []byte) []byte { f[16], f[17] = 0, 39; fixIPv4(f); return f }},  // TCP header cut
		{"bad_length", func(f []byte) []byte { f[14+20+12] = 0x40; return f }},               // TCP header of 16 octets
		{"bad_length", func(f []byte) []byte { f[16], f[17] = 0, 44; fixIPv4(f); return f }}, // TCP options cut
		{"ip_checksum", func(f []byte) []byte { f[25]++; return f }},
		{"ttl", func(f []byte) []byte { f[22] = 0; fixIPv4(f); return f }},
		{"fragment", func(f []byte) []byte { f[20] = 0x20; fixIPv4(f); return f }},
		{"fragment", func(f []byte) []byte { f[21] = 1; fixIPv4(f); return f }},
		{"bad_source", func(f []byte) []byte { f[26] = 127; fixIPv4(f); return f }},
		{"bad_source", func(f []byte) []byte { f[26] = 224; fixIPv4(f); return f }},
		{"bad_source", func(f []byte) []byte { f[34], f[35] = 0, 0; return f }},
		{"protocol", func(f []byte) []byte { f[23] = 17; fixIPv4(f); return f }},
		{"no_such_port", func(f []byte) []byte { f[37]++; return f }},
		{"l4_checksum", func(f []byte) []byte { f[len(f)-1]++; return f }},
	}
	for i, tt := range tests {
		t.Run(fmt.Sprintf("%d %s", i, tt.name), func(t *testing.T) {
			p := newRig(t).peer(client4, 5).connect()
			p.put(tt.damage(p.frame(p.segment(0, wire.ACK, "GET "))))
			p.none()
			p.wantKinds()
			p.wantCount("drops", tt.name, 1)
			if p.Flows() != 0 {
				t.Error("it made a flow")
			}
		})
	}
}

func TestChecksumOfRouterOwnedSegmentsIsVerified(t *testing.T) {
	p := newRig(t).peer(client4, 5)
	p.open()
	f := p.frame(p.segment(4, wire.ACK, "x"))
	f[len(f)-1]++
	p.put(f)
	p.wantKinds()
	p.wantCount("drops", "l4_checksum", 1)
}

// TestEveryPrefixIsHarmless sends each prefix of a frame of each kind; a tight port lets a sanitizer see every overrun.
func TestEveryPrefixIsHarmless(t *testing.T) {
	p := newRig(t).peer(client4, 5)
	q := p.peer(client6, 5)
	frames := map[string][]byte{
		"SYN":   p.syn(),
		"SYN6":  q.syn(),
		"echo":  echo4(p.rig, "10.77.0.10", nil, "abcdefg"),
		"solic": wire.AppendNDP(nil, wire.Solicit(clientMAC, client6.Addr(), service6.Addr())),
		"arp": wire.AppendARP(nil, wire.ARP{Op: wire.ARPRequest,
			SenderMAC: clientMAC, SenderIP: client4.Addr(), TargetIP: service4.Addr()}),
	}
	frames["first"] = p.connect().frame(p.segment(0, wire.ACK, "GET "))
	frames["first6"] = q.connect().frame(q.segment(0, wire.ACK, "GET "))
	for name, frame := range frames {
		for n := range frame {
			p.put(frame[:n])
			if name != "arp" && name != "echo" { // padding may be cut
				p.none()
			}
			p.out()
			if got := len(p.punts()); got != 0 && n < 54 {
				t.Errorf("%s: %d of %d octets were punted", name, n, len(frame))
			}
		}
	}
	if p.count("handshakes", "answered") != 2 {
		t.Error("a cut SYN was answered")
	}
}

func TestEthernetPaddingIsNoPayload(t *testing.T) {
	p := newRig(t).peer(client4, 5)
	p.options = wire.Options{}
	p.connect()
	p.put(append(p.frame(p.segment(0, wire.ACK, "")), make([]byte, 6)...))
	p.wantKinds()
	p.put(append(p.frame(p.segment(0, wire.ACK, "x")), make([]byte, 5)...))
	if punt := p.punted(flow.First); len(punt.Frame) != 55 {
		t.Errorf("punted %d octets, want 55", len(punt.Frame))
	}
}
