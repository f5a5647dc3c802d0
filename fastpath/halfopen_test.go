package fastpath

import (
	"net/netip"
	"testing"
	"time"

	"baton/fastpath/flow"
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// greeterRig is a rig whose services speak first.
func greeterRig(t *testing.T, change ...func(*Config)) *rig {
	speaks := func(c *Config) {
		for i := range c.Services {
			c.Services[i].SpeaksFirst = true
		}
	}
	return newRig(t, append([]func(*Config){speaks}, change...)...)
}

func TestBareACKIsFirstWhereTheServerSpeaksFirst(t *testing.T) {
	for _, client := range []netip.AddrPort{client4, client6} {
		p := greeterRig(t).peer(client, 5).connect()
		p.send(0, wire.ACK, "")
		if first := p.punted(flow.First); first.Inc != p.inc() {
			t.Errorf("incarnation %+v, want %+v", first.Inc, p.inc())
		}
		p.send(0, wire.ACK, "")
		p.punted(flow.Segment)
	}
}

func TestSYNACKIsRepeatedUntilTheClientAnswers(t *testing.T) {
	for _, client := range []netip.AddrPort{client4, client6} {
		p := greeterRig(t).peer(client, 5).connect()
		var waited time.Duration
		for _, wait := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second} {
			p.advance(wait - time.Millisecond)
			p.none()
			p.advance(time.Millisecond)
			waited += wait
			f := p.one()
			want := p.synAck
			want.Options.TSVal += uint32(waited.Milliseconds())
			if got := f.Segment; got.Seq != want.Seq || got.Ack != want.Ack || got.Flags != want.Flags ||
				got.Window != want.Window || got.Options != want.Options || f.Dst != client || f.Link.Dst != clientMAC {
				t.Fatalf("after %v: %+v to %v, want %+v", waited, got, f.Dst, want)
			}
		}
		p.wantCount("handshakes", "repeated", 5)
		p.send(0, wire.ACK, "") // now it answers
		p.punted(flow.First)
		p.advance(time.Minute)
		p.none()
	}
}

func TestSYNACKIsNotRepeatedForEver(t *testing.T) {
	p := greeterRig(t, func(c *Config) { c.HalfOpen = 1 }).peer(client4, 5).connect()
	for range 70 {
		p.advance(time.Second)
	}
	if n := len(p.out()); n != 5 {
		t.Errorf("%d repetitions, want 5", n)
	}
	other := p.peer(netip.AddrPortFrom(client4.Addr(), 41000), 6).connect() // its place is free again
	other.advance(time.Second)
	other.one()
}

func TestSYNACKIsNotRepeatedWhereTheClientSpeaksFirst(t *testing.T) {
	p := newRig(t).peer(client4, 5).connect()
	p.advance(time.Second)
	p.none()
}

func TestRepeatedSYNGetsTheSameSYNACK(t *testing.T) {
	p := greeterRig(t).peer(client4, 5)
	p.advance(63 * time.Second) // the last second of a tick: the next cookie would be another one
	p.connect()
	p.advance(time.Second)
	p.out()
	p.options.TSVal += 1000
	p.put(p.syn())
	if s := p.one().Segment; s.Seq != p.iss || s.Options.TSEcr != p.options.TSVal {
		t.Errorf("second SYN-ACK %+v, the first had %d", s, p.iss)
	}
	p.advance(2 * time.Second)
	if s := p.one().Segment; s.Options.TSEcr != p.options.TSVal {
		t.Errorf("repeated SYN-ACK echoes %d, want the newest %d", s.Options.TSEcr, p.options.TSVal)
	}
}

func TestNewSYNReplacesTheHandshake(t *testing.T) {
	for name, change := range map[string]func(*peer){
		"another sequence number": func(p *peer) { p.isn = 99 },
		"other options":           func(p *peer) { p.options.SACKPermitted = false },
	} {
		t.Run(name, func(t *testing.T) {
			p := greeterRig(t, func(c *Config) { c.HalfOpen = 1 }).peer(client4, 5).connect()
			change(p)
			p.connect()
			p.advance(time.Second)
			if s := p.one().Segment; s.Ack != p.isn.Add(1) || s.Seq != p.iss {
				t.Errorf("repeated SYN-ACK %+v, want that of the new SYN", s)
			}
		})
	}
}

func TestResetEndsTheHandshake(t *testing.T) {
	for _, tt := range []struct {
		name   string
		offset int
		ends   bool
	}{{"exact", 0, true}, {"not exact", 1, false}} {
		t.Run(tt.name, func(t *testing.T) {
			p := greeterRig(t).peer(client4, 5).connect()
			p.send(tt.offset, wire.RST, "")
			p.advance(time.Second)
			if ended := len(p.out()) == 0; ended != tt.ends {
				t.Errorf("ended: %v, want %v", ended, tt.ends)
			}
		})
	}
}

func TestFullTableOfHandshakesLeavesTheCookie(t *testing.T) {
	r := greeterRig(t, oneLoop, func(c *Config) { c.HalfOpen = 2 })
	var peers []*peer
	for i := range 3 {
		client := netip.AddrPortFrom(client4.Addr(), uint16(40000+i))
		peers = append(peers, r.peer(client, seq.Value(i)).connect())
	}
	r.wantCount("handshakes", "not_repeated", 1)
	r.advance(time.Second)
	if n := len(r.out()); n != 2 {
		t.Errorf("%d SYN-ACKs repeated, want 2", n)
	}
	peers[2].send(0, wire.ACK, "")
	r.punted(flow.First)
}

func TestHandshakesWithoutATable(t *testing.T) {
	p := greeterRig(t, func(c *Config) { c.HalfOpen = -1 }).peer(client4, 5).connect()
	p.advance(time.Second)
	p.none()
	p.send(0, wire.ACK, "")
	p.punted(flow.First)
}

func TestManyHandshakesAreRepeatedInOrder(t *testing.T) {
	const n = 500
	r := greeterRig(t, func(c *Config) { c.HalfOpen = 2 * n })
	for i := range n {
		r.peer(netip.AddrPortFrom(client4.Addr(), uint16(1000+i)), seq.Value(i)).connect()
	}
	for i := range n / 2 { // every second one answers
		p := r.peer(netip.AddrPortFrom(client4.Addr(), uint16(1000+2*i)), seq.Value(2*i))
		p.put(p.frame(wire.Segment{Seq: p.isn.Add(1), Flags: wire.RST}))
	}
	repeated := map[uint16]bool{}
	r.advance(time.Second)
	for range 100 {
		r.advance(time.Millisecond)
	}
	for _, f := range r.segments() {
		if port := f.Dst.Port(); port%2 == 0 || repeated[port] {
			t.Fatalf("SYN-ACK repeated to port %d", port)
		}
		repeated[f.Dst.Port()] = true
	}
	if len(repeated) != n/2 {
		t.Errorf("%d repeated, want %d", len(repeated), n/2)
	}
}
