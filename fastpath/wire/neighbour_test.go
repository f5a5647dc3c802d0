package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

var (
	macA = MAC{2, 0, 0, 0, 0, 0xa}
	macB = MAC{2, 0, 0, 0, 0, 0xb}
)

func TestARPRequestGoesToEverybodyAndRepliesToTheAsker(t *testing.T) {
	for _, c := range []struct {
		name string
		arp  ARP
		dst  MAC
	}{
		{"request", ARP{Op: ARPRequest, SenderMAC: macA, SenderIP: client4.Addr(), TargetIP: service4.Addr()}, Broadcast},
		{"reply", ARP{ARPReply, macB, service4.Addr(), macA, client4.Addr()}, macA},
	} {
		t.Run(c.name, func(t *testing.T) {
			frame := AppendARP(nil, c.arp)
			p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
			theirs := p.Layer(layers.LayerTypeARP).(*layers.ARP)
			sender := c.arp.SenderIP.As4()
			if theirs.Operation != uint16(c.arp.Op) || !bytes.Equal(theirs.SourceProtAddress, sender[:]) ||
				!bytes.Equal(theirs.DstHwAddress, c.arp.TargetMAC[:]) {
				t.Errorf("gopacket reads %+v", theirs)
			}
			if MAC(frame) != c.dst {
				t.Errorf("goes to %v", MAC(frame))
			}
			got, err := ParseARP(append(frame, make([]byte, 18)...)) // with Ethernet padding
			if err != nil || got != c.arp {
				t.Errorf("parsed %+v (%v), want %+v", got, err, c.arp)
			}
		})
	}
}

