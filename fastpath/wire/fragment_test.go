package wire

import (
	"bytes"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/ip4defrag"
	"github.com/google/gopacket/layers"
)

func TestFragmentsOfIPv4AreWhatGopacketPutsTogether(t *testing.T) {
	link := Link{Dst: MAC{2, 0, 0, 0, 0, 1}, Src: MAC{2, 0, 0, 0, 0, 2}}
	data := bytes.Repeat([]byte("abc"), 500)
	whole := AppendTCP(nil, link, quote4.Client, quote4.Service, Segment{Flags: ACK, Payload: data})
	parts := Fragments(whole, 576, 77)
	if len(parts) != 3 {
		t.Fatalf("%d parts, want 3", len(parts))
	}
	d := ip4defrag.NewIPv4Defragmenter()
	for i, part := range parts {
		packet := gopacket.NewPacket(part, layers.LayerTypeEthernet, gopacket.Default)
		ip := packet.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
		if len(part) > EthernetLen+576 || ip.Id != 77 || !bytes.Equal(part[:12], whole[:12]) {
			t.Errorf("part %d: %d octets, id %d", i, len(part), ip.Id)
		}
		got, err := d.DefragIPv4(ip)
		if err != nil || (got != nil) != (i == len(parts)-1) {
			t.Fatalf("part %d: %v, %v", i, got, err)
		}
		if got != nil && !bytes.Equal(got.Payload, whole[EthernetLen+ip4MinLen:]) {
			t.Error("what is put together is not what was split")
		}
	}
}

func TestFragmentsOfIPv6(t *testing.T) {
	whole := AppendTCP(nil, Link{}, quote6.Client, quote6.Service, Segment{Flags: ACK, Payload: make([]byte, 1400)})
	parts := Fragments(whole, 1280, 77)
	var got []byte
	for i, part := range parts {
		packet := gopacket.NewPacket(part, layers.LayerTypeEthernet, gopacket.Default)
		f := packet.Layer(layers.LayerTypeIPv6Fragment).(*layers.IPv6Fragment)
		if len(part) > EthernetLen+1280 || f.Identification != 77 || int(f.FragmentOffset)*8 != len(got) ||
			f.MoreFragments != (i < len(parts)-1) || f.NextHeader != layers.IPProtocolTCP {
			t.Errorf("part %d: %+v", i, f)
		}
		got = append(got, f.LayerPayload()...)
	}
	if len(parts) != 2 || !bytes.Equal(got, whole[EthernetLen+ip6Len:]) {
		t.Errorf("%d parts, which are not what was split", len(parts))
	}
}

func TestFramesThatFitAreNotSplit(t *testing.T) {
	whole := AppendTCP(nil, Link{}, quote4.Client, quote4.Service, Segment{Flags: ACK})
	if parts := Fragments(whole, 576, 1); len(parts) != 1 || !bytes.Equal(parts[0], whole) {
		t.Errorf("%d parts", len(parts))
	}
}
