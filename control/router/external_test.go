package router

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"baton/control/transfer"
	"baton/fastpath/flow"
	"baton/fastpath/wire"
)

// applications has one application, whose streams it keeps.
type applications struct {
	absent  bool
	streams map[flow.ID]*appStream
	told    []string // "accepted t1", "rejected router busy", "ended"
	tables  int
	from    Origin // of the last one
}

// appStream is a Stream whose application reads when the test says so.
type appStream struct {
	room   int
	unread []byte
	eof    bool
	closed bool
}

func (s *appStream) Write(p []byte) int {
	n := min(len(p), s.room)
	s.unread, s.room = append(s.unread, p[:n]...), s.room-n
	return n
}
func (s *appStream) CloseWrite()         { s.eof = true }
func (s *appStream) Unread() (int, bool) { return len(s.unread), true }
func (s *appStream) Close()              { s.closed = true }

// read reads n octets.
func (s *appStream) read(n int) { s.unread, s.room = s.unread[n:], s.room+n }

func (a *applications) Present(netip.AddrPort) bool { return !a.absent }

func (a *applications) Open(id flow.ID, _, _ netip.AddrPort, from Origin) Stream {
	a.from = from
	if a.absent {
		return nil
	}
	a.streams[id] = &appStream{room: 1 << 20}
	return a.streams[id]
}
func (a *applications) Accepted(_ flow.ID, host string) { a.told = append(a.told, "accepted "+host) }
func (a *applications) Rejected(_ flow.ID, why Rejection) {
	a.told = append(a.told, fmt.Sprintf("rejected %s %s", why.By, why.Code))
}
func (a *applications) Ended(flow.ID, string)    { a.told = append(a.told, "ended") }
func (a *applications) Serving(s netip.AddrPort) { a.told = append(a.told, "serving "+s.String()) }
func (a *applications) Table([]TargetStatus)     { a.tables++ }

// externalWorld makes a world whose service is of an application in another process, and a client that has said hello.
func externalWorld(t *testing.T) (*world, *client, *applications, *appStream) {
	w := newWorld(t)
	a := &applications{streams: map[flow.ID]*appStream{}}
	w.router.cfg.Applications = a
	w.router.services[service].External = true
	w.cluster.reply["t1"], w.cluster.reply["t2"] = willing, willing
	c := w.connect(4000)
	c.send("hello")
	s := a.streams[c.flow]
	if s == nil || string(s.unread) != "hello" {
		t.Fatalf("the application got %+v", s)
	}
	return w, c, a, s
}

// say lets the application write to the client.
func (w *world) say(c *client, octets string) (room chan struct{}) {
	room = make(chan struct{})
	w.router.appWrote(w.router.conns[c.flow], []byte(octets), room)
	w.run()
	return room
}

