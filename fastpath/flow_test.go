package fastpath

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"baton/fastpath/flow"
	"baton/fastpath/wire"
)

// payloads returns what the frames carry.
func payloads(_ *testing.T, frames []wire.Frame) (s []string) {
	for _, f := range frames {
		s = append(s, string(f.Segment.Payload))
	}
	return s
}

func equal(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestSwitchFlushesHeldFramesInOrderThenForwards(t *testing.T) {
	p := newRig(t).peer(client4, 5)
	id := p.open().Flow
	p.must(p.Freeze(id, flow.HoldBuffer))
	p.Poll()
	if f := p.punted(flow.Frozen); f.Flow != id {
		t.Errorf("frozen %+v", f)
	}
	p.send(4, wire.ACK, "a")
	p.send(5, wire.ACK, "b")
	p.wantKinds()
	p.none()
	if e := p.Snapshot(); len(e) != 1 || e[0].State != Frozen {
		t.Errorf("snapshot %+v", e)
	}

	p.must(p.Switch(id, 2))
	p.must(p.Inject(0, p.frame(p.segment(6, wire.ACK, "c")))) // in the same poll, behind the command
	p.Poll()
	sent := p.segments()
	if got := payloads(t, sent); !equal(got, []string{"a", "b", "c"}) {
		t.Errorf("forwarded %q", got)
	}
	for _, f := range sent {
		if f.Link != (wire.Link{Dst: targetMACs[2], Src: p.mac}) || f.Src != p.client || f.Dst != p.service {
			t.Errorf("forwarded by %v, %v -> %v", f.Link, f.Src, f.Dst)
		}
	}
	s := p.punted(flow.Switched)
	if s.Flow != id || s.Held != 2 || s.Inc != p.inc() {
		t.Errorf("switched %+v", s)
	}
	if e := p.Snapshot(); len(e) != 1 || e[0].State != TargetOwned || e[0].Owner != 2 || e[0].Tuple != p.inc().Tuple {
		t.Errorf("snapshot %+v", e)
	}
	if p.Flows() != 0 {
		t.Error("the router still owns it")
	}
}

func TestThawPuntsHeldFramesInOrder(t *testing.T) {
	p := newRig(t).peer(client4, 5)
	id := p.open().Flow
	p.must(p.Freeze(id, flow.HoldBuffer))
	p.Poll()
	p.send(4, wire.ACK, "a")
	p.send(5, wire.ACK, "b")
	p.must(p.Thaw(id))
	p.must(p.Inject(0, p.frame(p.segment(6, wire.ACK, "c"))))
	p.Poll()
	var got []string
	for _, punt := range p.wantKinds(flow.Frozen, flow.Segment, flow.Segment, flow.Segment)[1:] {
		f, err := wire.ParseTCP(punt.Frame)
		if err != nil || punt.Flow != id {
			t.Fatal(err, punt)
		}
		got = append(got, string(f.Segment.Payload))
	}
	if !equal(got, []string{"a", "b", "c"}) {
		t.Errorf("punted %q", got)
	}
}

func TestFreezeDiscards(t *testing.T) {
	p := newRig(t).peer(client4, 5)
	id := p.open().Flow
	p.must(p.Freeze(id, flow.HoldDiscard))
	p.Poll()
	p.send(4, wire.ACK, "a")
	p.wantCount("drops", "discarded", 1)
	p.must(p.Switch(id, 1))
	p.Poll()
	p.none()
	if s := p.wantKinds(flow.Frozen, flow.Switched)[1]; s.Held != 0 {
		t.Errorf("held %d", s.Held)
	}
}

func TestHoldIsBounded(t *testing.T) {
	p := newRig(t).peer(client4, 5)
	id := p.open().Flow
	p.must(p.Freeze(id, flow.HoldBuffer))
	p.Poll()
	for i := range 10 {
		p.send(4+i, wire.ACK, "x")
	}
	p.wantCount("drops", "hold_full", 2)
	p.wantCount("packets", "held", 8)
}

func TestFrozenFlowDoesNotExpire(t *testing.T) {
	p := newRig(t, func(c *Config) { c.RouterIdle = time.Second }).peer(client4, 5)
	id := p.open().Flow
	p.must(p.Freeze(id, flow.HoldBuffer))
	p.Poll()
	p.advance(5 * time.Second)
	p.wantKinds(flow.Frozen)
	p.must(p.Thaw(id))
	p.Poll()
	p.advance(5 * time.Second)
	p.wantKinds(flow.Gone)
}

func TestTransmitKeepsItsPlaceAmongCommands(t *testing.T) {
	p := newRig(t).peer(client4, 5)
	id := p.open().Flow
	p.must(p.Freeze(id, flow.HoldBuffer))
	p.Poll()
	p.send(4, wire.ACK, "held")
	ours := wire.AppendTCP(nil, wire.Link{Dst: clientMAC, Src: p.mac}, p.service, p.client, wire.Segment{Payload: []byte("before")})
	p.must(p.Transmit(0, ours))
	p.must(p.Switch(id, 1))
	p.must(p.Transmit(0, ours))
	p.Poll()
	if got := payloads(t, p.segments()); !equal(got, []string{"before", "held", "before"}) {
		t.Errorf("sent %q", got)
	}
	p.wantCount("packets", "transmitted", 2)
}

func TestFlowWithoutNexthopIsDropped(t *testing.T) {
	p := newRig(t).peer(client4, 5)
	p.transfer(3)
	p.send(4, wire.ACK, "x")
	p.none()
	p.wantCount("drops", "no_nexthop", 1)
	p.must(p.SetOwner(3, flow.Nexthop{MAC: targetMACs[1]}))
	p.send(4, wire.ACK, "x")
	p.one()
}

func TestDeadFlowIDsAreIgnored(t *testing.T) {
	p := newRig(t).peer(client4, 5)
	id := p.open().Flow
	p.must(p.CloseFlow(id))
	p.Poll()
	if len(p.Snapshot()) != 0 {
		t.Error("Close left the entry")
	}
	again := p.peer(client4, 99)
	id2 := again.open().Flow
	if id == id2 {
		t.Fatal("an ID was used twice")
	}
	for _, err := range []error{p.Freeze(id, flow.HoldBuffer), p.Thaw(id), p.Switch(id, 1), p.CloseFlow(id)} {
		p.must(err)
	}
	p.Poll()
	p.wantKinds()
	p.wantCount("commands", "stale", 4)
	again.send(4, wire.ACK, "x")
	p.punted(flow.Segment)
}

func TestSYNOnKnownTupleIsAnsweredAndHarmless(t *testing.T) {
	p := newRig(t).peer(client4, 5)
	p.transfer(1)
	blind := p.peer(client4, 12345)
	blind.connect() // somebody else sent it
	p.send(4, wire.ACK, "goes on")
	if f := p.one(); f.Link.Dst != targetMACs[1] {
		t.Errorf("forwarded to %v", f.Link.Dst)
	}
	p.send(0, wire.ACK|wire.PSH, "GET ") // the retransmitted first segment is of the same incarnation
	if f := p.one(); f.Link.Dst != targetMACs[1] {
		t.Errorf("forwarded to %v", f.Link.Dst)
	}
	p.wantKinds()
}

func TestAnsweredSYNIsForgottenWithItsCookie(t *testing.T) {
	const tick = 64 * time.Second
	tests := []struct {
		name  string
		after time.Duration // from the SYN to the segment with the cookie of another routing host
		want  []flow.Kind
	}{
		{"the same tick", 0, []flow.Kind{flow.First}},
		{"the next tick", tick, []flow.Kind{flow.First}},
		{"two ticks later", 2 * tick, nil},
		{"four ticks later", 4 * tick, nil}, // 3 ticks later it looks new where no packet came in between
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, elsewhere := newRig(t), newRig(t)
			old := r.peer(client4, 5)
			old.transfer(1)
			r.peer(client4, 700).connect()
			for passed := time.Duration(0); passed < tt.after; passed += tick / 2 {
				r.advance(tick / 2)
				old.send(4, wire.ACK, "goes on")
				old.one()
			}
			elsewhere.advance(tt.after)
			again := elsewhere.peer(client4, 900).connect()
			again.rig = r
			again.send(0, wire.ACK, "GET ")
			r.wantKinds(tt.want...)
		})
	}
}

