package main

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"baton/control/admin"
	"baton/control/config"
	"baton/control/inspect"
	"baton/control/router"
	"baton/control/tcp"
	"baton/control/xcf"
	"baton/fastpath"
	"baton/fastpath/flow"
)

// This file translates the configuration into what each part wants.

// examine checks the host against the configuration.
func examine(cfg *config.Router) ([]admin.Finding, error) {
	p, err := planOf(cfg)
	if err != nil {
		return nil, err
	}
	view, err := readHost()
	if err != nil {
		return nil, fmt.Errorf("look at the host: %w", err)
	}
	return append(check(p, view), checkCertificate(xcfFiles(cfg), xcf.RoleRouter, cfg.Host)), nil
}

func planOf(cfg *config.Router) (plan, error) {
	listen, err := listenAddress(cfg.XCF.Listen)
	if err != nil {
		return plan{}, err
	}
	p := plan{xcf: listen}
	for _, d := range cfg.DVIPAs {
		p.dvipas = append(p.dvipas, d.Address)
		headers := 40 // IPv4 and TCP without options; RFC 6691: the MSS leaves room for no options
		if d.Address.Is6() {
			headers = 60
		}
		for i := range d.Ports {
			if d.Ports[i].Conventional() {
				continue // the targets announce their own
			}
			p.packet = max(p.packet, int(cfg.AnnouncedMSS(d, &d.Ports[i]))+headers)
		}
	}
	for _, port := range cfg.Data.Ports {
		p.devices = append(p.devices, port.Device)
	}
	return p, nil
}

// listenAddress reads "host:port"; an empty host is the unspecified address, a name is looked up.
func listenAddress(s string) (netip.AddrPort, error) {
	a, err := net.ResolveTCPAddr("tcp", s)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("xcf.listen: %w", err)
	}
	if a.IP == nil {
		return netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(a.Port)), nil
	}
	ap := a.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}

func xcfFiles(cfg *config.Router) xcf.Files {
	return xcf.Files{CA: cfg.XCF.CA, Cert: cfg.XCF.Cert, Key: cfg.XCF.Key}
}

// checkCertificate refuses a certificate by which no peer would know this host.
func checkCertificate(files xcf.Files, role xcf.Role, host string) admin.Finding {
	if _, err := files.Check(role, host); err != nil {
		return admin.Finding{Check: "certificate", Detail: err.Error()}
	}
	detail := fmt.Sprintf("%s is the %s %s", files.Cert, role, host)
	return admin.Finding{Check: "certificate", OK: true, Detail: detail}
}

// fastpathConfig is the forwarder's, without the secrets of its cookies.
func fastpathConfig(cfg *config.Router) (fastpath.Config, error) {
	c, err := portsConfig(cfg.Data)
	if err != nil {
		return c, err
	}
	setTable(&c, cfg.CRT)
	for _, s := range services(cfg) {
		how, err := flow.ParseDistribution(s.port.Distribute)
		if err != nil {
			return c, fmt.Errorf("service %s: %w", s.addr, err)
		}
		id := uint16(len(c.Services) + 1)
		if how.Conventional() {
			c.Services = append(c.Services, fastpath.Service{ID: id, Addr: s.addr, Distribution: how})
			continue
		}
		app, err := cfg.NewApplication(s.port)
		if err != nil {
			return c, fmt.Errorf("routing application of %s: %w", s.addr, err)
		}
		c.Services = append(c.Services, fastpath.Service{ID: id, Addr: s.addr,
			OwnMSS: s.mss, Window: tcp.FirstWindow(s.port.Window, s.port.WindowScale), Scale: s.port.WindowScale,
			SpeaksFirst: app.SpeaksFirst(), Closed: s.port.External()})
	}
	return c, nil
}

// warnNoInterrupts tells of a port that has not what the configuration asks of it.
func warnNoInterrupts(f *fastpath.Forwarder, log *slog.Logger) {
	if device := f.NoInterrupts(); device != "" {
		log.Warn("data port has no receive interrupts: the idle poll loop naps", "device", device)
	}
}

// portsConfig is the part of a forwarder's configuration that hosts of both roles have.
func portsConfig(d config.Data) (fastpath.Config, error) {
	hugepages, err := fastpath.ParseHugepages(d.Hugepages)
	c := fastpath.Config{
		IdleSpin:   orZero(d.Idle.Spin),
		IdleSleep:  orNever(d.Idle.Sleep),
		Interrupts: d.Idle.Long == "interrupt",
		Lcores:     d.Lcores,
		CPUs:       d.CPUs,
		Hugepages:  hugepages,
		MemoryMB:   d.Memory,
	}
	for _, p := range d.Ports {
		c.Ports = append(c.Ports, fastpath.PortConfig{Device: p.Device, Address: p.Address, VLAN: p.VLAN,
			Exception: p.TAP()})
	}
	return c, err
}

