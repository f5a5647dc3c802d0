package wire

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"

	"baton/fastpath/seq"
)

// TCP header (RFC 9293 §3.1):
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|          Source Port          |       Destination Port        |
//	|                        Sequence Number                        |
//	|                    Acknowledgment Number                      |
//	| Offset| Rsrvd |C|E|U|A|P|R|S|F|            Window             |
//	|           Checksum            |         Urgent Pointer        |
//	|                           [Options]                           |
//
// The reserved bits and the urgent pointer are ignored and sent as zero: urgent data is ordinary data (RFC 9293 §3.8.5
// lets the pointer be only advice).
const (
	tcpSrcPort  = 0
	tcpDstPort  = 2
	tcpSeq      = 4
	tcpAck      = 8
	tcpOffset   = 12
	tcpFlags    = 13
	tcpWindow   = 14
	tcpChecksum = 16
	tcpMinLen   = 20
)

// ParseTCP parses an Ethernet frame with IPv4 (options are skipped) or IPv6 (extension headers are skipped) and TCP, and
// verifies lengths and checksums. The payload aliases the frame. Errors: ErrTruncated, ErrMalformed, ErrChecksum,
// ErrFragment, ErrNotTCP.
func ParseTCP(frame []byte) (Frame, error) {
	link, etherType, b, err := ParseEthernet(frame)
	if err != nil {
		return Frame{}, err
	}
	p, err := parseIP(etherType, b)
	if err != nil {
		return Frame{}, err
	}
	if p.protocol != protoTCP {
		return Frame{}, ErrNotTCP
	}
	return parseSegment(link, p)
}

// parseIP parses the IP packet of an Ethernet frame.
func parseIP(etherType uint16, b []byte) (packet, error) {
	switch etherType {
	case EtherTypeIPv4:
		return parseIPv4(b)
	case EtherTypeIPv6:
		return parseIPv6(b)
	}
	return packet{}, ErrNotTCP
}

// parseSegment parses the TCP segment of an IP packet.
func parseSegment(link Link, p packet) (Frame, error) {
	b := p.payload
	if len(b) < tcpMinLen {
		return Frame{}, ErrTruncated
	}
	headerLen := int(b[tcpOffset]>>4) * 4
	switch {
	case headerLen < tcpMinLen:
		return Frame{}, ErrMalformed
	case headerLen > len(b):
		return Frame{}, ErrTruncated
	case checksum(sum(pseudoSum(p.src, p.dst, protoTCP, len(b)), b)) != 0:
		return Frame{}, ErrChecksum
	}
	return Frame{
		Link: link,
		Src:  netip.AddrPortFrom(p.src, binary.BigEndian.Uint16(b[tcpSrcPort:])),
		Dst:  netip.AddrPortFrom(p.dst, binary.BigEndian.Uint16(b[tcpDstPort:])),
		Segment: Segment{
			Seq:     seq.Value(binary.BigEndian.Uint32(b[tcpSeq:])),
			Ack:     seq.Value(binary.BigEndian.Uint32(b[tcpAck:])),
			Flags:   Flags(b[tcpFlags]),
			Window:  binary.BigEndian.Uint16(b[tcpWindow:]),
			Options: parseOptions(b[tcpMinLen:headerLen]),
			Payload: b[headerLen:],
		},
	}, nil
}

// AppendTCP appends the whole Ethernet frame that carries s from src to dst, with its checksums. The addresses must be of
// one family, and the packet must not exceed 65535 octets; it panics otherwise, because both are the caller's own.
// SACK blocks that find no room beside the other options are left out.
func AppendTCP(b []byte, l Link, src, dst netip.AddrPort, s Segment) []byte {
	headerLen := tcpMinLen + s.Options.Len()
	n := headerLen + len(s.Payload)
	if n > math.MaxUint16-ip4MinLen || src.Addr().Is4() != dst.Addr().Is4() {
		panic(fmt.Sprintf("wire: no packet holds %d octets from %v to %v", n, src, dst))
	}
	p := packet{src: src.Addr(), dst: dst.Addr(), protocol: protoTCP, hops: defaultTTL}
	b = appendIP(b, l, p, n)

	at := len(b)
	b = binary.BigEndian.AppendUint16(b, src.Port())
	b = binary.BigEndian.AppendUint16(b, dst.Port())
	b = binary.BigEndian.AppendUint32(b, uint32(s.Seq))
	b = binary.BigEndian.AppendUint32(b, uint32(s.Ack))
	b = append(b, byte(headerLen/4)<<4, byte(s.Flags))
	b = binary.BigEndian.AppendUint16(b, s.Window)
	b = append(b, 0, 0, 0, 0)
	b = s.Options.append(b)
	b = append(b, s.Payload...)
	binary.BigEndian.PutUint16(b[at+tcpChecksum:], checksum(sum(pseudoSum(p.src, p.dst, protoTCP, n), b[at:])))
	return b
}

// appendIP appends Ethernet and IP headers for n octets of payload.
func appendIP(b []byte, l Link, p packet, n int) []byte {
	if p.src.Is4() {
		return appendIPv4(appendEthernet(b, l, EtherTypeIPv4), p, n)
	}
	return appendIPv6(appendEthernet(b, l, EtherTypeIPv6), p, n)
}
