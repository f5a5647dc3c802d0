package wire

import (
	"encoding/binary"
	"net/netip"
)

// ARP for IPv4 over Ethernet (RFC 826), octets:
//
//	+--------------+---------------+---------+---------+-------------+
//	| hardware 2   | protocol 2    | hlen 1  | plen 1  | operation 2 |
//	| sender MAC 6 | sender IPv4 4 | target MAC 6      | target IPv4 4 |
//	+--------------+---------------+---------+---------+-------------+
const (
	arpOp        = 6
	arpSenderMAC = 8
	arpSenderIP  = 14
	arpTargetMAC = 18
	arpTargetIP  = 24
	arpLen       = 28
)

// arpHead is what every ARP packet for IPv4 over Ethernet opens with: the two types and the two lengths.
var arpHead = [arpOp]byte{0, 1, EtherTypeIPv4 >> 8, EtherTypeIPv4 & 0xff, 6, 4}

// ARPOp says what an ARP packet is.
type ARPOp uint16

// The operations.
const (
	ARPRequest ARPOp = 1
	ARPReply   ARPOp = 2
)

// ARP is an ARP packet for IPv4 over Ethernet.
type ARP struct {
	Op        ARPOp
	SenderMAC MAC
	SenderIP  netip.Addr // IPv4
	TargetMAC MAC        // zero in a request
	TargetIP  netip.Addr // IPv4
}

// ParseARP parses an Ethernet frame with an ARP request or reply. Errors: ErrTruncated, ErrNotARP.
func ParseARP(frame []byte) (ARP, error) {
	_, etherType, b, err := ParseEthernet(frame)
	switch {
	case err != nil:
		return ARP{}, err
	case etherType != EtherTypeARP:
		return ARP{}, ErrNotARP
	case len(b) < arpLen:
		return ARP{}, ErrTruncated
	case [arpOp]byte(b) != arpHead:
		return ARP{}, ErrNotARP
	}
	op := ARPOp(binary.BigEndian.Uint16(b[arpOp:]))
	if op != ARPRequest && op != ARPReply {
		return ARP{}, ErrNotARP
	}
	return ARP{
		Op:        op,
		SenderMAC: MAC(b[arpSenderMAC:]),
		SenderIP:  netip.AddrFrom4([4]byte(b[arpSenderIP:])),
		TargetMAC: MAC(b[arpTargetMAC:]),
		TargetIP:  netip.AddrFrom4([4]byte(b[arpTargetIP:])),
	}, nil
}

// AppendARP appends the whole Ethernet frame that carries a: to everybody if it is a request, else to its target.
// The frame is not padded to Ethernet's 60 octets; ports do that.
func AppendARP(b []byte, a ARP) []byte {
	l := Link{Dst: a.TargetMAC, Src: a.SenderMAC}
	if a.Op == ARPRequest {
		l.Dst = Broadcast
	}
	sender, target := a.SenderIP.As4(), a.TargetIP.As4()
	b = appendEthernet(b, l, EtherTypeARP)
	b = append(b, arpHead[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(a.Op))
	b = append(b, a.SenderMAC[:]...)
	b = append(b, sender[:]...)
	b = append(b, a.TargetMAC[:]...)
	return append(b, target[:]...)
}
