package fastpath

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"baton/fastpath/flow"
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

func TestSYNIsAnsweredWithWhatItOffered(t *testing.T) {
	all := wire.Options{MSS: 1460, Scale: 9, HasScale: true, SACKPermitted: true, HasTimestamps: true, TSVal: 77}
	with := func(change func(*wire.Options)) wire.Options {
		o := all
		change(&o)
		return o
	}
	tests := []struct {
		name    string
		client  netip.AddrPort
		options wire.Options
		isn     seq.Value
		mss     uint16 // of the client, as the cookie keeps it
	}{
		{"all options", client4, all, 1000, 1460},
		{"IPv6", client6, all, 1000, 1460},
		{"sequence number about to wrap", client4, all, 0xffffffff, 1460},
		{"sequence number at the sign", client4, all, 0x7fffffff, 1460},
		{"no timestamps", client4, with(func(o *wire.Options) { o.HasTimestamps = false }), 1, 1460},
		{"no SACK", client4, with(func(o *wire.Options) { o.SACKPermitted = false }), 1, 1460},
		{"no window scaling", client4, with(func(o *wire.Options) { o.HasScale = false }), 1, 1460},
		{"window scale 0", client4, with(func(o *wire.Options) { o.Scale = 0 }), 1, 1460},
		{"window scale 14", client4, with(func(o *wire.Options) { o.Scale = 14 }), 1, 1460},
		{"MSS between two of the table", client4, with(func(o *wire.Options) { o.MSS = 1400 }), 1, 1360},
		{"MSS below the table", client4, with(func(o *wire.Options) { o.MSS = 48 }), 1, 64},
		{"jumbo MSS", client4, with(func(o *wire.Options) { o.MSS = 9000 }), 1, 8940},
		{"no options", client4, wire.Options{}, 1, 536},
		{"no options over IPv6", client6, wire.Options{}, 1, 1220},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newRig(t).peer(tt.client, tt.isn)
			p.options = tt.options
			p.connect()
			checkSYNACK(t, p)

			p.send(0, wire.ACK|wire.PSH, "GET ")
			punt := p.punted(flow.First)
			want := wire.Handshake{MSS: tt.mss, OwnMSS: p.synAck.Options.MSS, Scaling: tt.options.HasScale,
				SACK: tt.options.SACKPermitted, Timestamps: tt.options.HasTimestamps}
			if want.Scaling {
				want.SndScale, want.RcvScale = tt.options.Scale, 7
			}
			if punt.Handshake != want {
				t.Errorf("handshake %+v, want %+v", punt.Handshake, want)
			}
			if punt.Inc != p.inc() {
				t.Errorf("incarnation %+v, want %+v", punt.Inc, p.inc())
			}
			if f, err := wire.ParseTCP(punt.Frame); err != nil || string(f.Segment.Payload) != "GET " {
				t.Errorf("punted frame %v, %v", f, err)
			}
			if punt.Handshake.Timestamps && uint32(epoch.UnixMilli())+punt.TSOffset != p.synAck.Options.TSVal {
				t.Error("TSOffset does not explain the SYN-ACK's TSval")
			}
		})
	}
}

func checkSYNACK(t *testing.T, p *peer) {
	t.Helper()
	s, offered := p.synAck, p.options
	if s.Flags != wire.SYN|wire.ACK || s.Ack != p.isn.Add(1) || s.Window != window || len(s.Payload) != 0 {
		t.Errorf("SYN-ACK %+v", s)
	}
	o := s.Options
	if o.HasScale != offered.HasScale || o.SACKPermitted != offered.SACKPermitted || o.HasTimestamps != offered.HasTimestamps {
		t.Errorf("options %+v, offered %+v", o, offered)
	}
	if o.HasScale && o.Scale != 7 || o.HasTimestamps && o.TSEcr != offered.TSVal {
		t.Errorf("options %+v", o)
	}
	if want := map[bool]uint16{true: 1460, false: 1440}[p.client.Addr().Is4()]; o.MSS != want {
		t.Errorf("MSS %d, want %d", o.MSS, want)
	}
}

