package router

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"baton/control/inspect"
	"baton/control/transfer"
	"baton/fastpath/flow"
	"baton/fastpath/wire"
)

// wantGiven checks that the client's connection is a target's, and that the router has let go of it.
func (w *world) wantGiven(c *client, host string) {
	w.t.Helper()
	if got := w.router.OwnerName(c.owner); c.owner == 0 || got != host {
		w.t.Errorf("owner %q, want %s", got, host)
	}
	w.wantEmpty()
}

// wantEmpty checks that the router keeps nothing of any connection.
func (w *world) wantEmpty() {
	w.t.Helper()
	r := w.router
	if len(r.conns)+len(r.handing)+len(r.transfers) != 0 {
		w.t.Errorf("left: %d connections, %d handovers, %d transfers", len(r.conns), len(r.handing), len(r.transfers))
	}
	for _, t := range r.byOwner[1:] {
		if t.pending != 0 {
			w.t.Errorf("%s has %d transfers pending", t.name, t.pending)
		}
	}
}

// wantStatus checks that the client got one whole response and the end, and lets it close.
func (w *world) wantStatus(c *client, status string) {
	w.t.Helper()
	if !bytes.HasPrefix(c.got, []byte("HTTP/1.1 "+status+" ")) || !c.fin || c.rst {
		w.t.Errorf("got %q, fin %t, rst %t; want a response %s and a clean close", c.got, c.fin, c.rst, status)
	}
	c.finish()
	w.advance(5 * time.Second) // TIME-WAIT
	if !c.closed || c.rst {
		w.t.Errorf("closed %t, rst %t after both FINs", c.closed, c.rst)
	}
	w.wantEmpty()
}

// record is what the last commit to t1 carried.
func (w *world) record() transfer.Record {
	w.t.Helper()
	return w.recordOf("t1")
}

func (w *world) recordOf(host string) transfer.Record {
	w.t.Helper()
	m, ok := last[transfer.Commit](w.cluster, host)
	if !ok {
		w.t.Fatalf("no commit to %s", host)
	}
	rec, err := transfer.Decode(m.Record)
	if err != nil {
		w.t.Fatal(err)
	}
	return rec
}

func TestRequestIsRoutedWithoutASegmentToTheClient(t *testing.T) {
	w := newWorld(t)
	w.cluster.reply["t1"] = willing
	c := w.ask("a.example")
	w.wantGiven(c, "t1")
	if c.frames != 0 {
		t.Errorf("%d segments to the client, want none: the target speaks first", c.frames)
	}
	rec := w.record()
	if rec.Epoch != 7 || rec.Job != "web-a" || rec.Inc != c.inc || rec.RcvNxt != c.next || rec.RcvAcked != c.acked {
		t.Errorf("record %+v does not describe the connection", rec)
	}
	if want := "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"; string(rec.Data) != want {
		t.Errorf("record carries %q, want %q", rec.Data, want)
	}
}

func TestOfferDescribesTheConnection(t *testing.T) {
	w := newWorld(t)
	c := w.ask("b.example")
	o, ok := last[transfer.Offer](w.cluster, "t2")
	if !ok || o.Inc != c.inc || o.Epoch != 7 || o.Job != "web-b" || o.Window != window || o.MSS != 1460 || o.Bytes != 35 {
		t.Errorf("offer %+v (sent %t)", o, ok)
	}
}

func TestSplitRequestIsAcknowledgedUntilItDecides(t *testing.T) {
	w := newWorld(t)
	w.cluster.reply["t1"] = willing
	c := w.connect(4000)
	for _, b := range []byte("GET / HTTP/1.1\r\nHost: a.example\r\n\r") {
		c.send(string(b))
		if c.acked != c.next {
			t.Fatalf("octet before %d not acknowledged at once", c.next)
		}
	}
	before := c.acked
	c.send("\n")
	w.wantGiven(c, "t1")
	if c.acked != before {
		t.Error("the octet that decided was acknowledged by the router")
	}
	if rec := w.record(); rec.RcvAcked != before || rec.RcvNxt != c.next {
		t.Errorf("record: acked %d, next %d; want %d, %d", rec.RcvAcked, rec.RcvNxt, before, c.next)
	}
}

