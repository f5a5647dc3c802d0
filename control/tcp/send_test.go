package tcp

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"baton/fastpath/wire"
)

// text is n octets that differ from their neighbours.
func text(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8)
	}
	return b
}

// taken puts what the Conn sent together, as a receiver would that got everything.
func (r *rig) taken() string {
	var stream []byte
	for _, s := range r.sent {
		at := s.Seq.Sub(r.b.iss) - 1
		if end := at + len(s.Payload); end > len(stream) {
			stream = append(stream, make([]byte, end-len(stream))...)
		}
		copy(stream[max(at, 0):], s.Payload)
	}
	return string(stream)
}

// RFC 9293 §3.7.1 and RFC 6691: options come out of the client's MSS.
func TestSegmentsFitTheMSS(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		for _, c := range []struct {
			name    string
			options []option
			want    int
		}{
			{"with timestamps", []option{mss(1000)}, 988},
			{"without", []option{mss(1000), noTimestamps}, 1000},
			{"536", []option{mss(536)}, 524},
			{"88", []option{mss(88)}, 76},
			{"absent", []option{mss(0), noTimestamps}, 536},
			{"ours is smaller", []option{mss(9000), noTimestamps}, 1460},
			{"absurd", []option{mss(12)}, minPayload},
		} {
			r := newRig(t, b, c.options...)
			r.send(r.seg(0, "", wire.ACK))
			out := r.c.Write(text(3000), r.now).Segments
			if len(out[0].Payload) != c.want {
				t.Errorf("%s: payload of %d octets, want %d", c.name, len(out[0].Payload), c.want)
			}
		}
	})
}

func TestMSSDefaultOfIPv6(t *testing.T) {
	cfg := config(bases[0], mss(0))
	cfg.Inc.Client = netip.MustParseAddrPort("[2001:db8::1]:40000")
	if n := segmentSize(&cfg); n != 1220 {
		t.Errorf("got %d", n)
	}
}

func TestDataSegmentsPayForSACKBlocks(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		for _, at := range []int{10, 20, 30} {
			r.send(r.data(at, "x"))
		}
		if s := r.do(r.c.Write(text(2000), r.now))[0]; len(s.Payload) != 1000-40 || s.Options.NSACK != 3 {
			t.Errorf("%d octets and %d blocks", len(s.Payload), s.Options.NSACK)
		}
	})
}

// RFC 6928 §2 and RFC 5681 §3.1: ten segments at first, then one more for each that is acknowledged.
func TestSlowStart(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b, noTimestamps)
		r.wnd = 0xffff
		r.send(r.seg(0, "", wire.ACK))
		if n := len(r.do(r.c.Write(text(100000), r.now))); n != 10 {
			t.Fatalf("%d segments at first", n)
		}
		for i := range 5 {
			if n := len(r.ack(1000 * (i + 1))); n != 2 {
				t.Fatalf("%d segments for ACK %d", n, i)
			}
		}
	})
}

// RFC 5681 §3.1, equation 3: above ssthresh the window grows by a segment in a round trip.
func TestCongestionAvoidance(t *testing.T) {
	g := sender{congestion: newCongestion(1000)}
	g.ssthresh = 10000
	for range 10 {
		g.grow(1000, 1000)
	}
	if g.cwnd < 10900 || g.cwnd > 11000 {
		t.Errorf("cwnd is %d after a window of ACKs", g.cwnd)
	}
}

func TestResponseIsPushedAndFinishedInOneGo(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.send(r.data(0, "GET /"))
		out := r.do(r.c.Write(text(2000), r.now))
		if len(out) != 3 || out[1].Flags != wire.ACK || out[2].Flags != wire.ACK|wire.PSH || out[0].Ack != b.irs.Add(6) {
			t.Fatalf("sent %v", out)
		}
		if r.taken() != string(text(2000)) {
			t.Error("the response is damaged")
		}
		r.quiet(r.do(r.c.AckNow(r.now))) // it was in the response
	})
}

func TestClientsWindowIsRespected(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b, noScaling, noTimestamps)
		r.wnd = 2500
		r.send(r.seg(0, "", wire.ACK))
		out := r.do(r.c.Write(text(5000), r.now))
		if len(out) != 2 { // the last 500 octets of window are silly (RFC 9293 §3.8.6.2.1)
			t.Fatalf("%d segments", len(out))
		}
		r.wnd = 3000
		if out = r.ack(2000); len(out) != 3 || !out[2].Flags.Has(wire.PSH) {
			t.Fatalf("then %v", out)
		}
		if r.taken() != string(text(5000)) {
			t.Error("the stream is damaged")
		}
	})
}

