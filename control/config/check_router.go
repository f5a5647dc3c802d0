package config

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"baton/control/inspect"
)

// check reports what is wrong with the file as a whole, each of its values being of the right type and in range.
func (r *Router) check(to *report) {
	if r.Role == roleTarget {
		to.failf("role", "this is the file of a target host: want that of a routing host")
	}
	to.hostName("host", r.Host)
	r.Data.check(to)
	r.Keys.check(to)
	to.hostPort("xcf.listen", r.XCF.Listen, false)
	to.xcfFiles(r.XCF.CA, r.XCF.Cert, r.XCF.Key)
	to.socketPath("admin.socket", r.Admin.Socket)
	if r.Metrics.Listen != "" {
		to.hostPort("metrics.listen", r.Metrics.Listen, false)
	}
	r.checkAddresses(to)
	r.checkTargets(to)
	r.checkJobs(to)
	r.checkApplications(to)
	for i, d := range r.DVIPAs {
		r.checkPorts(to, at("dvipas", i)+".ports", d.Ports)
	}
	r.warnUnused(to)
}

// rotateMin is how long two secrets must be in use one after the other: the life of a handshake (keys.Life), and some more.
const rotateMin = Duration(5 * time.Minute)

func (k *Keys) check(to *report) {
	if k.Rotate != 0 && k.Rotate < rotateMin {
		to.failf("keys.rotate", "%s is out of range: want 0s, or %s and more", k.Rotate, rotateMin)
	}
	if k.Rotate != 0 && k.Lead >= k.Rotate {
		to.failf("keys.lead", "%s: want less than keys.rotate, which is %s", k.Lead, k.Rotate)
	}
}

func (d *Data) check(to *report) {
	if len(d.CPUs) > 0 && len(d.CPUs) != d.Lcores {
		to.failf("data.cpus", "%s: want as many as data.lcores, which is %d", d.CPUs, d.Lcores)
	}
	devices := map[string]string{}
	for i, p := range d.Ports {
		key := at("data.ports", i)
		to.notEmpty(key+".device", p.Device, "a DPDK device string as in net_af_xdp0,iface=data0 or 0000:01:00.0")
		to.once(devices, key+".device", p.Device)
		to.unicast(key+".address", p.Address.Addr())
		if p.TAP() && strings.Contains(p.Device, "af_packet") {
			to.failf(key+".exception", "the kernel gets all frames of an af_packet port anyway: want drop")
		}
		if p.Address.Bits() < p.Address.Addr().BitLen()-1 && p.Address == p.Address.Masked() {
			to.failf(key+".address", "%s is the network, not an address in it: want one as in %s/%d",
				p.Address, p.Address.Addr().Next(), p.Address.Bits())
		}
	}
}

func (r *report) xcfFiles(ca, cert, key string) {
	r.notEmpty("xcf.ca", ca, "the file of the CA's certificate")
	r.notEmpty("xcf.cert", cert, "the file of this host's certificate")
	r.notEmpty("xcf.key", key, "the file of this host's key")
}

// checkAddresses reports addresses of the data network that are given to more than one.
func (r *Router) checkAddresses(to *report) {
	owners := map[string]string{}
	for i, p := range r.Data.Ports {
		to.once(owners, at("data.ports", i)+".address", p.Address.Addr().String())
	}
	for i, d := range r.DVIPAs {
		key := at("dvipas", i) + ".address"
		to.unicast(key, d.Address)
		to.once(owners, key, d.Address.String())
	}
	for _, name := range slices.Sorted(maps.Keys(r.Targets)) {
		to.once(owners, join("targets", name)+".address", r.Targets[name].Address.String())
	}
}

func (r *Router) onDataNetwork(a netip.Addr) bool {
	return slices.ContainsFunc(r.Data.Ports, func(p DataPort) bool { return p.Address.Contains(a) })
}

func (r *Router) networks() string {
	var all []string
	for _, p := range r.Data.Ports {
		all = append(all, p.Address.Masked().String())
	}
	return strings.Join(all, ", ")
}

func (r *Router) checkJobs(to *report) {
	for name, job := range r.Jobs {
		key := join("jobs", name)
		to.jobName(key, name)
		seen := map[string]string{}
		for i, host := range job.Hosts {
			to.once(seen, at(key+".hosts", i), host)
			if _, ok := r.Targets[host]; !ok {
				to.failf(at(key+".hosts", i), "%q is not under targets%s", host, suggest(host, sortedKeys(r.Targets)))
			}
		}
		job.checkWeights(to, key+".weights")
	}
}

func (j *Job) checkWeights(to *report, key string) {
	for _, host := range sortedKeys(j.Weights) {
		if !slices.Contains(j.Hosts, host) {
			to.failf(join(key, host), "%q is not under hosts of this job%s", host, suggest(host, j.Hosts))
		}
		if w := j.Weights[host]; w < 0 || w > MaxWeight {
			to.failf(join(key, host), "%d is not in the range from 0 to %d", w, MaxWeight)
		}
	}
}

