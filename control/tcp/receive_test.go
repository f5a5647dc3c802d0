package tcp

import (
	"strings"
	"testing"
	"time"

	"baton/fastpath/wire"
)

func TestDataThatCouldDecideIsNotAcknowledgedBeforeAckNow(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := newRig(t, b)
		r.quiet(r.send(r.data(0, "GET / "))) // on the ACK of the handshake
		r.holds("GET / ")
		r.bareACK(r.do(r.c.AckNow(r.now)), 6)
		r.quiet(r.do(r.c.AckNow(r.now)))
		r.quiet(r.send(r.data(6, "HTTP/1.1")))
		r.holds("GET / HTTP/1.1")
	})
}

// RFC 9293 §3.8.6.3: an ACK is delayed by less than 0.5 s.
func TestDelayedACKGoesOutByItself(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.send(r.data(0, "abc"))
		if d := r.c.Deadline().Sub(r.now); d != delayedACK {
			t.Fatalf("deadline in %v", d)
		}
		r.wait(delayedACK / 2)
		r.quiet(r.send(r.data(3, "def"))) // does not prolong it
		r.bareACK(r.wait(delayedACK/2), 6)
		if !r.c.Deadline().IsZero() {
			t.Error("a deadline is left")
		}
	})
}

// RFC 9293 §3.10.7.4, first: the four cases of the acceptability test.
func TestAcceptability(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		for _, c := range []struct {
			name string
			shut bool // the window is
			at   int  // relative to RCV.NXT
			text string
			ok   bool
		}{
			{"len 0, wnd 0: next", true, 0, "", true},
			{"len 0, wnd 0: one before", true, -1, "", false},
			{"len 0, wnd 0: one after", true, 1, "", false},
			{"len 0, wnd >0: next", false, 0, "", true},
			{"len 0, wnd >0: last in window", false, testFirst - 1, "", true},
			{"len 0, wnd >0: edge", false, testFirst, "", false},
			{"len 0, wnd >0: edge+1", false, testFirst + 1, "", false},
			{"len 0, wnd >0: edge+2", false, testFirst + 2, "", false},
			{"len 0, wnd >0: before", false, -1, "", false},
			{"len >0, wnd 0: next", true, 0, "x", false},
			{"len >0, wnd >0: next", false, 0, "xy", true},
			{"len >0, wnd >0: begins before", false, -1, "xy", true},
			{"len >0, wnd >0: ends before", false, -2, "xy", false},
			{"len >0, wnd >0: begins at the last", false, testFirst - 1, "xy", true},
			{"len >0, wnd >0: begins at the edge", false, testFirst, "xy", false},
			{"len >0, wnd >0: begins at edge+1", false, testFirst + 1, "xy", false},
			{"half the sequence space away", false, 1 << 31, "xy", false},
		} {
			r := established(t, b)
			if c.shut {
				r.fill(testWindow)
			}
			s := r.data(r.c.rcv.nxt.Sub(b.irs)-1+c.at, c.text)
			if got := r.c.acceptable(&s); got != c.ok {
				t.Errorf("%s: acceptable is %v", c.name, got)
			}
		}
	})
}

func TestOutOfWindowSegmentIsAcknowledgedAndNotDelivered(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		for _, at := range []int{-10, testFirst, testFirst + 1, 1 << 30} {
			r := established(t, b)
			r.bareACK(r.send(r.data(at, "xyz")), 0)
			r.holds("")
		}
	})
}

func TestOverlappingDataIsDeliveredExactlyOnce(t *testing.T) {
	const stream = "abcdefghijklmnopqrstuvwxyz"
	part := func(from, to int) [2]int { return [2]int{from, to} }
	eachBase(t, func(t *testing.T, b base) {
		for _, c := range []struct {
			name  string
			parts [][2]int
		}{
			{"in order", [][2]int{part(0, 10), part(10, 26)}},
			{"duplicate", [][2]int{part(0, 10), part(0, 10), part(10, 26), part(10, 26)}},
			{"partly old", [][2]int{part(0, 10), part(5, 26)}},
			{"one octet old", [][2]int{part(0, 10), part(9, 26)}},
			{"reversed", [][2]int{part(20, 26), part(10, 20), part(0, 10)}},
			{"gap filled by more than the gap", [][2]int{part(5, 10), part(15, 20), part(0, 26)}},
			{"overlapping gaps", [][2]int{part(10, 15), part(12, 20), part(8, 11), part(19, 26), part(0, 9)}},
			{"inside what is held", [][2]int{part(10, 26), part(12, 14), part(0, 10)}},
			{"meeting ranges", [][2]int{part(5, 10), part(10, 15), part(2, 5), part(15, 26), part(0, 2)}},
			{"octet by octet backwards", func() (p [][2]int) {
				for i := len(stream) - 1; i >= 0; i-- {
					p = append(p, part(i, i+1))
				}
				return p
			}()},
		} {
			t.Run(c.name, func(t *testing.T) {
				r := established(t, b)
				for _, p := range c.parts {
					r.send(r.data(p[0], stream[p[0]:p[1]]))
					if !strings.HasPrefix(stream, string(r.c.Peek())) {
						t.Fatalf("holds %q", r.c.Peek())
					}
				}
				r.holds(stream)
				if len(r.c.rcv.gaps) != 0 {
					t.Errorf("ranges %v are left", r.c.rcv.gaps)
				}
			})
		}
	})
}

