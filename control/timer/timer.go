// Package timer has the deadlines of an event loop. Its central type is Queue: all of them, the earliest first. It has no
// clock and no goroutine: the loop asks for the next deadline and says what time it is. For one goroutine.
package timer

import (
	"container/heap"
	"time"
)

// Timer is one deadline. Fire runs on the loop, once for each time that it was set.
type Timer struct {
	Fire func(now time.Time)

	at   time.Time
	slot int // in the heap, from 1; 0 while it is not set
}

// Queue is all deadlines of a loop, earliest first. The zero value is ready to use.
type Queue struct{ heap timerHeap }

// Set makes t fire at that time and no other. The zero time only stops it.
func (q *Queue) Set(t *Timer, at time.Time) {
	if at.IsZero() {
		q.Stop(t)
		return
	}
	if t.slot == 0 {
		t.at = at
		heap.Push(&q.heap, t)
		return
	}
	if !t.at.Equal(at) {
		t.at = at
		heap.Fix(&q.heap, t.slot-1)
	}
}

// Stop takes t out. It may be set again.
func (q *Queue) Stop(t *Timer) {
	if t.slot != 0 {
		heap.Remove(&q.heap, t.slot-1)
	}
}

// Next is the earliest deadline, zero when there is none.
func (q *Queue) Next() time.Time {
	if len(q.heap) == 0 {
		return time.Time{}
	}
	return q.heap[0].at
}

// Run fires the timers that are due by now, at most as many as were set when it began, so it always ends even if each
// of them sets itself again for now. It returns how many it fired.
func (q *Queue) Run(now time.Time) int {
	fired := 0
	for limit := len(q.heap); fired < limit && len(q.heap) > 0 && !q.heap[0].at.After(now); fired++ {
		heap.Pop(&q.heap).(*Timer).Fire(now)
	}
	return fired
}

type timerHeap []*Timer

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].slot, h[j].slot = i+1, j+1
}

// Push implements heap.Interface.
func (h *timerHeap) Push(x any) {
	t := x.(*Timer)
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