func TestSYNDataIsNeverAcknowledged(t *testing.T) {
	p := newRig(t).peer(client4, 5)
	p.put(p.frame(wire.Segment{Seq: p.isn, Flags: wire.SYN, Options: p.options, Payload: []byte("early")}))
	if s := p.one().Segment; s.Ack != 6 {
		t.Errorf("acknowledged %d, want 6", s.Ack)
	}
	if p.Flows() != 0 {
		t.Error("a SYN made a flow")
	}
}

func TestECNIsDeclined(t *testing.T) {
	p := newRig(t).peer(client4, 5)
	p.put(p.frame(wire.Segment{Seq: p.isn, Flags: wire.SYN | wire.ECE | wire.CWR, Options: p.options}))
	if s := p.one().Segment; s.Flags != wire.SYN|wire.ACK {
		t.Errorf("flags %v", s.Flags)
	}
}

func TestImpossibleSYNsAreDropped(t *testing.T) {
	for _, flags := range []wire.Flags{wire.SYN | wire.FIN, wire.SYN | wire.RST, wire.SYN | wire.ACK} {
		t.Run(flags.String(), func(t *testing.T) {
			p := newRig(t).peer(client4, 5)
			p.put(p.frame(wire.Segment{Seq: 5, Flags: flags}))
			p.none()
			p.wantCount("drops", "tcp_flags", 1)
		})
	}
}

func TestCookieLivesForTwoTicks(t *testing.T) {
	// epoch is 64 s * 28125000 exactly: the beginning of a tick.
	tests := []struct {
		at, after time.Duration
		ok        bool
	}{
		{0, 0, true},
		{0, 63 * time.Second, true},
		{63 * time.Second, 2 * time.Second, true}, // the next tick
		{0, 127 * time.Second, true},              // the end of the next tick
		{0, 128 * time.Second, false},
		{63 * time.Second, 66 * time.Second, false},
	}
	for _, tt := range tests {
		for _, timestamps := range []bool{true, false} {
			t.Run(fmt.Sprintf("%v+%v,ts=%v", tt.at, tt.after, timestamps), func(t *testing.T) {
				p := newRig(t).peer(client4, 5)
				p.options.HasTimestamps = timestamps
				p.advance(tt.at)
				p.connect()
				p.advance(tt.after)
				p.send(0, wire.ACK, "x")
				if ok := p.count("handshakes", "accepted") == 1; ok != tt.ok {
					t.Errorf("accepted: %v, want %v", ok, tt.ok)
				}
			})
		}
	}
}

func TestForgedFirstSegmentMakesNoFlow(t *testing.T) {
	tests := []struct {
		name  string
		forge func(*wire.Segment)
	}{
		{"acknowledgement", func(s *wire.Segment) { s.Ack++ }},
		{"options in the acknowledgement", func(s *wire.Segment) { s.Ack ^= 2 }},
		{"sequence number", func(s *wire.Segment) { s.Seq++ }},
		{"timestamp from the future", func(s *wire.Segment) { s.Options.TSEcr++ }},
		{"timestamp too old", func(s *wire.Segment) { s.Options.TSEcr -= 129_000 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newRig(t).peer(client4, 5).connect()
			s := p.segment(0, wire.ACK, "GET ")
			tt.forge(&s)
			p.put(p.frame(s))
			p.none()
			p.wantCount("handshakes", "forged", 1)
			p.wantCount("drops", "forged_cookie", 1)
			if p.Flows() != 0 || len(p.Snapshot()) != 0 {
				t.Error("it made a flow")
			}
			if o := p.punted(flow.Orphan); o.Inc.Tuple != p.inc().Tuple || o.Inc.IRS != 0 {
				t.Errorf("orphan %+v", o)
			}
		})
	}
}

