package tcp

import (
	"errors"
	"testing"
	"time"

	"baton/fastpath/wire"
)

// RFC 5961 §3.2: RST counts at exactly RCV.NXT only, is challenged in the window and ignored outside.
func TestResetOnlyAtExactlyTheNextSequenceNumber(t *testing.T) {
	for state, build := range states {
		if state == Closed {
			continue
		}
		t.Run(state.String(), func(t *testing.T) {
			eachBase(t, func(t *testing.T, b base) {
				for _, c := range []struct {
					name   string
					offset int
					want   string
				}{
					{"exact", 0, "reset"}, {"one after", 1, "challenge"}, {"last in window", int(build(t, b).c.rcv.window()) - 1, "challenge"},
					{"edge", int(build(t, b).c.rcv.window()), "ignored"}, {"one before", -1, "ignored"},
				} {
					r := build(t, b)
					at := r.c.rcv.nxt.Sub(b.irs) - 1 + c.offset
					out := r.send(r.seg(at, "", wire.RST))
					switch c.want {
					case "reset":
						r.quiet(out)
						r.in(Closed)
						if err := r.c.Err(); (state == TimeWait) != (err == nil) || err != nil && !errors.Is(err, ErrReset) {
							t.Errorf("Err is %v", err)
						}
					case "challenge":
						r.one(out)
						r.in(state)
					case "ignored":
						r.quiet(out)
						r.in(state)
					}
				}
			})
		})
	}
}

// RFC 5961 §4.2: a SYN gets a challenge ACK in every synchronized state, whatever its sequence number.
func TestSYNIsChallenged(t *testing.T) {
	for state, build := range states {
		if state == Closed || state == SynReceived {
			continue
		}
		t.Run(state.String(), func(t *testing.T) {
			eachBase(t, func(t *testing.T, b base) {
				for _, offset := range []int{-100, 0, 1, 1 << 20} {
					if state == TimeWait && offset > 0 {
						continue // it opens a new connection
					}
					r := build(t, b)
					at := r.c.rcv.nxt.Sub(b.irs) - 1 + offset
					s := r.seg(at, "", wire.SYN)
					s.Options = wire.Options{MSS: 1460} // a new SYN does not know our timestamps
					r.bareACK(r.send(s), r.c.rcv.nxt.Sub(b.irs)-1)
					r.in(state)
				}
			})
		})
	}
}

// RFC 5961 §7: challenge ACKs are limited, here to one in 500 ms as in Linux and gVisor.
func TestChallengeACKsAreLimited(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		n := 0
		for range 200 {
			n += len(r.send(r.seg(5, "", wire.RST)))
			n += len(r.send(r.seg(0, "", wire.SYN)))
			n += len(r.send(r.seg(-1, "", wire.ACK)))
			r.now = r.now.Add(10 * time.Millisecond)
		}
		if n != 4 {
			t.Errorf("%d challenge ACKs in 2 s, want 4", n)
		}
	})
}

// RFC 9293 §3.10.7.4, fifth: without ACK the segment is dropped.
func TestSegmentWithoutACKIsDropped(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.quiet(r.send(r.seg(0, "abc", wire.PSH)))
		r.holds("")
		if !r.c.Deadline().IsZero() {
			t.Error("something is due")
		}
	})
}

// RFC 9293 §3.10.7.4, fifth, and RFC 5961 §5.2: which acknowledgments are taken, ignored, and refused with an ACK.
func TestACKField(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		for _, c := range []struct {
			name   string
			una    int // 100 octets were sent, 50 acknowledged
			taken  bool
			queued int
		}{
			{"of what was not sent", 101, false, 50},
			{"of everything", 100, true, 0},
			{"of one more", 51, true, 49},
			{"repeated", 50, true, 50},
			{"old", 49, true, 50},
			{"older than the largest window", 50 - 40001, false, 50},
			{"as old as the largest window", 50 - 40000, true, 50},
			{"half the sequence space away", 1 << 31, false, 50},
		} {
			t.Run(c.name, func(t *testing.T) {
				r := established(t, b)
				r.do(r.c.Write(make([]byte, 100), r.now))
				r.ack(50)
				recent := r.c.ts.recent
				r.ts += 100
				r.una = c.una
				out := r.send(r.data(0, "abc"))
				if r.c.Queued() != c.queued {
					t.Errorf("%d queued", r.c.Queued())
				}
				if c.taken {
					r.quiet(out)
					r.holds("abc")
					return
				}
				r.bareACK(out, 0)
				r.holds("")
				if r.c.ts.recent != recent {
					t.Error("TS.Recent changed")
				}
			})
		}
	})
}

// RFC 9293 §3.10.7.4, fifth: SND.WL1 and SND.WL2 keep an old segment's window out.
func TestOldSegmentDoesNotChangeTheWindow(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		for _, c := range []struct {
			name    string
			at, una int // the last update was at 5, acknowledging 50
			update  bool
		}{
			{"later sequence number", 6, 50, true},
			{"same segment, later ACK", 5, 51, true},
			{"same segment, same ACK", 5, 50, true},
			{"same segment, older ACK", 5, 49, false},
			{"earlier sequence number, though acceptable", 4, 50, false},
		} {
			r := established(t, b, noTimestamps)
			r.do(r.c.Write(make([]byte, 100), r.now))
			r.una = 50
			r.send(r.data(5, "early"))
			r.wnd, r.una = 77, c.una
			r.send(r.data(c.at, "text"))
			if got := r.c.snd.wnd == 77<<2; got != c.update {
				t.Errorf("%s: updated is %v", c.name, got)
			}
		}
	})
}

// RFC 9293 §3.8.5: the urgent pointer is advice; octets stay in line.
func TestUrgentDataIsReadInLine(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.send(r.seg(0, "abc", wire.ACK|wire.URG))
		r.holds("abc")
	})
}

// RFC 3168 §6.1: ECN was declined, so its bits mean nothing.
func TestECNBitsAreHarmless(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.send(r.seg(0, "abc", wire.ACK|wire.ECE|wire.CWR))
		r.holds("abc")
		if s := r.bareACK(r.do(r.c.AckNow(r.now)), 3); s.Flags != wire.ACK {
			t.Errorf("flags %v", s.Flags)
		}
	})
}

func TestClosedIsSilent(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := closed(t, b)
		r.quiet(r.send(r.data(0, "abc")))
		r.quiet(r.do(r.c.Tick(r.now.Add(time.Hour))))
		r.quiet(r.do(r.c.AckNow(r.now)))
		r.quiet(r.do(r.c.Write([]byte("x"), r.now)))
		r.quiet(r.do(r.c.Linger(r.now)))
		r.quiet(r.do(r.c.Abort(r.now)))
		if !r.c.Deadline().IsZero() || !errors.Is(r.c.Err(), ErrAborted) {
			t.Errorf("deadline %v, Err %v", r.c.Deadline(), r.c.Err())
		}
	})
}

func TestTransitionFromAWrongStatePanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	established(t, bases[0]).c.becomeLastAck()
}
