package appsock

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"baton/control/agent"
	"baton/control/app"
	"baton/control/xcf"
)

// wires are the streams of a host: to others by name.
type wires struct {
	from string
	to   map[string]*Notes
}

// Send implements Way.
func (w wires) Send(host string, e *xcf.Envelope) error {
	n := w.to[host]
	if n == nil {
		return xcf.ErrNotConnected
	}
	n.Heard(w.from, proto.CloneOf(e))
	return nil
}

// cluster is a routing host rh1 and target hosts t1 and t2, each with one application: mail, and pop3d on both.
type cluster struct {
	routing *Routing
	serving map[string]*Serving
	notes   map[string]*Notes
	paths   map[string]string // of control sockets
	apps    map[string]*app.Socket
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	c := &cluster{serving: map[string]*Serving{}, paths: map[string]string{}, apps: map[string]*app.Socket{}, notes: map[string]*Notes{
		"rh1": NewNotes("rh1", nil, log), "t1": NewNotes("t1", []string{"rh0", "rh1"}, log), "t2": NewNotes("t2", []string{"rh1"}, log)}}
	c.notes["rh1"].Use(wires{"rh1", map[string]*Notes{"t1": c.notes["t1"], "t2": c.notes["t2"]}})
	c.routing = NewRouting("rh1", []netip.AddrPort{service}, c.notes["rh1"], log)
	told := make(calls, 16)
	c.routing.Use(told)
	c.serve(t, "rh1", c.routing)
	for _, host := range []string{"t1", "t2"} {
		c.notes[host].Use(wires{host, map[string]*Notes{"rh1": c.notes["rh1"]}})
		c.serving[host] = NewServing(host, []agent.Job{mail}, c.notes[host], log)
		c.serving[host].Begin(make(decisions, 4*maxOffers))
		c.serve(t, host, c.serving[host])
		c.apps[host] = dial(t, c.paths[host])
		send(t, c.apps[host], app.Message{Type: app.TypeRegister, Role: app.RoleTarget, Job: "mail", Name: "pop3d"})
		receive(t, c.apps[host], app.TypeRegistered)
	}
	c.apps["rh1"] = registered(t, c.routing, c.paths["rh1"], told, true)
	return c
}

func (c *cluster) serve(t *testing.T, host string, h Handler) {
	t.Helper()
	c.paths[host] = filepath.Join(t.TempDir(), "s")
	l, err := Listen(c.paths[host])
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		if err := (&Server{Rights: []Right{me()}, Handler: h, Log: slog.New(slog.DiscardHandler)}).Serve(t.Context(), l); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(done.Wait)
}

// say sends a note and returns what its receiver is given.
func (c *cluster) say(t *testing.T, from string, to app.Party, at, data string) app.Message {
	t.Helper()
	send(t, c.apps[from], app.Message{Type: app.TypeMessage, To: &to, Tag: "greeting", Data: []byte(data)})
	m, _ := receive(t, c.apps[at], app.TypeMessage)
	if m.Tag != "greeting" || string(m.Data) != data {
		t.Fatalf("%+v, want %q", m, data)
	}
	return m
}

func TestApplicationsOfAllHostsWriteToEachOther(t *testing.T) {
	c := newCluster(t)
	first := c.say(t, "rh1", app.Party{Host: "t1", Job: "mail"}, "t1", "hello")
	if f := first.From; f.Host != "rh1" || f.Name != "mail" || f.Role != app.RoleRouter || f.Job != "" || f.ID == 0 || f.ID >= 1<<53 {
		t.Errorf("from %+v", f)
	}
	answer := c.say(t, "t1", *first.From, "rh1", "and to you")
	if f := answer.From; f.Host != "t1" || f.Name != "pop3d" || f.Role != app.RoleTarget || f.Job != "mail" || f.ID == 0 {
		t.Errorf("from %+v", f)
	}
	across := c.say(t, "t1", app.Party{Host: "t2", Name: "pop3d"}, "t2", "by way of rh1")
	if across.From.Host != "t1" {
		t.Errorf("from %+v", across.From)
	}
	c.say(t, "t2", *across.From, "t1", "back the same way")
	c.say(t, "t2", app.Party{Role: app.RoleTarget}, "t2", "to myself")
	want := map[string]uint64{noteDelivered: 1, noteSent: 3}
	if got := c.notes["rh1"].Counts(); !maps.Equal(got, want) {
		t.Errorf("rh1 has counted %v, want %v", got, want)
	}
}

