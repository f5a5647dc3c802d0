package target

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"baton/control/transfer"
	"baton/fastpath/wire"
)

// drain takes what the client has been sent so far.
func (l *lab) drain(t *testing.T) {
	t.Helper()
	for {
		if _, ok := l.next(t, 20*time.Millisecond); !ok {
			return
		}
	}
}

// A socket of an earlier incarnation, in whatever state, makes way for the import, and the client hears nothing of it.
func TestLeftoversMakeWay(t *testing.T) {
	closeWrite := func(t *testing.T, c net.Conn) {
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		state   SocketState
		prepare func(t *testing.T, c net.Conn, peer *client)
	}{
		{Established, func(*testing.T, net.Conn, *client) {}},
		{CloseWait, func(t *testing.T, _ net.Conn, peer *client) { peer.send(t, wire.ACK|wire.FIN, "") }},
		{FinWait1, func(_ *testing.T, c net.Conn, _ *client) { c.Close() }},
		{FinWait2, func(t *testing.T, c net.Conn, peer *client) {
			closeWrite(t, c)
			peer.receive(t, 1)
		}},
		{FinWait2, func(t *testing.T, c net.Conn, peer *client) { // without a process: a TIME-WAIT socket inside
			c.Close()
			peer.receive(t, 1)
		}},
		{LastAck, func(t *testing.T, c net.Conn, peer *client) {
			peer.send(t, wire.ACK|wire.FIN, "")
			c.Close()
		}},
		{Closing, func(t *testing.T, c net.Conn, peer *client) {
			c.Close()
			peer.send(t, wire.ACK|wire.FIN, "")
		}},
		{TimeWait, func(t *testing.T, c net.Conn, peer *client) {
			c.Close()
			peer.receive(t, 1)
			peer.send(t, wire.ACK|wire.FIN, "")
		}},
	}
	for i, tt := range tests {
		for _, end := range [][2]netip.AddrPort{{client4, service4}, {client6, service6}} {
			t.Run(fmt.Sprintf("%v %d %v", tt.state, i, end[1].Addr()), func(t *testing.T) {
				l := newLab(t)
				ln := l.listen(t, "tcp", ":80", false)
				im := l.importer(t)
				old := record(end[0], end[1], "")
				mustImport(t, im, old, end[1])
				tt.prepare(t, accept(t, ln), newClient(l, old))
				l.drain(t)
				checkState(t, im, old.Inc.Tuple, tt.state)
				importNext(t, l, ln, im, end)
			})
		}
	}
}

func checkState(t *testing.T, im *Importer, tuple wire.Tuple, want SocketState) {
	t.Helper()
	if s, err := im.Lookup(tuple); err != nil || s.State != want {
		t.Fatalf("the leftover is in %v (%v), want %v", s.State, err, want)
	}
}

// importNext imports the tuple's next incarnation, whose numbers lie elsewhere, and uses it.
func importNext(t *testing.T, l *lab, ln net.Listener, im *Importer, end [2]netip.AddrPort) {
	t.Helper()
	r := record(end[0], end[1], request, func(r *transfer.Record) {
		r.ReadFrom, r.SndNxt = r.ReadFrom.Add(1<<30), r.SndNxt.Add(1<<29)
	})
	done := mustImport(t, im, r, end[1])
	if done.Killed != 1 {
		t.Errorf("%d RSTs for the leftover, want 1", done.Killed)
	}
	if f, ok := l.next(t, 0); ok && f.Segment.Flags.Has(wire.RST) {
		t.Error("the client got a RST")
	}
	checkConversation(t, l, accept(t, ln), r)
}

// A handshake that the kernel has answered itself makes way, too.
func TestHalfOpenLeftoverMakesWay(t *testing.T) {
	l := newLab(t)
	ln := l.listen(t, "tcp", ":80", false)
	im := l.importer(t)
	l.send(t, client4, service4, wire.Segment{Seq: 77, Flags: wire.SYN, Window: 1000})
	l.drain(t)
	importNext(t, l, ln, im, [2]netip.AddrPort{client4, service4})
}

// With tcp_rfc1337 an RST cannot end TIME-WAIT: the import fails and says what to set.
func TestRFC1337KeepsTimeWait(t *testing.T) {
	l := newLab(t)
	l.sysctl(t, "net/ipv4/tcp_rfc1337", "1")
	ln := l.listen(t, "tcp4", ":80", false)
	im := l.importer(t)
	r := record(client4, service4, "")
	mustImport(t, im, r, service4)
	accept(t, ln).Close()
	peer := newClient(l, r)
	peer.receive(t, 1)
	peer.send(t, wire.ACK|wire.FIN, "")
	_, err := im.Import(ended(t), record(client4, service4, "x"), service4)
	if !errors.Is(err, ErrLeftover) || !strings.Contains(err.Error(), "tcp_rfc1337=0") {
		t.Errorf("error %v, want the leftover and what to set", err)
	}
}