func TestRefusals(t *testing.T) {
	tests := []struct {
		name, send, status, cause string
	}{
		{"no rule", "GET / HTTP/1.1\r\nHost: none.example\r\n\r\n", "404", "no_match"},
		{"job without a host", "GET / HTTP/1.1\r\nHost: x.example\r\n\r\n", "503", "unavailable"},
		{"malformed", "GET / HTTP/1.1\nHost: a.example\r\n\r\n", "400", "malformed"},
		{"mixed", "GET / HTTP/1.1\r\nHost: a.example\r\n\r\nGET / HTTP/1.1\r\nHost: b.example\r\n\r\n", "400", "mixed"},
		{"too large", "GET / HTTP/1.1\r\nX: " + strings.Repeat("x", window-20), "431", "too_large"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			c := w.connect(4000)
			for chunk := range slices.Chunk([]byte(test.send), 1460) {
				c.send(string(chunk))
			}
			if want := []string{test.cause}; !slices.Equal(w.seen.refused, want) {
				t.Errorf("refusals %v, want %v", w.seen.refused, want)
			}
			w.wantStatus(c, test.status)
		})
	}
}

func TestSilentClientGets408(t *testing.T) {
	w := newWorld(t)
	c := w.connect(4000)
	c.send("GET / HT")
	w.advance(9 * time.Second)
	if len(c.got) > 0 {
		t.Fatalf("got %q before the timeout", c.got)
	}
	w.advance(2 * time.Second)
	w.wantStatus(c, "408")
}

func TestClientThatClosesWithoutARequestIsClosedToo(t *testing.T) {
	w := newWorld(t)
	c := w.connect(4000)
	c.send("GET /")
	c.finish()
	if !c.fin || len(c.got) > 0 {
		t.Errorf("fin %t, data %q; want only a FIN", c.fin, c.got)
	}
	c.segment(wire.ACK, "")
	if !c.closed {
		t.Error("flow is not closed")
	}
	w.wantEmpty()
}

func TestFINWithTheRequestTravelsInTheRecord(t *testing.T) {
	w := newWorld(t)
	w.cluster.reply["t1"] = willing
	c := w.connect(4000)
	c.segment(wire.ACK|wire.FIN|wire.PSH, "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
	w.wantGiven(c, "t1")
	if rec := w.record(); !rec.FIN || rec.RcvNxt != c.next {
		t.Errorf("FIN %t, RcvNxt %d; want true, %d", rec.FIN, rec.RcvNxt, c.next)
	}
}

func TestUnfitTargetsAreNoCandidates(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(*world)
		why   string
	}{
		{"not connected", func(w *world) { w.router.HostDown("t2") }, "t2: not connected"},
		{"not ready", func(w *world) {
			w.router.HostJobs("t2", []Job{{Name: "web-b", Service: service, Reason: "nobody listens"}})
		}, "t2: nobody listens"},
		{"job not announced", func(w *world) { w.router.HostJobs("t2", ready("web-a")) }, "t2: job not announced"},
		{"window too small", func(w *world) {
			w.router.HostJobs("t2", []Job{{Name: "web-b", Service: service, Ready: true, Window: window - 1}})
		}, "t2: first window 4095 is below the DVIPA's window 4096: raise"},
		{"no neighbour", func(w *world) {
			w.plane.answerARP = false
			w.advance(time.Minute)
		}, "t2: no neighbour"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.cluster.reply["t2"] = willing
			test.spoil(w)
			w.run()
			c := w.ask("b.example")
			if a := w.router.history.recent()[0]; a.Outcome != "no_candidate" || !strings.Contains(a.Reason, test.why) {
				t.Errorf("attempt %s: %q, want no_candidate: %q", a.Outcome, a.Reason, test.why)
			}
			w.wantStatus(c, "503")
		})
	}
}

func TestRejectedOfferGoesToTheNextTarget(t *testing.T) {
	w := newWorld(t)
	w.cluster.reply["t1"] = unwilling
	w.cluster.reply["t2"] = willing
	c := w.ask("a.example")
	w.wantGiven(c, "t2")
	if want := []string{"rejected t1", "switched t2"}; !slices.Equal(w.seen.ended, want) {
		t.Errorf("outcomes %v, want %v", w.seen.ended, want)
	}
	if a := w.router.history.recent(); len(a) != 2 || a[1].Reason != "capacity" || a[0].Bytes == 0 {
		t.Errorf("attempts %+v", a)
	}
}