func TestNewIncarnationReplaces(t *testing.T) {
	tests := []struct {
		name string
		old  func(*peer) // brings the old incarnation there
		want []flow.Kind
	}{
		{"a flow of a target", func(p *peer) { p.transfer(1) }, []flow.Kind{flow.First}},
		{"a flow of the router", func(p *peer) { p.open() }, []flow.Kind{flow.Gone, flow.First}},
		{"a flow that sent no data", func(p *peer) { p.connect().send(0, wire.ACK, "") }, []flow.Kind{flow.First}},
		{"a frozen flow", func(p *peer) {
			p.must(p.Freeze(p.open().Flow, flow.HoldBuffer))
			p.Poll()
			p.punted(flow.Frozen)
			p.send(4, wire.ACK, "held")
		}, []flow.Kind{flow.Gone, flow.First}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			old := newRig(t, func(c *Config) { c.RouterFlows = 1 }).peer(client4, 5)
			tt.old(old)
			young := old.peer(client4, 777).connect()
			young.send(0, wire.ACK, "GET ")
			punts := old.wantKinds(tt.want...)
			first := punts[len(punts)-1]
			if first.Inc != young.inc() {
				t.Errorf("new incarnation %+v, want %+v", first.Inc, young.inc())
			}
			if len(punts) == 2 && punts[0].Inc != old.inc() {
				t.Errorf("gone %+v, want %+v", punts[0].Inc, old.inc())
			}
			if e := old.Snapshot(); len(e) != 1 || e[0].State != RouterOwned {
				t.Errorf("snapshot %+v", e)
			}
			old.wantCount("handshakes", "reincarnated", 1)
		})
	}
}

