package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"time"

	"baton/control/admin"
	"baton/control/xcf"
)

// Cluster says how Baton is to run in a lab: one routing host and its targets. Zero fields are the defaults of the
// configuration files, unless they say otherwise.
type Cluster struct {
	Device    string // DPDK driver of the data port: "net_af_xdp" ("") or "net_af_packet"
	Arguments string // further ones of the data port's device: "qpairs=2"
	Hugepages string // auto, always or never; "" is auto in a lab that has hugepages, never elsewhere
	Rules     []Rule // first match wins
	Default   string // job of requests that match no rule; "" refuses them
	Jobs      []Job
	Services  []Service     // on further ports
	Request   time.Duration // timeout of a request head; like the other timeouts, of all services
	Offer     time.Duration // timeout of an offer
	Confirm   time.Duration // timeout of a confirmation
	GiveUp    time.Duration // timeout of everything after a commit
	Window    int           // W
	Freeze    string        // buffer or discard
	Transfer  string        // offered or unconditional
	Reroute   bool          // each request is routed anew
	Idle      time.Duration // timeout of a connection that came back
	Linger    time.Duration // of ended flows
	LogLevel  string        // "" is debug: logs are read only when something fails
	Lcores    int           // poll loops; 0: one
	KeyLead   time.Duration // from a rotation of the cookies' secrets to their use; not 0: they are in a file
	IdleSleep string        // longest nap of the idle poll loop: "100us"; "0s" never sleeps
	Ports     []Port        // further data ports, behind the one on the data network
	Tunnel    string        // to targets behind a gateway: ipip or gue
	Exception string        // of the port on the data network: drop or tap
	VLAN      int           // of the port on the data network
	IPv6      bool          // DVIPA6, and the IPv6 addresses of port and targets; wants Options.IPv6

	// Section is the port's protocol and its section, as lines of YAML, in place of http with Rules and Default. ${dir} is
	// the routing host's directory.
	Section string
	// Applications lets applications of root, or of AppUser, register at the ControlSocket of each host.
	Applications bool
	AppUser      string
	ControlUDP   bool // they may also do so at ControlUDP of each host, and leave when they were not heard for 4 s
	// Distribute, if it is not contentrouted ("" is), makes the DVIPA a conventional one: the first job's. Rules are not used.
	Distribute string

	SourceFlows, SourcePunts int // limits of one client address

	Entries   int    // places of the IPv4 table
	EvictIdle string // idle flows of this age make room in a full table; "0s": never
}

// Rule routes requests for a host and path to a job.
type Rule struct{ Host, Path, Job string }

// Port is a data port of the routing host.
type Port struct {
	Device  string // with all its arguments; ${dir} is the routing host's directory
	Address netip.Prefix
}

// Job is served by hosts, tried in that order.
type Job struct {
	Name    string
	Hosts   []string
	Port    int            // of the DVIPA and of the listener; 0 is 80
	Weights map[string]int // of hosts, where connections are not handed over

	Application string // ask or conventional, the default
	Dialogue    string // lockstep or none, the default
}

// Service is a further port of the DVIPA.
type Service struct {
	Port    int
	Section string // as that of Cluster
}

// TwoSites is the cluster of most scenarios: a.example and paths below /a/ on t1, *.b.example and below /b/ on t2,
// everything else refused.
func TwoSites() Cluster {
	return Cluster{
		Rules: []Rule{
			{Host: "a.example", Job: "web-a"}, {Host: "*.b.example", Job: "web-b"},
			{Path: "/a/", Job: "web-a"}, {Path: "/b/", Job: "web-b"}, {Path: "/exact", Job: "web-b"},
		},
		Jobs: []Job{{Name: "web-a", Hosts: []string{"t1"}}, {Name: "web-b", Hosts: []string{"t2"}}},
	}
}

// Baton is a running cluster.
type Baton struct {
	Router *Process
	Agents []*Process    // of Lab.Targets, same order
	Admin  *admin.Client // of the routing host
	lab    *Lab
	bin    string
}

// Config paths and sockets of a host's daemon, in its directory.
const (
	configFile  = "baton.yaml"
	adminSocket = "baton.sock"
)

