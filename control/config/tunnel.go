package config

import (
	"net/netip"

	"baton/fastpath/flow"
)

// minMTU is the smallest MTU that IPv6 may have (RFC 8200 §5).
const minMTU = 1280

// TunnelKind is the way to the target; flow.NoTunnel for one on the data network.
func (t TargetHost) TunnelKind() flow.TunnelKind {
	switch t.Tunnel {
	case "ipip":
		return flow.IPIP
	case "gue":
		return flow.GUE
	}
	return flow.NoTunnel
}

// room is the largest packet of a client that gets to the target, octets.
func (t TargetHost) room() int {
	return t.MTU - flow.Tunnel{Kind: t.TunnelKind(), Dst: t.Address}.Overhead()
}

// hop is whose MAC address the target's packets are sent to.
func (t TargetHost) hop() netip.Addr {
	if t.Via.IsValid() {
		return t.Via
	}
	return t.Address
}

// AnnouncedMSS is what clients of a port are told: its mss, or less where a full segment would not fit the tunnel to a
// target that may get the connection. TCP options are inside of segments (RFC 6691).
func (r *Router) AnnouncedMSS(d DVIPA, p *Port) uint16 {
	mss := int(p.MSS)
	for _, section := range p.sections() {
		for _, route := range section.routes() {
			for _, host := range r.Jobs[route.job].Hosts {
				if t := r.Targets[host]; t.TunnelKind() != flow.NoTunnel {
					mss = min(mss, t.room()-headers(d.Address))
				}
			}
		}
	}
	return uint16(mss)
}

// headers is what an IP packet of a DVIPA has besides a segment's payload, octets.
func headers(dvipa netip.Addr) int {
	const ip4, ip6, tcp = 20, 40, 20
	if dvipa.Is4() {
		return ip4 + tcp
	}
	return ip6 + tcp
}

// checkTargets reports targets that no packet can reach.
func (r *Router) checkTargets(to *report) {
	for name, t := range r.Targets {
		key := join("targets", name)
		to.hostName(key, name)
		switch {
		case !to.unicast(key+".address", t.Address):
		case t.TunnelKind() != flow.NoTunnel:
			r.checkTunnel(to, key, t)
		case t.Via.IsValid():
			to.failf(key+".via", "%s is of no use without a tunnel: a router would send the packet back to the DVIPA", t.Via)
		case !r.onDataNetwork(t.Address):
			to.failf(key+".address", "%s is in no data port's network (%s): set tunnel, or one of its addresses there",
				t.Address, r.networks())
		}
	}
}

func (r *Router) checkTunnel(to *report, key string, t TargetHost) {
	if t.Via.IsValid() && !to.unicast(key+".via", t.Via) {
		return
	}
	switch {
	case t.hop().Is4() != t.Address.Is4():
		to.failf(key+".via", "%s and %s are not of one family: the tunnel begins at the data port's address", t.Via, t.Address)
	case t.Via.IsValid() && !r.onDataNetwork(t.Via):
		to.failf(key+".via", "%s is in no data port's network (%s): want the router there that leads to %s",
			t.Via, r.networks(), t.Address)
	case !r.onDataNetwork(t.hop()):
		to.failf(key+".address", "%s is in no data port's network (%s): set via to the router there that leads to it",
			t.Address, r.networks())
	}
	if t.Address.Is6() && t.MTU < minMTU {
		to.failf(key+".mtu", "%d is too small for IPv6: want at least %d", t.MTU, minMTU)
	} else if t.room() < minMTU && r.hasIPv6() {
		to.failf(key+".mtu", "%d leaves %d octets inside of the tunnel: IPv6 clients need %d, so want at least %d",
			t.MTU, t.room(), minMTU, minMTU+t.MTU-t.room())
	}
}

// hasIPv6 reports whether a DVIPA is one.
func (r *Router) hasIPv6() bool {
	for _, d := range r.DVIPAs {
		if d.Address.Is6() {
			return true
		}
	}
	return false
}
