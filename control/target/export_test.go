package target

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"baton/control/transfer"
	"baton/fastpath/wire"
)

// keeper is a Kernel that knows of the lab's connection.
func (m *moving) keeper(t *testing.T) *Kernel {
	t.Helper()
	s, err := m.im.Lookup(m.rec.Inc.Tuple)
	if err != nil {
		t.Fatal(err)
	}
	k := &Kernel{log: slog.New(slog.DiscardHandler), live: map[wire.Tuple]liveFlow{}, cookies: map[uint64]wire.Tuple{},
		leaving: map[wire.Tuple]bool{}, spaces: map[string]*space{"": {mover: m.mover, importer: m.im}}}
	k.hold(liveFlow{Flow: Flow{Flow: transfer.Flow{Inc: m.rec.Inc}}, cookie: s.Cookie})
	return k
}

func fileOf(t *testing.T, c net.Conn) *os.File {
	t.Helper()
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// What the application has not read, and what the client has not acknowledged, is in the record; and until it is
// settled nothing passes.
func TestExportedConnectionComesBackOrLeavesInSilence(t *testing.T) {
	for _, end := range [][2]netip.AddrPort{{client4, service4}, {client6, service6}} {
		t.Run(end[1].Addr().String(), func(t *testing.T) {
			m := move(t, end[0], end[1], "read,unread")
			k, f := m.keeper(t), fileOf(t, m.app)
			if _, err := io.ReadFull(m.app, make([]byte, 5)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(m.app, "unacknowledged"); err != nil {
				t.Fatal(err)
			}
			x, problem := k.Export(f)
			if problem != nil {
				t.Fatal(problem)
			}
			r := x.Record
			switch {
			case string(r.Data) != "unread" || r.RcvNxt != m.peer.snd || r.ReadFrom != r.RcvNxt.Add(-6):
				t.Errorf("receives %q from %d to %d, want to %d", r.Data, r.ReadFrom, r.RcvNxt, m.peer.snd)
			case string(r.SendData) != "unacknowledged" || r.SndUna != m.rec.SndNxt || r.SndNxt != r.SndUna.Add(14):
				t.Errorf("sends %q from %d, next %d", r.SendData, r.SndUna, r.SndNxt)
			case r.Handshake.MSS != m.rec.Handshake.MSS || r.Handshake.SndScale != m.rec.Handshake.SndScale ||
				r.Handshake.RcvScale != m.rec.Handshake.RcvScale || r.Handshake.Timestamps != m.rec.Handshake.Timestamps:
				t.Errorf("handshake %+v, want %+v", r.Handshake, m.rec.Handshake)
			case r.RcvEdge.Before(r.RcvNxt) || r.Check() != nil || !x.Talked || r.TSRecent != m.rec.TSRecent:
				t.Errorf("edge %d, talked %t, echoes %d, %v", r.RcvEdge, x.Talked, r.TSRecent, r.Check())
			}
			x.Settle(false)
			if _, err := io.WriteString(m.app, ", and more"); err != nil {
				t.Fatal(err)
			}
			m.peer.receive(t, len("unacknowledged, and more"))
			if x, problem = k.Export(f); problem != nil {
				t.Fatal(problem)
			}
			x.Settle(true)
			checkState(t, m.im, m.rec.Inc.Tuple, None)
			if frame, ok := m.next(t, shortly); ok && frame.Dst == m.rec.Inc.Client {
				t.Errorf("the client gets %v", frame.Segment)
			}
			if _, err := m.app.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("the application reads on: %v", err)
			}
		})
	}
}

// A connection that is on its way to another owner is not given a second time: who froze it decides what becomes of it.
func TestFrozenConnectionIsNotExportedAgain(t *testing.T) {
	m := move(t, client4, service4, "x")
	k := m.keeper(t)
	f := fileOf(t, m.app)
	x, problem := k.Export(f)
	if problem != nil {
		t.Fatal(problem)
	}
	if _, again := k.Export(f); again == nil || !strings.Contains(again.Detail, ErrOtherPhase.Error()) {
		t.Errorf("exported again: %v", again)
	}
	if err := m.mover.LetGo(wire.Incarnation{Tuple: m.rec.Inc.Tuple}); !errors.Is(err, ErrNotFollowed) {
		t.Errorf("let go of another incarnation: %v", err)
	}
	x.Settle(false)
	if x, problem = k.Export(f); problem != nil {
		t.Fatalf("not exported after it was thawed: %v", problem)
	}
	x.Settle(false)
}

func TestOnlyOurOwnConnectionsAreExported(t *testing.T) {
	m := move(t, client4, service4, "x")
	k := m.keeper(t)
	k.drop(m.rec.Inc.Tuple)
	if _, problem := k.Export(fileOf(t, m.app)); problem == nil {
		t.Error("a connection that nobody knows of was exported")
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if _, problem := k.Export(null); problem == nil {
		t.Error("a file was exported")
	}
}
