package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"baton/control/admin"
	"baton/control/agent"
	"baton/control/config"
	"baton/control/transfer"
	"baton/control/xcf"
	"baton/fastpath/wire"
)

// routingHost is a routing host of the test's own: it says what it is told to and keeps what it hears.
type routingHost struct {
	server *xcf.Server
	heard  chan *xcf.Envelope
	up     chan *xcf.Peer
}

func (r *routingHost) Up(p *xcf.Peer)                       { r.up <- p }
func (r *routingHost) Down(*xcf.Peer, error)                {}
func (r *routingHost) Message(_ *xcf.Peer, e *xcf.Envelope) { r.heard <- e }
func (r *routingHost) say(t *testing.T, m transfer.Message) {
	t.Helper()
	if err := r.server.Send("t1", xcf.Pack(m)); err != nil {
		t.Fatal(err)
	}
}

// hear waits for the next message of a kind.
func hear[M transfer.Message](t *testing.T, r *routingHost) M {
	t.Helper()
	timeout := time.After(answerTimeout)
	for {
		select {
		case e := <-r.heard:
			m, err := xcf.Unpack(e)
			if err != nil {
				t.Fatal(err)
			}
			if m, ok := m.(M); ok {
				return m
			}
		case <-timeout:
			t.Fatalf("no %T", *new(M))
		}
	}
}

// hearJob waits until the only job is as wanted.
func (r *routingHost) hearJob(t *testing.T, ready bool) *xcf.Job {
	t.Helper()
	timeout := time.After(answerTimeout)
	for {
		select {
		case e := <-r.heard:
			if jobs := e.GetJobs().GetJobs(); len(jobs) == 1 && jobs[0].Ready == ready {
				return jobs[0]
			}
		case <-timeout:
			t.Fatalf("the job did not become ready=%v", ready)
		}
	}
}

// agentLab is a lab with a routing host, and what an agent in it is configured with.
type agentLab struct {
	*lab
	router *routingHost
	config *config.Target
}

func newAgentLab(t *testing.T) *agentLab {
	t.Helper()
	l := newLab(t)
	certs := t.TempDir()
	err := errors.Join(xcf.CreateCA(certs), xcf.IssueHost(certs, xcf.RoleRouter, "rh1", 0),
		xcf.IssueHost(certs, xcf.RoleTarget, "t1", 0))
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string) string { return filepath.Join(certs, name) }
	router := &routingHost{heard: make(chan *xcf.Envelope, 1000), up: make(chan *xcf.Peer, 100)}
	files := xcf.Files{CA: file("ca.pem"), Cert: file("rh1.pem"), Key: file("rh1.key")}
	router.server, err = xcf.Listen("127.0.0.1:0", xcf.Config{Name: "rh1", Files: files, Epoch: 1}, router, quiet)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, func(ctx context.Context) { router.server.Serve(ctx) })
	return &agentLab{l, router, &config.Target{
		Host: "t1",
		XCF: config.TargetXCF{CA: file("ca.pem"), Cert: file("t1.pem"), Key: file("t1.key"),
			Routers: []config.RouterHost{{Host: "rh1", Address: router.server.Addr().String()}}},
		Guard: config.Guard{Interfaces: []string{l.dev}, BPFFS: newPinDir(t), Addresses: "manage"},
		Jobs: []config.TargetJob{{Name: "web", Address: service4.Addr(), Port: 80, Listener: service4,
			Netns: fmt.Sprintf("/proc/self/fd/%d", int(l.handle)), Window: 32768}},
		Limits: config.Limits{Reservations: 16, BacklogRetry: config.Duration(20 * time.Millisecond)},
	}}
}

var quiet = slog.New(slog.DiscardHandler)

// serve runs f until the test ends, or the returned function is called.
func serve(t *testing.T, f func(context.Context)) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { f(ctx) })
	stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(stop)
	return stop
}

// start runs an agent until the test ends, or the returned function is called.
func (l *agentLab) startAgent(t *testing.T) (a *agent.Agent, stop func()) {
	t.Helper()
	kernel, err := Open(l.config, quiet)
	if err != nil {
		t.Fatal(err)
	}
	a, err = agent.New(agent.Config{
		Host: l.config.Host, Software: "test", XCF: l.config.XCF, Jobs: Jobs(l.config), Limits: l.config.Limits, Log: quiet,
	}, kernel)
	if err != nil {
		t.Fatal(err)
	}
	return a, serve(t, func(ctx context.Context) {
		a.Run(ctx)
		if err := kernel.Close(); err != nil {
			t.Error(err)
		}
	})
}