func (r *Router) checkPorts(to *report, key string, ports []Port) {
	seen := map[string]string{}
	for i := range ports {
		p, key := &ports[i], at(key, i)
		to.once(seen, key+".port", fmt.Sprintf("port %d", p.Port))
		if p.Conventional() {
			r.checkConventional(to, key, p)
			continue
		}
		if p.Job != "" {
			to.failf(key+".job", "distribute is contentrouted: the rules say which job gets a connection")
		}
		to.window(key+".window", p.Window, p.WindowScale)
		r.checkRequest(to, key+".timeouts.request", p.Timeouts.Request)
		r.checkReroute(to, key, p)
		if t := p.Timeouts; t.GiveUp <= t.Confirm {
			to.failf(key+".timeouts.give_up", "%s is not above timeouts.confirm, %s: the target would never be asked", t.GiveUp,
				t.Confirm)
		}
		r.checkProtocol(to, key, p)
	}
}

// checkConventional checks a port whose connections go to targets from the first SYN on: there is nothing that Baton could
// read, announce or hand over.
func (r *Router) checkConventional(to *report, key string, p *Port) {
	names := []string{"application", "protocol", "mss", "window", "window_scale", "freeze", "transfer", "reroute", "timeouts"}
	for _, name := range append(names, sortedKeys(p.sections())...) {
		if _, given := to.places[join(key, name)]; given {
			to.failf(join(key, name), "only with distribute: contentrouted; with %s, targets have the connections from the "+
				"first SYN on: leave it out", p.Distribute)
		}
	}
	if p.Job == "" {
		to.failf(key, "no job: with distribute: %s the hosts of one job get the connections: want one of %s", p.Distribute,
			strings.Join(sortedKeys(r.Jobs), ", "))
		return
	}
	r.knownJob(to, key+".job", p.Job)
}

// checkRequest sees to it that a client that falls silent in the middle of its request is still known when the 408 is due.
func (r *Router) checkRequest(to *report, key string, request Duration) {
	if request >= r.CRT.RouterIdle {
		to.failf(key, "%s is not below crt.router_idle, %s: a silent client's flow would be forgotten before the 408",
			request, r.CRT.RouterIdle)
	}
}

// checkReroute checks a port whose connections come back between two requests.
func (r *Router) checkReroute(to *report, key string, p *Port) {
	if !p.Reroutes() {
		return
	}
	if p.External() || p.Protocol != "http" {
		to.failf(key+".reroute", "only HTTP has requests that targets know the end of: want never, or protocol: http")
	}
	if p.Timeouts.Idle >= r.CRT.RouterIdle {
		to.failf(key+".timeouts.idle", "%s is not below crt.router_idle, %s: the flow would be forgotten before it is closed",
			p.Timeouts.Idle, r.CRT.RouterIdle)
	}
}

// window checks W. It is announced unscaled in the SYN-ACK (RFC 7323 §2.2) and scaled later, and must be the same.
func (r *report) window(key string, window uint32, scale uint8) {
	unit := uint32(1) << scale
	if window%unit == 0 {
		return
	}
	below := window - window%unit
	choice := fmt.Sprintf("%d or %d", below, below+unit)
	if below == 0 {
		choice = fmt.Sprint(unit)
	} else if below+unit > 65535 {
		choice = fmt.Sprint(below)
	}
	r.failf(key, "%d is no multiple of 2^window_scale = %d: want %s, or a smaller window_scale", window, unit, choice)
}

// warnRules warns of rules that do not do what they seem to.
func (r *report) warnRules(key string, rules []inspect.Rule, fallback string, reroutes bool) {
	for i, first := range inspect.Shadowed(rules) {
		if first >= 0 {
			r.warnf(at(key, i), "never reached: the rule in line %d matches everything that this one does",
				r.locate(at(key, first)).line)
		}
	}
	if reroutes {
		return
	}
	for _, i := range inspect.SplitByPath(rules, fallback) {
		r.warnf(at(key, i)+".path", "the path decides between jobs, but routing is per connection: "+
			"later requests on the same connection stay with the target of the first")
	}
}

// checkApplications checks who may register, and that those who have to can.
func (r *Router) checkApplications(to *report) {
	to.applications("applications", r.Apps)
	for i, d := range r.DVIPAs {
		for j := range d.Ports {
			if d.Ports[j].External() && len(r.Apps.Allow) == 0 {
				to.failf(at(at("dvipas", i)+".ports", j)+".application",
					"nobody may register: list the users of its applications in applications.allow")
			}
		}
	}
}

func (r *Router) knownJob(to *report, key, job string) {
	if _, ok := r.Jobs[job]; !ok {
		to.failf(key, "%q is not under jobs%s", job, suggest(job, sortedKeys(r.Jobs)))
	}
}

// warnUnused warns of jobs that nothing is routed to and of targets without a job.
func (r *Router) warnUnused(to *report) {
	routed, serving := map[string]bool{}, map[string]bool{}
	anywhere := false // somebody else knows what is routed where
	for _, d := range r.DVIPAs {
		for i := range d.Ports {
			routed[d.Ports[i].Job] = true
			anywhere = anywhere || d.Ports[i].External()
			for _, section := range d.Ports[i].sections() {
				for _, route := range section.routes() {
					routed[route.job] = true
				}
				anywhere = anywhere || slices.ContainsFunc(section.choices(), func(c Choice) bool { return c.MapFile != "" })
			}
		}
	}
	for name, job := range r.Jobs {
		if !routed[name] && !anywhere {
			to.warnf(join("jobs", name), "no rule and no default routes to this job")
		}
		for _, host := range job.Hosts {
			serving[host] = true
		}
	}
	for name := range r.Targets {
		if !serving[name] {
			to.warnf(join("targets", name), "no job names this host")
		}
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