func TestParseARPRefuses(t *testing.T) {
	good := AppendARP(nil, ARP{Op: ARPRequest, SenderIP: client4.Addr(), TargetIP: service4.Addr()})
	for _, c := range []struct {
		name  string
		frame []byte
		want  error
	}{
		{"cut Ethernet", good[:10], ErrTruncated},
		{"cut", good[:len(good)-1], ErrTruncated},
		{"IPv4", AppendTCP(nil, testLink, client4, service4, Segment{}), ErrNotARP},
		{"other hardware", change(good, 1, 6), ErrNotARP},
		{"other protocol", change(good, 2, 0x86), ErrNotARP},
		{"reverse ARP", change(good, arpOp+1, 3), ErrNotARP},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := ParseARP(c.frame); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestSolicitationGoesToTheSolicitedNodeGroup(t *testing.T) {
	n := Solicit(macA, client6.Addr(), netip.MustParseAddr("2001:db8::12:3456"))
	if n.Dst != netip.MustParseAddr("ff02::1:ff12:3456") || n.Link.Dst != (MAC{0x33, 0x33, 0xff, 0x12, 0x34, 0x56}) {
		t.Errorf("goes to %v at %v", n.Dst, n.Link.Dst)
	}
	frame := AppendNDP(nil, n)
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	theirs := p.Layer(layers.LayerTypeICMPv6NeighborSolicitation).(*layers.ICMPv6NeighborSolicitation)
	if theirs.TargetAddress.String() != "2001:db8::12:3456" || !bytes.Equal(theirs.Options[0].Data, macA[:]) {
		t.Errorf("gopacket reads %+v", theirs)
	}
	if got, err := ParseNDP(frame); err != nil || got != n {
		t.Errorf("parsed %+v (%v)", got, err)
	}
}

// advertisement is a valid one, with the target's link-layer address.
func advertisement() NDP {
	return NDP{Link: Link{Dst: macA, Src: macB}, Src: service6.Addr(), Dst: client6.Addr(), Type: NDPAdvertisement,
		Flags: NDPSolicited | NDPOverride, Target: service6.Addr(), HasMAC: true, MAC: macB}
}

func TestAdvertisementRoundTrip(t *testing.T) {
	n := advertisement()
	frame := AppendNDP(nil, n)
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	theirs := p.Layer(layers.LayerTypeICMPv6NeighborAdvertisement).(*layers.ICMPv6NeighborAdvertisement)
	if !theirs.Solicited() || !theirs.Override() || theirs.Router() || !bytes.Equal(theirs.Options[0].Data, macB[:]) {
		t.Errorf("gopacket reads %+v", theirs)
	}
	if got, err := ParseNDP(frame); err != nil || got != n {
		t.Errorf("parsed %+v (%v), want %+v", got, err, n)
	}
	n.HasMAC, n.MAC = false, MAC{}
	if got, err := ParseNDP(AppendNDP(nil, n)); err != nil || got != n {
		t.Errorf("without address: parsed %+v (%v), want %+v", got, err, n)
	}
}

// changeNDP changes one octet of the ICMPv6 message and makes the checksum right again.
func changeNDP(frame []byte, at int, value byte) []byte {
	frame = change(frame, ip6Len+at, value)
	b := frame[EthernetLen+ip6Len:]
	binary.BigEndian.PutUint16(b[ndpChecksum:], 0)
	fixed := checksum(sum(pseudoSum(service6.Addr(), client6.Addr(), protoICMPv6, len(b)), b))
	binary.BigEndian.PutUint16(b[ndpChecksum:], fixed)
	return frame
}

// RFC 4861 §7.1: what makes a solicitation or advertisement invalid.
func TestParseNDPRefuses(t *testing.T) {
	good := AppendNDP(nil, advertisement())
	short := advertisement()
	short.HasMAC = false
	for _, c := range []struct {
		name  string
		frame []byte
		want  error
	}{
		{"cut Ethernet", good[:10], ErrTruncated},
		{"cut", good[:len(good)-1], ErrTruncated},
		{"ARP", AppendARP(nil, ARP{Op: ARPRequest, SenderIP: client4.Addr(), TargetIP: service4.Addr()}), ErrNotNDP},
		{"TCP", AppendTCP(nil, testLink, client6, service6, Segment{}), ErrNotNDP},
		{"hop limit 254", change(good, ip6HopLimit, 254), ErrMalformed},
		{"checksum", change(good, ip6Len+ndpTarget, 1), ErrChecksum},
		{"code 1", changeNDP(good, ndpCode, 1), ErrMalformed},
		{"echo request", changeNDP(good, ndpType, 128), ErrNotNDP},
		{"multicast target", changeNDP(good, ndpTarget, 0xff), ErrMalformed},
		{"option of length 0", changeNDP(good, ndpLen+1, 0), ErrMalformed},
		{"option beyond the packet", changeNDP(good, ndpLen+1, 2), ErrTruncated},
		{"message cut", change(AppendNDP(nil, short), ip6PayloadLen+1, ndpLen-1), ErrTruncated},
		{"type alone", change(AppendNDP(nil, short), ip6PayloadLen+1, 3), ErrTruncated},
		{"option cut", change(good, ip6PayloadLen+1, ndpLen+4), ErrChecksum},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := ParseNDP(c.frame); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestParseNDPSkipsOtherOptions(t *testing.T) {
	got, err := ParseNDP(changeNDP(AppendNDP(nil, advertisement()), ndpLen, 14)) // nonce, RFC 3971
	if err != nil || got.HasMAC {
		t.Errorf("parsed %+v (%v)", got, err)
	}
}

func FuzzParseNeighbour(f *testing.F) {
	f.Add(AppendARP(nil, ARP{Op: ARPReply, SenderMAC: macB, SenderIP: service4.Addr(), TargetIP: client4.Addr()}))
	f.Add(AppendNDP(nil, advertisement()))
	f.Fuzz(func(t *testing.T, data []byte) {
		if a, err := ParseARP(data); err == nil {
			if again, err := ParseARP(AppendARP(nil, a)); err != nil || again != a {
				t.Errorf("ARP %+v became %+v (%v)", a, again, err)
			}
		}
		if n, err := ParseNDP(data); err == nil {
			if again, err := ParseNDP(AppendNDP(nil, n)); err != nil || again != n {
				t.Errorf("NDP %+v became %+v (%v)", n, again, err)
			}
		}
	})
}
