package tcp

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"baton/control/transfer"
	"baton/fastpath/wire"
)

func TestFreezeCancelsTheOwedACK(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.send(r.data(0, "GET /"))
		r.freeze()
		if !r.c.Deadline().IsZero() {
			t.Error("a deadline is left")
		}
		r.quiet(r.do(r.c.Tick(r.now.Add(time.Hour))))
		r.quiet(r.do(r.c.AckNow(r.now.Add(time.Hour))))
	})
}

// From the freeze on nothing leaves, in any state, whatever happens.
func TestFrozenConnectionIsSilent(t *testing.T) {
	for state, build := range states {
		t.Run(state.String(), func(t *testing.T) {
			eachBase(t, func(t *testing.T, b base) {
				for _, s := range []wire.Flags{wire.ACK, wire.ACK | wire.FIN, wire.SYN, wire.RST, wire.ACK | wire.PSH} {
					for _, at := range []int{-5, 0, 1, 5, testFirst, 1 << 30} {
						r := build(t, b)
						r.freeze()
						for range 4 { // enough for a fast retransmission
							r.quiet(r.send(r.seg(at, "text", s)))
							r.quiet(r.send(r.seg(at, "", s)))
						}
						r.quiet(r.do(r.c.Write([]byte("x"), r.now)))
						r.now = r.now.Add(time.Hour)
						r.quiet(r.do(r.c.Tick(r.now)))
						r.quiet(r.do(r.c.Linger(r.now)))
						r.quiet(r.do(r.c.Abort(r.now)))
						r.in(Closed)
					}
				}
			})
		})
	}
}

func TestSendingFromAFrozenConnectionPanics(t *testing.T) {
	r := established(t, bases[0])
	r.freeze()
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	r.c.emit(0, wire.ACK, nil)
}

func TestSegmentsBeforeTheExportStillCount(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.send(r.data(0, "GET "))
		r.freeze()
		r.quiet(r.send(r.data(4, "/"))) // punted before the forwarder froze the flow
		rec, err := r.c.ExportPlain("web", 1)
		if err != nil || string(rec.Data) != "GET /" {
			t.Fatalf("exported %q, %v", rec.Data, err)
		}
		r.quiet(r.send(r.data(5, "late"))) // the client will repeat it to the next owner
		r.holds("GET /")
	})
}

// A preview has the place where the record will begin, and changes nothing.
func TestPreviewIsTheRecordWithoutData(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.send(r.data(0, "GET /"))
		preview, err := r.c.Preview("web", 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := preview.Check(); err != nil || len(preview.Data) != 0 {
			t.Errorf("preview of %d octets: %v", len(preview.Data), err)
		}
		r.send(r.data(5, " more")) // the connection goes on
		r.freeze()
		rec, err := r.c.ExportPlain("web", 1)
		if err != nil || string(rec.Data) != "GET / more" {
			t.Fatalf("exported %q, %v", rec.Data, err)
		}
		if preview.ReadFrom != rec.ReadFrom || preview.SndNxt != rec.SndNxt || preview.Inc != rec.Inc {
			t.Errorf("preview from %d and %d, record from %d and %d", preview.ReadFrom, preview.SndNxt, rec.ReadFrom, rec.SndNxt)
		}
	})
}

func TestThawGoesOnAsIfNothingHadHappened(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.send(r.data(0, "GET /"))
		r.freeze()
		if _, err := r.c.ExportPlain("web", 1); err != nil {
			t.Fatal(err)
		}
		r.now = r.now.Add(time.Second)
		r.quiet(r.do(r.c.Thaw(r.now)))
		r.bareACK(r.wait(delayedACK), 5)
		r.send(r.data(5, "more"))
		r.holds("GET /more")
		r.quiet(r.do(r.c.Thaw(r.now))) // not frozen: nothing to do
		if s := r.one(r.do(r.c.Write([]byte("503"), r.now))); string(s.Payload) != "503" {
			t.Errorf("sent %q", s.Payload)
		}
	})
}

func TestThawSendsWhatWasWrittenMeanwhile(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.do(r.c.Write([]byte("one"), r.now))
		r.freeze()
		r.quiet(r.do(r.c.Write([]byte("two"), r.now)))
		r.now = r.now.Add(time.Hour) // a freeze does not count as the client's silence
		if s := r.one(r.do(r.c.Thaw(r.now))); string(s.Payload) != "two" {
			t.Errorf("sent %q", s.Payload)
		}
		if s := r.one(r.wait(time.Minute)); string(s.Payload) != "onetwo" || r.c.State() != Established {
			t.Errorf("then %q", s.Payload)
		}
	})
}

