package sim

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

var (
	seeds = flag.Int("seeds", 2000, "schedules of TestSchedules; a tenth of them with the race detector")
	base  = flag.Uint64("base", 0, "first seed; 0: from the commit")
)

// firstSeed differs from commit to commit, so that in time many seeds are run, and is the same for one.
func firstSeed(t *testing.T) uint64 {
	t.Helper()
	if *base != 0 {
		return *base
	}
	out, err := exec.Command("git", "rev-parse", "HEAD").Output()
	if err != nil {
		t.Logf("no commit to take seeds from (%v)", err)
		return 1
	}
	b, err := hex.DecodeString(strings.TrimSpace(string(out))[:8])
	if err != nil {
		t.Fatal(err)
	}
	return uint64(binary.BigEndian.Uint32(b))
}

// schedules runs n seeds on all CPUs.
func schedules(from uint64, n int, change func(*Plan)) *Totals {
	var (
		next   atomic.Uint64
		wg     sync.WaitGroup
		mu     sync.Mutex
		totals Totals
	)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				i := next.Add(1) - 1
				if i >= uint64(n) {
					return
				}
				p := PlanFor(from + i)
				if change != nil {
					change(p)
				}
				r := Run(p, nil)
				mu.Lock()
				totals.Add(r)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return &totals
}

func TestSchedules(t *testing.T) {
	n := *seeds
	if raceDetector {
		n /= 10
	}
	from := firstSeed(t)
	totals := schedules(from, n, nil)
	for _, v := range totals.Violations {
		t.Error(v)
	}
	for _, lack := range totals.Thin() {
		t.Error(lack)
	}
	t.Logf("seeds %d to %d: %d transfers", from, from+uint64(n)-1, totals.Transfers)
}

func TestSameSeedSameTranscript(t *testing.T) {
	for seed := range uint64(30) {
		var first, second bytes.Buffer
		Run(PlanFor(seed), &first)
		Run(PlanFor(seed), &second)
		if !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Fatalf("two runs of seed %d differ", seed)
		}
		if first.Len() == 0 {
			t.Fatal("nothing happened")
		}
	}
}

func TestJudgeFindsPlantedBugs(t *testing.T) {
	for _, b := range []bug{ackBack, edgeBack, clockBack, wrongOctet, beyondWindow, unaskedOption, lieInSACK, secondFIN,
		doubleImport, sendsFrozen, wrongSwitch, deafTarget, flowLeak, pinLeak, endLeak, lateOctet, giverGoesOn, backLost} {
		t.Run(string(b), func(t *testing.T) {
			totals := schedules(1, 20, func(p *Plan) { p.bug, p.Give = b, max(p.Give, 0.05) })
			if len(totals.Violations) == 0 {
				t.Fatal("nobody noticed")
			}
			t.Logf("%d of %d schedules: %s", len(totals.Violations), totals.Schedules, totals.Violations[0].Text)
		})
	}
}
