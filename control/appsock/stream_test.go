package appsock

import (
	"io"
	"testing"

	"golang.org/x/sys/unix"
)

func TestUnreadCountsWhatWasOnlyPeekedAt(t *testing.T) {
	s, theirs, err := newStream()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	defer theirs.Close()
	want := func(when string, n int) {
		t.Helper()
		if got, known := s.Unread(); got != n || !known {
			t.Errorf("%s: %d, %t; want %d", when, got, known, n)
		}
	}
	want("at first", 0)
	if n := s.Write([]byte("hello")) + s.Write([]byte(" world")); n != 11 {
		t.Fatalf("%d octets written", n)
	}
	want("written", 11)
	b := make([]byte, 8)
	if n, _, err := unix.Recvfrom(int(theirs.Fd()), b, unix.MSG_PEEK); err != nil || string(b[:n]) != "hello wo" {
		t.Fatalf("peeked %q, %v", b[:n], err)
	}
	want("peeked at", 11)
	if _, err := io.ReadFull(theirs, b[:3]); err != nil {
		t.Fatal(err)
	}
	want("partly read", 8)
	if _, err := io.ReadFull(theirs, b); err != nil {
		t.Fatal(err)
	}
	want("read", 0)
	theirs.Close()
	if _, known := s.Unread(); known {
		t.Error("known although the application has closed")
	}
	if n := s.Write([]byte("x")); n != 0 {
		t.Error("written to nobody")
	}
}

// TestWindowInPiecesFits: a client may send a whole window in small segments.
func TestWindowInPiecesFits(t *testing.T) {
	s, theirs, err := newStream()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	defer theirs.Close()
	for i := range 2000 {
		if s.Write(make([]byte, 32)) != 32 {
			t.Fatalf("full after %d pieces", i)
		}
	}
	if n, _ := s.Unread(); n != 64000 {
		t.Errorf("%d unread", n)
	}
}