func TestSenderIsToldWhyNobodyGotItsMessage(t *testing.T) {
	c := newCluster(t)
	stranger := dial(t, c.paths["t1"])
	long := strings.Repeat("x", app.MaxText+1)
	for name, try := range map[string]struct {
		from      *app.Socket
		to        app.Party
		data, tag string
		code      string
	}{
		"no host, seen from a routing host": {c.apps["rh1"], app.Party{Host: "t3", Job: "mail"}, "", "", app.CodeUnknownHost},
		"no host, seen from a target host":  {c.apps["t1"], app.Party{Host: "t3", Job: "mail"}, "", "", app.CodeUnknownHost},
		"no application here":               {c.apps["t1"], app.Party{Name: "imapd"}, "", "", app.CodeUnknownApp},
		"no application there":              {c.apps["rh1"], app.Party{Host: "t1", Role: app.RoleRouter}, "", "", app.CodeUnknownApp},
		"none beyond the routing host":      {c.apps["t1"], app.Party{Host: "t2", Job: "web"}, "", "", app.CodeUnknownApp},
		"nobody of that ID":                 {c.apps["rh1"], app.Party{Host: "t1", Job: "mail", ID: 1}, "", "", app.CodeUnknownApp},
		"to nobody":                         {c.apps["rh1"], app.Party{Host: "t1"}, "", "", app.CodeMalformed},
		"too large":                         {c.apps["rh1"], app.Party{Host: "t1", Job: "mail"}, strings.Repeat("x", app.MaxData+1), "", app.CodeTooLarge},
		"tag too long":                      {c.apps["rh1"], app.Party{Host: "t1", Job: "mail"}, "", long, app.CodeTooLarge},
		"address too long":                  {c.apps["rh1"], app.Party{Host: "t1", Job: long}, "", "", app.CodeTooLarge},
		"sender is not registered":          {stranger, app.Party{Job: "mail"}, "", "", app.CodeNotAllowed},
	} {
		t.Run(name, func(t *testing.T) {
			send(t, try.from, app.Message{Type: app.TypeMessage, Seq: 9, To: &try.to, Tag: try.tag, Data: []byte(try.data)})
			m, _ := receive(t, try.from, app.TypeError)
			if m.Seq != 9 || m.Code != try.code || m.Detail == "" || m.To == nil || !tooLong(try.to) && *m.To != try.to {
				t.Errorf("%+v, want %s", m, try.code)
			}
		})
	}
	c.say(t, "rh1", app.Party{Host: "t1", Job: "mail"}, "t1", "nothing else has come")
	total := uint64(0)
	for host, n := range c.notes {
		for what, count := range n.Counts() {
			if strings.HasPrefix(what, noteRefused) {
				total += count
			} else if what != noteSent && what != noteDelivered {
				t.Errorf("%s has counted %d %s", host, count, what)
			}
		}
	}
	if total != 11 {
		t.Errorf("%d messages are counted as refused, want 11", total)
	}
}

