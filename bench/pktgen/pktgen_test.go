package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"baton/cgo"
)

// parsed are the options of a command line; what every command needs is added.
func parsed(t *testing.T, args ...string) *options {
	t.Helper()
	var o options
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.SetOutput(io.Discard)
	o.flags(f)
	if err := f.Parse(append([]string{"-d", "net_ring0", "--dst-mac", "02:00:00:00:00:01"}, args...)); err != nil {
		t.Fatal(err)
	}
	return &o
}

func TestOptionsThatCannotBeAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ args, says string }{
		"kind":            {"--kind icmp", "--kind"},
		"size":            {"--size 63", "64 to"},
		"sizes":           {"--size " + strings.Repeat("64,", 16) + "64", "17 sizes"},
		"clients":         {"--clients 10.1.0.1/24", "10.1.0.0/24 is meant"},
		"families":        {"--clients 2001:db8::/120", "two families"},
		"flows":           {"--flows 65000 --clients 10.1.0.0/32", "1 to 64512"},
		"no flows":        {"--flows 0", "1 to"},
		"mac":             {"--src-mac 1:2", "no MAC"},
		"two next hops":   {"--gateway 10.0.0.1", "--dst-mac or --gateway"},
		"timeout":         {"--timeout 20s", "less than 20s"},
		"vlan":            {"--vlan 4095", "1 to 4094"},
		"request escapes": {`--request \q`, "--request"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parsed(t, strings.Fields(c.args)...).config(1e9)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want one with %q", err, c.says)
			}
		})
	}
}

func TestOptionsBecomeConfiguration(t *testing.T) {
	c, err := parsed(t, "--kind", "handshake", "--clients", "2001:db8:1::/118", "--service", "[2001:db8::1]:443", "--size", "imix",
		"--flows", "5000", "--timeout", "2s", "--late", "3ms", "--hold", "--request", `A\r\n`).config(2e9)
	if err != nil {
		t.Fatal(err)
	}
	if c.Kind != cgo.GenerateHandshake || c.Clients != 1024 || c.ServicePort != 443 || c.Flows != 5000 || c.Timeout != 4e9 ||
		c.Late != 6e6 || c.Hold != 1 || c.Random != 0 || string(c.Request[:c.RequestLen]) != "A\r\n" {
		t.Errorf("configuration %+v", c)
	}
	if got := c.Sizes[:c.SizeCount]; !slices.Equal(got, imix) {
		t.Errorf("sizes %v", got)
	}
}