func offerOf(id transfer.ID, r *transfer.Record) transfer.Offer {
	return transfer.Offer{
		Transfer: id, Inc: r.Inc, Epoch: r.Epoch, Job: r.Job, RecordVersion: transfer.RecordVersion, Bytes: len(r.Data),
		MSS: r.Handshake.MSS, Window: 32768, Timestamps: r.Handshake.Timestamps, Reserve: time.Second,
	}
}

// give hands a connection over and returns the confirmation.
func (l *agentLab) give(t *testing.T, id transfer.ID, r *transfer.Record) transfer.Confirm {
	t.Helper()
	l.router.say(t, offerOf(id, r))
	if reply := hear[transfer.OfferReply](t, l.router); !reply.Accepted {
		t.Fatalf("offer rejected: %v, %s", reply.Reason, reply.Detail)
	}
	encoded, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	l.router.say(t, transfer.Commit{Transfer: id, Record: encoded})
	return hear[transfer.Confirm](t, l.router)
}

func TestAgentTakesAConnectionAndReportsItsEnd(t *testing.T) {
	l := newAgentLab(t)
	ln := l.listen(t, "tcp4", ":80", false)
	a, _ := l.startAgent(t)
	if job := l.router.hearJob(t, true); job.Window != 64240 || job.Name != "web" || job.Port != 80 {
		t.Errorf("job %v", job)
	}
	r := record(client4, service4, request)
	confirm := l.give(t, 7, r)
	if !confirm.Imported || confirm.RcvNxt != r.RcvNxt || confirm.Took <= 0 {
		t.Fatalf("confirmation %+v", confirm)
	}
	c := accept(t, ln)
	if flow := oneFlow(t, a); flow.State != "ESTABLISHED" || flow.Router != "rh1" {
		t.Errorf("flow %+v", flow)
	}
	checkConversation(t, l.lab, c, r)
	l.drain(t)
	c.Close() // FIN-WAIT
	peer := newClient(l.lab, r)
	peer.snd, peer.rcv = peer.snd.Add(4), peer.rcv.Add(5000)
	peer.receive(t, 1)
	peer.send(t, wire.ACK|wire.FIN, "") // TIME-WAIT
	want := transfer.EndReport{Inc: r.Inc, Epoch: 1, Job: "web"}
	if got := hear[transfer.EndReport](t, l.router); got != want {
		t.Errorf("end report %+v, want %+v", got, want)
	}
	if flows := a.Flows(); len(flows) != 0 {
		t.Errorf("flows after the end: %+v", flows)
	}
	if s := a.Sample(); s.Flows != 0 || len(s.Routers) != 1 || !s.Routers[0].Up {
		t.Errorf("sample %+v", s)
	}
}

// lookTwice is long enough for the agent to look at its connections twice.
const lookTwice = 400 * time.Millisecond

// oneFlow waits for the agent's only flow: the routing host hears of it a moment before the table does.
func oneFlow(t *testing.T, a *agent.Agent) admin.Flow {
	t.Helper()
	for deadline := time.Now().Add(answerTimeout); ; time.Sleep(time.Millisecond) {
		flows := a.Flows()
		if len(flows) == 1 {
			return flows[0]
		}
		if time.Now().After(deadline) {
			t.Fatalf("flows %+v, want one", flows)
		}
	}
}

// An application that has closed and whose client has not keeps its flow, as long as the kernel keeps the FIN-WAIT-2.
func TestAgentKeepsAHalfClosedFlow(t *testing.T) {
	l := newAgentLab(t)
	l.sysctl(t, "net/ipv4/tcp_fin_timeout", "2")
	ln := l.listen(t, "tcp4", ":80", false)
	a, _ := l.startAgent(t)
	l.router.hearJob(t, true)
	r := record(client4, service4, "")
	l.give(t, 1, r)
	accept(t, ln).Close()
	newClient(l.lab, r).receive(t, 1) // ACKs the FIN
	time.Sleep(lookTwice)
	if flow := oneFlow(t, a); flow.State != "FIN-WAIT-2" {
		t.Errorf("flow %+v, want FIN-WAIT-2", flow)
	}
	if got := hear[transfer.EndReport](t, l.router); got.Inc != r.Inc {
		t.Errorf("end report %+v", got)
	}
}

