package seq

import "testing"

// bases are places on the circle where unsigned and signed comparison go wrong if written carelessly.
var bases = []Value{0, 1, 1<<31 - 1, 1 << 31, 1<<31 + 1, 1<<32 - 1, 12345}

func TestOrderHoldsAroundTheWrap(t *testing.T) {
	for _, v := range bases {
		for _, d := range []int{1, 2, 65535, 1<<31 - 1} {
			w := v.Add(d)
			if !v.Before(w) || w.Before(v) || !w.After(v) || v.After(w) || w.Sub(v) != d || v.Sub(w) != -d {
				t.Errorf("%d and %d: order or distance is wrong", v, w)
			}
			if Max(v, w) != w || Max(w, v) != w || Min(v, w) != v || Min(w, v) != v {
				t.Errorf("%d and %d: Max or Min is wrong", v, w)
			}
			if w.Add(-d) != v {
				t.Errorf("%d + %d - %d is not %d", v, d, d, v)
			}
		}
		if v.Before(v) || v.After(v) || v.Sub(v) != 0 {
			t.Errorf("%d differs from itself", v)
		}
	}
}

func TestWindowHasItsFirstButNotItsEnd(t *testing.T) {
	for _, v := range bases {
		for _, c := range []struct {
			offset int
			size   uint32
			in     bool
		}{{-1, 10, false}, {0, 10, true}, {9, 10, true}, {10, 10, false}, {0, 0, false}} {
			if got := v.Add(c.offset).InWindow(v, c.size); got != c.in {
				t.Errorf("%d%+d in window of %d: %v", v, c.offset, c.size, got)
			}
		}
	}
}

func TestBetweenHasBothEnds(t *testing.T) {
	for _, v := range bases {
		for offset, want := range map[int]bool{-1: false, 0: true, 5: true, 6: false} {
			if got := v.Add(offset).Between(v, v.Add(5)); got != want {
				t.Errorf("%d%+d: %v", v, offset, got)
			}
		}
	}
}