// A retransmission has an old sequence number and the newest window. With RFC 9293's rule alone SND.UNA would move on
// under the old window, beyond the edge that the client announced.
func TestWindowOfARetransmissionThatAdvancesCounts(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b, noScaling)
		r.send(r.data(0, "abc"))
		r.send(r.data(3, "def"))
		r.do(r.c.Write(text(900), r.now))
		r.una, r.wnd = 900, 100
		r.send(r.seg(0, "abcdefg", wire.ACK))
		if r.c.snd.wnd != 100 {
			t.Errorf("SND.WND is %d", r.c.snd.wnd)
		}
	})
}

// RFC 6298: the instants of retransmission, doubled each time, at most 60 s; R2 ends it (RFC 9293 §3.8.3).
func TestRetransmissionInstants(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.do(r.c.Write([]byte("hello"), r.now))
		start := r.now
		for _, at := range []int{1, 3, 7, 15, 31, 63, 123} {
			s := r.one(r.wait(time.Hour))
			if d := r.now.Sub(start); d != time.Duration(at)*time.Second || string(s.Payload) != "hello" {
				t.Fatalf("%q after %v, want %d s", s.Payload, d, at)
			}
		}
		s := r.one(r.wait(time.Hour))
		if d := r.now.Sub(start); d != 183*time.Second || !s.Flags.Has(wire.RST) || !errors.Is(r.c.Err(), ErrTimeout) {
			t.Errorf("%v after %v, Err %v", s.Flags, d, r.c.Err())
		}
	})
}

// RFC 6298 (5.2) and (5.3): the timer stops when everything is acknowledged and starts anew when something is.
func TestRetransmissionTimerFollowsTheACKs(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.do(r.c.Write(text(2500), r.now))
		r.wait(600 * time.Millisecond)
		r.quiet(r.ack(988))
		if d := r.c.Deadline().Sub(r.now); d < time.Second {
			t.Errorf("timer not restarted: %v", d)
		}
		r.quiet(r.ack(2500))
		if !r.c.Deadline().IsZero() {
			t.Error("timer not stopped")
		}
	})
}

// RFC 6298 §2: SRTT, RTTVAR and RTO of the RFC's equations.
func TestRTOFromMeasurements(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		for _, options := range [][]option{nil, {noTimestamps}} {
			r := established(t, b, options...)
			rtt := func(d time.Duration) {
				n := r.c.snd.nxt.Sub(b.iss) - 1
				r.do(r.c.Write([]byte("x"), r.now))
				r.now = r.now.Add(d)
				r.ack(n + 1)
			}
			rtt(900 * time.Millisecond)
			if got := r.c.snd.base; got != 2700*time.Millisecond { // SRTT + 4 * RTTVAR = 0.9 + 4 * 0.45
				t.Errorf("RTO %v after the first measurement", got)
			}
			rtt(100 * time.Millisecond)
			// RTTVAR = 3/4 * 0.45 + 1/4 * 0.8 = 0.5375, SRTT = 7/8 * 0.9 + 1/8 * 0.1 = 0.8
			if got := r.c.snd.base; got != 2950*time.Millisecond {
				t.Errorf("RTO %v after the second measurement", got)
			}
		}
	})
}

// RFC 6298 (2.5) and (5.5).
func TestBackoffEndsAtTheMaximum(t *testing.T) {
	r := newRTO()
	r.sample(10 * time.Second)
	for i, want := range []time.Duration{30 * time.Second, maxRTO, maxRTO, maxRTO, maxRTO, maxRTO, maxRTO} {
		r.backoff = uint(i)
		if got := r.interval(); got != want {
			t.Errorf("%v after %d timeouts, want %v", got, i, want)
		}
	}
}

// RFC 6298 §3: Karn's algorithm.
func TestRetransmittedSegmentIsNotTimed(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b, noTimestamps)
		r.do(r.c.Write([]byte("x"), r.now))
		r.one(r.wait(time.Second))
		r.now = r.now.Add(500 * time.Millisecond)
		r.ack(1)
		if r.c.snd.srtt != 0 {
			t.Errorf("SRTT %v", r.c.snd.srtt)
		}
	})
}

