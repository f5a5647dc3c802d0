package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"baton/bench/judge"
	"baton/bench/lab"
)

// Scenario is one claim about Baton and the traffic that shows it.
type Scenario struct {
	Name    string        // as issues, logs and -only know it
	Doc     string        // what it claims, one sentence
	Shape   Shape         // the laboratory that it runs in
	Expect  Expect        // what the capture must show
	Wire    *lab.Wire     // the client's cable, if it is a bad one; what either end sends is judged then
	Timeout time.Duration // of Run and the judgement; 0 is 60 s

	// Run makes the traffic. It fails at the first thing that an application would not expect.
	Run func(*Env) error
	// Check, if any, looks at the judge's report after everything in Expect has held.
	Check func(*Env, judge.Report) error
	// Note, if any, is printed with the result.
	Note func(*Env, judge.Report) string
}

// Shape is what a scenario needs built. Scenarios of equal shapes that follow each other share a laboratory.
type Shape struct {
	Targets   int         // 0 means 2
	Userspace int         // so many of them, the first ones, are in userspace
	Far       bool        // the targets are on another network than the routing host's data port
	Cluster   lab.Cluster // its zero value means lab.TwoSites()
	Server    Server      // on every target; the zero value is nginx
	NoBaton   bool        // neither daemons nor servers are started: Run does it
	Private   bool        // never shared: the scenario leaves hosts in another state
}

// Server starts a target application on a host.
type Server func(*Env, *lab.Host) error

// sharedBy reports whether a laboratory of shape s serves for o too.
func (s Shape) sharedBy(o Shape) bool {
	same := reflect.ValueOf(s.Server).Pointer() == reflect.ValueOf(o.Server).Pointer()
	s.Server, o.Server = nil, nil
	return same && !s.Private && !o.Private && reflect.DeepEqual(s, o)
}

// Expect is what the capture must show. Its zero value is the rule: every rule of the judge holds, no RST, and no
// client retransmits between the freeze and the target's first segment.
type Expect struct {
	Unjudged        bool         // no capture is made
	Allow           []judge.Rule // rules that may be broken
	Resets          int          // exactly this many RSTs; more than 0 allows judge.NoRST
	ClientResets    bool         // clients reset, if they reset anything; how often is not checked, and the service never does
	Retransmissions bool         // retransmissions in the hand-over are reported, not held against it
	Connections     int          // exactly this many established connections; 0 is not checked
	Transferred     int          // exactly this many transferred ones; 0 is not checked, None means none
	Moves           bool         // connections are handed on and back
	Direct          bool         // targets answer the handshake, and nothing is handed over
}

// None is the count of what must not happen, where 0 means "not checked".
const None = -1

// check compares the report with what was expected.
func (x Expect) check(r judge.Report) error {
	var wrong []string
	add := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	for i, v := range r.Violations {
		if i == 3 {
			add("and %d more", len(r.Violations)-3)
			break
		}
		add("%v", v)
	}
	if r.Resets != x.Resets && !x.ClientResets {
		add("%d resets, want %d", r.Resets, x.Resets)
	}
	if n := r.Handover(); n > 0 && !x.Retransmissions {
		add("%d client retransmissions during hand-overs", n)
	}
	counts := func(what string, got, want int) {
		if want != 0 && got != max(want, 0) {
			add("%d %s, want %d", got, what, max(want, 0))
		}
	}
	counts("connections", len(r.Conns), x.Connections)
	counts("transferred connections", r.Transferred(), x.Transferred)
	for _, v := range r.Allowed {
		if x.ClientResets && v.Rule == judge.NoRST && strings.Contains(v.Detail, "from the service") {
			add("%v", v)
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%s", strings.Join(wrong, "; "))
	}
	return nil
}

// allowed lists the rules that may be broken.
func (x Expect) allowed() []judge.Rule {
	if (x.Resets > 0 || x.ClientResets) && !slices.Contains(x.Allow, judge.NoRST) {
		return append(slices.Clone(x.Allow), judge.NoRST)
	}
	return x.Allow
}

// scenarios holds all scenarios.
var scenarios = slices.Concat(
	httpScenarios,
	optionScenarios,
	reuseScenarios,
	moveScenarios,
	crtScenarios,
	loadScenarios,
	bulkScenarios,
	targetScenarios,
	operatorScenarios,
	agentScenarios,
	xcfScenarios,
	hostScenarios,
	lcoreScenarios,
	demoScenarios,
	floodScenarios,
	tunnelScenarios,
	externalScenarios,
	appScenarios,
	giveScenarios,
	tlsScenarios,
	storeScenarios,
	refuseScenarios,
	lockstepScenarios,
	passwordScenarios,
	wireScenarios,
	lossScenarios,
	userspaceScenarios,
	tcpScenarios,
	freezeScenarios,
	firstScenarios,
	balanceScenarios,
)

// grouped puts scenarios that can share a laboratory next to each other, and keeps their order otherwise.
func grouped(list []Scenario) []Scenario {
	var groups [][]Scenario
	for _, s := range list {
		i := slices.IndexFunc(groups, func(g []Scenario) bool { return g[0].Shape.sharedBy(s.Shape) })
		if i < 0 {
			i = len(groups)
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], s)
	}
	return slices.Concat(groups...)
}
