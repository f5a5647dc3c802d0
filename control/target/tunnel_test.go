package target

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"baton/control/transfer"
	"baton/fastpath/wire"
)

var (
	tunnelSources = []netip.Addr{netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("fd77::1")}
	// loMAC is what a program under test takes for its own: it runs on lo.
	loMAC = wire.MAC{}
)

// outer is a tunnel's header as a routing host makes it.
type outer struct {
	from  netip.Addr
	gue   bool
	class byte // traffic class

	// What makes it another one.
	udpPort  uint16 // 0: 6080
	gueFirst byte   // version, control bit, length of extensions
	extra    int    // octets of extensions
	fragment bool
	options  int // octets of IPv4 options
}

func (o outer) String() string {
	kind := "IPIP"
	if o.gue {
		kind = "GUE"
	}
	return fmt.Sprintf("%s from %v", kind, o.from)
}

var outers = []outer{
	{from: tunnelSources[0]}, {from: tunnelSources[1]}, {from: tunnelSources[0], gue: true}, {from: tunnelSources[1], gue: true},
}

// wrap puts a frame's packet into the tunnel.
func (o outer) wrap(t testing.TB, frame []byte) []byte {
	t.Helper()
	inner := frame[14:]
	proto := layers.IPProtocolIPv4
	if inner[0]>>4 == 6 {
		proto = layers.IPProtocolIPv6
	}
	next, payload := proto, append([]byte{}, inner...)
	if o.gue {
		next = layers.IPProtocolUDP
		payload = append(make([]byte, 4+o.extra), inner...)
		payload[0], payload[1] = o.gueFirst|byte(o.extra/4), byte(proto)
	}
	eth := &layers.Ethernet{DstMAC: frame[:6], SrcMAC: frame[6:12], EthernetType: layers.EthernetTypeIPv4}
	ip4 := &layers.IPv4{Version: 4, TTL: 64, TOS: o.class, Protocol: next, SrcIP: o.from.AsSlice(), DstIP: []byte{10, 77, 0, 21}}
	ip6 := &layers.IPv6{Version: 6, HopLimit: 64, TrafficClass: o.class, NextHeader: next, SrcIP: o.from.AsSlice(),
		DstIP: netip.MustParseAddr("fd77::21").AsSlice()}
	udp := &layers.UDP{SrcPort: 50000, DstPort: 6080}
	if o.udpPort != 0 {
		udp.DstPort = layers.UDPPort(o.udpPort)
	}
	if o.fragment {
		ip4.Flags = layers.IPv4MoreFragments
	}
	if o.options > 0 {
		ip4.Options = []layers.IPv4Option{{OptionType: 148, OptionLength: uint8(o.options), OptionData: make([]byte, o.options-2)}}
	}
	stack := []gopacket.SerializableLayer{eth, ip4}
	var network gopacket.NetworkLayer = ip4
	if o.from.Is6() {
		eth.EthernetType, stack[1], network = layers.EthernetTypeIPv6, ip6, ip6
	}
	if err := udp.SetNetworkLayerForChecksum(network); err != nil {
		t.Fatal(err)
	}
	if o.gue {
		stack = append(stack, udp)
	}
	b := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(b, options, append(stack, gopacket.Payload(payload))...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// play lets the guard program see a frame, and returns its verdict and what became of the frame.
func (l *lab) play(t *testing.T, g *Guard, frame []byte) (verdict int32, out []byte) {
	t.Helper()
	l.do(t, func() error {
		program, err := g.load()
		if err != nil {
			return err
		}
		defer program.Close()
		o := ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256)}
		got, err := program.Run(&o)
		verdict, out = int32(got), o.DataOut
		return err
	})
	return verdict, out
}

const (
	next = -1 // TCX_NEXT
	drop = 2  // TCX_DROP
)

// harmless is a segment to a port of the DVIPAs that nobody guards: whatever becomes of it is the tunnel's doing.
func harmless(ipv6 bool, class byte) []byte {
	src, dst := client4, netip.AddrPortFrom(service4.Addr(), 81)
	if ipv6 {
		src, dst = client6, netip.AddrPortFrom(service6.Addr(), 81)
	}
	frame := wire.AppendTCP(nil, wire.Link{Dst: loMAC, Src: agentMAC}, src, dst,
		wire.Segment{Seq: 1, Ack: 2, Flags: wire.ACK | wire.PSH, Window: 100, Payload: []byte("octets")})
	setClass(frame, class)
	return frame
}

