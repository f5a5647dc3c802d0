package fastpath

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"syscall"

	"baton/cgo"
	"baton/fastpath/flow"
	"baton/fastpath/wire"
)

// send queues a command for one loop.
func (f *Forwarder) send(loop int, c *cgo.Command, frame []byte) error {
	if f.closed {
		return ErrClosed
	}
	switch err := f.loops[loop].Send(c, frame); {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EBUSY):
		return ErrBusy
	default:
		return fmt.Errorf("forwarder command: %w", err)
	}
}

// sendFlow queues a command for the loop of its flow.
func (f *Forwarder) sendFlow(c *cgo.Command) error {
	loop := cgo.OfFlow(c.Flow)
	if loop >= len(f.loops) {
		loop = 0 // counts it as stale
	}
	return f.send(loop, c, nil)
}

// sendTuple queues a command for the loop of its tuple.
func (f *Forwarder) sendTuple(c *cgo.Command, frame []byte) error {
	if f.closed {
		return ErrClosed
	}
	return f.send(f.shards.Of(&c.Tuple), c, frame)
}

// sendAll queues a command for every loop. After ErrBusy some may have it, so it must do no harm when it is repeated.
func (f *Forwarder) sendAll(c *cgo.Command) error {
	for i := range f.loops {
		if err := f.send(i, c, nil); err != nil {
			return err
		}
	}
	return nil
}

// Transmit sends a whole Ethernet frame on a data port; the frame is copied. One that the port cannot carry is dropped
// and counted. It goes the way of its flow's commands, so it cannot overtake them.
func (f *Forwarder) Transmit(port uint16, frame []byte) error {
	if f.closed {
		return ErrClosed
	}
	return f.send(f.shards.OfReply(frame), &cgo.Command{Kind: cgo.Transmit, Port: port}, frame)
}

// Freeze stops punting the flow's segments; they are held or discarded until Thaw or Switch. Answered by flow.Frozen.
func (f *Forwarder) Freeze(id flow.ID, mode flow.HoldMode) error {
	c := cgo.Command{Kind: cgo.Freeze, Flow: uint64(id)}
	if mode == flow.HoldDiscard {
		c.Discard = 1
	}
	f.asked = true
	return f.sendFlow(&c)
}

// Thaw punts what was held, in order, and then goes on punting as before Freeze.
func (f *Forwarder) Thaw(id flow.ID) error {
	return f.sendFlow(&cgo.Command{Kind: cgo.Thaw, Flow: uint64(id)})
}

// Switch sends what was held to the owner, in order, and makes it the flow's owner. Answered by flow.Switched. owner
// must not be flow.Router.
func (f *Forwarder) Switch(id flow.ID, owner flow.OwnerID) error {
	f.asked = true
	return f.sendFlow(&cgo.Command{Kind: cgo.Switch, Flow: uint64(id), Owner: uint16(owner)})
}

// CloseFlow forgets a flow that the router owns and ended; its late segments count as unknown.
func (f *Forwarder) CloseFlow(id flow.ID) error {
	return f.sendFlow(&cgo.Command{Kind: cgo.Close, Flow: uint64(id)})
}

// Remove forgets a flow that a target owned, after the configured linger, if the entry still is its, and of this
// incarnation.
func (f *Forwarder) Remove(inc wire.Incarnation, owner flow.OwnerID) error {
	return f.sendTuple(&cgo.Command{
		Kind: cgo.Remove, Tuple: toTuple(inc.Tuple), IRS: uint32(inc.IRS), ISS: uint32(inc.ISS), Owner: uint16(owner),
	}, nil)
}

// Adopt makes a flow of a connection that was handed over to this host: from then on its segments are punted, from
// whatever port they come. An older flow of the tuple ends (flow.Gone). Answered by flow.Adopted. With from it is a
// connection that this owner hands back: where the entry is another owner's or incarnation's, there is no flow.
func (f *Forwarder) Adopt(port uint16, inc wire.Incarnation, from flow.OwnerID) error {
	f.asked = true
	return f.sendTuple(&cgo.Command{
		Kind: cgo.Adopt, Port: port, Owner: uint16(from), Tuple: toTuple(inc.Tuple), IRS: uint32(inc.IRS), ISS: uint32(inc.ISS),
	}, nil)
}