func TestAllTargetsRejectGives503(t *testing.T) {
	w := newWorld(t)
	w.cluster.reply["t1"] = unwilling
	w.cluster.reply["t2"] = unwilling
	c := w.ask("a.example")
	w.wantStatus(c, "503")
}

func TestUnansweredOfferIsReleasedAndGoesOn(t *testing.T) {
	w := newWorld(t)
	w.cluster.reply["t2"] = willing
	c := w.ask("a.example") // t1 is silent
	w.advance(199 * time.Millisecond)
	if c.owner != 0 {
		t.Fatal("given before the offer timed out")
	}
	w.advance(time.Millisecond)
	w.wantGiven(c, "t2")
	if _, ok := last[transfer.Release](w.cluster, "t1"); !ok {
		t.Error("the unanswered offer was not released")
	}
	offer, _ := last[transfer.Offer](w.cluster, "t1")
	w.cluster.sent = nil
	w.router.HostSays("t1", transfer.OfferReply{Transfer: offer.Transfer, Accepted: true})
	w.run()
	if m, ok := last[transfer.Release](w.cluster, "t1"); !ok || m.Transfer != offer.Transfer {
		t.Error("the late reservation was not released")
	}
}

func TestLostConfirmIsQueried(t *testing.T) {
	tests := []struct {
		name  string
		state transfer.FlowState
		owner string
	}{
		{"lives", transfer.FlowLive, "t1"},
		{"never arrived", transfer.FlowUnknown, "t2"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.cluster.reply["t2"] = willing
			w.cluster.reply["t1"] = func(m transfer.Message) transfer.Message {
				switch m := m.(type) {
				case transfer.Offer:
					return willing(m)
				case transfer.Query:
					return transfer.QueryReply{Transfer: m.Transfer, Inc: m.Inc, State: test.state, RcvNxt: w.record().RcvNxt}
				}
				return nil // the commit's answer is lost
			}
			c := w.ask("a.example")
			w.advance(999 * time.Millisecond)
			if c.owner != 0 || c.frames != 0 {
				t.Fatalf("owner %d, %d segments while nobody knows who owns it", c.owner, c.frames)
			}
			w.advance(time.Millisecond)
			w.wantGiven(c, test.owner)
		})
	}
}

func TestTargetLostWhileOffering(t *testing.T) {
	w := newWorld(t)
	w.cluster.reply["t2"] = willing
	c := w.ask("a.example")
	w.router.HostDown("t1")
	w.run()
	w.wantGiven(c, "t2")
	if w.seen.ended[0] != "peer_lost t1" {
		t.Errorf("outcomes %v", w.seen.ended)
	}
}

func TestTargetWhoseStreamTakesNoOfferIsSkipped(t *testing.T) {
	w := newWorld(t)
	w.cluster.down = map[string]bool{"t1": true}
	w.cluster.reply["t2"] = willing
	w.wantGiven(w.ask("a.example"), "t2")
}

func TestTargetLostAfterTheCommitIsAskedWhenItIsBack(t *testing.T) {
	w := newWorld(t)
	w.cluster.reply["t1"] = func(m transfer.Message) transfer.Message {
		if _, ok := m.(transfer.Offer); ok {
			return willing(m)
		}
		return nil
	}
	c := w.ask("a.example")
	w.router.HostDown("t1")
	w.advance(2 * time.Second)
	if c.owner != 0 || c.frames != 0 || c.closed {
		t.Fatalf("owner %d, %d segments, closed %t: after the commit only the target decides", c.owner, c.frames, c.closed)
	}
	w.cluster.reply["t1"] = func(m transfer.Message) transfer.Message {
		if q, ok := m.(transfer.Query); ok {
			return transfer.QueryReply{Transfer: q.Transfer, Inc: q.Inc, State: transfer.FlowLive, RcvNxt: c.next}
		}
		return nil
	}
	w.router.HostUp("t1")
	w.run()
	w.wantGiven(c, "t1")
}

