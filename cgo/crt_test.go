package cgo

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
)

// TestSipHashVectors has the first vectors of the reference implementation (vectors_sip64, key 00..0f, data 00..).
func TestSipHashVectors(t *testing.T) {
	want := []string{
		"310e0edd47db6f72", "fd67dc93c539f874", "5a4fa9d909806c0d", "2d7efbd796666785", "b7877127e09427cf",
		"8da699cd64557618", "cee3fe586e46c9cb", "37d1018bf50002ab", "6224939a79f5f593", "b0e4a90bdf82009e",
	}
	key := [2]uint64{0x0706050403020100, 0x0f0e0d0c0b0a0908}
	var data []byte
	for i, w := range want {
		got := fmt.Sprintf("%x", binary.LittleEndian.AppendUint64(nil, SipHash(key, data)))
		if got != w {
			t.Errorf("%d octets: %s, want %s", i, got, w)
		}
		data = append(data, byte(i))
	}
}

// randomKey makes few different keys, so that they come again; the IPv4 table uses the first word only.
func randomKey(r *rand.Rand, keyWords, space int) [3]uint64 {
	n := uint64(r.IntN(space)) + 1
	if keyWords == 1 {
		return [3]uint64{n << 16}
	}
	return [3]uint64{n % 7, n % 11, n<<16 | 1}
}

// TestTableIsAMap compares the table with a Go map over random operations, up to a full table.
func TestTableIsAMap(t *testing.T) {
	for _, keyWords := range []int{1, 3} {
		for _, entries := range []uint64{1, 10, 1000, 20000} {
			t.Run(fmt.Sprintf("%d words, %d entries", keyWords, entries), func(t *testing.T) {
				checkMap(t, keyWords, entries)
			})
		}
	}
}

func checkMap(t *testing.T, keyWords int, entries uint64) {
	r := rand.New(rand.NewPCG(1, entries))
	table, err := NewTable(entries, TablePercent, keyWords, r.Uint64())
	if err != nil {
		t.Fatal(err)
	}
	defer table.Free()
	twin := map[[3]uint64]uint64{}
	for i := range 200_000 {
		key := randomKey(r, keyWords, int(entries)*3/2+1)
		value, ok := table.Find(key)
		if want, wantOK := twin[key]; ok != wantOK || value != want {
			t.Fatalf("step %d: find %x = %d, %v; want %d, %v", i, key, value, ok, want, wantOK)
		}
		switch {
		case ok && r.IntN(3) == 0:
			if !table.Remove(key) {
				t.Fatalf("step %d: remove %x", i, key)
			}
			delete(twin, key)
		case !ok:
			want := uint64(len(twin)) < entries // below the limit an insert always succeeds
			if got := table.Insert(key, uint64(i)); got != want {
				t.Fatalf("step %d: insert at %d of %d entries: %v", i, len(twin), entries, got)
			}
			if want {
				twin[key] = uint64(i)
			}
		}
	}
	checkScan(t, table, twin)
}

// checkScan reads all buckets and expects exactly the twin's entries.
func checkScan(t *testing.T, table Table, twin map[[3]uint64]uint64) {
	var bucket [4]Entry
	seen := 0
	for b := range table.Buckets() {
		for _, e := range bucket[:table.Read(b, &bucket)] {
			if want, ok := twin[e.Key]; !ok || want != e.Value {
				t.Errorf("scan found %x = %d, want %d, %v", e.Key, e.Value, want, ok)
			}
			seen++
		}
	}
	if seen != len(twin) || table.Used() != uint64(seen) {
		t.Errorf("scan found %d entries, table says %d, want %d", seen, table.Used(), len(twin))
	}
}

