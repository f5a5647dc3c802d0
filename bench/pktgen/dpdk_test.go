//go:build dpdk

package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"testing"
)

// TestRunOnARing sends over net_ring, which gives back what it gets: everything comes back, at the rate that was asked.
func TestRunOnARing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("DPDK's EAL needs root here")
	}
	var out bytes.Buffer
	cmd := command(&out, io.Discard)
	cmd.SetArgs([]string{"run", "-d", "net_ring0", "--dst-mac", "02:00:00:00:00:01", "--hugepages", "never", "--memory", "96",
		"--kind", "data", "--size", "imix", "--rate", "20k", "--for", "500ms", "--late", "1s", "--drain", "200ms", "--nap", "--json"})
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	var report Report
	if err := json.Unmarshal(out.Bytes(), &report); err != nil {
		t.Fatal(err)
	}
	trial := report.Trials[0]
	if trial.Sent < 1000 || trial.Rate < 18_000 || trial.Rate > 22_000 || trial.Lost != 0 || trial.Skipped != 0 || trial.Counters["bad"] != 0 {
		t.Errorf("trial at 20000 a second: %+v", trial)
	}
	if trial.Latency == nil || trial.Latency.Count != trial.Received {
		t.Errorf("latencies %+v of %d frames", trial.Latency, trial.Received)
	}
}
