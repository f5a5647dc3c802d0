package main

import (
	"fmt"

	"baton/cgo"
)

const (
	owner       = 1 // of all flows
	sink        = "net_null0"
	routerFlows = 1 << 16
	// spare entries are for connections that begin while others are: as many as come between two looks at the punts.
	spare = 1 << 12
	// added flows are what MeasureInsert adds to a table at most.
	added = 100_000
	burst = 32
)

// service is what all clients connect to: 10.77.0.10:80.
var service = cgo.Service{Addr: cgo.IP{Lo: 0xffff_0a4d_000a}, Port: 80, ID: 1, OwnMSS: 1460, Scale: 7, Window: 65536}

// rig is a forwarder on a source, with a table of so many flows, and with DPDK an rte_hash of the same flows.
type rig struct {
	*cgo.Forwarder
	flows uint64
}

func newRig(flows uint64) (*rig, error) {
	entries := flows + flows/10 + spare
	f, err := cgo.Open(&cgo.Config{Secret: [32]byte{1, 2, 3}, IPv4Entries: entries, IPv6Entries: 1,
		RouterFlows: routerFlows, HeldPackets: 1, RouterIdleMS: 60000, LingerMS: 2000, PortCount: 1, Seed: 42},
		[]cgo.Service{service})
	if err != nil {
		return nil, fmt.Errorf("open a forwarder of %d flows: %w", flows, err)
	}
	r := &rig{f, flows}
	if err := r.prepare(entries); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func (r *rig) prepare(entries uint64) error {
	open := r.OpenMemorySource
	if cgo.HasDPDK {
		open = func() error { return r.OpenDPDKSource(sink) }
		if err := cgo.OpenRival(entries, 1); err != nil {
			return fmt.Errorf("make an rte_hash of %d flows: %w", entries, err)
		}
	}
	if err := open(); err != nil {
		return fmt.Errorf("open the source: %w", err)
	}
	if err := r.Send(&cgo.Command{Kind: cgo.SetOwner, Owner: owner, MAC: [6]byte{2, 0, 0, 0, 0, 9}}, nil); err != nil {
		return fmt.Errorf("set the owner: %w", err)
	}
	return r.FillTable(0, 0, r.flows, owner)
}

// measure returns the time of a frame in ns, source and sink included.
func (r *rig) measure(what cgo.Measurement, frames uint64) float64 {
	if cgo.HasDPDK {
		return r.MeasureOnLcore(what, frames)
	}
	return r.Measure(what, frames)
}

// insert returns the time of adding one flow to the bare table, in ns.
func (r *rig) insert(rival bool) float64 {
	return r.MeasureInsert(0, r.flows, r.flows+min(r.flows/10, added)/burst*burst, rival)
}

// tableMB is what the CRT takes.
func (r *rig) tableMB() float64 { return float64(r.Table(false).Buckets()) * 64 / (1 << 20) }