func TestNobodyToAskEndsInOneReset(t *testing.T) {
	w := newWorld(t)
	w.cluster.reply["t1"] = func(m transfer.Message) transfer.Message {
		if _, ok := m.(transfer.Offer); ok {
			return willing(m)
		}
		return nil
	}
	c := w.ask("a.example")
	w.advance(14 * time.Second)
	if c.frames != 0 {
		t.Errorf("%d segments before it is given up", c.frames)
	}
	w.advance(2 * time.Second)
	if c.frames != 1 || !c.rst || !c.closed || c.owner != 0 || w.router.count.Aborted != 1 {
		t.Errorf("%d segments, RST %t, closed %t, owner %d; want one RST and a forgotten flow", c.frames, c.rst, c.closed, c.owner)
	}
	w.wantEmpty()
}

func TestConnectionIsNotTakenAgain(t *testing.T) {
	given := func(m transfer.Message) transfer.Message { return willing(m) }
	silent := func(m transfer.Message) transfer.Message {
		if _, ok := m.(transfer.Offer); ok {
			return willing(m)
		}
		return nil
	}
	for name, reply := range map[string]func(transfer.Message) transfer.Message{
		"aborted, nobody could be asked": silent,
		"ended at its target":            given,
		"refused":                        unwilling,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.cluster.reply["t1"], w.cluster.reply["t2"] = reply, unwilling
			c := w.ask("a.example")
			w.advance(time.Minute)
			if name == "refused" {
				c.finish()
				w.advance(time.Minute)
			} else {
				w.router.HostSays("t1", transfer.EndReport{Inc: c.inc})
				w.run()
			}
			sent := len(w.cluster.sent)
			again := w.connect(4000) // the first segment once more; its cookie is still valid
			again.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
			if again.frames != 0 || !again.closed || len(w.cluster.sent) != sent || w.router.count.Repeated != 1 {
				t.Errorf("%d segments, closed %t, %d messages, %d repeated; want silence", again.frames, again.closed,
					len(w.cluster.sent)-sent, w.router.count.Repeated)
			}
			w.wantEmpty()
		})
	}
}

func TestClientResetsInEachPhase(t *testing.T) {
	silentAfter := func(offers bool) func(transfer.Message) transfer.Message {
		return func(m transfer.Message) transfer.Message {
			if _, ok := m.(transfer.Offer); ok && offers {
				return willing(m)
			}
			return nil
		}
	}
	const request = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
	tests := []struct {
		name     string
		slow     bool // the lcore has not frozen the flow
		accepted bool
		ask      string
		released bool
		held     int
	}{
		{name: "reading", ask: "GET / HT"},
		{name: "offering, not frozen", slow: true, ask: request, released: true},
		{name: "accepted, not frozen", slow: true, accepted: true, ask: request, released: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.plane.slow = test.slow
			w.cluster.reply["t1"] = silentAfter(test.accepted)
			c := w.connect(4000)
			c.send(test.ask)
			if f := w.plane.flows[c.flow]; f.frozen {
				f.frozen = false // the RST was punted before the freeze took effect
				c.segment(wire.RST, "")
				f.frozen = true
			} else {
				c.segment(wire.RST, "")
			}
			w.plane.report()
			w.run()
			if _, ok := last[transfer.Release](w.cluster, "t1"); ok != test.released {
				t.Errorf("released %t, want %t", ok, test.released)
			}
			if !c.closed || c.rst || len(c.got) > 0 {
				t.Errorf("closed %t, rst %t, data %q", c.closed, c.rst, c.got)
			}
			w.advance(time.Second)
			w.wantEmpty()
		})
	}
}

func TestResetAfterTheFreezeGoesToTheTarget(t *testing.T) {
	w := newWorld(t)
	w.cluster.reply["t1"] = func(m transfer.Message) transfer.Message {
		if _, ok := m.(transfer.Offer); ok {
			return willing(m)
		}
		return nil
	}
	c := w.ask("a.example")
	c.segment(wire.RST, "")
	commit, _ := last[transfer.Commit](w.cluster, "t1")
	w.router.HostSays("t1", transfer.Confirm{Transfer: commit.Transfer, Imported: true, RcvNxt: w.record().RcvNxt})
	w.run()
	w.wantGiven(c, "t1")
	if c.flushed != 1 || w.router.history.recent()[0].Held != 1 {
		t.Errorf("%d frames flushed, want the RST", c.flushed)
	}
}

