package fastpath

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"baton/fastpath/flow"
	"baton/fastpath/wire"
)

const (
	tunnelled  = 3 // owner
	tunnelMTU  = 1500
	guePort    = 6080
	protoIPv4  = 4
	protoIPv6  = 41
	ethernet   = 14
	reportLife = 10 * time.Minute
)

var (
	gatewayMAC = wire.MAC{0x02, 0x9a, 0, 0, 0, 1}
	near4      = netip.MustParseAddr("10.77.0.1")
	far4       = netip.MustParseAddr("10.79.0.21")
	near6      = netip.MustParseAddr("2001:db8::1")
	far6       = netip.MustParseAddr("2001:db8:79::21")
)

// tunnels are all kinds over both families.
var tunnels = []flow.Tunnel{
	{Kind: flow.IPIP, Src: near4, Dst: far4, MTU: tunnelMTU},
	{Kind: flow.IPIP, Src: near6, Dst: far6, MTU: tunnelMTU},
	{Kind: flow.GUE, Src: near4, Dst: far4, MTU: tunnelMTU},
	{Kind: flow.GUE, Src: near6, Dst: far6, MTU: tunnelMTU},
}

func tunnelName(t flow.Tunnel, client netip.AddrPort) string {
	return fmt.Sprintf("%v in %v, kind %d", client.Addr(), t.Dst, t.Kind)
}

// behind opens a flow of client and hands it to an owner behind a tunnel.
func (r *rig) behind(t flow.Tunnel, client netip.AddrPort) *peer {
	r.t.Helper()
	r.must(r.SetOwner(tunnelled, flow.Nexthop{MAC: gatewayMAC, Tunnel: t}))
	p := r.peer(client, 5)
	p.transfer(tunnelled)
	return p
}

// forEachTunnel runs a test for clients of both families in each tunnel.
func forEachTunnel(t *testing.T, test func(*testing.T, flow.Tunnel, netip.AddrPort)) {
	for _, tunnel := range tunnels {
		for _, client := range []netip.AddrPort{client4, client6} {
			t.Run(tunnelName(tunnel, client), func(t *testing.T) { test(t, tunnel, client) })
		}
	}
}

// only returns the only frame that the port sent.
func (r *rig) only() []byte {
	r.t.Helper()
	frames := r.out()
	if len(frames) != 1 {
		r.t.Fatalf("port sent %d frames, want 1", len(frames))
	}
	return frames[0]
}

// setTrafficClass changes a frame's DSCP and ECN, and the IPv4 header's checksum.
func setTrafficClass(frame []byte, class byte) {
	ip := frame[ethernet:]
	if ip[0]>>4 == 6 {
		ip[0], ip[1] = 0x60|class>>4, class<<4|ip[1]&0xf
		return
	}
	ip[1], ip[10], ip[11] = class, 0, 0
	binary.BigEndian.PutUint16(ip[10:], ^sum(ip[:20]))
}

// sum is the one's complement sum (RFC 1071).
func sum(b []byte) uint16 {
	var s uint32
	for ; len(b) > 1; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

// golden is the frame that carries an inner packet, built by gopacket. flow is what tells flows apart: the flow label,
// and the lower bits of the source port.
func golden(t *testing.T, from wire.MAC, tunnel flow.Tunnel, inner []byte, class byte, flowHash uint32) []byte {
	t.Helper()
	eth := &layers.Ethernet{SrcMAC: from[:], DstMAC: gatewayMAC[:], EthernetType: layers.EthernetTypeIPv4}
	proto := layers.IPProtocol(protoIPv4)
	if inner[0]>>4 == 6 {
		proto = protoIPv6
	}
	payload := inner
	udp := &layers.UDP{SrcPort: layers.UDPPort(0xc000 | flowHash&0x3fff), DstPort: guePort}
	outer := proto
	if tunnel.Kind == flow.GUE {
		outer = layers.IPProtocolUDP
		payload = append([]byte{0, byte(proto), 0, 0}, inner...)
	}
	ip4 := &layers.IPv4{Version: 4, TOS: class, Flags: layers.IPv4DontFragment, TTL: 64, Protocol: outer,
		SrcIP: tunnel.Src.AsSlice(), DstIP: tunnel.Dst.AsSlice()}
	ip6 := &layers.IPv6{Version: 6, TrafficClass: class, FlowLabel: flowHash & 0xfffff, HopLimit: 64, NextHeader: outer,
		SrcIP: tunnel.Src.AsSlice(), DstIP: tunnel.Dst.AsSlice()}
	stack := []gopacket.SerializableLayer{eth, ip4}
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if tunnel.Dst.Is6() {
		eth.EthernetType = layers.EthernetTypeIPv6
		stack[1] = ip6
		if err := udp.SetNetworkLayerForChecksum(ip6); err != nil {
			t.Fatal(err)
		}
	} else if err := udp.SetNetworkLayerForChecksum(ip4); err != nil {
		t.Fatal(err)
	}
	if tunnel.Kind == flow.GUE {
		stack = append(stack, udp)
	}
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, options, append(stack, gopacket.Payload(payload))...); err != nil {
		t.Fatal(err)
	}
	frame := b.Bytes()
	if tunnel.Kind == flow.GUE && tunnel.Dst.Is4() {
		frame[ethernet+20+6], frame[ethernet+20+7] = 0, 0 // no checksum
	}
	return frame
}