func TestFirstSegmentOfOtherIncarnationNeedsASYN(t *testing.T) {
	p := newRig(t).peer(client4, 5).connect()
	q := p.peer(client4, 6).connect()
	q.send(0, wire.ACK, "GET ")
	q.punted(flow.First)
	p.send(0, wire.ACK, "old") // its SYN came before the entry
	p.punted(flow.Segment)
}

func TestEntryOfALateBareACKGivesWayToTheNewerIncarnation(t *testing.T) {
	old := newRig(t).peer(client4, 5).connect()
	young := old.peer(client4, 6).connect()
	old.send(0, wire.ACK, "") // late: the client has begun anew, and its SYN came before this entry
	young.send(0, wire.ACK, "GET ")
	if p := young.punted(flow.First); p.Inc != young.inc() {
		t.Errorf("incarnation %+v, want %+v", p.Inc, young.inc())
	}
	young.wantCount("handshakes", "reincarnated", 1)
}

func TestRemoveLingersAndMatchesTheIncarnation(t *testing.T) {
	p := newRig(t, func(c *Config) { c.Linger = time.Second }).peer(client4, 5)
	p.transfer(1)
	older := p.inc()
	older.ISS++
	p.must(p.Remove(older, 1))
	p.Poll()
	p.advance(2 * time.Second)
	if e := p.Snapshot(); len(e) != 1 || e[0].State != TargetOwned {
		t.Fatalf("an older end report changed %+v", e)
	}
	p.must(p.Remove(p.inc(), 2))
	p.Poll()
	p.advance(2 * time.Second)
	if e := p.Snapshot(); len(e) != 1 || e[0].State != TargetOwned {
		t.Fatalf("another host's end report changed %+v", e)
	}
	p.wantCount("commands", "stale", 2)

	p.must(p.Remove(p.inc(), 1))
	p.Poll()
	p.send(4, wire.ACK, "late")
	p.one()
	if e := p.Snapshot(); len(e) != 1 || e[0].State != Lingering {
		t.Errorf("snapshot %+v", e)
	}
	p.advance(time.Second)
	if e := p.Snapshot(); len(e) != 0 {
		t.Errorf("snapshot %+v", e)
	}
	p.send(4, wire.ACK, "later")
	p.none()
}

func TestNewIncarnationSurvivesTheLingerOfTheOld(t *testing.T) {
	p := newRig(t, func(c *Config) { c.Linger = time.Second }).peer(client4, 5)
	p.transfer(1)
	p.must(p.Remove(p.inc(), 1))
	p.Poll()
	q := p.peer(client4, 777)
	q.transfer(2)
	p.advance(2 * time.Second)
	if e := p.Snapshot(); len(e) != 1 || e[0].Owner != 2 || e[0].State != TargetOwned {
		t.Errorf("snapshot %+v", e)
	}
}

func TestEndIsReportedOnce(t *testing.T) {
	for _, flags := range []wire.Flags{wire.FIN | wire.ACK, wire.RST} {
		t.Run(flags.String(), func(t *testing.T) {
			p := newRig(t).peer(client4, 5)
			p.transfer(2)
			p.send(4, flags, "")
			p.one() // the target gets it
			if end := p.punted(flow.End); end.Owner != 2 || end.Inc.Tuple != p.inc().Tuple {
				t.Errorf("end %+v", end)
			}
			p.send(4, flags, "")
			p.one()
			p.wantKinds()
		})
	}
}

