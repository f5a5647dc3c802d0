// Command baton-target is the agent of a target host: it imports live connections into this host's kernel, so that an
// unmodified application gets them from accept(). `baton-target run -c FILE` runs it, `check FILE` checks a
// configuration file, `doctor -c FILE` the host, `cleanup -c FILE` removes what an agent left. See package target.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"baton/control/admin"
	"baton/control/config"
	"baton/control/metrics"
	"baton/control/target"
)

var errUnhealthy = errors.New("the host is not ready; the lines with FAIL say what to set")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := newCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "baton-target:", err)
		stop()
		os.Exit(1)
	}
}

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "baton-target",
		Short:         "Agent of a target host of a Baton cluster",
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(
		withConfig("run", "Run the agent", runAgent),
		doctorCommand(),
		withConfig("cleanup", "Remove what agents left: programs, maps, addresses, settings", cleanup),
		checkCommand(),
	)
	return root
}

// withConfig is a command that takes the configuration file with -c.
func withConfig(use, short string, run func(*cobra.Command, *config.Target) error) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.LoadTarget(path)
			if err != nil {
				return err
			}
			return run(cmd, c)
		},
	}
	cmd.Flags().StringVarP(&path, "config", "c", "", "configuration file; required")
	_ = cmd.MarkFlagRequired("config") // fails only for a flag that is not defined
	return cmd
}

func checkCommand() *cobra.Command {
	return &cobra.Command{
		Use: "check FILE", Short: "Check a configuration file", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := config.LoadTarget(args[0])
			if err != nil {
				return err
			}
			for _, w := range c.Warnings() {
				fmt.Fprintln(cmd.OutOrStdout(), "warning:", w)
			}
			if err := c.CheckFiles(); err != nil { // they may be on the host only that the file is for
				fmt.Fprintln(cmd.OutOrStdout(), "warning:", err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: ok\n", args[0])
			return nil
		},
	}
}

func doctorCommand() *cobra.Command {
	var asJSON bool
	cmd := withConfig("doctor", "Check that this host can be the target host of a configuration",
		func(cmd *cobra.Command, c *config.Target) error {
			return report(cmd.OutOrStdout(), target.Findings(target.Examine(c)), asJSON)
		})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON instead of lines")
	return cmd
}

// report prints findings; errUnhealthy if one of them is not OK.
func report(w io.Writer, findings []admin.Finding, asJSON bool) error {
	var err error
	if slices.ContainsFunc(findings, func(f admin.Finding) bool { return !f.OK }) {
		err = errUnhealthy
	}
	if asJSON {
		return errors.Join(json.NewEncoder(w).Encode(findings), err)
	}
	for _, f := range findings {
		word := "ok  "
		if !f.OK {
			word = "FAIL"
		}
		fmt.Fprintf(w, "%s %s: %s\n", word, f.Check, f.Detail)
	}
	return err
}

// cleanup holds the admin socket meanwhile: with a running agent, or one that starts, it would take the host apart.
func cleanup(_ *cobra.Command, c *config.Target) error {
	socket, err := admin.Listen(c.Admin.Socket)
	if err != nil {
		return fmt.Errorf("stop the agent first: %w", err)
	}
	return errors.Join(target.Cleanup(c.Guard.BPFFS), socket.Close())
}

// runAgent runs the agent until a signal. Guards and connections outlive it.
func runAgent(cmd *cobra.Command, c *config.Target) error {
	log := newLog(c.Log)
	for _, w := range c.Warnings() {
		log.Warn("configuration", "warning", w)
	}
	socket, err := admin.Listen(c.Admin.Socket) // first: a second agent ends here, before it touches the host
	if err != nil {
		return err
	}
	defer func() { _ = socket.Close() }()
	var observed *metrics.Target
	agent, err := target.Open(c, "baton-target "+version(), log, func(outcome string, took time.Duration) {
		observed.Imported(outcome, took)
	})
	if err != nil {
		return err
	}
	observed = metrics.NewTarget(agent.Sample)
	log.Info("target host runs", "host", c.Host, "version", version(), "jobs", len(c.Jobs), "admin", socket.Addr())
	err = serve(cmd.Context(), c, agent, observed, socket)
	log.Info("target host ends, its connections go on", "err", err)
	return errors.Join(err, agent.Close())
}

// serve runs the agent with its admin socket and metrics until ctx ends or one of them fails.
func serve(ctx context.Context, c *config.Target, a *target.Agent, m *metrics.Target, socket net.Listener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var parts sync.WaitGroup
	parts.Go(func() { a.Run(ctx) })
	parts.Go(func() { cancel(admin.Serve(ctx, socket, source(a, c.Host))) })
	parts.Go(func() {
		if err := metrics.Serve(ctx, c.Metrics.Listen, m.Registry()); err != nil {
			cancel(err)
		}
	})
	parts.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func source(a *target.Agent, host string) admin.Source {
	started := time.Now()
	return admin.Source{
		Version: func(context.Context) (admin.Version, error) {
			return admin.Version{Program: "baton-target", Version: version(), Go: runtime.Version(), Host: host,
				PID: os.Getpid(), Started: started}, nil
		},
		Counters: func(context.Context) ([]admin.Counter, error) { return a.Counters(), nil },
		Flows:    func(context.Context) ([]admin.Flow, error) { return a.Flows(), nil },
		Doctor:   func(context.Context) ([]admin.Finding, error) { return a.Doctor(), nil },
	}
}

func newLog(c config.Log) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level)) // the configuration allows only its words
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}

// version is the commit that the program was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return s.Value[:12]
		}
	}
	return info.Main.Version
}