func TestDataThatArrivesBeforeTheFreezeIsInTheRecord(t *testing.T) {
	w := newWorld(t)
	w.plane.slow = true
	w.cluster.reply["t1"] = willing
	c := w.connect(4000)
	c.send("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 10\r\n\r\n")
	w.plane.flows[c.flow].frozen = false
	c.send("hello")
	w.plane.flows[c.flow].frozen = true
	c.send("world")
	w.plane.slow = false
	w.plane.report()
	w.run()
	w.wantGiven(c, "t1")
	if rec := w.record(); !bytes.HasSuffix(rec.Data, []byte("\r\n\r\nhello")) || c.flushed != 1 {
		t.Errorf("record ends in %q, %d frames flushed; want hello in the record and world flushed", rec.Data, c.flushed)
	}
	if c.frames != 0 {
		t.Errorf("%d segments from a frozen connection", c.frames)
	}
}

func TestSecondRequestForAnotherJobBeforeTheFreezeGets400(t *testing.T) {
	w := newWorld(t)
	w.plane.slow = true
	w.cluster.reply["t1"] = willing
	c := w.ask("a.example")
	w.plane.flows[c.flow].frozen = false
	c.send("GET / HTTP/1.1\r\nHost: b.example\r\n\r\n")
	w.plane.slow = false
	w.plane.report()
	w.run()
	if _, ok := last[transfer.Commit](w.cluster, "t1"); ok {
		t.Error("committed although the requests in hand do not go together")
	}
	if _, ok := last[transfer.Release](w.cluster, "t1"); !ok {
		t.Error("reservation was not released")
	}
	w.wantStatus(c, "400")
}

func TestNewIncarnationDuringATransfer(t *testing.T) {
	w := newWorld(t)
	old := w.ask("a.example") // t1 is silent
	w.plane.punts = append(w.plane.punts, flow.Punt{Kind: flow.Gone, Flow: old.flow})
	delete(w.plane.flows, old.flow)
	w.run()
	if _, ok := last[transfer.Release](w.cluster, "t1"); !ok {
		t.Error("the old incarnation's offer was not released")
	}
	w.cluster.reply["t1"] = willing
	c := w.connect(4000)
	c.inc.IRS, c.next = c.inc.IRS+1000, c.next+1000
	c.acked, c.edge = c.next, c.next.Add(window)
	c.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
	w.wantGiven(c, "t1")
	if rec := w.record(); rec.Inc != c.inc {
		t.Errorf("record of %v, want the new incarnation", rec.Inc)
	}
}

func TestEndReportRemovesItsIncarnation(t *testing.T) {
	w := newWorld(t)
	w.cluster.reply["t1"] = willing
	c := w.ask("a.example")
	older := c.inc
	older.IRS--
	w.router.HostSays("t1", transfer.EndReport{Inc: older})
	w.router.HostSays("t1", transfer.EndReport{Inc: c.inc})
	w.run()
	if want := []wire.Incarnation{older, c.inc}; !slices.Equal(w.plane.removed, want) {
		t.Errorf("removed %v, want each by its own incarnation %v", w.plane.removed, want)
	}
}

func TestEndReportDuringTheSwitchIsCarriedOutAfterIt(t *testing.T) {
	w := newWorld(t)
	w.cluster.reply["t1"] = willing
	w.plane.slow = true
	c := w.ask("a.example")
	w.plane.report() // frozen; the switch is reported later
	w.run()
	w.router.HostSays("t1", transfer.EndReport{Inc: c.inc})
	w.run()
	if want := []wire.Incarnation{c.inc}; c.owner == 0 || !slices.Equal(w.plane.removed, want) {
		t.Errorf("owner %d, removed %v; want the switch and then %v", c.owner, w.plane.removed, want)
	}
	w.plane.slow = false
	w.plane.report()
	w.run()
	w.wantGiven(c, "t1")
	if n := w.router.targets["t1"].active; n != 0 {
		t.Errorf("%d connections are alive, the only one has ended", n)
	}
}

