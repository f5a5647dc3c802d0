package faults

import (
	"bytes"
	"slices"
	"sync"
	"testing"
	"time"
)

// carry sends n numbered frames over a link and returns what arrives within its longest delay.
func carry(rates Rates, seed uint64, n int) (got [][]byte, c Counts) {
	var mu sync.Mutex
	l := New(rates, seed, func(frame []byte) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, frame)
	})
	for i := range n {
		l.Carry(numbered(i))
	}
	c = l.Count()
	if c.Delayed > 0 {
		time.Sleep(100 * time.Millisecond)
	}
	mu.Lock()
	defer mu.Unlock()
	return slices.Clone(got), c
}

func numbered(i int) []byte {
	return append([]byte{byte(i), byte(i >> 8)}, make([]byte, headers)...)
}

func number(frame []byte) int { return int(frame[0]) | int(frame[1])<<8 }

func TestGoodLinkChangesNothing(t *testing.T) {
	got, c := carry(Rates{}, 1, 1000)
	for i, frame := range got {
		if !bytes.Equal(frame, numbered(i)) {
			t.Fatalf("frame %d is %v", i, frame)
		}
	}
	if len(got) != 1000 || c != (Counts{Carried: 1000}) {
		t.Errorf("%d frames, %+v", len(got), c)
	}
}

func TestFaultsAreAsOftenAsAsked(t *testing.T) {
	const n = 10_000
	about := func(got int64, percent int) bool {
		return got > n*int64(percent)*8/1000 && got < n*int64(percent)*12/1000
	}
	got, c := carry(Rates{Lose: 10, Repeat: 20, Damage: 5}, 1, n)
	if !about(c.Lost, 10) || !about(c.Repeated, 18) || !about(c.Damaged, 4) {
		t.Errorf("%+v", c)
	}
	if int64(len(got)) != n-c.Lost+c.Repeated || c.Faults() != c.Lost+c.Repeated+c.Damaged {
		t.Errorf("%d frames arrived, %+v", len(got), c)
	}
	bad := 0
	for _, frame := range got {
		if !bytes.Equal(frame, numbered(number(frame))) {
			bad++
		}
	}
	if int64(bad) < c.Damaged {
		t.Errorf("%d frames arrived damaged, %+v", bad, c)
	}
}

func TestDelayedFramesAreOvertakenAndArrive(t *testing.T) {
	got, c := carry(Rates{Delay: 10}, 1, 1000)
	if len(got) != 1000 || c.Delayed == 0 {
		t.Fatalf("%d frames, %+v", len(got), c)
	}
	if slices.IsSortedFunc(got, func(a, b []byte) int { return number(a) - number(b) }) {
		t.Error("nothing was overtaken")
	}
}

func TestSeedDecides(t *testing.T) {
	rates := Rates{Lose: 10, Repeat: 10, Damage: 10}
	a, _ := carry(rates, 1, 500)
	again, _ := carry(rates, 1, 500)
	other, _ := carry(rates, 2, 500)
	if !slices.EqualFunc(a, again, bytes.Equal) {
		t.Error("the same seed did something else")
	}
	if slices.EqualFunc(a, other, bytes.Equal) {
		t.Error("another seed did the same")
	}
}

func TestShortFramesAreNotDamaged(t *testing.T) {
	l := New(Rates{Damage: 100}, 1, func([]byte) {})
	l.Carry(make([]byte, headers))
	if c := l.Count(); c.Damaged != 0 {
		t.Errorf("%+v", c)
	}
}