func TestTimeoutGoesBackAndSlowStarts(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b, noTimestamps)
		r.do(r.c.Write(text(9500), r.now))
		s := r.one(r.wait(time.Second))
		if s.Seq != b.iss.Add(1) || len(s.Payload) != 1000 || r.c.snd.cwnd != 1000 || r.c.snd.ssthresh != 4750 {
			t.Fatalf("resent %d at %d; cwnd %d, ssthresh %d", len(s.Payload), s.Seq.Sub(b.iss), r.c.snd.cwnd, r.c.snd.ssthresh)
		}
		out := r.ack(1000)
		if len(out) != 2 || out[0].Seq != b.iss.Add(1001) {
			t.Fatalf("went on with %v", out)
		}
		r.ack(9500) // the client had the rest
		if r.c.Queued() != 0 || r.c.snd.phase != open {
			t.Errorf("%d queued, phase %d", r.c.Queued(), r.c.snd.phase)
		}
	})
}

// RFC 5681 §3.2 and RFC 6582: three duplicate ACKs repeat the first segment, a partial ACK the next hole.
func TestFastRetransmitAndPartialACK(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b, noTimestamps)
		r.do(r.c.Write(text(10000), r.now))
		r.quiet(r.send(r.seg(0, "", wire.ACK)))
		r.quiet(r.send(r.seg(0, "", wire.ACK)))
		s := r.one(r.send(r.seg(0, "", wire.ACK)))
		if s.Seq != b.iss.Add(1) || len(s.Payload) != 1000 {
			t.Fatalf("resent %d octets at %d", len(s.Payload), s.Seq.Sub(b.iss)-1)
		}
		r.quiet(r.send(r.seg(0, "", wire.ACK))) // more of them only inflate the window
		if s = r.one(r.ack(4000)); s.Seq != b.iss.Add(4001) {
			t.Fatalf("resent at %d after the partial ACK", s.Seq.Sub(b.iss)-1)
		}
		r.quiet(r.ack(10000))
		if r.c.snd.phase != open || r.c.snd.cwnd != 5000 {
			t.Errorf("phase %d, cwnd %d", r.c.snd.phase, r.c.snd.cwnd)
		}
	})
}

// RFC 9293 §3.8.6.1: a shut window is probed with an octet, for as long as the probes are answered.
func TestZeroWindowIsProbedUntilItOpens(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		for _, accepts := range []bool{false, true} {
			r := established(t, b)
			r.wnd = 0
			r.send(r.seg(0, "", wire.ACK))
			r.quiet(r.do(r.c.Write([]byte("hello"), r.now)))
			for i := range 8 { // 1+2+4+...: longer than R2
				s := r.one(r.wait(time.Hour))
				if string(s.Payload) != "h" || s.Seq != b.iss.Add(1) {
					t.Fatalf("probe %d is %q at %d", i, s.Payload, s.Seq.Sub(b.iss)-1)
				}
				r.ts++
				r.quiet(r.send(r.seg(0, "", wire.ACK)))
			}
			r.wnd = 1000
			want := "hello"
			if accepts {
				r.una, want = 1, "ello"
			}
			s := r.one(r.ack(r.una))
			if string(s.Payload) != want || r.c.snd.backoff != 0 {
				t.Fatalf("then %q, backoff %d", s.Payload, r.c.snd.backoff)
			}
			r.quiet(r.ack(5))
			if r.c.Queued() != 0 || r.taken() != "hello" {
				t.Errorf("%d queued, sent %q", r.c.Queued(), r.taken())
			}
		}
	})
}

func TestUnansweredProbesEndTheConnection(t *testing.T) {
	r := established(t, bases[0])
	r.wnd = 0
	r.send(r.seg(0, "", wire.ACK))
	r.do(r.c.Write([]byte("hello"), r.now))
	start := r.now
	for r.c.State() != Closed {
		r.wait(time.Hour)
	}
	if d := r.now.Sub(start); d < timeoutR2 || d > 3*maxRTO+maxRTO || !errors.Is(r.c.Err(), ErrTimeout) {
		t.Errorf("after %v, Err %v", d, r.c.Err())
	}
}

// A probe in a minute is enough while the client answers every second one.
func TestLostProbeDoesNotEndTheConnection(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.wnd = 0
		r.send(r.seg(0, "", wire.ACK))
		r.do(r.c.Write([]byte("hello"), r.now))
		for i := range 30 {
			r.one(r.wait(time.Hour))
			if r.ts++; i%2 == 1 {
				r.quiet(r.send(r.seg(0, "", wire.ACK)))
			}
		}
		r.in(Established)
	})
}