func clientPort(i int) netip.AddrPort { return netip.AddrPortFrom(client4.Addr(), uint16(40000+i)) }

// fill imports connections until the accept queue is full, and returns their number.
func fill(t *testing.T, im *Importer) int {
	t.Helper()
	for i := range 100 {
		_, err := im.Import(ended(t), record(clientPort(i), service4, request), service4)
		if errors.Is(err, ErrBacklog) {
			return i
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("100 connections in an accept queue of 2")
	return 0
}

// With a full accept queue nothing is made, and nothing appears when there is room again.
func TestFullBacklogLeavesNothingBehind(t *testing.T) {
	l := newLab(t)
	l.sysctl(t, "net/core/somaxconn", "2")
	ln := l.listen(t, "tcp4", ":80", false)
	im := l.importer(t)
	n := fill(t, im)
	for range n {
		accept(t, ln)
	}
	ln.(*net.TCPListener).SetDeadline(time.Now().Add(100 * time.Millisecond))
	if c, err := ln.Accept(); err == nil {
		t.Errorf("a refused connection appeared: %v", c.RemoteAddr())
	}
	checkState(t, im, wire.Tuple{Client: clientPort(n), Service: service4}, None)
	if f, ok := l.next(t, 0); ok && f.Dst == clientPort(n) {
		t.Errorf("the refused client got %+v", f.Segment)
	}
}

// The import waits for room in the accept queue.
func TestFullBacklogIsTriedAgain(t *testing.T) {
	l := newLab(t)
	l.sysctl(t, "net/core/somaxconn", "2")
	ln := l.listen(t, "tcp4", ":80", false)
	im := l.importer(t)
	n := fill(t, im)
	time.AfterFunc(30*time.Millisecond, func() {
		if c, err := ln.Accept(); err == nil {
			c.Close()
		}
	})
	done, err := im.Import(t.Context(), record(clientPort(n), service4, request), service4)
	if err != nil || done.Retried == 0 || done.Took < 20*time.Millisecond {
		t.Errorf("imported %+v (%v), want retries for some 30 ms", done, err)
	}
}

// The window that a connection starts with is never smaller than computed, so a refusal or acceptance by it is right.
func TestFirstWindowIsTheKernels(t *testing.T) {
	tests := []struct {
		rcvbuf int // SO_RCVBUF, 0: default
		mss    uint16
		scale  uint8
		want   uint32
	}{
		{0, 1460, 7, 64240}, {8192, 1460, 7, 7300}, {32768, 1460, 7, 32120}, {65536, 1460, 7, 64240}, {65536, 536, 7, 65392},
		{1 << 17, 1460, 7, 65535}, {4096, 1460, 0, 2920}, {1 << 17, 1460, 14, 65535},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%d %d %d", tt.rcvbuf, tt.mss, tt.scale), func(t *testing.T) {
			l := newLab(t)
			ln := l.listen(t, "tcp4", ":80", false)
			if tt.rcvbuf > 0 {
				setRcvbuf(t, ln, tt.rcvbuf)
			}
			im := l.importer(t)
			listeners, err := im.diag.Dump(Listen)
			if err != nil || len(listeners) != 1 {
				t.Fatalf("listeners %+v (%v)", listeners, err)
			}
			if got := FirstWindow(listeners[0].Rcvbuf, tt.mss); got != tt.want {
				t.Errorf("computed %d from a buffer of %d, want %d", got, listeners[0].Rcvbuf, tt.want)
			}
			r := record(client4, service4, "", func(r *transfer.Record) {
				r.Handshake.MSS, r.Handshake.RcvScale = tt.mss, tt.scale
			})
			mustImport(t, im, r, service4)
			io.WriteString(accept(t, ln), "x")
			peer := newClient(l, r)
			peer.receive(t, 1)
			measured := uint32(peer.first.Window) << tt.scale
			if measured < tt.want>>tt.scale<<tt.scale {
				t.Errorf("measured %d, less than computed %d", measured, tt.want)
			}
			if tt.rcvbuf < 1<<17 && measured > tt.want+uint32(tt.mss) {
				t.Errorf("measured %d, far more than computed %d", measured, tt.want)
			}
		})
	}
}

func setRcvbuf(t *testing.T, ln net.Listener, size int) {
	t.Helper()
	raw, err := ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, size) })
	if err = errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
}
