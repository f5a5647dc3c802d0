package fastpath

import (
	"bytes"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"baton/fastpath/flow"
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// picking is a rig whose services are distributed that way, with targets 1 and 2.
type picking struct {
	*rig
	distribution flow.Distribution
}

func newPicking(t *testing.T, d flow.Distribution, change ...func(*Config)) *picking {
	t.Helper()
	conventional := func(c *Config) {
		for i := range c.Services {
			c.Services[i] = Service{ID: c.Services[i].ID, Addr: c.Services[i].Addr, Distribution: d}
		}
	}
	k := &picking{newRig(t, append(change, conventional)...), d}
	k.targets(flow.Candidate{Owner: 1, Weight: 1}, flow.Candidate{Owner: 2, Weight: 1})
	return k
}

// targets publishes targets for both services; with Maglev unknown flows are recovered.
func (k *picking) targets(c ...flow.Candidate) {
	k.t.Helper()
	set := flow.Targets{Candidates: c}
	if k.distribution == flow.Maglev {
		set.Recovers = true
		set.Table = k.table(c)
	}
	for _, s := range []netip.AddrPort{service4, service6} {
		k.must(k.SetTargets(s, set))
	}
	k.Poll()
}

// table is one that the candidates share, as good as any: who makes real ones is of no concern here.
func (k *picking) table(candidates []flow.Candidate) []flow.OwnerID {
	if len(candidates) == 0 {
		return nil
	}
	table := make([]flow.OwnerID, 1009)
	for i := range table {
		table[i] = candidates[i%len(candidates)].Owner
	}
	return table
}

// to returns whose frame the port sent, which must be the only one and the same but for its MAC addresses.
func (k *picking) to(frame []byte) flow.OwnerID {
	k.t.Helper()
	out := k.out()
	if len(out) != 1 || !bytes.Equal(out[0][12:], frame[12:]) {
		k.t.Fatalf("sent %x, want the client's frame", out)
	}
	owner := slices.IndexFunc(targetMACs, func(m wire.MAC) bool { return bytes.Equal(m[:], out[0][:6]) })
	if owner < 1 || !bytes.Equal(out[0][6:12], k.mac[:]) {
		k.t.Fatalf("sent from %x to %x", out[0][6:12], out[0][:6])
	}
	return flow.OwnerID(owner)
}

func (k *picking) nth(i int) *peer {
	return k.peer(netip.AddrPortFrom(client4.Addr(), uint16(1000+i)), seq.Value(100*i))
}

func (k *picking) give(frame []byte) flow.OwnerID {
	k.t.Helper()
	k.put(frame)
	return k.to(frame)
}

// syn sends a SYN and returns who got it.
func (k *picking) syn(p *peer) flow.OwnerID {
	k.t.Helper()
	return k.give(p.syn())
}

// open opens a connection and returns whose it is.
func (k *picking) open(p *peer) flow.OwnerID {
	k.t.Helper()
	owner := k.syn(p)
	if second := k.give(p.frame(p.segment(0, wire.ACK, "x"))); second != owner {
		k.t.Fatalf("SYN to %d, data to %d", owner, second)
	}
	return owner
}

// sequence is who gets the SYNs of so many clients.
func (k *picking) sequence(first, n int) (owners []flow.OwnerID) {
	k.t.Helper()
	for i := range n {
		owners = append(owners, k.syn(k.nth(first+i)))
	}
	return owners
}

func (k *picking) wantConnections(want map[flow.OwnerID]int) {
	k.t.Helper()
	if got := k.Connections(service4); !maps.Equal(got, want) {
		k.t.Errorf("connections %v, want %v", got, want)
	}
}

func TestConventionalConnectionIsItsTargetsFromTheSYN(t *testing.T) {
	for _, client := range []netip.AddrPort{client4, client6} {
		k := newPicking(t, flow.RoundRobin)
		p := k.peer(client, 5)
		owner := k.open(p)
		entries := k.Snapshot()
		if len(entries) != 1 || entries[0].Owner != owner || entries[0].State != TargetOwned ||
			entries[0].Tuple != (wire.Tuple{Client: client, Service: p.service}) {
			t.Errorf("entries %+v, want the client's of %d", entries, owner)
		}
		if got := k.Connections(p.service); !maps.Equal(got, map[flow.OwnerID]int{owner: 1}) {
			t.Errorf("connections %v", got)
		}
		k.wantCount("packets", "picked", 1)
		k.wantCount("handshakes", "answered", 0)
		k.wantKinds()
	}
}

func TestDistributions(t *testing.T) {
	one := []flow.Candidate{{Owner: 1, Weight: 1}, {Owner: 2, Weight: 1}}
	weights := []flow.Candidate{{Owner: 1, Weight: 3}, {Owner: 2, Weight: 1}}
	tests := []struct {
		name       string
		how        flow.Distribution
		candidates []flow.Candidate
		want       []flow.OwnerID
	}{
		{"round robin", flow.RoundRobin, one, []flow.OwnerID{1, 2, 1, 2, 1}},
		{"round robin takes no heed of weights", flow.RoundRobin, weights, []flow.OwnerID{1, 2, 1, 2, 1}},
		{"weighted, interleaved", flow.Weighted, weights, []flow.OwnerID{1, 1, 2, 1, 1, 1, 2, 1}},
		{"weighted with equal weights", flow.Weighted, one, []flow.OwnerID{1, 2, 1, 2}},
		{"fewest connections", flow.LeastConn, one, []flow.OwnerID{1, 2, 1, 2}},
		{"fewest connections for the weight", flow.LeastConn, weights, []flow.OwnerID{1, 1, 2, 1, 1, 1, 2, 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := newPicking(t, tt.how, oneLoop) // each of several has turns of its own
			k.targets(tt.candidates...)
			if got := k.sequence(0, len(tt.want)); !slices.Equal(got, tt.want) {
				t.Errorf("connections go to %v, want %v", got, tt.want)
			}
		})
	}
}

// TestRoundRobinGoesOnWhenTargetsChange does not begin again with the first: sets may change all the time.
func TestRoundRobinGoesOnWhenTargetsChange(t *testing.T) {
	k := newPicking(t, flow.RoundRobin, oneLoop)
	for want := range 6 {
		k.targets(flow.Candidate{Owner: 1, Weight: 1}, flow.Candidate{Owner: 2, Weight: 1})
		if got := k.syn(k.nth(want)); got != flow.OwnerID(want%2+1) {
			t.Fatalf("connection %d goes to %d", want, got)
		}
	}
}

func TestLeastConnFollowsTheEnds(t *testing.T) {
	k := newPicking(t, flow.LeastConn, oneLoop)
	k.targets(flow.Candidate{Owner: 1, Weight: 1})
	for i := range 4 {
		k.open(k.nth(i))
	}
	k.targets(flow.Candidate{Owner: 1, Weight: 1}, flow.Candidate{Owner: 2, Weight: 1})
	if got := k.sequence(10, 3); !slices.Equal(got, []flow.OwnerID{2, 2, 2}) {
		t.Errorf("beside a busy target connections go to %v", got)
	}
	k.wantConnections(map[flow.OwnerID]int{1: 4, 2: 3})
	for i, flags := range []wire.Flags{wire.FIN | wire.ACK, wire.RST, wire.FIN | wire.ACK} {
		p := k.nth(i)
		k.give(p.frame(p.segment(1, flags, "")))
		k.give(p.frame(p.segment(1, wire.FIN|wire.ACK, ""))) // repeated: counts once
	}
	k.wantConnections(map[flow.OwnerID]int{1: 1, 2: 3})
	if got := k.sequence(20, 2); !slices.Equal(got, []flow.OwnerID{1, 1}) {
		t.Errorf("after the ends connections go to %v", got)
	}
}

// TestConventionalFlowStays holds for all targets: one that takes no more connections keeps those that it has.
func TestConventionalFlowStays(t *testing.T) {
	for _, d := range []flow.Distribution{flow.RoundRobin, flow.Weighted, flow.LeastConn, flow.Maglev} {
		t.Run(d.String(), func(t *testing.T) {
			k := newPicking(t, d)
			p := k.nth(0)
			owner := k.open(p)
			k.targets(flow.Candidate{Owner: 3 - owner, Weight: 1})
			for _, s := range []wire.Segment{p.segment(1, wire.ACK, "y"), p.segment(2, wire.ACK|wire.FIN, ""),
				p.segment(3, wire.ACK, "")} {
				if got := k.give(p.frame(s)); got != owner {
					t.Errorf("%v goes to %d, the connection is %d's", s.Flags, got, owner)
				}
			}
			if got := k.syn(k.nth(1)); got == owner {
				t.Errorf("a new connection goes to %d", got)
			}
			k.targets()
			if got := k.give(p.frame(p.segment(3, wire.ACK, ""))); got != owner {
				t.Errorf("without targets the segment goes to %d", got)
			}
		})
	}
}

func TestSYNOfAKnownTuple(t *testing.T) {
	other := flow.Candidate{Owner: 2, Weight: 1}
	tests := []struct {
		name string
		do   func(*picking, *peer) // after the SYN went to target 1, which is not in the set any more
		isn  seq.Value             // of the second SYN
		want flow.OwnerID
	}{
		{"repeated, the target takes no more", func(*picking, *peer) {}, 5, 2},
		{"another, of a client that gave up", func(*picking, *peer) {}, 6, 2},
		{"repeated, the target takes connections again", func(k *picking, _ *peer) {
			k.targets(flow.Candidate{Owner: 1, Weight: 1}, other)
		}, 5, 1},
		{"forged, the connection lives", func(k *picking, p *peer) { k.give(p.frame(p.segment(0, wire.ACK, ""))) }, 6, 1},
		{"late, of the connection that lives", func(k *picking, p *peer) {
			k.give(p.frame(p.segment(0, wire.ACK, "")))
		}, 5, 1},
		{"another, the client ended the old one", func(k *picking, p *peer) {
			k.give(p.frame(p.segment(0, wire.ACK|wire.FIN, "")))
		}, 6, 2},
		{"another, the client refused the old one", func(k *picking, p *peer) {
			k.give(p.frame(p.segment(0, wire.RST, "")))
		}, 6, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := newPicking(t, flow.RoundRobin)
			p := k.peer(client4, 5)
			if owner := k.syn(p); owner != 1 {
				t.Fatalf("first connection goes to %d", owner)
			}
			k.targets(other)
			tt.do(k, p)
			if got := k.syn(k.peer(client4, tt.isn)); got != tt.want {
				t.Errorf("goes to %d, want %d", got, tt.want)
			}
			if n := len(k.Snapshot()); n != 1 {
				t.Errorf("%d entries, want 1", n)
			}
			k.wantConnections(map[flow.OwnerID]int{tt.want: 1})
		})
	}
}

