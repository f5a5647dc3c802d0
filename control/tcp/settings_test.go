package tcp

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"baton/control/transfer"
	"baton/fastpath/wire"
)

func (r *rig) configure(s transfer.Settings) { r.do(r.c.Configure(s, r.now)) }

// RFC 9293 §3.7.4: with Nagle a small segment waits for what is under way; without, it does not.
func TestNagle(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.one(r.do(r.c.Write([]byte("a"), r.now)))
		r.one(r.do(r.c.Write([]byte("b"), r.now)))
		r.ack(2)
		r.configure(transfer.Settings{Nagle: true})
		r.one(r.do(r.c.Write([]byte("c"), r.now))) // nothing is under way
		r.quiet(r.do(r.c.Write([]byte("d"), r.now)))
		r.quiet(r.do(r.c.Write([]byte("e"), r.now)))
		if s := r.one(r.ack(3)); string(s.Payload) != "de" {
			t.Errorf("sent %q", s.Payload)
		}
		out := r.do(r.c.Write(text(1000), r.now)) // a full one goes
		if len(out) != 1 || len(out[0].Payload) != 988 {
			t.Fatalf("sent %v", out)
		}
		if s := r.one(r.do(r.c.CloseWrite(r.now))); !s.Flags.Has(wire.FIN) || len(s.Payload) != 12 {
			t.Errorf("the FIN waits: %v", s)
		}
		if !r.c.Settings().Nagle {
			t.Error("settings are lost")
		}
	})
}

// RFC 9293 §3.8.4: off by default; probes have SND.NXT-1 and no text; unanswered ones end the connection.
func TestKeepalive(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		if !r.c.Deadline().IsZero() {
			t.Fatal("keepalive is on by default")
		}
		r.configure(transfer.Settings{KeepIdle: time.Hour, KeepInterval: time.Minute, KeepProbes: 3})
		start := r.now
		for i := range 2 {
			s := r.one(r.wait(2 * time.Hour))
			if at := r.now.Sub(start); at != time.Hour+time.Duration(i)*time.Minute || s.Seq != b.iss || s.Len() != 0 {
				t.Fatalf("probe %d at %d after %v", i, s.Seq, at)
			}
		}
		r.ts++
		r.quiet(r.send(r.seg(0, "", wire.ACK))) // answered
		start = r.now
		for range 3 {
			r.one(r.wait(2 * time.Hour))
		}
		s := r.one(r.wait(2 * time.Hour))
		if at := r.now.Sub(start); at != time.Hour+3*time.Minute || !s.Flags.Has(wire.RST) || !errors.Is(r.c.Err(), ErrTimeout) {
			t.Errorf("%v after %v, Err %v", s.Flags, at, r.c.Err())
		}
		r = established(t, b)
		r.configure(transfer.Settings{KeepIdle: time.Hour, KeepInterval: time.Minute, KeepProbes: 3})
		r.do(r.c.Write([]byte("x"), r.now))
		if d := r.c.Deadline().Sub(r.now); d != time.Second { // the retransmission finds out
			t.Errorf("deadline in %v", d)
		}
	})
}

// RFC 9293 §3.8.3: the user timeout takes the place of R2.
func TestUserTimeout(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.configure(transfer.Settings{UserTimeout: 5 * time.Second})
		r.do(r.c.Write([]byte("x"), r.now))
		start := r.now
		for r.c.State() != Closed {
			r.wait(time.Hour)
		}
		if d := r.now.Sub(start); d != 7*time.Second || !errors.Is(r.c.Err(), ErrTimeout) { // at the next retransmission
			t.Errorf("after %v: %v", d, r.c.Err())
		}
	})
}

