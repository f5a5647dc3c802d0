package wire

import (
	"encoding/binary"
	"net/netip"
)

// IPv4 header (RFC 791 §3.1):
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|Version|  IHL  |Type of Service|          Total Length         |
//	|         Identification        |Flags|      Fragment Offset    |
//	|  Time to Live |    Protocol   |         Header Checksum       |
//	|                       Source Address                          |
//	|                    Destination Address                        |
//	|                    Options                    |    Padding    |
const (
	ip4VersionIHL = 0
	ip4TotalLen   = 2
	ip4ID         = 4
	ip4Fragment   = 6
	ip4TTL        = 8
	ip4Protocol   = 9
	ip4Checksum   = 10
	ip4Src        = 12
	ip4Dst        = 16
	ip4MinLen     = 20

	ip4DontFragment = 0x4000 // DF of Flags
	ip4FragmentMask = 0x3fff // MF and the offset: not zero in every fragment
)

// Protocol numbers (IANA) and the hop limit of what Baton originates (the default of RFC 1700).
const (
	protoTCP    = 6
	protoICMPv6 = 58
	defaultTTL  = 64
)

// packet is an IP packet whose headers have been checked.
type packet struct {
	src, dst netip.Addr
	protocol uint8
	hops     uint8  // TTL or hop limit
	payload  []byte // without link padding
}

// parseIPv4 checks an IPv4 header, options included (they are skipped), and finds the payload.
func parseIPv4(b []byte) (packet, error) {
	if len(b) < ip4MinLen {
		return packet{}, ErrTruncated
	}
	headerLen := int(b[ip4VersionIHL]&0x0f) * 4
	totalLen := int(binary.BigEndian.Uint16(b[ip4TotalLen:]))
	switch {
	case b[ip4VersionIHL]>>4 != 4, headerLen < ip4MinLen, totalLen < headerLen:
		return packet{}, ErrMalformed
	case totalLen > len(b):
		return packet{}, ErrTruncated
	case checksum(sum(0, b[:headerLen])) != 0:
		return packet{}, ErrChecksum
	case binary.BigEndian.Uint16(b[ip4Fragment:])&ip4FragmentMask != 0:
		return packet{}, ErrFragment
	}
	return packet{
		src:      netip.AddrFrom4([4]byte(b[ip4Src:])),
		dst:      netip.AddrFrom4([4]byte(b[ip4Dst:])),
		protocol: b[ip4Protocol],
		hops:     b[ip4TTL],
		payload:  b[headerLen:totalLen],
	}, nil
}

// appendIPv4 appends an IPv4 header for n octets of payload. The identification is 0, which RFC 6864 §4.1 allows for
// packets that are never fragmented: DF is set.
func appendIPv4(dst []byte, p packet, n int) []byte {
	at := len(dst)
	src, to := p.src.As4(), p.dst.As4()
	dst = append(dst, 4<<4|ip4MinLen/4, 0)
	dst = binary.BigEndian.AppendUint16(dst, uint16(ip4MinLen+n))
	dst = append(dst, 0, 0, ip4DontFragment>>8, 0, p.hops, p.protocol, 0, 0)
	dst = append(dst, src[:]...)
	dst = append(dst, to[:]...)
	binary.BigEndian.PutUint16(dst[at+ip4Checksum:], checksum(sum(0, dst[at:])))
	return dst
}