func TestFINOnlyIsProbedToo(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.wnd = 0
		r.send(r.seg(0, "", wire.ACK))
		r.quiet(r.do(r.c.Linger(r.now)))
		if s := r.one(r.wait(time.Hour)); !s.Flags.Has(wire.FIN) || s.Len() != 1 {
			t.Fatalf("probe is %v", s)
		}
		r.ack(1)
		r.in(FinWait2)
	})
}

// A window that stays small is used in the end (RFC 9293 §3.8.6.2.1, the override timeout).
func TestSmallWindowIsUsedAfterATimeout(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b, noScaling)
		r.wnd = 100
		r.send(r.seg(0, "", wire.ACK))
		r.quiet(r.do(r.c.Write(text(300), r.now)))
		if s := r.one(r.wait(time.Hour)); len(s.Payload) != 100 {
			t.Fatalf("%d octets", len(s.Payload))
		}
	})
}

func TestLostFINIsRepeated(t *testing.T) {
	for _, state := range []State{FinWait1, Closing, LastAck} {
		eachBase(t, func(t *testing.T, b base) {
			r := states[state](t, b)
			first := r.c.snd.nxt.Add(-1)
			for range 3 {
				if s := r.one(r.wait(time.Minute)); !s.Flags.Has(wire.FIN) || s.Seq != first || s.Len() != 1 {
					t.Fatalf("sent %v", s)
				}
			}
			r.ack(1)
			if r.c.Queued() != 0 {
				t.Errorf("%d queued", r.c.Queued())
			}
		})
	}
}

func TestFINTravelsWithTheLastData(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b, noScaling)
		r.wnd = 0
		r.send(r.seg(0, "", wire.ACK))
		r.do(r.c.Write([]byte("bye"), r.now))
		r.do(r.c.Linger(r.now))
		r.wnd = 3
		if s := r.one(r.ack(0)); s.Flags.Has(wire.FIN) || string(s.Payload) != "bye" { // no window for it
			t.Fatalf("sent %v %q", s.Flags, s.Payload)
		}
		r.wnd = 10
		if s := r.one(r.ack(3)); !s.Flags.Has(wire.FIN) || s.Len() != 1 {
			t.Fatalf("sent %v", s)
		}

		r = established(t, b)
		r.wnd = 0
		r.send(r.seg(0, "", wire.ACK))
		r.do(r.c.Write([]byte("bye"), r.now))
		r.do(r.c.Linger(r.now))
		r.wnd = 100
		if s := r.one(r.ack(0)); s.Flags != wire.ACK|wire.PSH|wire.FIN || string(s.Payload) != "bye" {
			t.Fatalf("sent %v %q", s.Flags, s.Payload)
		}
	})
}

func TestWriteCopies(t *testing.T) {
	r := established(t, bases[0])
	r.wnd = 0
	r.send(r.seg(0, "", wire.ACK))
	p := []byte("hello")
	r.c.Write(p, r.now)
	copy(p, "XXXXX")
	r.wnd = 100
	if s := r.one(r.ack(0)); string(s.Payload) != "hello" {
		t.Errorf("sent %q", s.Payload)
	}
}

// A connection from a SYN cookie knows no timestamp of the client until data comes, which may come out of order: that one
// is echoed, and nothing is compared with it.
func TestTSecrOfAGapIsOneOfTheClients(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := newRig(t, b)
		r.ts = 100
		if s := r.one(r.send(r.data(2, "bb"))); s.Options.TSEcr != 100 {
			t.Errorf("TSecr %d, the client sent 100", s.Options.TSEcr)
		}
		r.ts = 90
		r.send(r.data(0, "aa"))
		r.holds("aabb")
	})
}

// RFC 7323 §3.2 and §4.3: TSecr under delayed ACKs is that of the oldest segment not acknowledged, and after a loss that of
// the last one in order.
func TestTSecrFollowsTheLastACKSent(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.ts = 100
		r.send(r.data(0, "aa"))
		r.ts = 110
		r.send(r.data(2, "bb"))
		if s := r.one(r.do(r.c.AckNow(r.now))); s.Options.TSEcr != 100 {
			t.Errorf("TSecr %d under a delayed ACK", s.Options.TSEcr)
		}
		r.ts = 130
		if s := r.one(r.send(r.data(6, "dd"))); s.Options.TSEcr != 100 { // a gap: not the segment that it acknowledges
			t.Errorf("TSecr %d at a gap", s.Options.TSEcr)
		}
		r.ts = 140
		r.send(r.data(4, "cc"))
		if s := r.one(r.do(r.c.AckNow(r.now))); s.Options.TSEcr != 140 {
			t.Errorf("TSecr %d after the gap", s.Options.TSEcr)
		}
	})
}