// TestTableTakesWhatItPromises fills tables beyond the load that a forwarder uses: inserts succeed up to the percentage
// that baton_crt_init names, and everything is found.
func TestTableTakesWhatItPromises(t *testing.T) {
	for _, tt := range []struct{ keyWords, percent int }{{1, 95}, {3, 95}} {
		for _, entries := range []uint64{100, 10_000, 300_000} {
			t.Run(fmt.Sprintf("%d words, %d entries", tt.keyWords, entries), func(t *testing.T) {
				table, err := NewTable(entries, tt.percent, tt.keyWords, entries)
				if err != nil {
					t.Fatal(err)
				}
				defer table.Free()
				key := func(i uint64) [3]uint64 { return [3]uint64{i<<16 | 1, i >> 3 & -uint64(tt.keyWords>>1), i<<16 | 1} }
				for i := range entries {
					if !table.Insert(key(i), i) {
						t.Fatalf("full at %d of %d", i, entries)
					}
				}
				for i := range entries {
					if v, ok := table.Find(key(i)); !ok || v != i {
						t.Fatalf("key %d has %d, %v", i, v, ok)
					}
				}
				for i := range entries { // what is in a third bucket is found as long as it is there, and not counted after
					if bulk := table.FindBulk([][3]uint64{key(i), key(entries)}, true); bulk[0] != i || bulk[1] != 0 {
						t.Fatalf("key %d: %d in bulk", i, bulk)
					}
					if !table.Remove(key(i)) {
						t.Fatalf("key %d is gone", i)
					}
				}
				if thirds, spilled := table.Elsewhere(); thirds+spilled != 0 {
					t.Errorf("an empty table has %d entries in third buckets, %d not in their first", thirds, spilled)
				}
			})
		}
	}
}

// TestFullTableRefusesAndKeepsTheOthers has no room to spare: some inserts fail, and never at the cost of other keys.
func TestFullTableRefusesAndKeepsTheOthers(t *testing.T) {
	for _, keyWords := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d words", keyWords), func(t *testing.T) {
			table, err := NewTable(20_000, 100, keyWords, 9)
			if err != nil {
				t.Fatal(err)
			}
			defer table.Free()
			twin := map[[3]uint64]uint64{}
			r := rand.New(rand.NewPCG(5, 6))
			refused := 0
			for i := range uint64(25_000) {
				key := [3]uint64{r.Uint64() | 1<<20, r.Uint64() & -uint64(keyWords>>1), (r.Uint64() | 1) & -uint64(keyWords>>1)}
				if table.Insert(key, i) {
					if keyWords == 1 {
						key[2] = 0
					}
					twin[key] = i
				} else {
					refused++
				}
			}
			if refused < 5000 || len(twin) < 17_000 {
				t.Errorf("%d refused, %d taken", refused, len(twin))
			}
			checkScan(t, table, twin)
		})
	}
}

// TestBulkFindsWhatOneFindDoes compares the plain code, the code for this CPU, and single lookups.
func TestBulkFindsWhatOneFindDoes(t *testing.T) {
	for _, keyWords := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d words", keyWords), func(t *testing.T) {
			table, err := NewTable(1000, 90, keyWords, 11)
			if err != nil {
				t.Fatal(err)
			}
			defer table.Free()
			r := rand.New(rand.NewPCG(3, 4))
			for range 20_000 {
				if key := randomKey(r, keyWords, 1500); r.IntN(3) > 0 {
					table.Remove(key)
				} else if _, ok := table.Find(key); !ok {
					table.Insert(key, r.Uint64()|1)
				}
				keys := make([][3]uint64, r.IntN(33))
				for i := range keys {
					keys[i] = randomKey(r, keyWords, 1500)
				}
				plain, simd := table.FindBulk(keys, false), table.FindBulk(keys, true)
				for i, key := range keys {
					if want, _ := table.Find(key); plain[i] != want || simd[i] != want {
						t.Fatalf("key %x: %d, plain %d, simd %d", key, want, plain[i], simd[i])
					}
				}
			}
		})
	}
}

