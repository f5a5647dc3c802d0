package router

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"baton/fastpath/flow"
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

func TestHistoryKeepsTheNewest(t *testing.T) {
	h := newHistory(3)
	for i := range 5 {
		h.add(Attempt{Bytes: i})
	}
	got := h.recent()
	if len(got) != 3 || got[0].Bytes != 4 || got[1].Bytes != 3 || got[2].Bytes != 2 {
		t.Errorf("recent %+v, want 4, 3, 2", got)
	}
}

func TestTotalsHaveEveryCount(t *testing.T) {
	if got, want := len(Counts{}.Totals()), reflect.TypeFor[Counts]().NumField(); got != want {
		t.Errorf("%d totals of %d counts", got, want)
	}
}

func TestMemoryForgetsTheOldest(t *testing.T) {
	m := newMemory(2)
	inc := func(port uint16, irs int) wire.Incarnation {
		i := wire.Incarnation{}
		i.Client = netip.AddrPortFrom(hostAddr["t1"], port)
		i.IRS = i.IRS.Add(irs)
		return i
	}
	m.put(inc(1, 1))
	m.put(inc(1, 2)) // a new life of the same tuple
	m.put(inc(2, 1)) // pushes out the first, not its successor
	if got, ok := m.get(inc(1, 0).Tuple); !ok || got != inc(1, 2) {
		t.Errorf("got %v, %t; want the newer incarnation", got, ok)
	}
	m.drop(inc(1, 1)) // an older one changes nothing
	if _, ok := m.get(inc(1, 0).Tuple); !ok {
		t.Error("dropping an older incarnation dropped the newer")
	}
	m.put(inc(3, 1))
	if _, ok := m.get(inc(1, 0).Tuple); ok || len(m.had) != 2 {
		t.Errorf("%d remembered, oldest still there %t; want 2 and no", len(m.had), ok)
	}
}

func TestMemoryKeepsAllIncarnationsOfATuple(t *testing.T) {
	m := newMemory(3)
	inc := func(irs uint32) wire.Incarnation { return wire.Incarnation{IRS: seq.Value(irs)} }
	m.put(inc(1))
	m.put(inc(2))
	m.put(inc(1)) // a target says that it still has it
	if !m.has(inc(1)) || !m.has(inc(2)) {
		t.Error("an incarnation is forgotten with room for three")
	}
	if got, _ := m.get(wire.Tuple{}); got != inc(1) {
		t.Errorf("got %v, want what was heard of last", got)
	}
}

func TestNeighbourIsAskedUntilItAnswersAndRefreshed(t *testing.T) {
	w := bareWorld(t)
	if hop := w.plane.owners[1]; hop != (flow.Nexthop{MAC: targetMAC["t1"]}) {
		t.Fatalf("owner 1 at %+v, want t1", hop)
	}
	asked := w.plane.questions
	w.advance(reachableTime - time.Second)
	if w.plane.questions != asked {
		t.Errorf("%d questions while the answers are fresh", w.plane.questions-asked)
	}
	w.advance(2 * time.Second)
	if w.plane.questions != asked+2 {
		t.Errorf("%d questions for a refresh of two neighbours, want 2", w.plane.questions-asked)
	}
}

func TestSilentNeighbourBecomesUnknownAndComesBack(t *testing.T) {
	w := bareWorld(t)
	n := w.router.targets["t1"].neighbour
	w.plane.answerARP = false
	w.advance(reachableTime + time.Second)
	if !n.known {
		t.Error("one lost question made the neighbour unknown")
	}
	w.advance(maxProbes * probeInterval)
	if n.known {
		t.Error("still known after unanswered questions")
	}
	w.plane.answerARP = true
	w.advance(probeInterval)
	if !n.known {
		t.Error("not known again after an answer")
	}
}

func TestChangedLinkAddressBecomesTheOwners(t *testing.T) {
	w := bareWorld(t)
	moved := wire.MAC{2, 9, 9, 9, 9, 9}
	w.plane.punts = append(w.plane.punts,
		flow.Punt{Kind: flow.Neighbour, Addr: hostAddr["t2"], MAC: moved},
		flow.Punt{Kind: flow.Neighbour, Addr: netip.MustParseAddr("10.77.0.99"), MAC: moved})
	w.run()
	if w.plane.owners[2].MAC != moved || w.plane.owners[1].MAC != targetMAC["t1"] || len(w.plane.owners) != 2 {
		t.Errorf("owners %+v", w.plane.owners)
	}
}

func TestQuestionsForIPv6AreSolicitations(t *testing.T) {
	own, target := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::21")
	n, err := wire.ParseNDP(wire.AppendQuestion(nil, portMAC, own, target))
	if err != nil || n.Target != target || n.Src != own || n.MAC != portMAC {
		t.Errorf("solicitation %+v, error %v", n, err)
	}
}

func TestConfigurationThatCannotWorkIsRefused(t *testing.T) {
	w := bareWorld(t)
	tests := map[string]func(*Config){
		"target outside of the data networks": func(c *Config) {
			c.Targets = map[string]netip.Addr{"t1": netip.MustParseAddr("192.0.2.1"), "t2": hostAddr["t2"]}
		},
		"job of an unknown host": func(c *Config) { c.Jobs = map[string][]string{"web": {"t9"}} },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			cfg := w.router.cfg
			spoil(&cfg)
			if _, err := New(cfg, w.plane, w.cluster); !errors.Is(err, ErrConfig) {
				t.Errorf("error %v, want ErrConfig", err)
			}
		})
	}
}

// sleeper is a Dataplane whose Wait really waits.
type sleeper struct {
	*plane
	wake   chan struct{}
	sleeps atomic.Int32
}

func (s *sleeper) Wait(d time.Duration) {
	s.sleeps.Add(1)
	select {
	case <-s.wake:
	case <-time.After(d):
	}
}

func (s *sleeper) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func TestEventsOfOtherGoroutinesWakeTheLoop(t *testing.T) {
	w := bareWorld(t)
	s := &sleeper{plane: w.plane, wake: make(chan struct{}, 1)}
	cfg := w.router.cfg
	cfg.Clock = time.Now
	r, err := New(cfg, s, w.cluster)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	for s.sleeps.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	began := time.Now()
	r.HostUp("t1")
	r.HostUp("nobody")
	snap, err := r.Snapshot(t.Context())
	if err != nil || !snap.Targets[0].Connected || snap.Counts.UnknownHosts != 1 {
		t.Errorf("snapshot %+v, error %v", snap, err)
	}
	if took := time.Since(began); took > maxSleep/2 {
		t.Errorf("an event waited %v for the loop", took)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("run: %v", err)
	}
	if _, err := r.Recent(t.Context()); !errors.Is(err, ErrStopped) {
		t.Errorf("after the end: %v, want ErrStopped", err)
	}
	r.HostDown("t1") // must not block
}