func TestHeldFINIsReportedBehindTheSwitch(t *testing.T) {
	p := newRig(t).peer(client4, 5)
	id := p.open().Flow
	p.must(p.Freeze(id, flow.HoldBuffer))
	p.Poll()
	p.send(4, wire.ACK|wire.FIN, "")
	p.must(p.Switch(id, 1))
	p.Poll()
	p.wantKinds(flow.Frozen, flow.Switched, flow.End)
	p.one()
}

func TestOrphansAreLimited(t *testing.T) {
	r := newRig(t, oneLoop)
	orphan := func(addr string) {
		p := r.peer(netip.MustParseAddrPort(addr), 5)
		r.put(p.frame(wire.Segment{Seq: 1, Ack: 1, Flags: wire.ACK}))
	}
	for range 20 {
		orphan("10.77.0.100:1")
	}
	if n := len(r.punts()); n != 8 {
		t.Errorf("%d orphans of one source in a second, want 8", n)
	}
	r.advance(time.Second)
	for i := range 250 {
		for port := range 5 {
			orphan(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 78, 0, byte(i)}), uint16(port+1)).String())
		}
	}
	if n := len(r.punts()); n != 256 {
		t.Errorf("%d orphans of all sources in a second, want 256", n)
	}
	r.wantCount("drops", "forged_cookie", 20+1250)
}

func TestResetOfNoFlowIsDroppedWithoutAnAnswer(t *testing.T) {
	p := newRig(t).peer(client4, 5).connect()
	p.send(0, wire.RST|wire.ACK, "")
	p.none()
	p.wantCount("drops", "no_flow", 1)
}

// TestTargetsFlowsAge lets time pass: flows with segments stay, the idle one goes, the ended one goes sooner, and those
// that their target has stay.
func TestTargetsFlowsAge(t *testing.T) {
	r := newRig(t, func(c *Config) { c.TargetIdle, c.EndedIdle = 20*time.Minute, 5*time.Minute })
	peers := map[string]*peer{}
	for i, name := range []string{"busy", "idle", "ended", "alive"} {
		p := r.peer(netip.AddrPortFrom(client4.Addr(), uint16(1000+i)), 5)
		p.transfer(1)
		peers[name] = p
	}
	peers["ended"].send(4, wire.ACK|wire.FIN, "")
	r.punted(flow.End)
	asked := map[netip.AddrPort]int{}
	left := func(d time.Duration) (n int) {
		for end := r.now.Add(d); r.now.Before(end); { // a poll each second sweeps the small table often enough
			r.advance(time.Second)
			peers["busy"].send(4, wire.ACK, "")
			for _, p := range r.punts() {
				if p.Kind != flow.Idle || p.Owner != 1 || p.Inc.Service != service4 {
					t.Fatalf("punt %+v", p)
				}
				asked[p.Inc.Client]++
				if p.Inc.Client == peers["alive"].client {
					r.must(r.Restore(peers["alive"].inc(), 1, 0, nil))
				}
			}
		}
		r.out()
		return len(r.Snapshot())
	}
	for _, want := range []struct {
		after time.Duration
		n     int
	}{
		{6 * time.Minute, 4}, {3 * time.Minute, 3}, {12 * time.Minute, 3}, {3 * time.Minute, 2}, {60 * time.Minute, 2},
	} {
		if n := left(want.after); n != want.n {
			t.Fatalf("%d entries after %v more, want %d", n, want.after, want.n)
		}
	}
	r.wantCount("table", "aged", 2)
	r.wantCount("table", "restored", 0)
	if a := asked[peers["alive"].client]; a < 3 || a > 4 || asked[peers["busy"].client] != 0 ||
		asked[peers["idle"].client] == 0 || asked[peers["ended"].client] == 0 {
		t.Errorf("asked %v", asked)
	}
}

// TestLostFlowComesBack removes an entry that its target still has, as a restart or ageing does, and gives it back.
func TestLostFlowComesBack(t *testing.T) {
	for _, client := range []netip.AddrPort{client4, client6} {
		p := newRig(t).peer(client, 5)
		p.connect()
		p.put(p.frame(p.segment(300, wire.ACK, "GET /2"))) // not the first: no valid cookie
		orphan := p.punted(flow.Orphan)
		p.none()
		p.must(p.Restore(p.inc(), 2, orphan.Port, orphan.Frame))
		p.Poll()
		if f := p.one(); f.Link.Dst != targetMACs[2] || string(f.Segment.Payload) != "GET /2" {
			t.Errorf("the segment goes to %v: %q", f.Link.Dst, f.Segment.Payload)
		}
		p.send(306, wire.ACK, "x")
		if f := p.one(); f.Link.Dst != targetMACs[2] {
			t.Errorf("the next one goes to %v", f.Link.Dst)
		}
		p.wantCount("table", "restored", 1)
		p.wantCount("packets", "forwarded", 2)
	}
}

