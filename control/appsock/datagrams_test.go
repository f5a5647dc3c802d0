package appsock

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"baton/control/app"
	"baton/control/router"
	"baton/control/transfer"
)

const token = "0123456789abcdef"

// overUDP runs the control socket over UDP of a handler until the test ends, and returns where that is for applications.
func overUDP(t *testing.T, h Handler, lease time.Duration) (where string, counts *Counts) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	counts = &Counts{}
	right := me()
	right.Token = token
	rights := []Right{{UID: right.UID + 1, Token: "another token, longer"}, {UID: right.UID + 2}, right}
	var done sync.WaitGroup
	done.Go(func() {
		s := &Server{Rights: rights, Handler: h, Log: slog.New(slog.DiscardHandler), Counts: counts}
		if err := s.ServeDatagrams(t.Context(), conn, lease); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(done.Wait)
	return "udp://" + conn.LocalAddr().String() + file, counts
}

func (c *Counts) of(name string) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.totals[name]
}

// wantCount waits for a total.
func wantCount(t *testing.T, c *Counts, name string, want uint64) {
	t.Helper()
	for range 1000 {
		if c.of(name) == want {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s: %d, want %d", name, c.of(name), want)
}

// plain is an application that speaks UDP with nothing but a socket.
type plain struct {
	t *testing.T
	c net.Conn
}

func dialPlain(t *testing.T, where string) plain {
	t.Helper()
	address, _, _ := strings.Cut(strings.TrimPrefix(where, "udp://"), "/")
	c, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return plain{t, c}
}

func (p plain) send(datagram string) {
	p.t.Helper()
	if _, err := p.c.Write([]byte(datagram)); err != nil {
		p.t.Fatal(err)
	}
}

// receive returns the next datagram, or what there is instead within a moment.
func (p plain) receive(patience time.Duration) (d app.Datagram, err error) {
	b := make([]byte, app.MaxDatagram)
	_ = p.c.SetReadDeadline(time.Now().Add(patience))
	n, err := p.c.Read(b)
	if err != nil {
		return d, err
	}
	return d, json.Unmarshal(b[:n], &d)
}

func (p plain) want(kind app.Type, number uint64) app.Datagram {
	p.t.Helper()
	d, err := p.receive(10 * time.Second)
	if err != nil || d.Type != kind || d.Number != number {
		p.t.Fatalf("got %+v, %v; want %s %d", d, err, kind, number)
	}
	return d
}

const firstDatagram = `{"token":"` + token + `","session":"s","number":1,"type":"register","role":"target","job":"mail","seq":3}`

// TestRepeatedRequestIsExecutedOnce, and its answer comes until it is acknowledged.
func TestRepeatedRequestIsExecutedOnce(t *testing.T) {
	s, told, _ := serveTarget(t, me(), mail)
	where, counts := overUDP(t, s, time.Minute)
	p := dialPlain(t, where)
	p.send(firstDatagram)
	p.want(app.TypeAck, 1)
	m := p.want(app.TypeRegistered, 1)
	if m.Seq != 3 || m.Job != "mail" || m.Lease != 60_000 || m.Session != "s" || m.Token != "" {
		t.Errorf("%+v", m)
	}
	if again := p.want(app.TypeRegistered, 1); again.Seq != 3 {
		t.Errorf("%+v", again)
	}
	p.send(`{"token":"` + token + `","session":"s","number":1,"type":"ack"}`)
	told.want(t, "look")
	wantCount(t, counts, countControl, 1)
	p.send(firstDatagram)
	for {
		d, err := p.receive(10 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if d.Type == app.TypeAck && d.Number == 1 {
			break
		}
	}
	wantCount(t, counts, countDuplicate, 1)
	if n := counts.of(countRepeated); n == 0 {
		t.Error("nothing was repeated")
	}
	if list := s.Registered(); len(list) != 1 || len(told) != 0 {
		t.Errorf("%+v, %d calls", list, len(told))
	}
}

// TestDatagramsThatReachNoSession are dropped under a name; only who has a token is answered.
func TestDatagramsThatReachNoSession(t *testing.T) {
	for _, row := range []struct{ name, datagram, count, answer string }{
		{"no JSON", `{"type":`, countMalformed, ""},
		{"no token", `{"session":"s","number":1,"type":"register"}`, countToken, ""},
		{"wrong token", `{"token":"0123456789abcdeF","session":"s","number":1,"type":"register"}`, countToken, ""},
		{"beginning of a token", `{"token":"0123456789abcde","session":"s","number":1,"type":"register"}`, countToken, ""},
		{"oversized", firstDatagram + strings.Repeat(" ", app.MaxDatagram-len(firstDatagram)+1), countOversized, ""},
		{"ping out of the blue", `{"token":"` + token + `","session":"s","type":"ping"}`, countUnknown, "leave"},
		{"second message first", `{"token":"` + token + `","session":"s","number":2,"type":"dpt?"}`, countUnknown, "leave"},
		{"farewell out of the blue", `{"token":"` + token + `","session":"s","type":"leave"}`, countUnknown, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			s, _, _ := serveTarget(t, me(), mail)
			where, counts := overUDP(t, s, time.Minute)
			p := dialPlain(t, where)
			p.send(row.datagram)
			wantCount(t, counts, row.count, 1)
			d, err := p.receive(200 * time.Millisecond)
			if answered := err == nil; answered != (row.answer != "") || string(d.Type) != row.answer {
				t.Errorf("answer %+v, %v", d, err)
			}
			if len(s.Registered()) > 0 {
				t.Error("it is registered")
			}
		})
	}
}

// TestNobodySpeaksForAnotherAddress: a session's name at another address is another session.
func TestNobodySpeaksForAnotherAddress(t *testing.T) {
	s, told, _ := serveTarget(t, me(), mail)
	where, counts := overUDP(t, s, time.Minute)
	one, other := dialPlain(t, where), dialPlain(t, where)
	one.send(firstDatagram)
	told.want(t, "look")
	other.send(`{"token":"` + token + `","session":"s","number":2,"type":"reject","transfer":1}`)
	other.want(app.TypeLeave, 0)
	other.send(`{"token":"` + token + `","session":"s","type":"leave"}`)
	wantCount(t, counts, countUnknown, 2)
	if len(s.Registered()) != 1 {
		t.Error("the other one has ended it")
	}
}

func TestRegistrationEndsWithItsLease(t *testing.T) {
	s, told, _ := serveTarget(t, me(), mail)
	where, _ := overUDP(t, s, 500*time.Millisecond)
	p := dialPlain(t, where)
	p.send(firstDatagram)
	told.want(t, "look")
	told.want(t, "look") // left
	if len(s.Registered()) != 0 {
		t.Error("it is registered")
	}
	p.send(firstDatagram) // late: it must not begin anew
	for {
		d, err := p.receive(10 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if d.Type == app.TypeLeave && strings.Contains(d.Detail, "knows no such session") {
			break
		}
	}
	if len(s.Registered()) != 0 {
		t.Error("a repetition has registered it anew")
	}
}

func TestListenerOverUDP(t *testing.T) {
	s, told, _ := serveTarget(t, me(), mail)
	where, counts := overUDP(t, s, 10*time.Second)
	l, inner := listening(t, where, nil)
	told.want(t, "look")
	for id := range uint64(20) {
		from := dialLocal(t, inner)
		c := check(transfer.ID(id+1), []byte("user=ada"))
		c.Offer.Inc.Client = from
		offer1(t, s, c)
		<-told
		s.Arrived("rh1", transfer.ID(id+1))
		if got := accepted(t, l); string(got.Offer.State) != "user=ada" || got.Offer.Client != from {
			t.Errorf("%+v", got.Offer)
		}
	}
	if p := s.Offer(check(99, make([]byte, app.MaxInline+1))); p == nil || !strings.Contains(p.Detail, "Unix socket") {
		t.Errorf("large state: %v", p)
	}
	wantCount(t, counts, countMessage, 21) // the registration and its answers
	l.Close()
	told.want(t, "look")
}

// TestGiveOverUDPIsRefusedAndTheConnectionGoesOn: it cannot be passed.
func TestGiveOverUDPIsRefusedAndTheConnectionGoesOn(t *testing.T) {
	s, told, _ := serveTarget(t, me(), mail)
	where, _ := overUDP(t, s, 10*time.Second)
	l, inner := listening(t, where, nil)
	told.want(t, "look")
	dialLocal(t, inner)
	c := accepted(t, l)
	if err := c.Give(app.Destination{Job: "web"}); !errors.Is(err, app.ErrRejected) {
		t.Error(err)
	}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Errorf("it is closed: %v", err)
	}
}

func TestRouterOverUDP(t *testing.T) {
	a, told, _ := serve(t, me())
	where, _ := overUDP(t, a, 10*time.Second)
	go func() { // the router, which says when handshakes are answered
		told.want(t, "serve")
		a.Serving(service)
	}()
	r, err := app.NewRouter(where, app.Registration{Service: service.String(), Name: "front"})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s := a.Open(7, client, service, router.Origin{})
	if s == nil {
		t.Fatal("no stream")
	}
	if n := s.Write([]byte("hello")); n != 5 {
		t.Fatalf("%d octets written", n)
	}
	c, err := r.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if c.Address != client {
		t.Errorf("client %s", c.Address)
	}
	b := make([]byte, 10)
	if n, err := c.Peek(b); err != nil || string(b[:n]) != "hello" {
		t.Errorf("peeked %q, %v", b[:n], err)
	}
	wantUnread(t, s, 5)
	if _, err := io.ReadFull(c, b[:2]); err != nil || string(b[:2]) != "he" {
		t.Errorf("read %q, %v", b[:2], err)
	}
	wantUnread(t, s, 3)
	if _, err := c.Write([]byte("who?")); err != nil {
		t.Fatal(err)
	}
	told.want(t, "wrote who?")
	large := make([]byte, app.MaxInline+1)
	if err := c.Transfer(t.Context(), app.Wish{Job: "mail", State: large}); !errors.Is(err, app.ErrTooLarge) {
		t.Errorf("large state: %v", err)
	}
	go func() {
		told.want(t, "transfer mail  user=ada front")
		a.Accepted(7, "t1")
	}()
	if err := c.Transfer(t.Context(), app.Wish{Job: "mail", State: []byte("user=ada")}); err != nil {
		t.Error(err)
	}
}

func wantUnread(t *testing.T, s router.Stream, want int) {
	t.Helper()
	if n, known := s.Unread(); n != want || !known {
		t.Errorf("%d unread, %t; want %d", n, known, want)
	}
}

// TestLargeStateOverUDPIsRejected although another library could have sent it.
func TestLargeStateOverUDPIsRejected(t *testing.T) {
	a, told, _ := serve(t, me())
	p := newPeer("x", me(), nil, true)
	a.conns[7] = dealt{peer: p}
	a.transfer(p, app.Message{Type: app.TypeTransfer, Conn: 7, State: make([]byte, app.MaxInline+1)})
	m := (<-p.out).message
	if m.Type != app.TypeRejected || m.Code != app.CodeTooLarge || m.Conn != 7 || !strings.Contains(m.Detail, "Unix socket") {
		t.Errorf("%+v", m)
	}
	if len(told) != 0 {
		t.Error("the router was told")
	}
}

func TestRouterOverUDPWithoutAStreamIsRefused(t *testing.T) {
	a, _, _ := serve(t, me())
	where, _ := overUDP(t, a, 10*time.Second)
	for _, stream := range []string{"", "relative"} {
		x, err := app.DialUDP(where)
		if err != nil {
			t.Fatal(err)
		}
		defer x.Close()
		m := app.Message{Type: app.TypeRegister, Role: app.RoleRouter, Service: service.String(), Stream: stream, Seq: 4}
		if err := x.Send(m); err != nil {
			t.Fatal(err)
		}
		answer, _, err := x.Receive()
		if err != nil || answer.Code != app.CodeMalformed || answer.Seq != 4 || !strings.Contains(answer.Detail, "stream") {
			t.Errorf("%q: %+v, %v", stream, answer, err)
		}
	}
}

// TestStreamsOfOthers are not connected to: nothing of the client is said there.
func TestStreamsOfOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := meetStream(path, me().UID+1, 7); !errors.Is(err, errOwner) {
		t.Errorf("of another user: %v", err)
	}
	if c, err := l.Accept(); err == nil {
		if b, _ := io.ReadAll(c); len(b) > 0 {
			t.Errorf("it was told %q", b)
		}
	}
	if _, err := meetStream(path+"x", me().UID, 7); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nowhere: %v", err)
	}
}