func TestHintsOnlyAskTheOwner(t *testing.T) {
	tests := []struct {
		kind              flow.Kind
		state             transfer.FlowState
		removed, restored bool
	}{
		{flow.End, transfer.FlowLive, false, true},
		{flow.End, transfer.FlowEnded, true, false},
		{flow.End, transfer.FlowUnknown, true, false},
		{flow.End, transfer.FlowReserved, false, false},
		{flow.Idle, transfer.FlowLive, false, true},
		{flow.Idle, transfer.FlowEnded, true, false},
		{flow.Idle, transfer.FlowUnknown, true, false},
	}
	for _, test := range tests {
		t.Run(fmt.Sprintf("%d %s", test.kind, test.state), func(t *testing.T) {
			w := newWorld(t)
			w.cluster.reply["t1"] = func(m transfer.Message) transfer.Message {
				if q, ok := m.(transfer.Query); ok {
					return transfer.QueryReply{Inc: q.Inc, State: test.state}
				}
				return willing(m)
			}
			c := w.ask("a.example")
			hint := flow.Punt{Kind: test.kind, Owner: c.owner, Inc: wire.Incarnation{Tuple: c.inc.Tuple}}
			w.plane.punts = append(w.plane.punts, hint)
			w.run()
			if q, ok := last[transfer.Query](w.cluster, "t1"); !ok || q.Inc != c.inc {
				t.Errorf("query %v (sent %t), want the incarnation that t1 was given", q, ok)
			}
			if got := slices.Contains(w.plane.removed, c.inc); got != test.removed {
				t.Errorf("removed %t, want %t", got, test.removed)
			}
			if got := slices.Contains(w.plane.restored, restored{inc: c.inc, owner: c.owner}); got != test.restored {
				t.Errorf("restored %v, want one: %t", w.plane.restored, test.restored)
			}
		})
	}
}

func TestOrphanIsAskedAboutOnceAndGetsItsEntryBack(t *testing.T) {
	w := newWorld(t)
	lost := w.connect(4000).inc
	asked := map[string]int{}
	for host, state := range map[string]transfer.FlowState{"t1": transfer.FlowUnknown, "t2": transfer.FlowLive} {
		w.cluster.reply[host] = func(m transfer.Message) transfer.Message {
			asked[host]++
			inc := m.(transfer.Query).Inc
			if state == transfer.FlowLive {
				inc = lost
			}
			return transfer.QueryReply{Inc: inc, State: state}
		}
	}
	orphan := flow.Punt{Kind: flow.Orphan, Inc: wire.Incarnation{Tuple: lost.Tuple}, Frame: []byte("segment"), Port: 3}
	w.plane.punts = []flow.Punt{orphan, orphan}
	w.plane.busy = 1 // the frame is kept by then
	w.run()
	w.advance(10 * time.Millisecond)
	if asked["t1"] != 1 || asked["t2"] != 1 {
		t.Errorf("asked %v, want each once", asked)
	}
	owner := w.router.targets["t2"].owner
	if want := []restored{{lost, owner, 3, "segment"}}; !slices.Equal(w.plane.restored, want) {
		t.Errorf("restored %v, want %v", w.plane.restored, want)
	}
	if s := w.router.count; s.OrphansLive != 1 || s.Orphans != 2 || s.OrphansAsked != 1 {
		t.Errorf("counts %+v", s)
	}
	if !w.router.past.has(lost) {
		t.Error("the incarnation could begin again")
	}
	w.router.HostSays("t2", transfer.QueryReply{Inc: lost, State: transfer.FlowLive})
	w.run()
	if want := (restored{inc: lost, owner: owner}); w.plane.restored[1] != want {
		t.Errorf("a second answer sends the segment again: %v", w.plane.restored[1])
	}
	w.advance(orphanMemory)
	w.plane.punts = []flow.Punt{orphan}
	w.run()
	if asked["t1"] != 2 {
		t.Errorf("asked %v after the memory of it ended, want again", asked)
	}
}

func TestFullRingDelaysCommandsInOrder(t *testing.T) {
	w := newWorld(t)
	w.cluster.reply["t1"] = willing
	w.plane.busy = 5
	c := w.ask("a.example")
	w.advance(10 * time.Millisecond)
	for range 10 {
		w.run()
	}
	w.wantGiven(c, "t1")
	if w.router.count.CommandsDelayed == 0 {
		t.Error("no command was delayed: the test tests nothing")
	}
}

