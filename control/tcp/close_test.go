package tcp

import (
	"errors"
	"strings"
	"testing"
	"time"

	"baton/fastpath/wire"
)

// RFC 9293 §3.6, case 2: the client closes first. It may wait for a response that is still to come.
func TestHalfClosedClientGetsItsResponse(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.quiet(r.send(r.seg(0, "request", wire.ACK|wire.FIN))) // the router has to see it first
		r.holds("request")
		if !r.in(CloseWait).c.EOF() {
			t.Fatal("no EOF")
		}
		r.bareACK(r.do(r.c.AckNow(r.now)), 8)
		r.one(r.do(r.c.Write([]byte("response"), r.now)))
		s := r.one(r.do(r.c.Linger(r.now)))
		if s.Flags != wire.FIN|wire.ACK || s.Seq != b.iss.Add(9) {
			t.Fatalf("sent %v at %d", s.Flags, s.Seq.Sub(b.iss))
		}
		r.in(LastAck).ack(8)
		r.in(LastAck)
		r.quiet(r.ack(9))
		r.in(Closed)
		if r.c.Err() != nil || !r.c.Deadline().IsZero() {
			t.Errorf("Err %v", r.c.Err())
		}
	})
}

// RFC 9293 §3.6, case 1: we close first.
func TestOurCloseEndsInTimeWait(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := finWait1(t, b)
		r.quiet(r.ack(1))
		r.in(FinWait2)
		r.bareACK(r.send(r.seg(0, "", wire.ACK|wire.FIN)), 1)
		r.in(TimeWait)
		r.bareACK(r.send(r.seg(0, "", wire.ACK|wire.FIN)), 1) // its ACK was lost
		r.quiet(r.wait(timeWait))
		r.in(Closed)
		if r.c.Err() != nil {
			t.Errorf("Err %v", r.c.Err())
		}
	})
}

func TestFINThatAcknowledgesOursEndsInTimeWait(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := finWait1(t, b)
		r.una = 1
		r.bareACK(r.send(r.seg(0, "", wire.ACK|wire.FIN)), 1)
		r.in(TimeWait)
	})
}

// RFC 9293 §3.6, case 3: both close at once.
func TestSimultaneousClose(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := finWait1(t, b)
		r.bareACK(r.send(r.seg(0, "", wire.ACK|wire.FIN)), 1)
		r.in(Closing).ack(1)
		r.in(TimeWait)
	})
}

func TestEarlyFINWaitsForTheData(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.bareACK(r.send(r.seg(3, "def", wire.ACK|wire.FIN)), 0)
		if r.in(Established).c.EOF() {
			t.Fatal("EOF before the data")
		}
		r.send(r.data(0, "abc"))
		r.in(CloseWait).holds("abcdef")
		r.bareACK(r.do(r.c.AckNow(r.now)), 7)
	})
}

func TestFINAlone(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		for _, early := range []bool{false, true} {
			r := established(t, b)
			if early {
				r.send(r.seg(3, "", wire.ACK|wire.FIN))
				r.in(Established).send(r.data(0, "abc"))
			} else {
				r.send(r.data(0, "abc"))
				r.send(r.seg(3, "", wire.ACK|wire.FIN))
			}
			r.in(CloseWait).holds("abc")
			r.bareACK(r.send(r.seg(3, "", wire.ACK|wire.FIN)), 4)
		}
	})
}

func TestDataAfterFINIsIgnored(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.send(r.seg(3, "", wire.ACK|wire.FIN))
		r.send(r.data(0, "abcLATE"))
		r.in(CloseWait).holds("abc")
		r.send(r.data(4, "later"))
		r.holds("abc")

		r = established(t, b)
		r.send(r.data(5, "held"))
		r.send(r.seg(3, "", wire.ACK|wire.FIN)) // cannot be: data after it is held
		r.send(r.data(0, "abcde"))
		r.in(Established).holds("abcdeheld")
	})
}

func TestFINInTheLastOctetOfTheWindow(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		text := strings.Repeat("a", testFirst-1)
		r.send(r.seg(0, text, wire.ACK|wire.FIN))
		r.in(CloseWait).holds(text)

		r = established(t, b)
		r.send(r.seg(0, text+"a", wire.ACK|wire.FIN)) // one too far: the client has to repeat it
		r.in(Established).holds(text + "a")
	})
}

