package flow

import (
	"fmt"
	"net/netip"

	"baton/fastpath/wire"
)

// ID names one flow that the router owns: a slot of the forwarder's side table and that slot's generation, so a command
// for a flow that has ended meanwhile is recognised as stale and ignored (counted), never applied to the next.
// Zero is no flow.
type ID uint64

// OwnerID is an index into the forwarder's table of owners, below MaxOwners.
type OwnerID uint16

const (
	// Router owns every flow that has not been transferred: the control plane itself.
	Router OwnerID = 0
	// MaxOwners bounds OwnerID.
	MaxOwners = 4096
)

// Kind says why the forwarder handed something to the control plane.
type Kind uint8

// The kinds of punt. Within one flow they come in the order in which the forwarder saw things.
const (
	First     Kind = iota + 1 // the first valid cookie of a new incarnation, when it carries data or FIN; Frame is that segment
	Segment                   // a later segment of a flow that the router owns; a bare first ACK is not punted where the client speaks first
	Frozen                    // Freeze took effect: everything punted before was before the freeze; no Frame
	Switched                  // Switch took effect: Held frames went to the new owner; the ID is now dead
	Gone                      // the forwarder ended the flow by itself (idle, or replaced by a new incarnation); the ID is now dead
	End                       // FIN or RST of a client on a flow that a target owns (rate-limited hint: ask the target)
	Orphan                    // rate-limited copy of a segment that belongs to no flow
	Neighbour                 // ARP reply or neighbour advertisement: Addr is at MAC
	Adopted                   // Adopt took effect: Flow is the connection's name, 0 if there was no room; no Frame
	ICMP                      // ICMP error about a segment of the router (rate-limited); not while the flow is frozen
	Idle                      // a target's flow without a segment for long: it will be forgotten unless Restore renews it; no Frame
	Exception                 // Frame is for the host's kernel (rate-limited)
	Served                    // the newest Serve of a service took effect on all lcores; no Frame
)

// Punt is one thing that the forwarder handed over. Frame aliases the forwarder's memory and is valid only until the
// next call of Receive.
type Punt struct {
	Kind Kind
	Port uint16 // data port of Frame
	Flow ID     // First, Segment, Frozen, Switched, Gone, Adopted, ICMP
	// Inc: all but Neighbour and Exception. Orphan, End and Idle: IRS and ISS are zero when unknown; Served: Service only.
	Inc       wire.Incarnation
	Handshake wire.Handshake // First
	TSOffset  uint32         // First: our TSval = wall clock in ms + TSOffset (mod 2^32)
	Owner     OwnerID        // End, Idle: who owns it
	Held      int            // Switched: number of held frames that were flushed to the new owner
	Frame     []byte         // First, Segment, Orphan, ICMP: a whole Ethernet frame, checksums verified; Exception: as it came
	Open      bool           // Served: SYNs are answered
	Addr      netip.Addr     // Neighbour
	MAC       wire.MAC       // Neighbour
}

// HoldMode is what a freeze does with the client's packets.
type HoldMode uint8

// The two ways to freeze.
const (
	HoldBuffer  HoldMode = iota // hold them in order, bounded; flushed to whoever owns the flow next
	HoldDiscard                 // drop them; the client retransmits
)

// Nexthop is how packets reach an owner.
type Nexthop struct {
	MAC    wire.MAC // of the owner, or of the first router on the way to it
	Port   uint16   // data port to send from
	Tunnel Tunnel   // its zero value: none, the owner is on the data network
}

// Tunnel takes packets to an owner that is not on the data network. Src and Dst are of one family; the packets inside
// may be of the other.
type Tunnel struct {
	Kind     TunnelKind
	Src, Dst netip.Addr
	MTU      int // largest outer packet, octets, at least 576 (IPv6: 1280)
}

// TunnelKind is a way to wrap packets.
type TunnelKind uint8

// The kinds of tunnels. The values are the forwarder's.
const (
	NoTunnel TunnelKind = iota
	IPIP                // in another IP header: RFC 2003, RFC 4213, RFC 2473
	GUE                 // in UDP to port 6080: Generic UDP Encapsulation, draft-ietf-intarea-gue, version 0
)

// String is the kind's word in configuration files.
func (k TunnelKind) String() string {
	switch k {
	case NoTunnel:
		return "none"
	case IPIP:
		return "ipip"
	case GUE:
		return "gue"
	}
	return fmt.Sprintf("TunnelKind(%d)", uint8(k))
}

// Overhead is how many octets longer packets are inside the tunnel.
func (t Tunnel) Overhead() int {
	const ip4, ip6, udp, gue = 20, 40, 8, 4
	n := ip6
	if t.Dst.Is4() {
		n = ip4
	}
	switch t.Kind {
	case IPIP:
		return n
	case GUE:
		return n + udp + gue
	case NoTunnel:
	}
	return 0
}