func TestRates(t *testing.T) {
	for text, want := range map[string]float64{"max": 0, "1000": 1000, "1.5M": 1.5e6, "20k": 20e3, "10%": 1.488095e6, "100%": 14.88095e6} {
		got, err := parseRate(text, lineFrames(10e9, []uint16{64}))
		if err != nil || math.Abs(got-want) > want/1e6 {
			t.Errorf("%s is %g, %v, want %g", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-1", "0", "fast", "1T", "NaN", "Inf", "%"} {
		if got, err := parseRate(text, 1e6); err == nil {
			t.Errorf("%q is %g", text, got)
		}
	}
	if _, err := parseRate("10%", 0); err == nil {
		t.Error("a percentage of an unknown speed is accepted")
	}
}

func TestLineFramesOfAMix(t *testing.T) { // 7 x 84 + 4 x 590 + 1538 octets for 12 frames
	if got, want := lineFrames(1e9, imix), 1e9/8/(4486.0/12); math.Abs(got-want) > 1 {
		t.Errorf("%g frames, want %g", got, want)
	}
}

// device loses every frame above its capacity, and gives up what the generator cannot do.
func device(capacity, generator float64, rates *[]float64) func(float64) (Trial, error) {
	return func(pps float64) (Trial, error) {
		*rates = append(*rates, pps)
		sent := min(pps, generator)
		t := Trial{Asked: pps, Sent: uint64(sent), Skipped: uint64(pps - sent), Received: uint64(min(sent, capacity))}
		t.Lost = t.Sent - t.Received
		t.LossPercent = 100 * ratio(float64(t.Lost), float64(t.Sent))
		return t, nil
	}
}

func TestSearchFindsTheCapacity(t *testing.T) {
	for _, c := range []struct{ most, capacity, generator, want float64 }{
		{10e6, 10e6, 20e6, 10e6}, // everything passes
		{10e6, 3.3e6, 20e6, 3.3e6},
		{10e6, 20e6, 4.2e6, 4.2e6}, // the generator is the limit
		{10e6, 50e3, 20e6, 50e3},
	} {
		var rates []float64
		s := search{most: c.most, resolution: 0.1, least: 0.1}
		best, err := s.run(device(c.capacity, c.generator, &rates))
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		if best.Asked > c.want || best.Asked < c.want-c.most*0.001 {
			t.Errorf("%+v: found %g", c, best.Asked)
		}
		if len(rates) > 14 {
			t.Errorf("%+v: took %d trials", c, len(rates))
		}
	}
}

func TestSearchToleratesLoss(t *testing.T) {
	var rates []float64
	s := search{most: 10e6, resolution: 0.01, least: 0.1, tolerance: 50}
	best, err := s.run(device(2e6, 20e6, &rates))
	if err != nil || math.Abs(best.Asked-4e6) > 2e3 {
		t.Errorf("found %+v, %v, want 4 Mpps: half of it comes back", best, err)
	}
}

func TestSearchGivesUp(t *testing.T) {
	var rates []float64
	s := search{most: 10e6, resolution: 1, least: 1}
	if best, err := s.run(device(0, 20e6, &rates)); err == nil {
		t.Errorf("found %+v on a device that loses all", best)
	}
	if len(rates) > 9 {
		t.Errorf("gave up after %d trials", len(rates))
	}
	broken := errors.New("broken")
	if _, err := s.run(func(float64) (Trial, error) { return Trial{}, broken }); !errors.Is(err, broken) {
		t.Errorf("error %v, want the trial's", err)
	}
}

func TestLossStepsEndAfterTwoGoodOnes(t *testing.T) {
	for _, c := range []struct {
		capacity float64
		want     int
	}{{10e6, 2}, {7.5e6, 5}, {0, 10}} {
		var rates []float64
		if err := lossSteps(10e6, 10, device(c.capacity, 20e6, &rates)); err != nil || len(rates) != c.want {
			t.Errorf("capacity %g: trials at %v, %v, want %d", c.capacity, rates, err, c.want)
		}
	}
}

func TestPercentiles(t *testing.T) {
	h := make([]uint64, 100)
	h[10], h[20], h[50] = 50, 49, 1
	if l := latencies(h); l.Count != 100 || l.P50 != 10 || l.P90 != 20 || l.P99 != 20 || l.Max != 50 {
		t.Errorf("latencies %+v", l)
	}
	if l := latencies(make([]uint64, 100)); l != nil {
		t.Errorf("nothing received has latencies %+v", l)
	}
}

func TestTrialCountsTheKindsAnswers(t *testing.T) {
	c := map[string]uint64{"paced": 1000, "matched": 900, "synack": 800, "tx": 1000, "tx_octets": 60_000, "rx": 1000, "busy_cycles": 40_000}
	flood := newTrial(cgo.GenerateSYN, 1e3, time.Second, c, make([]uint64, 10), 1e9)
	if flood.Received != 800 || flood.Lost != 200 || flood.LossPercent != 20 {
		t.Errorf("flood %+v", flood)
	}
	data := newTrial(cgo.GenerateData, 1e3, time.Second, c, make([]uint64, 10), 1e9)
	if data.Received != 900 || data.Lost != 100 || data.OwnNS != 20 || data.SentBits != 512_000 {
		t.Errorf("data %+v", data)
	}
}

func TestReportIsATableOrJSON(t *testing.T) {
	trial := newTrial(cgo.GenerateUDP, 1e6, time.Second, map[string]uint64{"paced": 10, "matched": 9}, make([]uint64, 10), 1e9)
	report := &Report{Command: "throughput", Kind: "udp", Trials: []Trial{trial}, Throughput: &trial}
	var text bytes.Buffer
	if err := (&output{out: &text}).print(report); err != nil || !strings.Contains(text.String(), "throughput: 1.0000 Mpps") {
		t.Errorf("%v, %s", err, text.String())
	}
	text.Reset()
	var back Report
	if err := errors.Join((&output{out: &text, json: true}).print(report), json.Unmarshal(text.Bytes(), &back)); err != nil {
		t.Fatal(err)
	}
	if back.Throughput == nil || back.Throughput.Received != 9 || len(back.Trials) != 1 {
		t.Errorf("JSON comes back as %+v", back)
	}
}
