package main

import (
	"bytes"
	"math"
	"net/netip"
	"testing"
)

// ends are clients' ends of many connections.
func ends(n int) []netip.AddrPort {
	all := make([]netip.AddrPort, n)
	for i := range all {
		all[i] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 77, 0, byte(100 + i%8)}), uint16(firstPort+i/8))
	}
	return all
}

func TestTargetsRejectAtTheirRateAndOnTheirOwn(t *testing.T) {
	const n = 50_000
	f := fate{seed: 1, rate: 0.3}
	var by [3]float64
	for _, c := range ends(n) {
		_, rejections := f.taker(c, []string{"t1", "t2"})
		by[rejections] += 1. / n
	}
	for i, want := range []float64{0.7, 0.21, 0.09} {
		if math.Abs(by[i]-want) > 0.01 {
			t.Errorf("%d rejections: share %.3f, want %.2f", i, by[i], want)
		}
	}
}

func TestTheSeedDecides(t *testing.T) {
	order := []string{"t1", "t2"}
	differ := 0
	for _, c := range ends(1000) {
		one, _ := fate{1, 0.3}.taker(c, order)
		again, _ := fate{1, 0.3}.taker(c, order)
		other, _ := fate{2, 0.3}.taker(c, order)
		if one != again || !bytes.Equal(fate{1, 0.3}.requestOf(c).octets, fate{1, 0.9}.requestOf(c).octets) {
			t.Fatalf("%v: two fates by one seed", c)
		}
		if one != other {
			differ++
		}
	}
	if differ < 200 {
		t.Errorf("another seed changes %d of 1000 connections", differ)
	}
}

func TestWhoTakesIsTheFirstThatDoesNotReject(t *testing.T) {
	f := fate{seed: 3, rate: 0.5}
	for _, c := range ends(200) {
		want, rejections := "", 2
		switch {
		case !f.rejects(c, "t2"):
			want, rejections = "t2", 0
		case !f.rejects(c, "t1"):
			want, rejections = "t1", 1
		}
		if got, n := f.taker(c, []string{"t2", "t1"}); got != want || n != rejections {
			t.Errorf("%v: %q after %d, want %q after %d", c, got, n, want, rejections)
		}
	}
}

func TestRequestsEndOnceAndSplitInside(t *testing.T) {
	first, split := 0, 0
	for _, c := range ends(1000) {
		q := fate{seed: 4}.requestOf(c)
		if bytes.Index(q.octets, []byte("\r\n\r\n")) != len(q.octets)-4 || q.split < 1 || q.split > len(q.octets) {
			t.Fatalf("%v: %d octets, split after %d: %.60q", c, len(q.octets), q.split, q.octets)
		}
		if q.clientFirst == bytes.Contains(q.octets, []byte("Connection: close")) {
			t.Fatalf("%v: who closes first?", c)
		}
		if q.clientFirst {
			first++
		}
		if q.split < len(q.octets) {
			split++
		}
	}
	if first < 400 || first > 600 || split < 400 || split > 600 {
		t.Errorf("of 1000 requests %d are of clients that close first, %d split; want about half", first, split)
	}
}

func TestWhatGrowsIsFound(t *testing.T) {
	of := func(resident, heap int, buffers uint64) use {
		return use{daemons: []memory{{"rh1", resident << 20, heap << 20}, {"t1", 20 << 20, 3 << 20}}, buffers: buffers}
	}
	before, warm := of(100, 5, 13119), of(110, 8, 13100)
	for name, row := range map[string]struct {
		after use
		good  bool
	}{
		"all as before":      {of(111, 6, 13119), true},
		"a last burst":       {of(111, 6, 13119-uncollected), true},
		"buffers lost":       {of(111, 6, 13119-uncollected-1), false},
		"heap grown":         {of(111, 5+17, 13119), false},
		"memory of C grown":  {of(110+17, 6, 13119), false},
		"memory since start": {of(100+17, 6, 13119), true},
	} {
		if err := row.after.fits(before, warm); (err == nil) != row.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}
