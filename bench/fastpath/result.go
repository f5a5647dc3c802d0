package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"text/tabwriter"
	"time"
)

// Result is the outcome of a run, as it is in the file.
type Result struct {
	Time     time.Time `json:"time"`
	Commit   string    `json:"commit"`
	Modified bool      `json:"modified"` // the C code differs from the commit
	Rounds   int       `json:"rounds"`
	Frames   uint64    `json:"frames"` // of a sample
	Machine  Machine   `json:"machine"`
	TableMB  []Table   `json:"tables"`
	Aims     []Aim     `json:"aims"`
	Series   []Series  `json:"series"`
}

// Table is the memory of a connection routing table.
type Table struct {
	Flows  uint64  `json:"flows"`
	Way    string  `json:"way"`     // the family of its flows
	MB     float64 `json:"mb"`      // MiB
	HugeMB float64 `json:"huge_mb"` // MiB of the process in transparent hugepages while it was there
}

// Aim compares a time, or a ratio of times, with what was aimed at.
type Aim struct {
	What string `json:"what"`
	Want ns     `json:"want"`
	Got  ns     `json:"got"`
	Met  bool   `json:"met"`
}

// net finds a series' own time, of one lcore, IPv4 and L2; NaN if it was not measured.
func (r *Result) net(flows uint64, frames, path string) ns {
	return r.netOf(Series{Flows: flows, Way: ipv4L2.name, Lcores: 1, Frames: frames, Path: path})
}

// netOf finds the own time of the series that agrees with like.
func (r *Result) netOf(like Series) ns {
	for _, s := range r.Series {
		if s.Flows == like.Flows && s.Way == like.Way && s.Lcores == like.Lcores && s.Frames == like.Frames &&
			s.Path == like.Path {
			return s.Net
		}
	}
	return ns(math.NaN())
}

func (r *Result) judge() {
	for _, a := range []struct {
		flows uint64
		want  ns
	}{{1000, 14}, {64000, 16}, {1000000, 22}, {10000000, 32}} {
		r.atMost(fmt.Sprintf("segment of a known flow, %s flows, ns", short(a.flows)), a.want, r.net(a.flows, "hit", "crt"))
	}
	for _, flows := range []uint64{1000000, 10000000} {
		stub, crt, hash := r.net(flows, "hit", "stub"), r.net(flows, "hit", "crt"), r.net(flows, "hit", "rte_hash")
		r.atLeast(fmt.Sprintf("lookup alone against rte_hash's, %s flows, times", short(flows)), 2, (hash-stub)/(crt-stub))
		r.atLeast(fmt.Sprintf("whole path against that with rte_hash, %s flows, times", short(flows)), 1.6, hash/crt)
	}
	const million = 1000000
	r.atMost("all checks: path without the lookup, ns", 8, r.net(1000, "hit", "stub"))
	r.atMost("adding a flow to the table, 1 M flows, ns", 40, r.net(million, "insert", "crt"))
	r.atMost("first data of a new connection, 1 M flows, ns", 40, r.net(million, "new", "crt"))
	r.atMost("SYN answered with a cookie, 1 M flows, ns", 60, r.net(million, "syn", "crt"))
	r.atMost("forged acknowledgement, 1 M flows, ns", 40, r.net(million, "forged", "crt"))
	r.Aims = slices.DeleteFunc(r.Aims, func(a Aim) bool { return math.IsNaN(float64(a.Got)) })
}

func (r *Result) atMost(what string, want, got ns) {
	r.Aims = append(r.Aims, Aim{What: what + " <=", Want: want, Got: rounded(got), Met: got <= want})
}

func (r *Result) atLeast(what string, want, got ns) {
	r.Aims = append(r.Aims, Aim{What: what + " >=", Want: want, Got: rounded(got), Met: got >= want})
}

// short writes 64000 as 64 k.
func short(n uint64) string {
	switch {
	case n >= 1_000_000 && n%1_000_000 == 0:
		return fmt.Sprintf("%d M", n/1_000_000)
	case n >= 1000 && n%1000 == 0:
		return fmt.Sprintf("%d k", n/1000)
	}
	return fmt.Sprint(n)
}

// print shows the result to people.
func (r *Result) print(out io.Writer) {
	m := r.Machine
	fmt.Fprintf(out, "%s (%s), Linux %s, %s, %s, load %s -> %s\nCPU time of a frame, ns, medians of %d rounds; "+
		"net: without source and sink\n\n", m.CPU, m.Caches, m.Kernel, m.Compiler, m.DPDK, m.LoadBefore, m.LoadAfter,
		r.Rounds)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "flows\tway\tlcores\tframes\tpath\tnet\tgross\tmin\tmax\t")
	for _, s := range r.Series {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%.1f\t%.1f\t%.1f\t%.1f\t\n", short(s.Flows), s.Way, s.Lcores, s.Frames, s.Path,
			s.Net, s.NS.median(), slices.Min(s.NS), slices.Max(s.NS))
	}
	_ = w.Flush() // to standard output
	fmt.Fprintln(out)
	for _, t := range r.TableMB {
		fmt.Fprintf(out, "table of %s flows, %s: %.1f MiB, %.0f MiB in huge pages\n", short(t.Flows), t.Way, t.MB, t.HugeMB)
	}
	for _, a := range r.Aims {
		verdict := "missed"
		if a.Met {
			verdict = "met"
		}
		fmt.Fprintf(out, "aim %s %g: %.1f, %s\n", a.What, a.Want, a.Got, verdict)
	}
}

// write writes the file: indented JSON, but all samples of a series on one line.
func (r *Result) write(path string) error {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(r); err != nil {
		return err
	}
	return os.WriteFile(path, joinNumbers(out.Bytes()), 0o644)
}

// joinNumbers puts the elements of arrays of numbers, which json.Indent spreads over lines, on one line.
func joinNumbers(lines []byte) []byte {
	var out []byte
	inside := false
	for line := range bytes.Lines(lines) {
		bare := bytes.TrimSpace(line)
		number := len(bare) > 0 && (bare[0] == '-' || bare[0] >= '0' && bare[0] <= '9')
		if number || inside {
			out = append(bytes.TrimRight(out, "\n"), bare...)
			out = append(out, '\n')
			inside = number
			continue
		}
		out = append(out, line...)
	}
	return out
}
