package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"baton/cmd/internal/daemon"
	"baton/control/admin"
	"baton/control/metrics"
	"baton/control/router"
	"baton/control/xcf"
	"baton/fastpath"
	"baton/fastpath/flow"
)

// This file shows the daemon to operators and to Prometheus.

// patience bounds how long a scrape waits for the event loop.
const patience = time.Second

// source is what batonctl sees.
func (d *routingHost) source() admin.Source {
	return admin.Source{
		Version: func(context.Context) (admin.Version, error) {
			return daemon.Describe("baton", d.cfg.Host, d.started.UTC()), nil
		},
		CRT:       d.crt,
		Targets:   d.showTargets,
		Services:  d.services,
		Drain:     d.drain,
		Transfers: d.transfers,
		Counters:  d.counters,
		Ports:     d.ports,
		Lcores:    d.lcores,
		Keys:      d.keys.show,
		Rotate:    d.keys.rotate,
		Doctor:    func(context.Context) ([]admin.Finding, error) { return examine(d.cfg) },

		Applications: d.applications,
	}
}

// applications lists those that are registered; there are none without a control socket.
func (d *routingHost) applications(context.Context) ([]admin.Application, error) {
	if d.apps == nil {
		return []admin.Application{}, nil
	}
	return d.apps.Registered(), nil
}

// crt scans the whole table for each page: operators ask rarely, and the loop is not disturbed.
func (d *routingHost) crt(_ context.Context, q admin.CRTQuery) (admin.CRTPage, error) {
	selected, err := newSelection(q, d.router.OwnerName)
	if err != nil {
		return admin.CRTPage{}, err
	}
	page := admin.CRTPage{Entries: []admin.CRTEntry{}, Offset: q.Offset}
	for _, t := range d.forwarder.Tables() {
		page.Capacity += int(t.Capacity)
	}
	for _, e := range d.forwarder.Snapshot() {
		page.Total++
		if !selected.has(&e) {
			continue
		}
		if page.Matching++; page.Matching > q.Offset && len(page.Entries) < q.Limit {
			page.Entries = append(page.Entries, admin.CRTEntry{
				Client: e.Tuple.Client.String(), Service: e.Tuple.Service.String(), Owner: d.router.OwnerName(e.Owner),
				State: e.State.String(), Idle: e.Idle.Seconds(),
			})
		}
	}
	return page, nil
}

// selection is a query, parsed.
type selection struct {
	client, service netip.AddrPort // zero: any; port 0: any
	owner           string
	ownerName       func(flow.OwnerID) string
}

func newSelection(q admin.CRTQuery, ownerName func(flow.OwnerID) string) (s selection, err error) {
	s.owner, s.ownerName = q.Owner, ownerName
	if s.client, err = parseEnd("client", q.Client); err != nil {
		return s, err
	}
	s.service, err = parseEnd("service", q.Service)
	return s, err
}

// parseEnd reads an address, or an address and a port.
func parseEnd(what, text string) (netip.AddrPort, error) {
	if text == "" {
		return netip.AddrPort{}, nil
	}
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.AddrPortFrom(a.Unmap(), 0), nil
	}
	ap, err := netip.ParseAddrPort(text)
	if err != nil {
		return ap, fmt.Errorf("%w: %s %q is neither an address nor address:port", admin.ErrBadQuery, what, text)
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}

func (s *selection) has(e *fastpath.Entry) bool {
	return matches(s.client, e.Tuple.Client) && matches(s.service, e.Tuple.Service) &&
		(s.owner == "" || s.owner == s.ownerName(e.Owner))
}

func matches(want, have netip.AddrPort) bool {
	return (!want.IsValid() || want.Addr() == have.Addr()) && (want.Port() == 0 || want.Port() == have.Port())
}

func (d *routingHost) showTargets(ctx context.Context) ([]admin.Target, error) {
	snap, err := d.router.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	rtt := map[string]time.Duration{}
	for _, s := range d.targets.Stats() {
		rtt[s.Host] = s.RTT
	}
	rows := []admin.Target{}
	for _, t := range snap.Targets {
		rows = append(rows, showTarget(t, rtt[t.Host]))
	}
	return rows, nil
}