// flowOf reads back what told the flow apart; 0 where nothing does.
func flowOf(frame []byte, tunnel flow.Tunnel) uint32 {
	switch ip := frame[ethernet:]; {
	case tunnel.Dst.Is6():
		return binary.BigEndian.Uint32(ip) & 0xfffff
	case tunnel.Kind == flow.GUE:
		return uint32(binary.BigEndian.Uint16(ip[20:])) & 0x3fff
	}
	return 0
}

func TestTunnelFrames(t *testing.T) {
	forEachTunnel(t, func(t *testing.T, tunnel flow.Tunnel, client netip.AddrPort) {
		p := newRig(t).behind(tunnel, client)
		for i, data := range []string{"", "x", "octets of the client", string(make([]byte, 1300))} {
			class := byte(0xb8 + i) // DSCP EF, each of the four ECN codepoints
			frame := p.frame(p.segment(4, wire.ACK, data))
			setTrafficClass(frame, class)
			p.put(append(append([]byte{}, frame...), "padding"...)) // does not enter the tunnel
			got := p.only()
			if want := golden(t, p.mac, tunnel, frame[ethernet:], class, flowOf(got, tunnel)); !bytes.Equal(got, want) {
				t.Errorf("%d octets of data:\n got %x\nwant %x", len(data), got, want)
			}
		}
		p.wantCount("packets", "encapsulated", 4)
		p.wantCount("packets", "forwarded", 4)
		if n := p.BuffersInUse(0); n != 0 {
			t.Errorf("%d buffers lost", n)
		}
	})
}

func TestTunnelKeepsAFlowTogetherAndFlowsApart(t *testing.T) {
	forEachTunnel(t, func(t *testing.T, tunnel flow.Tunnel, client netip.AddrPort) {
		if tunnel.Kind == flow.IPIP && tunnel.Dst.Is4() {
			t.Skip("nothing in the outer header could tell")
		}
		r := newRig(t)
		seen := map[uint32]bool{}
		for i := range 50 {
			p := r.behind(tunnel, netip.AddrPortFrom(client.Addr(), uint16(40000+i)))
			p.send(4, wire.ACK, "a")
			first := flowOf(p.only(), tunnel)
			p.send(5, wire.ACK|wire.PSH, "another length")
			if again := flowOf(p.only(), tunnel); again != first {
				t.Fatalf("one flow has %x and %x", first, again)
			}
			seen[first] = true
		}
		if len(seen) < 45 {
			t.Errorf("50 flows have %d values", len(seen))
		}
	})
}

func TestHeldFramesGoThroughTheTunnel(t *testing.T) {
	p := newRig(t).peer(client4, 5)
	p.must(p.SetOwner(tunnelled, flow.Nexthop{MAC: gatewayMAC, Tunnel: tunnels[2]}))
	id := p.open().Flow
	p.must(p.Freeze(id, flow.HoldBuffer))
	p.Poll()
	frame := p.frame(p.segment(4, wire.ACK, "held"))
	p.put(append(append([]byte{}, frame...), "padding"...))
	p.must(p.Switch(id, tunnelled))
	p.Poll()
	got := p.only()
	if want := golden(t, p.mac, tunnels[2], frame[ethernet:], 0, flowOf(got, tunnels[2])); !bytes.Equal(got, want) {
		t.Errorf("\n got %x\nwant %x", got, want)
	}
}

func TestTunnelNeedsHeadroom(t *testing.T) {
	p := newRig(t, func(c *Config) { c.Ports[0].Device = "mem0,bare" }).behind(tunnels[2], client4)
	p.send(4, wire.ACK, "x")
	p.none()
	p.wantCount("drops", "no_headroom", 1)
	if n := p.BuffersInUse(0); n != 0 {
		t.Errorf("%d buffers lost", n)
	}
}

// tooBig is what an ICMP error says.
type tooBig struct {
	src, dst netip.Addr
	mtu      int
	quoted   []byte
}

