package wire

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"baton/fastpath/seq"
)

// ICMP (RFC 792) and ICMPv6 (RFC 4443) errors; the quoted packet begins with its IP header:
//
//	+--------+--------+-----------------+
//	|  type  |  code  |    checksum     |
//	+--------+--------+-----------------+
//	|  IPv4: 0, MTU of RFC 1191 (16+16); IPv6: MTU (32)  |
//	+-----------------------------------+
//	|  IP header and at least 8 octets of the packet: ports and sequence number of TCP  |
const (
	icmpType     = 0
	icmpCode     = 1
	icmpChecksum = 2
	icmpMTU      = 4
	icmpQuote    = 8
	icmpQuoteTCP = 8 // what is quoted of TCP at least (RFC 792)

	icmp4Unreachable = 3
	icmp4Exceeded    = 11
	icmp4Parameter   = 12
	icmp6Unreachable = 1
	icmp6TooBig      = 2
	icmp6Exceeded    = 3
	icmp6Parameter   = 4

	protoICMP = 1
)

// ICMPKind is what an ICMP error means for TCP (RFC 9293 §3.9.2.2, RFC 5927 §2).
type ICMPKind uint8

// The kinds.
const (
	Soft   ICMPKind = iota // network or host unreachable, time exceeded, parameter problem
	Hard                   // protocol or port unreachable, administratively prohibited
	TooBig                 // fragmentation needed, packet too big
)

// ICMPError is an ICMP error about a TCP segment that we sent.
type ICMPError struct {
	Tuple      Tuple // of the connection: the quoted packet went from Service to Client
	Seq        seq.Value
	Kind       ICMPKind
	Type, Code uint8
	MTU        int // of TooBig, octets with headers; 0: the router did not say
}

// Detail says what it was, for people.
func (e ICMPError) Detail() string { return fmt.Sprintf("ICMP type %d code %d", e.Type, e.Code) }

// ParseICMPError parses an Ethernet frame with an ICMP or ICMPv6 error that quotes TCP, and verifies the lengths and
// checksums that there are: of the quoted packet 8 octets after its header suffice. Source quenches and other messages are
// ErrNotICMP (RFC 6633). Errors: that, ErrTruncated, ErrMalformed, ErrChecksum, ErrFragment, ErrNotTCP.
func ParseICMPError(frame []byte) (ICMPError, error) {
	_, etherType, b, err := ParseEthernet(frame)
	if err != nil {
		return ICMPError{}, err
	}
	p, err := parseIP(etherType, b)
	if err != nil {
		return ICMPError{}, err
	}
	start := sum(0, p.payload)
	switch {
	case p.protocol == protoICMPv6 && p.src.Is6():
		start = sum(pseudoSum(p.src, p.dst, protoICMPv6, len(p.payload)), p.payload)
	case p.protocol != protoICMP || !p.src.Is4():
		return ICMPError{}, ErrNotICMP
	}
	switch {
	case len(p.payload) < icmpQuote:
		return ICMPError{}, ErrTruncated
	case checksum(start) != 0:
		return ICMPError{}, ErrChecksum
	}
	return parseError(p)
}

// parseError parses a checked ICMP message.
func parseError(p packet) (ICMPError, error) {
	e := ICMPError{Type: p.payload[icmpType], Code: p.payload[icmpCode]}
	ok := false
	if p.src.Is4() {
		e.Kind, ok = kind4(e.Type, e.Code)
		e.MTU = int(binary.BigEndian.Uint16(p.payload[icmpMTU+2:]))
	} else {
		e.Kind, ok = kind6(e.Type, e.Code)
		e.MTU = int(min(binary.BigEndian.Uint32(p.payload[icmpMTU:]), 1<<16))
	}
	if !ok {
		return ICMPError{}, ErrNotICMP
	}
	if e.Kind != TooBig {
		e.MTU = 0
	}
	return e, e.quote(p.payload[icmpQuote:], p.src.Is4())
}

// kind4 is what RFC 9293 §3.9.2.2 says about the types of ICMP.
func kind4(typ, code uint8) (ICMPKind, bool) {
	switch {
	case typ == icmp4Unreachable && code == 4:
		return TooBig, true
	case typ == icmp4Unreachable && (code == 2 || code == 3):
		return Hard, true
	case typ == icmp4Unreachable && code <= 13, typ == icmp4Exceeded, typ == icmp4Parameter:
		return Soft, true
	}
	return 0, false
}

// kind6 is the same for ICMPv6: administratively prohibited and port unreachable are hard.
func kind6(typ, code uint8) (ICMPKind, bool) {
	switch {
	case typ == icmp6TooBig:
		return TooBig, true
	case typ == icmp6Unreachable && (code == 1 || code == 4):
		return Hard, true
	case typ == icmp6Unreachable, typ == icmp6Exceeded, typ == icmp6Parameter:
		return Soft, true
	}
	return 0, false
}

// quote reads the addresses, ports and sequence number of the quoted packet. Its lengths cannot be checked, because it is
// cut, and its checksum need not be: a router has changed the TTL.
func (e *ICMPError) quote(b []byte, v4 bool) error {
	headerLen := ip6Len
	if v4 {
		if len(b) < ip4MinLen {
			return ErrTruncated
		}
		headerLen = int(b[ip4VersionIHL]&0x0f) * 4
	}
	if len(b) < headerLen+icmpQuoteTCP {
		return ErrTruncated
	}
	var src, dst netip.Addr
	version, protocol := uint8(6), b[ip6NextHeader]
	if v4 {
		version, protocol = 4, b[ip4Protocol]
		src, dst = netip.AddrFrom4([4]byte(b[ip4Src:])), netip.AddrFrom4([4]byte(b[ip4Dst:]))
	} else {
		src, dst = netip.AddrFrom16([16]byte(b[ip6Src:])), netip.AddrFrom16([16]byte(b[ip6Dst:]))
	}
	switch {
	case b[0]>>4 != version || v4 && headerLen < ip4MinLen:
		return ErrMalformed
	case v4 && binary.BigEndian.Uint16(b[ip4Fragment:])&0x1fff != 0: // a later fragment has no ports
		return ErrFragment
	case protocol != protoTCP: // we send no extension headers
		return ErrNotTCP
	}
	t := b[headerLen:]
	e.Tuple.Service = netip.AddrPortFrom(src, binary.BigEndian.Uint16(t[tcpSrcPort:]))
	e.Tuple.Client = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(t[tcpDstPort:]))
	e.Seq = seq.Value(binary.BigEndian.Uint32(t[tcpSeq:]))
	return nil
}

// AppendICMPError appends a frame in which the host from tells e.Tuple.Service about a packet of it. quoted is that IP
// packet, or how much of it is to be quoted; of e only Type, Code, MTU and the addresses of Tuple matter.
func AppendICMPError(b []byte, l Link, from netip.Addr, e ICMPError, quoted []byte) []byte {
	p := packet{src: from, dst: e.Tuple.Service.Addr(), protocol: protoICMP, hops: defaultTTL}
	size, start := icmpQuote+len(quoted), uint64(0)
	if from.Is6() {
		p.protocol = protoICMPv6
		start = pseudoSum(p.src, p.dst, protoICMPv6, size)
	}
	b = appendIP(b, l, p, size)
	at := len(b)
	b = append(b, e.Type, e.Code, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(e.MTU))
	b = append(b, quoted...)
	binary.BigEndian.PutUint16(b[at+icmpChecksum:], checksum(sum(start, b[at:])))
	return b
}
