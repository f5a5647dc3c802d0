package fastpath

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"baton/fastpath/flow"
	"baton/fastpath/wire"
)

// pieceMTU makes three fragments of a segment with 100 octets of data.
const pieceMTU = 88

var clients = []netip.AddrPort{client4, client6}

// pieces are the fragments of a segment with data, at the start of the client's stream.
func (p *peer) pieces(data string, id uint32) [][]byte {
	p.t.Helper()
	frames := wire.Fragments(p.frame(p.segment(0, wire.ACK|wire.PSH, data)), pieceMTU, id)
	if len(frames) < 3 {
		p.t.Fatalf("%d fragments, want at least 3", len(frames))
	}
	return frames
}

func (p *peer) putAll(frames [][]byte) {
	p.t.Helper()
	for _, f := range frames {
		p.put(slices.Clone(f))
	}
}

// lost fails if a buffer is.
func (p *peer) lost(want int) {
	p.t.Helper()
	if n := p.BuffersInUse(0); n != want {
		p.t.Errorf("%d buffers in use, want %d", n, want)
	}
}

func TestFragmentsFollowTheFirstOneToTheTarget(t *testing.T) {
	for _, client := range clients {
		t.Run(client.String(), func(t *testing.T) {
			p := newRig(t).peer(client, 5)
			p.transfer(2)
			frames := p.pieces(strings.Repeat("x", 100), 7)
			p.putAll(frames)
			got := p.out()
			if len(got) != len(frames) {
				t.Fatalf("%d frames forwarded, want %d", len(got), len(frames))
			}
			for i := range got {
				if wire.MAC(got[i]) != targetMACs[2] || !bytes.Equal(got[i][12:], frames[i][12:]) {
					t.Errorf("fragment %d becomes %x, want %x", i, got[i], frames[i])
				}
			}
			p.wantKinds()
			p.lost(0)
		})
	}
}

func TestFragmentsForTheRouterArePutTogether(t *testing.T) {
	data := strings.Repeat("x", 100)
	for _, client := range clients {
		t.Run(client.String(), func(t *testing.T) {
			p := newRig(t).peer(client, 5).connect()
			p.putAll(p.pieces(data, 7)) // the first data of a connection: a good cookie
			whole := p.frame(p.segment(0, wire.ACK|wire.PSH, data))
			first := p.punted(flow.First)
			f, err := wire.ParseTCP(first.Frame)
			if err != nil || string(f.Segment.Payload) != data || len(first.Frame) != len(whole) {
				t.Errorf("punted %x, %v; want %x", first.Frame, err, whole)
			}
			p.putAll(p.pieces(data, 8)) // it has an entry now
			if f, err := wire.ParseTCP(p.punted(flow.Segment).Frame); err != nil || string(f.Segment.Payload) != data {
				t.Errorf("%v", err)
			}
			p.wantCount("packets", "reassembled", 2)
			p.lost(0)
		})
	}
}

func TestFragmentsOfAFrozenFlowAreHeldInOnePiece(t *testing.T) {
	p := newRig(t).peer(client4, 5)
	id := p.open().Flow
	p.must(p.Freeze(id, flow.HoldBuffer))
	p.putAll(p.pieces(strings.Repeat("x", 100), 7))
	p.lost(1)
	p.must(p.Switch(id, 1))
	p.Poll()
	if f := p.one(); len(f.Segment.Payload) != 100 || f.Link.Dst != targetMACs[1] {
		t.Errorf("flushed %+v", f)
	}
	p.lost(0)
}

func TestFragmentsBehindOtherExtensionHeadersArePutTogether(t *testing.T) {
	p := newRig(t).peer(client6, 5).connect()
	frames := p.pieces(strings.Repeat("x", 100), 7)
	for i := range frames {
		frames[i] = extend(extend(frames[i], 60), 0) // destination options, before them hop-by-hop
	}
	p.putAll(frames)
	f := p.punted(flow.First).Frame
	if got, err := wire.ParseTCP(f); err != nil || len(got.Segment.Payload) != 100 {
		t.Errorf("%v: %x", err, f)
	}
}

// extend puts an extension header with padding in front of what follows the IPv6 header.
func extend(frame []byte, kind byte) []byte {
	next := frame[14+6]
	out := slices.Concat(frame[:54], []byte{next, 0, 1, 4, 0, 0, 0, 0}, frame[54:])
	out[14+6] = kind
	binary.BigEndian.PutUint16(out[14+4:], binary.BigEndian.Uint16(out[14+4:])+8)
	return out
}

func TestFragmentsThatCannotBeFollowedAreDropped(t *testing.T) {
	tests := []struct {
		name  string
		order []int
		drops uint64
		bend  func(i int, frame []byte) []byte
	}{
		{"a later one first", []int{1, 2}, 2, nil},
		{"a gap", []int{0, 2}, 1, nil},
		{"twice", []int{0, 1, 1, 2}, 3, nil}, // the packet so far, and both that come then
		{"other identification", []int{0, 1, 2}, 2, func(i int, f []byte) []byte {
			if i > 0 {
				f[19]++
			}
			return f
		}},
		{"other source", []int{0, 1, 2}, 2, func(i int, f []byte) []byte {
			if i > 0 {
				f[29]++
			}
			return f
		}},
		{"not a multiple of 8", []int{0, 1, 2}, 3, func(i int, f []byte) []byte {
			f[17] -= byte(1 - min(i, 1))
			return f
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newRig(t).peer(client4, 5)
			p.open()
			frames := p.pieces(strings.Repeat("x", 100), 7)
			for _, i := range tt.order {
				f := slices.Clone(frames[i])
				if tt.bend != nil {
					f = tt.bend(i, f)
					fixIPv4(f)
				}
				p.put(f)
			}
			p.wantKinds()
			p.wantCount("drops", "fragment", tt.drops)
			p.advance(6 * time.Second)
			p.lost(0)
		})
	}
}