// RFC 9293 §3.6: after a half-close of ours everything of the client's is still read, without any deadline.
func TestCloseWriteGoesOnReading(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.one(r.do(r.c.CloseWrite(r.now)))
		r.in(FinWait1).send(r.data(0, "still "))
		r.ack(1)
		r.in(FinWait2).do(r.c.AckNow(r.now))
		if !r.c.Deadline().IsZero() {
			t.Error("a deadline for the application's reading")
		}
		r.now = r.now.Add(time.Hour)
		r.send(r.data(6, "here"))
		r.holds("still here")
		r.send(r.seg(10, "", wire.ACK|wire.FIN))
		r.in(TimeWait).holds("still here")
		if !r.c.EOF() {
			t.Error("no EOF")
		}
	})
}

// RFC 9293 §3.6.1 and RFC 2525 §2.17: a close that loses data resets.
func TestCloseWithUnreadDataResets(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.send(r.data(0, "unread"))
		if s := r.one(r.do(r.c.Close(r.now))); !s.Flags.Has(wire.RST) {
			t.Errorf("sent %v", s.Flags)
		}
		r.in(Closed)

		for _, early := range []bool{true, false} { // data after the close
			r = established(t, b)
			if s := r.one(r.do(r.c.Close(r.now))); s.Flags != wire.FIN|wire.ACK {
				t.Fatalf("sent %v", s.Flags)
			}
			if !early {
				r.ack(1)
				r.in(FinWait2)
			}
			s := r.one(r.send(r.data(0, "late")))
			if !s.Flags.Has(wire.RST) || !errors.Is(r.in(Closed).c.Err(), ErrAborted) {
				t.Errorf("sent %v", s.Flags)
			}
		}
	})
}

func TestCloseEndsInOrder(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.one(r.do(r.c.Close(r.now)))
		r.ack(1)
		r.bareACK(r.in(FinWait2).send(r.seg(0, "", wire.ACK|wire.FIN)), 1)
		r.in(TimeWait).quiet(r.do(r.c.Close(r.now)))

		r = closeWait(t, b)
		r.one(r.do(r.c.Close(r.now)))
		r.in(LastAck).ack(1)
		r.in(Closed).quiet(r.do(r.c.Close(r.now)))

		r = established(t, b) // a client that does not close
		r.one(r.do(r.c.Close(r.now)))
		r.ack(1)
		start := r.in(FinWait2).now
		r.quiet(r.wait(time.Hour))
		if d := r.in(Closed).now.Sub(start); d != closeTimeout {
			t.Errorf("after %v", d)
		}
	})
}

// The reading side may be left after the writing side was closed.
func TestLeavingAfterCloseWrite(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.do(r.c.CloseWrite(r.now))
		r.ack(1)
		r.send(r.data(0, strings.Repeat("x", 100)))
		r.do(r.c.Linger(r.now))
		r.in(FinWait2).holds("")
		r.bareACK(r.wait(lingerIdle), 100)
		r.quiet(r.wait(lingerIdle))
		r.in(Closed)

		r = established(t, b)
		r.do(r.c.CloseWrite(r.now))
		r.quiet(r.do(r.c.CloseWrite(r.now)))
		r.do(r.c.Close(r.now))
		start := r.now
		for r.c.State() != Closed {
			r.wait(time.Minute)
		}
		if d := r.now.Sub(start); d != closeTimeout {
			t.Errorf("after %v", d)
		}
		r = timeWaiting(t, b)
		r.quiet(r.do(r.c.Linger(r.now)))
		r.in(TimeWait)
	})
}

// icmp is an error about an octet of our stream.
func (r *rig) icmp(kind wire.ICMPKind, at, mtu int) []wire.Segment {
	return r.do(r.c.ICMP(wire.ICMPError{Seq: r.b.iss.Add(1 + at), Kind: kind, MTU: mtu, Type: 3}, r.now))
}