func TestMoreConnectionsThanConfiguredAreNotTaken(t *testing.T) {
	w := newWorld(t)
	var all []*client
	for i := range 5 {
		c := w.connect(uint16(4000 + i))
		c.send("GET")
		all = append(all, c)
	}
	if !all[4].closed || all[4].frames != 0 || w.router.count.TableFull != 1 {
		t.Errorf("closed %t, %d segments, counted %d", all[4].closed, all[4].frames, w.router.count.TableFull)
	}
	if all[3].closed || all[3].acked != all[3].next {
		t.Error("a connection within the bound is not served")
	}
}

func TestSegmentOfAFlowThatTheRouterNeverSawClosesIt(t *testing.T) {
	w := newWorld(t)
	c := w.connect(4000)
	w.plane.flows[99] = &planeFlow{client: c}
	c.flow = 99
	c.send("GET")
	if !c.closed || w.router.count.UnknownFlows != 1 {
		t.Errorf("closed %t, counted %d; want the client's retransmission to begin anew",
			c.closed, w.router.count.UnknownFlows)
	}
}

func TestPhasesOfATransfer(t *testing.T) {
	w := newWorld(t)
	w.plane.slow = true
	c := w.ask("a.example")
	offer, _ := last[transfer.Offer](w.cluster, "t1")
	w.now = w.now.Add(10 * time.Microsecond)
	w.plane.report()
	w.run()
	w.now = w.now.Add(50 * time.Microsecond)
	w.router.HostSays("t1", transfer.OfferReply{Transfer: offer.Transfer, Accepted: true})
	w.run()
	w.now = w.now.Add(200 * time.Microsecond)
	w.router.HostSays("t1", transfer.Confirm{Transfer: offer.Transfer, Imported: true, RcvNxt: c.next})
	w.run()
	w.now = w.now.Add(5 * time.Microsecond)
	w.plane.report()
	w.run()
	a := w.router.history.recent()[0]
	us := time.Microsecond
	want := [phases]time.Duration{Frozen: 10 * us, Accepted: 60 * us, Confirmed: 200 * us, Switched: 5 * us}
	if a.Phases != want || a.Total != 265*time.Microsecond || a.Outcome != "switched" || a.Target != "t1" {
		t.Errorf("attempt %+v, want phases %v", a, want)
	}
	for _, p := range []string{"frozen", "accepted", "confirmed", "switched", "total"} {
		if w.seen.phases[p] != 1 {
			t.Errorf("phase %s observed %d times, want once", p, w.seen.phases[p])
		}
	}
}

func TestStatusSaysWhyATargetIsUnfit(t *testing.T) {
	w := newWorld(t)
	w.cluster.reply["t1"] = willing
	w.ask("a.example")
	w.router.HostDown("t2")
	w.run()
	rows := w.router.status()
	if len(rows) != 3 {
		t.Fatalf("%d rows, want two jobs of t1 and t2 alone: %+v", len(rows), rows)
	}
	if r := rows[0]; r.Host != "t1" || r.Unfit != "" || r.Active != 1 || r.MAC != targetMAC["t1"] {
		t.Errorf("t1: %+v", r)
	}
	if r := rows[2]; r.Host != "t2" || r.Unfit != "not connected" || r.Connected {
		t.Errorf("t2: %+v", r)
	}
}

// greeter is a routing application that speaks first: it answers each line, and consumes it, until one names a job.
type greeter struct{ greeted bool }

func (g *greeter) Inspect(data []byte) inspect.Decision {
	if !g.greeted {
		g.greeted = true
		return inspect.Decision{Reply: []byte("hello\n")}
	}
	line, _, ok := bytes.Cut(data, []byte("\n"))
	job, isJob := bytes.CutPrefix(line, []byte("JOB "))
	switch {
	case !ok:
		return inspect.Decision{}
	case isJob:
		return inspect.Decision{Verdict: inspect.Route, Job: string(job), Dialogue: greeterDialogue}
	case string(line) == "BYE":
		return inspect.Decision{Verdict: inspect.End, Reply: []byte("bye\n")}
	}
	return inspect.Decision{Reply: []byte("yes\n"), Consumed: len(line) + 1}
}

