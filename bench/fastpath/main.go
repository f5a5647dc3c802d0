package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"baton/bench/machine"
	"baton/cgo"
)

// options are the command line.
type options struct {
	rounds    int
	frames    uint64
	sizes     string
	only      string
	out       string
	hugepages int
	cpu       int
}

func main() {
	var o options
	flag.IntVar(&o.rounds, "n", 15, "rounds")
	flag.Uint64Var(&o.frames, "frames", 500_000, "frames of a sample")
	flag.StringVar(&o.sizes, "flows", "1000,64000,1000000,10000000", "sizes of the table")
	flag.StringVar(&o.only, "only", "", "this kind of frames only, and no result files")
	flag.StringVar(&o.out, "out", filepath.Join("bench", "results", "fastpath.json"), "result file; the plot is beside it")
	flag.IntVar(&o.hugepages, "hugepages", 1024, "2 MiB hugepages to reserve for DPDK, and to give back")
	flag.IntVar(&o.cpu, "cpu", runtime.NumCPU()-1, "CPU to measure on")
	flag.Parse()
	if err := o.run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "bench-fastpath:", err)
		os.Exit(1)
	}
}

func (o options) run(ctx context.Context) (err error) {
	sizes, err := parseSizes(o.sizes)
	if err != nil {
		return err
	}
	result := Result{Time: time.Now().UTC(), Rounds: o.rounds, Frames: o.frames}
	if err := result.describe(ctx); err != nil {
		return err
	}
	if cgo.HasDPDK {
		giveBack, err := o.startDPDK()
		defer func() { giveBack() }()
		if err != nil {
			return err
		}
	}
	for _, flows := range sizes {
		if err := o.measure(flows, &result); err != nil {
			return err
		}
	}
	result.judge()
	result.Machine.LoadAfter = machine.Load()
	result.print(os.Stdout)
	if o.only != "" {
		return nil
	}
	return errors.Join(result.write(o.out), result.plot(strings.TrimSuffix(o.out, ".json")+".svg"))
}

func (o options) startDPDK() (giveBack func(), err error) {
	giveBack, err = borrowHugepages(o.hugepages)
	if err != nil {
		return giveBack, err
	}
	other := (o.cpu + 1) % runtime.NumCPU() // has the main thread, which sleeps meanwhile, and the second lcore
	return giveBack, cgo.StartEAL([]string{"bench-fastpath", "--log-level=error", "--no-telemetry", "--iova-mode=va",
		"--lcores", fmt.Sprintf("0@%d,1@%d,2@%d", other, o.cpu, other), "-m", "256", "--in-memory", "--no-pci",
		"--vdev", sink + ",size=64,copy=0"})
}

// measure does all of one size of the table.
func (o options) measure(flows uint64, result *Result) error {
	if err := o.measureRig(ipv4L2, flows, 1, result); err != nil {
		return err
	}
	if err := o.measureRig(ipv6L2, flows, 1, result); err != nil {
		return err
	}
	if !cgo.HasDPDK || runtime.NumCPU() < 2 {
		return nil
	}
	return o.measureRig(ipv4L2, flows, 2, result)
}

// measureRig does one family and number of lcores; for IPv4, the way through a tunnel as well.
func (o options) measureRig(w way, flows uint64, lcores int, result *Result) error {
	r, err := newRig(w, flows, lcores)
	if err != nil {
		return err
	}
	defer r.shards.Close()
	o.measureKinds(r, result)
	if lcores > 1 {
		return nil
	}
	result.TableMB = append(result.TableMB, Table{Flows: flows, Way: w.name, MB: r.tableMB(), HugeMB: hugeMB()})
	if o.only == "" || o.only == "bare" {
		result.Series = append(result.Series, r.measureBare(o.rounds, o.frames)...)
	}
	if w != ipv4L2 {
		return nil
	}
	if err := r.reach(ipv4GUE); err != nil {
		return err
	}
	o.measureKinds(r, result)
	return nil
}

func (o options) measureKinds(r *rig, result *Result) {
	for _, k := range r.kinds() {
		if o.only != "" && o.only != k.name {
			continue
		}
		fmt.Fprintf(os.Stderr, "%d flows, %s, %s, %d lcores\n", r.flows, r.way.name, k.name, len(r.shards.All))
		result.Series = append(result.Series, r.measureKind(k, o.rounds, o.frames)...)
	}
}

// smallest is the size of a table of which a tenth is a burst.
const smallest = 10 * burst

func parseSizes(text string) ([]uint64, error) {
	var sizes []uint64
	for s := range strings.SplitSeq(text, ",") {
		n, err := strconv.ParseUint(s, 10, 28)
		if err != nil || n < smallest {
			return nil, fmt.Errorf("table size %q: a number of flows from %d to 2^28 is needed", s, smallest)
		}
		sizes = append(sizes, n)
	}
	return sizes, nil
}
