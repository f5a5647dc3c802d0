package userstack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"baton/control/agent"
	"baton/control/transfer"
	"baton/fastpath/flow"
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// portOf is another port of the client.
func portOf(i int) netip.AddrPort { return netip.AddrPortFrom(client.Addr(), uint16(41000+i)) }

func TestEndIsReportedOnceItIsKnown(t *testing.T) {
	w := newWorld(t)
	r := recordOf(client, 5000, "")
	w.peer.give(t, mirrored(r))
	done, p := w.server.Import(t.Context(), &transfer.Import{Host: "rh1", Transfer: 1, Record: r})
	if p != nil {
		t.Fatal(p)
	}
	server, peer := accept(t, w.accepted), accept(t, w.dialled)
	server.SetLinger(0)
	server.Close()
	if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	select {
	case inc := <-w.server.ends:
		t.Fatalf("the end of %v is reported before anybody knows of it", inc)
	case <-time.After(50 * time.Millisecond):
	}
	done.Known()
	if inc := w.server.ended(t); inc != r.Inc {
		t.Errorf("ended %v, want %v", inc, r.Inc)
	}
	if flows := w.server.Flows(); len(flows) != 0 {
		t.Errorf("flows after the end: %+v", flows)
	}
}

func TestFlowsAreListed(t *testing.T) {
	w := newWorld(t)
	w.connect(t, "")
	f := w.server.Flows()
	if len(f) != 1 || f[0].Client != client.String() || f[0].State != "ESTABLISHED" || f[0].Router != "rh1" || f[0].Job != "web" {
		t.Errorf("flows %+v", f)
	}
}

// A client that begins anew with the same port ends the connection that it had.
func TestNewIncarnationReplacesTheOld(t *testing.T) {
	w := newWorld(t)
	old, _ := w.connect(t, "")
	next := recordOf(client, 900000, "again")
	w.server.give(t, next)
	if _, err := old.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the old connection reads %v, want a reset", err)
	}
	c := accept(t, w.accepted)
	if got := readAll(t, c, make([]byte, 5)); got != "again" {
		t.Errorf("the new one reads %q", got)
	}
	if inc := w.server.ended(t); inc.IRS != 5000 {
		t.Errorf("ended %v, want the old one", inc)
	}
}

func TestFullAcceptQueue(t *testing.T) {
	target, _ := newLink()
	s := startStack(t, target, web)
	l, err := s.listen(web, 1)
	if err != nil {
		t.Fatal(err)
	}
	s.give(t, recordOf(portOf(1), 1, ""))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	again := &transfer.Import{Record: recordOf(portOf(2), 1, "")}
	if _, p := s.Import(ctx, again); p == nil || p.Reason != transfer.ReasonCapacity {
		t.Fatalf("problem %v, want capacity", p)
	}
	accept(t, l)
	if _, p := s.Import(t.Context(), again); p != nil {
		t.Errorf("with room again: %v", p)
	}
}

func TestClosedListener(t *testing.T) {
	w := newWorld(t)
	r := recordOf(client, 5000, "")
	w.peer.give(t, mirrored(r))
	w.server.give(t, r)
	peer := accept(t, w.dialled)
	if err := w.accepted.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("who was not accepted reads %v, want a reset", err)
	}
	if _, err := w.accepted.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: %v", err)
	}
	if p := w.server.Look()[web].Problem; p == nil || p.Reason != transfer.ReasonNotListening {
		t.Errorf("readiness %v, want that nobody listens", p)
	}
	if p := w.server.Check(&transfer.Offer{Job: "web", Inc: r.Inc}); p == nil || p.Reason != transfer.ReasonNotListening {
		t.Errorf("check %v, want that nobody listens", p)
	}
	if _, err := w.server.Listen(web); err != nil {
		t.Errorf("listen again: %v", err)
	}
}