func TestExportRefusals(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		for state, build := range states {
			r := build(t, b)
			if _, err := r.c.ExportPlain("web", 1); !errors.Is(err, ErrNotFrozen) {
				t.Errorf("%v, not frozen: %v", state, err)
			}
			r.freeze()
			want := ErrNotOpen
			if state == Established || state == CloseWait {
				want = nil
			}
			if _, err := r.c.ExportPlain("web", 1); !errors.Is(err, want) {
				t.Errorf("%v: %v, want %v", state, err, want)
			}
		}
		r := established(t, b)
		r.do(r.c.Write([]byte("100 Continue"), r.now))
		r.freeze()
		if _, err := r.c.ExportPlain("web", 1); !errors.Is(err, ErrDataQueued) {
			t.Errorf("unacknowledged data: %v", err)
		}
		r.quiet(r.ack(12))
		if _, err := r.c.ExportPlain("web", 1); err != nil {
			t.Errorf("acknowledged data: %v", err)
		}
	})
}

// conversation is a connection that has been through something: an interim reply, consumed and unconsumed data, a gap.
func conversation(t testing.TB, b base, fin bool) *rig {
	r := established(t, b)
	r.send(r.data(0, "HELLO "))
	r.receive(6)
	r.do(r.c.Write([]byte("hi"), r.now))
	r.ack(2)
	r.now = r.now.Add(10 * time.Millisecond)
	r.ts += 10
	r.send(r.data(6, "GET "))
	r.do(r.c.AckNow(r.now))
	r.send(r.data(10, "/"))
	if fin {
		r.send(r.seg(11, "", wire.ACK|wire.FIN))
	} else {
		r.send(r.data(12, "gap"))
	}
	r.now = r.now.Add(time.Millisecond)
	return r
}

func TestRecordIsExact(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		for _, fin := range []bool{false, true} {
			r := conversation(t, b, fin)
			r.freeze()
			got, err := r.c.ExportPlain("web", 7)
			if err != nil {
				t.Fatal(err)
			}
			cfg := config(b)
			want := transfer.Record{
				Epoch: 7, Inc: cfg.Inc, Handshake: cfg.Handshake, Job: "web",
				ReadFrom: b.irs.Add(7), RcvNxt: b.irs.Add(12), RcvAcked: b.irs.Add(12), RcvEdge: r.edge, Data: []byte("GET /"),
				SndUna: b.iss.Add(3), SndNxt: b.iss.Add(3), SndWnd: 40000, SndWL1: r.c.snd.wl1, SndWL2: b.iss.Add(3),
				Unopened: 6, SndMaxWnd: 40000, TSOffset: tsOffset, TSLast: r.tsLast, TSRecent: r.ts,
				Recovery: transfer.Recovery{Cwnd: 10002, Ssthresh: 1<<31 - 1, RTO: time.Second, TimedEnd: b.iss.Add(3)},
				Clock:    transfer.Clock{Timed: 10*time.Millisecond + 1, Sent: 10*time.Millisecond + 1, Recent: 1, Heard: 1},
			}
			if fin {
				want.FIN, want.RcvNxt, want.RcvAcked = true, b.irs.Add(13), b.irs.Add(11)
				want.Waiting, want.Clock.ACK = 2, 40*time.Millisecond+1
			}
			if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b wire.Incarnation) bool { return a == b })); diff != "" {
				t.Errorf("FIN %v: %s", fin, diff)
			}
		}
	})
}

// moved exports a rig's connection and imports it again, the old owner staying behind frozen.
func (r *rig) moved() {
	r.t.Helper()
	old := r.c
	old.Freeze()
	rec, err := old.ExportPlain("next", 1)
	if err != nil {
		r.t.Fatal(err)
	}
	r.c, err = Import(rec, testWindow, r.now)
	if err != nil {
		r.t.Fatal(err)
	}
}

func TestAnnounceTakesNothingBack(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		for _, fin := range []bool{false, true} {
			r := conversation(t, b, fin)
			state := r.c.State()
			r.moved()
			r.in(state).holds("GET /")
			octets := 11
			if fin {
				octets = 12
			}
			r.bareACK(r.do(r.c.Announce(r.now)), octets) // the rig compares it with all that was sent before
			if r.one(r.do(r.c.Write([]byte("OK"), r.now))).Seq != b.iss.Add(3) {
				t.Error("the stream does not go on where it was")
			}
		}
	})
}

