package agent

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"baton/control/admin"
	"baton/control/config"
	"baton/control/transfer"
	"baton/control/xcf"
	"baton/fastpath/wire"
)

const answerTimeout = 20 * time.Second

var (
	service = netip.MustParseAddrPort("10.77.0.10:80")
	web     = Job{"web", service}
	inc     = wire.Incarnation{
		Tuple: wire.Tuple{Client: netip.MustParseAddrPort("10.77.0.100:40000"), Service: service}, IRS: 1, ISS: 2,
	}
)

// fake is an Importer whose answers a test chooses.
type fake struct {
	to          Reporter
	live, ended []transfer.Flow
	imported    func(context.Context, *transfer.Import) (Imported, *Problem)
	exported    func() (Export, *Problem)

	mu    sync.Mutex
	ready map[Job]Readiness
	check *Problem
}

func (f *fake) Begin(to Reporter) (live, ended []transfer.Flow) {
	f.to = to
	return f.live, f.ended
}

func (f *fake) Look() map[Job]Readiness {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.ready)
}

func (f *fake) Check(*transfer.Offer) *Problem {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.check
}

func (f *fake) Import(ctx context.Context, i *transfer.Import) (Imported, *Problem) {
	return f.imported(ctx, i)
}
func (f *fake) Export(*os.File) (Export, *Problem) { return f.exported() }
func (f *fake) Forget(wire.Incarnation)            {}
func (f *fake) Flows() []admin.Flow                { return nil }

// rig is an agent with a routing host of the test's own.
type rig struct {
	*fake
	t      *testing.T
	agent  *Agent
	server *xcf.Server
	heard  chan *xcf.Envelope
	hangUp func() // ends the routing host
	stop   func() // ends the agent
}

// stops is not nil once the agent ends.
func (a *Agent) stops() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stopping.Err()
}

func (r *rig) Up(*xcf.Peer)                         {}
func (r *rig) Down(*xcf.Peer, error)                {}
func (r *rig) Message(_ *xcf.Peer, e *xcf.Envelope) { r.heard <- e }
func (r *rig) serve(t *testing.T, f func(context.Context)) (stop func()) {
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

func newRig(t *testing.T, f *fake) *rig { return newRigWith(t, f, nil) }

func newRigWith(t *testing.T, f *fake, apps Applications, change ...func(*Config)) *rig {
	t.Helper()
	certs := t.TempDir()
	err := errors.Join(xcf.CreateCA(certs), xcf.IssueHost(certs, xcf.RoleRouter, "rh1", 0),
		xcf.IssueHost(certs, xcf.RoleTarget, "t1", 0))
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string) string { return filepath.Join(certs, name) }
	if f.ready == nil {
		f.ready = map[Job]Readiness{web: {Window: 40000}}
	}
	r := &rig{fake: f, t: t, heard: make(chan *xcf.Envelope, 1000)}
	quiet := slog.New(slog.DiscardHandler)
	files := xcf.Files{CA: file("ca.pem"), Cert: file("rh1.pem"), Key: file("rh1.key")}
	r.server, err = xcf.Listen("127.0.0.1:0", xcf.Config{Name: "rh1", Files: files, Epoch: 1}, r, quiet)
	if err != nil {
		t.Fatal(err)
	}
	r.hangUp = r.serve(t, func(ctx context.Context) { r.server.Serve(ctx) })
	c := Config{Host: "t1", Software: "test", Jobs: []Job{web}, Log: quiet, Applications: apps,
		XCF: config.TargetXCF{CA: file("ca.pem"), Cert: file("t1.pem"), Key: file("t1.key"),
			Routers: []config.RouterHost{{Host: "rh1", Address: r.server.Addr().String()}}},
		Limits: config.Limits{Reservations: 16, BacklogRetry: config.Duration(50 * time.Millisecond)},
	}
	for _, set := range change {
		set(&c)
	}
	r.agent, err = New(c, f)
	if err != nil {
		t.Fatal(err)
	}
	r.stop = r.serve(t, r.agent.Run)
	return r
}

// say sends a message once the agent's stream is up.
func (r *rig) say(m transfer.Message) {
	r.t.Helper()
	for deadline := time.Now().Add(answerTimeout); r.server.Send("t1", xcf.Pack(m)) != nil; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatal("the agent does not come")
		}
	}
}

// hear waits for the next message of a kind.
func hear[M transfer.Message](r *rig) M {
	r.t.Helper()
	timeout := time.After(answerTimeout)
	for {
		select {
		case e := <-r.heard:
			if m, err := xcf.Unpack(e); err != nil {
				r.t.Fatal(err)
			} else if m, ok := m.(M); ok {
				return m
			}
		case <-timeout:
			r.t.Fatalf("no %T", *new(M))
		}
	}
}