// A 4xx must not be lost to a RST because the client is still sending its request (RFC 2525 §2.17).
func TestLingeringCloseTakesWhatTheClientStillSends(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.send(r.data(0, "POST "))
		out := r.do(r.c.Write([]byte("413"), r.now))
		r.one(out)
		r.one(r.do(r.c.Linger(r.now)))
		at := 5
		for range 20 { // far more than W
			text := strings.Repeat("x", 1000)
			r.send(r.data(at, text))
			at += len(text)
			r.holds("")
		}
		r.ack(4)
		r.in(FinWait2)
		r.bareACK(r.send(r.data(at, "x")), at+1)
		r.bareACK(r.send(r.data(at+5, "early")), at+1)
		r.bareACK(r.send(r.data(at+1, "fill")), at+10)
		r.bareACK(r.send(r.seg(at+10, "", wire.ACK|wire.FIN)), at+11)
		r.in(TimeWait)
	})
}

func TestLingeringEnds(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := finWait2(t, b)
		r.quiet(r.wait(lingerIdle)) // a RST would only do harm now
		r.in(Closed)
		if r.c.Err() != nil {
			t.Errorf("Err %v", r.c.Err())
		}

		r = finWait2(t, b)
		start := r.now
		for at := 0; r.c.State() != Closed; at++ {
			r.bareACK(r.send(r.data(at, "x")), at+1)
			r.wait(time.Second)
		}
		if d := r.now.Sub(start); d != lingerTotal {
			t.Errorf("a dripping client held it for %v", d)
		}
	})
}

func TestClientThatNeverTakesTheResponseIsAborted(t *testing.T) {
	eachBase(t, func(t *testing.T, b base) {
		r := established(t, b)
		r.wnd = 0
		r.send(r.seg(0, "", wire.ACK))
		r.do(r.c.Write([]byte("response"), r.now))
		r.do(r.c.Linger(r.now))
		start := r.now
		for r.c.State() != Closed {
			for range r.wait(time.Second) { // the client answers each probe
				if r.c.State() != Closed {
					r.send(r.seg(0, "", wire.ACK))
				}
			}
		}
		last := r.sent[len(r.sent)-1]
		if d := r.now.Sub(start); d != closeTimeout || !last.Flags.Has(wire.RST) || !errors.Is(r.c.Err(), ErrTimeout) {
			t.Errorf("after %v, flags %v, Err %v", d, last.Flags, r.c.Err())
		}
	})
}

// TestDisownedConnectionIsReset: what was frozen says one thing more, from where its record ends.
func TestDisownedConnectionIsReset(t *testing.T) {
	r := established(t, bases[1])
	r.freeze()
	next := r.c.snd.nxt
	r.now = r.now.Add(time.Minute)
	s := r.one(r.do(r.c.Disown(r.now)))
	if s.Flags != wire.RST|wire.ACK || s.Seq != next || s.Ack != r.c.rcv.nxt {
		t.Errorf("sent %v at %d", s.Flags, s.Seq)
	}
	r.in(Closed)
}

func TestAbortSendsOneExactRST(t *testing.T) {
	for state, build := range states {
		if state == Closed || state == TimeWait {
			continue
		}
		r := build(t, bases[1])
		next := r.c.snd.nxt
		s := r.one(r.do(r.c.Abort(r.now)))
		if s.Flags != wire.RST|wire.ACK || s.Seq != next || s.Ack != r.c.rcv.nxt {
			t.Errorf("%v: sent %v at %d", state, s.Flags, s.Seq)
		}
		r.in(Closed)
	}
	r := timeWaiting(t, bases[1])
	r.quiet(r.do(r.c.Abort(r.now)))
	r.in(Closed)
}

func TestWriteAfterCloseWriteIsIgnored(t *testing.T) {
	r := finWait1(t, bases[0])
	r.quiet(r.do(r.c.Write([]byte("late"), r.now)))
	r.quiet(r.do(r.c.Linger(r.now)))
	if r.c.Queued() != 1 {
		t.Errorf("%d queued", r.c.Queued())
	}
}

func TestStatesPrintAsInTheRFC(t *testing.T) {
	if Established.String() != "ESTABLISHED" || FinWait1.String() != "FIN-WAIT-1" || Closed.String() != "CLOSED" {
		t.Error("names are shifted")
	}
}
