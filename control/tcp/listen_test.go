package tcp

import (
	"errors"
	"testing"
	"time"

	"baton/fastpath/wire"
)

// RFC 9293 §3.10.7.1: the exact fields of the RST that CLOSED answers with; a RST is never answered.
func TestClosedAnswersWithAnExactRST(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		for flags := range wire.Flags(64) {
			seg := wire.Segment{Seq: b.irs, Ack: b.iss, Flags: flags, Payload: []byte("abc")}
			got, ok := Reset(seg)
			switch {
			case flags.Has(wire.RST):
				if ok {
					t.Errorf("%v: answered", flags)
				}
			case flags.Has(wire.ACK):
				if !ok || got.Flags != wire.RST || got.Seq != b.iss || got.Ack != 0 {
					t.Errorf("%v: %+v", flags, got)
				}
			default:
				if !ok || got.Flags != wire.RST|wire.ACK || got.Seq != 0 || got.Ack != b.irs.Add(seg.Len()) {
					t.Errorf("%v: %+v", flags, got)
				}
			}
		}
	})
}

// RFC 9293 §3.10.7.2: RST, ACK, SYN, and the rest, in this order, for each combination of the six flags.
func TestListenAnswersEachCombinationOfFlags(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		for flags := range wire.Flags(64) {
			seg := syn(b)
			seg.Flags, seg.Ack, seg.Payload = flags, b.iss, []byte("early")
			c, a := testListener.Segment(config(b).Inc.Tuple, seg, b.iss, tsOffset, epoch)
			switch {
			case flags.Has(wire.RST):
				if c != nil || len(a.Segments) != 0 {
					t.Errorf("%v: %v", flags, a)
				}
			case flags.Has(wire.ACK):
				if c != nil || len(a.Segments) != 1 || a.Segments[0].Flags != wire.RST || a.Segments[0].Seq != b.iss {
					t.Errorf("%v: %v", flags, a)
				}
			case flags.Has(wire.SYN):
				// RFC 7413: data on a SYN is not acknowledged.
				if c == nil || c.State() != SynReceived || len(a.Segments) != 1 || a.Segments[0].Ack != b.irs+1 ||
					len(c.Peek()) != 0 {
					t.Errorf("%v: %v", flags, a)
				}
			default:
				if c != nil || len(a.Segments) != 0 {
					t.Errorf("%v: %v", flags, a)
				}
			}
		}
	})
}

// RFC 7323 §2.2, §2.3, §3.2, RFC 2018 §2, RFC 3168 §6.1.1: the SYN-ACK has what the SYN had, no ECE, and a window that is
// not scaled.
func TestSYNACKHasWhatTheSYNHad(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		for _, row := range []struct {
			name   string
			change func(*wire.Segment)
			want   wire.Options
			shake  wire.Handshake
		}{
			{"everything", func(*wire.Segment) {},
				wire.Options{MSS: 1460, HasScale: true, Scale: testScale, SACKPermitted: true, HasTimestamps: true, TSEcr: 0xffffffe0},
				wire.Handshake{MSS: 1000, OwnMSS: 1460, SndScale: 2, RcvScale: testScale, Scaling: true, SACK: true, Timestamps: true}},
			{"nothing", func(s *wire.Segment) { s.Options = wire.Options{} },
				wire.Options{MSS: 1460}, wire.Handshake{OwnMSS: 1460}},
			{"a scale above 14", func(s *wire.Segment) { s.Options = wire.Options{MSS: 536, HasScale: true, Scale: 15} },
				wire.Options{MSS: 1460, HasScale: true, Scale: testScale},
				wire.Handshake{MSS: 536, OwnMSS: 1460, SndScale: 14, RcvScale: testScale, Scaling: true}},
			{"ECN", func(s *wire.Segment) { s.Flags |= wire.ECE | wire.CWR; s.Options = wire.Options{MSS: 536} },
				wire.Options{MSS: 1460}, wire.Handshake{MSS: 536, OwnMSS: 1460}},
		} {
			seg := syn(b)
			row.change(&seg)
			c, a := testListener.Segment(config(b).Inc.Tuple, seg, b.iss, tsOffset, epoch)
			if c == nil || len(a.Segments) != 1 {
				t.Fatalf("%s: %v", row.name, a)
			}
			s := a.Segments[0]
			if row.want.HasTimestamps {
				row.want.TSVal = c.clock()
			}
			if s.Flags != wire.SYN|wire.ACK || s.Seq != b.iss || s.Ack != b.irs+1 || s.Window != testFirst || s.Options != row.want {
				t.Errorf("%s: sent %+v", row.name, s)
			}
			if c.cfg.Handshake != row.shake {
				t.Errorf("%s: agreed on %+v", row.name, c.cfg.Handshake)
			}
		}
	})
}

// RFC 9293 §3.8.3 and RFC 6298 §5.7: the SYN-ACK is repeated with backoff, the same each time, and then given up in silence.
func TestSYNACKIsRepeatedAndGivenUp(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := synReceived(t, b)
		start := r.now
		for _, at := range []int{1, 3, 7, 15, 31} {
			s := r.one(r.wait(time.Hour))
			if d := r.now.Sub(start); d != time.Duration(at)*time.Second || s.Flags != wire.SYN|wire.ACK || s.Seq != b.iss {
				t.Fatalf("%v at %d after %v", s.Flags, s.Seq, d)
			}
		}
		r.quiet(r.wait(time.Hour))
		r.in(Closed)
		if d := r.now.Sub(start); d != 63*time.Second || !errors.Is(r.c.Err(), ErrTimeout) {
			t.Errorf("given up after %v: %v", d, r.c.Err())
		}
	})
}

