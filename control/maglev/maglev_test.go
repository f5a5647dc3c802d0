package maglev

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// backends are n of equal weight.
func backends(n int) []Backend {
	all := make([]Backend, n)
	for i := range all {
		all[i] = Backend{Name: fmt.Sprintf("t%d", i), Weight: 1}
	}
	return all
}

func table(t testing.TB, size int, b []Backend) []uint16 {
	t.Helper()
	table, err := Table(size, b)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func shares(table []uint16, n int) []int {
	count := make([]int, n)
	for _, b := range table {
		count[b]++
	}
	return count
}

func TestSharesOfEqualsDifferByOne(t *testing.T) {
	for _, n := range []int{1, 2, 3, 7, 100, 650} {
		got := shares(table(t, Size, backends(n)), n)
		if least, most := slices.Min(got), slices.Max(got); most-least > 1 {
			t.Errorf("%d backends have %d to %d places, want the same or one more", n, least, most)
		}
	}
}

func TestSharesFollowWeights(t *testing.T) {
	tests := [][]int{{1, 3}, {3, 1}, {1, 2, 3, 4}, {100, 1}, {7, 7, 1}, {65535, 1, 32768}}
	for _, weights := range tests {
		b, sum := backends(len(weights)), 0
		for i, w := range weights {
			b[i].Weight = w
			sum += w
		}
		for i, got := range shares(table(t, Size, b), len(b)) {
			want := Size * weights[i] / sum
			if got < want-2 || got > want+2 {
				t.Errorf("weights %v: backend %d has %d places, want %d", weights, i, got, want)
			}
		}
	}
}

// TestTableDoesNotDependOnOrder names backends by their names: another routing host may count them differently.
func TestTableDoesNotDependOnOrder(t *testing.T) {
	b := backends(20)
	b[3].Weight = 5
	first := table(t, Size, b)
	other := slices.Clone(b)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(other), func(i, j int) { other[i], other[j] = other[j], other[i] })
	for i, place := range table(t, Size, other) {
		if other[place].Name != b[first[i]].Name {
			t.Fatalf("place %d is of %s, and of %s in another order", i, b[first[i]].Name, other[place].Name)
		}
	}
}

// TestTableIsTheSameAtEachStart fixes a table: a restarted or another version must name the same targets.
func TestTableIsTheSameAtEachStart(t *testing.T) {
	got := table(t, 13, backends(3))
	if want := []uint16{1, 2, 2, 0, 2, 0, 0, 1, 1, 0, 1, 2, 0}; !slices.Equal(got, want) {
		t.Errorf("table %v, want %v", got, want)
	}
}

func TestImpossibleBackends(t *testing.T) {
	tests := map[string]struct {
		size int
		b    []Backend
	}{
		"more than places": {3, backends(4)},
		"no places":        {0, backends(1)},
		"no weight":        {Size, []Backend{{Name: "a"}}},
		"one name twice":   {Size, []Backend{{"a", 1}, {"a", 1}}},
	}
	for name, tt := range tests {
		if _, err := Table(tt.size, tt.b); !errors.Is(err, ErrBackends) {
			t.Errorf("%s: %v, want ErrBackends", name, err)
		}
	}
	if none, err := Table(Size, nil); none != nil || err != nil {
		t.Errorf("no backends: %v, %v", none, err)
	}
}

// disruption is the share of all places that change hands although their backend stays, when backends number gone go.
func disruption(t testing.TB, size int, b []Backend, gone map[int]bool) float64 {
	t.Helper()
	var left []Backend
	for i := range b {
		if !gone[i] {
			left = append(left, b[i])
		}
	}
	before, after := table(t, size, b), table(t, size, left)
	moved := 0
	for i := range before {
		if !gone[int(before[i])] && left[after[i]].Name != b[before[i]].Name {
			moved++
		}
	}
	return float64(moved) / float64(size)
}

// TestRemovalMovesFewPlaces measures the disruption of section 5.3: of the places whose backend stays, few change hands
// when another goes. The paper's bound for the shares, 1 % at 100 places for each backend (section 3.4), holds for this as
// well. The removed backend's own places, 1/n of all, must change and are not counted.
func TestRemovalMovesFewPlaces(t *testing.T) {
	for _, n := range []int{2, 3, 5, 10, 30, 100, 300, 650} {
		r := rand.New(rand.NewPCG(uint64(n), 7))
		sum, worst := 0.0, 0.0
		const times = 10
		for range times {
			d := disruption(t, Size, backends(n), map[int]bool{r.IntN(n): true})
			sum, worst = sum+d, max(worst, d)
		}
		t.Logf("%d backends, one goes: %.3f %% of the places move, %.3f %% at worst", n, 100*sum/times, 100*worst)
		if worst > 0.01 {
			t.Errorf("%d backends, one goes: %.2f %% of the places move, want at most 1 %%", n, 100*worst)
		}
	}
}

// TestLargerTablesMoveLess is the paper's other finding of section 5.3, here for ten of 1000 backends.
func TestLargerTablesMoveLess(t *testing.T) {
	gone := map[int]bool{}
	for r := rand.New(rand.NewPCG(1, 2)); len(gone) < 10; {
		gone[r.IntN(1000)] = true
	}
	small, large := disruption(t, Size, backends(1000), gone), disruption(t, 655373, backends(1000), gone)
	t.Logf("ten of 1000 go: %.2f %% of 65537 places move, %.2f %% of 655373", 100*small, 100*large)
	if small > 0.03 || large > small/3 {
		t.Errorf("ten of 1000 go: %.2f %% of 65537 places move, %.2f %% of 655373, want at most 3 %% and a third of that",
			100*small, 100*large)
	}
}

func BenchmarkTable(b *testing.B) {
	for _, n := range []int{3, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for all := backends(n); b.Loop(); {
				table(b, Size, all)
			}
		})
	}
}