func TestUnknownSegmentOfAConventionalService(t *testing.T) {
	for _, d := range []flow.Distribution{flow.RoundRobin, flow.Weighted, flow.LeastConn} {
		k := newPicking(t, d)
		p := k.nth(0)
		for _, flags := range []wire.Flags{wire.ACK, wire.ACK | wire.FIN, wire.RST, 0} {
			k.put(p.frame(p.segment(9, flags, "")))
		}
		k.none()
		k.wantKinds() // no target knows more of it than the forwarder
		k.wantCount("drops", "no_flow", 4)
	}
}

// TestMaglevSurvivesALostTable opens connections and then asks a forwarder that has never seen them.
func TestMaglevSurvivesALostTable(t *testing.T) {
	const n = 50
	before, after := newPicking(t, flow.Maglev), newPicking(t, flow.Maglev)
	both := map[flow.OwnerID]int{}
	for i := range n {
		p := before.nth(i)
		owner := before.open(p)
		both[owner]++
		if got := after.give(p.frame(p.segment(1, wire.ACK, "more"))); got != owner {
			t.Fatalf("connection %d was %d's and is %d's", i, owner, got)
		}
	}
	if both[1] < n/4 || both[2] < n/4 {
		t.Errorf("%v of %d connections", both, n)
	}
	after.wantCount("packets", "recovered", n)
	after.wantConnections(both)
	p := after.nth(0)
	owner := after.give(p.frame(p.segment(1, wire.ACK, "more")))
	after.targets(flow.Candidate{Owner: 3 - owner, Weight: 1})
	if got := after.give(p.frame(p.segment(1, wire.ACK, "more"))); got != owner {
		t.Errorf("recovered by %d, then forwarded to %d", owner, got)
	}
	after.wantCount("packets", "recovered", n)
}

