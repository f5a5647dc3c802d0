package router

import (
	"net/netip"
	"time"

	"baton/fastpath/flow"
	"baton/fastpath/wire"
)

// Dataplane is the forwarder as the router needs it. *fastpath.Forwarder implements it. Commands are carried out by the
// lcore in the order in which they were given, frames of Transmit included; they return an error only when the command
// ring is full (ErrBusy) or the forwarder is closed. All methods but Wake are for one goroutine.
type Dataplane interface {
	// Receive fills dst with what the forwarder punted, oldest first, and returns how many. It never blocks.
	Receive(dst []flow.Punt) int
	// Wait blocks until there is something to receive, Wake is called, or d has passed.
	Wait(d time.Duration)
	// Wake ends a Wait, now or the next one. Safe from any goroutine.
	Wake()

	// Transmit sends a whole Ethernet frame (14 octets to the port's frame size; copied) on a data port.
	Transmit(port uint16, frame []byte) error
	// Freeze stops punting the flow's segments; they are held or discarded until Thaw or Switch. Answered by flow.Frozen.
	Freeze(id flow.ID, mode flow.HoldMode) error
	// Thaw punts what was held, in order, and then goes on punting as before Freeze.
	Thaw(id flow.ID) error
	// Switch sends what was held to the owner, in order, and makes it the flow's owner. Answered by flow.Switched.
	Switch(id flow.ID, owner flow.OwnerID) error
	// CloseFlow forgets a flow that the router owns and ended; its late segments count as unknown.
	CloseFlow(id flow.ID) error
	// Remove forgets a flow that a target owned, if the entry still is its, and of this incarnation (an end report of an
	// older one changes nothing, nor does that of an earlier owner). It takes effect after the configured linger.
	Remove(inc wire.Incarnation, owner flow.OwnerID) error
	// Adopt makes a flow of a connection that its owner hands back: its segments are punted from now on. Answered by
	// flow.Adopted; without a flow if the entry is not the owner's, or there is no room.
	Adopt(port uint16, inc wire.Incarnation, from flow.OwnerID) error

	// Restore gives a flow that a target owns its entry back, or renews the one that is there; where that has another owner
	// or incarnation, nothing changes. frame is nil or a segment of the flow that came in at port: it is copied, and sent to
	// the owner.
	Restore(inc wire.Incarnation, owner flow.OwnerID, port uint16, frame []byte) error

	// Serve opens or closes a service: while it is closed, SYNs to it are dropped. Its connections go on. Answered by
	// flow.Served, unless another Serve of the service follows before that.
	Serve(service netip.AddrPort, open bool) error

	// SetOwner defines or changes an owner. Flows of an owner without a known next hop are dropped and counted.
	SetOwner(id flow.OwnerID, hop flow.Nexthop) error
	// SetTargets gives a conventional service other targets for its new connections. The router gives it only what the
	// service can take, so here, too, an error means that there is no room.
	SetTargets(service netip.AddrPort, t flow.Targets) error
	// Port returns the MAC and the configured address of data port i (0-based), for neighbour resolution.
	Port(i uint16) (mac wire.MAC, addr netip.Prefix)
}
