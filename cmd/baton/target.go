package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"baton/cmd/internal/daemon"
	"baton/control/admin"
	"baton/control/agent"
	"baton/control/config"
	"baton/control/metrics"
	"baton/control/userstack"
	"baton/control/xcf"
	"baton/fastpath"
)

// This file is the other role: a target host that continues connections in userspace.

// The forwarder is the stack's data plane.
var _ userstack.Dataplane = (*fastpath.Forwarder)(nil)

func runTarget(cmd *cobra.Command, cfg *config.UserTarget) error {
	log := daemon.Log(cfg.Log)
	for _, w := range cfg.Warnings() {
		log.Warn("configuration", "warning", w)
	}
	if err := refuse(examineTarget(cfg)); err != nil {
		return err
	}
	socket, err := admin.Listen(cfg.Admin.Socket) // first: a second daemon ends here, before it touches a port
	if err != nil {
		return err
	}
	defer func() { _ = socket.Close() }()
	h := &targetHost{cfg: cfg, log: log, started: time.Now()}
	if err := h.open(); err != nil {
		return err
	}
	defer func() { _ = h.forwarder.Close() }()
	return h.serve(cmd.Context(), socket)
}

// examineTarget checks the host against the configuration.
func examineTarget(cfg *config.UserTarget) ([]admin.Finding, error) {
	view, err := readHost()
	if err != nil {
		return nil, fmt.Errorf("look at the host: %w", err)
	}
	var p plan
	for _, j := range cfg.Jobs {
		p.dvipas = append(p.dvipas, j.Address)
	}
	for _, port := range cfg.Data.Ports {
		p.devices = append(p.devices, port.Device)
	}
	files := xcf.Files{CA: cfg.XCF.CA, Cert: cfg.XCF.Cert, Key: cfg.XCF.Key}
	return append(checkNetwork(p, view), checkCertificate(files, xcf.RoleTarget, cfg.Host)), nil
}

// targetHost is the running daemon.
type targetHost struct {
	cfg       *config.UserTarget
	log       *slog.Logger
	started   time.Time
	forwarder *fastpath.Forwarder
	stack     *userstack.Stack
	agent     *agent.Agent
	apps      *daemon.TargetApps
	metrics   *metrics.Target
	links     *links
}

// open makes all parts; none of them does anything yet.
func (h *targetHost) open() error {
	fc, err := targetFastpath(h.cfg)
	if err != nil {
		return err
	}
	if h.forwarder, err = fastpath.Open(fc); err != nil {
		return fmt.Errorf("open data ports: %w", err)
	}
	warnNoInterrupts(h.forwarder, h.log)
	h.links = &links{ports: h.forwarder.Ports, log: h.log}
	if err := h.connect(); err != nil {
		_ = h.forwarder.Close()
		return err
	}
	return nil
}

// connect makes the stack with its jobs, and the agent above it.
func (h *targetHost) connect() error {
	var jobs, asked []agent.Job
	for _, j := range h.cfg.Jobs {
		jobs = append(jobs, agent.Job{Name: j.Name, Service: netip.AddrPortFrom(j.Address, j.Port)})
		if j.Asks() {
			asked = append(asked, jobs[len(jobs)-1])
		}
	}
	var err error
	if h.apps, err = daemon.OpenTargetApps(h.cfg.Host, h.cfg.Apps, h.cfg.XCF, asked, h.log); err != nil {
		return err
	}
	h.stack = userstack.New(userstack.Config{
		Ports: len(h.cfg.Data.Ports), Gateway: h.cfg.Gateway, Jobs: jobs, Window: h.cfg.Limits.Window,
		MaxConns: h.cfg.Limits.Connections, Clock: time.Now, Log: h.log,
	}, h.forwarder)
	for i, j := range h.cfg.Jobs {
		relay := &userstack.Relay{Network: j.Network(), Address: j.Socket, ProxyProtocol: bool(j.ProxyProtocol), Log: h.log}
		if err := h.stack.Relay(jobs[i], relay); err != nil {
			return err
		}
	}
	h.metrics = metrics.NewTarget(h.sample)
	h.agent, err = agent.New(agent.Config{
		Host: h.cfg.Host, Software: "baton " + daemon.Version(), XCF: h.cfg.XCF, Jobs: jobs, Log: h.log,
		Limits:       config.Limits{Reservations: h.cfg.Limits.Reservations, BacklogRetry: h.cfg.Limits.BacklogRetry},
		Applications: h.apps.Agent(), Notes: h.apps.Notes, Observe: h.metrics.Imported,
	}, h.stack)
	h.apps.Notes.Use(h.agent)
	return err
}

