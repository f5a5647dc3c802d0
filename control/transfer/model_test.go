package transfer

import (
	"container/heap"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// This file checks the protocol by going through all states that a Giver, its Takers, the network between them and the way
// of the client's octets (model_path_test.go) can reach together, with the real machines.
//
// The network is a set of messages that only grows: each message that was ever sent may be delivered at any time, any
// number of times, or never. That covers loss, repetition, reordering and delay without bound at once. Clocks are not
// related to each other: whatever has a deadline may be told at any time that it has passed. Streams are lost and come
// back as the Giver hears it at any time; a Taker may restart, which ends the messages of its streams and leaves it
// with the flows that live, an import that was running either done or not. What is left out is forgetting:
// Limits.Remember is longer than messages live.

// routingHost is the Giver's host in the model.
const routingHost = "rh"

// packet is a message on its way.
type packet struct {
	from, to string
	message  Message
}

// post gives each distinct message a bit, so that a network is one number.
type post struct {
	packets []packet
	bit     map[string]int
}

func (p *post) set(k packet) uint64 {
	name := k.from + k.to + describeMessage(k.message) + continues(k.message)
	i, known := p.bit[name]
	if !known {
		i = len(p.packets)
		if i == 64 {
			panic("more than 64 messages: " + name)
		}
		p.bit[name] = i
		p.packets = append(p.packets, k)
	}
	return 1 << i
}

// continues tells messages apart that say where the record ends.
func continues(m Message) string {
	switch m := m.(type) {
	case Commit:
		return string(m.Record)
	case Assign:
		return string(m.Record)
	case Confirm:
		return fmt.Sprint(m.RcvNxt)
	case QueryReply:
		return fmt.Sprint(m.RcvNxt)
	}
	return ""
}

// world is a state of everything. All times in it are relative to t0: it is always t0, and deadlines come nearer only
// by Timeouts. Worlds share the machines that a step leaves alone, so a machine in a world never changes.
type world struct {
	giver    *Giver
	targets  []target // by index in model.hosts
	net      uint64
	path     path
	restarts int           // left
	before   *world        // the world that this one was reached from
	how      func() string // by what; for the report only
}

// interned is a Taker that stands for all that have its key.
type interned struct {
	*Taker
	key string
}

// target is a Taker, and the connections that its host has made.
type target struct {
	*interned
	imports int
	octet   bool // the connection has the last octet of the client's stream
}

// model explores worlds.
type model struct {
	hosts []string
	data  bool // the client sends, and the lcore takes its time
	bug   modelBug
	wrong string // the first thing that is, and how it came to be
	post  post
	seen  map[string]bool
	queue []*world
	ended map[string]int // worlds by the Giver's final state and whether the connection was made
	drain map[string]bool
	known map[string]*interned
	moves map[move]moved // what is known of Takers' steps
}

// move is an event at a Taker: what is the packet's number, an expiry, or the event itself.
type move struct {
	host  int
	taker *interned
	what  any
}

// expiry lets the deadline of a transfer pass.
type expiry struct{ transfer ID }

// moved is what a move makes of the Taker, and what it sends.
type moved struct {
	taker *interned
	sends uint64
}

func newModel(data bool, restarts int, unconditional bool, candidates ...string) *model {
	g := give()
	g.Unconditional = unconditional
	g.Candidates = candidates
	g.Timeouts = Timeouts{Offer: 1, Freeze: 1, Confirm: 1, Query: 1, GiveUp: 2}
	m := &model{data: data, hosts: slices.Compact(slices.Clone(candidates)), post: post{bit: map[string]int{}},
		seen: map[string]bool{}, ended: map[string]int{}, drain: map[string]bool{},
		known: map[string]*interned{}, moves: map[move]moved{}}
	w := &world{giver: NewGiver(g), targets: make([]target, len(m.hosts)), restarts: restarts}
	for i := range m.hosts {
		w.targets[i] = target{interned: m.intern(newModelTaker(nil, nil))}
	}
	m.visit(w)
	return m
}

// intern returns the Taker that stands for all that are like this one.
func (m *model) intern(taker *Taker) *interned {
	k := takerKey(taker)
	if m.known[k] == nil {
		m.known[k] = &interned{taker, k}
	}
	return m.known[k]
}

func newModelTaker(live, ended []Flow) *Taker {
	taker := NewTaker(DefaultLimits(), live, ended, t0)
	taker.Step(PeerUp{routingHost}, t0)
	return taker
}

// run explores until nothing is new.
func (m *model) run() {
	for len(m.queue) > 0 && m.wrong == "" {
		w := m.queue[0]
		m.queue[0] = nil
		m.queue = m.queue[1:]
		m.explore(w)
	}
}

// explore visits all successors of w.
func (m *model) explore(w *world) {
	m.giverEvents(w)
	m.pathEvents(w)
	for i, p := range m.post.packets {
		if w.net&(1<<i) != 0 {
			m.deliver(w, i, p)
		}
	}
	for i := range w.targets {
		m.takerEvents(w, i)
	}
}

// giverEvents are the events that the Giver's own host makes.
func (m *model) giverEvents(w *world) {
	if w.giver.State() == GiverIdle {
		m.stepGiver(w, Start{})
	}
	m.stepGiver(w, Cancel{})
	if !w.giver.Deadline().IsZero() {
		m.stepGiver(w, Timeout{})
	}
	for _, host := range m.hosts {
		m.stepGiver(w, PeerLost{host})
		m.stepGiver(w, PeerUp{host})
	}
}

func (m *model) deliver(w *world, number int, p packet) {
	if p.to == routingHost {
		m.stepGiver(w, Received{p.from, p.message})
	} else {
		m.stepTaker(w, slices.Index(m.hosts, p.to), number)
	}
}

// takerEvents are the events that a target host makes.
func (m *model) takerEvents(w *world, host int) {
	for _, e := range entriesOf(w.targets[host].Taker) {
		id := e.flow.Transfer
		switch e.state {
		case takerChecking:
			m.stepTaker(w, host, Checked{Host: routingHost, Transfer: id})
			m.stepTaker(w, host, Checked{Host: routingHost, Transfer: id, Reason: ReasonHost})
			m.stepTaker(w, host, expiry{id})
		case takerReserved:
			m.stepTaker(w, host, expiry{id})
		case takerImporting:
			m.stepTaker(w, host, Imported{Host: routingHost, Transfer: id, RcvNxt: w.giver.rcvNxt})
			m.stepTaker(w, host, NotImported{Host: routingHost, Transfer: id, Reason: ReasonImport})
			m.stepTaker(w, host, expiry{id})
		case takerLive:
			m.stepTaker(w, host, Ended{e.flow.Inc})
		case takerEnded, takerLeft, takerRefused, takerGone:
		}
	}
	if w.restarts > 0 {
		m.restart(w, host, false)
		m.restart(w, host, true)
	}
}

// restart kills a target's agent, and its streams with what is on them. done says what became of an import that was
// running.
func (m *model) restart(w *world, host int, done bool) {
	made := 0
	var live, ended []Flow
	for _, e := range entriesOf(w.targets[host].Taker) {
		flow := e.flow
		flow.Host, flow.Transfer = "", 0 // not kept outside the agent
		switch {
		case e.state == takerImporting && done:
			made++
			live = append(live, flow)
		case e.state == takerLive:
			live = append(live, flow)
		case e.state == takerEnded:
			ended = append(ended, flow)
		}
	}
	next := *w
	next.restarts--
	next.targets = slices.Clone(w.targets)
	next.targets[host] = target{m.intern(newModelTaker(live, ended)), w.targets[host].imports + made,
		w.targets[host].octet || made > 0 && w.recorded()}
	for i, p := range m.post.packets {
		if p.from == m.hosts[host] || p.to == m.hosts[host] {
			next.net &^= 1 << i
		}
	}
	next.before = w
	next.how = func() string { return fmt.Sprintf("%s: restart, running import done: %v", m.hosts[host], done) }
	m.visit(&next)
}

// stepGiver visits what w becomes by an event at the Giver.
func (m *model) stepGiver(w *world, e Event) {
	copied := *w.giver
	copied.actions = nil
	g, next, now := &copied, *w, t0
	next.giver, next.before = g, w
	if _, ok := e.(Timeout); ok {
		now = g.Deadline()
	}
	actions := g.Step(e, now)
	shift(&g.deadline, now)
	shift(&g.giveUp, now)
	next.how = func() string { return fmt.Sprintf("%s: %s -> %s", routingHost, describeEvent(e), g.State()) }
	for _, a := range actions {
		switch a := a.(type) {
		case Send:
			next.net |= m.post.set(packet{routingHost, a.Host, a.Message})
		case Fault:
			m.fail(&next, "fault: "+a.Detail)
		case Abort:
			if s := w.giver.State(); a.Reset != (s == GiverQuerying) {
				m.fail(&next, fmt.Sprintf("abort in state %s, reset %t", s, a.Reset))
			}
			next.path.command(m.order(a))
		default:
			next.path.command(m.order(a))
		}
	}
	next.path.read(e)
	if !m.data {
		next.obey()
	}
	m.checkReturn(&next, w.giver.State(), e)
	m.visit(&next)
}

// shift moves a time so that now becomes t0.
func shift(t *time.Time, now time.Time) {
	if !t.IsZero() {
		*t = t.Add(t0.Sub(now))
	}
}

// checkReturn: after the commit the Giver owns the connection again only by the target's word.
func (m *model) checkReturn(next *world, before GiverState, e Event) {
	if before.Owns() || !next.giver.State().Owns() {
		return
	}
	if r, ok := e.(Received); ok {
		switch answer := r.Message.(type) {
		case Confirm:
			if !answer.Imported {
				return
			}
		case QueryReply:
			if answer.State == FlowUnknown {
				return
			}
		}
	}
	m.fail(next, "the giver took the connection back by itself")
}

// stepTaker visits what w becomes by a move at a Taker.
func (m *model) stepTaker(w *world, host int, what any) {
	mv := move{host, w.targets[host].interned, what}
	after, known := m.moves[mv]
	if !known {
		after = m.step(mv)
		m.moves[mv] = after
	}
	made := 0
	if _, ok := what.(Imported); ok {
		made = 1
	}
	next := *w
	next.net |= after.sends
	next.targets = slices.Clone(w.targets)
	next.targets[host] = target{after.taker, w.targets[host].imports + made, w.targets[host].octet || made > 0 && w.recorded()}
	next.before = w
	next.how = func() string { return m.hosts[host] + ": " + m.describeMove(what) }
	m.visit(&next)
}

// step makes a move with a copy of the Taker.
func (m *model) step(mv move) moved {
	taker := mv.taker.clone()
	var e Event
	switch what := mv.what.(type) {
	case int:
		p := m.post.packets[what]
		e = Received{p.from, p.message}
	case expiry:
		due := taker.byKey[key{routingHost, what.transfer}]
		due.deadline = t0
		heap.Fix(&taker.waiting, due.place)
		e = Timeout{}
	case Event:
		e = what
	}
	var after moved
	for _, a := range taker.Step(e, t0) {
		if s, ok := a.(Send); ok {
			after.sends |= m.post.set(packet{m.hosts[mv.host], s.Host, s.Message})
		}
	}
	after.taker = m.intern(taker)
	return after
}

func (m *model) describeMove(what any) string {
	switch what := what.(type) {
	case int:
		p := m.post.packets[what]
		return "gets " + describeMessage(p.message) + " of " + p.from
	case Event:
		return describeEvent(what)
	}
	return fmt.Sprintf("deadline of %+v", what)
}

// visit checks a world and queues it if it is new.
func (m *model) visit(w *world) {
	k := w.key()
	if m.seen[k] {
		return
	}
	m.seen[k] = true
	m.checkOwner(w)
	m.checkDeadlines(w)
	m.checkEnd(w)
	m.checkOctet(w)
	m.checkWay(w)
	if w.giver.State().Final() {
		m.ended[fmt.Sprintf("%s, made %d", w.giver.State(), w.made())]++
	}
	m.queue = append(m.queue, w)
}

// made is how many times the connection was made at a target.
func (w *world) made() int {
	n := 0
	for _, target := range w.targets {
		n += target.imports
	}
	return n
}

// checkOwner: never two owners. A connection that is being made counts, and one that was, for ever: its bytes were
// read.
func (m *model) checkOwner(w *world) {
	owners := w.made()
	for _, target := range w.targets {
		_, importing, _, _ := target.Counts()
		owners += importing
	}
	if w.giver.State().Owns() {
		owners++
	}
	if owners > 1 {
		m.fail(w, fmt.Sprintf("%d owners", owners))
	}
	if w.giver.State() == GiverSwitched && w.made() != 1 {
		m.fail(w, "switched to a target that has nothing")
	}
}

// checkDeadlines: nothing waits for ever.
func (m *model) checkDeadlines(w *world) {
	if s := w.giver.State(); w.giver.Deadline().IsZero() && s != GiverIdle && !s.Final() {
		m.fail(w, "the giver waits without a deadline in "+s.String())
	}
	for _, target := range w.targets {
		for _, e := range entriesOf(target.Taker) {
			if e.deadline.IsZero() && e.state != takerLive {
				m.fail(w, "a taker waits without a deadline in "+e.state.String())
			}
		}
	}
}

// checkEnd: if nothing happens but timeouts, and importers that stop when told to, each machine comes to its end.
func (m *model) checkEnd(w *world) {
	if k := giverKey(w.giver); !m.drain[k] && w.giver.State() != GiverIdle {
		m.drain[k] = true
		g := *w.giver
		g.actions = nil
		for steps := 0; !g.State().Final(); steps++ {
			if steps == 50 {
				m.fail(w, "the giver does not end")
				break
			}
			g.Step(Timeout{}, g.Deadline())
		}
	}
	for i, target := range w.targets {
		if !m.drain[target.key] {
			m.drain[target.key] = true
			if !drains(target.clone()) {
				m.fail(w, m.hosts[i]+" does not end")
			}
		}
	}
}

// drains reports whether timeouts alone end all that waits in a Taker.
func drains(taker *Taker) bool {
	for range 50 {
		if len(taker.waiting) == 0 {
			return true
		}
		for _, a := range slices.Clone(taker.Step(Timeout{}, taker.waiting[0].deadline)) {
			if stop, ok := a.(StopImport); ok {
				taker.Step(NotImported{Host: stop.Host, Transfer: stop.Transfer}, t0)
			}
		}
	}
	return false
}

func (m *model) fail(w *world, what string) {
	if m.wrong != "" {
		return
	}
	var path []string
	for ; w.before != nil; w = w.before {
		path = append(path, w.how())
	}
	slices.Reverse(path)
	m.wrong = fmt.Sprintf("%s, after:\n  %s", what, strings.Join(path, "\n  "))
}

// clone copies a Taker.
func (t *Taker) clone() *Taker {
	copies := map[*entry]*entry{}
	all := func(entries []*entry) []*entry {
		var list []*entry
		for _, e := range entries {
			if copies[e] == nil {
				c := *e
				copies[e] = &c
			}
			list = append(list, copies[e])
		}
		return list
	}
	next := &Taker{limits: t.limits, count: t.count, epochs: maps.Clone(t.epochs), up: maps.Clone(t.up),
		byKey: map[key]*entry{}, byTuple: maps.Clone(t.byTuple), waiting: all(t.waiting), past: all(t.past)}
	for k, e := range t.byKey {
		next.byKey[k] = all([]*entry{e})[0]
	}
	for tuple, entries := range next.byTuple {
		next.byTuple[tuple] = all(entries)
	}
	return next
}

// entriesOf returns a Taker's entries, each once, in the order of their transfers.
func entriesOf(t *Taker) []*entry {
	var all []*entry
	for _, e := range t.byKey {
		all = append(all, e)
	}
	for _, entries := range t.byTuple {
		for _, e := range entries {
			if e.flow.Transfer == 0 {
				all = append(all, e)
			}
		}
	}
	slices.SortFunc(all, func(a, b *entry) int { return int(a.flow.Transfer) - int(b.flow.Transfer) })
	return all
}

// key is equal for worlds that go on alike.
func (w *world) key() string {
	b := []byte(giverKey(w.giver))
	b = binary.BigEndian.AppendUint64(b, w.net)
	b = append(append(b, byte(w.restarts)), w.path.key()...)
	for _, target := range w.targets {
		b = append(b, byte(target.imports), bit(target.octet))
		b = append(b, target.key...)
	}
	return string(b)
}

func giverKey(g *Giver) string {
	return string([]byte{byte(g.state), byte(g.attempt), bit(g.frozen), byte(g.rcvNxt), byte(g.deadline.Sub(t0)), byte(g.giveUp.Sub(t0))})
}

func takerKey(t *Taker) string {
	var b []byte
	for _, e := range entriesOf(t) {
		b = append(b, byte(e.flow.Transfer), byte(e.state), byte(e.reason), byte(e.flow.RcvNxt))
	}
	return string(append(b, 0xff))
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func describeEvent(e Event) string {
	switch e := e.(type) {
	case Received:
		return "gets " + describeMessage(e.Message) + " of " + e.Host
	case Frozen:
		return "Frozen"
	}
	return fmt.Sprintf("%s%+v", strings.TrimPrefix(fmt.Sprintf("%T", e), "transfer."), e)
}

// TestModel goes through all worlds of some set-ups.
func TestModel(t *testing.T) {
	for _, row := range []struct {
		name          string
		data          bool
		restarts      int
		unconditional bool
		candidates    []string
	}{
		{"one-host", false, 2, false, []string{"t1"}},
		{"two-hosts", false, 1, false, []string{"t1", "t2"}},
		{"same-host-again", false, 0, false, []string{"t1", "t1"}},
		{"unconditional-one-host", false, 2, true, []string{"t1"}},
		{"unconditional-two-hosts", false, 1, true, []string{"t1", "t2"}},
		{"unconditional-same-host-again", false, 0, true, []string{"t1", "t1"}},
		{"octets-one-host", true, 1, false, []string{"t1"}},
		{"octets-unconditional", true, 0, true, []string{"t1", "t2"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			if raceDetector && len(row.candidates)+row.restarts > 2 && !row.unconditional {
				t.Skip("one goroutine with many worlds: nothing for the race detector")
			}
			m := newModel(row.data, row.restarts, row.unconditional, row.candidates...)
			m.run()
			if m.wrong != "" {
				t.Fatal(m.wrong)
			}
			t.Logf("%d worlds; the ends: %v", len(m.seen), m.ended)
			for _, end := range []string{"switched, made 1", "refused, made 0", "aborted, made 0", "aborted, made 1"} {
				if m.ended[end] == 0 {
					t.Errorf("no world ends %s", end)
				}
			}
		})
	}
}

func TestModelFindsBugs(t *testing.T) {
	for _, row := range []struct {
		bug  modelBug
		want string
	}{
		{hastyRecord, "an octet comes to the router after the record was made"},
		{noThaw, "the transfer is refused, and the lcore's entry in state"},
		{wrongSwitch, "the transfer is switched, and the lcore's entry in state"},
		{forgottenOctet, "the record lacks an octet that was acknowledged"},
	} {
		m := newModel(true, 0, false, "t1")
		m.bug = row.bug
		if m.run(); !strings.HasPrefix(m.wrong, row.want) {
			t.Errorf("bug %d: found %q, want %q", row.bug, m.wrong, row.want)
		}
	}
}