// TestMessagesLeaveRoomForOffers: an application that does not read is sent messages until the rest of them is refused;
// then it is offered a connection, and later reads all of that in order.
func TestMessagesLeaveRoomForOffers(t *testing.T) {
	c := newCluster(t)
	to := app.Party{Host: "t1", Job: "mail"}
	for seq := uint64(0); c.notes["t1"].Counts()[(&refusal{code: app.CodeQueueFull}).counted()] == 0; seq++ {
		if seq > 4*maxWaiting {
			t.Fatal("nothing is refused")
		}
		send(t, c.apps["rh1"], app.Message{Type: app.TypeMessage, Seq: seq, To: &to, Tag: fmt.Sprint(seq),
			Data: make([]byte, 1000)})
	}
	refused, _ := receive(t, c.apps["rh1"], app.TypeError)
	if refused.Code != app.CodeQueueFull {
		t.Fatalf("%+v", refused)
	}
	offer1(t, c.serving["t1"], check(7, []byte("user=ada")))
	for next := uint64(0); ; next++ {
		m, _, err := c.apps["t1"].Receive()
		switch {
		case err != nil:
			t.Fatal(err)
		case m.Type == app.TypeOffer:
			if next != refused.Seq {
				t.Errorf("%d messages have come, want those before %d", next, refused.Seq)
			}
			return
		case m.Tag != fmt.Sprint(next):
			t.Fatalf("message %s comes as number %d", m.Tag, next)
		}
	}
}

func TestTargetHostCannotSpeakForAnother(t *testing.T) {
	c := newCluster(t)
	to := app.Party{Host: "t1", Job: "mail"}
	c.notes["rh1"].Heard("t2", &xcf.Envelope{Message: &xcf.Envelope_Note{Note: &xcf.Note{To: packParty(to),
		From: packParty(app.Party{Host: "rh1", Name: "front", ID: 3})}}})
	if m, _ := receive(t, c.apps["t1"], app.TypeMessage); m.From.Host != "t2" {
		t.Errorf("from %+v, want that of t2", m.From)
	}
}

func TestApplicationsAreFoundWhileTheyAreRegistered(t *testing.T) {
	c := newCluster(t)
	second := dial(t, c.paths["t1"])
	for range 2 {
		send(t, second, app.Message{Type: app.TypeRegister, Role: app.RoleTarget, Job: "mail", Name: "other"})
		receive(t, second, app.TypeRegistered)
	}
	first := c.apps["t1"]
	c.say(t, "rh1", app.Party{Host: "t1", Job: "mail"}, "t1", "to the first")
	c.apps["t1"] = second
	c.say(t, "rh1", app.Party{Host: "t1", Name: "other"}, "t1", "to the other")
	first.Close()
	for c.notes["t1"].Counts()[(&refusal{code: app.CodeUnknownApp}).counted()] == 0 {
		send(t, c.apps["rh1"], app.Message{Type: app.TypeMessage, To: &app.Party{Host: "t1", Name: "pop3d"}})
	}
	c.say(t, "rh1", app.Party{Host: "t1", Job: "mail"}, "t1", "to the one that is left")
}

func TestAnotherNameTakesThePlaceOfTheFirst(t *testing.T) {
	n := NewNotes("t1", nil, slog.New(slog.DiscardHandler))
	p := newPeer("pop3d", me(), nil, false)
	for i := range 10 {
		n.join(p, fmt.Sprint("name ", i), app.RoleTarget, "mail")
	}
	n.join(p, "name 9", app.RoleTarget, "news")
	if len(n.members) != 2 || n.members[0].party.Name != "name 9" || n.members[0].party.ID != n.members[1].party.ID {
		t.Errorf("%+v", n.members)
	}
}

func TestLibrariesWriteToEachOther(t *testing.T) {
	_, told, path := serveTarget(t, me(), mail)
	l, _ := listening(t, path, nil)
	told.want(t, "look")
	for i, to := range []app.Party{{Name: "pop3d"}, {Host: "t9", Job: "mail"}, {ID: 5}} {
		seq, err := l.Send(to, "tag", []byte("data"))
		if err != nil {
			t.Fatal(err)
		}
		n := <-l.Messages()
		want := []string{"t1 pop3d tag data  0", "t9    unknown host 2", "    unknown application 3"}[i]
		if got := fmt.Sprintf("%s %s %s %s %s %d", n.From.Host, n.From.Name, n.Tag, n.Data, n.Code, n.Seq); got != want {
			t.Errorf("message %d: %q, want %q", seq, got, want)
		}
	}
	if _, err := l.Send(app.Party{Name: "pop3d"}, "", make([]byte, app.MaxData+1)); err == nil {
		t.Error("too much is sent")
	}
	l.Close()
	if n, open := <-l.Messages(); open {
		t.Errorf("after the end: %+v", n)
	}
}