// serve starts the forwarder and runs everything else beside it.
func (h *targetHost) serve(ctx context.Context, socket net.Listener) error {
	if err := h.forwarder.Start(); err != nil {
		return err
	}
	h.log.Info("target host runs in userspace", "host", h.cfg.Host, "version", daemon.Version(), "jobs", len(h.cfg.Jobs),
		"admin", socket.Addr())
	err := daemon.Together(ctx,
		h.stack.Run,
		h.links.watch,
		func(ctx context.Context) error { h.agent.Run(ctx); return nil },
		h.apps.Run,
		func(ctx context.Context) error { return admin.Serve(ctx, socket, h.source()) },
		func(ctx context.Context) error { return metrics.Serve(ctx, h.cfg.Metrics.Listen, h.metrics.Registry()) },
	)
	h.log.Info("target host ends, and its connections with it", "err", err)
	return err
}

// source is what batonctl sees.
func (h *targetHost) source() admin.Source {
	return admin.Source{
		Version: func(context.Context) (admin.Version, error) {
			return daemon.Describe("baton", h.cfg.Host, h.started), nil
		},
		Counters: func(context.Context) ([]admin.Counter, error) { return h.counters(), nil },
		Ports:    func(context.Context) ([]admin.Port, error) { return ports(h.forwarder, h.links), nil },
		Lcores:   func(context.Context) ([]admin.Lcore, error) { return lcores(h.forwarder), nil },
		Flows:    func(context.Context) ([]admin.Flow, error) { return h.agent.Flows(), nil },
		Doctor:   func(context.Context) ([]admin.Finding, error) { return examineTarget(h.cfg) },

		Applications: h.apps.List,
	}
}

// counters are the forwarder's, the agent's and the stack's.
func (h *targetHost) counters() []admin.Counter {
	return slices.Concat(forwarderCounters(h.forwarder), h.agent.Counters(), admin.Counters("stack", h.stack.Counts()),
		admin.Counters("message", h.apps.Notes.Counts()), h.apps.Counters())
}

// sample is what Prometheus sees. The forwarder is the guard of this kind of target.
func (h *targetHost) sample() metrics.TargetSample {
	s := h.agent.Sample()
	s.Messages = h.apps.Notes.Counts()
	s.GuardDrops = map[string]uint64{}
	for _, c := range h.forwarder.Counters() {
		if c.Group == "drops" {
			s.GuardDrops[c.Name] = c.Value
		}
	}
	return s
}

// targetFastpath is the forwarder's configuration: its services only adopt, so cookies, windows and the limits of clients,
// which the routing host has applied, do not matter. A connection never ages; an ended one is forgotten at once.
func targetFastpath(cfg *config.UserTarget) (fastpath.Config, error) {
	c, err := portsConfig(cfg.Data)
	if err != nil {
		return c, err
	}
	c.IPv4Entries, c.IPv6Entries, c.RouterFlows = cfg.Limits.Connections, cfg.Limits.Connections, cfg.Limits.Connections
	c.RouterIdle = -1
	known := map[netip.AddrPort]bool{}
	for _, j := range cfg.Jobs { // several jobs may be on one service
		addr := netip.AddrPortFrom(j.Address, j.Port)
		if !known[addr] {
			known[addr] = true
			c.Services = append(c.Services, fastpath.Service{ID: uint16(len(c.Services) + 1), Addr: addr, Adopts: true})
		}
	}
	return c, nil
}
