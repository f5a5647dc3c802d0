package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(os.Stdout, os.Stderr).ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "pktgen:", err)
		stop()
		os.Exit(1)
	}
}

// output is where results and progress go.
type output struct {
	out, progress io.Writer
	json, quiet   bool
}

func command(out, progress io.Writer) *cobra.Command {
	var o options
	w := output{out: out, progress: progress}
	root := &cobra.Command{
		Use: "pktgen", Short: "DPDK packet generator and sink",
		SilenceUsage: true, SilenceErrors: true,
	}
	o.flags(root.PersistentFlags())
	root.PersistentFlags().BoolVar(&w.json, "json", false, "print the result as JSON")
	root.PersistentFlags().BoolVarP(&w.quiet, "quiet", "q", false, "no progress")
	root.AddCommand(runCommand(&o, &w), steerCommand(&o, &w), throughputCommand(&o, &w), latencyCommand(&o, &w), lossCommand(&o, &w))
	return root
}

// on opens the rig, runs a measurement on it and prints the report, which has what was measured before an error, too.
func on(cmd *cobra.Command, o *options, w *output, measure func(context.Context, *rig, *Report) error) error {
	r, err := openRig(cmd.Context(), o, w)
	if err != nil {
		return err
	}
	defer r.close()
	report := r.report(cmd.Name())
	err = measure(cmd.Context(), r, report)
	report.Trials = r.trials
	if len(r.trials) > 0 {
		err = errors.Join(err, w.print(report))
	}
	return err
}

func runCommand(o *options, w *output) *cobra.Command {
	var count uint64
	cmd := &cobra.Command{Use: "run", Short: "Send at a rate and count what comes back", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return on(cmd, o, w, func(ctx context.Context, r *rig, _ *Report) error {
				pps, err := r.rate(o.rate)
				if err != nil {
					return err
				}
				_, err = r.trial(ctx, pps, count)
				return err
			})
		}}
	cmd.Flags().Uint64Var(&count, "count", 0, "frames to send; 0: as many as the time allows")
	return cmd
}

func throughputCommand(o *options, w *output) *cobra.Command {
	s := search{}
	cmd := &cobra.Command{Use: "throughput", Short: "Search the highest rate without loss (RFC 2544 26.1)", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return on(cmd, o, w, func(ctx context.Context, r *rig, report *Report) error {
				most, err := r.rate(o.rate)
				if err != nil {
					return err
				}
				if most == 0 {
					return errNeedsRate
				}
				s.most = most
				best, err := s.run(func(pps float64) (Trial, error) { return r.exactTrial(ctx, pps) })
				report.Throughput = best
				return err
			})
		}}
	s.flags(cmd.Flags())
	return cmd
}

func latencyCommand(o *options, w *output) *cobra.Command {
	var trials int
	cmd := &cobra.Command{Use: "latency", Short: "Measure latency at a rate (RFC 2544 26.2)", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return on(cmd, o, w, func(ctx context.Context, r *rig, report *Report) error {
				pps, err := r.rate(o.rate)
				if err != nil {
					return err
				}
				if pps == 0 {
					return errNeedsRate
				}
				for range trials {
					if _, err := r.exactTrial(ctx, pps); err != nil {
						return err
					}
				}
				report.Latency = latencies(r.sum)
				return nil
			})
		}}
	cmd.Flags().IntVar(&trials, "trials", 20, "trials, as RFC 2544 asks for")
	return cmd
}

func lossCommand(o *options, w *output) *cobra.Command {
	var step float64
	cmd := &cobra.Command{Use: "loss", Short: "Measure loss at falling rates until two trials lose nothing (RFC 2544 26.3)",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return on(cmd, o, w, func(ctx context.Context, r *rig, _ *Report) error {
				most, err := r.rate(o.rate)
				if err != nil {
					return err
				}
				if most == 0 {
					return errNeedsRate
				}
				return lossSteps(most, step, func(pps float64) (Trial, error) { return r.exactTrial(ctx, pps) })
			})
		}}
	cmd.Flags().Float64Var(&step, "step", 10, "percent of --rate between two trials")
	return cmd
}

var errNeedsRate = errors.New("--rate must be a number of frames per second or a percentage here: it is the highest one tried")

// drain is how long frames are waited for after the last one was sent, as RFC 2544 23 says.
const drain = 2 * time.Second