// RFC 1191 §6.4 and RFC 5927 §7: an MTU below ours, about something under way, makes smaller segments at once.
func TestPathMTU(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		for _, row := range []struct {
			name        string
			at, mtu     int
			first, size int // of the segments sent again; 0: none
		}{
			{"real", 0, 700, 0, 660},
			{"real, in the middle", 2500, 700, 0, 660},
			{"already acknowledged", -1, 700, 0, 0},
			{"not sent", 3000, 700, 0, 0},
			{"larger than ours", 0, 1500, 0, 0},
			{"just ours", 0, 1040, 0, 0},
			{"below the least", 0, 20, 0, minMTU4 - 40},
			{"not said", 0, 0, 0, 1006 - 40},
		} {
			r := established(t, b, noTimestamps)
			r.do(r.c.Write(text(3000), r.now))
			cwnd := r.c.snd.cwnd
			out := r.icmp(wire.TooBig, row.at, row.mtu)
			if row.size == 0 {
				r.quiet(out)
				continue
			}
			if len(out) != (3000+row.size-1)/row.size || len(out[0].Payload) != row.size || r.at(out[0]) != 0 || r.c.snd.cwnd != cwnd {
				t.Errorf("%s: %d segments, the first of %d at %d", row.name, len(out), len(out[0].Payload), r.at(out[0]))
			}
			r.ack(3000)
			if r.c.Queued() != 0 || r.taken() != string(text(3000)) {
				t.Errorf("%s: the stream is damaged", row.name)
			}
		}
	})
}

func TestPlateaus(t *testing.T) {
	for mtu, want := range map[int]int{65535: 32000, 1500: 1492, 1492: 1006, 68: 68, 60: 68} {
		if got := plateauBelow(mtu); got != want {
			t.Errorf("below %d: %d, want %d", mtu, got, want)
		}
	}
	cfg := config(bases[0], mss(1400), noTimestamps)
	cfg.Inc.Client = netip.MustParseAddrPort("[2001:db8::1]:40000")
	cfg.Inc.Service = netip.MustParseAddrPort("[2001:db8::2]:80")
	r := &rig{t: t, b: bases[0], now: epoch, wnd: 0xffff, c: Accept(cfg, epoch), acked: bases[0].irs + 1,
		edge: bases[0].irs.Add(1 + testFirst)}
	r.send(r.seg(0, "", wire.ACK))
	r.do(r.c.Write(text(3000), r.now))
	if out := r.icmp(wire.TooBig, 0, 600); len(out[0].Payload) != minMTU6-60 {
		t.Errorf("%d octets with IPv6", len(out[0].Payload))
	}
}

// RFC 5927 §5.2: hard errors are soft in the synchronized states, and only told in the end.
func TestHardErrorsAreSoft(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		for state, build := range states {
			if state == SynReceived || state == Closed {
				continue
			}
			r := build(t, b)
			r.quiet(r.icmp(wire.Hard, -1, 0))
			r.quiet(r.icmp(wire.Soft, 0, 0))
			r.in(state)
		}
		for _, about := range []int{0, 5} {
			r := established(t, b)
			r.do(r.c.Write([]byte("hello"), r.now))
			r.icmp(wire.Hard, about, 0)
			for r.c.State() != Closed {
				r.wait(time.Hour)
			}
			if !errors.Is(r.c.Err(), ErrTimeout) || errors.Is(r.c.Err(), ErrUnreachable) != (about == 0) {
				t.Errorf("Err %v", r.c.Err())
			}
		}
	})
}

func TestHardErrorEndsAHandshake(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := synReceived(t, b)
		r.quiet(r.icmp(wire.Hard, 0, 0)) // not of our SYN
		r.in(SynReceived).quiet(r.icmp(wire.Soft, -1, 0))
		r.in(SynReceived).quiet(r.icmp(wire.Hard, -1, 0))
		if err := r.in(Closed).c.Err(); !errors.Is(err, ErrUnreachable) {
			t.Errorf("Err %v", err)
		}
	})
}

func TestFrozenConnectionIgnoresICMP(t *testing.T) {
	r := established(t, bases[1])
	r.do(r.c.Write(text(3000), r.now))
	r.freeze()
	r.quiet(r.icmp(wire.TooBig, 0, 600))
	r.quiet(r.do(r.c.Thaw(r.now)))
}