var greeterDialogue = []inspect.Turn{{Last: "hello"}, {Say: []byte("one\n"), More: "y", Last: "yes"}}

func (g *greeter) Refusal(inspect.Cause) []byte { return []byte("no\n") }

// greet is a world whose service speaks first, and a client that has been greeted.
func greet(t *testing.T) (*world, *client) {
	w := newWorld(t)
	w.cluster.reply["t1"] = willing
	w.router.services[service].NewSession = func() inspect.Session { return &greeter{} }
	c := w.connect(4000)
	c.segment(wire.ACK, "")
	if string(c.got) != "hello\n" {
		t.Fatalf("after its bare ACK the client got %q", c.got)
	}
	return w, c
}

func TestConsumedOctetsAreNotGiven(t *testing.T) {
	w, c := greet(t)
	c.send("one\ntwo\n")
	if want := "hello\nyes\nyes\n"; string(c.got) != want {
		t.Fatalf("client got %q, want %q", c.got, want)
	}
	from := c.next
	c.send("JOB web-a\nmore")
	w.wantGiven(c, "t1")
	rec := w.record()
	if string(rec.Data) != "JOB web-a\nmore" || rec.ReadFrom != from || rec.SndNxt != c.want {
		t.Errorf("record: reads %q from %d, sends from %d; want from %d, from %d", rec.Data, rec.ReadFrom, rec.SndNxt, from, c.want)
	}
}

// A target that has to play the dialogue gets it with the offer, and the record where it ends.
func TestOfferBringsTheDialogue(t *testing.T) {
	w, c := greet(t)
	c.send("one\n")
	from := c.next
	c.send("JOB web-a\n")
	o, ok := last[transfer.Offer](w.cluster, "t1")
	if !ok {
		t.Fatal("no offer")
	}
	want := []transfer.Turn{{Last: "hello"}, {Say: []byte("one\n"), More: "y", Last: "yes"}}
	if !reflect.DeepEqual(o.Dialogue.Turns, want) {
		t.Errorf("turns %+v, want %+v", o.Dialogue.Turns, want)
	}
	preview, err := transfer.Decode(o.Dialogue.Record)
	if err != nil {
		t.Fatal(err)
	}
	rec := w.record()
	if preview.ReadFrom != from || preview.SndNxt != rec.SndNxt || preview.Inc != c.inc || preview.Job != "web-a" ||
		len(preview.Data) != 0 {
		t.Errorf("preview %+v of %+v", preview, rec)
	}
	if string(rec.Data) != "JOB web-a\n" {
		t.Errorf("the commit carries %q", rec.Data)
	}
}

func TestRouteWaitsUntilAllIsAcknowledged(t *testing.T) {
	w, c := greet(t)
	w.advance(time.Millisecond)
	acked := c.want
	c.send("one\nJOB web-a\n") // acknowledges the greeting, but not the answer to the first line
	if c.owner != 0 || len(w.seen.ended) != 0 {
		t.Fatalf("given to %d with an answer under way; transfers: %v", c.owner, w.seen.ended)
	}
	c.put(wire.Segment{Seq: c.next, Ack: acked.Add(2), Flags: wire.ACK, Window: 60000}) // half of it
	if c.owner != 0 {
		t.Fatal("given with half an answer under way")
	}
	c.segment(wire.ACK, "")
	w.wantGiven(c, "t1")
	if rec := w.record(); string(rec.Data) != "JOB web-a\n" {
		t.Errorf("record carries %q", rec.Data)
	}
}

func TestAnswerThatIsNeverAcknowledgedTimesOut(t *testing.T) {
	w, c := greet(t)
	c.send("one\nJOB web-a\n")
	w.advance(10 * time.Second)
	if c.owner != 0 || !slices.Equal(w.seen.refused, []string{"timeout"}) {
		t.Errorf("owner %d, refused %v", c.owner, w.seen.refused)
	}
}

func TestClientEndsTheConversation(t *testing.T) {
	w, c := greet(t)
	c.send("BYE\n")
	if string(c.got) != "hello\nbye\n" || !c.fin || len(w.seen.refused) != 0 {
		t.Errorf("got %q, fin %t, refused %v", c.got, c.fin, w.seen.refused)
	}
	c.finish()
	w.advance(5 * time.Second)
	w.wantEmpty()
}
