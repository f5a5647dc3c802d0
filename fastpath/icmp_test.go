package fastpath

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"baton/fastpath/flow"
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// router is who complains about a packet.
var (
	router4 = netip.MustParseAddr("198.51.100.1")
	router6 = netip.MustParseAddr("2001:db8:1::1")
)

// quoted is the beginning of a packet from the service to the client, with so many octets of TCP.
func (p *peer) quoted(octets int) []byte {
	frame := wire.AppendTCP(nil, wire.Link{}, p.service, p.client, wire.Segment{Seq: p.iss.Add(1), Flags: wire.ACK})
	return frame[14 : len(frame)-20+octets]
}

// tooBig is a frame that asks for smaller packets.
func (p *peer) tooBig(quoted []byte) []byte {
	e := wire.ICMPError{Type: 3, Code: 4, MTU: 1000}
	if p.client.Addr().Is6() {
		e = wire.ICMPError{Type: 2, MTU: 1280}
	}
	return p.icmp(e, quoted)
}

func (p *peer) icmp(e wire.ICMPError, quoted []byte) []byte {
	from := router4
	if p.client.Addr().Is6() {
		from = router6
	}
	e.Tuple.Service = p.service
	return wire.AppendICMPError(nil, wire.Link{Dst: p.mac, Src: clientMAC}, from, e, quoted)
}

// withOptions puts 8 octets of options into a quoted IPv4 header.
func withOptions(quoted []byte) []byte {
	quoted = append([]byte(nil), quoted...)
	quoted[0] = 0x47
	return append(append(append([]byte(nil), quoted[:20]...), 7, 7, 4, 0, 0, 0, 0, 0), quoted[20:]...)
}

// errorCases are ICMP errors that have an owner; frame makes them for a peer.
var errorCases = []struct {
	name   string
	client netip.AddrPort
	frame  func(*peer) []byte
}{
	{"fragmentation needed, 8 octets quoted", client4, func(p *peer) []byte { return p.tooBig(p.quoted(8)) }},
	{"all quoted", client4, func(p *peer) []byte { return p.tooBig(p.quoted(20)) }},
	{"quoted IP options", client4, func(p *peer) []byte { return p.tooBig(withOptions(p.quoted(8))) }},
	{"time exceeded", client4, func(p *peer) []byte { return p.icmp(wire.ICMPError{Type: 11}, p.quoted(8)) }},
	{"unreachable", client4, func(p *peer) []byte { return p.icmp(wire.ICMPError{Type: 3, Code: 1}, p.quoted(8)) }},
	{"parameter problem", client4, func(p *peer) []byte { return p.icmp(wire.ICMPError{Type: 12}, p.quoted(8)) }},
	{"packet too big", client6, func(p *peer) []byte { return p.tooBig(p.quoted(8)) }},
	{"time exceeded, IPv6", client6, func(p *peer) []byte { return p.icmp(wire.ICMPError{Type: 3}, p.quoted(8)) }},
}

func TestICMPErrorsOfRouterOwnedFlowsArePunted(t *testing.T) {
	for _, tt := range errorCases {
		t.Run(tt.name, func(t *testing.T) {
			p := newRig(t).peer(tt.client, 5)
			id := p.open().Flow
			frame := tt.frame(p)
			p.put(append(append([]byte(nil), frame...), 0, 0)) // Ethernet padding
			got := p.punted(flow.ICMP)
			if got.Flow != id || got.Inc != p.inc() || !bytes.Equal(got.Frame, frame) {
				t.Errorf("punt of flow %x, %v, frame %x; want %x, %v, %x", got.Flow, got.Inc, got.Frame, id, p.inc(), frame)
			}
			if e, err := wire.ParseICMPError(got.Frame); err != nil || e.Tuple != p.inc().Tuple || e.Seq != p.iss.Add(1) {
				t.Errorf("parsed as %+v, %v", e, err)
			}
			p.none()
		})
	}
}

func TestICMPErrorsOfTargetsAreForwardedAsTheyAre(t *testing.T) {
	for _, tt := range errorCases {
		t.Run(tt.name, func(t *testing.T) {
			p := newRig(t).peer(tt.client, 5)
			p.transfer(2)
			frame := tt.frame(p)
			p.put(frame)
			frames := p.out()
			if len(frames) != 1 || !bytes.Equal(frames[0][12:], frame[12:]) || wire.MAC(frames[0]) != targetMACs[2] ||
				wire.MAC(frames[0][6:]) != p.mac {
				t.Errorf("sent %x, want the target to get %x", frames, frame)
			}
			p.wantKinds()
			p.wantCount("packets", "icmp_errors", 1)
		})
	}
}

// change copies a frame's quoted packet, changes it, and makes a frame of it.
func (p *peer) changed(change func(quoted []byte) []byte) []byte {
	return p.tooBig(change(p.quoted(8)))
}

