package sim

import (
	"container/heap"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"time"
)

// start is when every schedule begins. It lies in the future, because the forwarder's clock begins with the wall's and
// never goes back.
var start = time.Date(2050, 1, 1, 0, 0, 20, 0, time.UTC)

// Bounds of a schedule.
const (
	maxEvents  = 200_000           // of one schedule; more is a storm
	settle     = 330 * time.Second // after the end of the faults, all clients must be through
	quiet      = 400 * time.Second // after that, nothing may be left
	upkeep     = time.Second       // between two looks of idle loops at their timers
	recoverMax = 10                // octets of a stack in a violation, KiB
)

// Violation is what a checker found.
type Violation struct {
	Seed uint64
	Step int // number of the event
	At   time.Duration
	Text string
}

// Error tells the violation and how to see it again.
func (v *Violation) Error() string {
	return fmt.Sprintf("seed %d, step %d, at %v: %s\nreplay: make sim SEED=%d", v.Seed, v.Step, v.At, v.Text, v.Seed)
}

// world is everything of one schedule: one thread, one clock, one source of chance.
type world struct {
	plan    *Plan
	rng     *rand.Rand
	now     time.Time
	steps   int // events that were handled
	upkeeps int // of which only looked at timers
	queue   events
	serial  uint64
	healed  bool

	host    *host
	targets []*target
	clients []*client
	judge   *judge
	passed  [points]int // how often each point was passed
	tally   Tally

	out    io.Writer // transcript; nil: none
	failed *Violation
}

// Result is what one schedule came to.
type Result struct {
	Events    int
	Tally     Tally
	Violation *Violation // nil: none
}

// Run runs one schedule to its end. The transcript, if asked for, has a line for each thing that happened.
func Run(plan *Plan, transcript io.Writer) (result Result) {
	w := &world{plan: plan, rng: rand.New(rand.NewPCG(plan.Seed, 0x6261746f6e)), now: start, out: transcript}
	defer func() {
		if p := recover(); p != nil {
			stack := string(debug.Stack())
			w.fail("panic: %v\n%s", p, stack[:min(len(stack), recoverMax<<10)])
		}
		result = Result{Events: w.steps - w.upkeeps, Tally: w.tally, Violation: w.failed}
	}()
	w.judge = newJudge(w)
	w.open()
	defer w.host.close()
	w.run()
	return result
}

// open builds the world of the plan.
func (w *world) open() {
	w.host = newHost(w)
	for i := range w.plan.Targets {
		w.targets = append(w.targets, newTarget(w, i))
	}
	for i := range w.plan.Clients {
		w.clients = append(w.clients, newClient(w, i))
	}
	for _, a := range w.plan.Acts {
		w.in(a.At, func() { w.act(a) })
	}
	w.in(w.plan.Heal, w.heal)
}

// run handles events until everybody is through and nothing is left, or until something is wrong.
func (w *world) run() {
	deadline := start.Add(w.plan.Heal + settle)
	for !w.clientsDone() && w.failed == nil {
		if w.now.After(deadline) {
			w.stuck()
			return
		}
		w.next()
	}
	deadline = w.now.Add(quiet)
	for look := w.now; w.failed == nil; {
		if w.now.After(look) {
			if w.healed && w.judge.leftover() == "" {
				break
			}
			look = w.now.Add(5 * time.Second)
		}
		if w.now.After(deadline) {
			w.fail("leaked: %s", w.judge.leftover())
		}
		w.next()
	}
	if w.failed == nil {
		w.judge.end()
	}
}

func (w *world) clientsDone() bool {
	for _, c := range w.clients {
		if !c.done() {
			return false
		}
	}
	return true
}

func (w *world) stuck() {
	var who []string
	for _, c := range w.clients {
		if !c.done() {
			who = append(who, c.name+" "+c.state.String())
		}
	}
	w.fail("stuck long after all faults: %s", strings.Join(who, ", "))
}

// next handles the next event, and has the checkers look at what it did.
func (w *world) next() {
	if len(w.queue) == 0 {
		w.fail("nothing will ever happen again")
		return
	}
	e := heap.Pop(&w.queue).(event)
	w.now = e.at
	if w.steps++; w.steps > maxEvents {
		w.fail("more than %d events", maxEvents)
		return
	}
	e.do()
	w.judge.step()
}

// in has do called after d.
func (w *world) in(d time.Duration, do func()) { w.at(w.now.Add(d), do) }

func (w *world) at(at time.Time, do func()) {
	if at.Before(w.now) {
		at = w.now
	}
	w.serial++
	heap.Push(&w.queue, event{at, w.serial, do})
}

// heal ends all faults: what happens from here on is recovery.
func (w *world) heal() {
	w.healed = true
	w.logf("net", "all faults end")
	w.host.resume()
	for _, t := range w.targets {
		t.resume()
		t.stream.heal()
	}
}

// fail notes a violation; the first one counts.
func (w *world) fail(format string, args ...any) {
	if w.failed != nil {
		return
	}
	w.failed = &Violation{w.plan.Seed, w.steps, w.now.Sub(start), fmt.Sprintf(format, args...)}
	w.logf("CHECK", "violation: %s", w.failed.Text)
}

// logf writes a line of the transcript.
func (w *world) logf(who, format string, args ...any) {
	if w.out != nil {
		fmt.Fprintf(w.out, "%12.3f %-6s %s\n", float64(w.now.Sub(start).Microseconds())/1000, who,
			fmt.Sprintf(format, args...))
	}
}

// chance is true with probability p.
func (w *world) chance(p float64) bool { return p > 0 && w.rng.Float64() < p }

// between is a random duration.
func (w *world) between(low, high time.Duration) time.Duration {
	if high <= low {
		return low
	}
	return low + time.Duration(w.rng.Int64N(int64(high-low)))
}

// event is something that happens at a time; of those at the same time, the one that was planned first.
type event struct {
	at     time.Time
	serial uint64
	do     func()
}

type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	if !q[i].at.Equal(q[j].at) {
		return q[i].at.Before(q[j].at)
	}
	return q[i].serial < q[j].serial
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push implements heap.Interface.
func (q *events) Push(x any) { *q = append(*q, x.(event)) }

// Pop implements heap.Interface.
func (q *events) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = event{}
	*q = (*q)[:last]
	return e
}
