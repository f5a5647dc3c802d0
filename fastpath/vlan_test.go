package fastpath

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"baton/fastpath/flow"
	"baton/fastpath/wire"
)

// tagged puts a VLAN tag into a frame.
func tagged(frame []byte, tci uint16) []byte {
	return slices.Concat(frame[:12], []byte{0x81, 0, byte(tci >> 8), byte(tci)}, frame[12:])
}

// inVLAN puts the rig's port into a VLAN.
func inVLAN(c *Config) { c.Ports[0].VLAN = 42 }

// untagged returns what the port sent without the tag, which all must have.
func (r *rig) untagged() [][]byte {
	r.t.Helper()
	frames := r.out()
	for i, f := range frames {
		if len(f) < 18 || !bytes.Equal(f[12:16], []byte{0x81, 0, 0, 42}) {
			r.t.Fatalf("sent without the tag: %x", f)
		}
		frames[i] = slices.Delete(f, 12, 16)
	}
	return frames
}

// TestVLAN takes a connection through its whole life, with priorities in the client's tags.
func TestVLAN(t *testing.T) {
	p := newRig(t, inVLAN).peer(client4, 5)
	p.put(tagged(wire.AppendARP(nil, wire.ARP{Op: wire.ARPRequest,
		SenderMAC: clientMAC, SenderIP: client4.Addr(), TargetIP: service4.Addr()}), 42))
	if a, err := wire.ParseARP(p.untagged()[0]); err != nil || a.SenderIP != service4.Addr() {
		t.Errorf("ARP answer %+v, %v", a, err)
	}
	p.put(tagged(echo4(p.rig, "10.77.0.10", nil, "abc"), 42))
	if frames := p.untagged(); len(frames) != 1 {
		t.Errorf("%d echo replies", len(frames))
	}
	p.put(tagged(p.syn(), 0xe000|42))
	f, err := wire.ParseTCP(p.untagged()[0])
	if err != nil || f.Link != (wire.Link{Dst: clientMAC, Src: p.mac}) {
		t.Fatalf("SYN-ACK %+v, %v", f, err)
	}
	p.synAck, p.iss = f.Segment, f.Segment.Seq
	first := p.frame(p.segment(0, wire.ACK|wire.PSH, "GET "))
	p.put(tagged(first, 42))
	punt := p.punted(flow.First)
	if !bytes.Equal(punt.Frame, first) {
		t.Errorf("punted %x, want it without the tag: %x", punt.Frame, first)
	}
	p.must(p.Freeze(punt.Flow, flow.HoldBuffer))
	p.Poll()
	held := p.frame(p.segment(4, wire.ACK, "x"))
	p.put(tagged(held, 42))
	p.must(p.Switch(punt.Flow, 1))
	p.Poll()
	p.put(tagged(p.frame(p.segment(5, wire.ACK, "y")), 42))
	frames := p.untagged()
	if len(frames) != 2 || !bytes.Equal(frames[0][12:], held[12:]) || wire.MAC(frames[1]) != targetMACs[1] {
		t.Errorf("the target gets %x", frames)
	}
	p.must(p.Transmit(0, held))
	p.Poll()
	if frames := p.untagged(); len(frames) != 1 || !bytes.Equal(frames[0], held) {
		t.Errorf("transmitted %x", frames)
	}
	p.lost(0)
}

func TestFramesOfOtherVLANsAreDropped(t *testing.T) {
	tests := []struct {
		name  string
		vlan  bool
		frame func(frame []byte) []byte
		drop  string
	}{
		{"untagged, port in a VLAN", true, func(f []byte) []byte { return f }, "vlan"},
		{"other VLAN", true, func(f []byte) []byte { return tagged(f, 43) }, "vlan"},
		{"priority alone, port in a VLAN", true, func(f []byte) []byte { return tagged(f, 0xe000) }, "vlan"},
		{"two tags", true, func(f []byte) []byte { return tagged(tagged(f, 42), 42) }, "vlan"},
		{"cut tag", true, func(f []byte) []byte { return tagged(f, 42)[:17] }, "vlan"},
		{"nothing", true, func([]byte) []byte { return nil }, "vlan"},
		{"tagged, port in none", false, func(f []byte) []byte { return tagged(f, 42) }, "vlan"},
		{"two priorities", false, func(f []byte) []byte { return tagged(tagged(f, 0), 0) }, "vlan"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var change []func(*Config)
			if tt.vlan {
				change = append(change, inVLAN)
			}
			p := newRig(t, change...).peer(client4, 5)
			p.put(tt.frame(p.syn()))
			p.none()
			p.wantCount("drops", tt.drop, 1)
			p.lost(0)
		})
	}
}

func TestPriorityTagIsNoVLAN(t *testing.T) {
	p := newRig(t).peer(client4, 5)
	p.put(tagged(p.syn(), 0xe000))
	if f := p.one(); f.Segment.Flags != wire.SYN|wire.ACK {
		t.Errorf("answer %+v", f)
	}
}

// TestPortsTagForThemselves forwards from one port to another, of which at least one is in a VLAN.
func TestPortsTagForThemselves(t *testing.T) {
	for _, vlans := range [][2]uint16{{42, 0}, {0, 43}, {42, 43}} {
		t.Run(fmt.Sprint(vlans), func(t *testing.T) {
			p := newRig(t, func(c *Config) {
				c.Ports = append(c.Ports, PortConfig{Device: "mem1,tight", VLAN: vlans[1]})
				c.Ports[0].VLAN = vlans[0]
			}).peer(client4, 5)
			tag := func(frame []byte, vlan uint16) []byte {
				if vlan == 0 {
					return frame
				}
				return tagged(frame, vlan)
			}
			p.must(p.SetOwner(1, flow.Nexthop{MAC: targetMACs[1], Port: 1}))
			p.put(tag(p.syn(), vlans[0]))
			answer := p.out()[0]
			if vlans[0] != 0 {
				answer = slices.Delete(answer, 12, 16)
			}
			f, err := wire.ParseTCP(answer)
			p.must(err)
			p.synAck, p.iss = f.Segment, f.Segment.Seq
			frame := p.frame(p.segment(0, wire.ACK, strings.Repeat("x", 50)))
			p.put(tag(frame, vlans[0]))
			id := p.punted(flow.First).Flow
			p.must(p.Switch(id, 1))
			p.put(tag(frame, vlans[0]))
			got, _ := p.Collect(1, nil)
			if want := tag(frame, vlans[1]); !bytes.Equal(got[12:], want[12:]) {
				t.Errorf("sent %x, want %x", got, want)
			}
		})
	}
}

func TestImpossibleVLANIsRefused(t *testing.T) {
	_, err := Open(Config{Ports: []PortConfig{{Device: "mem0", VLAN: 4095}}})
	if err == nil || !strings.Contains(err.Error(), "4094") {
		t.Errorf("error %v", err)
	}
}