// TestStreamBeforeItIsAccepted holds what the application has not read, however much that is.
func TestStreamBeforeItIsAccepted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, err := meetStream(path, me().UID, 7)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.Write(make([]byte, 100))
	if n, known := s.Unread(); known {
		t.Errorf("%d unread, of a stream that nobody has", n)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	wantUnread(t, s, len("conn 7\n")+100)
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	wantUnread(t, s, 2+100)
	c.Close()
}

// TestDaemonsEndIsHeard at once.
func TestDaemonsEndIsHeard(t *testing.T) {
	s, told, _ := serveTarget(t, me(), mail)
	where, _ := overUDP(t, s, time.Minute)
	l, _ := listening(t, where, nil)
	told.want(t, "look")
	s.mu.Lock()
	peer := s.members[mail][0].peer
	s.mu.Unlock()
	peer.hangUp()
	if _, err := l.Accept(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	told.want(t, "look")
}

func TestAddressInUseIsAnError(t *testing.T) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s := &Server{Log: slog.New(slog.DiscardHandler), Counts: &Counts{}}
	at := Sockets{Path: filepath.Join(t.TempDir(), "s"), UDP: netip.MustParseAddrPort(conn.LocalAddr().String())}
	if err := s.Run(t.Context(), at); err == nil || !strings.Contains(err.Error(), "applications.udp") {
		t.Error(err)
	}
}

