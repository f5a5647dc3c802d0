package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// AddDVIPA puts an address on the host's loopback interface as a target has to: nobody else may learn of it by ARP.
// Where Baton's agent manages addresses, it does this itself.
func (h *Host) AddDVIPA(addr netip.Addr) error {
	for key, value := range map[string]string{
		"net.ipv4.conf.all.arp_ignore": "1", "net.ipv4.conf.all.arp_announce": "2",
	} {
		if _, err := h.SetSysctl(key, value); err != nil {
			return err
		}
	}
	return ip(h.Namespace, fmt.Sprintf("addr add %s/32 dev lo\n", addr))
}

// Testpmd starts DPDK's testpmd on the routing host as a plain L2 forwarder: it sends every frame that it gets to one
// target's MAC, and does nothing else. It is what a forwarder costs on this machine and these devices. It answers no
// ARP, so the client is told its MAC, the only static neighbour that a lab ever has.
func (l *Lab) Testpmd(ctx context.Context, device string, to *Host) (*Process, error) {
	target, err := to.MAC()
	if err != nil {
		return nil, err
	}
	own, err := l.Router.MAC()
	if err != nil {
		return nil, err
	}
	p, err := l.Router.Start("testpmd", "dpdk-testpmd", "--no-pci", "--no-huge", "-m", "256", "--iova-mode=va",
		"--file-prefix="+l.Prefix, "--lcores", "0@0,1@1", "--vdev="+device+"0,iface="+DataInterface, "--",
		"--auto-start", "--forward-mode=mac", "--port-topology=loop", "--eth-peer=0,"+target.String(),
		"--total-num-mbufs=16384", "--no-lsc-interrupt", "--stats-period=60")
	if err != nil {
		return nil, err
	}
	err = p.Ready(ctx, func() error {
		if strings.Contains(p.Log(), "packet forwarding") {
			return nil
		}
		return errors.New("does not forward yet")
	})
	if err != nil {
		return nil, err
	}
	return p, ip(l.Client.Namespace, fmt.Sprintf("neigh replace %s lladdr %s dev %s\n", DVIPA, own, DataInterface))
}
