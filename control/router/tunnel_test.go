package router

import (
	"net/netip"
	"testing"

	"baton/fastpath/flow"
)

// Targets behind one router share the answer to one question, and keep tunnels of their own.
func TestTargetsBehindARouter(t *testing.T) {
	w := bareWorld(t)
	cfg, gateway := w.router.cfg, hostAddr["t1"] // it answers in the router's place
	far1, far2 := netip.MustParseAddr("10.79.0.21"), netip.MustParseAddr("10.79.0.22")
	cfg.Targets = map[string]netip.Addr{"t1": far1, "t2": hostAddr["t2"], "t3": far2}
	cfg.Tunnels = map[string]Tunnel{"t1": {flow.GUE, gateway, 1500}, "t3": {flow.IPIP, gateway, 1400}}
	w.plane.questions = 0
	clear(w.plane.owners)
	var err error
	if w.router, err = New(cfg, w.plane, w.cluster); err != nil {
		t.Fatal(err)
	}
	w.advance(3 * neighbourDelay)
	near := netip.MustParseAddr("10.77.0.1") // the data port's
	want := map[flow.OwnerID]flow.Tunnel{
		1: {Kind: flow.GUE, Src: near, Dst: far1, MTU: 1500}, 2: {}, 3: {Kind: flow.IPIP, Src: near, Dst: far2, MTU: 1400},
	}
	if len(w.plane.owners) != len(want) {
		t.Fatalf("owners %v, want 3", w.plane.owners)
	}
	for owner, tunnel := range want {
		if got := w.plane.owners[owner].Tunnel; got != tunnel {
			t.Errorf("owner %d is reached through %+v, want %+v", owner, got, tunnel)
		}
	}
	if w.plane.owners[1].MAC != w.plane.owners[3].MAC || w.plane.owners[1].MAC == w.plane.owners[2].MAC {
		t.Errorf("owners %v: the first and the third are behind one router", w.plane.owners)
	}
	if w.plane.questions != 2 {
		t.Errorf("%d questions, want one for the router and one for t2", w.plane.questions)
	}
}

func TestTunnelByARouterElsewhereIsRefused(t *testing.T) {
	w := bareWorld(t)
	cfg := w.router.cfg
	cfg.Tunnels = map[string]Tunnel{"t1": {flow.GUE, netip.MustParseAddr("10.9.9.9"), 1500}}
	if _, err := New(cfg, w.plane, w.cluster); err == nil {
		t.Error("accepted")
	}
}