// TestMessagesBetweenApplicationsGoOverUDP both ways, of any length.
func TestMessagesBetweenApplicationsGoOverUDP(t *testing.T) {
	s, told, path := serveTarget(t, me(), mail)
	where, _ := overUDP(t, s, time.Minute)
	distant, _ := listening(t, where, nil)
	told.want(t, "look")
	local, _ := listening(t, path, nil)
	told.want(t, "look")
	data := make([]byte, app.MaxData)
	if _, err := local.Send(app.Party{Name: "pop3d"}, "question", data); err != nil { // the older one of this name
		t.Fatal(err)
	}
	question := <-distant.Messages()
	if question.Tag != "question" || len(question.Data) != app.MaxData || question.From.ID == 0 {
		t.Errorf("%s, %d octets from %+v, %s", question.Tag, len(question.Data), question.From, question.Code)
	}
	if _, err := distant.Send(question.From, "answer", data); err != nil {
		t.Fatal(err)
	}
	if answer := <-local.Messages(); answer.Tag != "answer" || len(answer.Data) != app.MaxData {
		t.Errorf("%s, %d octets, %s", answer.Tag, len(answer.Data), answer.Code)
	}
}

// TestNextRouterTakesConnectionsOfOneThatIsGone: it does not listen for streams any more, and its registration ends.
func TestNextRouterTakesConnectionsOfOneThatIsGone(t *testing.T) {
	a, told, _ := serve(t, me())
	where, _ := overUDP(t, a, time.Minute)
	gone, err := app.DialUDP(where)
	if err != nil {
		t.Fatal(err)
	}
	defer gone.Close()
	err = gone.Send(app.Message{Type: app.TypeRegister, Role: app.RoleRouter, Service: service.String(),
		Stream: filepath.Join(t.TempDir(), "gone")})
	if err != nil {
		t.Fatal(err)
	}
	told.want(t, "serve")
	a.Serving(service)
	r, err := app.NewRouter(where, app.Registration{Service: service.String(), Name: "front"})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if s := a.Open(7, client, service, router.Origin{}); s == nil {
		t.Fatal("no stream")
	}
	if c, err := r.Accept(); err != nil || c.Address != client {
		t.Errorf("%+v, %v", c, err)
	}
	for err == nil {
		_, _, err = gone.Receive()
	}
	if !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	for range 1000 { // the application hears of it first
		if left := a.Registered(); len(left) == 1 && left[0].Name == "front" {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%+v", a.Registered())
}
