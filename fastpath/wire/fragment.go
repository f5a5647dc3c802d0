package wire

import "encoding/binary"

// Fragments splits the IP packet in a frame so that no part is longer than mtu octets, as a router does it with IPv4
// (RFC 791 §3.2) and a sender with IPv6 (RFC 8200 §4.5); id is the packet's identification. A frame that fits, or has no
// valid IP packet, comes back as it is. The parts alias nothing; options and extension headers do not get into them.
func Fragments(frame []byte, mtu int, id uint32) [][]byte {
	link, etherType, b, err := ParseEthernet(frame)
	p, ipErr := parseIP(etherType, b)
	headerLen := ip4MinLen
	if etherType == EtherTypeIPv6 {
		headerLen = ip6Len + extMinLen
	}
	room := (mtu - headerLen) &^ 7 // of a part: all but the last are multiples of 8
	if err != nil || ipErr != nil || len(b) <= mtu || room <= 0 {
		return [][]byte{frame}
	}
	var parts [][]byte
	for offset := 0; offset < len(p.payload); offset += room {
		part := p.payload[offset:min(offset+room, len(p.payload))]
		more := offset+len(part) < len(p.payload)
		parts = append(parts, append(appendFragmentIP(nil, link, p, part, offset, more, id), part...))
	}
	return parts
}

// appendFragmentIP appends the headers of one part of a packet.
func appendFragmentIP(b []byte, l Link, p packet, part []byte, offset int, more bool, id uint32) []byte {
	if p.src.Is4() {
		b = appendIP(b, l, p, len(part))
		header := b[len(b)-ip4MinLen:]
		flags := uint16(offset / 8)
		if more {
			flags |= 0x2000
		}
		binary.BigEndian.PutUint16(header[ip4ID:], uint16(id))
		binary.BigEndian.PutUint16(header[ip4Fragment:], flags)
		binary.BigEndian.PutUint16(header[ip4Checksum:], 0)
		binary.BigEndian.PutUint16(header[ip4Checksum:], checksum(sum(0, header)))
		return b
	}
	next := p.protocol
	p.protocol = extFragment
	b = appendIP(b, l, p, extMinLen+len(part))
	field := uint16(offset)
	if more {
		field |= 1
	}
	b = append(b, next, 0)
	b = binary.BigEndian.AppendUint16(b, field)
	return binary.BigEndian.AppendUint32(b, id)
}