var routerConfig = template.Must(template.New("router").Funcs(template.FuncMap{"path": filepath.Join, "indent": indent}).
	Parse(`{{define "timeouts"}}
{{- if or .Request .Offer .Confirm .Idle .GiveUp}}
        timeouts:
{{- with .Request}}
          request: {{.}}{{end}}
{{- with .Offer}}
          offer: {{.}}{{end}}
{{- with .Confirm}}
          confirm: {{.}}{{end}}
{{- with .Idle}}
          idle: {{.}}{{end}}
{{- with .GiveUp}}
          give_up: {{.}}{{end}}
{{- end}}
{{- end}}
host: {{.Host.Name}}
data:
  hugepages: {{.Hugepages}}
{{- with .Lcores}}
  lcores: {{.}}{{end}}
{{- with .IdleSleep}}
  idle: { sleep: {{.}} }{{end}}
  ports:
    - { device: "{{or .Device "net_af_xdp"}}0,iface={{.Interface}}{{with .Arguments}},{{.}}{{end}}", address: {{.Host.On .IPv6}}, vlan: {{.VLAN}}, exception: {{or .Exception "drop"}} }
{{- range .Ports}}
    - { device: "{{$.Host.Expand .Device}}", address: {{.Address}} }
{{- end}}
crt:
  ipv4_entries: {{or .Entries 65536}}
  ipv6_entries: 1024
  router_flows: 4096
{{- with .Linger}}
  linger: {{.}}{{end}}
{{- with .EvictIdle}}
  evict_idle: {{.}}{{end}}
{{- with .SourceFlows}}
  source_flows: {{.}}{{end}}
{{- with .SourcePunts}}
  source_punts: {{.}}{{end}}
{{- with .KeyLead}}
keys: { file: {{$.Host.Path "cookies"}}, lead: {{.}} }{{end}}
xcf: { listen: "{{.XCF}}", ca: {{path .Certs "ca.pem"}}, cert: {{path .Certs .Host.Name}}.pem, key: {{path .Certs .Host.Name}}.key }
admin: { socket: {{.Host.AdminSocket}} }
log: { level: {{or .LogLevel "debug"}} }
{{- if .Applications}}
applications: { socket: {{.Host.ControlSocket}}{{if .ControlUDP}}, udp: {{.Host.ControlAddress}}, lease: 4s{{end}}, allow: [{ user: {{or .AppUser "root"}}{{if .ControlUDP}}, token_file: {{.Host.Token}}{{end}} }] }
{{- end}}
dvipas:
  - address: {{.DVIPA}}
    ports:
      - port: 80
{{- if .Distribute}}
        distribute: {{.Distribute}}
        job: {{(index .Jobs 0).Name}}
{{- else}}
{{- if .IPv6}}
        mss: 1440{{end}}
{{- with .Window}}
        window: {{.}}{{end}}
{{- with .Freeze}}
        freeze: {{.}}{{end}}
{{- with .Transfer}}
        transfer: {{.}}{{end}}
{{- if .Reroute}}
        reroute: per-request{{end}}
{{- template "timeouts" .}}
{{- if .Section}}
{{indent 8 (.Host.Expand .Section)}}
{{- else}}
        http:
{{- with .Default}}
          default: {{.}}{{end}}
          rules:
{{- range .Rules}}
            - { {{with .Host}}host: "{{.}}", {{end}}{{with .Path}}path: "{{.}}", {{end}}job: {{.Job}} }
{{- end}}
{{- end}}
{{- end}}
{{- range .Services}}
      - port: {{.Port}}
{{- template "timeouts" $}}
{{indent 8 .Section}}
{{- end}}
jobs:
{{- range .Jobs}}
  {{.Name}}: { hosts: [{{range $i, $h := .Hosts}}{{if $i}}, {{end}}{{$h}}{{end}}]{{with .Weights}}, weights: { {{range $h, $w := .}}{{$h}}: {{$w}}, {{end}} }{{end}} }
{{- end}}
targets:
{{- range .Targets}}
  {{.Name}}: { address: {{(.On $.IPv6).Addr}}{{with $.Tunnel}}, tunnel: {{.}}, via: {{$.Gateway}}{{end}} }
{{- end}}
`))

var targetConfig = template.Must(template.New("target").Funcs(template.FuncMap{"path": filepath.Join}).Parse(`
host: {{.Host.Name}}
xcf:
  ca: {{path .Certs "ca.pem"}}
  cert: {{path .Certs .Host.Name}}.pem
  key: {{path .Certs .Host.Name}}.key
  routers: [{ host: {{.Router}}, address: "{{.XCF}}" }]
guard:
  interfaces: [{{.Interface}}]
  bpffs: {{.Host.Path "bpf" "baton"}}
{{- if .Tunnel}}
  tunnel_sources: [{{.Source}}]{{end}}
admin: { socket: {{.Host.AdminSocket}} }
log: { level: {{or .LogLevel "debug"}} }
{{- if .Applications}}
applications: { socket: {{.Host.ControlSocket}}{{if .ControlUDP}}, udp: {{.Host.ControlAddress}}, lease: 4s{{end}}, allow: [{ user: {{or .AppUser "root"}}{{if .ControlUDP}}, token_file: {{.Host.Token}}{{end}} }] }
{{- end}}
jobs:
{{- range .Serves}}
  - { name: {{.Name}}, address: {{$.DVIPA}}, port: {{or .Port 80}}{{with .Application}}, application: {{.}}{{end}}{{with .Dialogue}}, dialogue: {{.}}{{end}}, listener: "{{if $.IPv6}}[::]{{else}}0.0.0.0{{end}}:{{or .Port 80}}"{{with $.Distribute}}, connections: direct{{end}}{{with $.Window}}, window: {{.}}{{end}}{{if $.Reroute}}, reroute: per-request{{end}} }
{{- end}}
`))

