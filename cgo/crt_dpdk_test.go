//go:build dpdk

package cgo

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
)

// Numbers of TestTableAgreesWithRteHash.
const (
	rivalEntries = 3000
	rivalSteps   = 60_000
	rivalIdle    = 1000 // s
	rivalEnded   = 100  // s
)

// TestTableAgreesWithRteHash does the same to the CRT and to DPDK's rte_hash, at random: bulk look-ups, insertions, other
// owners, removals, and what ages. Both must answer alike all the time, whatever code looks up. DPDK starts once per
// process, so this is one test.
func TestTableAgreesWithRteHash(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("DPDK needs root")
	}
	if err := StartEAL([]string{"test", "--log-level=error", "--no-telemetry", "--iova-mode=va", "--lcores", "0@(0)",
		"--no-huge", "--no-shconf", "-m", "64", "--no-pci"}); err != nil {
		t.Fatal(err)
	}
	for _, keyWords := range []int{1, 3} {
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("%d words, seed %d", keyWords, seed), func(t *testing.T) {
				table, err := NewTable(rivalEntries, TablePercent, keyWords, seed)
				if err != nil {
					t.Fatal(err)
				}
				defer table.Free()
				if err := OpenRival(2*rivalEntries, keyWords); err != nil {
					t.Fatal(err)
				}
				defer func() { _ = OpenRival(0, keyWords) }() // always possible
				p := pair{t: t, r: rand.New(rand.NewPCG(seed, 7)), table: table, keyWords: keyWords, now: 1_800_000_000_000}
				for range rivalSteps {
					p.step()
				}
				if p.full == 0 || p.aged == 0 || table.Displaced() == 0 {
					t.Errorf("full %d times, %d aged, %d moved: want some of each", p.full, p.aged, table.Displaced())
				}
			})
		}
	}
}

// pair is a CRT and an rte_hash that should have the same entries.
type pair struct {
	t        *testing.T
	r        *rand.Rand
	table    Table
	keyWords int
	now      uint64 // ms
	full     int    // insertions that the CRT refused
	aged     int
}

func (p *pair) step() {
	p.now += uint64(p.r.IntN(50))
	key := randomKey(p.r, p.keyWords, rivalEntries*3/2)
	value := Value(StateTarget, uint32(1+p.r.IntN(9)), p.r.Uint32(), p.now, p.r.IntN(8) == 0)
	_, there := p.table.Find(key)
	switch {
	case p.r.IntN(rivalSteps/20) == 0:
		p.age()
	case there && p.r.IntN(4) == 0:
		p.table.Remove(key)
		RivalRemove(key)
	case there:
		p.table.Update(key, value)
		p.rivalInsert(key, value)
	case p.table.Insert(key, value):
		p.rivalInsert(key, value)
	default:
		p.full++
		if used := p.table.Used(); used != rivalEntries {
			p.t.Fatalf("refused at %d of %d entries", used, rivalEntries)
		}
	}
	p.compare(key)
}

func (p *pair) rivalInsert(key [3]uint64, value uint64) {
	if err := RivalInsert(key, value); err != nil {
		p.t.Fatal(err)
	}
}

// age sweeps the table once round, and removes from the rival what it should have removed.
func (p *pair) age() {
	_, removed := p.table.Sweep(p.table.Buckets(), rivalIdle, rivalEnded, p.now)
	var old [][3]uint64
	for e := range RivalEntries() {
		limit := uint16(rivalIdle)
		if e.Ended() {
			limit = rivalEnded
		}
		if idle := (uint16(p.now/1000) - e.Second()) & 0x7fff; idle >= limit+IdleGrace {
			old = append(old, e.Key)
		}
	}
	for _, key := range old {
		RivalRemove(key)
	}
	if removed != len(old) {
		p.t.Fatalf("%d aged, want %d", removed, len(old))
	}
	p.aged += removed
	checkScan(p.t, p.table, p.rivalMap())
}

func (p *pair) rivalMap() map[[3]uint64]uint64 {
	m := map[[3]uint64]uint64{}
	for e := range RivalEntries() {
		m[e.Key] = e.Value
	}
	return m
}

// compare looks up a burst of keys, the given one among them.
func (p *pair) compare(key [3]uint64) {
	keys := [][3]uint64{key}
	for range p.r.IntN(BurstMax) {
		keys = append(keys, randomKey(p.r, p.keyWords, rivalEntries*3/2))
	}
	want := RivalFind(keys)
	for _, simd := range []bool{false, true} {
		for i, got := range p.table.FindBulk(keys, simd) {
			if got != want[i] {
				p.t.Fatalf("key %x: %x, rte_hash has %x (simd %t)", keys[i], got, want[i], simd)
			}
		}
	}
}