func TestICMPErrorsThatQuoteNoFlowAreDropped(t *testing.T) {
	mapped := []byte{10: 0xff, 11: 0xff, 12: 10, 13: 77, 14: 0, 15: 100}
	tests := []struct {
		name   string
		client netip.AddrPort
		change func([]byte) []byte
	}{
		{"7 octets", client4, func(q []byte) []byte { return q[:27] }},
		{"no header", client4, func(q []byte) []byte { return q[:19] }},
		{"nothing", client4, func([]byte) []byte { return nil }},
		{"other client port", client4, func(q []byte) []byte { q[23]++; return q }},
		{"other service port", client4, func(q []byte) []byte { q[21]++; return q }},
		{"other client", client4, func(q []byte) []byte { q[19]++; return q }},
		{"from somebody else", client4, func(q []byte) []byte { q[15]++; return q }},
		{"about UDP", client4, func(q []byte) []byte { q[9] = 17; return q }},
		{"about a later fragment", client4, func(q []byte) []byte { q[7] = 1; return q }},
		{"version", client4, func(q []byte) []byte { q[0] = 0x65; return q }},
		{"header of 16 octets", client4, func(q []byte) []byte { q[0] = 0x44; return q }},
		{"options cut", client4, func(q []byte) []byte { q[0] = 0x4f; return q }},
		{"7 octets, IPv6", client6, func(q []byte) []byte { return q[:47] }},
		{"about UDP, IPv6", client6, func(q []byte) []byte { q[6] = 17; return q }},
		{"mapped client", client6, func(q []byte) []byte { return append(q[:24], append(mapped, q[40:]...)...) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newRig(t).peer(tt.client, 5)
			p.transfer(1)
			p.put(p.changed(tt.change))
			p.none()
			p.wantKinds()
			p.wantCount("drops", "icmp_no_flow", 1)
		})
	}
}

func TestICMPErrorsAreForNobodyWhileAFlowChangesHands(t *testing.T) {
	p := newRig(t).peer(client4, 5)
	p.must(p.Freeze(p.open().Flow, flow.HoldBuffer))
	p.Poll()
	p.wantKinds(flow.Frozen)
	p.put(p.tooBig(p.quoted(8)))
	p.none()
	p.wantKinds()
	p.wantCount("drops", "icmp_no_flow", 1)
	if n := p.BuffersInUse(0); n != 0 {
		t.Errorf("%d buffers held", n)
	}
}

func TestICMPErrorsAboutSYNACKsAreForNobody(t *testing.T) {
	p := newRig(t).peer(client4, 5).connect()
	p.send(0, wire.ACK, "") // an entry that the router has not heard of
	p.put(p.tooBig(p.quoted(8)))
	p.wantKinds()
	p.wantCount("drops", "icmp_no_flow", 1)
}

func TestBadICMPErrorsAreDroppedUnderTheirCounter(t *testing.T) {
	p := newRig(t).peer(client4, 5)
	p.transfer(1)
	damaged := p.tooBig(p.quoted(8))
	damaged[len(damaged)-1]++
	p.put(damaged)
	p.wantCount("drops", "l4_checksum", 1)
	martian := p.tooBig(p.quoted(8))
	martian[26] = 127
	fixIPv4(martian)
	p.put(martian)
	p.wantCount("drops", "bad_source", 1)
	p.put(p.icmp(wire.ICMPError{Type: 4}, p.quoted(8))) // source quench
	p.put(p.icmp(wire.ICMPError{Type: 5}, p.quoted(8))) // redirect
	p.wantCount("drops", "icmp", 2)
	p.none()
	p.wantKinds()
}

func TestICMPErrorsForTheRouterAreLimited(t *testing.T) {
	p := newRig(t).peer(client4, 5)
	p.open()
	for i := range uint32(1500) {
		frame := p.tooBig(p.quoted(8))
		p.must(p.Inject(0, frame))
		if i%32 == 31 {
			p.Poll()
			p.punts()
		}
	}
	p.Poll()
	p.wantCount("punts", "icmp", 1000)
	p.wantCount("drops", "punt_limited", 500)
}

// TestEveryPrefixOfAnICMPErrorIsHarmless cuts the quoted packet everywhere, with right lengths and checksums.
func TestEveryPrefixOfAnICMPErrorIsHarmless(t *testing.T) {
	for _, client := range []netip.AddrPort{client4, client6} {
		p := newRig(t).peer(client, seq.Value(5))
		p.transfer(1)
		quoted := p.quoted(20)
		for n := range quoted {
			p.put(p.tooBig(quoted[:n]))
		}
		if got := uint64(len(p.out())); got != 12 || p.count("drops", "icmp_no_flow") != uint64(len(quoted))-got {
			t.Errorf("%v: %d forwarded, want 12: those with 8 octets of TCP", client, got)
		}
		whole := p.tooBig(quoted)
		for n := range whole {
			p.put(whole[:n])
		}
		p.none()
	}
}

// TestQuotedPortsAreOfTheRightSide has the tuple of a flow in the direction in which the client sends.
func TestQuotedPortsAreOfTheRightSide(t *testing.T) {
	p := newRig(t).peer(client4, 5)
	p.transfer(1)
	p.put(p.changed(func(q []byte) []byte {
		sport, dport := binary.BigEndian.Uint16(q[20:]), binary.BigEndian.Uint16(q[22:])
		binary.BigEndian.PutUint16(q[20:], dport)
		binary.BigEndian.PutUint16(q[22:], sport)
		return q
	}))
	p.none()
	p.wantCount("drops", "icmp_no_flow", 1)
}

func TestICMPErrorsOfAdoptedFlowsArePunted(t *testing.T) {
	r := newAdopter(t)
	p := r.peer(client4, 10)
	p.iss = 20
	id := r.adopt(p.inc().Tuple)
	frame := p.tooBig(p.quoted(8))
	p.put(frame)
	if got := p.punted(flow.ICMP); got.Flow != id || !bytes.Equal(got.Frame, frame) {
		t.Errorf("punt %+v, want of flow %x", got, id)
	}
}