// Restore gives a flow that a target owns the entry that it should have; one that it has is renewed. frame is nil or a
// segment of the flow as flow.Orphan had it, from port; it is copied, and sent to the owner. Where the entry is another
// owner's or incarnation's, nothing changes. owner must not be flow.Router.
func (f *Forwarder) Restore(inc wire.Incarnation, owner flow.OwnerID, port uint16, frame []byte) error {
	return f.sendTuple(&cgo.Command{
		Kind: cgo.Restore, Tuple: toTuple(inc.Tuple), IRS: uint32(inc.IRS), ISS: uint32(inc.ISS),
		Owner: uint16(owner), Port: port,
	}, frame)
}

// SetOwner defines or changes an owner's next hop; what was learnt of a tunnel's path is forgotten. Frames for an owner
// without one are dropped and counted.
func (f *Forwarder) SetOwner(id flow.OwnerID, hop flow.Nexthop) error {
	c := cgo.Command{Kind: cgo.SetOwner, Owner: uint16(id), Port: hop.Port, MAC: hop.MAC}
	if t := hop.Tunnel; t.Kind != flow.NoTunnel {
		c.Tunnel, c.MTU = uint8(t.Kind), uint16(min(t.MTU, math.MaxUint16))
		c.Tuple = cgo.Tuple{Client: toIP(t.Dst), Service: toIP(t.Src)}
	}
	return f.sendAll(&c)
}

// Serve opens or closes a service: while it is closed, SYNs to it are dropped and counted. Its connections go on.
// Answered by flow.Served, unless another Serve of the service comes before it has taken effect.
func (f *Forwarder) Serve(service netip.AddrPort, open bool) error {
	i, err := f.serviceNumber(service)
	if err != nil {
		return err
	}
	f.served++ // what was sent before, also in vain, is not waited for any more
	f.serving[service] = serving{number: f.served, open: open, left: len(f.loops)}
	c := cgo.Command{Kind: cgo.Serve, Owner: i, Flow: f.served}
	if !open {
		c.Discard = 1
	}
	return f.sendAll(&c)
}

// serving is a command to open or close a service that has not taken effect everywhere.
type serving struct {
	number uint64
	open   bool
	left   int // loops
}

// serves takes a loop's answer to Serve. It reports whether that was the last.
func (f *Forwarder) serves(number uint64, dst *flow.Punt) bool {
	for service, s := range f.serving {
		if s.number != number {
			continue
		}
		s.left--
		f.serving[service] = s
		if s.left > 0 {
			return false
		}
		delete(f.serving, service)
		*dst = flow.Punt{Kind: flow.Served, Open: s.open, Inc: wire.Incarnation{Tuple: wire.Tuple{Service: service}}}
		return true
	}
	return false
}

// SetTargets gives a conventional service other targets for its new connections.
func (f *Forwarder) SetTargets(service netip.AddrPort, t flow.Targets) error {
	if f.closed {
		return ErrClosed
	}
	i, err := f.serviceNumber(service)
	if err != nil {
		return err
	}
	candidates := make([]cgo.Candidate, len(t.Candidates))
	for j, c := range t.Candidates {
		candidates[j] = cgo.Candidate{Owner: uint16(c.Owner), Weight: c.Weight}
	}
	table := make([]uint16, len(t.Table))
	for j, owner := range t.Table {
		table[j] = uint16(owner)
	}
	for _, l := range f.loops {
		switch err := l.SetTargets(i, candidates, table, t.Recovers); {
		case errors.Is(err, syscall.EBUSY):
			return ErrBusy
		case err != nil:
			return fmt.Errorf("targets of %v: %w", service, err)
		}
	}
	return nil
}

// Connections is how many connections of a conventional service each of its targets has: those whose client has not
// ended them. For a service that is not conventional it is empty.
func (f *Forwarder) Connections(service netip.AddrPort) map[flow.OwnerID]int {
	f.mu.RLock()
	defer f.mu.RUnlock()
	count := map[flow.OwnerID]int{}
	i, err := f.serviceNumber(service)
	if f.closed || err != nil {
		return count
	}
	var all [cgo.MaxOwners]uint32
	for _, l := range f.loops {
		l.Connections(i, &all)
		for owner, n := range all {
			if n > 0 {
				count[flow.OwnerID(owner)] += int(n)
			}
		}
	}
	return count
}

// serviceNumber is the service's place in the configuration.
func (f *Forwarder) serviceNumber(service netip.AddrPort) (uint16, error) {
	i := slices.IndexFunc(f.config.Services, func(s Service) bool { return s.Addr == service })
	if i < 0 {
		return 0, fmt.Errorf("%w: %v", ErrNoService, service)
	}
	return uint16(i), nil
}
