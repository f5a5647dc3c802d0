package userstack

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"baton/fastpath/seq"
)

// The connection behaves as package net's do.
func TestConnConforms(t *testing.T) {
	w := newWorld(t)
	irs := seq.Value(1 << 20)
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		irs += 1 << 20 // each is another incarnation
		r := recordOf(client, irs, "")
		w.peer.give(t, mirrored(r))
		w.server.give(t, r)
		c1, err1 := w.accepted.Accept()
		c2, err2 := w.dialled.Accept()
		return c1, c2, func() { c1.Close(); c2.Close() }, errors.Join(err1, err2)
	})
}

func TestAddressesAreTheClientsAndTheServices(t *testing.T) {
	server, _ := newWorld(t).connect(t, "")
	if l, r := server.LocalAddr().String(), server.RemoteAddr().String(); l != service.String() || r != client.String() {
		t.Errorf("local %s, remote %s", l, r)
	}
}

func TestDataOfTheRecordComesFirst(t *testing.T) {
	server, peer := newWorld(t).connect(t, "GET / HTTP/1.1\r\n")
	io.WriteString(peer, "Host: a\r\n\r\n")
	if err := peer.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(server); err != nil || string(got) != "GET / HTTP/1.1\r\nHost: a\r\n\r\n" {
		t.Errorf("read %q, %v", got, err)
	}
	io.WriteString(server, "response")
	server.Close()
	if got, err := io.ReadAll(peer); err != nil || string(got) != "response" {
		t.Errorf("response %q, %v", got, err)
	}
}

// octets are random, the same each time.
func octets(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b) // never fails
	return b
}

// both sends data from a to b and from b to a at a time, and compares.
func both(t *testing.T, a, b *Conn, n int) {
	t.Helper()
	data := octets(n)
	want := sha256.Sum256(data)
	var all sync.WaitGroup
	for _, way := range [][2]*Conn{{a, b}, {b, a}} {
		all.Go(func() {
			if _, err := way[0].Write(data); err != nil {
				t.Errorf("write: %v", err)
			}
			way[0].CloseWrite()
		})
		all.Go(func() {
			got, err := io.ReadAll(way[1])
			if err != nil || sha256.Sum256(got) != want {
				t.Errorf("read %d octets of %d: %v", len(got), n, err)
			}
		})
	}
	all.Wait()
}

func TestBulkBothWays(t *testing.T) {
	server, peer := newWorld(t).connect(t, "")
	both(t, server, peer, 8<<20)
}

func TestBulkOverABadLink(t *testing.T) {
	w := newWorld(t)
	for i, p := range []*plane{w.target, w.far} {
		r := rand.New(rand.NewPCG(1, uint64(i)))
		p.change(func() { p.lose = func([]byte) bool { return r.IntN(200) == 0 } })
	}
	server, peer := w.connect(t, "")
	both(t, server, peer, 1<<20)
}

// While the forwarder takes no frames, they wait, and so does the application.
func TestBusyForwarderLosesNothing(t *testing.T) {
	w := newWorld(t)
	server, peer := w.connect(t, "")
	r := rand.New(rand.NewPCG(1, 2))
	w.target.change(func() { w.target.busy = func() bool { return r.IntN(3) > 0 } })
	both(t, server, peer, 1<<20)
	if c := w.server.Counts(); c["frames_delayed"] == 0 || c["frames_lost"] != 0 {
		t.Errorf("counts %v, want frames delayed and none lost", c)
	}
}

// An application that does not read closes the window: the client's Write waits, and goes on later.
func TestReaderThatDoesNotReadHoldsTheWriterUp(t *testing.T) {
	server, peer := newWorld(t).connect(t, "")
	data := octets(4 << 20)
	if err := peer.SetWriteDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	n, err := peer.Write(data)
	if !errors.Is(err, os.ErrDeadlineExceeded) || n > 1<<20 {
		t.Fatalf("wrote %d octets to nobody (%v), want less than 1 MiB", n, err)
	}
	peer.SetWriteDeadline(time.Now().Add(patience))
	go func() {
		peer.Write(data[n:])
		peer.CloseWrite()
	}()
	if got, err := io.ReadAll(server); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %d octets of %d: %v", len(got), len(data), err)
	}
}

func TestResets(t *testing.T) {
	for name, end := range map[string]func(*Conn){
		"linger 0": func(c *Conn) { c.SetLinger(0); c.Close() },
		"unread data": func(c *Conn) {
			c.Read(make([]byte, 1))
			c.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			server, peer := w.connect(t, "request")
			end(server)
			if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client reads %v, want a reset", err)
			}
			if inc := w.server.ended(t); inc.Client != client {
				t.Errorf("ended %v", inc)
			}
		})
	}
}

func TestResetByTheClient(t *testing.T) {
	w := newWorld(t)
	server, peer := w.connect(t, "")
	io.WriteString(peer, "last words")
	if got := make([]byte, 4); readAll(t, server, got) != "last" {
		t.Errorf("read %q", got)
	}
	peer.SetLinger(0)
	peer.Close()
	w.server.ended(t)
	if got := make([]byte, 6); readAll(t, server, got) != " words" {
		t.Errorf("after the reset read %q", got)
	}
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read %v, want a reset", err)
	}
	if _, err := server.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("write %v, want a reset", err)
	}
}

func readAll(t *testing.T, c *Conn, b []byte) string {
	t.Helper()
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What arrived before an orderly end can be read after it, however much.
func TestDataOutlivesTheConnection(t *testing.T) {
	w := newWorld(t)
	server, peer := w.connect(t, "")
	data := octets(150_000) // more than an application's buffer
	server.CloseWrite()
	if _, err := peer.Write(data); err != nil {
		t.Fatal(err)
	}
	peer.Close()
	w.server.ended(t)
	if got, err := io.ReadAll(server); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %d octets of %d: %v", len(got), len(data), err)
	}
}

func TestClosedConnRefusesEverything(t *testing.T) {
	server, _ := newWorld(t).connect(t, "")
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	_, readErr := server.Read(make([]byte, 1))
	_, writeErr := server.Write(make([]byte, 1))
	for name, err := range map[string]error{
		"read": readErr, "write": writeErr, "close": server.Close(), "close write": server.CloseWrite(),
		"linger": server.SetLinger(1), "deadline": server.SetDeadline(time.Time{}),
	} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: %v, want %v", name, err, net.ErrClosed)
		}
	}
}

func TestWriteAfterCloseWrite(t *testing.T) {
	server, _ := newWorld(t).connect(t, "")
	server.CloseWrite()
	if _, err := server.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) || !strings.Contains(err.Error(), client.String()) {
		t.Errorf("error %v, want %v and the client's address", err, syscall.EPIPE)
	}
}

func TestManyConnectionsAtATime(t *testing.T) {
	w := newWorld(t)
	var all sync.WaitGroup
	for i := range 50 {
		r := recordOf(portOf(i), seq.Value(1000*i), "")
		m := mirrored(r)
		m.Inc.Service = client // the far stack serves one address; the ports are told apart by the service's
		all.Go(func() { w.server.give(t, r) })
	}
	for range 50 {
		c := accept(t, w.accepted)
		all.Go(func() {
			io.WriteString(c, "x")
			c.Close()
		})
	}
	all.Wait()
	if n := w.server.Counts()["imported"]; n != 50 {
		t.Errorf("%d imported, want 50", n)
	}
}