func TestLastSegmentsMakeNoEntry(t *testing.T) {
	k := newPicking(t, flow.Maglev)
	p := k.nth(0)
	for _, flags := range []wire.Flags{wire.ACK | wire.FIN, wire.RST} {
		k.give(p.frame(p.segment(1, flags, "")))
	}
	if n := len(k.Snapshot()); n != 0 {
		t.Errorf("%d entries, want none", n)
	}
	k.wantConnections(map[flow.OwnerID]int{})
}

// TestMaglevRecoversNothingAtFirst keeps flows from going astray while not all targets are known.
func TestMaglevRecoversNothingAtFirst(t *testing.T) {
	k := newPicking(t, flow.Maglev)
	c := []flow.Candidate{{Owner: 1, Weight: 1}}
	k.must(k.SetTargets(service4, flow.Targets{Candidates: c, Table: k.table(c)}))
	k.Poll()
	p := k.nth(0)
	k.put(p.frame(p.segment(1, wire.ACK, "more")))
	k.none()
	k.wantCount("drops", "no_flow", 1)
	if got := k.syn(k.nth(1)); got != 1 {
		t.Errorf("new connection goes to %d", got)
	}
}

func TestConventionalServiceWithoutTargets(t *testing.T) {
	for _, d := range []flow.Distribution{flow.RoundRobin, flow.Weighted, flow.LeastConn, flow.Maglev} {
		k := newPicking(t, d)
		k.targets()
		k.put(k.nth(0).syn())
		k.none()
		k.wantCount("drops", "no_target", 1)
		if n := len(k.Snapshot()); n != 0 {
			t.Errorf("%v: %d entries, want none", d, n)
		}
	}
}