// setClass sets the traffic class, and mends an IPv4 header's checksum.
func setClass(frame []byte, class byte) {
	ip := frame[14:]
	if ip[0]>>4 == 6 {
		ip[0], ip[1] = 0x60|class>>4, class<<4|ip[1]&0xf
		return
	}
	ip[1], ip[10], ip[11] = class, 0, 0
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum&0xffff+sum>>16))
}

func TestGuardTakesPacketsOutOfTunnels(t *testing.T) {
	l := newLab(t)
	g := l.guard(t, newPinDir(t), service4, service6)
	for _, o := range outers {
		for _, ipv6 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v, inner IPv6 %v", o, ipv6), func(t *testing.T) {
				inner := harmless(ipv6, 0)
				before := l.counters(t, g).Decapsulated
				verdict, out := l.play(t, g, o.wrap(t, inner))
				if verdict != next || !bytes.Equal(out, inner) {
					t.Errorf("verdict %d\n got %x\nwant %x", verdict, out, inner)
				}
				if n := l.counters(t, g).Decapsulated - before; n != 1 {
					t.Errorf("counted %d times", n)
				}
			})
		}
	}
}

func TestGuardPassesCongestionOn(t *testing.T) {
	const (
		notECT = 0
		ect1   = 1
		ect0   = 2
		ce     = 3
		dscp   = 0xb8
	)
	l := newLab(t)
	g := l.guard(t, newPinDir(t), service4, service6)
	for _, ipv6 := range []bool{false, true} {
		for _, tt := range []struct{ outer, inner, want int }{ // RFC 6040 figure 4; want -1: dropped
			{notECT, notECT, notECT}, {ect0, notECT, notECT}, {ect1, notECT, notECT}, {ce, notECT, -1},
			{notECT, ect0, ect0}, {ect0, ect0, ect0}, {ce, ect0, ce},
			{notECT, ect1, ect1}, {ect1, ect1, ect1}, {ce, ect1, ce},
			{notECT, ce, ce}, {ect0, ce, ce}, {ce, ce, ce},
		} {
			for _, o := range outers[:2] {
				o.class = byte(tt.outer)
				before := l.counters(t, g)
				verdict, out := l.play(t, g, o.wrap(t, harmless(ipv6, dscp|byte(tt.inner))))
				if tt.want < 0 {
					if n := l.counters(t, g).TunnelECN - before.TunnelECN; verdict != drop || n != 1 {
						t.Errorf("%v, inner IPv6 %v, %+v: verdict %d, counted %d times", o, ipv6, tt, verdict, n)
					}
					continue
				}
				if want := harmless(ipv6, dscp|byte(tt.want)); verdict != next || !bytes.Equal(out, want) {
					t.Errorf("%v, inner IPv6 %v, %+v: verdict %d\n got %x\nwant %x", o, ipv6, tt, verdict, out, want)
				}
			}
		}
	}
}

