package router

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"baton/fastpath/flow"
)

// maxRows bounds the rows of the destination port table that one target may have.
const maxRows = 4096

// target is one target host: who it is on the data network, and its part of the destination port table (DPT).
type target struct {
	name      string
	owner     flow.OwnerID
	addr      netip.Addr
	neighbour *neighbour  // the target, or the router that leads to it
	tunnel    flow.Tunnel // zero: it is on the data network
	connected bool
	rows      map[rowKey]Job
	draining  bool // takes no new connections
	pending   int  // transfers under way to it
	active    int  // connections given to it whose end it has not reported
}

// Tunnel is how a target that is not on the data network is reached.
type Tunnel struct {
	Kind flow.TunnelKind
	Via  netip.Addr // router on the data network that leads to it; invalid: the target's address is there
	MTU  int        // largest packet on the way, octets, tunnel included
}

type rowKey struct {
	job     string
	service netip.AddrPort
}

// unfit says why no connection of this job can be given to the target now; "" is that it can. The order is that in
// which an operator would look.
func (t *target) unfit(job string, s *Service) string {
	if why := t.unreachable(); why != "" {
		return why
	}
	r, announced := t.rows[rowKey{job, s.Address}]
	switch {
	case !announced:
		return "job not announced for " + s.Address.String()
	case !r.Ready:
		return cmp.Or(r.Reason, "not ready")
	case r.Direct && !s.Distribution.Conventional():
		return "the job takes clients' connections there, not handed-over ones: " +
			"set connections: transferred there, or another distribute here"
	case !r.Direct && s.Distribution.Conventional():
		return "the job takes handed-over connections only there: set connections: direct there, or " +
			"distribute: contentrouted here"
	case t.draining:
		return "draining (batonctl target undrain " + t.name + ")"
	case s.Distribution.Conventional():
		return ""
	case r.Window != 0 && r.Window < s.Window:
		return fmt.Sprintf("first window %d is below the DVIPA's window %d: raise the application's SO_RCVBUF or "+
			"net.ipv4.tcp_rmem there, or lower window here and there", r.Window, s.Window)
	}
	return ""
}

// unreachable says why nothing can be given to the target at all; "" is that it could.
func (t *target) unreachable() string {
	switch {
	case !t.connected:
		return "not connected"
	case !t.neighbour.known:
		return "no neighbour"
	case len(t.rows) == 0:
		return "no job announced"
	}
	return ""
}

// announce replaces the target's rows.
func (t *target) announce(jobs []Job) {
	t.rows = make(map[rowKey]Job, min(len(jobs), maxRows))
	for _, j := range jobs[:min(len(jobs), maxRows)] {
		t.rows[rowKey{j.Name, j.Service}] = j
	}
}

// sortedRows are the rows by service and job, for people.
func (t *target) sortedRows() []rowKey {
	keys := make([]rowKey, 0, len(t.rows))
	for k := range t.rows {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b rowKey) int {
		return cmp.Or(a.service.Compare(b.service), cmp.Compare(a.job, b.job))
	})
	return keys
}