func TestLongNamesAreRefused(t *testing.T) {
	c := newCluster(t)
	for host, m := range map[string]app.Message{"t1": {Role: app.RoleTarget, Job: "mail"},
		"rh1": {Role: app.RoleRouter, Service: service.String()}} {
		m.Type, m.Name = app.TypeRegister, strings.Repeat("x", app.MaxText+1)
		send(t, c.apps[host], m)
		if m, _ := receive(t, c.apps[host], app.TypeError); m.Code != app.CodeTooLarge {
			t.Errorf("%s: %+v", host, m)
		}
	}
}

// FuzzNotes: whatever another host says, an application gets what a packet can hold, and an answer goes to who has asked.
func FuzzNotes(f *testing.F) {
	for _, e := range []*xcf.Envelope{
		{Message: &xcf.Envelope_Note{Note: &xcf.Note{To: &xcf.Party{Host: "t1", Job: "mail"}, From: &xcf.Party{Id: 4}, Data: []byte("x")}}},
		{Message: &xcf.Envelope_Note{Note: &xcf.Note{To: &xcf.Party{Host: "t2", Name: "x"}, From: &xcf.Party{Id: 4}}}},
		{Message: &xcf.Envelope_Undelivered{Undelivered: &xcf.Undelivered{To: &xcf.Party{Host: "t1", Id: 1}, Code: "x", Detail: "y"}}},
	} {
		b, err := proto.Marshal(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, false)
		f.Add(b, true)
	}
	f.Fuzz(func(t *testing.T, octets []byte, routing bool) {
		e := new(xcf.Envelope)
		if proto.Unmarshal(octets, e) != nil {
			return
		}
		n := NewNotes("t1", []string{"rh1"}, slog.New(slog.DiscardHandler))
		if routing {
			n.relays = nil
		}
		n.Use(wires{})
		n.last = 0
		p := newPeer("pop3d", Right{}, nil, false)
		n.join(p, "pop3d", app.RoleTarget, "mail")
		if about := n.Heard("rh1", e); about != (e.GetNote() != nil || e.GetUndelivered() != nil) {
			t.Fatalf("%v: %t", e, about)
		}
		for len(p.out) > 0 {
			o := <-p.out
			if b, err := json.Marshal(o.message); err != nil || len(b) > app.MaxMessage {
				t.Fatalf("%d octets, %v", len(b), err)
			}
		}
	})
}

// TestRegisteredIsSaidWhenTheApplicationIsFound: not while the directory is busy, and before any message.
func TestRegisteredIsSaidWhenTheApplicationIsFound(t *testing.T) {
	notes := NewNotes("t1", []string{"rh1"}, slog.New(slog.DiscardHandler))
	s := NewServing("t1", []agent.Job{mail}, notes, slog.New(slog.DiscardHandler))
	s.Begin(make(decisions, 4))
	p := newPeer("pop3d", me(), nil, false)
	notes.mu.Lock()
	done := make(chan struct{})
	go func() {
		s.register(p, app.Message{Type: app.TypeRegister, Role: app.RoleTarget, Job: "mail"})
		close(done)
	}()
	select {
	case o := <-p.out:
		t.Errorf("told %s while nobody finds it", o.message.Type)
	case <-time.After(50 * time.Millisecond):
	}
	notes.mu.Unlock()
	<-done
	if len(p.out) != 1 || notes.index(p) < 0 {
		t.Errorf("%d messages, known at %d", len(p.out), notes.index(p))
	}
}