// parseTooBig reads a frame with gopacket, which leaves checksums to be compared.
func (r *rig) parseTooBig(frame []byte) tooBig {
	r.t.Helper()
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	eth := p.LinkLayer().(*layers.Ethernet)
	if wire.MAC(eth.DstMAC) != clientMAC || wire.MAC(eth.SrcMAC) != r.mac {
		r.t.Errorf("error goes %v -> %v", eth.SrcMAC, eth.DstMAC)
	}
	switch ip := p.NetworkLayer().(type) {
	case *layers.IPv4:
		icmp := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
		if icmp.TypeCode != layers.CreateICMPv4TypeCode(3, 4) || sum(append(ip.Payload, make([]byte, len(ip.Payload)&1)...)) != 0xffff ||
			sum(ip.Contents) != 0xffff || int(ip.Length) > 576 {
			r.t.Errorf("bad error %v, %v", ip, icmp)
		}
		return tooBig{mustAddr(ip.SrcIP), mustAddr(ip.DstIP), int(icmp.Seq), icmp.Payload}
	case *layers.IPv6:
		icmp := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
		pseudo := append(append([]byte{}, ip.Contents[8:]...), 0, 0, byte(ip.Length>>8), byte(ip.Length), 0, 0, 0, 58)
		if icmp.TypeCode != layers.CreateICMPv6TypeCode(2, 0) ||
			sum(append(append(pseudo, ip.Payload...), make([]byte, len(ip.Payload)&1)...)) != 0xffff || int(ip.Length) > 1240 {
			r.t.Errorf("bad error %v, %v", ip, icmp)
		}
		return tooBig{mustAddr(ip.SrcIP), mustAddr(ip.DstIP), int(binary.BigEndian.Uint32(icmp.Payload)), icmp.Payload[4:]}
	}
	r.t.Fatalf("no ICMP error: %v", p)
	return tooBig{}
}

func mustAddr(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a.Unmap()
}

// ofLength makes a segment whose IP packet has that length, options included.
func (p *peer) ofLength(octets int) []byte {
	empty := len(p.frame(p.segment(4, wire.ACK, ""))) - ethernet
	return p.frame(p.segment(4, wire.ACK, string(make([]byte, octets-empty))))
}

func TestTooBigForTheTunnelIsAnswered(t *testing.T) {
	forEachTunnel(t, func(t *testing.T, tunnel flow.Tunnel, client netip.AddrPort) {
		p := newRig(t).behind(tunnel, client)
		most := tunnelMTU - tunnel.Overhead()
		p.put(p.ofLength(most))
		if got := p.only(); len(got) != ethernet+tunnelMTU {
			t.Errorf("the largest packet makes %d octets, want %d", len(got), ethernet+tunnelMTU)
		}
		large := p.ofLength(most + 1)
		p.put(large)
		got := p.parseTooBig(p.only())
		src := p.service.Addr() // the port has no IPv6 address
		if client.Addr().Is4() {
			src = portAddr.Addr()
		}
		if got.src != src || got.dst != client.Addr() || got.mtu != most {
			t.Errorf("error from %v to %v says %d, want %v, %v, %d", got.src, got.dst, got.mtu, src, client.Addr(), most)
		}
		if len(got.quoted) < 500 || !bytes.HasPrefix(large[ethernet:], got.quoted) {
			t.Errorf("quotes %x", got.quoted)
		}
		p.wantCount("packets", "too_big_replies", 1)
		p.wantCount("packets", "forwarded", 1)
		p.wantCount("drops", "too_big", 0)
	})
}

func TestAnswersToTooBigAreLimited(t *testing.T) {
	const perSource = 16
	p := newRig(t).behind(tunnels[2], client4)
	for range perSource + 4 {
		p.put(p.ofLength(tunnelMTU))
	}
	if n := len(p.out()); n != perSource {
		t.Errorf("%d answers in a second, want %d", n, perSource)
	}
	p.wantCount("drops", "too_big", 4)
	p.advance(time.Second)
	p.put(p.ofLength(tunnelMTU))
	p.only()
}

func TestTooBigWhileHeldIsAnsweredAtTheSwitch(t *testing.T) {
	p := newRig(t).peer(client4, 5)
	p.must(p.SetOwner(tunnelled, flow.Nexthop{MAC: gatewayMAC, Tunnel: tunnels[0]}))
	id := p.open().Flow
	p.must(p.Freeze(id, flow.HoldBuffer))
	p.Poll()
	p.put(p.ofLength(tunnelMTU))
	p.must(p.Switch(id, tunnelled))
	p.Poll()
	if got := p.parseTooBig(p.only()); got.mtu != tunnelMTU-20 {
		t.Errorf("says %d", got.mtu)
	}
}