func TestDuplicateAndEarlySegmentsAreAcknowledgedAtOnce(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.send(r.data(0, "abc"))
		r.bareACK(r.send(r.data(0, "abc")), 3)
		r.bareACK(r.send(r.data(6, "ghi")), 3)
		r.quiet(r.send(r.data(3, "def"))) // fills the gap: the router has to see it first
		r.holds("abcdefghi")
		r.bareACK(r.do(r.c.AckNow(r.now)), 9)
	})
}

// RFC 2018 §4: the first block is the newest range; at most 3 beside timestamps, 4 without.
func TestSACKBlocksNewestFirst(t *testing.T) {
	block := func(b base, from, to int) wire.Block {
		return wire.Block{Left: b.irs.Add(1 + from), Right: b.irs.Add(1 + to)}
	}
	eachBase(t, func(t *testing.T, b base) {
		for _, c := range []struct {
			name    string
			options []option
			n       int
		}{{"with timestamps", nil, 3}, {"without", []option{noTimestamps}, 4}, {"no SACK", []option{noSACK}, 0}} {
			r := established(t, b, c.options...)
			for _, at := range []int{10, 50, 30, 20, 40} {
				r.send(r.data(at, "12345"))
			}
			r.send(r.data(30, "12345")) // again: it becomes the newest
			s := r.one(r.do(r.c.Announce(r.now)))
			want := []wire.Block{block(b, 30, 35), block(b, 40, 45), block(b, 20, 25), block(b, 50, 55)}
			if s.Options.NSACK != c.n {
				t.Fatalf("%s: %d blocks", c.name, s.Options.NSACK)
			}
			for i := range c.n {
				if s.Options.SACK[i] != want[i] {
					t.Errorf("%s: block %d is %v, want %v", c.name, i, s.Options.SACK[i], want[i])
				}
			}
		}
	})
}

func TestSACKBlocksEndWithTheGaps(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		if s := r.bareACK(r.send(r.data(3, "def")), 0); s.Options.NSACK != 1 {
			t.Fatalf("%d blocks", s.Options.NSACK)
		}
		r.send(r.data(0, "abc"))
		if s := r.bareACK(r.do(r.c.AckNow(r.now)), 6); s.Options.NSACK != 0 {
			t.Errorf("%d blocks without a gap", s.Options.NSACK)
		}
	})
}

func TestTooManyGapsAreNotKept(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		for i := range maxGaps + 10 {
			r.bareACK(r.send(r.data(2+2*i, "x")), 0)
		}
		if n := len(r.c.rcv.gaps); n != maxGaps {
			t.Fatalf("%d ranges are kept", n)
		}
		r.send(r.data(3, strings.Repeat("x", 2*maxGaps))) // joins them
		if n := len(r.c.rcv.gaps); n != 1 {
			t.Errorf("%d ranges after they were joined", n)
		}
		r.send(r.data(0, "xxx"))
		r.holds(strings.Repeat("x", 3+2*maxGaps))
	})
}

func TestWindowIsRespectedToTheOctet(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.send(r.data(0, strings.Repeat("a", testFirst+1)))
		if n := len(r.c.Peek()); n != testFirst {
			t.Fatalf("%d octets are held, announced were %d", n, testFirst)
		}
		r.bareACK(r.do(r.c.AckNow(r.now)), testFirst)
		r.fill(testWindow)
		if s := r.sent[len(r.sent)-1]; s.Window != 0 {
			t.Errorf("window %d with W used up", s.Window)
		}
	})
}

// RFC 9293 §3.8.6: the edge on the wire never goes back, though a scaled window cannot name every edge. Only a request that
// comes within a unit of S+W is left to the rounding of RFC 7323 §2.4.
func TestEdgeOnTheWireNeverGoesBack(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		for _, step := range []int{1, 7, 100, 333} {
			r := established(t, b)
			last := b.irs.Add(1 + testFirst)
			for at := 0; at < testFirst-300; at += step {
				r.send(r.data(at, strings.Repeat("x", step)))
				s := r.bareACK(r.do(r.c.AckNow(r.now)), at+step)
				edge := s.Ack.Add(int(s.Window) << testScale)
				if edge.Before(last) && r.c.rcv.limit.Sub(last) >= 1<<testScale {
					t.Fatalf("octet %d in steps of %d: edge goes back by %d", at, step, last.Sub(edge))
				}
				last = edge
			}
		}
	})
}

