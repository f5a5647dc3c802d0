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
	// added flows are what one sample of insertions adds to a table.
	added = 100_000
	burst = 32
	// tunnelMTU is ample for the frames of the source.
	tunnelMTU = 1500
)

// way is how clients and target are reached.
type way struct {
	name    string
	service uint32 // index into services: the clients' family
	tunnel  uint8  // to the target
}

// The ways, and what they are called in results.
var (
	ipv4L2  = way{"ipv4-l2", 0, cgo.TunnelNone}
	ipv4GUE = way{"ipv4-gue", 0, cgo.TunnelGUE}
	ipv6L2  = way{"ipv6-l2", 1, cgo.TunnelNone}
)

// services are what clients connect to: 10.77.0.10:80 and [2001:db8::10]:80.
var services = []cgo.Service{
	{Addr: cgo.IP{Lo: 0xffff_0a4d_000a}, Port: 80, ID: 1, OwnMSS: 1460, Scale: 7, Window: 65536},
	{Addr: cgo.IP{Hi: 0x2001_0db8 << 32, Lo: 0x10}, Port: 80, ID: 2, OwnMSS: 1440, Scale: 7, Window: 65536},
}

// rig is one forwarder for each lcore on a source, with a table of so many flows together, and with DPDK an rte_hash of
// the same flows if there is one lcore.
type rig struct {
	shards *cgo.Shards
	way    way
	flows  uint64 // in all tables
}

func newRig(w way, flows uint64, lcores int) (*rig, error) {
	entries := flows + flows/10 + spare*uint64(lcores)
	config := cgo.Config{Secret: [32]byte{1, 2, 3}, IPv4Entries: uint64(lcores), IPv6Entries: uint64(lcores),
		RouterFlows: routerFlows, HeldPackets: 1, RouterIdleMS: 60000, LingerMS: 2000, PortCount: 1, Seed: 42}
	if w.service == ipv6L2.service {
		config.IPv6Entries = entries
	} else {
		config.IPv4Entries = entries
	}
	shards, err := cgo.OpenShards(&config, services, lcores)
	if err != nil {
		return nil, fmt.Errorf("open forwarders of %d flows: %w", flows, err)
	}
	r := &rig{shards, w, flows}
	if err := r.prepare(entries); err != nil {
		shards.Close()
		return nil, err
	}
	return r, nil
}

func (r *rig) prepare(entries uint64) error {
	rival := entries
	if len(r.shards.All) > 1 {
		rival = 0
	}
	if cgo.HasDPDK {
		if err := cgo.OpenRival(rival, []int{1, 3}[r.way.service]); err != nil {
			return fmt.Errorf("make an rte_hash of %d flows: %w", entries, err)
		}
	}
	for _, f := range r.shards.All {
		open := f.OpenMemorySource
		if cgo.HasDPDK {
			open = func() error { return f.OpenDPDKSource(sink) }
		}
		if err := open(); err != nil {
			return fmt.Errorf("open the source: %w", err)
		}
		if err := f.FillTable(r.way.service, 0, r.perShard(), owner); err != nil {
			return err
		}
	}
	return r.reach(r.way)
}

// perShard is how many flows each table has.
func (r *rig) perShard() uint64 { return r.flows / uint64(len(r.shards.All)) }

// reach sets the way to the target.
func (r *rig) reach(w way) error {
	r.way = w
	c := cgo.Command{Kind: cgo.SetOwner, Owner: owner, MAC: [6]byte{2, 0, 0, 0, 0, 9}, Tunnel: w.tunnel}
	if w.tunnel != cgo.TunnelNone { // 10.77.0.1 to 10.77.1.9
		c.MTU = tunnelMTU
		c.Tuple = cgo.Tuple{Client: cgo.IP{Lo: 0xffff_0a4d_0109}, Service: cgo.IP{Lo: 0xffff_0a4d_0001}}
	}
	for _, f := range r.shards.All {
		if err := f.Send(&c, nil); err != nil {
			return fmt.Errorf("set the owner: %w", err)
		}
	}
	return nil
}

// send says what frames come next.
func (r *rig) send(kind cgo.SourceKind) {
	for _, f := range r.shards.All {
		f.SetSource(kind, r.way.service, r.perShard())
	}
}

// measure returns the time of a frame in ns, source and sink included: the mean over the lcores.
func (r *rig) measure(what cgo.Measurement, frames uint64) float64 {
	if cgo.HasDPDK {
		return cgo.MeasureOnLcores(r.shards.All, what, frames)
	}
	return r.shards.All[0].Measure(what, frames)
}

// insert returns the time of adding one flow to the bare table, in ns: of at least as many as added, a tenth of the table
// at most at a time.
func (r *rig) insert(rival bool) float64 {
	n := min(r.flows/10, added) / burst * burst
	times := (added + n - 1) / n
	var sum float64
	for range times {
		sum += r.shards.All[0].MeasureInsert(r.way.service, r.flows, r.flows+n, rival)
	}
	return sum / float64(times)
}

// lines returns the time of one random line of the table.
func (r *rig) lines(n uint64) float64 { return r.shards.All[0].MeasureLines(n) }

// tableMB is what the CRT takes.
func (r *rig) tableMB() float64 {
	return float64(r.shards.All[0].Table(r.way.service == ipv6L2.service).Bytes()) / (1 << 20)
}
