// Command baton-target is the agent of a target host: it imports live connections into this host's kernel, so that an
// unmodified application gets them from accept(). `baton-target run -c FILE` runs it, `check FILE` checks a
// configuration file, `doctor -c FILE` the host, `cleanup -c FILE` removes what an agent left. See package target.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"baton/cmd/internal/daemon"
	"baton/control/admin"
	"baton/control/agent"
	"baton/control/config"
	"baton/control/metrics"
	"baton/control/target"
)

func main() { daemon.Main(newCommand()) }

func newCommand() *cobra.Command {
	root := &cobra.Command{Use: "baton-target", Short: "Agent of a target host of a Baton cluster"}
	root.AddCommand(
		daemon.WithConfig("run", "Run the agent", config.LoadTarget, runAgent),
		daemon.Check(config.LoadTarget),
		daemon.Doctor("Check that this host can be the target host of a configuration", config.LoadTarget, examine),
		daemon.WithConfig("cleanup", "Remove what agents left: programs, maps, addresses, settings", config.LoadTarget,
			cleanup),
		daemon.VersionCommand(),
	)
	return root
}

func examine(c *config.Target) ([]admin.Finding, error) {
	return target.Findings(target.Examine(c)), nil
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
	log := daemon.Log(c.Log)
	for _, w := range c.Warnings() {
		log.Warn("configuration", "warning", w)
	}
	socket, err := admin.Listen(c.Admin.Socket) // first: a second agent ends here, before it touches the host
	if err != nil {
		return err
	}
	defer func() { _ = socket.Close() }()
	apps, err := daemon.OpenTargetApps(c.Host, c.Apps, c.XCF, target.Asked(c), log)
	if err != nil {
		return err
	}
	kernel, err := target.Open(c, log)
	if err != nil {
		return err
	}
	var observed *metrics.Target
	a, err := agent.New(agent.Config{
		Host: c.Host, Software: "baton-target " + daemon.Version(), XCF: c.XCF, Jobs: target.Jobs(c), Limits: c.Limits,
		Applications: apps.Agent(), Notes: apps.Notes, Lockstep: kernel, Log: log, Observe: func(outcome string, took time.Duration) { observed.Imported(outcome, took) },
	}, kernel)
	if err != nil {
		return errors.Join(err, kernel.Close())
	}
	apps.Notes.Use(a)
	h := &targetHost{c, a, kernel, apps, time.Now()}
	observed = metrics.NewTarget(h.sample)
	log.Info("target host runs", "host", c.Host, "version", daemon.Version(), "jobs", len(c.Jobs), "admin", socket.Addr())
	err = h.serve(cmd.Context(), observed, socket)
	log.Info("target host ends, its connections go on", "err", err)
	return errors.Join(err, kernel.Close())
}

// targetHost is the running daemon.
type targetHost struct {
	config  *config.Target
	agent   *agent.Agent
	kernel  *target.Kernel
	apps    *daemon.TargetApps
	started time.Time
}

// serve runs the agent with its admin socket and metrics until ctx ends or one of them fails.
func (h *targetHost) serve(ctx context.Context, m *metrics.Target, socket net.Listener) error {
	return daemon.Together(ctx,
		daemon.While(h.agent.Run, h.apps.Run), // applications hear what became of their gifts
		func(ctx context.Context) error { return admin.Serve(ctx, socket, h.source()) },
		func(ctx context.Context) error { return metrics.Serve(ctx, h.config.Metrics.Listen, m.Registry()) },
	)
}

func (h *targetHost) source() admin.Source {
	return admin.Source{
		Version: func(context.Context) (admin.Version, error) {
			return daemon.Describe("baton-target", h.config.Host, h.started), nil
		},
		Counters: func(context.Context) ([]admin.Counter, error) {
			return slices.Concat(h.kernel.GuardCounters(), h.kernel.LockstepCounters(), h.kernel.CloseCounters(), h.agent.Counters(),
				admin.Counters("message", h.apps.Notes.Counts()), h.apps.Counters()), nil
		},
		Applications: h.apps.List,
		Flows:        func(context.Context) ([]admin.Flow, error) { return h.agent.Flows(), nil },
		Doctor:       func(context.Context) ([]admin.Finding, error) { return examine(h.config) },
	}
}

// sample is what Prometheus sees.
func (h *targetHost) sample() metrics.TargetSample {
	s := h.agent.Sample()
	guards := h.kernel.Guards()
	s.GuardDrops, s.Decapsulated = guards.Drops(), guards.Decapsulated
	s.Lockstep = h.kernel.Lockstep().Events()
	s.Closes = h.kernel.Closes()
	s.Messages = h.apps.Notes.Counts()
	return s
}
