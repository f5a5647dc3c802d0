package fastpath

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"baton/fastpath/flow"
	"baton/fastpath/wire"
)

// withKernel gives the rig's port an exception path.
func withKernel(c *Config) { c.Ports[0].Exception = true }

// udp4 is a datagram of the client's.
func udp4(r *rig, dst string) []byte {
	ip := ip4(dst, layers.IPProtocolUDP)
	udp := &layers.UDP{SrcPort: 5000, DstPort: 53}
	if err := udp.SetNetworkLayerForChecksum(ip); err != nil {
		r.t.Fatal(err)
	}
	return serialize(r.t, r.ethernet(layers.EthernetTypeIPv4), ip, udp, gopacket.Payload("question"))
}

// tcpTo is a SYN of the client's.
func (r *rig) tcpTo(dst string) []byte {
	return wire.AppendTCP(nil, wire.Link{Dst: r.mac, Src: clientMAC}, client4, netip.MustParseAddrPort(dst),
		wire.Segment{Seq: 1, Flags: wire.SYN, Window: 100})
}

func who(target string) wire.ARP {
	return wire.ARP{Op: wire.ARPRequest, SenderMAC: clientMAC, SenderIP: client4.Addr(),
		TargetIP: netip.MustParseAddr(target)}
}

// TestExceptions says where frames go that no connection of Baton's has: to the kernel if the port has a way there, or
// nowhere, under the same counter as always.
func TestExceptions(t *testing.T) {
	tests := []struct {
		name   string
		kernel bool
		drop   string // under which it is counted otherwise
		frame  func(*rig) []byte
	}{
		{"UDP to own address", true, "protocol", func(r *rig) []byte { return udp4(r, "10.77.0.1") }},
		{"UDP to DVIPA", false, "protocol", func(r *rig) []byte { return udp4(r, "10.77.0.10") }},
		{"UDP to other address", true, "not_ours", func(r *rig) []byte { return udp4(r, "10.77.0.2") }},
		{"TCP to own address", true, "no_such_port", func(r *rig) []byte { return r.tcpTo("10.77.0.1:22") }},
		{"TCP to another port of a DVIPA", false, "no_such_port", func(r *rig) []byte { return r.tcpTo("10.77.0.10:22") }},
		{"TCP to other address", true, "not_ours", func(r *rig) []byte { return r.tcpTo("10.77.0.2:22") }},
		{"another MAC", false, "not_ours", func(r *rig) []byte { f := r.tcpTo("10.77.0.2:22"); f[5]++; return f }},
		{"multicast", true, "not_ours", func(r *rig) []byte { f := udp4(r, "10.77.0.2"); f[0] |= 1; return f }},
		{"TCP to DVIPA by multicast", false, "not_ours", func(r *rig) []byte {
			f := r.tcpTo("10.77.0.10:80")
			f[0] |= 1
			return f
		}},
		{"UDP to DVIPA by broadcast", false, "not_ours", func(r *rig) []byte {
			return slices.Concat(bytes.Repeat([]byte{0xff}, 6), udp4(r, "10.77.0.10")[6:])
		}},
		{"echo to other address", true, "not_ours", func(r *rig) []byte { return echo4(r, "10.77.0.2", nil, "abc") }},
		{"timestamp request", true, "icmp", func(r *rig) []byte {
			return echo4(r, "10.77.0.1", func(_ *layers.IPv4, i *layers.ICMPv4) { i.TypeCode = 13 << 8 }, "abcdefghijkl")
		}},
		{"ARP for other address", true, "arp", func(*rig) []byte { return wire.AppendARP(nil, who("10.77.0.2")) }},
		{"solicitation of other address", true, "arp", func(*rig) []byte {
			return wire.AppendNDP(nil, wire.Solicit(clientMAC, client6.Addr(), netip.MustParseAddr("2001:db8::2")))
		}},
		{"LLDP", true, "ethertype", func(*rig) []byte {
			return slices.Concat([]byte{1, 0x80, 0xc2, 0, 0, 14}, clientMAC[:], []byte{0x88, 0xcc}, make([]byte, 46))
		}},
		{"fragment", true, "fragment", func(r *rig) []byte {
			return wire.Fragments(echo4(r, "10.77.0.1", nil, strings.Repeat("x", 100)), 88, 7)[1]
		}},
		{"bad checksum", false, "ip_checksum", func(r *rig) []byte { f := udp4(r, "10.77.0.2"); f[25]++; return f }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			without := newRig(t)
			without.put(tt.frame(without))
			without.wantKinds()
			without.wantCount("drops", tt.drop, 1)

			r := newRig(t, withKernel)
			frame := tt.frame(r)
			r.put(slices.Clone(frame))
			r.none()
			if !tt.kernel {
				r.wantKinds()
				r.wantCount("drops", tt.drop, 1)
				return
			}
			if p := r.punted(flow.Exception); !bytes.Equal(p.Frame, frame) || p.Port != 0 {
				t.Errorf("punted %x by port %d, want %x", p.Frame, p.Port, frame)
			}
			r.wantCount("drops", tt.drop, 0)
		})
	}
}

// TestKernelHearsOfNeighbours, too: both may have asked.
func TestKernelHearsOfNeighbours(t *testing.T) {
	r := newRig(t, withKernel)
	r.put(wire.AppendARP(nil, wire.ARP{Op: wire.ARPReply, SenderMAC: targetMACs[1],
		SenderIP: netip.MustParseAddr("10.77.0.21"), TargetMAC: r.mac, TargetIP: portAddr.Addr()}))
	r.wantKinds(flow.Exception, flow.Neighbour)
}

func TestExceptionsAreLimited(t *testing.T) {
	r := newRig(t, withKernel, oneLoop)
	frame := udp4(r, "10.77.0.2")
	for i := range 11_000 {
		r.must(r.Inject(0, frame))
		if i%32 == 31 {
			r.Poll()
			r.punts()
		}
	}
	r.Poll()
	r.wantCount("punts", "exception", 10_000)
	r.wantCount("drops", "punt_limited", 1000)
}
