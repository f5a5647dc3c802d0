package userstack

import (
	"sync"
	"testing"
	"time"

	"baton/fastpath"
	"baton/fastpath/flow"
	"baton/fastpath/wire"
)

// The forwarder is the stack's data plane.
var _ Dataplane = (*fastpath.Forwarder)(nil)

// cable is the far end of a link whose near end is a forwarder's in-memory port.
type cable struct {
	*plane
	forwarder *fastpath.Forwarder
	mu        sync.Mutex // Inject is for one goroutine at a time
}

// newCable starts a forwarder and carries what its port sends to the cable's plane.
func newCable(t *testing.T) *cable {
	t.Helper()
	f, err := fastpath.Open(fastpath.Config{
		Ports:      []fastpath.PortConfig{{Device: "mem0", Address: targetAt}},
		Services:   []fastpath.Service{{ID: 1, Addr: service, Adopts: true}},
		RouterIdle: -1, IPv4Entries: 1000, IPv6Entries: 1000, RouterFlows: 1000,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Start(); err != nil {
		t.Fatal(err)
	}
	c := &cable{forwarder: f}
	_, c.plane = newLink()
	c.peer = nil // replaced by the forwarder
	var carrying sync.WaitGroup
	stop := make(chan struct{})
	carrying.Go(func() { c.carry(stop) })
	t.Cleanup(func() {
		close(stop)
		carrying.Wait()
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// carry takes frames from the forwarder's port.
func (c *cable) carry(stop chan struct{}) {
	for {
		frame, ok := c.forwarder.Collect(0, nil)
		if ok {
			c.take(frame)
			continue
		}
		select {
		case <-stop:
			return
		case <-time.After(20 * time.Microsecond):
		}
	}
}

func (c *cable) take(frame []byte) {
	if q, err := wire.ParseARP(frame); err == nil {
		switch {
		case q.Op == wire.ARPReply:
			c.punt(flow.Punt{Kind: flow.Neighbour, Addr: q.SenderIP, MAC: q.SenderMAC})
		case q.TargetIP == client.Addr():
			_ = c.Transmit(0, wire.AppendARP(nil, wire.ARP{Op: wire.ARPReply, SenderMAC: c.mac, SenderIP: q.TargetIP,
				TargetMAC: q.SenderMAC, TargetIP: q.SenderIP})) // lost where the network would
		}
		return
	}
	c.arrive(frame)
}

// Transmit gives a frame to the forwarder's port. The client asks for the service's address, which nobody but a routing
// host answers for: here the cable does, with the port's MAC.
func (c *cable) Transmit(_ uint16, frame []byte) error {
	if q, err := wire.ParseARP(frame); err == nil && q.TargetIP == service.Addr() {
		mac, _ := c.forwarder.Port(0)
		c.punt(flow.Punt{Kind: flow.Neighbour, Addr: q.TargetIP, MAC: mac})
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.forwarder.Inject(0, frame)
}

// The stack over the forwarder, with the octets of a connection that was handed over to it.
func TestStackOnTheForwarder(t *testing.T) {
	c := newCable(t)
	w := &world{}
	w.server, w.peer = startStack(t, c.forwarder, web), startStack(t, c, peerJob)
	var err error
	if w.accepted, err = w.server.Listen(web); err != nil {
		t.Fatal(err)
	}
	if w.dialled, err = w.peer.Listen(peerJob); err != nil {
		t.Fatal(err)
	}
	server, peer := w.connect(t, "")
	both(t, server, peer, 4<<20)
	w.server.ended(t)
	for deadline := time.Now().Add(patience); c.forwarder.Flows() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d flows are left", c.forwarder.Flows())
		}
	}
	for _, counter := range c.forwarder.Counters() {
		if counter.Group == "drops" && counter.Name == "l4_checksum" && counter.Value > 0 {
			t.Errorf("%d frames with bad checksums", counter.Value)
		}
	}
}
