package cgo

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestSumIsWholeWhenItFoldsToOnes compares the multiplication with the folding, at the edges and at random.
func TestSumIsWholeWhenItFoldsToOnes(t *testing.T) {
	check := func(sum uint64) {
		if got, want := SumWhole(sum), SumFold(sum) == 0xffff; got != want {
			t.Fatalf("sum %#x: whole %v, folds to %#x", sum, got, SumFold(sum))
		}
	}
	whole := 0
	for i := range uint64(200_000) {
		quotient := 1 + rand.Uint64N(math.MaxUint64/0xffff)
		for _, sum := range []uint64{1 + i, math.MaxUint64 - i, quotient * 0xffff, quotient*0xffff - 1, rand.Uint64() | 1} {
			check(sum)
			if SumWhole(sum) {
				whole++
			}
		}
	}
	if whole < 200_000 {
		t.Errorf("only %d sums were whole", whole)
	}
}
