package wire

import (
	"encoding/binary"
	"net/netip"
)

// IPv6 header (RFC 8200 §3):
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|Version| Traffic Class |           Flow Label                  |
//	|         Payload Length        |  Next Header  |   Hop Limit   |
//	|                         Source Address                        |
//	|                       Destination Address                     |
const (
	ip6Version    = 0
	ip6PayloadLen = 4
	ip6NextHeader = 6
	ip6HopLimit   = 7
	ip6Src        = 8
	ip6Dst        = 24
	ip6Len        = 40
)

// Extension headers that may precede TCP (RFC 8200 §4). All of them open with the next header's number; all but the
// fragment header go on with their length in units of 8 octets, the first 8 not counted.
const (
	extHopByHop = 0
	extRouting  = 43
	extFragment = 44
	extDestOpts = 60

	extNext         = 0
	extLen          = 1
	extSegmentsLeft = 3 // of the routing header
	extFragOffset   = 2 // of the fragment header: offset, 2 reserved bits, M
	extMinLen       = 8

	extFragMask = 0xfff9 // offset and M
)

// parseIPv6 checks an IPv6 header, skips the extension headers and finds the payload.
func parseIPv6(b []byte) (packet, error) {
	if len(b) < ip6Len {
		return packet{}, ErrTruncated
	}
	n := int(binary.BigEndian.Uint16(b[ip6PayloadLen:]))
	p := packet{
		src:  netip.AddrFrom16([16]byte(b[ip6Src:])),
		dst:  netip.AddrFrom16([16]byte(b[ip6Dst:])),
		hops: b[ip6HopLimit],
	}
	switch {
	case b[ip6Version]>>4 != 6, p.src.Is4In6(), p.dst.Is4In6(): // mapped addresses are for APIs (RFC 4291 §2.5.5.2)
		return packet{}, ErrMalformed
	case n > len(b)-ip6Len:
		return packet{}, ErrTruncated
	}
	var err error
	p.protocol, p.payload, err = skipExtensions(b[ip6NextHeader], b[ip6Len:ip6Len+n])
	return p, err
}

// skipExtensions walks the chain of extension headers at the start of b. It ends, because each one takes 8 octets.
func skipExtensions(next uint8, b []byte) (protocol uint8, payload []byte, err error) {
	for {
		n := extMinLen
		switch next {
		case extHopByHop, extDestOpts, extRouting, extFragment:
			if len(b) < extMinLen {
				return 0, nil, ErrTruncated
			}
		default:
			return next, b, nil
		}
		switch next {
		case extFragment:
			if binary.BigEndian.Uint16(b[extFragOffset:])&extFragMask != 0 {
				return 0, nil, ErrFragment // an atomic fragment is a whole packet (RFC 6946)
			}
		case extRouting:
			if b[extSegmentsLeft] != 0 {
				return 0, nil, ErrMalformed // still on its way to somebody else
			}
			n += int(b[extLen]) * 8
		default:
			n += int(b[extLen]) * 8
		}
		if len(b) < n {
			return 0, nil, ErrTruncated
		}
		next, b = b[extNext], b[n:]
	}
}

// appendIPv6 appends an IPv6 header for n octets of payload.
func appendIPv6(dst []byte, p packet, n int) []byte {
	src, to := p.src.As16(), p.dst.As16()
	dst = append(dst, 6<<4, 0, 0, 0)
	dst = binary.BigEndian.AppendUint16(dst, uint16(n))
	dst = append(dst, p.protocol, p.hops)
	dst = append(dst, src[:]...)
	return append(dst, to[:]...)
}
