package tcp

import (
	"strings"
	"testing"
	"time"

	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// sack is an acknowledgment of una octets with SACK blocks, in octets of our stream.
func (r *rig) sack(una int, blocks ...[2]int) []wire.Segment {
	r.una = una
	s := r.seg(r.c.rcv.nxt.Sub(r.b.irs)-1, "", wire.ACK)
	for i, b := range blocks {
		s.Options.SACK[i] = wire.Block{Left: r.b.iss.Add(1 + b[0]), Right: r.b.iss.Add(1 + b[1])}
		s.Options.NSACK++
	}
	return r.send(s)
}

// at is where a segment lies in our stream.
func (r *rig) at(s wire.Segment) int { return s.Seq.Sub(r.b.iss) - 1 }

// sending is a connection without timestamps that has sent 10 segments of 1000 octets, with as many more waiting.
func sending(t testing.TB, b base) *rig {
	r := established(t, b, noTimestamps)
	r.wnd = 0xffff
	r.send(r.seg(0, "", wire.ACK))
	r.do(r.c.Write(text(20000), r.now))
	return r
}

// RFC 6675 §5: three SACKs repeat the first hole, then each lost one once, and nothing that the client holds.
func TestSACKRecoverySendsTheHolesOnce(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := sending(t, b) // 0 and 3 are lost
		sent := map[int]int{}
		note := func(out []wire.Segment) {
			for _, s := range out {
				sent[r.at(s)/1000]++
			}
		}
		note(r.sack(0, [2]int{1000, 2000}))
		note(r.sack(0, [2]int{1000, 3000}))
		note(r.sack(0, [2]int{4000, 5000}, [2]int{1000, 3000}))
		if r.c.snd.phase != sackRecovery || sent[0] != 1 || r.c.snd.ssthresh != 5000 {
			t.Fatalf("phase %d, sent %v, ssthresh %d", r.c.snd.phase, sent, r.c.snd.ssthresh)
		}
		for i := 5; i < 10; i++ {
			note(r.sack(0, [2]int{4000, 1000 * (i + 1)}, [2]int{1000, 3000}))
		}
		if sent[3] != 1 {
			t.Errorf("the second hole was sent %d times", sent[3])
		}
		note(r.sack(3000, [2]int{4000, 10000}))
		note(r.sack(10000))
		for i := range 10 {
			if want := map[bool]int{true: 1}[i == 0 || i == 3]; sent[i] != want {
				t.Errorf("segment %d was repeated %d times, want %d", i, sent[i], want)
			}
		}
		if r.c.snd.phase != sackRecovery { // limited transmit sent new data before the loss was seen
			t.Logf("recovered at once")
		}
		r.sack(r.c.snd.nxt.Sub(b.iss) - 1)
		if r.c.snd.phase != open || r.c.snd.cwnd < 5000 || r.c.snd.cwnd > 7000 {
			t.Errorf("phase %d, cwnd %d", r.c.snd.phase, r.c.snd.cwnd)
		}
	})
}

// RFC 6675 §4: many octets after a hole make it lost before the third duplicate ACK.
func TestHoleIsLostByOctets(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := sending(t, b)
		if s := r.sack(0, [2]int{1000, 4000}); len(s) == 0 || r.at(s[0]) != 0 || r.c.snd.phase != sackRecovery {
			t.Errorf("sent %v in phase %d", s, r.c.snd.phase)
		}
	})
}

// RFC 6675 §5 (C): what is in the network never exceeds the congestion window, but for the first repetition.
func TestPipeKeepsToTheWindow(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := sending(t, b)
		for i := 1; i < 10; i++ {
			r.sack(0, [2]int{1000, 1000 * (i + 1)})
			if s := &r.c.snd; s.phase == sackRecovery && s.pipe(1000) > max(s.cwnd, (9-i+1+1+2)*1000) {
				t.Fatalf("after %d: pipe %d, cwnd %d", i, s.pipe(1000), s.cwnd)
			}
		}
	})
}

// A partial acknowledgment up to a hole that no SACK tells of repeats it, as RFC 6582 does.
func TestPartialACKWithoutSACKRepeatsTheHole(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := sending(t, b)
		r.sack(0, [2]int{1000, 4000})
		out := r.sack(9000)
		if len(out) == 0 || r.at(out[0]) != 9000 {
			t.Errorf("sent %v", out)
		}
	})
}

// RFC 2018 §8: a timeout forgets the SACKs, because the client may have too. What it says afterwards counts.
func TestTimeoutForgetsTheSACKs(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := sending(t, b)
		r.sack(0, [2]int{1000, 2000})
		r.one(r.wait(time.Minute))
		if len(r.c.snd.held) != 0 || r.c.snd.phase != timedOut {
			t.Fatalf("still %v", r.c.snd.held)
		}
		out := r.sack(1000, [2]int{2000, 5000})
		for _, s := range out {
			if at := r.at(s); at >= 2000 && at < 5000 {
				t.Errorf("sent %d, which the client holds", at)
			}
		}
		if len(out) != 2 || r.at(out[0]) != 1000 || r.at(out[1]) != 5000 {
			t.Errorf("sent %d segments", len(out))
		}
	})
}

// RFC 2883 §5, and nonsense: blocks that tell nothing are no duplicate ACKs.
func TestUselessSACKsAreIgnored(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		for _, block := range [][2]int{{-500, -100}, {-10, 20}, {0, 1000}, {5000, 4000}, {9000, 100000}, {3000, 3000}} {
			r := sending(t, b)
			r.sack(0, [2]int{1000, 2000})
			for range 5 {
				r.quiet(r.sack(0, block, [2]int{1000, 2000}))
			}
			if r.c.snd.phase != open || len(r.c.snd.held) != 1 {
				t.Errorf("%v: phase %d, holds %v", block, r.c.snd.phase, r.c.snd.held)
			}
		}
	})
}

