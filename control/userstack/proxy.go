package userstack

import (
	"encoding/binary"
	"net/netip"
)

// The PROXY protocol's header, version 2 (proxy-protocol.txt, section 2.2), octets:
//
//	+--------------+-----------------+----------------------+----------+-------------------------------------+
//	| signature 12 | version 2 and   | family and transport | length 2 | source and destination address (4 or |
//	|              | command PROXY 1 | 1                    |          | 16 each), their ports (2 each)       |
//	+--------------+-----------------+----------------------+----------+-------------------------------------+
const (
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"
	proxyCommand   = 0x21
	proxyTCP4      = 0x11
	proxyTCP6      = 0x21
)

// proxyHeader tells an application who its client is, and which service it has called. Both are of one family.
func proxyHeader(client, service netip.AddrPort) []byte {
	from, to := client.Addr().AsSlice(), service.Addr().AsSlice()
	family := byte(proxyTCP4)
	if client.Addr().Is6() {
		family = proxyTCP6
	}
	b := append([]byte(proxySignature), proxyCommand, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(from)+len(to)+4))
	b = append(append(b, from...), to...)
	b = binary.BigEndian.AppendUint16(b, client.Port())
	return binary.BigEndian.AppendUint16(b, service.Port())
}