// report is what a router on the way says of a packet of the tunnel.
func report(t *testing.T, to wire.MAC, tunnel flow.Tunnel, mtu uint32, outer []byte) []byte {
	t.Helper()
	eth := &layers.Ethernet{SrcMAC: gatewayMAC[:], DstMAC: to[:], EthernetType: layers.EthernetTypeIPv4}
	b := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	var err error
	if tunnel.Src.Is4() {
		router := netip.MustParseAddr("10.77.0.254")
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolICMPv4, SrcIP: router.AsSlice(), DstIP: tunnel.Src.AsSlice()}
		icmp := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 4), Seq: uint16(mtu)}
		err = gopacket.SerializeLayers(b, options, eth, ip, icmp, gopacket.Payload(outer[:28]))
	} else {
		eth.EthernetType = layers.EthernetTypeIPv6
		router := netip.MustParseAddr("2001:db8::254")
		ip := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolICMPv6, SrcIP: router.AsSlice(), DstIP: tunnel.Src.AsSlice()}
		icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(2, 0)}
		if err := icmp.SetNetworkLayerForChecksum(ip); err != nil {
			t.Fatal(err)
		}
		said := binary.BigEndian.AppendUint32(nil, mtu)
		err = gopacket.SerializeLayers(b, options, eth, ip, icmp, gopacket.Payload(append(said, outer[:48]...)))
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestReportsNarrowTheTunnel(t *testing.T) {
	forEachTunnel(t, func(t *testing.T, tunnel flow.Tunnel, client netip.AddrPort) {
		p := newRig(t, func(c *Config) {
			if tunnel.Src.Is6() {
				c.Ports[0].Address = netip.PrefixFrom(tunnel.Src, 64)
			}
		}).behind(tunnel, client)
		// says is what the client is told of a packet of the full size, 0 if it passes.
		says := func() int {
			p.put(p.ofLength(tunnelMTU - tunnel.Overhead()))
			frame := p.only()
			if wire.MAC(frame[:6]) == gatewayMAC {
				return 0
			}
			return p.parseTooBig(frame).mtu
		}
		p.put(p.ofLength(tunnelMTU - tunnel.Overhead()))
		outer := p.only()[ethernet:]
		for _, step := range []struct {
			name   string
			report uint32
			wait   time.Duration
			want   int // largest outer packet; 0: all pass
		}{
			{"not less", tunnelMTU, 0, 0},
			{"less", 1400, 0, 1400},
			{"more again", 1450, 0, 1400},
			{"still", 0, reportLife - time.Second, 1400},
			{"expired", 0, time.Second, 0},
			{"absurd", 68, 0, map[bool]int{true: 576, false: 1280}[tunnel.Src.Is4()]},
		} {
			if step.report != 0 {
				p.put(report(t, p.mac, tunnel, step.report, outer))
				p.none()
			}
			for left := step.wait; left > 0; left -= 30 * time.Second {
				p.advance(min(left, 30*time.Second))
			}
			want := step.want
			if want != 0 {
				want -= tunnel.Overhead()
			}
			if got := says(); got != want {
				t.Errorf("%s: the client is told %d, want %d", step.name, got, want)
			}
		}
		p.wantCount("packets", "path_mtu_updates", 2)
	})
}

func TestReportsOfStrangersChangeNothing(t *testing.T) {
	tunnel := tunnels[2]
	tests := []struct {
		name   string
		change func(frame []byte)
	}{
		{"other destination", func(f []byte) { f[ethernet+28+19]++ }},
		{"other source", func(f []byte) { f[ethernet+28+15]++ }},
		{"another error", func(f []byte) { f[ethernet+21] = 1 }},
		{"no size", func(f []byte) { f[ethernet+26], f[ethernet+27] = 0, 0 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newRig(t).behind(tunnel, client4)
			p.put(p.ofLength(tunnelMTU - tunnel.Overhead()))
			frame := report(t, p.mac, tunnel, 1400, p.only()[ethernet:])
			tt.change(frame)
			icmp := frame[ethernet+20:]
			icmp[2], icmp[3] = 0, 0
			binary.BigEndian.PutUint16(icmp[2:], ^sum(icmp))
			p.put(frame)
			p.put(p.ofLength(tunnelMTU - tunnel.Overhead()))
			if got := p.only(); wire.MAC(got[:6]) != gatewayMAC {
				t.Error("a full packet does not pass any more")
			}
			p.wantCount("drops", "icmp_no_flow", 1)
			p.wantCount("packets", "path_mtu_updates", 0)
		})
	}
}

func TestImpossibleTunnelsAreRefused(t *testing.T) {
	r := newRig(t)
	for _, tunnel := range []flow.Tunnel{
		{Kind: flow.GUE, Src: near4, Dst: far6, MTU: tunnelMTU},
		{Kind: flow.GUE, Src: near4, Dst: far4, MTU: 500},
		{Kind: flow.GUE + 1, Src: near4, Dst: far4, MTU: tunnelMTU},
	} {
		if err := r.SetOwner(tunnelled, flow.Nexthop{MAC: gatewayMAC, Tunnel: tunnel}); err == nil {
			t.Errorf("%+v is accepted", tunnel)
		}
	}
}
