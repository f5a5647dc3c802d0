package config

import (
	"errors"
	"fmt"
	"net/netip"

	"baton/control/password"
)

// Router is the configuration of a routing host.
type Router struct {
	Role    string                `yaml:"role" default:"router" oneof:"router|target"` // "router"; see LoadBaton
	Host    string                `yaml:"host"`                                        // name in its certificate
	Epoch   uint64                `yaml:"epoch" default:"1" range:"1.."`               // of its ownership of the DVIPAs
	Data    Data                  `yaml:"data"`
	CRT     CRT                   `yaml:"crt"`
	Keys    Keys                  `yaml:"keys"`
	XCF     RouterXCF             `yaml:"xcf"`
	Admin   RouterAdmin           `yaml:"admin"`
	Metrics RouterMetrics         `yaml:"metrics"`
	Apps    Applications          `yaml:"applications"`
	Log     Log                   `yaml:"log"`
	DVIPAs  []DVIPA               `yaml:"dvipas"`
	Jobs    map[string]Job        `yaml:"jobs"`    // by job name
	Targets map[string]TargetHost `yaml:"targets"` // by host name

	report *report
}

// Data is the data network: DPDK's ports and the loop that polls them.
type Data struct {
	Lcores    int        `yaml:"lcores" default:"1" range:"1..16"` // poll loops
	CPUs      CPUs       `yaml:"cpus" default:"auto"`              // as many as Lcores
	Hugepages string     `yaml:"hugepages" default:"auto" oneof:"auto|always|never"`
	Memory    int        `yaml:"memory" default:"256" range:"32..1048576"` // MiB
	Ports     []DataPort `yaml:"ports"`
	Idle      Idle       `yaml:"idle"`
}

// DataPort is one port of the data network. Its index in Data.Ports is the port number everywhere.
type DataPort struct {
	Device  string       `yaml:"device"`                           // DPDK device string
	Address netip.Prefix `yaml:"address"`                          // own address and the network's prefix length
	VLAN    uint16       `yaml:"vlan" default:"0" range:"0..4094"` // that its frames are tagged with; 0: they are not
	// Exception says what becomes of frames for other addresses and protocols of the host.
	Exception string `yaml:"exception" default:"drop" oneof:"drop|tap"`
}

// TAP reports whether they go to the host's kernel by a TAP.
func (p *DataPort) TAP() bool { return p.Exception == "tap" }

// Idle says what the poll loop does without packets.
type Idle struct {
	Spin  Duration `yaml:"spin" default:"50us" range:"0s..1s"`
	Sleep Duration `yaml:"sleep" default:"100us" range:"0s..100ms"` // 0: never
	// Long says what it does after 100 ms without.
	Long string `yaml:"long" default:"nap" oneof:"nap|interrupt"`
}

// CRT bounds the connection routing table.
type CRT struct {
	IPv4Entries int      `yaml:"ipv4_entries" default:"1048576" range:"64..268435456"`
	IPv6Entries int      `yaml:"ipv6_entries" default:"65536" range:"64..268435456"`
	RouterFlows int      `yaml:"router_flows" default:"65536" range:"16..1048576"`
	HeldPackets int      `yaml:"held_packets" default:"256" range:"1..65535"`        // per flow
	SourceFlows int      `yaml:"source_flows" default:"16384" range:"1..1048576"`    // of one address in the router's hands
	SourcePunts int      `yaml:"source_punts" default:"20000" range:"1..1000000000"` // a second, of one address
	Punts       int      `yaml:"punts" default:"200000" range:"1..1000000000"`       // a second, of all addresses
	HalfOpen    int      `yaml:"half_open" default:"4096" range:"0..1048576"`        // handshakes whose SYN-ACK is repeated
	RouterIdle  Duration `yaml:"router_idle" default:"60s" range:"1s..24h"`
	Linger      Duration `yaml:"linger" default:"2s" range:"0s..1h"`
	TargetIdle  Duration `yaml:"target_idle" default:"1h" range:"0s..8h"` // 0: never
	EndedIdle   Duration `yaml:"ended_idle" default:"5m" range:"0s..8h"`  // 0: never
	EvictIdle   Duration `yaml:"evict_idle" default:"10m" range:"0s..8h"` // 0: never
}

