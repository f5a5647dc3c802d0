package appsock

import (
	"bytes"
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
	"baton/fastpath/flow"
)

var (
	service = netip.MustParseAddrPort("10.77.0.10:25")
	client  = netip.MustParseAddrPort("10.77.0.100:4000")
)

// calls is a Router that tells what it was asked for.
type calls chan string

func (c calls) AppWrote(_ flow.ID, octets []byte) <-chan struct{} {
	c <- "wrote " + string(octets)
	room := make(chan struct{})
	close(room)
	return room
}
func (c calls) AppClosed(flow.ID) { c <- "closed" }
func (c calls) AppTransfers(_ flow.ID, t router.AppTransfer) {
	c <- "transfer " + t.Job + " " + t.Host + " " + string(t.State) + " " + t.From
}
func (c calls) Unregistered(ids []flow.ID) {
	if len(ids) > 0 {
		c <- "unregistered"
	}
}
func (c calls) Serve(_ netip.AddrPort, on bool) {
	if on {
		c <- "serve"
	} else {
		c <- "close"
	}
}

func (c calls) want(t *testing.T, call string) {
	t.Helper()
	select {
	case got := <-c:
		if got != call {
			t.Fatalf("router was told %q, want %q", got, call)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("router was not told %q", call)
	}
}

// wantSoon is want where the end of a connection may be seen before that of its application.
func (c calls) wantSoon(t *testing.T, call string) {
	t.Helper()
	for {
		select {
		case got := <-c:
			switch got {
			case call:
				return
			case "closed":
			default:
				t.Fatalf("router was told %q, want %q", got, call)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("router was not told %q", call)
		}
	}
}

// serve runs control sockets for this user until the test ends.
func serve(t *testing.T, right Right, more ...netip.AddrPort) (*Routing, calls, string) {
	t.Helper()
	a := NewRouting("rh1", append(more, service), NewNotes("rh1", nil, slog.New(slog.DiscardHandler)), slog.New(slog.DiscardHandler))
	told := make(calls, 16)
	a.Use(told)
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		if err := (&Server{Rights: []Right{right}, Handler: a, Log: a.log}).Serve(t.Context(), l); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(done.Wait)
	return a, told, path
}

func me() Right { return Right{UID: uint32(os.Getuid())} }

func dial(t *testing.T, path string) *app.Socket {
	t.Helper()
	s, err := app.Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// receive waits for a message of a type.
func receive(t *testing.T, s *app.Socket, want app.Type) (app.Message, []*os.File) {
	t.Helper()
	m, files, err := s.Receive()
	if err != nil || m.Type != want {
		t.Fatalf("%+v, %v; want %s", m, err, want)
	}
	return m, files
}

func send(t *testing.T, s *app.Socket, m app.Message, files ...*os.File) {
	t.Helper()
	if err := s.Send(m, files...); err != nil {
		t.Fatal(err)
	}
}

var registration = app.Message{Type: app.TypeRegister, Role: app.RoleRouter, Service: service.String(), Name: "mail", Seq: 7}

// registered is an application that has registered.
func registered(t *testing.T, a *Routing, path string, told calls, first bool) *app.Socket {
	t.Helper()
	s := dial(t, path)
	send(t, s, registration)
	if first {
		told.want(t, "serve")
		a.Serving(service)
	}
	if m, _ := receive(t, s, app.TypeRegistered); m.Seq != 7 || m.Host != "rh1" {
		t.Fatalf("%+v", m)
	}
	receive(t, s, app.TypeDPT)
	return s
}

func TestApplicationTakesAConnectionAndHandsItOver(t *testing.T) {
	a, told, path := serve(t, me())
	s := registered(t, a, path, told, true)
	stream := a.Open(3, client, service, router.Origin{})
	if stream == nil {
		t.Fatal("no application")
	}
	m, files := receive(t, s, app.TypeConnection)
	if m.Conn != 3 || m.Client != client.String() || m.Service != service.String() || len(files) != 1 {
		t.Fatalf("%+v with %d files", m, len(files))
	}
	defer files[0].Close()
	stream.Write([]byte("hello"))
	b := make([]byte, 5)
	if _, err := io.ReadFull(files[0], b); err != nil || string(b) != "hello" {
		t.Fatalf("%q, %v", b, err)
	}
	if _, err := files[0].WriteString("who?"); err != nil {
		t.Fatal(err)
	}
	told.want(t, "wrote who?")
	send(t, s, app.Message{Type: app.TypeTransfer, Conn: 3, Job: "mail-a", Host: "t1", State: bytes.Repeat([]byte("s"), 9)})
	told.want(t, "transfer mail-a t1 sssssssss mail")
	a.Rejected(3, router.Rejection{By: "application", Code: app.CodeApplication, Detail: "full"})
	if m, _ := receive(t, s, app.TypeRejected); m.Conn != 3 || m.By != "application" || m.Detail != "full" {
		t.Errorf("%+v", m)
	}
	stream.Close()
	a.Accepted(3, "t2")
	if m, _ := receive(t, s, app.TypeAccepted); m.Conn != 3 || m.Host != "t2" {
		t.Errorf("%+v", m)
	}
	if n, err := files[0].Read(b); n != 0 || err != io.EOF {
		t.Errorf("after that: %d octets, %v", n, err)
	}
	send(t, s, app.Message{Type: app.TypeTransfer, Conn: 3, Job: "mail-a"})
	if m, _ := receive(t, s, app.TypeRejected); m.Code != app.CodeUnknownConn {
		t.Errorf("%+v", m)
	}
}

// TestWishComesAfterWhatWasSaid: the two travel on different sockets.
func TestWishComesAfterWhatWasSaid(t *testing.T) {
	a, told, path := serve(t, me())
	s := registered(t, a, path, told, true)
	for id := range flow.ID(200) {
		stream := a.Open(id, client, service, router.Origin{})
		_, files := receive(t, s, app.TypeConnection)
		if _, err := files[0].WriteString("wait"); err != nil {
			t.Fatal(err)
		}
		send(t, s, app.Message{Type: app.TypeTransfer, Conn: uint64(id), Job: "j"})
		told.want(t, "wrote wait")
		told.want(t, "transfer j   mail")
		a.Accepted(id, "t1")
		receive(t, s, app.TypeAccepted)
		stream.Close()
		closeAll(files)
	}
}

func TestConnectionsAreDealtOutInTurn(t *testing.T) {
	a, told, path := serve(t, me())
	one, two := registered(t, a, path, told, true), registered(t, a, path, told, false)
	for id := range flow.ID(4) {
		defer a.Open(id, client, service, router.Origin{}).Close()
	}
	for _, want := range []struct {
		s  *app.Socket
		id uint64
	}{{one, 0}, {two, 1}, {one, 2}, {two, 3}} {
		m, files := receive(t, want.s, app.TypeConnection)
		closeAll(files)
		if m.Conn != want.id {
			t.Errorf("got %d, want %d", m.Conn, want.id)
		}
	}
}

func TestServiceClosesWithItsLastApplication(t *testing.T) {
	a, told, path := serve(t, me())
	one, two := registered(t, a, path, told, true), registered(t, a, path, told, false)
	defer a.Open(1, client, service, router.Origin{}).Close()
	one.Close()
	told.wantSoon(t, "unregistered")
	two.Close()
	told.wantSoon(t, "close")
	if a.Open(2, client, service, router.Origin{}) != nil {
		t.Error("dealt out to nobody")
	}
}

func TestClosedConnectionIsClosedTowardsTheClient(t *testing.T) {
	a, told, path := serve(t, me())
	s := registered(t, a, path, told, true)
	defer a.Open(1, client, service, router.Origin{}).Close()
	_, files := receive(t, s, app.TypeConnection)
	if _, err := files[0].WriteString("bye"); err != nil {
		t.Fatal(err)
	}
	files[0].Close()
	told.want(t, "wrote bye")
	told.want(t, "closed")
}

func TestTableIsPushedAndAnswered(t *testing.T) {
	a, told, path := serve(t, me())
	s := registered(t, a, path, told, true)
	a.Table([]router.TargetStatus{
		{Host: "t1", Job: router.Job{Name: "mail-a", Service: service}},
		{Host: "t2", Job: router.Job{Name: "mail-b", Service: service}, Unfit: "not connected"},
		{Host: "t3", Job: router.Job{Name: "web", Service: netip.MustParseAddrPort("10.77.0.10:80")}},
	})
	send(t, s, app.Message{Type: app.TypeGetDPT, Seq: 8})
	for _, seq := range []uint64{0, 8} {
		m, _ := receive(t, s, app.TypeDPT)
		if len(m.Targets) != 2 || m.Seq != seq || !m.Targets[0].Ready || m.Targets[1].Ready || m.Targets[1].Reason != "not connected" {
			t.Errorf("%+v", m)
		}
	}
}

func TestRegistrationByListeningSocket(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	named := netip.MustParseAddrPort(l.Addr().String())
	a, told, path := serve(t, me(), named)
	s := dial(t, path)
	send(t, s, app.Message{Type: app.TypeRegister, Role: app.RoleRouter, Files: []string{app.FileListener}}, f)
	told.want(t, "serve")
	a.Serving(named)
	if m, _ := receive(t, s, app.TypeRegistered); m.Service != l.Addr().String() {
		t.Errorf("%+v", m)
	}
}

// TestRegistrationIsAnsweredWhenHandshakesAre: who is told earlier would have clients that get no answer to their SYN.
func TestRegistrationIsAnsweredWhenHandshakesAre(t *testing.T) {
	a, told, path := serve(t, me())
	early := dial(t, path)
	send(t, early, registration)
	told.want(t, "serve")
	early.Close()
	told.want(t, "close")
	a.Serving(service) // comes too late
	one, two := dial(t, path), dial(t, path)
	send(t, one, registration)
	told.want(t, "serve")
	send(t, two, registration)
	send(t, two, app.Message{Type: app.TypeGetDPT, Seq: 9})
	if m, _ := receive(t, two, app.TypeDPT); m.Seq != 9 {
		t.Fatalf("%+v", m)
	}
	a.Serving(service)
	for _, s := range []*app.Socket{one, two} {
		receive(t, s, app.TypeRegistered)
		receive(t, s, app.TypeDPT)
	}
	registered(t, a, path, told, false)
}

func TestRegistrationsThatAreRefused(t *testing.T) {
	for _, row := range []struct {
		name   string
		right  Right
		change func(*app.Message)
		code   string
	}{
		{"another user", Right{UID: 4_000_000_000}, func(*app.Message) {}, app.CodeNotAllowed},
		{"another service", me(), func(m *app.Message) { m.Service = "10.77.0.10:80" }, app.CodeNotAllowed},
		{"service of others", Right{UID: me().UID, Services: []string{"10.77.0.10:80"}}, func(*app.Message) {}, app.CodeNotAllowed},
		{"no address", me(), func(m *app.Message) { m.Service = "mail" }, app.CodeMalformed},
		{"nothing", me(), func(m *app.Message) { m.Service = "" }, app.CodeMalformed},
		{"role", me(), func(m *app.Message) { m.Role = app.RoleTarget }, app.CodeMalformed},
		{"type", me(), func(m *app.Message) { m.Type = app.TypeAccept }, app.CodeMalformed},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, _, path := serve(t, row.right)
			m := registration
			row.change(&m)
			s := dial(t, path)
			_ = s.Send(m) // it may have been hung up on
			if m, _ := receive(t, s, app.TypeError); m.Code != row.code || m.Detail == "" {
				t.Errorf("%+v", m)
			}
		})
	}
}

func TestSocketOfAnotherDaemonIsNotTaken(t *testing.T) {
	_, _, path := serve(t, me())
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "another daemon") {
		t.Error(err)
	}
}

// TestDeafApplicationLosesItsSocket: nobody waits for an application that does not read.
func TestDeafApplicationLosesItsSocket(t *testing.T) {
	a, told, path := serve(t, me())
	registered(t, a, path, told, true)
	rows := make([]router.TargetStatus, 200)
	for i := range rows {
		rows[i] = router.TargetStatus{Host: "t1", Job: router.Job{Name: "mail", Service: service}}
	}
	for range 100 * maxWaiting {
		a.Table(rows)
		select {
		case got := <-told:
			if got != "close" {
				t.Error(got)
			}
			return
		default:
		}
	}
	told.want(t, "close")
}