func showTarget(t router.TargetStatus, rtt time.Duration) admin.Target {
	row := admin.Target{
		Host: t.Host, Job: t.Job.Name, Ready: t.Unfit == "", Reason: t.Unfit, Connected: t.Connected,
		Draining: t.Draining,
		Address:  t.Address.String(), Window: t.Job.Window, RTT: rtt.Seconds(), Pending: t.Pending, Active: t.Active,
	}
	if t.Tunnel.Kind != flow.NoTunnel {
		row.Tunnel = t.Tunnel.Kind.String()
	}
	if t.Job.Service.IsValid() {
		row.Service = t.Job.Service.String()
	}
	if t.Known {
		row.MAC = t.MAC.String()
	}
	return row
}

func (d *routingHost) services(ctx context.Context) ([]admin.Service, error) {
	status, err := d.router.Services(ctx)
	if err != nil {
		return nil, err
	}
	rows := []admin.Service{}
	connections := map[netip.AddrPort]map[flow.OwnerID]int{}
	for _, s := range status {
		addr := s.Service.Address
		if connections[addr] == nil {
			connections[addr] = d.forwarder.Connections(addr)
		}
		rows = append(rows, admin.Service{
			Service: addr.String(), Distribute: s.Service.Distribution.String(), Job: s.Job, Target: s.Host,
			Ready: s.Host != "" && s.Unfit == "", Reason: s.Unfit, Weight: int(s.Weight),
			Connections: connections[addr][s.Owner],
		})
	}
	return rows, nil
}

func (d *routingHost) drain(ctx context.Context, target string, drain bool) error {
	err := d.router.Drain(ctx, target, drain)
	if errors.Is(err, router.ErrNoTarget) {
		return fmt.Errorf("%w: %w", admin.ErrBadQuery, err)
	}
	return err
}