func (w *world) wish(c *client, t AppTransfer) {
	w.router.appTransfers(c.flow, t)
	w.run()
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestApplicationConversesAndHandsOver(t *testing.T) {
	w, c, a, s := externalWorld(t)
	if c.acked != c.next {
		t.Error("what the application has is not acknowledged")
	}
	if s.read(5); !isClosed(w.say(c, "who?")) || string(c.got) != "who?" {
		t.Fatalf("client got %q", c.got)
	}
	from := c.next
	c.send("me, and more")
	w.wish(c, AppTransfer{Job: "web-a", State: []byte("state"), From: "mail"})
	w.wantGiven(c, "t1")
	rec := w.record()
	if string(rec.Data) != "me, and more" || rec.ReadFrom != from {
		t.Errorf("record: %q from %d, want what was only peeked at, from %d", rec.Data, rec.ReadFrom, from)
	}
	if o, ok := last[transfer.Offer](w.cluster, "t1"); !ok || string(o.State) != "state" || o.From != "mail" {
		t.Errorf("offer %+v", o)
	}
	if !slices.Equal(a.told, []string{"accepted t1"}) || !s.closed {
		t.Errorf("told %v, closed %t", a.told, s.closed)
	}
}

func TestReadOctetsAreNotGiven(t *testing.T) {
	w, c, _, s := externalWorld(t)
	s.read(2)
	w.wish(c, AppTransfer{Job: "web-a"})
	if rec := w.record(); string(rec.Data) != "llo" {
		t.Errorf("record carries %q", rec.Data)
	}
}

func TestWishesThatCannotBeGranted(t *testing.T) {
	for _, row := range []struct {
		name string
		wish AppTransfer
		want string
	}{
		{"job", AppTransfer{Job: "mail"}, "rejected router unknown job"},
		{"host", AppTransfer{Job: "web-a", Host: "t9"}, "rejected router unknown host"},
		{"host of another job", AppTransfer{Job: "web-b", Host: "t1"}, "rejected router unknown host"},
	} {
		w, c, a, _ := externalWorld(t)
		w.wish(c, row.wish)
		if !slices.Equal(a.told, []string{row.want}) {
			t.Errorf("%s: told %v", row.name, a.told)
		}
		w.wish(c, AppTransfer{Job: "web-a"})
		w.wantGiven(c, "t1")
	}
}

func TestWishOfAConnectionThatIsGone(t *testing.T) {
	w, _, a, _ := externalWorld(t)
	w.router.appTransfers(99, AppTransfer{Job: "web-a"})
	if !slices.Equal(a.told, []string{"rejected router unknown conn"}) {
		t.Errorf("told %v", a.told)
	}
}

func TestWishWithDataQueued(t *testing.T) {
	for _, quiescent := range []bool{false, true} {
		w, c, a, _ := externalWorld(t)
		w.say(c, "wait")
		w.wish(c, AppTransfer{Job: "web-a", Quiescent: quiescent})
		if c.owner != 0 {
			t.Fatal("given with an answer under way")
		}
		if quiescent {
			c.segment(wire.ACK, "")
			w.wantGiven(c, "t1")
		} else if !slices.Equal(a.told, []string{"rejected router data queued"}) {
			t.Errorf("told %v", a.told)
		}
	}
}

func TestSecondWishMeanwhileIsRejected(t *testing.T) {
	w, c, a, _ := externalWorld(t)
	w.cluster.reply["t1"] = nil
	w.wish(c, AppTransfer{Job: "web-a", Host: "t1"})
	w.wish(c, AppTransfer{Job: "web-a", Host: "t2"})
	if !slices.Equal(a.told, []string{"rejected router busy"}) {
		t.Errorf("told %v", a.told)
	}
}

func TestRejectionLetsTheConversationGoOn(t *testing.T) {
	w, c, a, s := externalWorld(t)
	w.cluster.reply["t1"] = unwilling
	w.wish(c, AppTransfer{Job: "web-a", Host: "t1"})
	if !slices.Equal(a.told, []string{"rejected stack stack"}) || c.rst || s.closed {
		t.Fatalf("told %v", a.told)
	}
	c.send(" again")
	if string(s.unread) != "hello again" {
		t.Errorf("unread %q", s.unread)
	}
	w.wish(c, AppTransfer{Job: "web-a", Host: "t2"})
	w.wantGiven(c, "t2")
}

func TestApplicationCloses(t *testing.T) {
	w, c, a, s := externalWorld(t)
	w.say(c, "no\n")
	w.router.appClosed(w.router.conns[c.flow])
	if string(c.got) != "no\n" || !c.fin || !s.closed || !slices.Equal(a.told, []string{"ended"}) {
		t.Errorf("got %q, fin %t, closed %t, told %v", c.got, c.fin, s.closed, a.told)
	}
	c.finish()
	w.advance(5 * time.Second)
	w.wantEmpty()
}

func TestClientIsToldIfItsApplicationClosesWithoutAWord(t *testing.T) {
	w, c, _, _ := externalWorld(t)
	w.say(c, "who?")
	c.send("me")
	c.got = nil
	w.router.appClosed(w.router.conns[c.flow])
	w.wantStatus(c, "503")
}

func TestApplicationThatClosedDuringATransferClosesAfterItsRejection(t *testing.T) {
	w, c, _, _ := externalWorld(t)
	w.cluster.reply["t1"] = nil
	w.wish(c, AppTransfer{Job: "web-a", Host: "t1"})
	w.router.appClosed(w.router.conns[c.flow])
	if c.fin {
		t.Fatal("closed while a target may take it")
	}
	w.advance(time.Second)
	w.wantStatus(c, "503") // nobody has answered
}

// What an application says during a transfer is for the client, unless that has another owner then.
func TestWordsDuringATransferWaitForItsResult(t *testing.T) {
	for _, closes := range []bool{false, true} {
		w, c, a, _ := externalWorld(t)
		w.cluster.reply["t1"] = nil
		w.wish(c, AppTransfer{Job: "web-a", Host: "t1"})
		room := w.say(c, "wait")
		w.say(c, " a moment\n")
		if closes {
			w.router.appClosed(w.router.conns[c.flow])
		}
		if len(c.got) > 0 || isClosed(room) {
			t.Fatalf("client got %q while a target may take it; room %t", c.got, isClosed(room))
		}
		w.advance(time.Second) // nobody has answered
		if string(c.got) != "wait a moment\n" || c.fin != closes || !isClosed(room) {
			t.Errorf("closes %t: client got %q, fin %t, room %t; told %v", closes, c.got, c.fin, isClosed(room), a.told)
		}
	}
}

func TestWordsDuringATransferThatSucceedsAreNobodys(t *testing.T) {
	w, c, _, _ := externalWorld(t)
	w.plane.slow = true
	w.wish(c, AppTransfer{Job: "web-a"})
	room := w.say(c, "wait")
	w.plane.slow = false
	w.plane.report()
	w.run()
	w.wantGiven(c, "t1")
	if len(c.got) > 0 || !isClosed(room) {
		t.Errorf("client got %q, room %t", c.got, isClosed(room))
	}
}

func TestWithoutAnApplicationTheClientIsTold(t *testing.T) {
	w := newWorld(t)
	w.router.cfg.Applications = &applications{absent: true}
	w.router.services[service].External = true
	c := w.ask("a.example")
	w.wantStatus(c, "503")
}

func TestUnregisteredApplicationsConnectionsAreRefused(t *testing.T) {
	w, c, _, _ := externalWorld(t)
	w.router.Unregistered([]flow.ID{c.flow, 99})
	w.run()
	w.wantStatus(c, "503")
}

func TestSilentApplicationTimesOut(t *testing.T) {
	w, c, a, _ := externalWorld(t)
	w.advance(10 * time.Second)
	w.wantStatus(c, "408")
	if !slices.Equal(a.told, []string{"ended"}) {
		t.Errorf("told %v", a.told)
	}
}

func TestClientsEndReachesTheApplication(t *testing.T) {
	w, c, _, s := externalWorld(t)
	c.finish()
	if !s.eof || c.fin {
		t.Errorf("eof %t, fin %t", s.eof, c.fin)
	}
	w.say(c, "late answer")
	if string(c.got) != "late answer" {
		t.Errorf("got %q", c.got)
	}
}

// TestWindowMovesAsTheApplicationReads: it is W of what was not read, no more; and opens without a segment of the client.
func TestWindowMovesAsTheApplicationReads(t *testing.T) {
	w, c, _, s := externalWorld(t)
	for c.edge.Sub(c.next) > 0 {
		c.send(strings.Repeat("x", min(1000, c.edge.Sub(c.next))))
	}
	if n := len(s.unread); n > window || n < window/2 {
		t.Fatalf("%d octets unread, W is %d", n, window)
	}
	s.read(len(s.unread))
	w.advance(100 * time.Millisecond)
	if room := c.edge.Sub(c.next); room < window/2 {
		t.Errorf("room for %d octets after all was read", room)
	}
}

func TestFullStreamIsTriedAgain(t *testing.T) {
	w, c, _, s := externalWorld(t)
	s.room = 3
	c.send("abcdef")
	if string(s.unread) != "helloabc" {
		t.Fatalf("unread %q", s.unread)
	}
	s.read(8)
	w.advance(50 * time.Millisecond)
	if string(s.unread) != "def" {
		t.Errorf("unread %q", s.unread)
	}
}

// TestWriterWaitsForASlowClient: what the application may have under way is bounded.
func TestWriterWaitsForASlowClient(t *testing.T) {
	w, c, _, _ := externalWorld(t)
	if room := w.say(c, strings.Repeat("x", appUnsent)); isClosed(room) {
		t.Fatal("no end to what the application may write")
	} else {
		for range 40 {
			w.advance(time.Millisecond)
			c.segment(wire.ACK, "")
		}
		if !isClosed(room) {
			t.Error("the writer waits although the client takes octets")
		}
	}
}

func TestTableIsTold(t *testing.T) {
	w, _, a, _ := externalWorld(t)
	for _, change := range []func(){
		func() { w.router.HostDown("t1") }, func() { w.router.HostUp("t1") }, func() { w.router.HostJobs("t1", ready("web-a")) },
	} {
		before := a.tables
		change()
		w.run()
		if a.tables != before+1 {
			t.Errorf("%d tables", a.tables-before)
		}
	}
}

func TestServiceOpensAndClosesWithItsApplications(t *testing.T) {
	w, _, a, _ := externalWorld(t)
	w.plane.busy = 1
	w.router.Serve(service, true)
	w.router.Serve(service, false)
	w.run()
	w.advance(time.Second)
	if !slices.Equal(w.plane.serving, []bool{true, false}) {
		t.Errorf("%v", w.plane.serving)
	}
	if !slices.Equal(a.told, []string{"serving " + service.String()}) {
		t.Errorf("applications were told %v", a.told)
	}
}