// TestRestoreChangesNobodyElsesFlow gives the tuple of a flow that is not the target's, or another incarnation of it.
func TestRestoreChangesNobodyElsesFlow(t *testing.T) {
	unserved := netip.MustParseAddrPort("10.77.0.11:80")
	for name, flow := range map[string]func(p *peer) wire.Incarnation{
		"the router's":       func(p *peer) wire.Incarnation { p.open(); return p.inc() },
		"another target's":   func(p *peer) wire.Incarnation { p.transfer(1); return p.inc() },
		"a newer one":        func(p *peer) wire.Incarnation { p.transfer(2); i := p.inc(); i.IRS++; return i },
		"one that lingers":   func(p *peer) wire.Incarnation { p.transfer(2); p.must(p.Remove(p.inc(), 2)); return p.inc() },
		"of another service": func(p *peer) wire.Incarnation { i := p.inc(); i.Service = unserved; return i },
	} {
		t.Run(name, func(t *testing.T) {
			p := newRig(t).peer(client4, 5)
			inc := flow(p)
			p.Poll()
			before := p.Snapshot()
			p.must(p.Restore(inc, 2, 0, p.frame(p.segment(300, wire.ACK, "x"))))
			p.Poll()
			p.none()
			if after := p.Snapshot(); !slices.Equal(before, after) {
				t.Errorf("entries %v, were %v", after, before)
			}
			p.wantCount("commands", "stale", 1)
		})
	}
}

func TestFullTableRestoresWithinThePolicy(t *testing.T) {
	for _, evict := range []time.Duration{-1, time.Minute} {
		r := newRig(t, oneLoop, func(c *Config) { c.IPv4Entries, c.EvictIdle = 1, evict })
		r.peer(client4, 5).transfer(1)
		r.advance(2 * time.Minute)
		lost := wire.Incarnation{Tuple: wire.Tuple{Client: netip.MustParseAddrPort("10.77.0.100:1"), Service: service4}}
		r.must(r.Restore(lost, 1, 0, nil))
		r.Poll()
		if evict > 0 {
			r.wantCount("table", "evicted", 1)
			r.wantCount("table", "restored", 1)
		} else {
			r.wantCount("table", "not_restored", 1)
		}
		if n := len(r.Snapshot()); n != 1 {
			t.Errorf("%d entries", n)
		}
	}
}

