package config

import "net/netip"

// Target is the configuration of a target host.
type Target struct {
	Host    string        `yaml:"host"` // name in its certificate
	XCF     TargetXCF     `yaml:"xcf"`
	Guard   Guard         `yaml:"guard"`
	Jobs    []TargetJob   `yaml:"jobs"`
	Apps    TargetApps    `yaml:"applications"`
	Limits  Limits        `yaml:"limits"`
	Admin   TargetAdmin   `yaml:"admin"`
	Metrics TargetMetrics `yaml:"metrics"`
	Log     Log           `yaml:"log"`

	report *report
}

// TargetXCF is whom the target dials. The paths are absolute or relative to the working directory.
type TargetXCF struct {
	CA      string       `yaml:"ca"`
	Cert    string       `yaml:"cert"`
	Key     string       `yaml:"key"`
	Routers []RouterHost `yaml:"routers"`
}

// RouterHost is a routing host that may hand connections over.
type RouterHost struct {
	Host    string `yaml:"host"`    // name in its certificate
	Address string `yaml:"address"` // host:port
}

// Guard is the BPF program on the interfaces on which clients' packets arrive.
type Guard struct {
	Interfaces []string `yaml:"interfaces"`
	BPFFS      string   `yaml:"bpffs" default:"/sys/fs/bpf/baton"`
	Addresses  string   `yaml:"addresses" default:"manage" oneof:"manage|check"`
	// TunnelSources may send packets for the DVIPAs through tunnels.
	TunnelSources []netip.Addr `yaml:"tunnel_sources" default:""`
}

// TargetJob is a job that this host serves, and the listener that does it.
type TargetJob struct {
	Name     string         `yaml:"name"`
	Address  netip.Addr     `yaml:"address"` // DVIPA
	Port     uint16         `yaml:"port" range:"1..65535"`
	Listener netip.AddrPort `yaml:"listener" default:""` // filled in as Address:Port
	Netns    string         `yaml:"netns" default:""`    // name or path; "": the agent's own
	Window   uint32         `yaml:"window" default:"32768" range:"2048..65535"`
	// Connections says how they come: from a routing host that talked to the client, or by the client's own SYN.
	Connections string `yaml:"connections" default:"transferred" oneof:"transferred|direct"`
	// Dialogue says whether the server is to be played what client and routing host have said, because it would begin by
	// saying that again.
	Dialogue string `yaml:"dialogue" default:"none" oneof:"none|lockstep"`
	// Application says whether it is asked before it gets a connection, which takes a control socket.
	Application string `yaml:"application" default:"conventional" oneof:"conventional|ask"`
	// Reroute says whether an idle connection that the listener closes goes back to its routing host.
	Reroute string `yaml:"reroute" default:"never" oneof:"never|per-request"`
}

// Lockstep says that the server speaks first, and is played the dialogue so far.
func (j TargetJob) Lockstep() bool { return j.Dialogue == "lockstep" }

// Reroutes says that idle connections go back instead of being closed.
func (j TargetJob) Reroutes() bool { return j.Reroute == "per-request" }

// Asks says that the job's applications are asked.
func (j *TargetJob) Asks() bool { return j.Application == "ask" }

// TargetApps is Applications of a target host, which may run beside a routing host's daemon.
type TargetApps struct {
	Socket string         `yaml:"socket" default:"/run/baton/target-app.sock"` // Unix socket
	UDP    netip.AddrPort `yaml:"udp" default:""`                              // loopback; not valid: none
	Lease  Duration       `yaml:"lease" default:"10s" range:"3s..5m"`          // over UDP
	Allow  []Application  `yaml:"allow" default:""`                            // empty: there is no socket
}

// Direct says that clients' SYNs are for the listener, and nothing is handed over to it.
func (j *TargetJob) Direct() bool { return j.Connections == "direct" }

// Limits of the agent.
type Limits struct {
	Reservations int      `yaml:"reservations" default:"4096" range:"1..1048576"`
	BacklogRetry Duration `yaml:"backlog_retry" default:"100ms" range:"0s..10s"`
}

// TargetAdmin is where batonctl reaches the agent.
type TargetAdmin struct {
	Socket string `yaml:"socket" default:"/run/baton/target.sock"`
}

// TargetMetrics is where Prometheus reaches the agent.
type TargetMetrics struct {
	Listen string `yaml:"listen" default:"127.0.0.1:9601"` // "": nowhere
}

// Warnings returns what the file may say and probably does not mean, in the order of the file.
func (t *Target) Warnings() []*Problem { return t.report.warnings }

// CheckFiles returns a Problem for each file that the configuration names and that cannot be read.
func (t *Target) CheckFiles() error {
	return t.report.checkFiles(map[string]string{"xcf.ca": t.XCF.CA, "xcf.cert": t.XCF.Cert, "xcf.key": t.XCF.Key})
}