// RFC 7323 §5: PAWS refuses an old timestamp, but not a RST, and not after 24 days.
func TestPAWS(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.ts -= 5
		r.bareACK(r.send(r.data(0, "old")), 0)
		r.holds("")
		rst := r.seg(0, "", wire.RST)
		r.now = r.now.Add(recentLifetime)
		r.send(r.data(0, "new"))
		r.holds("new")
		r.ts -= 100
		rst.Seq = r.c.rcv.nxt
		rst.Options.TSVal = r.ts
		r.quiet(r.send(rst))
		r.in(Closed)
	})
}

// RFC 7323 §3.2: a segment without the option that was agreed on is dropped silently.
func TestSegmentWithoutTimestampIsDropped(t *testing.T) {
	r := established(t, bases[0])
	s := r.data(0, "abc")
	s.Options = wire.Options{}
	r.quiet(r.send(s))
	r.holds("")
}

func TestTSvalNeverGoesBackWhenTheClockDoes(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.send(r.data(0, "a"))
		first := r.one(r.do(r.c.AckNow(r.now))).Options.TSVal
		for i := range 300 { // across the wrap of TSval
			r.now = r.now.Add(time.Millisecond)
			if i%7 == 0 {
				r.send(r.data(1+i/7, "a"))
				r.one(r.do(r.c.AckNow(r.now.Add(-time.Second))))
			}
		}
		if got := r.tsLast - first; got != 295 {
			t.Errorf("TSval advanced by %d ms, want 295", got)
		}
	})
}

// The SYN-ACK's TSval came from the forwarder's reading of the clock; ours must not be behind.
func TestTSvalIsNotBehindTheSYNACK(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := newRig(t, b)
		s := r.data(0, "abc")
		s.Options.TSEcr = r.tsLast + 3
		r.send(s)
		if got := r.one(r.do(r.c.AckNow(r.now))).Options.TSVal; got != s.Options.TSEcr {
			t.Errorf("TSval %d, the client has seen %d", got, s.Options.TSEcr)
		}
		r = newRig(t, b)
		s.Options.TSEcr = r.tsLast + clockSkew + 1 // nonsense must not push the clock
		r.send(s)
		if got := r.one(r.do(r.c.AckNow(r.now))).Options.TSVal; got != r.c.clock() {
			t.Errorf("TSval %d, the clock says %d", got, r.c.clock())
		}
	})
}

func TestNothingIsAllocatedForARequestAndItsACK(t *testing.T) {
	r := established(t, bases[0], noTimestamps)
	s := r.data(0, strings.Repeat("x", 200))
	r.c.rcv.buf = bytes.Clone(make([]byte, 4096))[:0]
	r.c.rcv.gaps = make([]wire.Block, 0, 4)
	r.c.Segment(s, r.now)
	r.c.AckNow(r.now)
	n := testing.AllocsPerRun(50, func() {
		r.c.Receive(len(r.c.Peek()))
		s.Seq = s.Seq.Add(200)
		r.c.Segment(s, r.now)
		r.c.AckNow(r.now)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRequest(b *testing.B) {
	r := established(b, bases[0])
	s := r.data(0, strings.Repeat("x", 200))
	b.ReportAllocs()
	for b.Loop() {
		r.c.Segment(s, r.now)
		r.c.Receive(len(r.c.Peek()))
		r.c.AckNow(r.now)
		s.Seq = s.Seq.Add(200)
	}
}

// RFC 7323 §4.1: an echo in a segment that acknowledges nothing new may be old, and is no measurement.
func TestRoundTripsOnlyFromACKsThatAdvance(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.do(r.c.Write(text(100), r.now))
		r.now = r.now.Add(300 * time.Millisecond)
		r.ts += 300
		r.send(r.data(0, "abc"))
		if r.c.snd.srtt != 0 {
			t.Errorf("SRTT %v without an acknowledgment", r.c.snd.srtt)
		}
		r.ack(100)
		if r.c.snd.srtt != 300*time.Millisecond {
			t.Errorf("SRTT %v", r.c.snd.srtt)
		}
	})
}
