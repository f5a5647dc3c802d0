package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"
)

// Aims, for p50 and p99 alike.
const (
	// decision -> confirmed, above an XCF round trip
	confirmAim       = 60 * time.Microsecond
	askedAim         = 90 * time.Microsecond // accepted by an application over its control socket
	unconditionalAim = 40 * time.Microsecond

	fetchAim = 1.5 // a fetch through Baton, as a multiple of a direct one
)

// Result is the outcome of a run, as it is in the file.
type Result struct {
	Time      time.Time `json:"time"`
	Commit    string    `json:"commit"`
	Modified  bool      `json:"modified"` // the tree differs from the commit, bench/ aside
	Rounds    int       `json:"rounds"`
	PauseUS   micros    `json:"pause_us"`             // before each measurement
	IdleSleep string    `json:"idle_sleep,omitempty"` // of the forwarder, if not its default
	Machine   Machine   `json:"machine"`
	Aims      []Aim     `json:"aims"`
	Series    *series   `json:"series"` // offered, by conventional applications
	// The same, each with its own round trips: accepted by a control-socket application, and unconditional.
	Asked         *series `json:"asked"`
	Unconditional *series `json:"unconditional"`
}

// Aim compares a quantile with what was aimed at.
type Aim struct {
	What string `json:"what"`
	At   string `json:"at"` // p50 or p99
	Want micros `json:"want_us"`
	Got  micros `json:"got_us"`
	Met  bool   `json:"met"`
}

// judge compares the series with the aims.
func (r *Result) judge() {
	s := r.Series
	for _, at := range []struct {
		name string
		q    float64
	}{{"p50", 0.5}, {"p99", 0.99}} {
		trip, direct := s.Trip.Quantile(at.q), s.Direct.Quantile(at.q)
		r.aim("decision -> confirmed <= XCF round trip + 60 us", at.name, trip+confirmAim, s.Confirmed.Quantile(at.q))
		r.aim("asked application: decision -> confirmed <= XCF round trip + 90 us", at.name,
			r.Asked.Trip.Quantile(at.q)+askedAim, r.Asked.Confirmed.Quantile(at.q))
		r.aim("unconditional: decision -> confirmed <= XCF round trip + 40 us", at.name,
			r.Unconditional.Trip.Quantile(at.q)+unconditionalAim, r.Unconditional.Confirmed.Quantile(at.q))
		r.aim("fetch through Baton <= 1.5 x direct", at.name, time.Duration(fetchAim*float64(direct)), s.Baton.Quantile(at.q))
	}
}

func (r *Result) aim(what, at string, want, got time.Duration) {
	r.Aims = append(r.Aims, Aim{What: what, At: at, Want: inMicros(want), Got: inMicros(got), Met: got <= want})
}

// print shows the result to people.
func (r *Result) print(out io.Writer) {
	m := r.Machine
	fmt.Fprintf(out, "%s, %d cores, Linux %s, %s, %s, hugepages %d, load %s -> %s\n\n", m.CPU, m.Cores, m.Kernel, m.DPDK,
		m.Device, m.Hugepages, m.LoadBefore, m.LoadAfter)
	rows := r.Series.rows()
	rows = append(rows, r.Asked.briefly("asked application")...)
	printRows(out, append(rows, r.Unconditional.briefly("unconditional")...))
	fmt.Fprintln(out)
	for _, a := range r.Aims {
		verdict := "missed"
		if a.Met {
			verdict = "met"
		}
		fmt.Fprintf(out, "aim %s, %s: %.1f, limit %.1f: %s\n", a.At, a.What, a.Got, a.Want, verdict)
	}
}

// printRows shows quantities to people.
func printRows(out io.Writer, rows []row) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "us\tn\tp50\tp99\tmin\tmax\t")
	for _, row := range rows {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\t\n", row.name, len(row.s),
			show(row.s.Quantile(0.5)), show(row.s.Quantile(0.99)), show(row.s.Quantile(0)), show(row.s.Quantile(1)))
	}
	_ = w.Flush() // to standard output
}

func show(d time.Duration) string { return fmt.Sprintf("%.1f", inMicros(d)) }

// write writes a result's file: indented JSON, but all samples of a series on one line.
func write(path string, result any) error {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(result); err != nil {
		return err
	}
	return os.WriteFile(path, joinNumbers(text.Bytes()), 0o644)
}

// joinNumbers puts the elements of arrays of numbers, which json.Indent spreads over lines, on one line.
func joinNumbers(text []byte) []byte {
	var out []byte
	for line := range bytes.Lines(text) {
		bare := bytes.TrimSpace(line)
		number := len(bare) > 0 && (bare[0] == '-' || bare[0] >= '0' && bare[0] <= '9')
		closing := len(bare) > 0 && bare[0] == ']' && !bytes.HasSuffix(out, []byte("}\n"))
		if number || closing {
			out = append(bytes.TrimRight(out, "\n"), bare...)
			out = append(out, '\n')
			continue
		}
		out = append(out, line...)
	}
	return out
}