func TestCookiesOfTuplesAreUnrelated(t *testing.T) {
	r := newRig(t)
	seen := map[seq.Value]bool{}
	for i := range 200 {
		p := r.peer(netip.AddrPortFrom(client4.Addr(), uint16(1000+i)), 5).connect()
		if seen[p.iss] || seen[p.iss+1] || seen[p.iss-1] {
			t.Fatal("two tuples got neighbouring numbers")
		}
		seen[p.iss] = true
	}
}

func TestOtherKeyRefusesCookie(t *testing.T) {
	p := newRig(t).peer(client4, 5).connect()
	other := newRig(t, func(c *Config) { c.Key[31] = 1 })
	other.put(p.frame(p.segment(0, wire.ACK, "x")))
	other.wantCount("handshakes", "forged", 1)

	same := newRig(t)
	same.put(p.frame(p.segment(0, wire.ACK, "x")))
	same.wantCount("handshakes", "accepted", 1)
}

func TestClientSpeaksFirst(t *testing.T) {
	p := newRig(t).peer(client4, 5).connect()
	p.send(0, wire.ACK, "")
	if p.wantKinds(); p.Flows() != 1 {
		t.Fatal("the bare ACK made no flow")
	}
	p.send(0, wire.ACK, "") // again
	p.none()
	p.send(0, wire.ACK|wire.PSH, "GET ")
	if first := p.punted(flow.First); first.Handshake.MSS != 1460 {
		t.Errorf("handshake %+v", first.Handshake)
	}
	p.send(4, wire.ACK|wire.PSH, "/")
	p.punted(flow.Segment)
	p.send(5, wire.ACK, "") // a bare ACK now matters: it may acknowledge what the router sent
	p.punted(flow.Segment)
}

func TestFINAloneIsFirst(t *testing.T) {
	p := newRig(t).peer(client4, 5).connect()
	p.send(0, wire.ACK, "")
	p.send(0, wire.ACK|wire.FIN, "")
	p.punted(flow.First)
}

func TestResetBeforeDataForgetsTheFlow(t *testing.T) {
	for _, tt := range []struct {
		name   string
		offset int
		flows  int
	}{{"exact", 0, 0}, {"in window but not exact", 1, 1}} {
		t.Run(tt.name, func(t *testing.T) {
			p := newRig(t).peer(client4, 5).connect()
			p.send(0, wire.ACK, "")
			p.send(tt.offset, wire.RST|wire.ACK, "")
			if p.wantKinds(); p.Flows() != tt.flows || len(p.Snapshot()) != tt.flows {
				t.Errorf("%d flows, want %d", p.Flows(), tt.flows)
			}
		})
	}
}

func TestKeepAliveProbeIsAnsweredFromTheEntry(t *testing.T) {
	for _, data := range []string{"", "x"} { // some systems send an octet of garbage
		t.Run(fmt.Sprintf("%d octets", len(data)), func(t *testing.T) {
			p := newRig(t).peer(client4, 5).connect()
			p.send(0, wire.ACK, "")
			p.advance(10 * time.Second)
			p.send(-1, wire.ACK, data)
			s := p.one().Segment
			if s.Flags != wire.ACK || s.Seq != p.iss.Add(1) || s.Ack != p.isn.Add(1) || s.Window != window>>7 {
				t.Errorf("answer %+v", s)
			}
			if s.Options.TSVal != p.synAck.Options.TSVal+10_000 || s.Options.TSEcr != p.options.TSVal+1 {
				t.Errorf("timestamps %+v", s.Options)
			}
			p.wantKinds()
		})
	}
}

func TestIdleFlowExpires(t *testing.T) {
	r := newRig(t, func(c *Config) { c.RouterIdle = 10 * time.Second })
	silent := r.peer(netip.AddrPortFrom(client4.Addr(), 1), 5).connect()
	silent.send(0, wire.ACK, "") // the router does not know it: it goes silently
	known := r.peer(client4, 5)
	id := known.open().Flow
	r.advance(9 * time.Second)
	known.send(4, wire.ACK, "x") // keeps it
	r.punted(flow.Segment)
	r.advance(time.Second)
	if r.wantKinds(); r.Flows() != 1 {
		t.Fatalf("%d flows, want 1", r.Flows())
	}
	r.advance(9 * time.Second)
	if gone := r.punted(flow.Gone); gone.Flow != id || gone.Inc != known.inc() {
		t.Errorf("gone %+v", gone)
	}
	if r.Flows() != 0 || len(r.Snapshot()) != 0 {
		t.Error("the flow is still there")
	}
}

