package sim

import (
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
)

// Fault is a kind of what goes wrong.
type Fault uint8

// The kinds.
const (
	Loss Fault = iota
	Duplicate
	Reorder
	Corrupt
	Delay
	MTU
	Partition
	StreamLost
	HostPaused
	RouterStalled
	ForwarderStalled
	TargetPaused
	AgentCrashed
	TargetCrashed
	RingFull
	MessageRepeated
	BlindSYN
	Forged
	faults
)

var faultNames = [faults]string{"loss", "duplicate", "reorder", "corrupt", "delay", "mtu", "partition", "stream lost",
	"host paused", "router stalled", "forwarder stalled",
	"target paused", "agent crashed", "target crashed", "ring full", "message repeated",
	"blind SYN", "forged segment"}

// Tally counts what happened in a schedule.
type Tally struct {
	Faults    [faults]int
	Transfers map[string]int // by outcome of the attempt
	Conns     map[string]int // by outcome of the connection

	Retransmitted int // segments that clients sent again
}

func (t *Tally) fault(f Fault) { t.Faults[f]++ }

func (t *Tally) transfer(outcome string) {
	if t.Transfers == nil {
		t.Transfers = map[string]int{}
	}
	t.Transfers[outcome]++
}

func (t *Tally) conn(outcome string) {
	if t.Conns == nil {
		t.Conns = map[string]int{}
	}
	t.Conns[outcome]++
}

// Totals add up many schedules.
type Totals struct {
	Schedules, Transfers int
	Violations           []*Violation
	events               []int
	faults               [faults]int // schedules in which it happened
	outcomes             map[string]int
}

// Add adds a schedule.
func (t *Totals) Add(r Result) {
	if t.outcomes == nil {
		t.outcomes = map[string]int{}
	}
	t.Schedules++
	t.Transfers += r.Tally.Transfers[switched]
	t.events = append(t.events, r.Events)
	for f, n := range r.Tally.Faults {
		t.faults[f] += min(n, 1)
	}
	for name := range r.Tally.Transfers {
		t.outcomes["transfer "+name]++
	}
	for name := range r.Tally.Conns {
		t.outcomes["connection "+name]++
	}
	if r.Violation != nil {
		t.Violations = append(t.Violations, r.Violation)
	}
}

// MedianEvents is the median number of events of a schedule.
func (t *Totals) MedianEvents() int {
	if len(t.events) == 0 {
		return 0
	}
	slices.Sort(t.events)
	return t.events[len(t.events)/2]
}

// Rare lists the kinds of fault and outcome that happened in less than the given share of schedules.
func (t *Totals) Rare(share float64) []string {
	var rare []string
	few := func(name string, n int) {
		if float64(n) < share*float64(t.Schedules) {
			rare = append(rare, fmt.Sprintf("%s %d", name, n))
		}
	}
	for f, n := range t.faults {
		few(faultNames[f], n)
	}
	for _, name := range allOutcomes {
		few(name, t.outcomes[name])
	}
	return rare
}

// Thin says what the schedules lack to mean anything: events, or a kind of fault or outcome that hardly happened. Of
// fewer than 2000 schedules, chance alone decides about the latter.
func (t *Totals) Thin() []string {
	var thin []string
	if m := t.MedianEvents(); m < 300 {
		thin = append(thin, fmt.Sprintf("median %d events, want 300", m))
	}
	if rare := t.Rare(0.01); len(rare) > 0 && t.Schedules >= 2000 {
		thin = append(thin, fmt.Sprintf("in less than 1 %% of %d schedules: %s", t.Schedules, strings.Join(rare, ", ")))
	}
	return thin
}

// Print writes in how many schedules each kind of fault and of outcome happened.
func (t *Totals) Print(out io.Writer) {
	share := func(name string, n int) {
		fmt.Fprintf(out, "  %-28s %6d  %5.1f %%\n", name, n, 100*float64(n)/float64(max(t.Schedules, 1)))
	}
	fmt.Fprintf(out, "%d schedules, median %d events; schedules with\n", t.Schedules, t.MedianEvents())
	for f, n := range t.faults {
		share(faultNames[f], n)
	}
	var names []string
	for name := range t.outcomes {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		share(name, t.outcomes[name])
	}
}
