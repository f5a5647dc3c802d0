package admin

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func start(t *testing.T, s Source) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "run", "baton.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, s) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("socket is still there after Serve: %v", err)
		}
	})
	return NewClient(path)
}

func fixed[T any](v T) func(context.Context) (T, error) {
	return func(context.Context) (T, error) { return v, nil }
}

func TestClientGetsWhatTheSourceHas(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	want := struct {
		v Version
		t []Target
		x []Transfer
		c []Counter
		p []Port
		f []Flow
		d []Finding
	}{
		Version{Program: "baton", Version: "1", Host: "rh1", PID: 7, Started: at},
		[]Target{{Host: "t1", Job: "web-a", Ready: true, Connected: true, Address: "10.77.0.21", RTT: 0.0001, Active: 2}},
		[]Transfer{{Time: at, Client: "10.77.0.100:4000", Job: "web-a", Target: "t1", Outcome: "switched",
			Phases: map[string]float64{"frozen": 0.00001}, Total: 0.0002}},
		[]Counter{{Group: "drop", Name: "checksum", Value: 1<<63 + 1}},
		[]Port{{Name: "net_af_xdp0", RxPackets: 5, Stats: map[string]uint64{"rx_missed": 5}}},
		[]Flow{{Client: "10.77.0.100:4000", Job: "web-a", State: "live", Since: at}},
		[]Finding{{Check: "forwarding", OK: true, Detail: "off"}},
	}
	c := start(t, Source{Version: fixed(want.v), Targets: fixed(want.t), Transfers: fixed(want.x),
		Counters: fixed(want.c), Ports: fixed(want.p), Flows: fixed(want.f), Doctor: fixed(want.d)})
	ctx := t.Context()
	got := want
	var err [7]error
	got.v, err[0] = c.Version(ctx)
	got.t, err[1] = c.Targets(ctx)
	got.x, err[2] = c.Transfers(ctx)
	got.c, err[3] = c.Counters(ctx)
	got.p, err[4] = c.Ports(ctx)
	got.f, err[5] = c.Flows(ctx)
	got.d, err[6] = c.Doctor(ctx)
	if e := errors.Join(err[:]...); e != nil {
		t.Fatal(e)
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(want)); d != "" {
		t.Errorf("answers differ (-want +got):\n%s", d)
	}
}

func TestCRTQueryArrivesAsAsked(t *testing.T) {
	var got CRTQuery
	c := start(t, Source{CRT: func(_ context.Context, q CRTQuery) (CRTPage, error) {
		got = q
		return CRTPage{Entries: []CRTEntry{{Client: "c", Owner: "t1"}}, Total: 3, Matching: 1, Capacity: 8}, nil
	}})
	tests := []struct {
		name      string
		ask, want CRTQuery
	}{
		{"everything", CRTQuery{}, CRTQuery{Limit: DefaultPage}},
		{"all fields", CRTQuery{"10.0.0.1", "10.0.0.2:80", "t1", 5, 7}, CRTQuery{"10.0.0.1", "10.0.0.2:80", "t1", 5, 7}},
		{"IPv6", CRTQuery{Client: "[2001:db8::1]:80"}, CRTQuery{Client: "[2001:db8::1]:80", Limit: DefaultPage}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			page, err := c.CRT(t.Context(), test.ask)
			if err != nil || got != test.want {
				t.Errorf("query %+v, error %v; want %+v", got, err, test.want)
			}
			if len(page.Entries) != 1 || page.Total != 3 {
				t.Errorf("page %+v", page)
			}
		})
	}
	for _, bad := range []CRTQuery{{Limit: MaxPage + 1}, {Limit: -1}, {Offset: -1}} {
		if _, err := c.CRT(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "must be a number from") {
			t.Errorf("query %+v: error %v, want the allowed range", bad, err)
		}
	}
}

func TestErrorsSayWhatIsWrong(t *testing.T) {
	c := start(t, Source{Ports: func(context.Context) ([]Port, error) { return nil, errors.New("port closed") }})
	if _, err := c.Flows(t.Context()); !errors.Is(err, ErrNotServed) {
		t.Errorf("path without a source: %v, want ErrNotServed", err)
	}
	if _, err := c.Ports(t.Context()); err == nil || !strings.Contains(err.Error(), "port closed") {
		t.Errorf("failing source: %v, want its reason", err)
	}
	if _, err := NewClient(filepath.Join(t.TempDir(), "none")).Ports(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("no socket: %v, want ErrNotRunning", err)
	}
	if _, err := NewClient(leaveSocket(t)).Ports(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("dead socket: %v, want ErrNotRunning", err)
	}
}

// leaveSocket leaves a socket file behind as a killed daemon does.
func leaveSocket(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dead.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	return path
}

func TestListenReplacesOnlyADeadSocket(t *testing.T) {
	dead := leaveSocket(t)
	l, err := Listen(dead)
	if err != nil {
		t.Fatalf("dead socket: %v", err)
	}
	defer func() { _ = l.Close() }()
	info, err := os.Stat(dead)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, error %v; want 0600", info.Mode(), err)
	}
	if _, err := Listen(dead); !errors.Is(err, ErrInUse) {
		t.Errorf("second daemon: %v, want ErrInUse", err)
	}

	file := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(file); !errors.Is(err, ErrNotSocket) {
		t.Errorf("regular file: %v, want ErrNotSocket", err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("regular file was removed: %v", err)
	}
}

func TestListenDoesNotTakeASocketThatSomebodyElseServes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "alive.sock")
	l, err := net.Listen("unix", path) // a daemon that knows nothing of the lock
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if _, err := Listen(path); !errors.Is(err, ErrInUse) {
		t.Errorf("served socket: %v, want ErrInUse", err)
	}
}

func TestListenAgainAfterClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for range 2 {
		l, err := Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCountersComeByTheirNames(t *testing.T) {
	got := Counters("import", map[string]uint64{"not imported": 2, "done": 1, "expired": 3})
	want := []Counter{{"import", "done", 1}, {"import", "expired", 3}, {"import", "not_imported", 2}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
