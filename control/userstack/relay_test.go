package userstack

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"errors"

	"baton/control/transfer"
)

// relayed is a world whose target relays to a Unix socket.
type relayed struct {
	*world
	relay       *Relay
	application *net.UnixListener
}

func newRelayed(t *testing.T, proxy bool) *relayed {
	t.Helper()
	w := &relayed{world: &world{}}
	w.target, w.far = newLink()
	w.server, w.peer = startStack(t, w.target, web), startStack(t, w.far, peerJob)
	path := filepath.Join(t.TempDir(), "app.sock")
	var err error
	if w.application, err = net.ListenUnix("unix", &net.UnixAddr{Name: path}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.application.Close() })
	if w.dialled, err = w.peer.Listen(peerJob); err != nil {
		t.Fatal(err)
	}
	w.relay = &Relay{Network: "unix", Address: path, ProxyProtocol: proxy, Log: slog.New(slog.DiscardHandler)}
	if err := w.server.Relay(web, w.relay); err != nil {
		t.Fatal(err)
	}
	return w
}

// connect makes a connection and returns the client's end and the application's.
func (w *relayed) connect(t *testing.T, data string) (peer *Conn, application *net.UnixConn) {
	t.Helper()
	r := recordOf(client, 5000, data)
	w.peer.give(t, mirrored(r))
	w.server.give(t, r)
	w.application.SetDeadline(time.Now().Add(patience))
	application, err := w.application.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	application.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { application.Close() })
	return accept(t, w.dialled), application
}

func TestRelayCopiesBothWays(t *testing.T) {
	peer, application := newRelayed(t, false).connect(t, "request ")
	data := octets(1 << 20)
	go func() {
		peer.Write(data)
		peer.CloseWrite()
	}()
	got, err := io.ReadAll(application)
	if err != nil || !bytes.Equal(got, append([]byte("request "), data...)) {
		t.Fatalf("the application read %d octets: %v", len(got), err)
	}
	go func() {
		application.Write(data)
		application.Close()
	}()
	if got, err := io.ReadAll(peer); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the client read %d octets: %v", len(got), err)
	}
}

func TestRelaySaysWhoTheClientIs(t *testing.T) {
	_, application := newRelayed(t, true).connect(t, "request")
	want := "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + "\x0a\x4d\x00\x64" + "\x0a\x4d\x00\x0a" + "\x9c\x40" + "\x00\x50" + "request"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(application, got); err != nil || string(got) != want {
		t.Errorf("the application reads %q (%v), want %q", got, err, want)
	}
}

func TestProxyHeaderForIPv6(t *testing.T) {
	got := proxyHeader(netip.MustParseAddrPort("[2001:db8::1]:4660"), netip.MustParseAddrPort("[2001:db8::2]:80"))
	want := "\r\n\r\n\x00\r\nQUIT\n\x21\x21\x00\x24" + "\x20\x01\x0d\xb8" + string(make([]byte, 11)) + "\x01" +
		"\x20\x01\x0d\xb8" + string(make([]byte, 11)) + "\x02" + "\x12\x34" + "\x00\x50"
	if string(got) != want {
		t.Errorf("header %q, want %q", got, want)
	}
}

// An application that closes has its client told, and one whose client resets is told.
func TestRelayPassesEndsOn(t *testing.T) {
	t.Run("application closes", func(t *testing.T) {
		w := newRelayed(t, false)
		peer, application := w.connect(t, "")
		application.Close()
		if n, err := peer.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the client reads %d octets, %v; want the end", n, err)
		}
		peer.Close()
		w.server.ended(t)
	})
	t.Run("client resets", func(t *testing.T) {
		w := newRelayed(t, false)
		peer, application := w.connect(t, "")
		peer.SetLinger(0)
		peer.Close()
		if n, err := application.Read(make([]byte, 1)); err == nil {
			t.Errorf("the application reads %d octets; want the end", n)
		}
		w.server.ended(t)
	})
	t.Run("client writes to an application that is gone", func(t *testing.T) {
		w := newRelayed(t, false)
		peer, application := w.connect(t, "")
		application.Close()
		if _, err := io.ReadAll(peer); err != nil {
			t.Fatal(err)
		}
		io.WriteString(peer, "anybody there?")
		if _, err := peer.Read(make([]byte, 1)); err == nil {
			t.Error("the client still reads")
		}
		if inc := w.server.ended(t); inc.Client != client {
			t.Errorf("ended %v", inc)
		}
		for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			if _, err := peer.Write([]byte("x")); errors.Is(err, syscall.ECONNRESET) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatal("the client is not reset")
			}
		}
	})
}

// A job whose application is gone is not ready, and takes no connection.
func TestRelayWithoutApplication(t *testing.T) {
	w := newRelayed(t, false)
	if p := w.server.Look()[web].Problem; p != nil {
		t.Errorf("with its application: %v", p)
	}
	w.application.Close()
	w.relay.took.Store(0) // some time later
	if p := w.server.Look()[web].Problem; p == nil || p.Reason != transfer.ReasonNotListening {
		t.Errorf("without: %v, want that nobody listens", p)
	}
	_, p := w.server.Import(t.Context(), &transfer.Import{Record: recordOf(client, 1, "")})
	if p == nil || p.Reason != transfer.ReasonNotListening || len(w.server.Flows()) != 0 {
		t.Errorf("import: %v with %d flows, want that nobody listens", p, len(w.server.Flows()))
	}
}