// Keys are the secrets of SYN cookies.
type Keys struct {
	File   string   `yaml:"file" default:""`                       // "": new ones at each start
	Rotate Duration `yaml:"rotate" default:"0s" range:"0s..8760h"` // 0: only by command
	Lead   Duration `yaml:"lead" default:"10s" range:"0s..1h"`     // from a rotation to the first use of the new one
}

// RouterXCF is where targets reach the routing host. The paths are absolute or relative to the working directory.
type RouterXCF struct {
	Listen string `yaml:"listen"` // host:port, the host may be empty
	CA     string `yaml:"ca"`
	Cert   string `yaml:"cert"`
	Key    string `yaml:"key"`
}

// RouterAdmin is where batonctl reaches the routing host.
type RouterAdmin struct {
	Socket string `yaml:"socket" default:"/run/baton/baton.sock"`
}

// RouterMetrics is where Prometheus reaches the routing host.
type RouterMetrics struct {
	Listen string `yaml:"listen" default:"127.0.0.1:9600"` // "": nowhere
}

// Applications is where applications reach the daemon of their host, and which may.
type Applications struct {
	Socket string         `yaml:"socket" default:"/run/baton/app.sock"` // Unix socket
	UDP    netip.AddrPort `yaml:"udp" default:""`                       // loopback; not valid: none
	Lease  Duration       `yaml:"lease" default:"10s" range:"3s..5m"`   // over UDP
	Allow  []Application  `yaml:"allow" default:""`                     // empty: there is no socket
}

// Application is a user whose applications are listened to.
type Application struct {
	User     string           `yaml:"user"`                  // name or number
	Services []netip.AddrPort `yaml:"services" default:""`   // empty: all
	Token    string           `yaml:"token_file" default:""` // stands for the user over UDP; "": nothing does
}

// Log says what is logged, to stderr. Level is a word that slog.Level reads.
type Log struct {
	Level  string `yaml:"level" default:"info" oneof:"debug|info|warn|error"`
	Format string `yaml:"format" default:"text" oneof:"text|json"`
}

// DVIPA is a virtual address of the cluster, which this host owns.
type DVIPA struct {
	Address netip.Addr `yaml:"address"`
	Ports   []Port     `yaml:"ports"`
}

// Port is a service of a DVIPA.
type Port struct {
	Port        uint16   `yaml:"port" range:"1..65535"`
	Distribute  string   `yaml:"distribute" default:"contentrouted" oneof:"contentrouted|roundrobin|weighted|leastconn|maglev"`
	Job         string   `yaml:"job" default:""` // of all but contentrouted, which in turn have nothing of what follows
	Application string   `yaml:"application" default:"builtin" oneof:"builtin|external"`
	Protocol    string   `yaml:"protocol" default:"http" oneof:"http|pop3|imap|smtp|tls|postgres|redis|raw"`
	MSS         uint16   `yaml:"mss" default:"1460" range:"536..8960"`       // announced, octets
	Window      uint32   `yaml:"window" default:"32768" range:"2048..65535"` // W, octets; a multiple of 2^WindowScale
	WindowScale uint8    `yaml:"window_scale" default:"7" range:"0..14"`
	Freeze      string   `yaml:"freeze" default:"buffer" oneof:"buffer|discard"`
	Transfer    string   `yaml:"transfer" default:"offered" oneof:"offered|unconditional"`
	Reroute     string   `yaml:"reroute" default:"never" oneof:"never|per-request"` // what targets hand back
	Timeouts    Timeouts `yaml:"timeouts"`
	// The section of the protocol; the others are absent.
	HTTP     HTTP     `yaml:"http"`
	POP3     POP3     `yaml:"pop3"`
	IMAP     IMAP     `yaml:"imap"`
	SMTP     SMTP     `yaml:"smtp"`
	TLS      TLS      `yaml:"tls"`
	Postgres Postgres `yaml:"postgres"`
	Redis    Redis    `yaml:"redis"`
	Raw      Raw      `yaml:"raw"`
}