func TestRepeatedSYNGetsTheSameSYNACK(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := synReceived(t, b)
		r.now = r.now.Add(500 * time.Millisecond)
		s := r.one(r.send(syn(b)))
		if s.Flags != wire.SYN|wire.ACK || s.Seq != b.iss || s.Ack != b.irs+1 || s.Window != testFirst {
			t.Errorf("sent %+v", s)
		}
		r.in(SynReceived)
	})
}

// RFC 9293 §3.10.7.4, fifth, SYN-RECEIVED: the ACK of our SYN opens; the SYN-ACK's round trip is the first sample.
func TestACKOfTheSYNOpens(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := synReceived(t, b)
		r.quiet(r.do(r.c.Write([]byte("220 ready"), r.now))) // the server speaks first, but not yet
		r.now = r.now.Add(100 * time.Millisecond)
		r.ts += 100
		if s := r.one(r.send(r.seg(0, "", wire.ACK))); string(s.Payload) != "220 ready" || s.Seq != b.iss+1 {
			t.Errorf("sent %q at %d", s.Payload, s.Seq)
		}
		r.in(Established)
		if r.c.snd.srtt != 100*time.Millisecond || r.c.snd.wnd != 40000 {
			t.Errorf("SRTT %v, SND.WND %d", r.c.snd.srtt, r.c.snd.wnd)
		}
	})
}

// A lost third ACK is made up for by the first data segment, with its data.
func TestDataOnTheThirdACKIsTaken(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := synReceived(t, b)
		r.quiet(r.send(r.data(0, "HELO")))
		r.in(Established).holds("HELO")
		r = synReceived(t, b)
		r.send(r.seg(0, "HELO", wire.ACK|wire.FIN))
		r.in(CloseWait).holds("HELO")
	})
}

// RFC 6298 §5.7: after a lost SYN-ACK the RTO starts at 3 s.
func TestRTOAfterALostSYNACK(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := synReceived(t, b)
		r.one(r.wait(time.Second))
		r.send(r.seg(0, "", wire.ACK))
		r.in(Established).do(r.c.Write([]byte("x"), r.now))
		if d := r.c.Deadline().Sub(r.now); d != 3*time.Second {
			t.Errorf("RTO %v", d)
		}
	})
}

// RFC 9293 §3.10.7.4, SYN-RECEIVED: what is not the client's answer.
func TestSynReceivedRefuses(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		for _, una := range []int{-1, 1, 1 << 20} { // fifth: a bad ACK gets a RST
			r := synReceived(t, b)
			r.una = una
			s := r.one(r.send(r.data(0, "x")))
			if s.Flags != wire.RST || s.Seq != b.iss.Add(1+una) {
				t.Errorf("ACK of %d: sent %+v", una, s)
			}
			r.in(SynReceived).holds("")
			r.freeze()
			r.quiet(r.send(r.data(0, "x")))
		}
		r := synReceived(t, b) // first: out of the window
		r.bareACK(r.send(r.data(testFirst, "x")), 0)
		r.in(SynReceived)
		r.bareACK(r.send(r.seg(1, "", wire.RST)), 0) // second: in the window, not exact
		r.in(SynReceived)
		r.quiet(r.send(r.seg(0, "", wire.RST)))
		r.in(Closed)
		r = synReceived(t, b) // fourth: back to LISTEN
		r.quiet(r.send(r.seg(1, "", wire.SYN)))
		r.in(Closed)
		r = synReceived(t, b) // no ACK
		r.quiet(r.send(r.seg(0, "x", wire.PSH)))
		r.in(SynReceived).holds("")
	})
}

// RFC 9293 §3.10.4 and §3.10.5 in SYN-RECEIVED.
func TestCloseAndAbortInSynReceived(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := synReceived(t, b)
		r.quiet(r.do(r.c.CloseWrite(r.now)))
		if s := r.one(r.in(SynReceived).send(r.seg(0, "", wire.ACK))); !s.Flags.Has(wire.FIN) {
			t.Errorf("sent %v", s.Flags)
		}
		r.in(FinWait1)
		r = synReceived(t, b)
		if s := r.one(r.do(r.c.Abort(r.now))); !s.Flags.Has(wire.RST) || s.Seq != b.iss+1 {
			t.Errorf("sent %v at %d", s.Flags, s.Seq)
		}
		r.in(Closed)
	})
}

// RFC 9293 §3.10.7.4 and RFC 6191: a SYN that is later than all of the old connection may open a new one.
func TestSYNReopensTimeWait(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		for _, row := range []struct {
			name   string
			at     int    // sequence number, relative to RCV.NXT
			ts     uint32 // timestamp, relative to the last
			reopen bool
		}{
			{"later number", 1, 0, true},
			{"later timestamp", -5000, 1, true},
			{"neither", 0, 0, false},
			{"earlier", -5000, 0, false},
		} {
			r := timeWaiting(t, b)
			s := syn(b)
			s.Seq, s.Options.TSVal = r.c.rcv.nxt.Add(row.at), r.c.ts.recent+row.ts
			a := r.c.Segment(s, r.now)
			if a.Reopen != row.reopen || a.Closed != row.reopen {
				t.Errorf("%s: %+v", row.name, a)
			}
			if !row.reopen {
				continue
			}
			next, a := testListener.Segment(r.c.cfg.Inc.Tuple, s, r.c.snd.nxt.Add(1<<16), tsOffset, r.now)
			if next == nil || a.Segments[0].Ack != s.Seq+1 {
				t.Errorf("%s: no new connection: %v", row.name, a)
			}
		}
	})
}
