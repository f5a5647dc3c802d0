package tcp

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"baton/fastpath/wire"
)

// FuzzSegments feeds arbitrary segments and calls into every state. The rig checks what leaves; here only what must hold
// between calls is added. Input: base, state, then records of 12 octets: operation, flags, sequence and acknowledgment
// relative to where the connection is, window, length, timestamp and time steps.
func FuzzSegments(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0x10, 0, 0, 0, 0, 1, 0, 5, 0, 1, 1})
	f.Add([]byte{1, 3, 0, 0x11, 0, 0, 0, 0, 1, 0, 5, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 9, 9, 0, 1, 3, 0, 0, 0})
	f.Add([]byte{2, 1, 0, 0x10, 0, 9, 0, 0, 1, 0, 5, 0, 1, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 90})
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) < 2 || len(in) > 2+12*300 { // longer ones find nothing else, slowly
			return
		}
		r := states[State(in[1]%9)](t, bases[int(in[0])%len(bases)])
		for in = in[2:]; len(in) >= 12; in = in[12:] {
			r.fuzzStep(in[:12])
			r.invariants()
		}
	})
}

// TestRandomSegmentsInEveryState does without a fuzzer what FuzzSegments does, on the same seeds each time.
func TestRandomSegmentsInEveryState(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 3000 {
		r := states[State(i%9)](t, bases[i%len(bases)])
		for n := 0; n < 300 && r.c.State() != Closed; n++ {
			var in [12]byte
			for j := range in {
				in[j] = byte(rnd.Uint32())
			}
			if rnd.IntN(3) > 0 { // mostly near the connection's numbers
				in[2], in[4] = 0, 0
			}
			r.fuzzStep(in[:])
			r.invariants()
		}
	}
}

// fuzzStep does one operation.
func (r *rig) fuzzStep(in []byte) {
	r.now = r.now.Add(time.Duration(in[11]) * time.Duration(in[11]) * time.Millisecond)
	n := int(in[8])*8 + int(in[9])
	switch in[0] % 8 {
	case 0, 1, 2:
		s := r.seg(r.c.rcv.nxt.Sub(r.b.irs)-1+int(int16(binary.BigEndian.Uint16(in[2:]))), string(text(n)), wire.Flags(in[1]))
		s.Ack = r.c.snd.nxt.Add(-int(int16(binary.BigEndian.Uint16(in[4:]))))
		s.Window = binary.BigEndian.Uint16(in[6:])
		s.Options.TSVal += uint32(int32(int8(in[10])))
		r.send(s)
	case 3:
		r.do(r.c.Write(text(n), r.now))
	case 4:
		r.do(r.c.Tick(r.now))
	case 5:
		r.do(r.c.AckNow(r.now))
	case 6:
		r.receive(min(n, len(r.c.Peek())))
	case 7:
		r.fuzzCall(in[1])
	}
}

// fuzzCall does one of the rare operations.
func (r *rig) fuzzCall(which byte) {
	switch which % 5 {
	case 0:
		r.freeze()
	case 1:
		r.do(r.c.Thaw(r.now))
	case 2:
		r.do(r.c.Linger(r.now))
	case 3:
		if rec, err := r.c.ExportPlain("next", 1); err == nil {
			if c, err := Import(rec, testWindow, r.now); err != nil {
				r.t.Fatalf("own record is refused: %v", err)
			} else {
				r.c = c
			}
		}
	case 4:
		if r.now.UnixMilli()%16 == 0 { // rarely: it ends everything
			r.do(r.c.Abort(r.now))
		}
	}
}

// invariants hold between any two calls.
func (r *rig) invariants() {
	r.t.Helper()
	c := r.c
	if c.State() == Closed {
		if !c.Deadline().IsZero() {
			r.t.Fatal("CLOSED with a deadline")
		}
		return
	}
	rcv, snd := &c.rcv, &c.snd
	if rcv.nxt.Before(rcv.read) || rcv.edge.Before(rcv.nxt) || rcv.acked.After(rcv.nxt) || rcv.edge.After(rcv.limit) {
		r.t.Fatalf("receive space out of order: %+v", rcv)
	}
	if len(rcv.buf) > int(c.cfg.Window) || len(rcv.gaps) > maxGaps+1 {
		r.t.Fatalf("%d octets and %d ranges are held", len(rcv.buf), len(rcv.gaps))
	}
	for _, g := range rcv.gaps {
		if !g.Left.After(rcv.nxt) || !g.Right.After(g.Left) || g.Right.After(rcv.edge) {
			r.t.Fatalf("range %v with nxt %d", g, rcv.nxt)
		}
	}
	if snd.nxt.Before(snd.una) || snd.rtx.Before(snd.una) || snd.rtx.After(snd.nxt) {
		r.t.Fatalf("send space out of order: una %d rtx %d nxt %d", snd.una, snd.rtx, snd.nxt)
	}
	if !c.frozen && snd.queued() > 0 && c.timers.retransmit.IsZero() {
		r.t.Fatal("data is queued and no timer runs")
	}
	if !c.frozen && rcv.nxt != rcv.acked && c.timers.ack.IsZero() {
		r.t.Fatal("an acknowledgment is owed and no timer runs")
	}
}
