package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"baton/control/admin"
	"baton/control/config"
	"baton/control/transfer"
	"baton/control/xcf"
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// These tests run the whole daemon on an in-memory port: the real forwarder, router, XCF over TLS, admin socket and
// metrics. The network behind the port, with its client and its target, is played by the test.

var (
	testService = netip.MustParseAddrPort("10.77.0.10:80")
	testClient  = netip.MustParseAddrPort("10.77.0.100:40000")
	testTarget  = netip.MustParseAddr("10.77.0.21")
	clientMAC   = wire.MAC{2, 0, 0, 0, 0, 100}
	targetMAC   = wire.MAC{2, 0, 0, 0, 0, 21}
)

const configText = `
host: rh1
data:
  ports:
    - {device: mem0, address: 10.77.0.1/24}
xcf: {listen: "%[3]s", ca: %[1]s/ca.pem, cert: %[1]s/rh1.pem, key: %[1]s/rh1.key}
admin: {socket: %[1]s/baton.sock}
metrics: {listen: "%[2]s"}
crt: {ipv4_entries: 1024, ipv6_entries: 64, router_flows: 64}
dvipas:
  - address: 10.77.0.10
    ports:
      - port: 80
        http:
          rules:
            - {host: a.example, job: web-a}
jobs:
  web-a: {hosts: [t1]}
targets:
  t1: {address: 10.77.0.21}
`

const request = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"

