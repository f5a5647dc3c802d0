package wire

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// sum adds b to the one's complement sum s (RFC 1071 §2). The sum is kept in 64 bits with end-around carry: one's
// complement addition does not care how wide the words are, as long as b starts at an even offset of what is summed.
func sum(s uint64, b []byte) uint64 {
	var carry uint64
	for len(b) >= 8 {
		s, carry = bits.Add64(s, binary.BigEndian.Uint64(b), carry)
		b = b[8:]
	}
	s, carry = bits.Add64(s, tail(b), carry)
	return s + carry // cannot overflow: after a carry out, s is below its maximum
}

// tail reads fewer than 8 octets as the start of a 64-bit word, padded with zeros (RFC 1071 §1 for an odd octet).
func tail(b []byte) uint64 {
	var w uint64
	for i, x := range b {
		w |= uint64(x) << (56 - 8*i)
	}
	return w
}

// checksum folds a sum into the 16 bits that go into the header. Over data that includes a right checksum it gives 0.
func checksum(s uint64) uint16 {
	s = s>>32 + s&0xffffffff
	s = s>>32 + s&0xffffffff
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	return ^uint16(s)
}

// pseudoSum is the sum over the pseudo header of TCP and ICMPv6 (RFC 9293 §3.1, RFC 8200 §8.1). The two families differ
// in layout only, which a sum does not see. n is the length of header and payload, octets.
func pseudoSum(src, dst netip.Addr, protocol uint8, n int) uint64 {
	s := uint64(protocol) + uint64(n)
	if src.Is4() {
		a, b := src.As4(), dst.As4()
		return s + uint64(binary.BigEndian.Uint32(a[:])) + uint64(binary.BigEndian.Uint32(b[:]))
	}
	a, b := src.As16(), dst.As16()
	return sum(sum(s, a[:]), b[:])
}