func TestExportOfAnImportIsTheSameRecord(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := conversation(t, b, true)
		r.freeze()
		first, err := r.c.ExportPlain("web", 7)
		if err != nil {
			t.Fatal(err)
		}
		c, err := Import(first, testWindow, r.now)
		if err != nil {
			t.Fatal(err)
		}
		c.Freeze()
		second, err := c.ExportPlain("web", 7)
		if err != nil {
			t.Fatal(err)
		}
		first.Hops++
		if diff := cmp.Diff(first, second, cmp.Comparer(func(a, b wire.Incarnation) bool { return a == b })); diff != "" {
			t.Error(diff)
		}
	})
}

func TestImportRepeatsUnacknowledgedData(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.freeze()
		rec, err := r.c.ExportPlain("web", 1)
		if err != nil {
			t.Fatal(err)
		}
		rec.SendData = []byte("sent,queued")
		rec.SndNxt = rec.SndUna.Add(5)
		if r.c, err = Import(rec, testWindow, r.now); err != nil {
			t.Fatal(err)
		}
		out := r.do(r.c.Announce(r.now))
		if len(out) != 2 || string(out[1].Payload) != "queued" {
			t.Fatalf("sent %v", out)
		}
		if s := r.one(r.wait(time.Minute)); string(s.Payload) != "sent,queued" {
			t.Errorf("repeated %q", s.Payload)
		}
	})
}

func TestImportRefusesBadRecords(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		for _, c := range []struct {
			name   string
			change func(*transfer.Record)
			want   error
		}{
			{"data missing", func(r *transfer.Record) { r.Data = r.Data[1:] }, ErrRecord},
			{"FIN without its number", func(r *transfer.Record) { r.FIN = true }, ErrRecord},
			{"ACK of what did not come", func(r *transfer.Record) { r.RcvAcked = r.RcvNxt.Add(1) }, ErrRecord},
			{"edge before the data", func(r *transfer.Record) { r.RcvEdge = r.RcvNxt.Add(-1) }, ErrRecord},
			{"flight without data", func(r *transfer.Record) { r.SndNxt = r.SndUna.Add(1) }, ErrRecord},
			{"negative flight", func(r *transfer.Record) { r.SndNxt = r.SndUna.Add(-1) }, ErrRecord},
			{"window too small", func(r *transfer.Record) { r.RcvEdge = r.ReadFrom.Add(testWindow + 1) }, ErrWindow},
			{"window just enough", func(r *transfer.Record) { r.RcvEdge = r.ReadFrom.Add(testWindow) }, nil},
		} {
			r := conversation(t, b, false)
			r.freeze()
			rec, err := r.c.ExportPlain("web", 1)
			if err != nil {
				t.Fatal(err)
			}
			c.change(&rec)
			if _, err := Import(rec, testWindow, r.now); !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", c.name, err, c.want)
			}
		}
	})
}

func TestTransferOfARequestThatCameInOneSegmentNeedsNoACK(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := newRig(t, b)
		request := "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
		r.send(r.data(0, request))
		r.freeze()
		rec, err := r.c.ExportPlain("web", 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.sent) != 0 || rec.RcvAcked != b.irs.Add(1) || rec.RcvEdge != b.irs.Add(1+testFirst) ||
			rec.ReadFrom != b.irs.Add(1) || string(rec.Data) != request {
			t.Errorf("sent %v, record %+v", r.sent, rec)
		}
	})
}

// Every state from ESTABLISHED on can be given away; the others say why not.
func TestEveryStateIsExported(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		for state, build := range states {
			r := build(t, b)
			if _, err := r.c.Export("next", 1); !errors.Is(err, ErrNotFrozen) {
				t.Errorf("%v, not frozen: %v", state, err)
			}
			r.freeze()
			rec, err := r.c.Export("next", 1)
			if want := map[State]error{SynReceived: ErrHandshake, Closed: ErrClosed}[state]; want != nil {
				if !errors.Is(err, want) {
					t.Errorf("%v: %v, want %v", state, err, want)
				}
				continue
			}
			if err != nil {
				t.Fatalf("%v: %v", state, err)
			}
			next, err := Import(rec, testWindow, r.now)
			if err != nil || next.State() != state || next.Queued() != r.c.Queued() || next.EOF() != r.c.EOF() {
				t.Errorf("%v became %v, %v", state, next.State(), err)
			}
		}
	})
}

