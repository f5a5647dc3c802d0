package target

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"baton/control/config"
	"baton/control/target/bpf"
)

// Examine looks at everything that a target host needs, with or without a running agent, and changes nothing.
func Examine(c *config.Target) []Check {
	checks := []Check{CheckKernel(), checkBPFFS(c.Guard.BPFFS)}
	for _, name := range namespacesOf(c) {
		checks = append(checks, examineNamespace(c, name)...)
	}
	return checks
}

// CheckKernel says whether this kernel can take connections: it loads the import program and drops it again.
func CheckKernel() Check {
	const name = "kernel"
	if err := errors.Join(rlimit.RemoveMemlock(), probe()); err != nil {
		return Check{name, false, loadProblem(err).Error()}
	}
	return Check{name, true, "has bpf_sk_assign_tcp_reqsk"}
}

func probe() error {
	var o bpf.ImportObjects
	if err := bpf.LoadImportObjects(&o, nil); err != nil {
		return err
	}
	return o.Close()
}

// checkBPFFS sees whether pins would outlive the agent: whoever started it must see the same file system. In a mount
// namespace of the agent's own ("ip netns exec" makes one), what it mounts ends with it.
func checkBPFFS(dir string) Check {
	const name = "bpffs"
	at := existing(dir)
	if !isBPFFS(at) {
		return Check{name, true, "the agent will mount one for " + dir}
	}
	var ours, parents syscall.Stat_t
	theirs := filepath.Join(fmt.Sprintf("/proc/%d/root", os.Getppid()), at)
	if syscall.Stat(at, &ours) == nil && syscall.Stat(theirs, &parents) == nil && ours.Dev == parents.Dev {
		return Check{name, true, dir}
	}
	return Check{name, false, fmt.Sprintf("mount it outside of the agent's mount namespace, before the agent starts: "+
		"mount -t bpf bpf %s; else the guard ends with the agent", dir)}
}

func examineNamespace(c *config.Target, name string) []Check {
	ns, err := OpenNamespace(name)
	if err != nil {
		return []Check{{"netns " + name, false, fmt.Sprintf("%v: set the jobs' netns", err)}}
	}
	defer ns.Close()
	jobs := jobsIn(c, name)
	var checks []Check
	err = ns.Do(func() error {
		checks = append(checkSysctls(), checkAddresses(dvipasOf(jobs))...)
		checks = append(checks, checkReversePath(c.Guard.Interfaces)...)
		checks = append(checks, checkGuard(pinDir(c.Guard.BPFFS, name), c.Guard.Interfaces)...)
		checks = append(checks, checkTunnels(pinDir(c.Guard.BPFFS, name), c.Guard.TunnelSources)...)
		checks = append(checks, checkJobs(jobs)...)
		return nil
	})
	if err != nil {
		checks = append(checks, Check{"netns", false, err.Error()})
	}
	if name != "" {
		for i := range checks {
			checks[i].Name = "netns " + name + ": " + checks[i].Name
		}
	}
	return checks
}

// checkGuard looks for the interfaces, in the calling thread's namespace, and for the pinned links on them.
func checkGuard(dir string, interfaces []string) []Check {
	indexes, err := indexesOf(interfaces)
	if err != nil {
		return []Check{{"guard", false, err.Error()}}
	}
	var checks []Check
	for dev := range indexes {
		check := Check{"guard " + dev, true, "at its post"}
		if _, err := os.Stat(filepath.Join(dir, linkPrefix+pinName(dev))); err != nil {
			check.OK, check.Detail = false, "not there yet: start baton-target run"
		}
		checks = append(checks, check)
	}
	return checks
}

// checkTunnels looks at what the guard counted, if there is a guard and tunnels concern it. Packets of strangers are told,
// and not held against a host that has tunnels: anybody can send them.
func checkTunnels(dir string, sources []netip.Addr) []Check {
	m, err := ebpf.LoadPinnedMap(filepath.Join(dir, bpf.GuardMapCounters), &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return nil // checkGuard says why
	}
	defer m.Close()
	n, err := (&Guard{counters: m}).Counters()
	switch {
	case err != nil:
		return []Check{{"tunnels", false, err.Error()}}
	case len(sources) == 0 && n.TunnelSource > 0:
		return []Check{{"tunnels", false, fmt.Sprintf("%d packets for the DVIPAs came through a tunnel and were dropped: "+
			"set guard.tunnel_sources to the routing hosts' data addresses", n.TunnelSource)}}
	case len(sources) == 0:
		return nil
	}
	return []Check{{"tunnels", true, fmt.Sprintf("%d packets came from %v; %d from elsewhere were dropped",
		n.Decapsulated, sources, n.TunnelSource)}}
}

// checkJobs looks at the listeners of the calling thread's namespace.
func checkJobs(jobs []config.TargetJob) []Check {
	d, err := openDiag()
	if err != nil {
		return []Check{{"jobs", false, err.Error()}}
	}
	defer d.Close()
	listeners, err := d.Dump(Listen)
	if err != nil {
		return []Check{{"jobs", false, err.Error()}}
	}
	var checks []Check
	for _, j := range jobs {
		window, problem := checkListener(listeners, listenerOf(j), readyMSS, j.Window)
		check := Check{"job " + j.Name, true, fmt.Sprintf("first window %d", window)}
		if j.Direct() {
			check.Detail, problem = "takes clients' connections itself", checkDirect(listeners, listenerOf(j))
		}
		if problem != nil {
			check.OK, check.Detail = false, problem.Detail
		}
		checks = append(checks, check)
	}
	return checks
}
