package wire

import (
	"encoding/binary"
	"net/netip"
)

// Neighbour solicitation and advertisement (RFC 4861 §4.3, §4.4) behind an IPv6 header:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| Type 135, 136 |    Code 0     |          Checksum             |
//	|R|S|O|                     Reserved                            |
//	|                       Target Address                          |
//	|   Options: type 1, length 1 (in units of 8 octets), value ...
//
// R, S and O are the advertisement's flags router, solicited, override. Option 1 is the sender's link-layer address (of
// solicitations), option 2 the target's (of advertisements).
const (
	ndpType     = 0
	ndpCode     = 1
	ndpChecksum = 2
	ndpFlags    = 4
	ndpTarget   = 8
	ndpLen      = 24

	ndpOptLen    = 8 // a link-layer address option for Ethernet
	ndpHopLimit  = 255
	ndpFlagsMask = NDPRouter | NDPSolicited | NDPOverride
)

// NDPType is the ICMPv6 type of a neighbour discovery message.
type NDPType uint8

// The messages that Baton reads and writes.
const (
	NDPSolicitation  NDPType = 135
	NDPAdvertisement NDPType = 136
)

// NDPFlags are the flags of an advertisement.
type NDPFlags uint8

// The flags.
const (
	NDPRouter    NDPFlags = 0x80
	NDPSolicited NDPFlags = 0x40
	NDPOverride  NDPFlags = 0x20
)

// NDP is a neighbour solicitation or advertisement.
type NDP struct {
	Link     Link
	Src, Dst netip.Addr // of the IPv6 packet; Src is :: in duplicate address detection
	Type     NDPType
	Flags    NDPFlags   // of an advertisement
	Target   netip.Addr // the address that is asked for
	HasMAC   bool       // a link-layer address option is there
	MAC      MAC        // the sender's (solicitation) or the target's (advertisement)
}

// ParseNDP parses an Ethernet frame with a neighbour solicitation or advertisement, with the checks of RFC 4861 §7.1.
// Errors: ErrTruncated, ErrMalformed, ErrChecksum, ErrFragment, ErrNotNDP.
func ParseNDP(frame []byte) (NDP, error) {
	link, etherType, b, err := ParseEthernet(frame)
	if err != nil {
		return NDP{}, err
	}
	if etherType != EtherTypeIPv6 {
		return NDP{}, ErrNotNDP
	}
	p, err := parseIPv6(b)
	if err != nil {
		return NDP{}, err
	}
	if p.protocol != protoICMPv6 {
		return NDP{}, ErrNotNDP
	}
	return parseNeighbour(link, p)
}

// parseNeighbour parses the ICMPv6 message of an IPv6 packet.
func parseNeighbour(link Link, p packet) (NDP, error) {
	b := p.payload
	if len(b) < ndpChecksum+2 {
		return NDP{}, ErrTruncated
	}
	kind := NDPType(b[ndpType])
	if kind != NDPSolicitation && kind != NDPAdvertisement {
		return NDP{}, ErrNotNDP
	}
	switch {
	case len(b) < ndpLen:
		return NDP{}, ErrTruncated
	case checksum(sum(pseudoSum(p.src, p.dst, protoICMPv6, len(b)), b)) != 0:
		return NDP{}, ErrChecksum
	case b[ndpCode] != 0, p.hops != ndpHopLimit: // a router decrements: 255 proves that the sender is on the link
		return NDP{}, ErrMalformed
	}
	n := NDP{
		Link: link, Src: p.src, Dst: p.dst, Type: kind,
		Flags:  NDPFlags(b[ndpFlags]) & ndpFlagsMask,
		Target: netip.AddrFrom16([16]byte(b[ndpTarget:])),
	}
	if n.Target.IsMulticast() || n.Target.Is4In6() {
		return NDP{}, ErrMalformed
	}
	return n, n.parseOptions(b[ndpLen:])
}

// parseOptions finds the link-layer address option; others are skipped (RFC 4861 §4.6).
func (n *NDP) parseOptions(b []byte) error {
	for len(b) > 0 {
		if len(b) < ndpOptLen {
			return ErrTruncated
		}
		size := int(b[1]) * 8
		switch {
		case size == 0:
			return ErrMalformed // RFC 4861 §7.1: all included options have a length that is greater than zero
		case size > len(b):
			return ErrTruncated
		case b[0] == n.macOption() && size == ndpOptLen:
			n.HasMAC, n.MAC = true, MAC(b[2:])
		}
		b = b[size:]
	}
	return nil
}

// macOption is the type of the option that carries MAC.
func (n *NDP) macOption() uint8 {
	if n.Type == NDPSolicitation {
		return 1
	}
	return 2
}

// AppendNDP appends the whole Ethernet frame that carries n.
func AppendNDP(b []byte, n NDP) []byte {
	size := ndpLen
	if n.HasMAC {
		size += ndpOptLen
	}
	p := packet{src: n.Src, dst: n.Dst, protocol: protoICMPv6, hops: ndpHopLimit}
	b = appendIP(b, n.Link, p, size)

	at, target := len(b), n.Target.As16()
	b = append(b, byte(n.Type), 0, 0, 0, byte(n.Flags), 0, 0, 0)
	b = append(b, target[:]...)
	if n.HasMAC {
		b = append(b, n.macOption(), 1)
		b = append(b, n.MAC[:]...)
	}
	binary.BigEndian.PutUint16(b[at+ndpChecksum:], checksum(sum(pseudoSum(n.Src, n.Dst, protoICMPv6, size), b[at:])))
	return b
}

// Solicit returns the solicitation by which src, at mac, asks for target: sent to the target's solicited-node multicast
// group (RFC 4291 §2.7.1) at that group's Ethernet address (RFC 2464 §7).
func Solicit(mac MAC, src, target netip.Addr) NDP {
	group := [16]byte{0: 0xff, 1: 0x02, 11: 0x01, 12: 0xff}
	low := target.As16()
	copy(group[13:], low[13:])
	return NDP{
		Link: Link{Dst: MAC{0x33, 0x33, group[12], group[13], group[14], group[15]}, Src: mac},
		Src:  src, Dst: netip.AddrFrom16(group), Type: NDPSolicitation, Target: target, HasMAC: true, MAC: mac,
	}
}

// AppendQuestion appends the whole Ethernet frame that asks for the link address of target, by ARP or by neighbour
// solicitation. own is the address of the one who asks, of the same family.
func AppendQuestion(b []byte, mac MAC, own, target netip.Addr) []byte {
	if target.Is4() {
		return AppendARP(b, ARP{Op: ARPRequest, SenderMAC: mac, SenderIP: own, TargetIP: target})
	}
	return AppendNDP(b, Solicit(mac, own, target))
}