// userTargetConfig is for targets in userspace. Their applications listen on a socket of the host's directory.
var userTargetConfig = template.Must(template.New("userspace").Funcs(template.FuncMap{"path": filepath.Join}).Parse(`
role: target
host: {{.Host.Name}}
data:
  hugepages: {{.Hugepages}}
{{- with .IdleSleep}}
  idle: { sleep: {{.}} }{{end}}
  ports:
    - { device: "{{or .Device "net_af_xdp"}}0,iface={{.Interface}}", address: {{.Host.Data}} }
xcf:
  ca: {{path .Certs "ca.pem"}}
  cert: {{path .Certs .Host.Name}}.pem
  key: {{path .Certs .Host.Name}}.key
  routers: [{ host: {{.Router}}, address: "{{.XCF}}" }]
limits: { connections: 4096 }
admin: { socket: {{.Host.AdminSocket}} }
log: { level: {{or .LogLevel "debug"}} }
jobs:
{{- range .Serves}}
  - { name: {{.Name}}, address: {{$.DVIPA}}, port: 80, socket: {{$.Host.ApplicationSocket}}, proxy_protocol: true }
{{- end}}
`))

// Baton starts the daemons in directory bin (baton, baton-target) as a cluster, and waits until every target that has a
// job is ready. Servers are started before.
func (l *Lab) Baton(ctx context.Context, bin string, c Cluster) (*Baton, error) {
	b, err := l.Launch(ctx, bin, c)
	if err != nil {
		return nil, err
	}
	return b, b.Ready(ctx)
}

// Launch is Baton without waiting for targets: some may never become ready. Each daemon answers on its admin socket.
func (l *Lab) Launch(ctx context.Context, bin string, c Cluster) (*Baton, error) {
	b, err := l.Prepare(bin, c)
	if err != nil {
		return nil, err
	}
	if b.Router, err = b.StartRouter(ctx); err != nil {
		return nil, err
	}
	for _, h := range l.Targets {
		p, err := b.StartAgent(ctx, h)
		if err != nil {
			return nil, err
		}
		b.Agents = append(b.Agents, p)
	}
	return b, nil
}

// Prepare writes certificates and configuration files, and starts nothing.
func (l *Lab) Prepare(bin string, c Cluster) (*Baton, error) {
	b := &Baton{lab: l, bin: bin, Admin: l.Router.Admin()}
	if err := l.certificates(); err != nil {
		return nil, err
	}
	return b, b.configure(c)
}

// Admin asks the host's daemon.
func (h *Host) Admin() *admin.Client { return admin.NewClient(h.AdminSocket()) }

// AdminSocket is the path of the socket of the host's daemon.
func (h *Host) AdminSocket() string { return h.Path(adminSocket) }

// ControlSocket is the path of the socket at which applications register with the host's daemon.
func (h *Host) ControlSocket() string { return h.Path("control.sock") }

// ControlAddress is where they register over UDP, and Token the file of the token with which they do.
func (h *Host) ControlAddress() string { return "127.0.0.1:790" }

// Token is at ControlAddress.
func (h *Host) Token() string { return h.Path("control.token") }

// ControlUDP is the control socket over UDP of the host's daemon, as applications name it.
func (h *Host) ControlUDP() (string, error) {
	where := "udp://" + h.ControlAddress() + h.Token()
	if _, err := os.Stat(h.Token()); err == nil {
		return where, nil
	}
	return where, os.WriteFile(h.Token(), []byte(rand.Text()+"\n"), 0o600)
}

// writeTokens writes the token of each host that wants one, unless its applications have it already.
func (l *Lab) writeTokens(c Cluster) error {
	if !c.ControlUDP {
		return nil
	}
	for _, h := range append([]*Host{l.Router}, l.Targets...) {
		if _, err := h.ControlUDP(); err != nil {
			return err
		}
	}
	return nil
}

// ApplicationSocket is where the application of a target in userspace listens.
func (h *Host) ApplicationSocket() string { return h.Path("application.sock") }

// Certificates is the directory with the cluster's CA and certificates.
func (l *Lab) Certificates() string { return l.Path("certs") }