func TestAgentRefusesWhatItCannotTake(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(*testing.T, *agentLab)
		change  func(*transfer.Offer)
		want    transfer.Reason
		detail  string
	}{
		{name: "nobody listens", want: transfer.ReasonNotListening, detail: "start the application"},
		{name: "another job", change: func(o *transfer.Offer) { o.Job = "mail" }, want: transfer.ReasonUnknownJob},
		{name: "another service", change: func(o *transfer.Offer) { o.Inc.Service = service6; o.Inc.Client = client6 },
			want: transfer.ReasonUnknownJob},
		{name: "MPTCP", prepare: func(t *testing.T, l *agentLab) { l.listen(t, "tcp4", ":80", true) },
			want: transfer.ReasonHost, detail: "net.mptcp.enabled=0"},
		{name: "window", prepare: listens, change: func(o *transfer.Offer) { o.Window = 65000 },
			want: transfer.ReasonWindow, detail: "SO_RCVBUF"},
		{name: "MSS", prepare: listens, change: func(o *transfer.Offer) { o.MSS = 500 }, want: transfer.ReasonMSS},
		{name: "sysctl", prepare: func(t *testing.T, l *agentLab) {
			listens(t, l)
			l.sysctl(t, "net/ipv4/tcp_syncookies", "0")
		}, want: transfer.ReasonHost, detail: "set net.ipv4.tcp_syncookies=1"},
		{name: "namespace", prepare: func(_ *testing.T, l *agentLab) { l.config.Jobs[0].Netns = "baton-absent" },
			want: transfer.ReasonHost, detail: "baton-absent"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newAgentLab(t)
			if tt.prepare != nil {
				tt.prepare(t, l)
			}
			l.startAgent(t)
			<-l.router.up
			offer := offerOf(1, record(client4, service4, request))
			if tt.change != nil {
				tt.change(&offer)
			}
			l.router.say(t, offer)
			reply := hear[transfer.OfferReply](t, l.router)
			if reply.Accepted || reply.Reason != tt.want || !strings.Contains(reply.Detail, tt.detail) {
				t.Errorf("reply %+v, want %v: ...%s", reply, tt.want, tt.detail)
			}
		})
	}
}

func listens(t *testing.T, l *agentLab) { l.listen(t, "tcp4", ":80", false) }

// The list of jobs follows the application.
func TestAgentTellsReadiness(t *testing.T) {
	l := newAgentLab(t)
	l.startAgent(t)
	if job := l.router.hearJob(t, false); !strings.Contains(job.Reason, "start the application") {
		t.Errorf("reason %q", job.Reason)
	}
	ln := l.listen(t, "tcp4", ":80", false)
	l.router.hearJob(t, true)
	ln.Close()
	l.router.hearJob(t, false)
}

// A full accept queue is waited for a little, then the confirmation says so, and nothing appears later.
func TestAgentConfirmsAFullBacklog(t *testing.T) {
	l := newAgentLab(t)
	l.sysctl(t, "net/core/somaxconn", "1")
	ln := l.listen(t, "tcp4", ":80", false)
	l.startAgent(t)
	l.router.hearJob(t, true)
	for i := range 2 {
		if c := l.give(t, transfer.ID(i+1), record(clientPort(i), service4, request)); !c.Imported {
			t.Fatalf("confirmation %d: %+v", i, c)
		}
	}
	start := time.Now()
	c := l.give(t, 3, record(clientPort(2), service4, request))
	if c.Imported || c.Reason != transfer.ReasonCapacity || time.Since(start) < 15*time.Millisecond {
		t.Errorf("confirmation %+v after %v", c, time.Since(start))
	}
	accept(t, ln)
	accept(t, ln)
	ln.(*net.TCPListener).SetDeadline(time.Now().Add(shortly))
	if c, err := ln.Accept(); err == nil {
		t.Errorf("a refused connection appeared: %v", c.RemoteAddr())
	}
}

