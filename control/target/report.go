package target

import (
	"net/netip"
	"slices"
	"strings"

	"baton/control/admin"
	"baton/control/metrics"
)

// JobStatus is what routing hosts are told about a job.
type JobStatus struct {
	Name    string `json:"name"`
	Service string `json:"service"` // DVIPA:port
	Netns   string `json:"netns,omitempty"`
	Ready   bool   `json:"ready"`
	Reason  string `json:"reason,omitempty"` // why not: one line that says what to set
	Window  uint32 `json:"window"`           // first window, octets; 0 unknown

	address netip.Addr
	port    uint16
}

// Jobs lists the jobs as routing hosts see them.
func (a *Agent) Jobs() []JobStatus {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.jobs()
}

// jobs is Jobs with mu held.
func (a *Agent) jobs() []JobStatus {
	list := make([]JobStatus, 0, len(a.config.Jobs))
	for _, j := range a.config.Jobs {
		status := JobStatus{
			Name: j.Name, Service: netip.AddrPortFrom(j.Address, j.Port).String(), Netns: j.Netns,
			address: j.Address, port: j.Port,
		}
		r, looked := a.ready[j.Name]
		status.Window, status.Reason = r.window, r.text()
		switch err := a.failed[j.Netns]; {
		case err != nil:
			status.Reason = err.Error()
		case !looked:
			status.Reason = "not looked at yet"
		}
		status.Ready = status.Reason == ""
		list = append(list, status)
	}
	return list
}

// Doctor examines the host; see Examine. It can take a few milliseconds.
func (a *Agent) Doctor() []admin.Finding { return Findings(Examine(a.config)) }

// Findings are checks as the admin socket tells them.
func Findings(checks []Check) []admin.Finding {
	findings := make([]admin.Finding, 0, len(checks))
	for _, c := range checks {
		findings = append(findings, admin.Finding{Check: c.Name, OK: c.OK, Detail: c.Detail})
	}
	return findings
}

// Counters lists the totals: of the guards since they were first pinned, of imports since the agent started.
func (a *Agent) Counters() []admin.Counter {
	guard := a.guardCounters()
	list := []admin.Counter{{Group: "guard", Name: "passed", Value: guard.Passed}}
	for reason, n := range guard.Drops() {
		list = append(list, admin.Counter{Group: "guard_drop", Name: reason, Value: n})
	}
	a.mu.Lock()
	for outcome, n := range a.outcomes {
		list = append(list, admin.Counter{Group: "import", Name: strings.ReplaceAll(outcome, " ", "_"), Value: n})
	}
	a.mu.Unlock()
	slices.SortFunc(list, func(x, y admin.Counter) int {
		return strings.Compare(x.Group+"\x00"+x.Name, y.Group+"\x00"+y.Name)
	})
	return list
}

// guardCounters adds up the guards of all namespaces.
func (a *Agent) guardCounters() Counters {
	a.mu.Lock()
	defer a.mu.Unlock()
	var sum Counters
	for name, s := range a.spaces {
		c, err := s.guard.Counters()
		if err != nil {
			a.log.Error("guard counters cannot be read", "netns", name, "error", err)
		}
		sum.Passed += c.Passed
		sum.SYN += c.SYN
		sum.Listener += c.Listener
		sum.NoSocket += c.NoSocket
		sum.Fragment += c.Fragment
		sum.Malformed += c.Malformed
	}
	return sum
}

// Sample is what a scrape reads.
func (a *Agent) Sample() metrics.TargetSample {
	s := metrics.TargetSample{GuardDrops: a.guardCounters().Drops()}
	for _, p := range a.dialer.Stats() {
		s.Routers = append(s.Routers, metrics.Peer{Host: p.Host, Up: p.Up, RTT: p.RTT})
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	s.Reservations, _, s.Flows, _ = a.taker.Counts()
	return s
}
