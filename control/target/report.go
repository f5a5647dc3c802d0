package target

import (
	"baton/control/admin"
)

// Findings are checks as the admin socket tells them.
func Findings(checks []Check) []admin.Finding {
	findings := make([]admin.Finding, 0, len(checks))
	for _, c := range checks {
		findings = append(findings, admin.Finding{Check: c.Name, OK: c.OK, Detail: c.Detail})
	}
	return findings
}

// GuardCounters lists what the guards passed and dropped since they were first pinned.
func (k *Kernel) GuardCounters() []admin.Counter {
	guard := k.Guards()
	list := []admin.Counter{
		{Group: "guard", Name: "passed", Value: guard.Passed},
		{Group: "guard", Name: "decapsulated", Value: guard.Decapsulated},
	}
	for reason, n := range guard.Drops() {
		list = append(list, admin.Counter{Group: "guard_drop", Name: reason, Value: n})
	}
	return list
}

// Guards adds up the counters of the guards of all namespaces.
func (k *Kernel) Guards() Counters {
	k.mu.Lock()
	defer k.mu.Unlock()
	var sum Counters
	for name, s := range k.spaces {
		c, err := s.guard.Counters()
		if err != nil {
			k.log.Error("guard counters cannot be read", "netns", name, "error", err)
		}
		sum.Passed += c.Passed
		sum.SYN += c.SYN
		sum.Listener += c.Listener
		sum.NoSocket += c.NoSocket
		sum.Fragment += c.Fragment
		sum.Malformed += c.Malformed
		sum.Decapsulated += c.Decapsulated
		sum.TunnelSource += c.TunnelSource
		sum.TunnelECN += c.TunnelECN
	}
	return sum
}