// The next agent knows the connections of the last one: it answers for them, and reports their ends, also of those that
// ended while no agent ran.
func TestAgentRestart(t *testing.T) {
	l := newAgentLab(t)
	ln := l.listen(t, "tcp4", ":80", false)
	_, stop := l.startAgent(t)
	l.router.hearJob(t, true)
	stays, leaves := record(clientPort(1), service4, ""), record(clientPort(2), service4, "")
	l.give(t, 1, stays)
	c := accept(t, ln)
	l.give(t, 2, leaves)
	gone := accept(t, ln)
	stop()
	l.send(t, clientPort(3), service4, wire.Segment{Flags: wire.SYN, Window: 100})
	if f, ok := l.next(t, shortly); ok {
		t.Errorf("without an agent a stranger got %+v", f.Segment)
	}
	gone.(*net.TCPConn).SetLinger(0)
	gone.Close()
	io.WriteString(c, "still here")
	peer := newClient(l.lab, stays)
	peer.receive(t, len("still here"))

	l.startAgent(t)
	if got := hear[transfer.EndReport](t, l.router); got.Inc != leaves.Inc {
		t.Errorf("end report %+v", got)
	}
	l.router.say(t, transfer.Query{Transfer: 1, Inc: stays.Inc})
	want := transfer.QueryReply{Transfer: 1, Inc: stays.Inc, State: transfer.FlowLive, RcvNxt: stays.RcvNxt}
	got := hear[transfer.QueryReply](t, l.router)
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b wire.Incarnation) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
	if got := hear[transfer.EndReport](t, l.router); got.Inc != stays.Inc {
		t.Errorf("end report %+v", got)
	}
}

// Afterwards the host is as before.
func TestCleanupLeavesNothing(t *testing.T) {
	l := newAgentLab(t)
	l.config.Guard.BPFFS = filepath.Join(l.config.Guard.BPFFS, "baton")
	l.config.Jobs[0].Address = clientPort(0).Addr()
	listens(t, l)
	_, stop := l.startAgent(t)
	<-l.router.up
	stop()
	if got := mustRead(t, l.lab, "net/ipv4/conf/all/arp_ignore"); got != "1" {
		t.Errorf("arp_ignore %s while managed", got)
	}
	if err := Cleanup(l.config.Guard.BPFFS); err != nil {
		t.Fatal(err)
	}
	if got := mustRead(t, l.lab, "net/ipv4/conf/all/arp_ignore"); got != "0" {
		t.Errorf("arp_ignore %s after the cleanup", got)
	}
	if isLocalIn(t, l.lab, "address "+l.config.Jobs[0].Address.String()) {
		t.Error("the DVIPA is still there")
	}
	if existing(l.config.Guard.BPFFS) == l.config.Guard.BPFFS {
		t.Error("pins are still there")
	}
	l.send(t, client4, service4, wire.Segment{Flags: wire.SYN, Window: 100})
	if _, ok := l.next(t, answerTimeout); !ok {
		t.Error("the guard is still there")
	}
	if err := Cleanup(l.config.Guard.BPFFS); err != nil {
		t.Errorf("second cleanup: %v", err)
	}
}

// The doctor finds what keeps a job from working, and nothing on a good host.
func TestExamine(t *testing.T) {
	l := newAgentLab(t)
	listens(t, l)
	bad := func() (lines []string) {
		for _, c := range Examine(l.config) {
			if !c.OK {
				lines = append(lines, c.Detail)
			}
		}
		return lines
	}
	if got := strings.Join(bad(), "\n"); !strings.Contains(got, "start baton-target run") ||
		!strings.Contains(got, "arp_ignore=1") {
		t.Errorf("before the agent:\n%s", got)
	}
	l.startAgent(t)
	if got := bad(); len(got) != 0 {
		t.Errorf("with the agent:\n%s", strings.Join(got, "\n"))
	}
	l.sysctl(t, "net/ipv4/tcp_sack", "0")
	if got := bad(); len(got) != 1 || !strings.HasPrefix(got[0], "set net.ipv4.tcp_sack=1") {
		t.Errorf("with tcp_sack=0: %q", got)
	}
}
