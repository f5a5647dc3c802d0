package lab

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"
)

// Each refused connection is one RST from the target; those that go well have none, and a client's abort has its own.
func TestEachResetCounts(t *testing.T) {
	l := newLab(t, Options{})
	target := l.Targets[0]
	listener, err := target.Listen(":80")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	resets, err := l.Client.CountResets()
	if err != nil {
		t.Fatal(err)
	}
	defer resets.Close()
	wantResets := func(want int) {
		t.Helper()
		if n, err := resets.Count(); err != nil || n != want {
			t.Errorf("%d resets (%v), want %d", n, err, want)
		}
	}
	dial := func(port uint16) (*Conn, error) {
		return l.Client.Dial(t.Context(), netip.AddrPort{}, netip.AddrPortFrom(target.Data.Addr(), port))
	}
	good, err := dial(80)
	if err != nil {
		t.Fatal(err)
	}
	wantResets(0)
	for range 3 {
		if _, err := dial(9); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("%v, want a refusal", err)
		}
	}
	wantResets(3)
	if err := good.Abort(); err != nil {
		t.Fatal(err)
	}
	wantResets(4)
}