func TestListenRefuses(t *testing.T) {
	target, _ := newLink()
	s := startStack(t, target, web)
	if _, err := s.Listen(agent.Job{Name: "mail", Service: service}); !errors.Is(err, errUnknownJob) {
		t.Errorf("error %v, want %v", err, errUnknownJob)
	}
	if _, err := s.Listen(web); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Listen(web); !errors.Is(err, errTaken) {
		t.Errorf("error %v, want %v", err, errTaken)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	target, _ := newLink()
	s := startStack(t, target, web, func(c *Config) { c.MaxConns = 1 })
	if _, err := s.Listen(web); err != nil {
		t.Fatal(err)
	}
	s.give(t, recordOf(portOf(1), 1, ""))
	_, p := s.Import(t.Context(), &transfer.Import{Record: recordOf(portOf(2), 1, "")})
	if p == nil || p.Reason != transfer.ReasonCapacity {
		t.Errorf("problem %v, want capacity", p)
	}
}

func TestImportRefusesWhatTheWindowDoesNotCover(t *testing.T) {
	target, _ := newLink()
	s := startStack(t, target, web)
	if _, err := s.Listen(web); err != nil {
		t.Fatal(err)
	}
	r := recordOf(client, 1, "")
	r.RcvNxt = r.RcvNxt.Add(1) // of nothing
	if _, p := s.Import(t.Context(), &transfer.Import{Record: r}); p == nil || p.Reason != transfer.ReasonImport {
		t.Errorf("problem %v, want one of the import", p)
	}
	if n := len(s.Flows()); n != 0 {
		t.Errorf("%d flows, want none", n)
	}
}

// The first frames wait for the client's link address.
func TestFramesWaitForTheNeighbour(t *testing.T) {
	w := newWorld(t)
	w.far.change(func() { w.far.silent = true })
	r := recordOf(client, 5000, "")
	w.peer.give(t, mirrored(r))
	w.server.give(t, r)
	server, peer := accept(t, w.accepted), accept(t, w.dialled)
	io.WriteString(server, "early")
	peer.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := peer.Read(make([]byte, 1)); err == nil {
		t.Fatalf("read %d octets from somebody who does not know the client's address", n)
	}
	w.far.change(func() { w.far.silent = false }) // the next question comes after a second
	peer.SetReadDeadline(time.Now().Add(patience))
	if got := readAll(t, peer, make([]byte, 5)); got != "early" {
		t.Errorf("read %q", got)
	}
}

func TestClientsBehindAGateway(t *testing.T) {
	away := netip.MustParseAddrPort("192.0.2.7:50000")
	offer := &transfer.Offer{Job: "web"}
	offer.Inc.Client, offer.Inc.Service = away, service
	target, far := newLink()
	without := startStack(t, target, web)
	if _, err := without.Listen(web); err != nil {
		t.Fatal(err)
	}
	if p := without.Check(offer); p == nil || p.Reason != transfer.ReasonHost {
		t.Errorf("without a gateway: %v, want a problem of the host", p)
	}
	without.stop()
	with := startStack(t, target, web, func(c *Config) { c.Gateway = far.own.Addr() })
	if _, err := with.Listen(web); err != nil {
		t.Fatal(err)
	}
	if p := with.Check(offer); p != nil {
		t.Fatalf("with a gateway: %v", p)
	}
	far.change(func() { far.flows[mirrored(recordOf(away, 1, "")).Inc.Tuple] = flow.Punt{Flow: 1} })
	with.give(t, recordOf(away, 1, ""))
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		far.mu.Lock()
		arrived := len(far.arrived)
		far.mu.Unlock()
		if arrived > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing comes to the gateway")
		}
	}
}

// A stack that stops tells its clients.
func TestStoppedStackResetsItsConnections(t *testing.T) {
	w := newWorld(t)
	server, peer := w.connect(t, "")
	w.server.stop()
	if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client reads %v, want a reset", err)
	}
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the application reads %v, want %v", err, net.ErrClosed)
	}
	if _, p := w.server.Import(t.Context(), &transfer.Import{Record: recordOf(client, seq.Value(9), "")}); p == nil {
		t.Error("a stopped stack imports")
	}
}

// A Go program serves its connections as it does any others.
func TestHTTPServerOnTheListener(t *testing.T) {
	w := newWorld(t)
	body := octets(300_000)
	server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		got, err := io.ReadAll(r.Body)
		if err != nil || !bytes.Equal(got, body) || r.RemoteAddr != client.String() {
			t.Errorf("%s from %s with %d octets, %v", r.URL, r.RemoteAddr, len(got), err)
		}
		rw.Write(body)
	})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(w.accepted) }()
	r := recordOf(client, 5000, "")
	w.peer.give(t, mirrored(r))
	w.server.give(t, r)
	dialled := accept(t, w.dialled)
	browser := &http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return dialled, nil },
	}}
	for i := range 3 { // on one connection: there is no other
		response, err := browser.Post(fmt.Sprintf("http://a.example/%d", i), "text/plain", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || !bytes.Equal(got, body) {
			t.Errorf("response %d: %d octets, %v", i, len(got), err)
		}
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
	w.server.ended(t)
}

// An ICMP error about a segment under way makes the next ones smaller.
func TestPathErrorsReachTheConnection(t *testing.T) {
	const mtu = 600
	w := newWorld(t)
	server, peer := w.connect(t, "")
	var largest atomic.Int64 // of the frames that left since the error
	w.target.change(func() {
		w.target.lose = func(frame []byte) bool {
			largest.Store(max(largest.Load(), int64(len(frame))))
			return len(frame) > wire.EthernetLen+mtu
		}
	})
	sent := octets(1400)
	if _, err := server.Write(sent); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); largest.Load() < 1400; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the large segment is not sent")
		}
	}
	first := recordOf(client, 5000, "").SndNxt
	quoted := wire.AppendTCP(nil, wire.Link{}, service, client, wire.Segment{Seq: first, Flags: wire.ACK})[wire.EthernetLen:]
	tooBig := wire.AppendICMPError(nil, wire.Link{Dst: w.target.mac, Src: w.far.mac}, w.far.own.Addr(),
		wire.ICMPError{Tuple: wire.Tuple{Client: client, Service: service}, Type: 3, Code: 4, MTU: mtu}, quoted[:28])
	largest.Store(0)
	w.target.change(func() {
		for _, q := range w.target.flows {
			q.Kind, q.Frame = flow.ICMP, tooBig
			w.target.arrived = append(w.target.arrived, q)
		}
	})
	w.target.Wake()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(peer, got); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("the client reads %v", err)
	}
	if n := w.server.Counts()["icmp_errors"]; n != 1 || largest.Load() > wire.EthernetLen+mtu {
		t.Errorf("%d errors, then a frame of %d octets", n, largest.Load())
	}
}