// setTable configures the connection routing table and what goes through it.
func setTable(c *fastpath.Config, t config.CRT) {
	c.IPv4Entries, c.IPv6Entries = t.IPv4Entries, t.IPv6Entries
	c.RouterFlows, c.HeldPackets = t.RouterFlows, t.HeldPackets
	c.SourceFlows, c.SourcePunts, c.Punts = t.SourceFlows, t.SourcePunts, t.Punts
	c.RouterIdle, c.Linger = time.Duration(t.RouterIdle), orZero(t.Linger)
	c.TargetIdle, c.EndedIdle, c.EvictIdle = orNever(t.TargetIdle), orNever(t.EndedIdle), orNever(t.EvictIdle)
	if c.HalfOpen = t.HalfOpen; c.HalfOpen == 0 {
		c.HalfOpen = -1 // none
	}
}

// orZero keeps a configured zero from standing for the forwarder's default: it counts in whole micro- or milliseconds.
func orZero(d config.Duration) time.Duration { return max(time.Duration(d), time.Nanosecond) }

// orNever makes a configured zero the forwarder's "never".
func orNever(d config.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return time.Duration(d)
}

// servicePort is one port of a DVIPA with its address.
type servicePort struct {
	addr netip.AddrPort
	port *config.Port
	mss  uint16 // announced
}

func services(cfg *config.Router) []servicePort {
	var all []servicePort
	for _, d := range cfg.DVIPAs {
		for i := range d.Ports {
			p := &d.Ports[i]
			all = append(all, servicePort{netip.AddrPortFrom(d.Address, p.Port), p, cfg.AnnouncedMSS(d, p)})
		}
	}
	return all
}

// externalServices are those whose applications are in other processes.
func externalServices(cfg *config.Router) (all []netip.AddrPort) {
	for _, s := range services(cfg) {
		if s.port.External() {
			all = append(all, s.addr)
		}
	}
	return all
}

func routerConfig(cfg *config.Router, log *slog.Logger, o router.Observer) (router.Config, error) {
	c := router.Config{
		Epoch: cfg.Epoch, Ports: len(cfg.Data.Ports), MaxConns: cfg.CRT.RouterFlows, Clock: time.Now, Log: log, Observer: o,
		Jobs: map[string][]string{}, Targets: map[string]netip.Addr{}, Tunnels: map[string]router.Tunnel{},
	}
	for name, j := range cfg.Jobs {
		c.Jobs[name] = j.Hosts
	}
	for name, t := range cfg.Targets {
		c.Targets[name] = t.Address
		if kind := t.TunnelKind(); kind != flow.NoTunnel {
			c.Tunnels[name] = router.Tunnel{Kind: kind, Via: t.Via, MTU: t.MTU}
		}
	}
	for _, s := range services(cfg) {
		if s.port.Conventional() {
			service, err := conventionalService(s, cfg.Jobs[s.port.Job])
			if err != nil {
				return c, err
			}
			c.Services = append(c.Services, service)
			continue
		}
		service, err := routerService(cfg, s)
		if err != nil {
			return c, fmt.Errorf("routing application of %s: %w", s.addr, err)
		}
		c.Services = append(c.Services, service)
	}
	return c, nil
}

// conventionalService is a service whose targets answer the handshake.
func conventionalService(s servicePort, job config.Job) (router.Service, error) {
	how, err := flow.ParseDistribution(s.port.Distribute)
	if err != nil {
		return router.Service{}, fmt.Errorf("service %s: %w", s.addr, err)
	}
	weights := map[string]uint16{}
	for host, w := range job.Weights {
		weights[host] = uint16(w) // at most config.MaxWeight
	}
	return router.Service{Address: s.addr, Distribution: how, Job: s.port.Job, Weights: weights}, nil
}

func routerService(cfg *config.Router, s servicePort) (router.Service, error) {
	app, err := cfg.NewApplication(s.port)
	if err != nil {
		return router.Service{}, err
	}
	hold := flow.HoldBuffer
	if s.port.Freeze == "discard" {
		hold = flow.HoldDiscard
	}
	// Windows are announced in units of 2^scale, rounded down at the edge: what a client can send for sure is less than
	// a unit below W. A head that does not end there would otherwise wait for octets that cannot come.
	window := tcp.Readable(s.port.Window, s.port.WindowScale)
	return router.Service{
		Address: s.addr, Window: s.port.Window, Hold: hold, Unconditional: s.port.Transfer == "unconditional", External: s.port.External(),
		Announced:      tcp.FirstWindow(s.port.Window, s.port.WindowScale),
		RequestTimeout: time.Duration(s.port.Timeouts.Request),
		IdleTimeout:    time.Duration(s.port.Timeouts.Idle),
		Reroute:        s.port.Reroutes(),
		OfferTimeout:   time.Duration(s.port.Timeouts.Offer),
		ConfirmTimeout: time.Duration(s.port.Timeouts.Confirm),
		GiveUp:         time.Duration(s.port.Timeouts.GiveUp),
		NewSession:     func() inspect.Session { return app.Session(window) },
		Greets:         app.SpeaksFirst(),
	}, nil
}