func TestFullTables(t *testing.T) {
	client := func(i int) netip.AddrPort { return netip.AddrPortFrom(client4.Addr(), uint16(1000+i)) }
	t.Run("router flows", func(t *testing.T) {
		r := newRig(t, oneLoop, func(c *Config) { c.RouterFlows = 3 })
		for i := range 5 {
			r.peer(client(i), 5).connect().send(0, wire.ACK, "x")
		}
		r.wantCount("drops", "flow_table_full", 2)
		if n := len(r.punts()); n != 3 {
			t.Errorf("%d punts, want 3", n)
		}
	})
	t.Run("CRT of targets", func(t *testing.T) {
		r := newRig(t, oneLoop, func(c *Config) { c.IPv4Entries, c.EvictIdle = 10, time.Minute })
		for i := range 10 {
			r.peer(client(i), 5).transfer(1)
		}
		r.peer(client(10), 5).connect().send(0, wire.ACK, "x")
		r.wantCount("drops", "crt_full", 1)
		r.advance(time.Minute + 5*time.Second)
		r.peer(client(11), 5).open()
		r.wantCount("table", "evicted", 1)
		if n := len(r.Snapshot()); n != 10 {
			t.Errorf("%d entries, want 10", n)
		}
	})
	t.Run("CRT", func(t *testing.T) {
		r := newRig(t, oneLoop, func(c *Config) { c.IPv4Entries = 20 })
		for i := range 25 {
			r.peer(client(i), 5).connect().send(0, wire.ACK, "x")
		}
		r.wantCount("drops", "crt_full", 5)
		if r.Flows() != 20 {
			t.Errorf("%d flows, want 20", r.Flows())
		}
	})
	t.Run("punt ring", func(t *testing.T) {
		r := newRig(t)
		p := r.peer(client4, 5)
		id := p.open().Flow
		for r.count("drops", "ring_full") == 0 {
			p.send(4, wire.ACK, string(make([]byte, 1400)))
		}
		r.must(r.Freeze(id, flow.HoldBuffer))
		for range 100 { // the marker waits for room and comes behind everything
			r.Poll()
			if r.count("punts", "frozen") != 0 {
				break
			}
			r.Receive(r.free)
		}
		if punts := r.punts(); len(punts) == 0 || punts[len(punts)-1].Kind != flow.Frozen {
			t.Errorf("%d punts, the last is not the marker", len(punts))
		}
	})
	t.Run("tx", func(t *testing.T) {
		p := newRig(t).peer(client4, 5)
		p.transfer(1)
		big := string(make([]byte, 1400))
		for i := 0; p.count("drops", "tx_full") == 0; i++ {
			if i > 5000 {
				t.Fatal("the port never got full")
			}
			p.send(4, wire.ACK, big)
		}
		sent, forwarded := uint64(0), p.count("packets", "forwarded")
		for n := 1; n > 0; sent += uint64(n) {
			n = len(p.segments())
			p.Poll() // what was staged
		}
		if sent != forwarded {
			t.Errorf("%d sent, %d counted", sent, forwarded)
		}
	})
	t.Run("command ring", func(t *testing.T) {
		r := newRig(t)
		frame := make([]byte, 1500)
		var err error
		for range 2000 {
			if err = r.Transmit(0, frame); err != nil {
				break
			}
		}
		if !errors.Is(err, ErrBusy) {
			t.Errorf("error %v, want ErrBusy", err)
		}
	})
}

// fill transmits until the port takes no more; a command waits up to 20 ms for it.
func (r *rig) fill() {
	r.t.Helper()
	filler := make([]byte, 1400)
	copy(filler, r.mac[:])
	for given := r.count("commands", "done"); r.count("drops", "tx_full") == 0; r.advance(time.Millisecond) {
		if r.count("commands", "done") == given {
			r.must(r.Transmit(0, filler))
			given++
		}
	}
}

func TestSwitchWaitsForABusyPort(t *testing.T) {
	p := newRig(t, oneLoop).peer(client4, 5)
	id := p.open().Flow
	p.must(p.Freeze(id, flow.HoldBuffer))
	p.Poll()
	p.punted(flow.Frozen)
	for i := range 8 {
		p.send(4+i, wire.ACK, "x")
	}
	p.fill()
	p.must(p.Switch(id, 1))
	p.Poll()
	p.wantKinds()
	p.out()
	for range 10 {
		p.Poll()
	}
	var held int
	for _, frame := range p.out() {
		if f, err := wire.ParseTCP(frame); err == nil && string(f.Segment.Payload) == "x" {
			held++
		}
	}
	if s := p.punted(flow.Switched); s.Held != 8 || held != 8 {
		t.Errorf("held %d, of which %d were sent; want 8", s.Held, held)
	}
}

func TestSwitchOvertakenByANewIncarnationLeavesNothingToTheNext(t *testing.T) {
	r := newRig(t, oneLoop)
	old, other := r.peer(client4, 5), r.peer(netip.AddrPortFrom(client4.Addr(), 41000), 9)
	id, otherID := old.open().Flow, other.open().Flow
	r.must(r.Freeze(id, flow.HoldBuffer))
	r.Poll()
	r.punted(flow.Frozen)
	for i := range 8 {
		old.send(4+i, wire.ACK|wire.FIN, "x")
	}
	again := r.peer(client4, 500).connect()
	r.fill()
	for range 3 { // room for three of the held frames
		r.Collect(0, nil)
	}
	r.must(r.Switch(id, 1))
	r.Poll()
	r.wantCount("packets", "forwarded", 3)
	again.send(0, wire.ACK, "GET ")
	r.wantKinds(flow.Gone, flow.First)
	r.out()
	r.Poll()
	r.wantCount("commands", "stale", 1)

	r.must(r.Freeze(otherID, flow.HoldBuffer))
	r.must(r.Switch(otherID, 2))
	r.Poll()
	if p := r.wantKinds(flow.Frozen, flow.Switched); p[1].Held != 0 {
		t.Errorf("%d frames flushed, none was held", p[1].Held)
	}
}
