package fastpath

import (
	"net/netip"
	"testing"
	"time"

	"baton/fastpath/flow"
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// newAdopter is a rig whose services adopt, as a target host's do.
func newAdopter(t *testing.T, change ...func(*Config)) *rig {
	adopts := func(c *Config) {
		c.Services = []Service{{ID: 7, Addr: service4, Adopts: true}, {ID: 8, Addr: service6, Adopts: true}}
		c.RouterIdle = -1
	}
	return newRig(t, append([]func(*Config){adopts}, change...)...)
}

// clientPort is another port of the client.
func clientPort(n uint16) netip.AddrPort { return netip.AddrPortFrom(client4.Addr(), client4.Port()+n) }

// adopt has a connection of the tuple's adopted and returns its name.
func (r *rig) adopt(tuple wire.Tuple) flow.ID {
	r.t.Helper()
	inc := wire.Incarnation{Tuple: tuple, IRS: 10, ISS: 20}
	r.must(r.Adopt(0, inc, flow.Router))
	r.Poll()
	p := r.punted(flow.Adopted)
	if p.Inc != inc {
		r.t.Fatalf("adopted %v, want %v", p.Inc, inc)
	}
	return p.Flow
}

// segmentFrom is a frame of a tuple's client.
func (r *rig) segmentFrom(tuple wire.Tuple, s wire.Segment) []byte {
	return wire.AppendTCP(nil, wire.Link{Dst: r.mac, Src: clientMAC}, tuple.Client, tuple.Service, s)
}

func TestAdoptedFlowsArePuntedWhole(t *testing.T) {
	for name, tuple := range map[string]wire.Tuple{
		"IPv4": {Client: client4, Service: service4}, "IPv6": {Client: client6, Service: service6},
	} {
		t.Run(name, func(t *testing.T) {
			// As many segments as no stranger may send.
			r := newAdopter(t, func(c *Config) { c.SourcePunts, c.Punts = 1, 1 })
			id := r.adopt(tuple)
			for i := range 5 {
				r.put(r.segmentFrom(tuple, wire.Segment{Seq: 11 + seq.Value(i), Ack: 21, Flags: wire.ACK, Window: 100}))
				if p := r.punted(flow.Segment); p.Flow != id || len(p.Frame) == 0 {
					t.Fatalf("segment %d: punted %+v, want flow %d", i, p, id)
				}
			}
			r.none()
		})
	}
}

func TestConnectionIsTakenBackFromItsOwnerOnly(t *testing.T) {
	p := newRig(t).peer(client4, 5)
	p.transfer(1)
	for name, try := range map[string]struct {
		inc   wire.Incarnation
		owner flow.OwnerID
	}{
		"of another owner": {p.inc(), 2},
		"of an older life": {wire.Incarnation{Tuple: p.inc().Tuple, IRS: 1, ISS: 2}, 1},
	} {
		p.must(p.Adopt(0, try.inc, try.owner))
		p.Poll()
		if got := p.punted(flow.Adopted); got.Flow != 0 {
			t.Errorf("%s: flow %d, want none", name, got.Flow)
		}
	}
	p.send(4, wire.ACK, "x")
	p.one() // still goes to its owner
	p.must(p.Adopt(0, p.inc(), 1))
	p.Poll()
	id := p.punted(flow.Adopted).Flow
	p.send(5, wire.ACK, "y")
	if got := p.punted(flow.Segment); id == 0 || got.Flow != id {
		t.Errorf("punted of flow %d, want %d", got.Flow, id)
	}
	p.must(p.Switch(id, 2)) // and on it goes
	p.Poll()
	p.punted(flow.Switched)
	if e := p.Snapshot(); len(e) != 1 || e[0].Owner != 2 || e[0].State != TargetOwned {
		t.Errorf("snapshot %+v, want owner 2", e)
	}
}

func TestStrangersOfAnAdoptingServiceGetNothing(t *testing.T) {
	r := newAdopter(t)
	owned := wire.Tuple{Client: client4, Service: service4}
	stranger := wire.Tuple{Client: clientPort(9), Service: service4}
	r.adopt(owned)
	for name, frame := range map[string][]byte{
		"SYN":          r.segmentFrom(stranger, wire.Segment{Seq: 1, Flags: wire.SYN, Window: 100}),
		"SYN of owned": r.segmentFrom(owned, wire.Segment{Seq: 1, Flags: wire.SYN, Window: 100}),
		"ACK":          r.segmentFrom(stranger, wire.Segment{Seq: 1, Ack: 2, Flags: wire.ACK, Window: 100}),
		"RST":          r.segmentFrom(stranger, wire.Segment{Seq: 1, Flags: wire.RST}),
	} {
		before := r.count("drops", "no_flow")
		r.put(frame)
		if p := r.punts(); len(p) != 0 {
			t.Errorf("%s: punts %v", name, kinds(p))
		}
		if n := r.count("drops", "no_flow") - before; n != 1 {
			t.Errorf("%s: %d dropped as of no flow, want 1", name, n)
		}
	}
	who := wire.ARP{Op: wire.ARPRequest, SenderMAC: clientMAC, SenderIP: client4.Addr(), TargetIP: service4.Addr()}
	r.put(wire.AppendARP(nil, who))
	r.none()
	who.TargetIP = portAddr.Addr()
	r.put(wire.AppendARP(nil, who))
	if n := len(r.out()); n != 1 {
		t.Errorf("%d answers to ARP for the port's own address, want 1", n)
	}
}

func TestAdoptedFlowsMakeWay(t *testing.T) {
	r := newAdopter(t)
	tuple := wire.Tuple{Client: client4, Service: service4}
	old := r.adopt(tuple)
	r.must(r.Adopt(0, wire.Incarnation{Tuple: tuple, IRS: 30, ISS: 40}, flow.Router))
	r.Poll()
	p := r.punts()
	if len(p) != 2 || p[0].Kind != flow.Gone || p[0].Flow != old || p[1].Kind != flow.Adopted || p[1].Flow == old {
		t.Fatalf("punts %+v, want the old flow gone and a new one", p)
	}
	r.must(r.CloseFlow(p[1].Flow))
	r.Poll()
	r.put(r.segmentFrom(tuple, wire.Segment{Seq: 31, Ack: 41, Flags: wire.ACK, Window: 100}))
	if n := len(r.punts()); n != 0 || r.Flows() != 0 {
		t.Errorf("%d punts and %d flows after the end", n, r.Flows())
	}
}

func TestAdoptedFlowsDoNotAge(t *testing.T) {
	r := newAdopter(t)
	r.adopt(wire.Tuple{Client: client4, Service: service4})
	for range 100 {
		r.advance(time.Hour)
	}
	if r.Flows() != 1 || len(r.punts()) != 0 {
		t.Errorf("%d flows after 100 hours, want 1", r.Flows())
	}
}

func TestAdoptionSaysWhenThereIsNoRoom(t *testing.T) {
	r := newAdopter(t, oneLoop, func(c *Config) { c.RouterFlows = 1 })
	if id := r.adopt(wire.Tuple{Client: client4, Service: service4}); id == 0 {
		t.Error("no room for the first flow")
	}
	if id := r.adopt(wire.Tuple{Client: clientPort(2), Service: service4}); id != 0 {
		t.Errorf("flow %d, where only one may be", id)
	}
	elsewhere := netip.AddrPortFrom(service4.Addr(), 81)
	if id := r.adopt(wire.Tuple{Client: clientPort(3), Service: elsewhere}); id != 0 {
		t.Errorf("flow %d of a service that is not there", id)
	}
}
