package main

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"baton/bench/judge"
	"baton/control/admin"
	"baton/fastpath/wire"
)

func TestQuantileIsASample(t *testing.T) {
	s := Series{50, 10, 40, 20, 30}
	for _, row := range []struct {
		name string
		q    float64
		want time.Duration
	}{
		{"smallest", 0, 10}, {"median", 0.5, 30}, {"just above a fifth", 0.21, 20}, {"a fifth", 0.2, 10}, {"largest", 1, 50},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := s.Quantile(row.q); got != row.want {
				t.Errorf("quantile %v is %v, want %v", row.q, got, row.want)
			}
		})
	}
	if got := (Series{}).Quantile(0.5); got != 0 {
		t.Errorf("quantile of nothing is %v", got)
	}
}

// The router's phases and the capture's times become the quantities that README.md defines.
func TestRoundBecomesSamples(t *testing.T) {
	decided := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(us int) time.Time { return decided.Add(time.Duration(us) * time.Microsecond) }
	r := round{trip: 90 * time.Microsecond,
		baton:  fetched{took: 700 * time.Microsecond, syn: at(-200), synAck: at(-120), asked: at(-40), answered: at(250)},
		direct: fetched{took: 300 * time.Microsecond, syn: at(1000), synAck: at(1011), asked: at(1020), answered: at(1099)}}
	transfer := admin.Transfer{Time: decided, Total: 0.000230,
		Phases: map[string]float64{"frozen": 0.000020, "accepted": 0.000090, "confirmed": 0.000110, "switched": 0.000030}}
	var s series
	s.add(r, transfer)
	got := map[string]time.Duration{}
	for _, row := range s.rows() {
		got[row.name] = row.s[0] / time.Microsecond
	}
	want := map[string]time.Duration{
		"decision -> confirmed": 200, "  decision -> frozen": 20, "  decision -> accepted": 90, "  commit -> confirmed": 110,
		"confirmed -> switched": 30, "freeze -> first byte": 250, "request -> first byte": 290, "  request -> decision": 40,
		"SYN -> SYN-ACK": 80, "fetch through Baton": 700, "fetch directly": 300, "  SYN -> SYN-ACK": 11,
		"  request -> first byte": 79, "XCF round trip": 90,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Of what is repeated the first counts, and of the answers only the target's octets.
func TestCaptureBecomesTimes(t *testing.T) {
	client, service := netip.MustParseAddrPort("10.77.0.100:4000"), netip.MustParseAddrPort("10.77.0.10:80")
	router, target := wire.MAC{2, 1}, wire.MAC{2, 2}
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var c judge.Capture
	frame := func(from wire.MAC, src, dst netip.AddrPort, flags wire.Flags, payload string) {
		data := wire.AppendTCP(nil, wire.Link{Src: from}, src, dst, wire.Segment{Flags: flags, Payload: []byte(payload)})
		at := start.Add(time.Duration(len(c.Frames)) * time.Microsecond)
		c.Frames = append(c.Frames, judge.Frame{Time: at, Data: data})
	}
	own := netip.MustParseAddrPort("10.77.0.21:80")
	frame(wire.MAC{2, 3}, client, service, wire.SYN, "")
	frame(router, service, client, wire.SYN|wire.ACK, "")
	frame(wire.MAC{2, 3}, client, service, wire.SYN, "")
	frame(wire.MAC{2, 3}, client, service, wire.ACK, "")
	frame(wire.MAC{2, 3}, client, service, wire.ACK, "GET")
	frame(wire.MAC{2, 3}, client, service, wire.ACK, "GET")
	frame(router, service, client, wire.ACK, "not the target's")
	frame(target, service, client, wire.ACK, "")
	frame(target, service, client, wire.ACK, "200")
	frame(wire.MAC{2, 3}, client, own, wire.SYN, "") // the same port
	frame(target, own, client, wire.SYN|wire.ACK, "")
	frame(wire.MAC{2, 3}, client, own, wire.ACK, "GET")
	frame(target, own, client, wire.ACK, "200")
	b := bench{virtual: service, direct: own, target: target}
	rounds := []round{{baton: fetched{local: client}, direct: fetched{local: client}}}
	if err := b.find(rounds, c); err != nil {
		t.Fatal(err)
	}
	var got []time.Duration
	for _, r := range []fetched{rounds[0].baton, rounds[0].direct} {
		for _, at := range []time.Time{r.syn, r.synAck, r.asked, r.answered} {
			got = append(got, at.Sub(start)/time.Microsecond)
		}
	}
	if diff := cmp.Diff([]time.Duration{0, 1, 4, 8, 9, 10, 11, 12}, got); diff != "" {
		t.Error(diff)
	}
	if err := b.find([]round{{baton: fetched{local: client}}}, judge.Capture{Frames: c.Frames[:8]}); err == nil {
		t.Error("a capture without the target's answer passes")
	}
	if err := b.find(rounds, judge.Capture{Frames: c.Frames, Lost: 1}); err == nil {
		t.Error("a capture with losses passes")
	}
}

func TestAimsCompareQuantiles(t *testing.T) {
	us := time.Microsecond
	r := Result{Series: &series{Trip: Series{100 * us}, Confirmed: Series{161 * us},
		Direct: Series{200 * us}, Baton: Series{300 * us}},
		Asked:         &series{Trip: Series{100 * us}, Confirmed: Series{190 * us}},
		Unconditional: &series{Trip: Series{200 * us}, Confirmed: Series{241 * us}}}
	r.judge()
	var met []bool
	for _, a := range r.Aims {
		met = append(met, a.Met)
	}
	if diff := cmp.Diff([]bool{false, true, false, true, false, true, false, true}, met); diff != "" {
		t.Error(diff)
	}
}

// The file is read by other programs, so it has to stay JSON, however its lines are joined.
func TestFileHasEverySampleOnOneLine(t *testing.T) {
	s := &series{}
	for i := range 3 {
		s.add(round{baton: fetched{took: time.Duration(i) * time.Microsecond}}, admin.Transfer{})
	}
	r := Result{Commit: "c", Series: s, Asked: s, Unconditional: s}
	r.judge()
	path := filepath.Join(t.TempDir(), "r.json")
	if err := write(path, &r); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var read struct {
		Aims   []struct{ What string }
		Series map[string]struct {
			N       int
			Samples []float64 `json:"samples_us"`
		}
	}
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	if diff := cmp.Diff([]float64{0, 1, 2}, read.Series["fetch_baton"].Samples); diff != "" || len(read.Aims) != 8 {
		t.Errorf("%d aims, %s", len(read.Aims), diff)
	}
	if !strings.Contains(string(text), "[0,1,2]") {
		t.Errorf("samples are spread over lines: %s", text)
	}
}