// rig is a running daemon and the network behind its port.
type rig struct {
	t       *testing.T
	dir     string
	daemon  *routingHost
	metrics string // address
	offers  func(transfer.Offer) transfer.OfferReply
	frames  chan wire.Frame // that went to the client or the target
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), metrics: freeAddress(t), frames: make(chan wire.Frame, 100)}
	r.offers = func(o transfer.Offer) transfer.OfferReply {
		return transfer.OfferReply{Transfer: o.Transfer, Accepted: true}
	}
	r.must(xcf.CreateCA(r.dir))
	r.must(xcf.IssueHost(r.dir, xcf.RoleRouter, "rh1", 0))
	r.must(xcf.IssueHost(r.dir, xcf.RoleTarget, "t1", 0))
	path := filepath.Join(r.dir, "baton.yaml")
	r.must(os.WriteFile(path, fmt.Appendf(nil, configText, r.dir, r.metrics, freeAddress(t)), 0o600))
	cfg, err := config.LoadRouter(path)
	r.must(err)
	r.must(refuse(examine(cfg)))
	r.daemon = &routingHost{cfg: cfg, log: slog.New(slog.DiscardHandler), started: time.Now()}
	r.must(r.daemon.open())
	return r
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// start runs the daemon, the network and the target until the test ends.
func (r *rig) start() *admin.Client {
	socket, err := admin.Listen(r.daemon.cfg.Admin.Socket)
	r.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	network, target, served := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() { served <- r.daemon.serve(ctx, socket) }()
	go func() { defer close(network); r.carry(ctx) }()
	go func() { defer close(target); r.runTarget(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		<-network
		<-target
		if err := <-served; err != nil {
			r.t.Errorf("serve: %v", err)
		}
		if err := r.daemon.forwarder.Close(); err != nil {
			r.t.Errorf("close: %v", err)
		}
	})
	return admin.NewClient(r.daemon.cfg.Admin.Socket)
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// carry is the network: it answers questions for the target, and hands TCP frames to the test.
func (r *rig) carry(ctx context.Context) {
	for ctx.Err() == nil {
		b, ok := r.daemon.forwarder.Collect(0, nil)
		if !ok {
			time.Sleep(100 * time.Microsecond)
			continue
		}
		if q, err := wire.ParseARP(b); err == nil && q.Op == wire.ARPRequest && q.TargetIP == testTarget {
			r.inject(wire.AppendARP(nil, wire.ARP{Op: wire.ARPReply, SenderMAC: targetMAC, SenderIP: testTarget,
				TargetMAC: q.SenderMAC, TargetIP: q.SenderIP}))
			continue
		}
		if f, err := wire.ParseTCP(b); err == nil {
			select {
			case r.frames <- f:
			case <-ctx.Done():
			}
		}
	}
}

func (r *rig) inject(frame []byte) {
	if err := r.daemon.forwarder.Inject(0, frame); err != nil {
		r.t.Errorf("inject: %v", err)
	}
}

// runTarget is the target's agent.
func (r *rig) runTarget(ctx context.Context) {
	files := xcf.Files{CA: r.dir + "/ca.pem", Cert: r.dir + "/t1.pem", Key: r.dir + "/t1.key"}
	routers := []xcf.Router{{Host: "rh1", Address: r.daemon.targets.Addr().String()}}
	d, err := xcf.NewDialer(xcf.Config{Name: "t1", Files: files}, routers, r, slog.New(slog.DiscardHandler))
	if err != nil {
		r.t.Errorf("dial: %v", err)
		return
	}
	d.Run(ctx)
}

// Up implements xcf.Handler.
func (r *rig) Up(p *xcf.Peer) {
	job := &xcf.Job{Name: "web-a", Address: testService.Addr().AsSlice(), Port: 80, Ready: true, Window: 65535}
	_ = p.Send(&xcf.Envelope{Message: &xcf.Envelope_Jobs{Jobs: &xcf.Jobs{Jobs: []*xcf.Job{job}}}})
}

// Down implements xcf.Handler.
func (r *rig) Down(*xcf.Peer, error) {}

// Message implements xcf.Handler.
func (r *rig) Message(p *xcf.Peer, e *xcf.Envelope) {
	m, err := xcf.Unpack(e)
	if err != nil {
		r.t.Errorf("message: %v", err)
	}
	switch m := m.(type) {
	case transfer.Offer:
		_ = p.Send(xcf.Pack(r.offers(m)))
	case transfer.Commit:
		rec, err := transfer.Decode(m.Record)
		if err != nil {
			r.t.Errorf("record: %v", err)
		}
		_ = p.Send(xcf.Pack(transfer.Confirm{Transfer: m.Transfer, Imported: true, RcvNxt: rec.RcvNxt}))
	}
}

// frame waits for the next TCP frame that the daemon sent.
func (r *rig) frame() wire.Frame {
	r.t.Helper()
	select {
	case f := <-r.frames:
		return f
	case <-time.After(5 * time.Second):
		r.t.Fatal("the daemon sends nothing")
	}
	return wire.Frame{}
}

func (r *rig) send(s wire.Segment) {
	mac, _ := r.daemon.forwarder.Port(0)
	s.Window = 60000
	r.inject(wire.AppendTCP(nil, wire.Link{Dst: mac, Src: clientMAC}, testClient, testService, s))
}

// connect does the client's handshake and returns the numbers of its next segment.
func (r *rig) connect() (next, ack seq.Value) {
	r.t.Helper()
	r.send(wire.Segment{Seq: 1000, Flags: wire.SYN, Options: wire.Options{MSS: 1460}})
	f := r.frame()
	if f.Segment.Flags != wire.SYN|wire.ACK || f.Segment.Ack != 1001 || f.Src != testService {
		r.t.Fatalf("answer to the SYN: %+v", f)
	}
	return 1001, f.Segment.Seq.Add(1)
}

// waitReady waits until the daemon could give the target a connection.
func (r *rig) waitReady(c *admin.Client) {
	r.t.Helper()
	var last []admin.Target
	for range 500 {
		rows, err := c.Targets(r.t.Context())
		if err == nil && len(rows) == 1 && rows[0].Ready {
			return
		}
		last = rows
		time.Sleep(10 * time.Millisecond)
	}
	r.t.Fatalf("target does not become ready: %+v", last)
}

func TestConnectionIsHandedToTheTargetAndShown(t *testing.T) {
	r := newRig(t)
	c := r.start()
	r.waitReady(c)
	next, ack := r.connect()
	r.send(wire.Segment{Seq: next, Ack: ack, Flags: wire.ACK | wire.PSH, Payload: []byte(request)})
	var done []admin.Transfer
	for len(done) == 0 {
		var err error
		done, err = c.Transfers(t.Context())
		r.must(err)
		time.Sleep(time.Millisecond)
	}
	if d := done[0]; d.Outcome != "switched" || d.Target != "t1" || d.Bytes != len(request) || d.Total <= 0 {
		t.Fatalf("transfer %+v", d)
	}

	r.send(wire.Segment{Seq: next.Add(len(request)), Ack: ack.Add(100), Flags: wire.ACK})
	f := r.frame()
	if f.Link.Dst != targetMAC || f.Src != testClient || f.Segment.Ack != ack.Add(100) {
		t.Errorf("after the switch the client's segment went to %+v", f)
	}
	page, err := c.CRT(t.Context(), admin.CRTQuery{Owner: "t1"})
	r.must(err)
	if len(page.Entries) != 1 || page.Entries[0].Client != testClient.String() || page.Entries[0].State != "target" {
		t.Errorf("CRT %+v", page)
	}
	other, err := c.CRT(t.Context(), admin.CRTQuery{Client: "10.9.9.9"})
	if err != nil || other.Matching != 0 || other.Total != 1 {
		t.Errorf("CRT of another client: %+v, %v", other, err)
	}
	r.checkCounters(c)
	r.checkMetrics()
}

func (r *rig) checkCounters(c *admin.Client) {
	r.t.Helper()
	counters, err := c.Counters(r.t.Context())
	r.must(err)
	got := map[string]uint64{}
	for _, n := range counters {
		got[n.Group+" "+n.Name] = n.Value
	}
	for _, name := range []string{"handshake accepted", "punt first", "router transferred", "packet forwarded"} {
		if got[name] != 1 {
			r.t.Errorf("%s is %d, want 1", name, got[name])
		}
	}
	ports, err := c.Ports(r.t.Context())
	r.must(err)
	if len(ports) != 1 || ports[0].Name != "mem0" || ports[0].RxPackets == 0 {
		r.t.Errorf("ports %+v", ports)
	}
	findings, err := c.Doctor(r.t.Context())
	r.must(err)
	if slices.ContainsFunc(findings, func(f admin.Finding) bool { return !f.OK }) {
		r.t.Errorf("doctor: %+v", findings)
	}
}

func (r *rig) checkMetrics() {
	r.t.Helper()
	resp, err := http.Get("http://" + r.metrics + "/metrics")
	r.must(err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	r.must(err)
	for _, line := range []string{
		`baton_transfers_total{outcome="switched",target="t1"} 1`,
		`baton_transfer_seconds_count{phase="total"} 1`,
		`baton_crt_entries{family="ipv4"} 1`,
		`baton_xcf_peer_up{host="t1"} 1`,
		`baton_handshakes_total{result="accepted"} 1`,
		`baton_router_events_total{event="transferred"} 1`,
		`baton_punts_total{kind="first"} 1`,
	} {
		if !strings.Contains(string(body), line+"\n") {
			r.t.Errorf("metrics lack %s", line)
		}
	}
}

func TestRejectedConnectionGets503OverTheWire(t *testing.T) {
	r := newRig(t)
	r.offers = func(o transfer.Offer) transfer.OfferReply {
		return transfer.OfferReply{Transfer: o.Transfer, Reason: transfer.ReasonCapacity}
	}
	c := r.start()
	r.waitReady(c)
	next, ack := r.connect()
	r.send(wire.Segment{Seq: next, Ack: ack, Flags: wire.ACK, Payload: []byte(request)})
	var got []byte
	for fin := false; !fin; {
		f := r.frame()
		if f.Link.Dst != clientMAC || f.Segment.Flags.Has(wire.RST) {
			t.Fatalf("frame %+v", f)
		}
		got = append(got, f.Segment.Payload...)
		fin = f.Segment.Flags.Has(wire.FIN)
	}
	if !bytes.HasPrefix(got, []byte("HTTP/1.1 503 ")) {
		t.Errorf("response %q", got)
	}
}

func TestSecondDaemonDoesNotStart(t *testing.T) {
	r := newRig(t)
	defer func() { _ = r.daemon.forwarder.Close() }()
	defer func() { _ = r.daemon.targets.Close() }()
	l, err := admin.Listen(r.daemon.cfg.Admin.Socket)
	r.must(err)
	defer func() { _ = l.Close() }()
	if err := run(t.Context(), r.daemon.cfg, r.daemon.log); !errors.Is(err, admin.ErrInUse) {
		t.Errorf("second daemon: %v, want ErrInUse", err)
	}
}

func TestRunRefusesAHostThatWouldHurtClients(t *testing.T) {
	r := newRig(t)
	defer func() { _ = r.daemon.forwarder.Close() }()
	defer func() { _ = r.daemon.targets.Close() }()
	cfg := *r.daemon.cfg
	cfg.XCF.Listen = "192.0.2.1:7600" // an address that the kernel does not have
	cfg.Host = "rh2"                  // not in the certificate
	err := refuse(examine(&cfg))
	if err == nil || !strings.Contains(err.Error(), "xcf: ") || !strings.Contains(err.Error(), "certificate: ") {
		t.Errorf("error %v, want both findings", err)
	}
}

func TestConfiguredZerosDoNotBecomeDefaults(t *testing.T) {
	r := newRig(t)
	defer func() { _ = r.daemon.forwarder.Close() }()
	defer func() { _ = r.daemon.targets.Close() }()
	cfg := *r.daemon.cfg
	cfg.CRT.Linger, cfg.Data.Idle.Spin, cfg.Data.Idle.Sleep = 0, 0, 0
	cfg.CRT.TargetIdle, cfg.CRT.EndedIdle, cfg.CRT.EvictIdle = 0, 0, 0
	c, err := fastpathConfig(&cfg)
	r.must(err)
	given := c.Linger != 0 && c.IdleSpin != 0
	if !given || c.Linger.Milliseconds() != 0 || c.IdleSpin.Microseconds() != 0 || c.IdleSleep >= 0 {
		t.Errorf("linger %v, spin %v, sleep %v", c.Linger, c.IdleSpin, c.IdleSleep)
	}
	if max(c.TargetIdle, c.EndedIdle, c.EvictIdle) >= 0 {
		t.Errorf("idle %v, ended %v, evict %v", c.TargetIdle, c.EndedIdle, c.EvictIdle)
	}
	if c.Lcores != 1 || c.CPUs != nil {
		t.Errorf("%d lcores on CPUs %v, want one anywhere", c.Lcores, c.CPUs)
	}
}

func TestCheckCommandNamesTheProblem(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(path, []byte("host: rh1\nbogus: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := newCommand()
	cmd.SetArgs([]string{"check", path})
	if err := cmd.Execute(); !errors.Is(err, config.ErrInvalid) || !strings.Contains(err.Error(), "bogus") {
		t.Errorf("error %v, want the unknown key", err)
	}
}