// give offers and commits a connection and returns the confirmation.
func (r *rig) give(id transfer.ID) transfer.Confirm {
	r.t.Helper()
	r.say(transfer.Offer{Transfer: id, Inc: inc, Epoch: 1, Job: "web", RecordVersion: transfer.RecordVersion, MSS: 1460,
		Window: 32768, Reserve: time.Second})
	if reply := hear[transfer.OfferReply](r); !reply.Accepted {
		r.t.Fatalf("offer rejected: %v, %s", reply.Reason, reply.Detail)
	}
	record := transfer.Record{Epoch: 1, Inc: inc, Job: "web", Handshake: wire.Handshake{MSS: 1460, OwnMSS: 1460},
		ReadFrom: 2, RcvNxt: 2, RcvAcked: 2, RcvEdge: 2, SndUna: 3, SndNxt: 3, SndWL2: 3}
	encoded, err := record.Encode()
	if err != nil {
		r.t.Fatal(err)
	}
	r.say(transfer.Commit{Transfer: id, Record: encoded})
	return hear[transfer.Confirm](r)
}

// An end that comes before the machine knows of the connection is reported all the same, after the confirmation.
func TestAgentReportsAnEndThatComesAtOnce(t *testing.T) {
	f := &fake{}
	f.imported = func(_ context.Context, i *transfer.Import) (Imported, *Problem) {
		return Imported{RcvNxt: i.Record.RcvNxt, Took: 1, Known: func() { f.to.Ended(i.Record.Inc) }}, nil
	}
	r := newRig(t, f)
	if c := r.give(1); !c.Imported || c.RcvNxt != 2 {
		t.Fatalf("confirmation %+v", c)
	}
	if e := hear[transfer.EndReport](r); e.Inc != inc || e.Job != "web" {
		t.Errorf("end report %+v", e)
	}
}

// What is full is tried at once, without waiting, and then again elsewhere until it has room.
func TestAgentTriesAgainWhereItIsFull(t *testing.T) {
	tries := make(chan bool, 10) // whether the context had ended
	f := &fake{}
	f.imported = func(ctx context.Context, i *transfer.Import) (Imported, *Problem) {
		tries <- ctx.Err() != nil
		if len(tries) == 1 {
			return Imported{}, &Problem{transfer.ReasonCapacity, "full"}
		}
		return Imported{RcvNxt: i.Record.RcvNxt, Known: func() {}}, nil
	}
	r := newRig(t, f)
	if c := r.give(1); !c.Imported {
		t.Fatalf("confirmation %+v", c)
	}
	if first, second := <-tries, <-tries; !first || second {
		t.Errorf("the context had ended at the first try: %v, at the second: %v; want true, false", first, second)
	}
	// It counts after it has confirmed.
	counted := func(c []admin.Counter) bool { return len(c) == 1 && c[0].Name == outcomeImported && c[0].Value == 1 }
	for end := time.Now().Add(answerTimeout); !counted(r.agent.Counters()); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("counters %+v, want one import", r.agent.Counters())
		}
	}
}

func TestAgentRefuses(t *testing.T) {
	host, small := &Problem{transfer.ReasonHost, "set it up"}, &Problem{transfer.ReasonMSS, "too small"}
	for name, tt := range map[string]struct {
		fake *fake
		job  string
		want Problem
	}{
		"unknown job": {job: "mail", fake: &fake{},
			want: Problem{transfer.ReasonUnknownJob, `no job "mail" for 10.77.0.10:80 here: add it to jobs`}},
		"host":          {job: "web", fake: &fake{ready: map[Job]Readiness{web: {Problem: host}}}, want: *host},
		"importer said": {job: "web", fake: &fake{check: small}, want: *small},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, tt.fake)
			r.say(transfer.Offer{Transfer: 1, Inc: inc, Epoch: 1, Job: tt.job, RecordVersion: transfer.RecordVersion})
			reply := hear[transfer.OfferReply](r)
			if reply.Accepted || reply.Reason != tt.want.Reason || reply.Detail != tt.want.Detail {
				t.Errorf("reply %+v, want %+v", reply, tt.want)
			}
		})
	}
}

// The list of jobs follows what the importer sees.
func TestAgentTellsReadiness(t *testing.T) {
	r := newRig(t, &fake{})
	r.hearJob(true)
	r.mu.Lock()
	r.ready = map[Job]Readiness{web: {Problem: &Problem{transfer.ReasonNotListening, "nobody listens"}}}
	r.mu.Unlock()
	r.to.LookAgain()
	if job := r.hearJob(false); job.Reason != "nobody listens" {
		t.Errorf("reason %q", job.Reason)
	}
}

// hearJob waits until the only job is as wanted.
func (r *rig) hearJob(ready bool) *xcf.Job {
	r.t.Helper()
	timeout := time.After(answerTimeout)
	for {
		select {
		case e := <-r.heard:
			if jobs := e.GetJobs().GetJobs(); len(jobs) == 1 && jobs[0].Ready == ready {
				return jobs[0]
			}
		case <-timeout:
			r.t.Fatalf("the job did not become ready=%v", ready)
		}
	}
}

// The next process answers for what the last one had.
func TestAgentKnowsWhatWasThere(t *testing.T) {
	r := newRig(t, &fake{live: []transfer.Flow{{Inc: inc, Epoch: 1, Job: "web", RcvNxt: 2}}})
	r.say(transfer.Query{Transfer: 1, Inc: inc})
	if got := hear[transfer.QueryReply](r); got.State != transfer.FlowLive || got.RcvNxt != 2 {
		t.Errorf("reply %+v, want a live flow", got)
	}
	r.to.Ended(inc)
	if e := hear[transfer.EndReport](r); e.Inc != inc {
		t.Errorf("end report %+v", e)
	}
}