// The right edge stays below S+W while S stays, whatever arrives, and moves on with S.
func TestEdgeMovesWithReceive(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.fill(1000)
		r.receive(1000) // less than a segment: not worth moving (silly window)
		if r.c.rcv.limit != b.irs.Add(1+testWindow) {
			t.Error("the limit moved by less than a segment")
		}
		r.fill(2000)
		r.receive(1000)
		r.fill(2001)
		if got := r.edge.Sub(b.irs) - 1; got < 2000+testFirst || got > 2000+testWindow {
			t.Errorf("edge %d octets from the start, want %d to %d", got, 2000+testFirst, 2000+testWindow)
		}
	})
}

func TestWindowReopensWithAnACK(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.fill(testWindow)
		r.receive(testWindow)
		r.now = r.now.Add(time.Millisecond)
		if s := r.bareACK(r.wait(0), testWindow); int(s.Window)<<testScale != testFirst {
			t.Errorf("window %d", s.Window)
		}
	})
}

func TestClientCanDeliverAllThatIsReadable(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		for _, announced := range []uint32{0, FirstWindow(testWindow, testScale)} {
			for _, step := range []int{1, 3, 64, 1000, testWindow} {
				r := established(t, b, func(c *Config) { c.Announced = announced })
				want := Readable(testWindow, testScale)
				for n := min(step, want); n < want; n += step {
					r.fill(n) // fails if the window shuts before
				}
				r.fill(want)
			}
		}
	})
}

func TestFirstWindowIsWholeUnits(t *testing.T) {
	for _, c := range []struct {
		w     uint32
		scale uint8
		want  uint32
	}{{32768, 7, 24576}, {2048, 0, 1536}, {128 * 5, 7, 128 * 3}, {16384, 14, 16384}, {65535, 0, 49152}} {
		if got := FirstWindow(c.w, c.scale); got != c.want {
			t.Errorf("W %d, scale %d: %d, want %d", c.w, c.scale, got, c.want)
		}
	}
}

// A forwarder that announced all of W leaves no room to round up in.
func TestEdgeStaysWithinWWhateverWasAnnounced(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b, func(c *Config) { c.Announced = 0 })
		for at := range 100 {
			r.send(r.data(at, "x"))
			r.bareACK(r.do(r.c.AckNow(r.now)), at+1) // the rig knows the limits
		}
	})
}

// RFC 9293 §3.8.6.1: a zero window still takes the ACK of a segment whose text it refuses, and answers probes.
func TestZeroWindowAnswersProbesAndTakesACKs(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.fill(testWindow)
		r.one(r.do(r.c.Write([]byte("hello"), r.now)))
		r.una = 5
		if s := r.bareACK(r.send(r.seg(testWindow, "b", wire.ACK|wire.FIN)), testWindow); s.Window != 0 {
			t.Errorf("window %d", s.Window)
		}
		if n := r.c.Queued(); n != 0 {
			t.Errorf("%d octets queued, the ACK was ignored", n)
		}
		r.in(Established)
		r.send(r.seg(testWindow, "b", wire.ACK|wire.RST))
		r.in(Closed)
	})
}

// RFC 9293 §3.8.4: a keepalive probe has the sequence number RCV.NXT-1 and is answered.
func TestKeepaliveProbeIsAnswered(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		for _, garbage := range []string{"", "\x00"} {
			r := established(t, b)
			r.bareACK(r.send(r.seg(-1, garbage, wire.ACK)), 0)
			r.holds("")
		}
	})
}

func TestWindowsWithoutScaling(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b, noScaling)
		r.send(r.data(0, "abc"))
		if s := r.bareACK(r.do(r.c.AckNow(r.now)), 3); s.Window != testFirst-3 {
			t.Errorf("window %d, want %d", s.Window, testFirst-3)
		}
		if r.c.snd.wnd != uint32(r.wnd) {
			t.Errorf("SND.WND %d, want %d", r.c.snd.wnd, r.wnd)
		}
	})
}

// RFC 7323 §2.3: a shift above 14 is taken as 14.
func TestScaleIsAtMost14(t *testing.T) {
	r := established(t, bases[0], func(c *Config) { c.Handshake.SndScale, c.Handshake.RcvScale = 15, 15 })
	if r.c.sndScale() != 14 || r.c.rcvScale() != 14 || r.c.snd.wnd != 10000<<14 {
		t.Errorf("shifts %d and %d, SND.WND %d", r.c.sndScale(), r.c.rcvScale(), r.c.snd.wnd)
	}
}

func TestWindowBeyond16BitsSlidesWithTheData(t *testing.T) {
	big := func(c *Config) { c.Window, c.Announced, c.Handshake.Scaling = 1<<20, 0, false }
	r := newRig(t, bases[1], big)
	r.send(r.data(0, "abc"))
	if s := r.bareACK(r.do(r.c.AckNow(r.now)), 3); s.Window != 0xffff {
		t.Errorf("window %d", s.Window)
	}
}

func TestReceivingMoreThanThereIsPanics(t *testing.T) {
	r := established(t, bases[0])
	r.send(r.data(5, "after a gap"))
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	r.receive(1)
}