// Reroutes says that the requests of one connection may go to different targets.
func (p *Port) Reroutes() bool { return p.Reroute == "per-request" }

// Conventional says that the port's connections go to targets from the first SYN on.
func (p *Port) Conventional() bool { return p.Distribute != "contentrouted" }

// Timeouts of one connection and its transfer.
type Timeouts struct {
	Request Duration `yaml:"request" default:"10s" range:"100ms..1h"`
	Offer   Duration `yaml:"offer" default:"200ms" range:"1ms..1m"`
	Confirm Duration `yaml:"confirm" default:"1s" range:"10ms..5m"`
	Idle    Duration `yaml:"idle" default:"50s" range:"100ms..1h"`    // of a connection that came back, until its next request
	GiveUp  Duration `yaml:"give_up" default:"15s" range:"100ms..1h"` // from the commit; above Confirm
}

// Job names who can serve.
type Job struct {
	Hosts   []string       `yaml:"hosts"`              // tried in this order, where connections are handed over
	Weights map[string]int `yaml:"weights" default:""` // by host, 0 to MaxWeight; 1 where there is none
}

// MaxWeight bounds the weights of a job's hosts.
const MaxWeight = 1000

// TargetHost is how a target is reached.
type TargetHost struct {
	Address netip.Addr `yaml:"address"` // on the data network, or the end of the tunnel
	Tunnel  string     `yaml:"tunnel" default:"none" oneof:"none|ipip|gue"`
	Via     netip.Addr `yaml:"via" default:""`                       // router on the data network; invalid: none
	MTU     int        `yaml:"mtu" default:"1500" range:"576..9216"` // of the way to the target, octets, tunnel included
}

// Service returns the port of a service. The error says which there are.
func (r *Router) Service(a netip.AddrPort) (*Port, error) {
	_, p := r.find(a)
	if p != nil {
		return p, nil
	}
	var all []string
	for _, d := range r.DVIPAs {
		for _, p := range d.Ports {
			all = append(all, netip.AddrPortFrom(d.Address, p.Port).String())
		}
	}
	return nil, fmt.Errorf("%s: no service %s%s", r.report.file, a, suggest(a.String(), all))
}

// RuleAt returns where the n-th rule (from 1) of a service is, as file:line; for 0 where its default is.
func (r *Router) RuleAt(a netip.AddrPort, n int) string {
	key, p := r.find(a)
	if p == nil {
		return ""
	}
	key = join(key, p.Protocol)
	if n == 0 {
		key = join(key, "default")
	} else {
		key = at(join(key, "rules"), n-1)
	}
	return fmt.Sprintf("%s:%d", r.report.file, r.report.locate(key).line)
}

// find returns the port of a service and its key, or nil.
func (r *Router) find(a netip.AddrPort) (key string, p *Port) {
	for i, d := range r.DVIPAs {
		for j := range d.Ports {
			if netip.AddrPortFrom(d.Address, d.Ports[j].Port) == a {
				return at(at("dvipas", i)+".ports", j), &d.Ports[j]
			}
		}
	}
	return "", nil
}

// Warnings returns what the file may say and probably does not mean, in the order of the file.
func (r *Router) Warnings() []*Problem { return r.report.warnings }

// CheckFiles returns an error for each file that the configuration names and that cannot be read, or has maps or hashes of
// passwords with something wrong.
func (r *Router) CheckFiles() error {
	errs := []error{r.report.checkFiles(map[string]string{"xcf.ca": r.XCF.CA, "xcf.cert": r.XCF.Cert, "xcf.key": r.XCF.Key})}
	for _, d := range r.DVIPAs {
		for i := range d.Ports {
			for _, s := range d.Ports[i].sections() {
				_, err := r.readMaps(s.choices())
				errs = append(errs, err)
			}
			if w := d.Ports[i].Passwords(); w.Given() && w.File != "" {
				errs = append(errs, password.CheckFile(w.File))
			}
		}
	}
	return errors.Join(errs...)
}
