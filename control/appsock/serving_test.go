package appsock

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"baton/control/agent"
	"baton/control/app"
	"baton/control/transfer"
	"baton/fastpath/wire"
)

var mail = agent.Job{Name: "mail", Service: service}

// decisions is an agent that tells what applications decide.
type decisions chan string

func (d decisions) Decided(host string, id transfer.ID, p *agent.Problem) {
	if p == nil {
		d <- fmt.Sprintf("%s %d accepted", host, id)
		return
	}
	d <- fmt.Sprintf("%s %d %s: %s", host, id, p.Reason, p.Detail)
}
func (d decisions) LookAgain() { d <- "look" }

func (d decisions) want(t *testing.T, what string) {
	t.Helper()
	select {
	case got := <-d:
		if got != what {
			t.Fatalf("the agent is told %q, want %q", got, what)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("the agent is not told %q", what)
	}
}

func (decisions) Give(g agent.Gift) {
	g.Socket.Close()
	switch g.Job {
	case "":
		g.Settled("r1", nil)
	case "lost":
		g.Settled("r1", agent.ErrLost)
	default:
		g.Settled("r1", &agent.Problem{Reason: transfer.ReasonHops, Detail: fmt.Sprint(g.From, g.Jobs, g.Host, string(g.State))})
	}
}

func TestApplicationGivesAConnection(t *testing.T) {
	job := agent.Job{Name: "mail", Service: netip.MustParseAddrPort("10.77.0.10:80")}
	_, _, path := serveTarget(t, Right{UID: uint32(os.Getuid())}, job)
	socket, err := app.Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	ask := func(m app.Message, files ...*os.File) app.Message {
		t.Helper()
		if err := socket.Send(m, files...); err != nil {
			t.Fatal(err)
		}
		answer, _, err := socket.Receive()
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	ask(app.Message{Type: app.TypeRegister, Role: app.RoleTarget, Job: "mail", Name: "imapd"})
	if m := ask(app.Message{Type: app.TypeGive, Seq: 1}); m.Type != app.TypeError || m.Code != app.CodeMalformed {
		t.Errorf("without a connection: %+v", m)
	}
	for _, try := range []struct{ job, want string }{
		{"", "given   r1"}, {"lost", "ended   "},
		{"web", "rejected router hop limit imapd[{mail 10.77.0.10:80}]t2state"},
	} {
		m := ask(app.Message{Type: app.TypeGive, Seq: 2, Job: try.job, Host: "t2", State: []byte("state"),
			Files: []string{app.FileConnection}}, file)
		got := fmt.Sprint(m.Type, " ", m.By, " ", m.Code, " ", m.Host)
		if m.Type == app.TypeRejected {
			got += m.Detail
		}
		if m.Seq != 2 || got != try.want {
			t.Errorf("to %q: %q, want %q", try.job, got, try.want)
		}
	}
}

// serveTarget runs control sockets for this user until the test ends.
func serveTarget(t *testing.T, right Right, jobs ...agent.Job) (*Serving, decisions, string) {
	t.Helper()
	s := NewServing("t1", jobs, NewNotes("t1", []string{"rh1"}, slog.New(slog.DiscardHandler)), slog.New(slog.DiscardHandler))
	s.notes.Use(wires{})
	told := make(decisions, 4*maxOffers)
	s.Begin(told)
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		if err := (&Server{Rights: []Right{right}, Handler: s, Log: s.log}).Serve(t.Context(), l); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(done.Wait)
	return s, told, path
}

// joined is a target application that has registered for the job mail.
func joined(t *testing.T, path string, told decisions) *app.Socket {
	t.Helper()
	s := dial(t, path)
	send(t, s, app.Message{Type: app.TypeRegister, Role: app.RoleTarget, Job: "mail", Name: "pop3d", Seq: 3})
	m, _ := receive(t, s, app.TypeRegistered)
	if m.Seq != 3 || m.Host != "t1" || m.Job != "mail" || m.Service != service.String() {
		t.Fatalf("%+v", m)
	}
	told.want(t, "look")
	return s
}

// check is an offer of the routing host rh1.
func check(id transfer.ID, state []byte) *transfer.Check {
	return &transfer.Check{Host: "rh1", Offer: transfer.Offer{Transfer: id, Job: "mail", State: state, From: "front",
		Inc: wire.Incarnation{Tuple: wire.Tuple{Client: client, Service: service}}}}
}

func offer1(t *testing.T, s *Serving, c *transfer.Check) {
	t.Helper()
	if p := s.Offer(c); p != nil {
		t.Fatal(p)
	}
}

func TestOfferIsAcceptedAndArrives(t *testing.T) {
	s, told, path := serveTarget(t, me(), mail)
	application := joined(t, path, told)
	for _, state := range [][]byte{nil, []byte("user=ada"), bytes.Repeat([]byte("x"), app.MaxState)} {
		offer1(t, s, check(7, state))
		m, _ := receive(t, application, app.TypeOffer)
		if m.Client != client.String() || m.Service != service.String() || m.Job != "mail" || !bytes.Equal(m.State, state) ||
			*m.From != (app.Party{Host: "rh1", Name: "front"}) {
			t.Fatalf("%+v", m)
		}
		send(t, application, app.Message{Type: app.TypeAccept, Transfer: m.Transfer})
		told.want(t, "rh1 7 accepted")
		s.Arrived("rh1", 7)
		if got, _ := receive(t, application, app.TypeArrived); got.Transfer != m.Transfer || got.Client != client.String() {
			t.Fatalf("%+v", got)
		}
	}
	if r := s.Registered(); len(r) != 1 || r[0].Taken != 3 || r[0].Open != 0 || r[0].Name != "pop3d" || r[0].Job != "mail" {
		t.Errorf("%+v", r)
	}
}

func TestOfferIsRejectedWithAReason(t *testing.T) {
	s, told, path := serveTarget(t, me(), mail)
	application := joined(t, path, told)
	for reason, want := range map[string]string{
		"mailbox is locked":         "rh1 7 application: mailbox is locked",
		"":                          "rh1 7 application: the application gives no reason",
		strings.Repeat("x", 10_000): "rh1 7 application: " + strings.Repeat("x", maxReason),
	} {
		offer1(t, s, check(7, nil))
		m, _ := receive(t, application, app.TypeOffer)
		send(t, application, app.Message{Type: app.TypeReject, Transfer: m.Transfer, Detail: reason})
		told.want(t, want)
		s.Lapsed("rh1", 7) // as the agent does; the application has heard enough
	}
	offer1(t, s, check(8, nil))
	receive(t, application, app.TypeOffer)
}

func TestAssignedConnectionIsToldWhenItArrives(t *testing.T) {
	s, told, path := serveTarget(t, me(), mail)
	application := joined(t, path, told)
	c := check(7, []byte("user=ada"))
	c.Assigned = true
	offer1(t, s, c)
	s.Arrived("rh1", 7)
	m, _ := receive(t, application, app.TypeArrived)
	if string(m.State) != "user=ada" || m.Client != client.String() || m.From.Name != "front" {
		t.Errorf("%+v", m)
	}
	offer1(t, s, c)
	s.Lapsed("rh1", 7) // nothing is said of what was never announced
	offer1(t, s, check(8, nil))
	receive(t, application, app.TypeOffer)
}

func TestOfferThatLapsesIsCanceled(t *testing.T) {
	s, told, path := serveTarget(t, me(), mail)
	application := joined(t, path, told)
	offer1(t, s, check(7, nil))
	m, _ := receive(t, application, app.TypeOffer)
	s.Lapsed("rh1", 7)
	if got, _ := receive(t, application, app.TypeCanceled); got.Transfer != m.Transfer || got.Detail == "" {
		t.Errorf("%+v", got)
	}
	send(t, application, app.Message{Type: app.TypeAccept, Transfer: m.Transfer}) // it has crossed the message
	send(t, application, app.Message{Type: app.TypeAccept, Transfer: m.Transfer + 1, Seq: 4})
	if got, _ := receive(t, application, app.TypeError); got.Code != app.CodeUnknownTransfer || got.Seq != 4 {
		t.Errorf("%+v", got)
	}
	s.Arrived("rh1", 7) // nobody knows it any more
	if r := s.Registered(); r[0].Open != 0 || r[0].Taken != 0 {
		t.Errorf("%+v", r)
	}
}

func TestApplicationsAreAskedInTurn(t *testing.T) {
	s, told, path := serveTarget(t, me(), mail)
	one, two := joined(t, path, told), joined(t, path, told)
	for i := range transfer.ID(4) {
		offer1(t, s, check(i+1, nil))
	}
	for _, a := range []*app.Socket{one, two} {
		for range 2 {
			receive(t, a, app.TypeOffer)
		}
	}
}

func TestApplicationThatEndsRejectsWhatItHasNotAnswered(t *testing.T) {
	s, told, path := serveTarget(t, me(), mail)
	application := joined(t, path, told)
	if p := s.Problem(mail); p != nil {
		t.Error(p)
	}
	for i := range transfer.ID(2) {
		offer1(t, s, check(i+1, nil))
	}
	m, _ := receive(t, application, app.TypeOffer)
	send(t, application, app.Message{Type: app.TypeAccept, Transfer: m.Transfer})
	told.want(t, "rh1 1 accepted")
	application.Close()
	told.want(t, "rh1 2 application: the application is gone")
	told.want(t, "look")
	if p := s.Problem(mail); p == nil || p.Reason != transfer.ReasonNotListening {
		t.Errorf("%v", p)
	}
	if p := s.Offer(check(3, nil)); p == nil || !strings.Contains(p.Detail, "no application is registered for job mail") {
		t.Errorf("%v", p)
	}
}

func TestAnswerOfAnotherApplicationDoesNotCount(t *testing.T) {
	s, told, path := serveTarget(t, me(), mail)
	one, two := joined(t, path, told), joined(t, path, told)
	offer1(t, s, check(7, nil))
	m, _ := receive(t, one, app.TypeOffer)
	send(t, two, app.Message{Type: app.TypeReject, Transfer: m.Transfer})
	send(t, two, app.Message{Type: app.TypeGetDPT})
	receive(t, two, app.TypeError) // both were read
	send(t, one, app.Message{Type: app.TypeAccept, Transfer: m.Transfer})
	send(t, one, app.Message{Type: app.TypeReject, Transfer: m.Transfer}) // it has said yes
	told.want(t, "rh1 7 accepted")
	send(t, one, app.Message{Type: app.TypeGetDPT})
	receive(t, one, app.TypeError)
	if len(told) > 0 {
		t.Error(<-told)
	}
}

func TestOffersToOneApplicationAreBounded(t *testing.T) {
	s, told, path := serveTarget(t, me(), mail)
	application := joined(t, path, told)
	for i := range transfer.ID(maxOffers) {
		offer1(t, s, check(i+1, nil))
		receive(t, application, app.TypeOffer)
	}
	if p := s.Offer(check(maxOffers+1, nil)); p == nil || p.Reason != transfer.ReasonCapacity {
		t.Errorf("%v", p)
	}
	s.Lapsed("rh1", 1)
	offer1(t, s, check(maxOffers+1, nil))
}

func TestTargetRegistrationsThatAreRefused(t *testing.T) {
	other := agent.Job{Name: "mail", Service: client}
	for _, row := range []struct {
		name   string
		right  Right
		change func(*app.Message)
		code   string
	}{
		{"another user", Right{UID: 4_000_000_000}, func(*app.Message) {}, app.CodeNotAllowed},
		{"service of others", Right{UID: me().UID, Services: []string{client.String()}},
			func(m *app.Message) { m.Service = service.String() }, app.CodeNotAllowed},
		{"unknown job", me(), func(m *app.Message) { m.Job = "web" }, app.CodeUnknownJob},
		{"unknown service", me(), func(m *app.Message) { m.Service = "10.77.0.10:80" }, app.CodeUnknownJob},
		{"no address", me(), func(m *app.Message) { m.Service = "mail" }, app.CodeMalformed},
		{"one of two services", me(), func(*app.Message) {}, app.CodeMalformed},
		{"role", me(), func(m *app.Message) { m.Role = app.RoleRouter }, app.CodeMalformed},
		{"type", me(), func(m *app.Message) { m.Type = app.TypeTransfer }, app.CodeMalformed},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, _, path := serveTarget(t, row.right, mail, other)
			m := app.Message{Type: app.TypeRegister, Role: app.RoleTarget, Job: "mail"}
			row.change(&m)
			s := dial(t, path)
			_ = s.Send(m) // it may have been hung up on
			if m, _ := receive(t, s, app.TypeError); m.Code != row.code || m.Detail == "" {
				t.Errorf("%+v", m)
			}
		})
	}
}
