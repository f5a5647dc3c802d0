package fastpath

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"baton/fastpath/flow"
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// script reads a fuzzer's input as a sequence of steps.
type script struct{ data []byte }

func (s *script) byte() byte {
	if len(s.data) == 0 {
		return 0
	}
	b := s.data[0]
	s.data = s.data[1:]
	return b
}

func (s *script) bytes(n int) []byte {
	n = min(n, len(s.data))
	b := s.data[:n]
	s.data = s.data[n:]
	return b
}

// fuzzRig plays a script against a forwarder: frames from the script as they are, the same with right checksums, a
// client's own segments bent by the script, commands, and time.
type fuzzRig struct {
	*peer
	ids  []flow.ID
	incs []wire.Incarnation
}

// FuzzPipeline throws frames and commands at the whole pipeline. Whatever comes: no crash, each punted segment is one
// that package wire accepts, and no buffer is lost.
func FuzzPipeline(f *testing.F) {
	f.Add([]byte{2, 2, 0, 3, 0, 24, 0, 5, 'x', 4, 3, 1, 24, 0, 5, 'y', 6, 1, 3, 2, 24, 0, 1, 'z', 8, 9, 200})
	f.Add([]byte{2, 2, 0, 3, 0, 24, 0, 5, 'x', 4, 3, 1, 24, 0, 5, 'y', 5, 3, 2, 17, 0, 0, 7})
	f.Add([]byte{1, 60, 2, 0xba, 0x70, 0, 0, 0, 2, 0xc1, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 1, 0, 0, 10, 77, 0, 100, 10, 77, 0, 10, 8, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := newRig(t, func(c *Config) {
			c.RouterFlows, c.IPv4Entries, c.HeldPackets = 4, 8, 3
			c.RouterIdle, c.Linger = 5*time.Second, time.Second
		})
		r.must(r.SetOwner(2, flow.Nexthop{MAC: gatewayMAC, Tunnel: flow.Tunnel{Kind: flow.GUE, Src: near6, Dst: far6, MTU: 576}}))
		z := &fuzzRig{peer: r.peer(client4, 0xfffffff0)}
		for s := (&script{data}); len(s.data) > 0; {
			z.step(s)
			z.check(t)
		}
		for _, id := range z.ids {
			r.must(r.CloseFlow(id))
		}
		r.Poll()
		r.out()
		r.Poll()
		if n := r.BuffersInUse(0); n != 0 && r.Flows() == 0 {
			t.Errorf("%d buffers lost", n)
		}
	})
}

func (z *fuzzRig) step(s *script) {
	switch s.byte() % 11 {
	case 0:
		z.put(append([]byte(nil), s.bytes(int(s.byte()))...))
	case 1:
		frame := append([]byte(nil), s.bytes(int(s.byte()))...)
		fixChecksums(frame)
		z.put(frame)
	case 2:
		z.handshake(s)
	case 3:
		z.clientSegment(s)
	case 9:
		z.advance(time.Duration(s.byte()) * 100 * time.Millisecond)
	default:
		z.command(s)
	}
}

// handshake takes a new cookie, for one of a few tuples.
func (z *fuzzRig) handshake(s *script) {
	z.client = netip.AddrPortFrom(client4.Addr(), uint16(s.byte()%8)+1)
	z.isn += seq.Value(s.byte())
	z.put(z.syn())
	for _, frame := range z.out() {
		if f, err := wire.ParseTCP(frame); err == nil && f.Segment.Flags.Has(wire.SYN) {
			z.synAck, z.iss = f.Segment, f.Segment.Seq
			z.incs = append(z.incs, z.inc())
		}
	}
}

func (z *fuzzRig) clientSegment(s *script) {
	seg := z.segment(int(int8(s.byte())), wire.Flags(s.byte()), "")
	seg.Ack += seq.Value(s.byte() & 1)
	seg.Payload = s.bytes(int(s.byte()))
	z.put(z.frame(seg))
}

func (z *fuzzRig) command(s *script) {
	id := flow.ID(0)
	if len(z.ids) > 0 {
		id = z.ids[int(s.byte())%len(z.ids)]
	}
	switch s.byte() % 5 {
	case 0:
		z.must(z.Freeze(id, flow.HoldMode(s.byte()%2)))
	case 1:
		z.must(z.Thaw(id))
	case 2:
		z.must(z.Switch(id, flow.OwnerID(s.byte()%3+1)))
	case 3:
		z.must(z.CloseFlow(id))
	case 4:
		if len(z.incs) > 0 {
			z.must(z.Remove(z.incs[int(s.byte())%len(z.incs)], flow.OwnerID(s.byte()%3+1)))
		}
	}
	z.Poll()
}

func (z *fuzzRig) check(t *testing.T) {
	for _, p := range z.punts() {
		if p.Kind == flow.First {
			z.ids = append(z.ids, p.Flow)
		}
		if len(p.Frame) == 0 {
			continue
		}
		if _, err := wire.ParseTCP(p.Frame); err != nil {
			t.Errorf("punted (kind %d) what wire refuses: %v: %x", p.Kind, err, p.Frame)
		}
	}
	z.out()
	if n := len(z.Snapshot()); n > 16 {
		t.Errorf("%d entries", n)
	}
}

// fixChecksums makes IPv4 frames pass, so that the fuzzer gets behind the checksum.
func fixChecksums(frame []byte) {
	if len(frame) < 54 || frame[12] != 8 || frame[13] != 0 {
		return
	}
	frame[14] = 0x45
	binary.BigEndian.PutUint16(frame[16:], uint16(len(frame)-14))
	fixIPv4(frame)
	proto, at := frame[23], 14+20
	body := frame[at:]
	sum := uint32(0)
	field := 2 // ICMP
	if proto == 6 {
		field = 16
		for i := 26; i < 34; i += 2 {
			sum += uint32(binary.BigEndian.Uint16(frame[i:]))
		}
		sum += 6 + uint32(len(body))
	}
	body[field], body[field+1] = 0, 0
	for i := range body {
		sum += uint32(body[i]) << (8 * (1 - i&1))
	}
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(body[field:], ^uint16(sum))
}
