package target

import (
	"slices"

	"baton/control/admin"
	"baton/control/config"
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
	return append(list, admin.Counters("guard_drop", guard.Drops())...)
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
		sum.PlayedTo += c.PlayedTo
		sum.Decapsulated += c.Decapsulated
		sum.TunnelSource += c.TunnelSource
		sum.TunnelECN += c.TunnelECN
	}
	return sum
}

// LockstepCounters lists what came of dialogues since the namespaces were set up; none where no server speaks first.
func (k *Kernel) LockstepCounters() []admin.Counter {
	if !slices.ContainsFunc(k.config.Jobs, config.TargetJob.Lockstep) {
		return nil
	}
	return admin.Counters("lockstep", k.Lockstep().Events())
}

// Lockstep adds up the counts of all namespaces.
func (k *Kernel) Lockstep() (sum Counts) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.spaces {
		if s.lockstep == nil {
			continue
		}
		c := s.lockstep.Counts()
		sum.Played += c.Played
		sum.Learned += c.Learned
		sum.Mismatched += c.Mismatched
		sum.Abandoned += c.Abandoned
		sum.Stolen += c.Stolen
	}
	return sum
}
