package config

import (
	"fmt"
	"net/netip"
	"strings"
)

// check reports what is wrong with the file as a whole, each of its values being of the right type and in range, and
// fills in the defaults that depend on other values.
func (t *Target) check(to *report) {
	to.hostName("host", t.Host)
	t.XCF.check(to)
	t.Guard.check(to)
	t.checkJobs(to)
	to.applications("applications", Applications(t.Apps))
	to.socketPath("admin.socket", t.Admin.Socket)
	if t.Metrics.Listen != "" {
		to.hostPort("metrics.listen", t.Metrics.Listen, false)
	}
}

func (x *TargetXCF) check(to *report) {
	to.xcfFiles(x.CA, x.Cert, x.Key)
	names, addresses := map[string]string{}, map[string]string{}
	for i, h := range x.Routers {
		key := at("xcf.routers", i)
		to.hostName(key+".host", h.Host)
		to.hostPort(key+".address", h.Address, true)
		to.once(names, key+".host", h.Host)
		to.once(addresses, key+".address", h.Address)
	}
}

func (g *Guard) check(to *report) {
	seen := map[string]string{}
	for i, name := range g.Interfaces {
		key := at("guard.interfaces", i)
		if name == "" || len(name) > maxInterface || strings.ContainsAny(name, "/: \t") {
			to.failf(key, "%q is no name of an interface: want 1 to %d octets as in data0", name, maxInterface)
		}
		if name == "lo" {
			to.failf(key, "clients' packets do not arrive on lo: want the interface of the data network")
		}
		to.once(seen, key, name)
	}
	to.absolutePath("guard.bpffs", g.BPFFS)
	sources := map[string]string{}
	for i, a := range g.TunnelSources {
		key := at("guard.tunnel_sources", i)
		to.unicast(key, a)
		to.once(sources, key, a.String())
	}
}

func (t *Target) checkJobs(to *report) {
	seen, modes := map[string]string{}, map[netip.AddrPort]string{}
	for i := range t.Jobs {
		j, key := &t.Jobs[i], at("jobs", i)
		to.jobName(key+".name", j.Name)
		to.unicast(key+".address", j.Address)
		to.once(seen, key+".name", fmt.Sprintf("job %s of %s", j.Name, netip.AddrPortFrom(j.Address, j.Port)))
		j.checkListener(to, key+".listener")
		j.checkConnections(to, key, modes)
		to.askable(key+".application", j.Asks(), t.Apps)
		j.checkDialogue(to, key+".dialogue")
		j.checkReroute(to, key+".reroute")
	}
}

// checkConnections sees to it that a service has one kind of connections, and that a direct one's SYNs find its listener.
// modes has those of the jobs before.
func (j *TargetJob) checkConnections(to *report, key string, modes map[netip.AddrPort]string) {
	service := netip.AddrPortFrom(j.Address, j.Port)
	if other, taken := modes[service]; taken && other != j.Connections {
		to.failf(key+".connections", "%s has a job with connections: %s already: all jobs of an address and port want the same",
			service, other)
	}
	modes[service] = j.Connections
	at := j.Listener
	if j.Direct() && (at.Port() != j.Port || !at.Addr().IsUnspecified() && at.Addr() != j.Address) {
		wildcard := netip.IPv4Unspecified()
		if j.Address.Is6() {
			wildcard = netip.IPv6Unspecified()
		}
		to.failf(key+".listener", "with connections: direct, clients' SYNs are for %s: want that, or %s", service,
			netip.AddrPortFrom(wildcard, j.Port))
	}
}

// checkDialogue sees to it that nobody but the server takes the connection.
func (j *TargetJob) checkDialogue(to *report, key string) {
	switch {
	case j.Lockstep() && j.Direct():
		to.failf(key, "with connections: direct, clients talk to the server from the start: want dialogue: none")
	case j.Lockstep() && j.Asks():
		to.failf(key, "an application that is asked knows that it has not to greet: want dialogue: none, or application: conventional")
	}
}

// checkReroute sees to it that connections come from a routing host, and are followed from their first request.
func (j *TargetJob) checkReroute(to *report, key string) {
	switch {
	case !j.Reroutes():
	case j.Direct():
		to.failf(key, "only with connections: transferred: there is nobody to hand direct ones back to")
	case j.Lockstep():
		to.failf(key, "only HTTP has requests that are followed, and its servers do not speak first: want dialogue: none")
	}
}

// checkListener fills in the listener's default.
func (j *TargetJob) checkListener(to *report, key string) {
	if !j.Listener.IsValid() {
		j.Listener = netip.AddrPortFrom(j.Address, j.Port)
	}
	if j.Listener.Port() == 0 {
		to.failf(key, "%s has no port: want one as in %s", j.Listener, netip.AddrPortFrom(j.Listener.Addr(), j.Port))
	}
}

// askable checks that an application that is to be asked can register.
func (r *report) askable(key string, asks bool, a TargetApps) {
	if asks && len(a.Allow) == 0 {
		r.failf(key, "nobody may register: list the users of its applications in applications.allow")
	}
}