// TestSweepAgesByState goes once round a table of entries of all states and ages.
func TestSweepAgesByState(t *testing.T) {
	const now, targetIdle, endedIdle = 1_800_000_000_000, 1000, 100
	for _, keyWords := range []int{1, 3} {
		table, err := NewTable(1000, 90, keyWords, 7)
		if err != nil {
			t.Fatal(err)
		}
		defer table.Free()
		keep := map[[3]uint64]uint64{}
		gone, ask := 0, 0
		for i := range uint64(900) {
			key := [3]uint64{i<<16 | 1, i, i<<16 | 1}
			ages := []uint64{0, 99, 100, 100 + IdleGrace, 999, 1000, 999 + IdleGrace, 1000 + IdleGrace, 30_000}
			state, idle, ended := int(i%4), ages[i/4%uint64(len(ages))], i/36%2 == 1
			value := Value(state, uint32(i), uint32(i), now-idle*1000, ended)
			if !table.Insert(key, value) {
				t.Fatal("full")
			}
			limit := uint64(targetIdle)
			if ended {
				limit = endedIdle
			}
			if state >= StateTarget && idle >= limit+IdleGrace {
				gone++
				continue
			} else if state >= StateTarget && idle >= limit {
				ask++
			}
			if keyWords == 1 {
				key[1], key[2] = 0, 0
			}
			keep[key] = value
		}
		asked, removed := 0, 0
		for range table.Buckets() {
			a, r := table.Sweep(1, targetIdle, endedIdle, now)
			asked, removed = asked+a, removed+r
		}
		if removed != gone || gone == 0 || asked != ask || ask == 0 {
			t.Errorf("%d words: asked about %d, removed %d; want %d and %d", keyWords, asked, removed, ask, gone)
		}
		checkScan(t, table, keep)
		if a, r := table.Sweep(table.Buckets(), 0, 0, now+3_600_000); a+r != 0 {
			t.Errorf("asked about %d, removed %d although nothing ages", a, r)
		}
	}
}

// TestTenMillionFlowsTakeHalfAGigabyte computes the memory: nothing of it is touched.
func TestTenMillionFlowsTakeHalfAGigabyte(t *testing.T) {
	table, err := NewTable(10_000_000, TablePercent, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Free()
	if b := table.Bytes(); b > 512<<20 || b < 10_000_000*16 {
		t.Errorf("%d MiB, want at most 512", b>>20)
	}
}

func TestTableFillsToItsLimit(t *testing.T) {
	for _, keyWords := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d words", keyWords), func(t *testing.T) {
			const entries = 1_000_000
			table, err := NewTable(entries, TablePercent, keyWords, 42)
			if err != nil {
				t.Fatal(err)
			}
			defer table.Free()
			for i := range uint64(entries) {
				if !table.Insert([3]uint64{i<<16 | 1, i >> 3, i<<16 | 1}, i) {
					t.Fatalf("full at %d of %d", i, entries)
				}
			}
			if table.Insert([3]uint64{1 << 60, 0, 1 << 60}, 0) {
				t.Error("went over its limit")
			}
		})
	}
}

// TestSnapshotsSeeNoTornEntry writes, moves and deletes entries whose value is a function of their key while readers
// scan: they must never see a key with the value of another.
func TestSnapshotsSeeNoTornEntry(t *testing.T) {
	for _, keyWords := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d words", keyWords), func(t *testing.T) {
			table, err := NewTable(500, 85, keyWords, 3)
			if err != nil {
				t.Fatal(err)
			}
			defer table.Free()
			var stop atomic.Bool
			var readers sync.WaitGroup
			for range 2 {
				readers.Go(func() { scanUntil(t, table, &stop) })
			}
			churn(table, keyWords)
			stop.Store(true)
			readers.Wait()
		})
	}
}

// valueOf is the value that a key must have in this test.
func valueOf(key [3]uint64) uint64 { return key[0]*3 + key[1]*5 + key[2]*7 + 1 }

func churn(table Table, keyWords int) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300_000 {
		key := randomKey(r, keyWords, 600)
		if !table.Remove(key) {
			table.Insert(key, valueOf(key))
		}
	}
}

func scanUntil(t *testing.T, table Table, stop *atomic.Bool) {
	var bucket [4]Entry
	for !stop.Load() {
		for b := range table.Buckets() {
			for _, e := range bucket[:table.Read(b, &bucket)] {
				if e.Value != valueOf(e.Key) {
					t.Errorf("key %x with value %d", e.Key, e.Value)
					return
				}
			}
		}
	}
}

func BenchmarkTable(b *testing.B) {
	table, err := NewTable(1_000_000, TablePercent, 1, 1)
	if err != nil {
		b.Fatal(err)
	}
	defer table.Free()
	var n uint64
	b.ReportAllocs()
	for b.Loop() { // two calls each: compare, do not quote
		if key := [3]uint64{(n%900_000 + 1) << 16}; !table.Remove(key) {
			table.Insert(key, n)
		}
		n++
	}
}

// TestSanitizedDriverCompiles keeps what make tsan runs in step with baton.h.
func TestSanitizedDriverCompiles(t *testing.T) {
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("no gcc")
	}
	out, err := exec.Command(gcc, "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "testdata/tsan.c").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
