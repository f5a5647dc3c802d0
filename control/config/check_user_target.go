package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
)

// check reports what is wrong with the file as a whole, each of its values being of the right type and in range.
func (t *UserTarget) check(to *report) {
	to.hostName("host", t.Host)
	t.Data.check(to)
	for i, p := range t.Data.Ports {
		if p.TAP() {
			to.failf(at("data.ports", i)+".exception", "only a routing host has exception paths: want drop")
		}
	}
	t.checkGateway(to)
	t.XCF.check(to)
	t.checkJobs(to)
	to.applications("applications", Applications(t.Apps))
	to.socketPath("admin.socket", t.Admin.Socket)
	if t.Metrics.Listen != "" {
		to.hostPort("metrics.listen", t.Metrics.Listen, false)
	}
}

// checkGateway refuses a next hop that cannot be asked for its link address.
func (t *UserTarget) checkGateway(to *report) {
	const key = "gateway"
	if !t.Gateway.IsValid() || !to.unicast(key, t.Gateway) {
		return
	}
	for _, p := range t.Data.Ports {
		if p.Address.Contains(t.Gateway) {
			return
		}
	}
	to.failf(key, "%s is in no data port's network", t.Gateway)
}

func (t *UserTarget) checkJobs(to *report) {
	seen, own := map[string]string{}, map[string]string{}
	for i, p := range t.Data.Ports {
		own[p.Address.Addr().String()] = at("data.ports", i) + ".address"
	}
	for i, j := range t.Jobs {
		key := at("jobs", i)
		to.jobName(key+".name", j.Name)
		to.unicast(key+".address", j.Address)
		if first, ok := own[j.Address.String()]; ok {
			to.failf(key+".address", "%s is this host's own address (%s): want the DVIPA", j.Address, first)
		}
		to.once(seen, key+".name", fmt.Sprintf("job %s of %s", j.Name, netip.AddrPortFrom(j.Address, j.Port)))
		to.localSocket(key+".socket", j.Socket)
		to.askable(key+".application", j.Asks(), t.Apps)
	}
}

// localSocket checks where an application listens: nobody but the relay is to reach it.
func (r *report) localSocket(key, socket string) {
	if filepath.IsAbs(socket) {
		r.socketPath(key, socket)
		return
	}
	a, err := netip.ParseAddrPort(socket)
	if err != nil || !a.Addr().IsLoopback() || a.Port() == 0 {
		r.failf(key, "%q: want the absolute path of a Unix socket, or a loopback address and port as in 127.0.0.1:8080",
			socket)
	}
}
