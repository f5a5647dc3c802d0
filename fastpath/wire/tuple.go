package wire

import (
	"fmt"
	"net/netip"

	"baton/fastpath/seq"
)

// Tuple names a connection by its two ends, as the client's packets carry them: from Client to Service.
// Both addresses are of one family; IPv4 is never written as IPv4-mapped IPv6. It is comparable, so it can be a map key.
type Tuple struct {
	Client  netip.AddrPort // the client's address and port
	Service netip.AddrPort // the DVIPA and its port
}

// String prints "client -> service".
func (t Tuple) String() string { return fmt.Sprintf("%s -> %s", t.Client, t.Service) }

// Incarnation is one life of a Tuple. A reused port gives the same Tuple and another Incarnation, because both initial
// sequence numbers would have to repeat.
type Incarnation struct {
	Tuple
	IRS seq.Value // the client's initial sequence number
	ISS seq.Value // ours: the SYN cookie
}

// Handshake is what client and routing host agreed on with their SYNs. It never changes during the connection's life,
// whoever owns it, so it travels with every transfer.
type Handshake struct {
	MSS        uint16 // the client's maximum segment size, octets; the cookie rounds it down to one of 8 values
	OwnMSS     uint16 // the MSS we announced, octets
	SndScale   uint8  // shift for windows that the client sends (0-14); 0 without window scaling
	RcvScale   uint8  // shift for windows that we send (0-14); 0 without window scaling
	Scaling    bool   // RFC 7323 window scaling is on
	SACK       bool   // RFC 2018 SACK is permitted
	Timestamps bool   // RFC 7323 timestamps are on
}