func TestFragmentsOfNoFlowAreDropped(t *testing.T) {
	tests := []struct {
		name string
		drop string
		bend func(p *peer) [][]byte
	}{
		{"forged", "fragment", func(p *peer) [][]byte { p.iss++; return p.pieces(strings.Repeat("x", 100), 7) }},
		{"SYN", "fragment", func(p *peer) [][]byte {
			s := p.segment(0, wire.SYN, strings.Repeat("x", 100))
			return wire.Fragments(p.frame(s), pieceMTU, 7)
		}},
		{"other port", "no_such_port", func(p *peer) [][]byte {
			p.service = netip.AddrPortFrom(p.service.Addr(), 81)
			return p.pieces(strings.Repeat("x", 100), 7)
		}},
		{"TCP header cut", "truncated", func(p *peer) [][]byte {
			return wire.Fragments(p.frame(p.segment(0, wire.ACK, strings.Repeat("x", 100))), 36, 7)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newRig(t).peer(client4, 5).connect()
			frames := tt.bend(p)
			p.putAll(frames)
			p.none()
			p.wantKinds()
			p.lost(0)
			later := uint64(len(frames) - 1)
			if tt.drop == "fragment" {
				later++
			} else {
				p.wantCount("drops", tt.drop, 1)
			}
			p.wantCount("drops", "fragment", later)
		})
	}
}

func TestFragmentsOfOtherProtocolsAreDropped(t *testing.T) {
	r := newRig(t)
	for _, part := range wire.Fragments(echo4(r, "10.77.0.10", nil, strings.Repeat("x", 100)), pieceMTU, 7) {
		r.put(part)
	}
	r.none()
	r.wantCount("drops", "fragment", 2)
}

func TestFragmentsTimeOut(t *testing.T) {
	for _, owner := range []string{"router", "target"} {
		t.Run(owner, func(t *testing.T) {
			p := newRig(t).peer(client4, 5)
			if owner == "target" {
				p.transfer(1)
			} else {
				p.open()
			}
			frames := p.pieces(strings.Repeat("x", 100), 7)
			p.putAll(frames[:2])
			p.advance(5 * time.Second)
			p.lost(0)
			p.out()
			p.put(frames[2])
			p.none()
			p.wantKinds()
		})
	}
}

// TestFragmentsAreBounded begins more packets than there are places: no more buffers are held than there may be.
func TestFragmentsAreBounded(t *testing.T) {
	p := newRig(t).peer(client4, 5)
	p.open()
	for id := range uint32(1000) {
		p.put(p.pieces(strings.Repeat("x", 100), id)[0])
	}
	if n := p.BuffersInUse(0); n > 64 {
		t.Errorf("%d buffers are held, want at most 64", n)
	}
	p.advance(5 * time.Second)
	p.lost(0)
	p.putAll(p.pieces(strings.Repeat("x", 100), 7))
	p.punted(flow.Segment)
}

func TestEveryPrefixOfAFragmentIsHarmless(t *testing.T) {
	for _, client := range clients {
		p := newRig(t).peer(client, 5)
		p.open()
		for _, frame := range p.pieces(strings.Repeat("x", 100), 7) {
			for n := range frame {
				p.put(slices.Clone(frame[:n]))
			}
			p.wantKinds()
		}
	}
}

func TestExtensionHeadersAreFollowed(t *testing.T) {
	const hop, routing, fragment, options = 0, 43, 44, 60
	tests := []struct {
		kinds []byte // from the outside
		drop  string
	}{
		{[]byte{hop}, ""},
		{[]byte{options}, ""},
		{[]byte{routing}, ""},
		{[]byte{fragment}, ""}, // that makes none
		{[]byte{hop, options, routing, options}, ""},
		{[]byte{options, options, options, options, options}, "ip6_extension"},
		{[]byte{options, hop}, "ip6_extension"},
		{[]byte{routing + 128}, "protocol"},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%d", tt.kinds), func(t *testing.T) {
			p := newRig(t).peer(client6, 5).connect()
			frame := p.frame(p.segment(0, wire.ACK, "GET "))
			for _, kind := range slices.Backward(tt.kinds) {
				if frame = extend(frame, kind); kind == routing || kind == fragment {
					frame[56], frame[57] = 0, 0 // no segments left; offset 0
				}
			}
			p.put(frame)
			if tt.drop != "" {
				p.wantKinds()
				p.wantCount("drops", tt.drop, 1)
				return
			}
			if f, err := wire.ParseTCP(p.punted(flow.First).Frame); err != nil || string(f.Segment.Payload) != "GET " {
				t.Errorf("punted %+v, %v", f, err)
			}
		})
	}
}

func TestRoutingHeaderWithSegmentsLeftIsDropped(t *testing.T) {
	p := newRig(t).peer(client6, 5).connect()
	p.put(extend(p.frame(p.segment(0, wire.ACK, "GET ")), 43)) // the padding says 4
	p.wantKinds()
	p.wantCount("drops", "ip6_extension", 1)
}

func TestExtensionHeaderBeyondThePacketIsTruncated(t *testing.T) {
	p := newRig(t).peer(client6, 5).connect()
	frame := extend(p.frame(p.segment(0, wire.ACK, "GET ")), 60)
	frame[55] = 200
	p.put(frame)
	p.wantCount("drops", "truncated", 1)
	p.wantKinds()
}