func TestScoreboardUnitesAndIsBounded(t *testing.T) {
	block := func(from, to int) wire.Block { return wire.Block{Left: seq.Value(from), Right: seq.Value(to)} }
	var s scoreboard
	for _, row := range []struct {
		b    wire.Block
		news bool
		want []wire.Block
	}{
		{block(10, 20), true, []wire.Block{block(10, 20)}},
		{block(30, 40), true, []wire.Block{block(10, 20), block(30, 40)}},
		{block(12, 18), false, []wire.Block{block(10, 20), block(30, 40)}},
		{block(5, 7), true, []wire.Block{block(5, 7), block(10, 20), block(30, 40)}},
		{block(7, 10), true, []wire.Block{block(5, 20), block(30, 40)}},
		{block(25, 45), true, []wire.Block{block(5, 20), block(25, 45)}},
		{block(1, 50), true, []wire.Block{block(1, 50)}},
	} {
		if got := s.hold(row.b); got != row.news || len(s.held) != len(row.want) {
			t.Fatalf("%v: news %v, holds %v", row.b, got, s.held)
		}
		for i := range row.want {
			if s.held[i] != row.want[i] {
				t.Errorf("%v: holds %v", row.b, s.held)
			}
		}
	}
	for i := range 2 * maxHeld {
		s.hold(block(100+10*i, 105+10*i))
	}
	if len(s.held) != maxHeld {
		t.Errorf("holds %d ranges", len(s.held))
	}
	if s.drop(205); s.held[0] != block(210, 215) {
		t.Errorf("holds %v after an ACK of 205", s.held[0])
	}
}

// RFC 3042 §2: the first two duplicate ACKs send a new segment each; they do not count as flight (RFC 5681 §3.2).
func TestLimitedTransmit(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := sending(t, b)
		for i := range 2 {
			if s := r.one(r.send(r.seg(0, "", wire.ACK))); r.at(s) != 10000+1000*i {
				t.Fatalf("sent %d", r.at(s))
			}
		}
		if s := r.one(r.send(r.seg(0, "", wire.ACK))); r.at(s) != 0 || r.c.snd.ssthresh != 5000 {
			t.Errorf("repeated %d, ssthresh %d", r.at(s), r.c.snd.ssthresh)
		}
	})
}

// RFC 5681 §4.1 with the window of RFC 6928.
func TestRestartAfterIdle(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b, noTimestamps)
		r.wnd = 0xffff
		r.send(r.seg(0, "", wire.ACK))
		r.do(r.c.Write(text(20000), r.now))
		for n := 1000; n <= 20000; n += 1000 {
			r.ack(n)
		}
		r.now = r.now.Add(time.Second)
		if r.do(r.c.AckNow(r.now)); r.c.snd.cwnd != 30000 {
			t.Fatalf("cwnd %d", r.c.snd.cwnd)
		}
		r.now = r.now.Add(time.Millisecond)
		if n := len(r.do(r.c.Write(text(30000), r.now))); n != 10 {
			t.Errorf("%d segments after a pause", n)
		}
	})
}

// RFC 2883 §4: what arrived twice is told once, before the other blocks.
func TestDuplicateIsTold(t *testing.T) {
	block := func(b base, from, to int) wire.Block {
		return wire.Block{Left: b.irs.Add(1 + from), Right: b.irs.Add(1 + to)}
	}
	eachBase(t, func(t *testing.T, b base) {
		for _, row := range []struct {
			name     string
			at       int
			text     string
			from, to int
		}{
			{"all of it acknowledged", 0, "abc", 0, 3},
			{"acknowledged, with new", 4, "efgh", 4, 6},
			{"out of order", 20, "xyz", 20, 23},
			{"part out of order", 18, "vwxyz12", 20, 25},
			{"nothing", 40, "new", 0, 0},
		} {
			r := established(t, b)
			r.send(r.data(0, "abcdef"))
			r.do(r.c.AckNow(r.now))
			r.send(r.data(20, "xyz12"))
			out := r.send(r.data(row.at, row.text))
			if len(out) == 0 {
				out = r.do(r.c.AckNow(r.now))
			}
			s := r.one(out)
			if told := s.Options.SACK[0] == block(b, row.from, row.to); told != (row.to > 0) {
				t.Errorf("%s: first block %v", row.name, s.Options.SACK[0])
			}
			if s := r.one(r.do(r.c.Announce(r.now))); s.Options.SACK[0] == block(b, row.from, row.to) && row.name != "out of order" {
				t.Errorf("%s: told again", row.name)
			}
		}
		r := established(t, b, noSACK)
		r.send(r.data(0, "abc"))
		if s := r.one(r.send(r.data(0, "abc"))); s.Options.NSACK != 0 {
			t.Error("told without SACK")
		}
	})
}

// RFC 9293 §3.8.6.3 and RFC 5681 §4.2 for an owner that reads everything: at least every second segment at once, and
// what closes a gap or ends the stream.
func TestAutoACK(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.c.AutoACK(true)
		r.quiet(r.send(r.data(0, "aa")))
		r.bareACK(r.send(r.data(2, "bb")), 4)
		r.quiet(r.send(r.data(4, "cc")))
		r.bareACK(r.wait(delayedACK), 6)
		r.bareACK(r.send(r.data(8, "ee")), 6)
		r.bareACK(r.send(r.data(6, "dd")), 10)
		r.bareACK(r.send(r.seg(10, "", wire.ACK|wire.FIN)), 11)
		r.in(CloseWait).holds(strings.Join([]string{"aa", "bb", "cc", "dd", "ee"}, ""))
	})
}