func TestConventionalServiceWithAFullTable(t *testing.T) {
	few := func(c *Config) { c.IPv4Entries = 10 }
	k := newPicking(t, flow.RoundRobin, few, oneLoop)
	k.sequence(0, 10)
	k.put(k.nth(10).syn())
	k.none()
	k.wantCount("drops", "crt_full", 1)

	k = newPicking(t, flow.Maglev, few, oneLoop)
	k.sequence(0, 10)
	p := k.nth(10)
	k.open(p) // to one target, by the table alone
	k.wantCount("packets", "untracked", 2)
	if n := len(k.Snapshot()); n != 10 {
		t.Errorf("%d entries, want 10", n)
	}
}

func TestBadSegmentsOfAConventionalService(t *testing.T) {
	k := newPicking(t, flow.Maglev)
	p := k.nth(0)
	for _, flags := range []wire.Flags{wire.SYN | wire.ACK, wire.SYN | wire.FIN, wire.SYN | wire.RST} {
		k.put(p.frame(wire.Segment{Seq: 5, Flags: flags}))
	}
	for _, frame := range [][]byte{p.syn(), p.frame(p.segment(0, wire.ACK, "data"))} {
		frame[len(frame)-1] ^= 1
		k.put(frame)
	}
	k.none()
	k.wantCount("drops", "tcp_flags", 3)
	k.wantCount("drops", "l4_checksum", 2)
}

func TestImpossibleTargets(t *testing.T) {
	k := newPicking(t, flow.Maglev)
	one := []flow.Candidate{{Owner: 1, Weight: 1}}
	tests := map[string]flow.Targets{
		"no table":           {Candidates: one},
		"table without any":  {Table: []flow.OwnerID{1}},
		"router in table":    {Candidates: one, Table: []flow.OwnerID{flow.Router}},
		"router":             {Candidates: []flow.Candidate{{Owner: flow.Router, Weight: 1}}, Table: []flow.OwnerID{1}},
		"no weight":          {Candidates: []flow.Candidate{{Owner: 1}}, Table: []flow.OwnerID{1}},
		"out of order":       {Candidates: []flow.Candidate{{Owner: 2, Weight: 1}, {Owner: 1, Weight: 1}}, Table: []flow.OwnerID{1}},
		"no such owner":      {Candidates: []flow.Candidate{{Owner: flow.MaxOwners, Weight: 1}}, Table: []flow.OwnerID{1}},
		"no such in a table": {Candidates: one, Table: []flow.OwnerID{flow.MaxOwners}},
	}
	for name, set := range tests {
		if err := k.SetTargets(service4, set); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := k.SetTargets(client4, flow.Targets{}); !errors.Is(err, ErrNoService) {
		t.Errorf("targets of no service: %v", err)
	}
	content := newRig(t)
	if err := content.SetTargets(service4, flow.Targets{}); err == nil {
		t.Error("a content-routed service took targets")
	}
}

// TestManySetsOfTargets publishes more than the ring holds, and each is freed again (the address sanitizer looks).
func TestManySetsOfTargets(t *testing.T) {
	k := newPicking(t, flow.Maglev)
	candidates := []flow.Candidate{{Owner: 1, Weight: 1}, {Owner: 2, Weight: 1}}
	set := flow.Targets{Candidates: candidates, Table: k.table(candidates)}
	busy := false
	for range 20_000 {
		if err := k.SetTargets(service4, set); errors.Is(err, ErrBusy) {
			busy = true
			k.Poll()
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if !busy {
		t.Error("the ring never was full")
	}
	for range 300 {
		k.Poll()
	}
	k.syn(k.nth(0))
}
