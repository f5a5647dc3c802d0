package router

import (
	"container/heap"
	"time"
)

// timer is one deadline of the event loop. fire runs on the loop, once for each time that it was set.
type timer struct {
	at   time.Time
	slot int // in the heap, from 1; 0 while it is not set
	fire func(now time.Time)
}

// timers are all deadlines of the loop, earliest first. The zero value is ready to use.
type timers struct{ heap timerHeap }

// set makes t fire at that time and no other. The zero time only stops it.
func (ts *timers) set(t *timer, at time.Time) {
	if at.IsZero() {
		ts.stop(t)
		return
	}
	if t.slot == 0 {
		t.at = at
		heap.Push(&ts.heap, t)
		return
	}
	if !t.at.Equal(at) {
		t.at = at
		heap.Fix(&ts.heap, t.slot-1)
	}
}

// stop takes t out. It may be set again.
func (ts *timers) stop(t *timer) {
	if t.slot != 0 {
		heap.Remove(&ts.heap, t.slot-1)
	}
}

// next is the earliest deadline, zero when there is none.
func (ts *timers) next() time.Time {
	if len(ts.heap) == 0 {
		return time.Time{}
	}
	return ts.heap[0].at
}

// run fires the timers that are due by now, at most as many as were set when it began, so it always ends even if each
// of them sets itself again for now. It returns how many it fired.
func (ts *timers) run(now time.Time) int {
	fired := 0
	for limit := len(ts.heap); fired < limit && len(ts.heap) > 0 && !ts.heap[0].at.After(now); fired++ {
		heap.Pop(&ts.heap).(*timer).fire(now)
	}
	return fired
}

type timerHeap []*timer

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].slot, h[j].slot = i+1, j+1
}

// Push implements heap.Interface.
func (h *timerHeap) Push(x any) {
	t := x.(*timer)
	*h = append(*h, t)
	t.slot = len(*h)
}

// Pop implements heap.Interface.
func (h *timerHeap) Pop() any {
	last := len(*h) - 1
	t := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	t.slot = 0
	return t
}