func TestMoreThanARecordHoldsIsNotExported(t *testing.T) {
	r := established(t, bases[0])
	r.do(r.c.Write(make([]byte, transfer.MaxSendData), r.now))
	r.freeze()
	if _, err := r.c.Export("next", 1); err != nil {
		t.Errorf("as much as it holds: %v", err)
	}
	r.do(r.c.Thaw(r.now))
	r.c.Write([]byte("x"), r.now)
	r.c.Freeze()
	if _, err := r.c.Export("next", 1); !errors.Is(err, ErrTooLarge) {
		t.Errorf("an octet more: %v", err)
	}
}

// Time stands still from the freeze to the import, and to a thaw: all timers have left what they had.
func TestTimersHaveLeftWhatTheyHad(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		for _, thaw := range []bool{true, false} {
			r := established(t, b)
			r.do(r.c.Write([]byte("hello"), r.now))
			r.one(r.wait(time.Minute)) // one timeout: the next after 2 s
			r.now = r.now.Add(500 * time.Millisecond)
			r.send(r.data(0, "abc")) // the ACK is due in 40 ms
			r.c.Freeze()
			r.now = r.now.Add(10 * time.Second)
			if thaw {
				r.quiet(r.do(r.c.Thaw(r.now)))
			} else {
				rec, err := r.c.Export("next", 1)
				if err != nil {
					t.Fatal(err)
				}
				if r.c, err = Import(rec, testWindow, r.now); err != nil {
					t.Fatal(err)
				}
			}
			start := r.now
			r.bareACK(r.wait(time.Minute), 3)
			if d := r.now.Sub(start); d != delayedACK {
				t.Errorf("thaw %v: ACK after %v", thaw, d)
			}
			s := r.one(r.wait(time.Minute))
			if d := r.now.Sub(start); d != 1500*time.Millisecond || string(s.Payload) != "hello" {
				t.Errorf("thaw %v: %q after %v", thaw, s.Payload, d)
			}
			r.one(r.wait(time.Minute))
			if d := r.now.Sub(start); d != 5500*time.Millisecond {
				t.Errorf("thaw %v: then after %v", thaw, d)
			}
		}
	})
}

// A record of a kernel, or of anything else that does not know what is under way, starts as a new connection would.
func TestPlainRecordIsEnough(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := conversation(t, b, false)
		r.freeze()
		full, err := r.c.ExportPlain("web", 7)
		if err != nil {
			t.Fatal(err)
		}
		full.Recovery, full.Clock, full.Waiting, full.Unopened, full.SndMaxWnd = transfer.Recovery{}, transfer.Clock{}, 0, 0, 0
		full.RcvAcked = full.RcvAcked.Add(-1) // an ACK is owed
		if r.c, err = Import(full, testWindow, r.now); err != nil {
			t.Fatal(err)
		}
		r.in(Established).holds("GET /")
		r.bareACK(r.wait(delayedACK), 11)
		if n := len(r.do(r.c.Write(text(20000), r.now))); n != 10 {
			t.Errorf("%d segments at first", n)
		}
		full.Recovery.Phase = 9
		if _, err := Import(full, testWindow, r.now); !errors.Is(err, ErrRecord) {
			t.Errorf("unknown phase: %v", err)
		}
	})
}

// What came out of order goes along, and is not sent again by the client.
func TestRangesOutOfOrderGoAlong(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.send(r.data(10, "klm"))
		r.send(r.data(4, "ef"))
		r.send(r.seg(13, "", wire.ACK|wire.FIN))
		r.freeze()
		rec, err := r.c.Export("next", 1)
		if err != nil || len(rec.Early) != 2 || string(rec.Early[0].Data) != "ef" || !rec.EarlyFIN {
			t.Fatalf("%+v, %v", rec.Early, err)
		}
		if _, err := Import(rec, 8, r.now); !errors.Is(err, ErrWindow) {
			t.Errorf("a small window: %v", err)
		}
		if r.c, err = Import(rec, testWindow, r.now); err != nil {
			t.Fatal(err)
		}
		r.send(r.data(0, "abcd"))
		r.send(r.data(6, "ghij"))
		r.in(CloseWait).holds("abcdefghijklm")
	})
}
