package router

import (
	"slices"
	"strings"
	"testing"
	"time"

	"baton/control/transfer"
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// served gives a client's connection to t1, which has answered; it returns the client.
func (w *world) served() *client {
	w.t.Helper()
	w.cluster.reply["t1"], w.cluster.reply["t2"] = willing, willing
	c := w.ask("a.example")
	w.wantGiven(c, "t1")
	return c
}

// handBack has a host hand a connection back, as its kernel had it, with what unread octets it has and unsent ones.
func (w *world) handBack(host string, c *client, change ...func(*transfer.Assign, *transfer.Record)) transfer.ID {
	w.t.Helper()
	rec := transfer.Record{
		Epoch: 7, Inc: c.inc, Handshake: wire.Handshake{MSS: 1460, OwnMSS: 1460},
		ReadFrom: c.next, RcvNxt: c.next, RcvAcked: c.next, RcvEdge: seq.Max(c.edge, c.next.Add(window)),
		SndUna: c.want, SndNxt: c.want, SndWnd: 60000, SndWL1: c.next, SndWL2: c.want,
	}
	w.lastID++
	m := transfer.Assign{Offer: transfer.Offer{Transfer: w.lastID, Inc: c.inc, Epoch: 7,
		RecordVersion: transfer.RecordVersion, MSS: 1460, Window: window, Reserve: time.Second, From: "worker"}}
	for _, f := range change {
		f(&m, &rec)
	}
	rec.Job, rec.Hops = m.Offer.Job, m.Offer.Hops
	var err error
	if m.Record, err = rec.Encode(); err != nil {
		w.t.Fatal(err)
	}
	c.edge, c.acked = rec.RcvEdge, rec.RcvAcked
	w.router.HostSays(host, m)
	w.run()
	return m.Offer.Transfer
}

// wantConfirm checks what a host was told about its hand-back.
func (w *world) wantConfirm(host string, id transfer.ID, imported bool, reason transfer.Reason) {
	w.t.Helper()
	c, ok := last[transfer.Confirm](w.cluster, host)
	if !ok || c.Transfer != id || c.Imported != imported || c.Reason != reason {
		w.t.Fatalf("confirm %+v, want of %d: %t, %v", c, id, imported, reason)
	}
}

func toJob(job string) func(*transfer.Assign, *transfer.Record) {
	return func(m *transfer.Assign, _ *transfer.Record) { m.Offer.Job = job }
}

func TestHandedBackConnectionIsRoutedByItsNextRequest(t *testing.T) {
	w := newWorld(t)
	c := w.served()
	id := w.handBack("t1", c)
	w.wantConfirm("t1", id, true, transfer.ReasonNone)
	frames := c.frames
	c.send("GET / HTTP/1.1\r\nHost: b.example\r\n\r\n")
	w.wantGiven(c, "t2")
	if rec := w.recordOf("t2"); rec.Job != "web-b" || !strings.HasPrefix(string(rec.Data), "GET /") {
		t.Errorf("record for %q with %q", rec.Job, rec.Data)
	}
	if c.frames != frames || c.rst || c.fin {
		t.Errorf("the client noticed: %d frames, rst %t, fin %t", c.frames-frames, c.rst, c.fin)
	}
	if got := w.router.count.TakenBack; got != 1 {
		t.Errorf("taken back %d", got)
	}
}

func TestConnectionMayComeBackAgainAndAgain(t *testing.T) {
	w := newWorld(t)
	c := w.served()
	for i, host := range []string{"b.example", "a.example", "b.example"} {
		from := []string{"t1", "t2"}[i%2]
		w.wantConfirm(from, w.handBack(from, c), true, transfer.ReasonNone)
		c.send("GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
		w.wantGiven(c, []string{"t2", "t1"}[i%2])
	}
}

func TestUnsentOctetsAreSentBeforeItGoesOn(t *testing.T) {
	w := newWorld(t)
	c := w.served()
	w.handBack("t1", c, toJob("web-b"), func(m *transfer.Assign, r *transfer.Record) {
		m.Offer.State = []byte("state")
		r.Data, r.ReadFrom = []byte("unread"), r.ReadFrom.Add(-6)
		r.SendData, r.SndNxt, r.ToRepeat = []byte("unacked and unsent"), r.SndUna.Add(7), 7
	})
	if _, early := last[transfer.Offer](w.cluster, "t2"); early || string(c.got) != "unacked and unsent" {
		t.Fatalf("offered %t before the client acknowledged %q", early, c.got)
	}
	c.segment(wire.ACK, "")
	w.wantGiven(c, "t2")
	rec := w.recordOf("t2")
	if string(rec.Data) != "unread" || len(rec.SendData) != 0 || rec.SndNxt != c.want {
		t.Errorf("record %+v", rec)
	}
	o, _ := last[transfer.Offer](w.cluster, "t2")
	if string(o.State) != "state" || o.From != "worker" || o.FromHost != "t1" {
		t.Errorf("offer %+v", o)
	}
}

// unsent is what a giver had written and the client has not got.
func unsent(_ *transfer.Assign, r *transfer.Record) { r.SendData = []byte("unsent") }

// A client that takes long for what the giver has left gets its time; an end in the middle would look like the end of all.
func TestUnsentOctetsHaveLongerThanARequest(t *testing.T) {
	w := newWorld(t)
	c := w.served()
	w.handBack("t1", c, toJob("web-b"), unsent)
	w.advance(11 * time.Second)
	if c.fin || c.rst {
		t.Fatalf("fin %t, rst %t, before the client had to acknowledge", c.fin, c.rst)
	}
	c.segment(wire.ACK, "")
	w.wantGiven(c, "t2")
}

func TestClientThatNeverTakesUnsentOctetsIsReset(t *testing.T) {
	w := newWorld(t)
	c := w.served()
	w.handBack("t1", c, toJob("web-b"), unsent)
	for range 30 { // it says that it lives, and that its window is closed
		w.advance(5 * time.Second)
		c.put(wire.Segment{Seq: c.next, Ack: c.want.Add(-len("unsent")), Flags: wire.ACK})
	}
	if c.fin || !c.rst {
		t.Errorf("fin %t, rst %t, want an RST", c.fin, c.rst)
	}
}

func TestWhatCannotGoOnStaysWithItsGiver(t *testing.T) {
	for name, try := range map[string]struct {
		change func(*transfer.Assign, *transfer.Record)
		want   transfer.Reason
		config func(*Config)
	}{
		"unknown job":       {change: toJob("web-z"), want: transfer.ReasonUnknownJob},
		"unknown host":      {change: func(m *transfer.Assign, _ *transfer.Record) { m.Offer.Job, m.Offer.Host = "web-b", "t1" }, want: transfer.ReasonUnknownJob},
		"only at the giver": {change: func(m *transfer.Assign, _ *transfer.Record) { m.Offer.Job = "web-c" }, want: transfer.ReasonNotListening},
		"goes round":        {change: func(m *transfer.Assign, _ *transfer.Record) { m.Offer.Hops = transfer.MaxHops + 1 }, want: transfer.ReasonHops},
		"state for nobody":  {change: func(m *transfer.Assign, _ *transfer.Record) { m.Offer.State = []byte("x") }, want: transfer.ReasonHost},
		"too wide": {change: func(_ *transfer.Assign, r *transfer.Record) {
			r.RcvEdge = r.ReadFrom.Add(transfer.MaxData + 1)
		}, want: transfer.ReasonWindow},
		"the application would greet again": {change: toJob(""), want: transfer.ReasonHost, config: func(c *Config) {
			c.Services[0].Greets = true
		}},
		"no room": {change: toJob("web-b"), want: transfer.ReasonCapacity, config: func(c *Config) { c.MaxConns = 0 }},
		"no routing application": {change: toJob(""), want: transfer.ReasonNotListening, config: func(c *Config) {
			c.Services[0].External, c.Applications = true, &applications{absent: true}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := bareWorld(t, func(c *Config) { c.Jobs["web-c"] = []string{"t1"} })
			w.meet("web-a", "web-b", "web-c")
			c := w.served()
			if try.config != nil {
				try.config(&w.router.cfg)
			}
			w.wantConfirm("t1", w.handBack("t1", c, try.change), false, try.want)
			if c.owner != w.router.targets["t1"].owner || len(w.router.back.takes) != 0 || len(w.router.conns) != 0 {
				t.Errorf("owner %d, %d takes, %d connections", c.owner, len(w.router.back.takes), len(w.router.conns))
			}
		})
	}
}

// What is unsent needs a way to the client, which only the router's own memory knows.
func TestUnsentOctetsWithoutAWayToTheClientStay(t *testing.T) {
	w := newWorld(t)
	c := w.served()
	w.router.past = newMemory(1)
	w.wantConfirm("t1", w.handBack("t1", c, toJob("web-b"), unsent), false, transfer.ReasonHost)
	w.wantConfirm("t1", w.handBack("t1", c, toJob("web-b")), true, transfer.ReasonNone)
}

// A forwarder that does not answer leaves the connection with its giver; an answer that comes later changes nothing.
func TestSilentForwarderLeavesTheConnectionWithItsGiver(t *testing.T) {
	w := newWorld(t)
	c := w.served()
	w.plane.mute = true
	id := w.handBack("t1", c, toJob("web-b"))
	if _, told := last[transfer.Confirm](w.cluster, "t1"); told {
		t.Fatal("the giver was told before the forwarder had answered")
	}
	w.advance(transfer.DefaultLimits().Import + time.Millisecond)
	w.wantConfirm("t1", id, false, transfer.ReasonHost)
	w.plane.mute = false
	if err := w.plane.Adopt(0, c.inc, w.router.targets["t1"].owner); err != nil {
		t.Fatal(err)
	}
	w.run()
	if len(w.router.conns) != 0 || len(w.router.back.takes) != 0 || !c.closed {
		t.Errorf("%d connections, %d takes, flow closed %t", len(w.router.conns), len(w.router.back.takes), c.closed)
	}
}

func TestOnlyItsOwnerHandsAConnectionBack(t *testing.T) {
	w := newWorld(t)
	c := w.served()
	w.wantConfirm("t2", w.handBack("t2", c), false, transfer.ReasonLeftover)
	w.wantConfirm("t1", w.handBack("t1", c), true, transfer.ReasonNone)
}

func TestHandBackWaitsForTheSwitch(t *testing.T) {
	w := newWorld(t)
	w.cluster.reply["t1"] = willing
	w.plane.slow = true
	c := w.ask("a.example")
	w.plane.report() // frozen; the switch is reported later
	w.run()
	id := w.handBack("t1", c)
	if m, told := last[transfer.Confirm](w.cluster, "t1"); told {
		t.Fatalf("told %+v before the switch", m)
	}
	w.plane.slow = false
	w.plane.report()
	w.run()
	w.wantConfirm("t1", id, true, transfer.ReasonNone)
}

func TestLostConfirmationIsAnsweredByAQuery(t *testing.T) {
	w := newWorld(t)
	w.advance(transfer.DefaultTimeouts().GiveUp)
	c := w.served()
	ask := func(id transfer.ID) transfer.FlowState {
		w.router.HostSays("t1", transfer.Query{Transfer: id, Inc: c.inc})
		w.run()
		m, _ := last[transfer.QueryReply](w.cluster, "t1")
		return m.State
	}
	id := w.handBack("t1", c)
	if got := ask(id); got != transfer.FlowLive {
		t.Errorf("while the router has it: %v", got)
	}
	c.send("GET / HTTP/1.1\r\nHost: b.example\r\n\r\n")
	w.wantGiven(c, "t2")
	if got := ask(id); got != transfer.FlowEnded {
		t.Errorf("after it went on: %v", got)
	}
	if got := ask(id + 100); got != transfer.FlowUnknown {
		t.Errorf("of another transfer: %v", got)
	}
}

func TestYoungRouterDoesNotSayThatItNeverTook(t *testing.T) {
	w := newWorld(t)
	c := w.served()
	w.router.HostSays("t1", transfer.Query{Transfer: 99, Inc: c.inc})
	w.run()
	if m, ok := last[transfer.QueryReply](w.cluster, "t1"); !ok || m.State != transfer.FlowReserved {
		t.Errorf("reply %+v, want that it is not decided", m)
	}
}

func TestRoutingApplicationGetsTheConnectionAgain(t *testing.T) {
	w, c, a, s := externalWorld(t)
	s.read(5)
	w.wish(c, AppTransfer{Job: "web-a"})
	w.wantGiven(c, "t1")
	w.handBack("t1", c, func(m *transfer.Assign, _ *transfer.Record) { m.Offer.State = []byte("score") })
	if a.from.Host != "t1" || a.from.Name != "worker" || string(a.from.State) != "score" {
		t.Errorf("application got it from %+v", a.from)
	}
	c.send("more")
	if again := a.streams[c.flow]; again == nil || string(again.unread) != "more" {
		t.Fatalf("the application got %+v", again)
	}
	w.say(c, "answer")
	c.segment(wire.ACK, "")
	w.wish(c, AppTransfer{Job: "web-b"})
	w.wantGiven(c, "t2")
}

func TestRoutingApplicationDecidesWhenNobodyTakesIt(t *testing.T) {
	w, c, a, _ := externalWorld(t)
	w.wish(c, AppTransfer{Job: "web-a"})
	w.wantGiven(c, "t1")
	w.cluster.reply["t2"] = unwilling
	w.handBack("t1", c, toJob("web-b"))
	if _, offered := last[transfer.Offer](w.cluster, "t2"); !offered || a.from.Host != "t1" || a.streams[c.flow] == nil {
		t.Errorf("offered %t, application has it from %+v", offered, a.from)
	}
}

func TestClientIsToldWhenNobodyTakesItAndTheRouterIsBuiltIn(t *testing.T) {
	w := newWorld(t)
	c := w.served()
	w.cluster.reply["t2"] = unwilling
	w.handBack("t1", c, toJob("web-b"))
	if !strings.Contains(string(c.got), " 503 ") || !c.fin {
		t.Errorf("client got %q", c.got)
	}
}

func TestIdleConnectionThatCameBackIsClosedInSilence(t *testing.T) {
	w := newWorld(t)
	c := w.served()
	w.handBack("t1", c)
	w.advance(11 * time.Second)
	if len(c.got) != 0 || !c.fin || slices.Contains(w.seen.refused, "timeout") {
		t.Errorf("client got %q, fin %t", c.got, c.fin)
	}
}

// atClose is a hand-back between two requests: no application asked for it.
func atClose(m *transfer.Assign, _ *transfer.Record) { m.Offer.From = "" }

func TestConnectionComesBackAtItsCloseWhereThatIsConfigured(t *testing.T) {
	w := newWorld(t)
	c := w.served()
	w.wantConfirm("t1", w.handBack("t1", c, atClose), false, transfer.ReasonHost)
	s := w.router.services[c.inc.Service]
	s.Reroute, s.IdleTimeout = true, time.Minute
	w.wantConfirm("t1", w.handBack("t1", c, atClose), true, transfer.ReasonNone)
	w.advance(50 * time.Second)
	if c.fin || len(c.got) != 0 {
		t.Errorf("client got %q, fin %t before it was due", c.got, c.fin)
	}
	c.send("GET / HTTP/1.1\r\nHost: b.example\r\n\r\n")
	w.wantGiven(c, "t2")
}

func TestConnectionThatCameBackIsClosedWithoutANextRequest(t *testing.T) {
	w := newWorld(t)
	c := w.served()
	s := w.router.services[c.inc.Service]
	s.Reroute, s.IdleTimeout = true, 20*time.Second
	w.handBack("t1", c, atClose)
	w.advance(21 * time.Second)
	if len(c.got) != 0 || !c.fin || c.rst {
		t.Errorf("client got %q, fin %t, rst %t", c.got, c.fin, c.rst)
	}
}

// A request that has begun has its own time, and ends with an answer.
func TestHalfARequestAfterTheReturnIsAnswered(t *testing.T) {
	w := newWorld(t)
	c := w.served()
	s := w.router.services[c.inc.Service]
	s.Reroute, s.IdleTimeout = true, 20*time.Second
	w.handBack("t1", c, atClose)
	w.advance(19 * time.Second)
	c.send("GET / HT")
	w.advance(2 * time.Second)
	if c.fin {
		t.Error("closed within the request's time")
	}
	w.advance(time.Minute)
	if !strings.Contains(string(c.got), " 408 ") || !c.fin {
		t.Errorf("client got %q, fin %t", c.got, c.fin)
	}
}
