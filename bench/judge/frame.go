package judge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// Frame is one captured Ethernet frame.
type Frame struct {
	Time time.Time
	Data []byte // whole, from the destination MAC on, without FCS
}

// segment is a decoded TCP segment and where it was found.
type segment struct {
	wire.Frame
	index     int // of the frame, from 1
	time      time.Time
	optionLen int // octets of TCP options, padding included
	checksums error
}

var (
	errFragment = errors.New("IP fragment")
	errIPSum    = errors.New("wrong IPv4 header checksum")
	errTCPSum   = errors.New("wrong TCP checksum")
)

// decoder takes frames apart. Its layers are reused, so what it returns is valid until the next call.
type decoder struct {
	parser *gopacket.DecodingLayerParser
	found  []gopacket.LayerType
	eth    layers.Ethernet
	arp    layers.ARP
	ip4    layers.IPv4
	ip6    layers.IPv6
	tcp    layers.TCP
}

func newDecoder() *decoder {
	d := &decoder{}
	d.parser = gopacket.NewDecodingLayerParser(layers.LayerTypeEthernet, &d.eth, &d.arp, &d.ip4, &d.ip6, &d.tcp)
	d.parser.IgnoreUnsupported = true
	return d
}

// decode takes one frame apart and returns its innermost known layer: ARP, TCP, IPv4 or IPv6 (nothing known above),
// or Ethernet.
func (d *decoder) decode(data []byte) (gopacket.LayerType, error) {
	err := d.parser.DecodeLayers(data, &d.found)
	if len(d.found) == 0 {
		return gopacket.LayerTypeZero, err
	}
	return d.found[len(d.found)-1], err
}

// addresses returns the frame's IP addresses; invalid ones when it has none. The IP header has been decoded.
func (d *decoder) addresses() (src, dst netip.Addr) {
	for _, layer := range d.found {
		switch layer {
		case layers.LayerTypeIPv4:
			src, _ = netip.AddrFromSlice(d.ip4.SrcIP)
			dst, _ = netip.AddrFromSlice(d.ip4.DstIP)
		case layers.LayerTypeIPv6:
			src, _ = netip.AddrFromSlice(d.ip6.SrcIP)
			dst, _ = netip.AddrFromSlice(d.ip6.DstIP)
		}
	}
	return src.Unmap(), dst.Unmap()
}

// fragment reports whether the IPv4 packet is only a part of one.
func (d *decoder) fragment() bool {
	return d.eth.EthernetType == layers.EthernetTypeIPv4 &&
		(d.ip4.FragOffset != 0 || d.ip4.Flags&layers.IPv4MoreFragments != 0)
}

// segment returns the decoded TCP segment. Its payload aliases the frame.
func (d *decoder) segment(index int, at time.Time) (*segment, error) {
	if d.fragment() {
		return nil, errFragment
	}
	src, dst := d.addresses()
	s := &segment{index: index, time: at, optionLen: int(d.tcp.DataOffset)*4 - 20}
	s.Link = wire.Link{Dst: wire.MAC(d.eth.DstMAC), Src: wire.MAC(d.eth.SrcMAC)}
	s.Src = netip.AddrPortFrom(src, uint16(d.tcp.SrcPort))
	s.Dst = netip.AddrPortFrom(dst, uint16(d.tcp.DstPort))
	s.Segment = wire.Segment{
		Seq: seq.Value(d.tcp.Seq), Ack: seq.Value(d.tcp.Ack), Flags: wire.Flags(d.tcp.Contents[13]),
		Window: d.tcp.Window, Payload: d.tcp.Payload,
	}
	var err error
	if s.Segment.Options, err = options(d.tcp.Options); err != nil {
		return nil, err
	}
	s.checksums = d.checksums(src, dst)
	return s, nil
}

// options translates TCP options; unknown kinds are left out.
func options(list []layers.TCPOption) (o wire.Options, err error) {
	for _, opt := range list {
		data := opt.OptionData
		switch opt.OptionType {
		case layers.TCPOptionKindMSS:
			if len(data) != 2 {
				return o, fmt.Errorf("MSS option of %d octets", len(data))
			}
			o.MSS = binary.BigEndian.Uint16(data)
		case layers.TCPOptionKindWindowScale:
			if len(data) != 1 {
				return o, fmt.Errorf("window scale option of %d octets", len(data))
			}
			o.Scale, o.HasScale = data[0], true
		case layers.TCPOptionKindSACKPermitted:
			o.SACKPermitted = true
		case layers.TCPOptionKindTimestamps:
			if len(data) != 8 {
				return o, fmt.Errorf("timestamps option of %d octets", len(data))
			}
			o.HasTimestamps = true
			o.TSVal, o.TSEcr = binary.BigEndian.Uint32(data), binary.BigEndian.Uint32(data[4:])
		case layers.TCPOptionKindSACK:
			if len(data)%8 != 0 || len(data)/8 > len(o.SACK) {
				return o, fmt.Errorf("SACK option of %d octets", len(data))
			}
			for ; len(data) > 0; data = data[8:] {
				o.SACK[o.NSACK] = wire.Block{
					Left:  seq.Value(binary.BigEndian.Uint32(data)),
					Right: seq.Value(binary.BigEndian.Uint32(data[4:])),
				}
				o.NSACK++
			}
		}
	}
	return o, nil
}

// checksums verifies the IPv4 header's and the segment's checksum.
func (d *decoder) checksums(src, dst netip.Addr) error {
	if src.Is4() && fold(sum(0, d.ip4.Contents)) != 0xffff {
		return errIPSum
	}
	size := len(d.tcp.Contents) + len(d.tcp.Payload)
	total := sum(0, src.AsSlice())
	total = sum(total, dst.AsSlice())
	total += uint64(layers.IPProtocolTCP) + uint64(size)
	total = sum(total, d.tcp.Contents)
	if fold(sum(total, d.tcp.Payload)) != 0xffff {
		return errTCPSum
	}
	return nil
}

// sum adds the 16-bit words of p to total (RFC 1071); an odd last octet counts as the high one.
func sum(total uint64, p []byte) uint64 {
	for ; len(p) >= 4; p = p[4:] {
		total += uint64(binary.BigEndian.Uint32(p))
	}
	if len(p) >= 2 {
		total += uint64(binary.BigEndian.Uint16(p))
		p = p[2:]
	}
	if len(p) == 1 {
		total += uint64(p[0]) << 8
	}
	return total
}

// fold reduces a sum of words to 16 bits.
func fold(total uint64) uint16 {
	for total > 0xffff {
		total = total>>16 + total&0xffff
	}
	return uint16(total)
}