func TestOneClientAddressCannotTakeAllFlows(t *testing.T) {
	r := newRig(t, oneLoop, func(c *Config) { c.SourceFlows = 3 })
	begin := func(addr netip.Addr, port uint16) {
		r.peer(netip.AddrPortFrom(addr, port), 1).connect().send(0, wire.ACK|wire.PSH, "GET ")
	}
	for port := range uint16(5) {
		begin(client4.Addr(), 40000+port)
	}
	first := r.wantKinds(flow.First, flow.First, flow.First)
	r.wantCount("drops", "punt_limited", 2)
	begin(client4.Addr().Next(), 40000)
	r.wantKinds(flow.First)
	r.must(r.CloseFlow(first[0].Flow))
	r.Poll()
	begin(client4.Addr(), 41000)
	r.wantKinds(flow.First)
	r.wantCount("drops", "punt_limited", 2)
}

func TestOneClientAddressCannotTakeAllPunts(t *testing.T) {
	r := newRig(t, oneLoop, func(c *Config) { c.SourcePunts = 100 }) // half of them at once
	p, other := r.peer(client4, 1), r.peer(netip.AddrPortFrom(client4.Addr().Next(), 1024), 1)
	p.open()
	for i := range 100 {
		p.send(4+i, wire.ACK|wire.PSH, "x")
	}
	if n := len(r.punts()); n != 49 {
		t.Errorf("%d segments were punted, want 49: the handshake was the first of 50", n)
	}
	r.wantCount("drops", "punt_limited", 51)
	other.open()
	r.advance(10 * time.Millisecond)
	p.send(104, wire.ACK|wire.PSH, "x")
	r.wantKinds(flow.Segment)
}

func TestAllClientsCannotTakeMorePuntsThanConfigured(t *testing.T) {
	r := newRig(t, oneLoop, func(c *Config) { c.Punts = 100 })
	for i := range byte(100) {
		r.peer(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, i}), 1024), 1).connect().send(0, wire.ACK|wire.PSH, "GET ")
	}
	if n := len(r.punts()); n != 50 {
		t.Errorf("%d connections were punted, want 50", n)
	}
	r.wantCount("drops", "punt_limited", 50)
}

// TestOnlyTheLastServeIsAnswered: an answer to an earlier one would say what is not so any more.
func TestOnlyTheLastServeIsAnswered(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Lcores = 3 })
	r.must(r.Serve(service4, false))
	r.must(r.Serve(service4, true))
	r.must(r.Serve(service6, false))
	r.Poll()
	p := r.wantKinds(flow.Served, flow.Served)
	if p[0].Inc.Service != service4 || !p[0].Open || p[1].Inc.Service != service6 || p[1].Open {
		t.Errorf("punted %+v", p)
	}
}

func TestClosedServiceAnswersNoSYN(t *testing.T) {
	r := newRig(t, func(c *Config) {
		for i := range c.Services {
			c.Services[i].Closed = true
		}
	})
	for i, open := range []bool{false, true, false} {
		if i > 0 {
			r.must(r.Serve(service4, open))
			r.Poll()
			if p := r.punted(flow.Served); p.Open != open || p.Inc.Service != service4 {
				t.Fatalf("punted %+v", p)
			}
		}
		p := r.peer(netip.AddrPortFrom(client4.Addr(), uint16(2000+i)), 5)
		p.put(p.syn())
		if got := len(r.out()) > 0; got != open {
			t.Errorf("open %t, answered %t", open, got)
		}
	}
	r.wantCount("drops", "service_closed", 2)
	if err := r.Serve(client4, true); !errors.Is(err, ErrNoService) {
		t.Error(err)
	}
}
