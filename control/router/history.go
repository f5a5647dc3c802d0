package router

import (
	"time"

	"baton/fastpath/wire"
)

// Phase is a part of a transfer, named after the moment at which it ends.
type Phase int

// The phases. Frozen and Accepted run side by side; in the first attempt both count from the decision.
const (
	Frozen    Phase = iota // decision -> the lcore has frozen the flow
	Accepted               // offer -> the target has accepted it
	Confirmed              // both of them -> the target has confirmed the commit
	Switched               // confirmed -> the lcore has switched the entry
	phases
)

// String is the phase's name in metrics and tables.
func (p Phase) String() string {
	return [phases]string{"frozen", "accepted", "confirmed", "switched"}[p]
}

// Attempt is one attempt to hand a connection to a target, after it ended.
type Attempt struct {
	Time    time.Time // of the decision
	Inc     wire.Incarnation
	Job     string
	Target  string
	Outcome string
	Reason  string                // why not, or what went wrong on the way
	Bytes   int                   // octets that the target had to read; 0 when it did not come to a commit
	Held    int                   // packets flushed to the target
	Phases  [phases]time.Duration // 0: not reached
	Total   time.Duration
}

// history keeps the last attempts in a ring. Written and read by the loop only.
type history struct {
	ring []Attempt
	next int
	full bool
}

func newHistory(size int) history { return history{ring: make([]Attempt, size)} }

func (h *history) add(a Attempt) {
	h.ring[h.next] = a
	if h.next++; h.next == len(h.ring) {
		h.next, h.full = 0, true
	}
}

// recent copies the attempts, newest first.
func (h *history) recent() []Attempt {
	n := h.next
	if h.full {
		n = len(h.ring)
	}
	all := make([]Attempt, 0, n)
	for i := range n {
		all = append(all, h.ring[(h.next-1-i+len(h.ring))%len(h.ring)])
	}
	return all
}
