package wire

import "encoding/binary"

// Ethernet II (IEEE 802.3 §3.1.1), octets:
//
//	+---------------+---------------+-----------+---------
//	| destination 6 |   source 6    |  type 2   | payload
//	+---------------+---------------+-----------+---------
const (
	ethDst  = 0
	ethSrc  = 6
	ethType = 12
	// EthernetLen is the length of an Ethernet header, octets.
	EthernetLen = 14
)

// EtherTypes that Baton reads.
const (
	EtherTypeIPv4 = 0x0800
	EtherTypeARP  = 0x0806
	EtherTypeIPv6 = 0x86dd
)

// Broadcast is the Ethernet address of all stations.
var Broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// ParseEthernet splits a frame into its header, EtherType and payload; the payload may end in padding.
// Its only error is ErrTruncated.
func ParseEthernet(frame []byte) (l Link, etherType uint16, payload []byte, err error) {
	if len(frame) < EthernetLen {
		return Link{}, 0, nil, ErrTruncated
	}
	l.Dst = MAC(frame[ethDst:])
	l.Src = MAC(frame[ethSrc:])
	return l, binary.BigEndian.Uint16(frame[ethType:]), frame[EthernetLen:], nil
}

// appendEthernet appends an Ethernet header.
func appendEthernet(dst []byte, l Link, etherType uint16) []byte {
	dst = append(dst, l.Dst[:]...)
	dst = append(dst, l.Src[:]...)
	return binary.BigEndian.AppendUint16(dst, etherType)
}
