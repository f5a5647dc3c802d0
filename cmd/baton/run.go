package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"baton/cmd/internal/daemon"
	"baton/control/admin"
	"baton/control/appsock"
	"baton/control/config"
	"baton/control/exception"
	"baton/control/metrics"
	"baton/control/router"
	"baton/control/transfer"
	"baton/control/xcf"
	"baton/fastpath"
)

// The forwarder is the router's data plane.
var _ router.Dataplane = (*fastpath.Forwarder)(nil)

func runRouter(cmd *cobra.Command, cfg *config.Router) error {
	log := daemon.Log(cfg.Log)
	for _, w := range cfg.Warnings() {
		log.Warn("configuration", "warning", w)
	}
	if err := refuse(examine(cfg)); err != nil {
		return err
	}
	return run(cmd.Context(), cfg, log)
}

// refuse takes what was found at the host, and returns an error that says what to set when the host cannot have its role.
func refuse(findings []admin.Finding, err error) error {
	if err != nil {
		return err
	}
	for _, f := range findings {
		if !f.OK {
			err = errors.Join(err, fmt.Errorf("%s: %s", f.Check, f.Detail))
		}
	}
	return err
}

// routingHost is the running daemon.
type routingHost struct {
	cfg       *config.Router
	log       *slog.Logger
	started   time.Time
	forwarder *fastpath.Forwarder
	router    *router.Router
	targets   *xcf.Server
	apps      *appsock.Routing // nil if nobody may register
	notes     *appsock.Notes
	metrics   *metrics.Router
	links     *links
	keys      *keyring
	passwords passwords
	kernel    map[uint16]*exception.Path // by data port
}

// run runs the routing host until ctx ends or a part of it fails.
func run(ctx context.Context, cfg *config.Router, log *slog.Logger) error {
	socket, err := admin.Listen(cfg.Admin.Socket) // first: a second daemon ends here, before it touches a port
	if err != nil {
		return err
	}
	defer func() { _ = socket.Close() }()
	d := &routingHost{cfg: cfg, log: log, started: time.Now()}
	if err := d.open(); err != nil {
		return err
	}
	defer func() { _ = d.forwarder.Close() }()
	return d.serve(ctx, socket)
}

// serve starts the forwarder and runs everything else beside it.
func (d *routingHost) serve(ctx context.Context, socket net.Listener) error {
	if err := d.forwarder.Start(); err != nil {
		return errors.Join(err, d.targets.Close(), d.closeExceptions())
	}
	d.log.Info("routing host runs", "host", d.cfg.Host, "version", daemon.Version(), "services", len(services(d.cfg)),
		"xcf", d.targets.Addr(), "admin", socket.Addr())
	err := daemon.Together(ctx,
		d.router.Run,
		d.targets.Serve,
		d.serveApplications,
		d.links.watch,
		d.keys.watch,
		d.passwords.run,
		d.runExceptions,
		func(ctx context.Context) error { return admin.Serve(ctx, socket, d.source()) },
		func(ctx context.Context) error { return metrics.Serve(ctx, d.cfg.Metrics.Listen, d.metrics.Registry()) },
	)
	d.log.Info("routing host ends", "err", err)
	return err
}

// serveApplications serves control sockets.
func (d *routingHost) serveApplications(ctx context.Context) error {
	if d.apps == nil {
		<-ctx.Done()
		return nil
	}
	sockets, err := daemon.ControlSockets(d.cfg.Apps)
	if err != nil {
		return err
	}
	return d.apps.Run(ctx, sockets)
}

// open makes all parts; none of them does anything yet.
func (d *routingHost) open() error {
	fc, err := fastpathConfig(d.cfg)
	if err != nil {
		return err
	}
	d.metrics = metrics.NewRouter(d.sample)
	rc, err := routerConfig(d.cfg, d.log, d.metrics)
	if err != nil {
		return err
	}
	d.notes = appsock.NewNotes(d.cfg.Host, nil, d.log)
	if d.passwords, err = openPasswords(d.cfg, &rc, d.log); err != nil {
		return err
	}
	if len(d.cfg.Apps.Allow) > 0 {
		d.apps = appsock.NewRouting(d.cfg.Host, externalServices(d.cfg), d.notes, d.log)
		rc.Applications = d.apps
	}
	if d.forwarder, err = fastpath.Open(fc); err != nil {
		return fmt.Errorf("open data ports: %w", err)
	}
	warnNoInterrupts(d.forwarder, d.log)
	if err := d.openExceptions(&rc); err != nil {
		_ = d.forwarder.Close()
		return err
	}
	d.links = &links{ports: d.forwarder.Ports, log: d.log}
	if d.keys, err = openKeyring(d.cfg.Keys, d.log, d.forwarder.SetSecrets); err == nil {
		err = d.connect(rc)
	}
	if err != nil {
		_ = d.forwarder.Close()
		return errors.Join(err, d.closeExceptions())
	}
	return nil
}

func (d *routingHost) connect(rc router.Config) (err error) {
	if d.router, err = router.New(rc, d.forwarder, sender{d}); err != nil {
		return err
	}
	if d.apps != nil {
		d.apps.Use(d.router)
	}
	software := fmt.Sprintf("baton %s", daemon.Version())
	c := xcf.Config{Name: d.cfg.Host, Files: xcfFiles(d.cfg), Software: software, Epoch: d.cfg.Epoch}
	if d.targets, err = xcf.Listen(d.cfg.XCF.Listen, c, receiver{d.router, d.notes, d.log}, d.log); err != nil {
		return err
	}
	d.notes.Use(d.targets)
	return nil
}

// sender is the router's way to the targets. The server is there before the router sends anything.
type sender struct{ d *routingHost }

// Send implements router.Cluster.
func (s sender) Send(host string, m transfer.Message) error {
	return s.d.targets.Send(host, xcf.Pack(m))
}

// receiver tells the router what comes from the targets.
type receiver struct {
	router *router.Router
	notes  *appsock.Notes
	log    *slog.Logger
}

// Up implements xcf.Handler.
func (r receiver) Up(p *xcf.Peer) { r.router.HostUp(p.Name()) }

// Down implements xcf.Handler.
func (r receiver) Down(p *xcf.Peer, _ error) { r.router.HostDown(p.Name()) }

// Message implements xcf.Handler. A message that makes no sense ends the stream: its sender is broken.
func (r receiver) Message(p *xcf.Peer, e *xcf.Envelope) {
	if jobs := e.GetJobs(); jobs != nil {
		r.router.HostJobs(p.Name(), r.jobs(p, jobs))
		return
	}
	if r.notes.Heard(p.Name(), e) {
		return
	}
	m, err := xcf.Unpack(e)
	switch {
	case err != nil:
		r.log.Error("xcf: target sends nonsense", "host", p.Name(), "err", err)
		p.Close()
	case m != nil:
		r.router.HostSays(p.Name(), m)
	}
}

func (r receiver) jobs(p *xcf.Peer, jobs *xcf.Jobs) []router.Job {
	var rows []router.Job
	for _, j := range jobs.GetJobs() {
		addr, ok := netip.AddrFromSlice(j.GetAddress())
		if !ok || j.GetPort() > math.MaxUint16 {
			r.log.Error("xcf: target announces nonsense", "host", p.Name(), "job", j.GetName())
			continue
		}
		rows = append(rows, router.Job{
			Name: j.GetName(), Service: netip.AddrPortFrom(addr.Unmap(), uint16(j.GetPort())),
			Ready: j.GetReady(), Reason: j.GetReason(), Window: j.GetWindow(), Direct: j.GetDirect(),
		})
	}
	return rows
}
