package timer

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestTimersFireInOrderAndOnce(t *testing.T) {
	var ts Queue
	start := time.Unix(0, 0)
	var fired []int
	all := make([]Timer, 100)
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(len(all)) {
		all[i].Fire = func(time.Time) { fired = append(fired, i) }
		ts.Set(&all[i], start.Add(time.Hour))
		ts.Set(&all[i], start.Add(time.Duration(i)*time.Second)) // moved
	}
	ts.Stop(&all[50])
	ts.Stop(&all[50])
	ts.Set(&all[51], time.Time{})
	if n := ts.Run(start.Add(60 * time.Second)); n != 59 || !slices.IsSorted(fired) || slices.Contains(fired, 50) {
		t.Errorf("fired %d: %v", n, fired)
	}
	if n := ts.Run(start.Add(60 * time.Second)); n != 0 {
		t.Errorf("fired %d again", n)
	}
	if next := ts.Next(); !next.Equal(start.Add(61 * time.Second)) {
		t.Errorf("next %v, want 61 s", next)
	}
}

func TestTimerStoppedByAnotherDoesNotFire(t *testing.T) {
	var ts Queue
	var second Timer
	second.Fire = func(time.Time) { t.Error("a stopped timer fired") }
	first := Timer{Fire: func(time.Time) { ts.Stop(&second) }}
	now := time.Unix(1, 0)
	ts.Set(&first, now)
	ts.Set(&second, now.Add(time.Nanosecond))
	ts.Run(now.Add(time.Second))
}

func TestTimerThatSetsItselfForNowDoesNotKeepTheLoop(t *testing.T) {
	var ts Queue
	now := time.Unix(1, 0)
	var again Timer
	again.Fire = func(time.Time) { ts.Set(&again, now) }
	ts.Set(&again, now)
	if n := ts.Run(now); n != 1 {
		t.Errorf("fired %d times in one run", n)
	}
}
