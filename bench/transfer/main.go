package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"baton/bench/lab"
	"baton/bench/machine"
)

// options are the command line.
type options struct {
	rounds    int
	warmup    int
	pause     time.Duration
	idleSleep string
	bin       string
	out       string
	device    string
	hugepages int
	echo      echoOptions
	accept    string

	rerouted   int // measured rounds of requests that are routed anew
	rerouteOut string
	only       string
}

func main() {
	lab.RunWatcher()
	var o options
	flag.IntVar(&o.rounds, "n", 1000, "measured rounds")
	flag.IntVar(&o.warmup, "warmup", 100, "rounds before, not counted")
	flag.DurationVar(&o.pause, "pause", 500*time.Microsecond, "wait before each measurement")
	flag.StringVar(&o.idleSleep, "idle-sleep", "", "the forwarder's data.idle.sleep; \"\": its default")
	flag.StringVar(&o.bin, "bin", "bin", "directory of baton, baton-target and batonctl")
	flag.StringVar(&o.out, "out", filepath.Join("bench", "results", "transfer.json"), "result file")
	flag.StringVar(&o.device, "device", "net_af_xdp", "DPDK driver of the data port")
	flag.IntVar(&o.hugepages, "hugepages", 0, "2 MiB hugepages to reserve for the forwarder; 0: it does without any")
	flag.IntVar(&o.rerouted, "reroutes", 300, "measured rounds of requests that are routed anew")
	flag.StringVar(&o.rerouteOut, "reroute-out", filepath.Join("bench", "results", "reroute.json"), "result file of those")
	flag.StringVar(&o.only, "only", "", "transfer or reroute; \"\": both")
	o.echo.register()
	flag.StringVar(&o.accept, "accept", "", "only accept what is offered at this control socket (internal)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	work := func() error {
		if o.only != "reroute" {
			if err := measure(ctx, o); err != nil {
				return err
			}
		}
		if o.only != "transfer" {
			return measureReroute(ctx, o)
		}
		return nil
	}
	switch {
	case o.echo.router != "":
		work = func() error { return o.echo.run(ctx) }
	case o.accept != "":
		work = func() error { return acceptAll(ctx, o.accept) }
	}
	if err := work(); err != nil {
		fmt.Fprintln(os.Stderr, "bench-transfer:", err)
		os.Exit(1)
	}
}

// measure measures all ways, and writes the result.
func measure(ctx context.Context, o options) (err error) {
	if err := lab.CleanupStale(); err != nil {
		return err
	}
	result := Result{Time: time.Now().UTC(), Rounds: o.rounds, PauseUS: inMicros(o.pause), IdleSleep: o.idleSleep}
	if result.Commit, result.Modified, err = machine.Commit(ctx, ":!bench"); err != nil {
		return err
	}
	if result.Series, result.Machine, err = measureWay(ctx, o, offered); err != nil {
		return err
	}
	if result.Asked, _, err = measureWay(ctx, o, asked); err != nil {
		return fmt.Errorf("accepted by an application: %w", err)
	}
	if result.Unconditional, _, err = measureWay(ctx, o, unconditional); err != nil {
		return fmt.Errorf("unconditional: %w", err)
	}
	result.Machine.LoadAfter = machine.Load()
	result.judge()
	result.print(os.Stdout)
	return write(o.out, result)
}

// measureWay measures in a laboratory of its own.
func measureWay(ctx context.Context, o options, w way) (s *series, m Machine, err error) {
	l, err := lab.New(lab.Options{Targets: 1, Hugepages: o.hugepages})
	if err != nil {
		return nil, m, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	b, err := newBench(ctx, l, o, w)
	if err != nil {
		return nil, m, err
	}
	defer func() { err = errors.Join(err, b.stop()) }()
	if m, err = b.machine(ctx); err != nil {
		return nil, m, err
	}
	s, err = b.run(ctx)
	return s, m, err
}