// What is no tunnel of Baton's stays as it is, and what pretends to be one is dropped.
func TestGuardAndOtherTunnels(t *testing.T) {
	elsewhere := wire.AppendTCP(nil, wire.Link{Dst: loMAC, Src: agentMAC}, client4, netip.MustParseAddrPort("10.9.9.9:80"),
		wire.Segment{Seq: 1, Ack: 2, Flags: wire.ACK})
	gue := outers[2]
	change := func(f func(*outer)) outer { o := gue; f(&o); return o }
	tests := []struct {
		name    string
		outer   outer
		inner   []byte
		verdict int32
		opened  bool
		want    Counters
	}{
		{"another source", change(func(o *outer) { o.from = netip.MustParseAddr("10.77.0.2") }), nil, drop, false, Counters{TunnelSource: 1}},
		{"another source, IPIP", outer{from: netip.MustParseAddr("fd77::2")}, nil, drop, false, Counters{TunnelSource: 1}},
		{"another destination inside", gue, elsewhere, next, false, Counters{}},
		{"another source and destination", outer{from: netip.MustParseAddr("10.77.0.2")}, elsewhere, next, false, Counters{}},
		{"another UDP port", change(func(o *outer) { o.udpPort = 53 }), nil, next, false, Counters{}},
		{"GUE version 1", change(func(o *outer) { o.gueFirst = 0x40 }), nil, next, false, Counters{}},
		{"GUE control message", change(func(o *outer) { o.gueFirst = 0x20 }), nil, next, false, Counters{}},
		{"GUE extensions", change(func(o *outer) { o.extra = 8 }), nil, next, true, Counters{Decapsulated: 1}},
		{"IPv4 options", change(func(o *outer) { o.options = 4 }), nil, next, true, Counters{Decapsulated: 1}},
		{"fragment", change(func(o *outer) { o.fragment = true }), nil, drop, false, Counters{Fragment: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			g := l.guard(t, newPinDir(t), service4, service6)
			inner := tt.inner
			if inner == nil {
				inner = harmless(false, 0)
			}
			frame := tt.outer.wrap(t, inner)
			want := frame
			if tt.opened {
				want = inner
			}
			verdict, out := l.play(t, g, frame)
			if verdict != tt.verdict || !bytes.Equal(out, want) {
				t.Errorf("verdict %d, want %d\n got %x\nwant %x", verdict, tt.verdict, out, want)
			}
			if got := l.counters(t, g); got != tt.want {
				t.Errorf("counters %+v, want %+v", got, tt.want)
			}
		})
	}
}

// The guard's rules hold inside of tunnels, too.
func TestGuardDropsStrangersInTunnels(t *testing.T) {
	for _, o := range outers {
		t.Run(o.String(), func(t *testing.T) {
			l := newLab(t)
			l.listen(t, "tcp", ":80", false)
			g := l.guard(t, newPinDir(t), service4, service6)
			l.wrap = func(frame []byte) []byte { return o.wrap(t, frame) }
			l.send(t, client4, service4, wire.Segment{Seq: 1, Flags: wire.SYN, Window: 100})
			l.send(t, client6, service6, wire.Segment{Seq: 1, Ack: 2, Flags: wire.ACK, Payload: []byte("x")})
			if f, ok := l.next(t, shortly); ok {
				t.Errorf("answered by %+v", f)
			}
			if got, want := l.counters(t, g), (Counters{SYN: 1, Listener: 1, Decapsulated: 2}); got != want {
				t.Errorf("counters %+v, want %+v", got, want)
			}
		})
	}
}

// An imported connection goes on when its client's packets come through a tunnel; the answers do not use it.
func TestConnectionThroughATunnel(t *testing.T) {
	for _, o := range outers {
		for _, end := range [][2]netip.AddrPort{{client4, service4}, {client6, service6}} {
			t.Run(fmt.Sprintf("%v, %v", o, end[1]), func(t *testing.T) {
				l := newLab(t)
				ln := l.listen(t, "tcp", ":80", false)
				g := l.guard(t, newPinDir(t), service4, service6)
				r := record(end[0], end[1], request, func(*transfer.Record) {})
				mustImport(t, l.importer(t), r, end[1])
				c := accept(t, ln)
				l.wrap = func(frame []byte) []byte { return o.wrap(t, frame) }
				checkConversation(t, l, c, r)
				got := l.counters(t, g)
				if got.Decapsulated == 0 || got != (Counters{Passed: got.Decapsulated, Decapsulated: got.Decapsulated}) {
					t.Errorf("counters %+v, want as many passed as decapsulated", got)
				}
			})
		}
	}
}

func TestDoctorSpeaksOfTunnels(t *testing.T) {
	l := newLab(t)
	dir := newPinDir(t)
	g := l.guard(t, dir, service4, service6)
	stranger := outer{from: netip.MustParseAddr("10.77.0.2")}
	for _, o := range []outer{outers[0], outers[1], stranger} {
		l.play(t, g, o.wrap(t, harmless(false, 0)))
	}
	with := checkTunnels(dir, tunnelSources)
	if len(with) != 1 || !with[0].OK || !strings.Contains(with[0].Detail, "2 packets came from [10.77.0.1 fd77::1]; 1 from") {
		t.Errorf("with sources: %+v", with)
	}
	without := checkTunnels(dir, nil)
	if len(without) != 1 || without[0].OK || !strings.Contains(without[0].Detail, "guard.tunnel_sources") {
		t.Errorf("without: %+v", without)
	}
}
