package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"baton/control/admin"
	"baton/control/config"
	"baton/control/transfer"
	"baton/control/xcf"
	"baton/fastpath/wire"
)

const targetText = `
role: target
host: t1
data:
  ports:
    - {device: mem0, address: 10.77.0.21/24}
xcf: {ca: %[1]s/ca.pem, cert: %[1]s/t1.pem, key: %[1]s/t1.key, routers: [{host: rh1, address: "%[2]s"}]}
jobs:
  - {name: web-a, address: 10.77.0.10, port: 80, socket: %[1]s/app.sock, proxy_protocol: true}
limits: {connections: 64}
admin: {socket: %[1]s/target.sock}
metrics: {listen: "%[3]s"}
`

// hearer is a routing host of the test's own.
type hearer struct{ heard chan *xcf.Envelope }

func (r hearer) Up(*xcf.Peer)                         {}
func (r hearer) Down(*xcf.Peer, error)                {}
func (r hearer) Message(_ *xcf.Peer, e *xcf.Envelope) { r.heard <- e }

// A target in userspace takes a connection, gives it to the application behind its socket, and tells operators.
func TestTargetRole(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	must(xcf.CreateCA(dir))
	must(xcf.IssueHost(dir, xcf.RoleRouter, "rh1", 0))
	must(xcf.IssueHost(dir, xcf.RoleTarget, "t1", 0))
	ctx, cancel := context.WithCancel(context.Background())
	files := xcf.Files{CA: dir + "/ca.pem", Cert: dir + "/rh1.pem", Key: dir + "/rh1.key"}
	heard := make(chan *xcf.Envelope, 100)
	server, err := xcf.Listen("127.0.0.1:0", xcf.Config{Name: "rh1", Files: files, Epoch: 1}, hearer{heard},
		slog.New(slog.DiscardHandler))
	must(err)
	application, err := net.Listen("unix", filepath.Join(dir, "app.sock"))
	must(err)
	path := filepath.Join(dir, "baton.yaml")
	must(os.WriteFile(path, fmt.Appendf(nil, targetText, dir, server.Addr(), freeAddress(t)), 0o600))
	cfg, err := config.LoadBaton(path)
	must(err)
	must(refuse(examineBaton(cfg)))
	h := &targetHost{cfg: cfg.(*config.UserTarget), log: slog.New(slog.DiscardHandler), started: time.Now()}
	must(h.open())
	socket, err := admin.Listen(h.cfg.Admin.Socket)
	must(err)
	ended := make(chan error, 2)
	go func() { ended <- h.serve(ctx, socket) }()
	go func() { ended <- server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		must(<-ended)
		must(<-ended)
		must(h.forwarder.Close())
		must(application.Close())
	})

	waitFor := func(what string, ok func(*xcf.Envelope) bool) {
		t.Helper()
		timeout := time.After(20 * time.Second)
		for {
			select {
			case e := <-heard:
				if ok(e) {
					return
				}
			case <-timeout:
				t.Fatalf("%s does not come", what)
			}
		}
	}
	waitFor("a ready job", func(e *xcf.Envelope) bool {
		jobs := e.GetJobs().GetJobs()
		return len(jobs) == 1 && jobs[0].GetReady() && jobs[0].GetWindow() == 1<<18
	})
	record := transfer.Record{Epoch: 1, Job: "web-a", Handshake: wire.Handshake{MSS: 64, OwnMSS: 1460},
		Inc:      wire.Incarnation{Tuple: wire.Tuple{Client: testClient, Service: testService}, IRS: 1, ISS: 2},
		ReadFrom: 2, RcvNxt: 7, RcvAcked: 2, RcvEdge: 7, Data: []byte("hello"), SndUna: 3, SndNxt: 3, SndWL2: 3}
	encoded, err := record.Encode()
	must(err)
	must(server.Send("t1", xcf.Pack(transfer.Offer{Transfer: 1, Inc: record.Inc, Epoch: 1, Job: "web-a",
		RecordVersion: transfer.RecordVersion, MSS: 64, Reserve: time.Second})))
	waitFor("an accepted offer", func(e *xcf.Envelope) bool { return e.GetOfferReply().GetAccepted() })
	must(server.Send("t1", xcf.Pack(transfer.Commit{Transfer: 1, Record: encoded})))
	waitFor("a confirmation", func(e *xcf.Envelope) bool { return e.GetConfirm().GetImported() })
	for { // looks at the socket have come before
		c, err := application.Accept()
		must(err)
		got, err := io.ReadAll(io.LimitReader(c, 28+5))
		must(err)
		must(c.Close())
		if len(got) > 0 {
			if !strings.HasSuffix(string(got), "hello") {
				t.Errorf("the application reads %q", got)
			}
			break
		}
	}
	operator := admin.NewClient(h.cfg.Admin.Socket)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		counters, err := operator.Counters(ctx)
		must(err)
		found := map[string]uint64{}
		for _, c := range counters {
			found[c.Group+" "+c.Name] = c.Value
		}
		if found["stack imported"] == 1 && found["import imported"] == 1 && found["punt adopted"] == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("counters %v", found)
		}
	}
	if ports, err := operator.Ports(ctx); err != nil || len(ports) != 1 || ports[0].Address != "10.77.0.21/24" {
		t.Errorf("ports %+v, %v", ports, err)
	}
}