// certificates makes a CA and a certificate for every host, once.
func (l *Lab) certificates() error {
	dir := l.Certificates()
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	errs := []error{
		xcf.CreateCA(dir),
		xcf.IssueHost(dir, xcf.RoleRouter, l.Router.Name, xcf.HostValidity, l.Router.XCF.Addr()),
	}
	for _, h := range l.Targets {
		errs = append(errs, xcf.IssueHost(dir, xcf.RoleTarget, h.Name, xcf.HostValidity, h.XCF.Addr()))
	}
	return errors.Join(errs...)
}

// configure writes every host's configuration file.
func (b *Baton) configure(c Cluster) error {
	type values struct {
		Cluster
		Host      *Host
		Targets   []*Host
		Router    string
		DVIPA     netip.Addr
		XCF       netip.AddrPort
		Interface string
		Certs     string
		Serves    []Job
		Gateway   netip.Addr // where tunnels go
		Source    netip.Addr // where they begin
	}
	l := b.lab
	if c.Hugepages == "" {
		c.Hugepages = l.memory()
	}
	v := values{Cluster: c, Host: l.Router, Targets: l.Targets, Router: l.Router.Name, DVIPA: DVIPA,
		XCF: netip.AddrPortFrom(l.Router.XCF.Addr(), 7600), Interface: DataInterface, Certs: l.Certificates()}
	if l.Gateway != nil {
		v.Gateway, v.Source = l.Gateway.Data.Addr(), l.Router.Data.Addr()
	}
	if c.IPv6 {
		v.DVIPA = DVIPA6
	}
	if err := l.writeTokens(c); err != nil {
		return err
	}
	if err := writeConfig(l.Router, routerConfig, v); err != nil {
		return err
	}
	for _, h := range l.Targets {
		v.Host, v.Serves = h, nil
		for _, job := range c.Jobs {
			if slices.Contains(job.Hosts, h.Name) {
				v.Serves = append(v.Serves, job)
			}
		}
		kind := targetConfig
		if h.Userspace {
			kind = userTargetConfig
		}
		if err := writeConfig(h, kind, v); err != nil {
			return err
		}
	}
	return nil
}

// memory is the forwarder's usual setting.
func (l *Lab) memory() string {
	if l.hugepages > 0 {
		return "auto"
	}
	return "never"
}

func writeConfig(h *Host, t *template.Template, v any) error {
	var text bytes.Buffer
	if err := t.Execute(&text, v); err != nil {
		return err
	}
	return os.WriteFile(h.Config(), text.Bytes(), 0o644)
}

// Config is the path of the host's configuration file.
func (h *Host) Config() string { return h.Path(configFile) }

// StartRouter starts the routing host's daemon with its configuration file as it is, and waits until it answers.
func (b *Baton) StartRouter(ctx context.Context) (*Process, error) {
	return b.start(ctx, b.lab.Router, "baton")
}

// StartAgent starts a target's agent with its configuration file as it is, and waits until it answers. Its BPF file
// system outlives it. Of a target in userspace the daemon is its whole stack.
func (b *Baton) StartAgent(ctx context.Context, h *Host) (*Process, error) {
	if h.Userspace {
		return b.start(ctx, h, "baton")
	}
	if err := b.lab.bpffs(h); err != nil {
		return nil, err
	}
	return b.start(ctx, h, "baton-target")
}

func (b *Baton) start(ctx context.Context, h *Host, program string) (*Process, error) {
	path, err := b.Program(program)
	if err != nil {
		return nil, err
	}
	p, err := h.Start(program, path, "run", "-c", h.Config())
	if err != nil {
		return nil, err
	}
	return p, p.Ready(ctx, func() error {
		_, err := h.Admin().Version(ctx)
		return err
	})
}

// Program is the absolute path of one of Baton's programs.
func (b *Baton) Program(name string) (string, error) { return filepath.Abs(filepath.Join(b.bin, name)) }

// Ready waits until the routing host could give a connection to every target that has a job.
func (b *Baton) Ready(ctx context.Context) error {
	return b.Router.Ready(ctx, func() error {
		targets, err := b.Admin.Targets(ctx)
		if err != nil {
			return err
		}
		if len(targets) == 0 {
			return errors.New("no targets")
		}
		for _, t := range targets {
			if !t.Ready {
				return fmt.Errorf("%s on %s is not ready: %s", t.Job, t.Host, t.Reason)
			}
		}
		return nil
	})
}

// Processes lists the daemons.
func (b *Baton) Processes() []*Process { return append([]*Process{b.Router}, b.Agents...) }

// indent moves lines n columns to the right.
func indent(n int, lines string) string {
	margin := strings.Repeat(" ", n)
	return margin + strings.ReplaceAll(strings.TrimSpace(lines), "\n", "\n"+margin)
}