func (d *routingHost) transfers(ctx context.Context) ([]admin.Transfer, error) {
	recent, err := d.router.Recent(ctx)
	if err != nil {
		return nil, err
	}
	rows := []admin.Transfer{}
	for _, a := range recent {
		row := admin.Transfer{
			Time: a.Time.UTC(), Client: a.Inc.Client.String(), Service: a.Inc.Service.String(), Job: a.Job, Target: a.Target,
			Outcome: a.Outcome, Reason: a.Reason, Bytes: a.Bytes, Held: a.Held, Phases: map[string]float64{},
			Total: a.Total.Seconds(),
		}
		for p, took := range a.Phases {
			row.Phases[router.Phase(p).String()] = took.Seconds()
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func (d *routingHost) counters(ctx context.Context) ([]admin.Counter, error) {
	rows := forwarderCounters(d.forwarder)
	if d.apps != nil {
		rows = append(rows, d.apps.Counters()...)
	}
	snap, err := d.router.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range snap.Counts.Totals() {
		rows = append(rows, admin.Counter{Group: "router", Name: c.Name, Value: c.Value})
	}
	for _, s := range d.targets.Stats() {
		group := "xcf " + s.Host
		rows = append(rows, admin.Counter{Group: group, Name: "streams", Value: s.Streams},
			admin.Counter{Group: group, Name: "sent", Value: s.Sent},
			admin.Counter{Group: group, Name: "received", Value: s.Received},
			admin.Counter{Group: group, Name: "refused", Value: s.Refused})
	}
	return append(rows, admin.Counters("message", d.notes.Counts())...), nil
}

func forwarderCounters(f *fastpath.Forwarder) []admin.Counter {
	rows := []admin.Counter{}
	for _, c := range f.Counters() {
		rows = append(rows, admin.Counter{Group: singular(c.Group), Name: c.Name, Value: c.Value})
	}
	return rows
}

// singular is the name of a group of the forwarder's counters as batonctl has it: "drop checksum 3".
func singular(group string) string { return strings.TrimSuffix(group, "s") }

func (d *routingHost) ports(context.Context) ([]admin.Port, error) {
	return ports(d.forwarder, d.links), nil
}

// ports lists data ports; l counts the changes of their links, if anything does.
func ports(f *fastpath.Forwarder, l *links) []admin.Port {
	rows := []admin.Port{}
	for i, p := range f.Ports() {
		rows = append(rows, admin.Port{
			Name: p.Device, Driver: p.Driver, MAC: p.MAC.String(), Address: p.Address.String(), Up: p.Up,
			Changes:   l.changes(i),
			RxPackets: p.RxPackets, TxPackets: p.TxPackets, RxBytes: p.RxBytes, TxBytes: p.TxBytes, Stats: p.Stats,
		})
	}
	return rows
}

func (d *routingHost) lcores(context.Context) ([]admin.Lcore, error) { return lcores(d.forwarder), nil }

func lcores(f *fastpath.Forwarder) []admin.Lcore {
	rows := []admin.Lcore{}
	for i, l := range f.Loops() {
		rows = append(rows, admin.Lcore{
			Index: i, Share: l.Share, Busy: l.Busy.Seconds(), Idle: l.Idle.Seconds(), Polls: l.Polls, Gap: l.Gap.Seconds(),
			GapMax: l.GapMax.Seconds(), Entries: l.Entries, Flows: l.Flows, Accepted: l.Count("handshakes", "accepted"),
			Forwarded: l.Count("packets", "forwarded"), Passed: l.Count("packets", "passed"),
		})
	}
	return rows
}

// sample is what Prometheus sees. A router that does not answer in time is left out; the forwarder goes on without it.
func (d *routingHost) sample() metrics.RouterSample {
	s := metrics.RouterSample{Drops: map[string]uint64{}, Punts: map[string]uint64{}, Handshakes: map[string]uint64{},
		Packets: map[string]uint64{}, Commands: map[string]uint64{}, Forgotten: map[string]uint64{},
		Events: map[string]uint64{}}
	groups := map[string]map[string]uint64{"drops": s.Drops, "punts": s.Punts, "handshakes": s.Handshakes,
		"packets": s.Packets, "commands": s.Commands, "table": s.Forgotten}
	for _, c := range d.forwarder.Counters() {
		if g := groups[c.Group]; g != nil {
			g[c.Name] = c.Value
		}
	}
	for i, p := range d.forwarder.Ports() {
		s.Ports = append(s.Ports, metrics.Port{Name: p.Device, RxPackets: p.RxPackets, TxPackets: p.TxPackets,
			RxBytes: p.RxBytes, TxBytes: p.TxBytes, Up: p.Up, LinkChanges: d.links.changes(i)})
	}
	for _, l := range d.forwarder.Loops() {
		s.Lcores = append(s.Lcores, metrics.Lcore{Share: l.Share, Busy: l.Busy, Idle: l.Idle, Polls: l.Polls, Gap: l.Gap,
			GapMax: l.GapMax, Waits: l.Waits})
	}
	for _, t := range d.forwarder.Tables() {
		s.Tables = append(s.Tables, metrics.Table(t))
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if snap, err := d.router.Snapshot(ctx); err == nil {
		s.Flows = snap.Conns
		for _, c := range snap.Counts.Totals() {
			s.Events[c.Name] = c.Value
		}
	}
	s.Services = d.shares(ctx)
	s.Peers = d.peers(d.targets.Stats())
	s.Messages = d.notes.Counts()
	return s
}

// shares are the targets of conventional services.
func (d *routingHost) shares(ctx context.Context) (all []metrics.Share) {
	rows, err := d.services(ctx)
	if err != nil {
		return nil
	}
	for _, r := range rows {
		if r.Target != "" {
			all = append(all, metrics.Share{Service: r.Service, Target: r.Target, Ready: r.Ready, Weight: r.Weight,
				Connections: r.Connections})
		}
	}
	return all
}

// peers are all targets that are configured, those included that never came.
func (d *routingHost) peers(stats []xcf.Stats) []metrics.Peer {
	byHost := map[string]xcf.Stats{}
	for _, s := range stats {
		byHost[s.Host] = s
	}
	var all []metrics.Peer
	for host := range d.cfg.Targets {
		all = append(all, metrics.Peer{Host: host, Up: byHost[host].Up, RTT: byHost[host].RTT})
	}
	return all
}
