// Run runs schedules of the simulation: many seeds, or one seed with its transcript.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"baton/control/sim"
)

func main() {
	seed := flag.Int64("seed", -1, "print the transcript of this seed")
	seeds := flag.Uint64("seeds", 2000, "run so many seeds")
	from := flag.Uint64("from", 1, "the first of them")
	most := flag.Int("violations", 5, "stop after so many violations")
	flag.Parse()
	if *seed >= 0 {
		replay(uint64(*seed))
		return
	}
	totals := many(*from, *seeds, *most)
	totals.Print(os.Stdout)
	for _, v := range totals.Violations {
		fmt.Println(v)
	}
	thin := totals.Thin()
	for _, lack := range thin {
		fmt.Println(lack)
	}
	if n := len(totals.Violations); n+len(thin) > 0 {
		fmt.Printf("sim failed: %d schedules, %d transfers, %d violations\n", totals.Schedules, totals.Transfers, n)
		os.Exit(1)
	}
	fmt.Printf("sim ok: %d schedules, %d transfers, 0 violations\n", totals.Schedules, totals.Transfers)
}

// replay prints what happens with one seed.
func replay(seed uint64) {
	if r := sim.Run(sim.PlanFor(seed), os.Stdout); r.Violation != nil {
		fmt.Println(r.Violation)
		os.Exit(1)
	}
}

// many runs n seeds on all CPUs, and reports progress to standard error.
func many(from, n uint64, most int) *sim.Totals {
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		totals sim.Totals
		next   = from
		said   = time.Now()
	)
	take := func() (uint64, bool) {
		mu.Lock()
		defer mu.Unlock()
		if next == from+n || len(totals.Violations) >= most {
			return 0, false
		}
		next++
		return next - 1, true
	}
	add := func(r sim.Result) {
		mu.Lock()
		defer mu.Unlock()
		totals.Add(r)
		if time.Since(said) > 10*time.Second {
			said = time.Now()
			fmt.Fprintf(os.Stderr, "%d of %d schedules, %d violations\n", totals.Schedules, n, len(totals.Violations))
		}
	}
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for seed, ok := take(); ok; seed, ok = take() {
				add(sim.Run(sim.PlanFor(seed), nil))
			}
		})
	}
	wg.Wait()
	return &totals
}
