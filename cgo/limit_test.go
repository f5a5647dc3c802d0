package cgo

import "testing"

const limitStart = 1_800_000_000_000 // ms

func newLimit(t *testing.T, sourcePunts, punts, sourceFlows uint32) Limit {
	l := NewLimit(sourcePunts, punts, sourceFlows, 0x1234567890abcdef)
	t.Cleanup(l.Free)
	return l
}

func v4(n uint64) IP { return IP{Lo: 0xffff_0a00_0000 + n} }

// taken is how many of tries punts a millisecond a source gets in a time.
func taken(l Limit, source IP, from, ms uint64, tries int) (n int) {
	for at := from; at < from+ms; at++ {
		for range tries {
			if l.Punt(source, at) {
				n++
			}
		}
	}
	return n
}

func TestLimitHoldsASourceToItsRate(t *testing.T) {
	for _, rate := range []uint32{1, 100, 1000, 30_000} {
		l := newLimit(t, rate, 0, 0)
		n := taken(l, v4(1), limitStart, 2000, 50)
		if want := int(rate)*2 + int(rate)/2; n < want-want/100-1 || n > want+want/100+1 {
			t.Errorf("%d punts at %d a second in 2 s, want %d: half a second's worth at once", n, rate, want)
		}
	}
}

func TestLimitLetsASourceRecover(t *testing.T) {
	l := newLimit(t, 1000, 0, 0)
	taken(l, v4(1), limitStart, 100, 100)
	if n := taken(l, v4(1), limitStart+100, 1, 100); n > 1 {
		t.Errorf("%d punts of an exhausted source in a millisecond", n)
	}
	if n := taken(l, v4(1), limitStart+10_000, 1, 1000); n != 500 {
		t.Errorf("%d punts after a pause, want half a second's worth", n)
	}
}

func TestLimitProtectsOthers(t *testing.T) {
	l := newLimit(t, 1000, 0, 0)
	for at := uint64(limitStart); at < limitStart+1000; at++ { // 20 sources take all they can
		for i := range uint64(20) {
			taken(l, v4(1_000_000+i), at, 1, 10)
		}
	}
	refused := 0
	for i := range uint64(10_000) {
		if !l.Punt(v4(i), limitStart+1000) {
			refused++
		}
	}
	if refused > 5 { // (20 / 4096)^2 of 10000 is 0.2
		t.Errorf("%d of 10000 innocent sources are refused", refused)
	}
}

func TestLimitOfAll(t *testing.T) {
	l := newLimit(t, 0, 1000, 0)
	n := 0
	for at := uint64(limitStart); at < limitStart+1000; at++ {
		for i := range uint64(10) {
			if l.Punt(v4(at*10+i), at) {
				n++
			}
		}
	}
	if n < 1490 || n > 1510 {
		t.Errorf("%d punts of all sources in a second, want 1500", n)
	}
}

func TestLimitTakesAnIPv6NetworkForOneSource(t *testing.T) {
	l := newLimit(t, 10, 0, 0)
	n := 0
	for i := range uint64(1000) {
		if l.Punt(IP{0x20010db8_00010000, i << 20}, limitStart) {
			n++
		}
	}
	if n != 5 {
		t.Errorf("%d punts of one /64 at once, want 5", n)
	}
	if !l.Punt(IP{0x20010db8_00010001, 1}, limitStart) {
		t.Error("another /64 is refused")
	}
}

func TestLimitOfFlows(t *testing.T) {
	l := newLimit(t, 0, 0, 3)
	for i := range 3 {
		if !l.BeginFlow(v4(1), limitStart) {
			t.Fatalf("flow %d of 3 is refused", i+1)
		}
	}
	if l.BeginFlow(v4(1), limitStart) {
		t.Error("a fourth flow is accepted")
	}
	if !l.BeginFlow(v4(2), limitStart) {
		t.Error("another source is refused")
	}
	l.EndFlow(v4(1))
	if !l.BeginFlow(v4(1), limitStart) {
		t.Error("a flow is refused after one has ended")
	}
}

func TestNoLimit(t *testing.T) {
	l := newLimit(t, 0, 0, 0)
	if n := taken(l, v4(1), limitStart, 10, 1000); n != 10_000 {
		t.Errorf("%d of 10000 punts", n)
	}
}
