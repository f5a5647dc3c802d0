package router

import (
	"net/netip"
	"time"

	"baton/fastpath/wire"
)

// FlowID names one flow that the router owns: a slot of the forwarder's side table and that slot's generation, so a
// command for a flow that has ended meanwhile is recognised as stale and ignored (counted), never applied to the next.
// Zero is no flow.
type FlowID uint64

// OwnerID is an index into the forwarder's table of owners. OwnerRouter is the control plane itself.
type OwnerID uint16

// OwnerRouter owns every flow that has not been transferred.
const OwnerRouter OwnerID = 0

// PuntKind says why the forwarder handed something to the control plane.
type PuntKind uint8

// The kinds of punt. Order within one flow is the order in which the forwarder saw things.
const (
	PuntFirst     PuntKind = iota + 1 // the first valid cookie of a new incarnation; Frame is that segment
	PuntSegment                       // a later segment of a flow that the router owns
	PuntFrozen                        // Freeze took effect: everything punted before was before the freeze; no Frame
	PuntSwitched                      // Switch took effect; Held frames went to the new owner; the FlowID is now dead
	PuntGone                          // the forwarder ended the flow by itself (idle, or replaced by a new incarnation); the FlowID is now dead
	PuntEnd                           // FIN or RST of a client on a flow that a target owns (rate-limited hint: ask the target)
	PuntOrphan                        // rate-limited copy of a segment that belongs to no flow
	PuntNeighbour                     // ARP reply or neighbour advertisement: Neighbour is at MAC
)

// Punt is one thing that the forwarder handed over. Frame aliases the forwarder's memory and is valid only until the
// next call of Receive.
type Punt struct {
	Kind      PuntKind
	Flow      FlowID           // First, Segment, Frozen, Switched, Gone
	Inc       wire.Incarnation // all but Neighbour; Orphan and End: IRS and ISS are zero when unknown
	Handshake wire.Handshake   // First
	TSOffset  uint32           // First: our TSval = wall clock in ms + TSOffset (mod 2^32)
	Owner     OwnerID          // End: who owns it. Gone: zero
	Held      int              // Switched: number of held frames that were flushed to the new owner
	Frame     []byte           // First, Segment, Orphan: a whole Ethernet frame, checksums verified
	Neighbour netip.Addr       // Neighbour
	MAC       [6]byte          // Neighbour
}

// HoldMode is what a freeze does with the client's packets (seed: "discarded ... so as to invoke retransmission" or
// "buffered and forwarded").
type HoldMode uint8

// The two ways to freeze.
const (
	HoldBuffer  HoldMode = iota // hold them in order, bounded; flushed to whoever owns the flow next
	HoldDiscard                 // drop them; the client retransmits
)

// Nexthop is how packets reach an owner.
type Nexthop struct {
	MAC  [6]byte // destination MAC on the data network
	Port uint16  // data port to send from
}

// Dataplane is the forwarder as the router needs it. *fastpath.Forwarder implements it. Commands are carried out by the
// lcore in the order in which they were given, frames of Transmit included; they return an error only when the command
// ring is full (ErrBusy) or the forwarder is closed. All methods but Wake are for one goroutine.
type Dataplane interface {
	// Receive fills dst with what the forwarder punted, oldest first, and returns how many. It never blocks.
	Receive(dst []Punt) int
	// Wait blocks until there is something to receive, Wake is called, or d has passed.
	Wait(d time.Duration)
	// Wake ends a Wait, now or the next one. Safe from any goroutine.
	Wake()

	// Transmit sends a whole Ethernet frame (14 octets to the port's frame size; copied) on a data port.
	Transmit(port uint16, frame []byte) error
	// Freeze stops punting the flow's segments; they are held or discarded until Thaw or Switch. Answered by PuntFrozen.
	Freeze(id FlowID, mode HoldMode) error
	// Thaw punts what was held, in order, and then goes on punting as before Freeze.
	Thaw(id FlowID) error
	// Switch sends what was held to the owner, in order, and makes it the flow's owner. Answered by PuntSwitched.
	Switch(id FlowID, owner OwnerID) error
	// Close forgets a flow that the router owns and ended; its late segments count as unknown.
	Close(id FlowID) error
	// Remove forgets a flow that a target owned, if the entry still is of this incarnation (an end report of an older
	// one changes nothing). It takes effect after the configured linger.
	Remove(inc wire.Incarnation) error

	// SetOwner defines or changes an owner. Flows of an owner without a known next hop are dropped and counted.
	SetOwner(id OwnerID, hop Nexthop) error
	// Port returns the MAC and the configured address of data port i (0-based), for neighbour resolution.
	Port(i uint16) (mac [6]byte, addr netip.Prefix)
}
