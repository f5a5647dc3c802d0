package appsock

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"baton/control/app"
	"baton/control/router"
	"baton/control/transfer"
)

// This file tests the library of package app against the daemons' ends.

// dialLocal connects to a listener, and returns the client as an offer has it.
func dialLocal(t *testing.T, l net.Listener) netip.AddrPort {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return netip.MustParseAddrPort(c.LocalAddr().String())
}

// listening is a target application on a listener of this host.
func listening(t *testing.T, path string, decide func(app.Offer) error) (*app.Listener, net.Listener) {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := app.Listen(path, app.Registration{Job: "mail", Name: "pop3d"}, inner, decide)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, inner
}

func accepted(t *testing.T, l *app.Listener) *app.Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*app.Conn)
}

func TestListenerGivesConnectionsTheirState(t *testing.T) {
	s, told, path := serveTarget(t, me(), mail)
	l, inner := listening(t, path, nil)
	told.want(t, "look")
	for _, assigned := range []bool{false, true} {
		from := dialLocal(t, inner) // it stands for the import: the connection is there before its state is known
		c := check(7, []byte("user=ada"))
		c.Offer.Inc.Client, c.Assigned = from, assigned
		offer1(t, s, c)
		if !assigned {
			told.want(t, "rh1 7 accepted")
		}
		s.Arrived("rh1", 7)
		got := accepted(t, l)
		if o := got.Offer; string(o.State) != "user=ada" || o.Client != from || o.Job != "mail" ||
			o.From != (app.Party{Host: "rh1", Name: "front"}) {
			t.Errorf("assigned %t: %+v", assigned, o)
		}
	}
}

func TestListenerRejectsWithTheApplicationsReason(t *testing.T) {
	s, told, path := serveTarget(t, me(), mail)
	l, inner := listening(t, path, func(o app.Offer) error {
		if string(o.State) == "user=eve" {
			return errors.New("mailbox is locked")
		}
		return nil
	})
	told.want(t, "look")
	from := dialLocal(t, inner)
	for i, state := range []string{"user=eve", "user=ada"} {
		c := check(transfer.ID(i+1), []byte(state))
		c.Offer.Inc.Client = from
		offer1(t, s, c)
		told.want(t, []string{"rh1 1 application: mailbox is locked", "rh1 2 accepted"}[i])
	}
	if got := accepted(t, l); string(got.Offer.State) != "user=ada" {
		t.Errorf("%+v", got.Offer)
	}
}

// TestListenerTakesConnectionsOfThisHost: nobody offers them.
func TestListenerTakesConnectionsOfThisHost(t *testing.T) {
	_, told, path := serveTarget(t, me(), mail)
	l, inner := listening(t, path, nil)
	told.want(t, "look")
	dialLocal(t, inner)
	if got := accepted(t, l); got.Offer.Client.IsValid() || got.Offer.State != nil {
		t.Errorf("%+v", got.Offer)
	}
	l.Close()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	told.want(t, "look")
}

func TestLibrarySaysWhyItIsRefused(t *testing.T) {
	_, _, path := serveTarget(t, me(), mail)
	_, err := app.Listen(path, app.Registration{Job: "web"}, nil, nil)
	if !errors.Is(err, app.ErrRejected) || !strings.Contains(err.Error(), `no job "web"`) {
		t.Error(err)
	}
}

// routing is a routing application and a client in its hands.
func routing(t *testing.T) (*Routing, calls, *app.Client, router.Stream) {
	t.Helper()
	a, told, path := serve(t, me())
	a.Table([]router.TargetStatus{{Host: "t1", Job: router.Job{Name: "mail", Service: service}}})
	go func() {
		told.want(t, "serve")
		a.Serving(service)
	}()
	r, err := app.NewRouter(path, app.Registration{Service: service.String(), Name: "front"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	stream := a.Open(5, client, service, router.Origin{})
	c, err := r.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if rows := r.Targets(); len(rows) != 1 || rows[0].Host != "t1" || !rows[0].Ready {
		t.Errorf("table %+v", rows)
	}
	return a, told, c, stream
}

func TestRouterPeeksReadsAndHandsOver(t *testing.T) {
	a, told, c, stream := routing(t)
	if c.Address != client || c.Service != service.String() {
		t.Errorf("%+v", c)
	}
	go func() { stream.Write([]byte("hello")) }() // Peek waits for it
	b := make([]byte, 16)
	for range 2 {
		if n, err := c.Peek(b); err != nil || string(b[:n]) != "hello" {
			t.Fatalf("peeked %q, %v", b[:n], err)
		}
	}
	if _, err := io.ReadFull(c, b[:2]); err != nil {
		t.Fatal(err)
	}
	if n, known := stream.Unread(); n != 3 || !known {
		t.Errorf("%d unread, %t; want 3", n, known)
	}
	if r := a.Registered(); len(r) != 1 || r[0].Open != 1 || r[0].Taken != 0 {
		t.Errorf("registered: %+v", r)
	}
	results := make(chan error)
	hand := func() {
		results <- c.Transfer(t.Context(), app.Wish{Job: "mail", State: []byte("user=ada"), Quiescent: true})
	}
	go hand()
	told.want(t, "transfer mail  user=ada front")
	a.Rejected(5, router.Rejection{By: "application", Code: app.CodeApplication, Detail: "mailbox is locked"})
	var why *app.RejectedError
	if err := <-results; !errors.As(err, &why) || why.By != "application" || why.Detail != "mailbox is locked" {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("-ERR")); err != nil { // it goes on
		t.Fatal(err)
	}
	told.want(t, "wrote -ERR")
	go hand()
	told.want(t, "transfer mail  user=ada front")
	a.Accepted(5, "t1")
	if err := <-results; err != nil {
		t.Fatal(err)
	}
	if r := a.Registered(); len(r) != 1 || r[0].Name != "front" || r[0].Role != "router" || r[0].Taken != 1 || r[0].Open != 0 {
		t.Errorf("registered: %+v", r)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("written after the hand-over: %v", err)
	}
}

func TestTransferOfAClientThatIsGone(t *testing.T) {
	a, told, c, stream := routing(t)
	results := make(chan error)
	go func() { results <- c.Transfer(t.Context(), app.Wish{Job: "mail"}) }()
	told.want(t, "transfer mail   front")
	if err := c.Transfer(t.Context(), app.Wish{Job: "mail"}); !errors.Is(err, app.ErrBusy) {
		t.Error(err)
	}
	stream.Close()
	a.Ended(5, "reset")
	if err := <-results; !errors.Is(err, app.ErrEnded) {
		t.Error(err)
	}
}

func TestTransferIsGivenUp(t *testing.T) {
	_, told, c, _ := routing(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := c.Transfer(ctx, app.Wish{Job: "mail"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	told.want(t, "transfer mail   front")
}

func TestPeekSeesTheClientsEnd(t *testing.T) {
	_, _, c, stream := routing(t)
	stream.CloseWrite()
	if _, err := c.Peek(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}
