package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"baton/cgo"
)

// Latency is how long frames took, in nanoseconds.
type Latency struct {
	Count uint64 `json:"count"`
	P50   uint64 `json:"p50_ns"`
	P90   uint64 `json:"p90_ns"`
	P99   uint64 `json:"p99_ns"`
	P999  uint64 `json:"p999_ns"`
	Max   uint64 `json:"max_ns"` // exact in a trial, within 3 % over several
}

// latencies reads a histogram. Each value is the largest that its place counts.
func latencies(histogram []uint64) *Latency {
	var l Latency
	for _, n := range histogram {
		l.Count += n
	}
	if l.Count == 0 {
		return nil
	}
	for _, p := range []struct {
		share float64
		into  *uint64
	}{{0.5, &l.P50}, {0.9, &l.P90}, {0.99, &l.P99}, {0.999, &l.P999}, {1, &l.Max}} {
		*p.into = percentile(histogram, l.Count, p.share)
	}
	return &l
}

func percentile(histogram []uint64, count uint64, share float64) uint64 {
	need, seen := max(1, uint64(share*float64(count))), uint64(0)
	for place, n := range histogram {
		if seen += n; seen >= need {
			return cgo.LatencyBound(place)
		}
	}
	return 0
}

// Trial is what one rate for one time gave.
type Trial struct {
	Asked       float64           `json:"asked_pps"` // 0: as fast as it goes
	Seconds     float64           `json:"seconds"`
	Sent        uint64            `json:"sent"`     // paced frames
	Received    uint64            `json:"received"` // answers to them: the same frames, SYN-ACKs, echo replies
	Lost        uint64            `json:"lost"`
	LossPercent float64           `json:"loss_percent"`
	Skipped     uint64            `json:"skipped"` // that the rate asked for and that were given up
	Rate        float64           `json:"sent_pps"`
	Received1s  float64           `json:"received_pps"`
	SentBits    float64           `json:"sent_bits_per_second"` // of frames, with FCS
	OwnNS       float64           `json:"own_ns_per_frame"`     // busy time of the loop by frames sent and received
	Latency     *Latency          `json:"latency,omitempty"`
	Counters    map[string]uint64 `json:"counters"`
}

// newTrial makes a trial from what the counters and the histogram grew by.
func newTrial(kind cgo.GeneratorKind, pps float64, took time.Duration, c map[string]uint64, histogram []uint64, hz float64) Trial {
	t := Trial{Asked: pps, Seconds: took.Seconds(), Sent: c["paced"], Received: c["matched"], Skipped: c["skipped"],
		Latency: latencies(histogram), Counters: c}
	if kind == cgo.GenerateSYN || kind == cgo.GenerateHandshake {
		t.Received = c["synack"]
	}
	if t.Received < t.Sent {
		t.Lost = t.Sent - t.Received
	}
	if t.Latency != nil {
		t.Latency.Max = c["latency_max"]
	}
	t.LossPercent = 100 * ratio(float64(t.Lost), float64(t.Sent))
	t.Rate, t.Received1s = float64(t.Sent)/t.Seconds, float64(t.Received)/t.Seconds
	t.SentBits = 8 * (float64(c["tx_octets"]) + 4*float64(c["tx"])) / t.Seconds
	t.OwnNS = ratio(float64(c["busy_cycles"])/hz*1e9, float64(c["tx"]+c["rx"]))
	return t
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// Report is what a command prints.
type Report struct {
	Command    string   `json:"command"`
	Devices    []string `json:"devices"`
	Kind       string   `json:"kind"`
	Sizes      []uint16 `json:"sizes"`
	Flows      uint64   `json:"flows"`
	Clients    string   `json:"clients"`
	Service    string   `json:"service"`
	Throughput *Trial   `json:"throughput,omitempty"` // the best trial without loss
	Latency    *Latency `json:"latency,omitempty"`    // over all trials
	Trials     []Trial  `json:"trials"`
}

func (r *rig) report(name string) *Report {
	o := r.options
	return &Report{Command: name, Devices: o.devices, Kind: o.kind, Sizes: slices.Clone(r.config.Sizes[:r.config.SizeCount]),
		Flows: o.flows, Clients: o.clients, Service: o.service}
}

// live overwrites the line of progress.
func (w *output) live(since, step time.Duration, c map[string]uint64) {
	if w.quiet {
		return
	}
	fmt.Fprintf(w.progress, "\r%6.1fs  tx %s  rx %s  skipped %d  bad %d\x1b[K", since.Seconds(),
		perSecond(float64(c["tx"])/step.Seconds()), perSecond(float64(c["rx"])/step.Seconds()), c["skipped"], c["bad"])
}

// trial replaces the line of progress by what became of the trial.
func (w *output) trial(n int, t Trial) {
	if w.quiet {
		return
	}
	fmt.Fprintf(w.progress, "\rtrial %d: asked %s, sent %s, lost %.4g %%, skipped %d\x1b[K\n", n, perSecond(t.Asked),
		perSecond(t.Rate), t.LossPercent, t.Skipped)
}

func perSecond(pps float64) string {
	if pps == 0 {
		return "max"
	}
	return fmt.Sprintf("%.4f Mpps", pps/1e6)
}

// print prints a table, or JSON.
func (w *output) print(r *Report) error {
	if w.json {
		e := json.NewEncoder(w.out)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	t := tabwriter.NewWriter(w.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, err := fmt.Fprintf(t, "asked\tsent\treceived\tlost\t%%\tskipped\tGbit/s\tp50 us\tp99 us\tmax us\town ns\t\n")
	for _, trial := range r.Trials {
		err = errors.Join(err, row(t, trial))
	}
	err = errors.Join(err, t.Flush())
	return errors.Join(err, w.conclude(r))
}

func row(t *tabwriter.Writer, x Trial) error {
	l := x.Latency
	if l == nil {
		l = &Latency{}
	}
	_, err := fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%.4g\t%d\t%.3f\t%.1f\t%.1f\t%.1f\t%.1f\t\n", perSecond(x.Asked), perSecond(x.Rate),
		x.Received, x.Lost, x.LossPercent, x.Skipped, x.SentBits/1e9, micro(l.P50), micro(l.P99), micro(l.Max), x.OwnNS)
	return err
}

func micro(ns uint64) float64 { return float64(ns) / 1e3 }

// conclude prints what the trials were for, and the last one's counters.
func (w *output) conclude(r *Report) (err error) {
	last := r.Trials[len(r.Trials)-1].Counters
	switch {
	case r.Throughput != nil:
		_, err = fmt.Fprintf(w.out, "throughput: %s\n", perSecond(r.Throughput.Asked))
	case r.Latency != nil:
		_, err = fmt.Fprintf(w.out, "latency over %d frames: p50 %.1f us, p99 %.1f us, max %.1f us\n", r.Latency.Count,
			micro(r.Latency.P50), micro(r.Latency.P99), micro(r.Latency.Max))
	case r.Kind == "handshake":
		_, err = fmt.Fprintf(w.out, "handshakes: %d answered, %d requests served, %d reset, %d begun again\n", last["synack"],
			last["response"], last["reset"], last["timeout"])
	}
	return err
}
