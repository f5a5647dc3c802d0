package target

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strconv"

	"baton/control/agent"
	"baton/control/transfer"
)

// Check is the result of looking at one thing of the host.
type Check struct {
	Name   string
	OK     bool
	Detail string // what was found; not OK: also the one thing to set
}

// sysctlRules are the switches that an import needs on (1) or off (0); see the package's sources for who reads them.
var sysctlRules = []struct{ key, set, why string }{
	{"net/ipv4/tcp_syncookies", "1", "with 0 the kernel answers the import with a RST"},
	{"net/ipv4/tcp_timestamps", "1", "clients that use timestamps cannot be taken"},
	{"net/ipv4/tcp_sack", "1", "clients that use SACK cannot be taken"},
	{"net/ipv4/tcp_window_scaling", "1", "clients that use window scaling cannot be taken"},
	{"net/ipv4/tcp_rfc1337", "0", "else a TIME-WAIT of an earlier connection cannot be ended"},
	{"net/netfilter/nf_conntrack_tcp_loose", "1", "else conntrack calls a taken connection invalid"},
}

// checkSysctls looks at the calling thread's namespace.
func checkSysctls() []Check {
	checks := make([]Check, 0, len(sysctlRules))
	for _, rule := range sysctlRules {
		off := rule.set == "0"
		checks = append(checks, checkSysctl(rule.key, func(v int) bool { return off == (v == 0) }, rule.set, rule.why))
	}
	return checks
}

func checkSysctl(key string, good func(int) bool, set, why string) Check {
	name := dotted(key)
	text, err := readSysctl(key)
	if errors.Is(err, fs.ErrNotExist) {
		return Check{name, true, "not in this kernel"}
	}
	value, err := strconv.Atoi(text)
	if err != nil {
		return Check{name, false, fmt.Sprintf("%s cannot be read: %v", name, err)}
	}
	if !good(value) {
		return Check{name, false, fmt.Sprintf("set %s=%s (it is %d: %s)", name, set, value, why)}
	}
	return Check{name, true, text}
}

// dotted is a sysctl's name as sysctl(8) takes it.
func dotted(key string) string {
	b := []byte(key)
	for i, c := range b {
		switch c {
		case '/':
			b[i] = '.'
		case '.':
			b[i] = '/'
		}
	}
	return string(b)
}

// checkAddresses looks for the DVIPAs, and that the host does not answer ARP for them, in the calling thread's
// namespace.
func checkAddresses(dvipas []netip.Addr) []Check {
	var checks []Check
	for _, s := range arpSettings {
		least, _ := strconv.Atoi(s.value)
		checks = append(checks, checkSysctl(s.key, func(v int) bool { return v >= least }, s.value,
			"the host would answer ARP for the DVIPAs"))
	}
	for _, a := range dvipas {
		name := "address " + a.String()
		if isLocal(a) {
			checks = append(checks, Check{name, true, "here"})
		} else {
			checks = append(checks, Check{name, false,
				fmt.Sprintf("add it: ip address add %v/%d dev lo, after the ARP settings", a, a.BitLen())})
		}
	}
	return checks
}

// checkReversePath looks at the guarded interfaces. Strict filtering is right only on one segment with the clients,
// which nobody but the operator knows, so it is told and not refused.
func checkReversePath(interfaces []string) []Check {
	var checks []Check
	all, _ := readSysctl("net/ipv4/conf/all/rp_filter")
	for _, dev := range interfaces {
		own, err := readSysctl("net/ipv4/conf/" + dev + "/rp_filter")
		if err != nil {
			continue
		}
		detail := max(all, own)
		if detail == "1" {
			detail = "1 (strict): drops clients whose way back is another interface; if there are any, set 2"
		}
		checks = append(checks, Check{"net.ipv4.conf." + dev + ".rp_filter", true, detail})
	}
	return checks
}

// listenersAt are the sockets to which the kernel gives connections to at: those that listen there, else on the
// wildcard. Several only with SO_REUSEPORT.
func listenersAt(all []Socket, at netip.AddrPort) []Socket {
	best, bestScore := []Socket(nil), 0
	for _, s := range all {
		switch score := listenScore(s, at); {
		case score > bestScore:
			best, bestScore = []Socket{s}, score
		case score == bestScore && score > 0:
			best = append(best, s)
		}
	}
	return best
}

// listenScore orders listeners as the kernel's compute_score() does; 0: not for connections to at.
func listenScore(s Socket, at netip.AddrPort) int {
	local := s.Tuple.Service
	switch {
	case local.Port() != at.Port():
		return 0
	case local.Addr() == at.Addr():
		return 4
	case !local.Addr().IsUnspecified():
		return 0
	case s.IPv6 == at.Addr().Is6():
		return 2
	case s.IPv6 && !s.V6Only:
		return 1
	}
	return 0
}

// checkDirect says whether the application at a listener can take connections that clients begin with it.
func checkDirect(all []Socket, at netip.AddrPort) *agent.Problem {
	if len(listenersAt(all, at)) > 0 {
		return nil
	}
	return notListening(at)
}

func notListening(at netip.AddrPort) *agent.Problem {
	detail := fmt.Sprintf("nobody listens on %v: start the application", at)
	return &agent.Problem{Reason: transfer.ReasonNotListening, Detail: detail}
}

// checkListener says whether the application at a listener can take connections, and with which first window at least.
func checkListener(all []Socket, at netip.AddrPort, mss uint16, want uint32) (window uint32, p *agent.Problem) {
	found := listenersAt(all, at)
	if len(found) == 0 {
		return 0, notListening(at)
	}
	for _, s := range found {
		switch {
		case s.MPTCP:
			return 0, &agent.Problem{Reason: transfer.ReasonHost, Detail: fmt.Sprintf("the listener on %v is MPTCP: set net.mptcp.enabled=0 and "+
				"restart the application (Go: GODEBUG=multipathtcp=0)", at)}
		case s.MD5:
			return 0, &agent.Problem{Reason: transfer.ReasonHost, Detail: fmt.Sprintf("the listener on %v has TCP MD5 keys: "+
				"let it listen without TCP_MD5SIG", at)}
		case s.Interface != 0:
			return 0, &agent.Problem{Reason: transfer.ReasonHost, Detail: fmt.Sprintf("the listener on %v is bound to a device: "+
				"let it listen without SO_BINDTODEVICE", at)}
		}
	}
	smallest := slices.MinFunc(found, func(a, b Socket) int { return int(a.Rcvbuf) - int(b.Rcvbuf) })
	window = FirstWindow(smallest.Rcvbuf, mss)
	if window < want {
		return window, &agent.Problem{Reason: transfer.ReasonWindow, Detail: fmt.Sprintf("the first window of %v is %d, below %d: raise the "+
			"application's SO_RCVBUF or net.ipv4.tcp_rmem, or lower the job's window here and at the routing host",
			at, window, want)}
	}
	return window, nil
}
