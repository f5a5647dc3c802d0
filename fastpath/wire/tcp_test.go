package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

var (
	testLink  = Link{Dst: MAC{2, 0, 0, 0, 0, 1}, Src: MAC{2, 0, 0, 0, 0, 2}}
	client4   = netip.MustParseAddrPort("10.77.0.100:40000")
	service4  = netip.MustParseAddrPort("10.77.0.10:80")
	client6   = netip.MustParseAddrPort("[2001:db8::100]:40000")
	service6  = netip.MustParseAddrPort("[2001:db8::10]:80")
	synOption = Options{MSS: 1460, SACKPermitted: true, HasTimestamps: true, TSVal: 7, TSEcr: 9, HasScale: true, Scale: 7}
)

// oracle decodes a frame with gopacket, which verifies nothing, and the checksums with gopacket's own serialiser.
func oracle(t *testing.T, frame []byte) *layers.TCP {
	t.Helper()
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	if e := p.ErrorLayer(); e != nil {
		t.Fatalf("gopacket: %v", e.Error())
	}
	tcp := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
	if err := tcp.SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
		t.Fatal(err)
	}
	again := gopacket.NewSerializeBuffer()
	var all []gopacket.SerializableLayer
	for _, l := range p.Layers() {
		all = append(all, l.(gopacket.SerializableLayer))
	}
	err := gopacket.SerializeLayers(again, gopacket.SerializeOptions{ComputeChecksums: true, FixLengths: true}, all...)
	if err != nil {
		t.Fatal(err)
	}
	theirs := again.Bytes()
	theirs = theirs[:min(len(theirs), len(frame))] // gopacket pads to Ethernet's minimum
	if !bytes.Equal(theirs, frame) {
		t.Errorf("gopacket writes the packet as\n%x, we as\n%x", theirs, frame)
	}
	return tcp
}

func TestAppendTCPAgreesWithGopacket(t *testing.T) {
	for _, c := range []struct {
		name     string
		src, dst netip.AddrPort
		segment  Segment
	}{
		{"SYN-ACK over IPv4", service4, client4, Segment{Seq: 1, Ack: 2, Flags: SYN | ACK, Window: 65535, Options: synOption}},
		{"SYN-ACK over IPv6", service6, client6, Segment{Seq: 1, Ack: 2, Flags: SYN | ACK, Window: 65535, Options: synOption}},
		{"bare ACK", service4, client4, Segment{Seq: 0xffffffff, Ack: 0x80000000, Flags: ACK}},
		{"odd payload", service4, client4, Segment{Flags: ACK | PSH, Payload: []byte("odd")}},
		{"even payload", service6, client6, Segment{Flags: ACK | PSH | FIN, Payload: []byte("even")}},
		{"SACK with timestamps", service4, client4, Segment{Flags: ACK, Options: Options{HasTimestamps: true, NSACK: 3,
			SACK: [4]Block{{1, 2}, {3, 4}, {5, 6}}}}},
		{"all flags", service4, client4, Segment{Flags: 0xff}},
	} {
		t.Run(c.name, func(t *testing.T) {
			frame := AppendTCP(nil, testLink, c.src, c.dst, c.segment)
			tcp := oracle(t, frame)
			if tcp.Seq != uint32(c.segment.Seq) || tcp.Ack != uint32(c.segment.Ack) || tcp.Window != c.segment.Window {
				t.Errorf("gopacket reads %+v", tcp)
			}
			if !bytes.Equal(tcp.Payload, c.segment.Payload) {
				t.Errorf("gopacket reads payload %q", tcp.Payload)
			}
			got, err := ParseTCP(frame)
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Segment.Payload) == 0 {
				got.Segment.Payload = nil
			}
			want := Frame{Link: testLink, Src: c.src, Dst: c.dst, Segment: c.segment}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("parsed %+v\nwant   %+v", got, want)
			}
		})
	}
}

func TestOptionsKeepTheOrderOfALinuxSYNACK(t *testing.T) {
	for _, c := range []struct {
		name    string
		options Options
		want    []byte
	}{
		{"all", synOption, []byte{2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9, 1, 3, 3, 7}},
		{"no timestamps", Options{MSS: 1460, SACKPermitted: true, HasScale: true, Scale: 7},
			[]byte{2, 4, 5, 180, 4, 2, 1, 1, 1, 3, 3, 7}},
		{"timestamps alone", Options{HasTimestamps: true, TSVal: 1, TSEcr: 2}, []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}},
		{"MSS alone", Options{MSS: 536}, []byte{2, 4, 2, 24}},
		{"one block", Options{NSACK: 1, SACK: [4]Block{{1, 2}}}, []byte{1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.options.append(nil); !bytes.Equal(got, c.want) || c.options.Len() != len(c.want) {
				t.Errorf("got % d (Len %d), want % d", got, c.options.Len(), c.want)
			}
		})
	}
}

func TestSACKBlocksThatFindNoRoomAreLeftOut(t *testing.T) {
	o := synOption
	o.NSACK, o.SACK = 4, [4]Block{{1, 2}, {3, 4}, {5, 6}, {7, 8}}
	got := parseOptions(o.append(nil))
	if got.NSACK != 2 || got.SACK[1] != (Block{3, 4}) || o.Len() != MaxOptionsLen {
		t.Errorf("%d blocks in %d octets: %v", got.NSACK, o.Len(), got.SACK)
	}
}

// RFC 9293 §3.1 (MUST-6, MUST-7): any option length, and any unknown option, is harmless.
func TestOptionsWithBadLengths(t *testing.T) {
	mss := Options{MSS: 1460}
	for _, c := range []struct {
		name string
		raw  []byte
		want Options
	}{
		{"length 0 ends the list", []byte{2, 4, 5, 180, 8, 0, 4, 2}, mss},
		{"length 1 ends the list", []byte{2, 4, 5, 180, 8, 1, 4, 2}, mss},
		{"length beyond the header ends the list", []byte{2, 4, 5, 180, 8, 10, 0, 0}, mss},
		{"kind without length", []byte{2, 4, 5, 180, 1, 1, 1, 8}, mss},
		{"unknown kind is skipped", []byte{34, 2, 253, 4, 1, 2, 2, 4, 5, 180}, mss},
		{"known kind of another length is skipped", []byte{3, 4, 1, 1, 4, 3, 0, 8, 4, 0, 0, 2, 4, 5, 180}, mss},
		{"SACK that is no multiple of 8", []byte{5, 9, 0, 0, 0, 0, 0, 0, 0, 2, 4, 5, 180}, mss},
		{"SACK without blocks", []byte{5, 2, 2, 4, 5, 180}, mss},
		{"end of list", []byte{0, 2, 4, 5, 180}, Options{}},
		{"last one counts", []byte{2, 4, 1, 1, 2, 4, 5, 180}, mss},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := parseOptions(c.raw); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

// change returns a frame with one octet changed, relative to the IP header.
func change(frame []byte, at int, value byte) []byte {
	frame = bytes.Clone(frame)
	frame[EthernetLen+at] = value
	return frame
}

// fixIPv4 puts the right checksum into the IPv4 header.
func fixIPv4(frame []byte) []byte {
	h := frame[EthernetLen:][:ip4MinLen]
	h[ip4Checksum], h[ip4Checksum+1] = 0, 0
	binary.BigEndian.PutUint16(h[ip4Checksum:], checksum(sum(0, h)))
	return frame
}

func TestParseTCPRefusesBadFrames(t *testing.T) {
	four := AppendTCP(nil, testLink, client4, service4, Segment{Flags: ACK, Payload: []byte("hello")})
	six := AppendTCP(nil, testLink, client6, service6, Segment{Flags: ACK, Payload: []byte("hello")})
	for _, c := range []struct {
		name  string
		frame []byte
		want  error
	}{
		{"no Ethernet header", four[:13], ErrTruncated},
		{"ARP", AppendARP(nil, ARP{Op: ARPRequest, SenderIP: client4.Addr(), TargetIP: service4.Addr()}), ErrNotTCP},
		{"IPv4 header cut", four[:30], ErrTruncated},
		{"IPv4 packet cut", four[:len(four)-1], ErrTruncated},
		{"IPv4 with version 5", change(four, ip4VersionIHL, 0x55), ErrMalformed},
		{"IPv4 with IHL 4", change(four, ip4VersionIHL, 0x44), ErrMalformed},
		{"IPv4 with total length 19", fixIPv4(change(four, ip4TotalLen+1, 19)), ErrMalformed},
		{"IPv4 checksum", change(four, ip4TTL, 63), ErrChecksum},
		{"IPv4 first fragment", fixIPv4(change(four, ip4Fragment, 0x20)), ErrFragment},
		{"IPv4 last fragment", fixIPv4(change(four, ip4Fragment+1, 1)), ErrFragment},
		{"UDP", fixIPv4(change(four, ip4Protocol, 17)), ErrNotTCP},
		{"TCP header cut", fixIPv4(change(four, ip4TotalLen+1, 39)), ErrTruncated},
		{"TCP data offset 4", change(four, ip4MinLen+tcpOffset, 0x40), ErrMalformed},
		{"TCP data offset beyond the packet", change(four, ip4MinLen+tcpOffset, 0xf0), ErrTruncated},
		{"TCP checksum", change(four, ip4MinLen+tcpMinLen, 'H'), ErrChecksum},
		{"IPv6 header cut", six[:50], ErrTruncated},
		{"IPv6 packet cut", six[:len(six)-1], ErrTruncated},
		{"IPv6 with version 4", change(six, ip6Version, 0x40), ErrMalformed},
		{"IPv6 checksum", change(six, ip6Dst+15, 0x11), ErrChecksum},
		{"IPv6 with UDP", change(six, ip6NextHeader, 17), ErrNotTCP},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := ParseTCP(c.frame); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestParseTCPIgnoresLinkPaddingAndReservedBits(t *testing.T) {
	frame := AppendTCP(nil, testLink, client4, service4, Segment{Flags: ACK, Payload: []byte("x")})
	frame[EthernetLen+ip4MinLen+tcpOffset] |= 0x0f
	binary.BigEndian.PutUint16(frame[EthernetLen+ip4MinLen+tcpChecksum:], 0)
	tcp := frame[EthernetLen+ip4MinLen:]
	fixed := checksum(sum(pseudoSum(client4.Addr(), service4.Addr(), protoTCP, len(tcp)), tcp))
	binary.BigEndian.PutUint16(frame[EthernetLen+ip4MinLen+tcpChecksum:], fixed)
	frame = append(frame, 0xde, 0xad, 0xbe)
	got, err := ParseTCP(frame)
	if err != nil || string(got.Segment.Payload) != "x" {
		t.Errorf("payload %q, error %v", got.Segment.Payload, err)
	}
}

func TestParseTCPSkipsIPv4Options(t *testing.T) {
	plain := AppendTCP(nil, testLink, client4, service4, Segment{Flags: ACK, Payload: []byte("hello")})
	head, rest := plain[:EthernetLen+ip4MinLen], plain[EthernetLen+ip4MinLen:]
	frame := bytes.Join([][]byte{head, {0x94, 4, 0, 0}, rest}, nil) // router alert, RFC 2113
	ip := frame[EthernetLen:]
	ip[ip4VersionIHL] = 0x46
	ip[ip4TotalLen+1] += 4
	ip[ip4Checksum], ip[ip4Checksum+1] = 0, 0
	binary.BigEndian.PutUint16(ip[ip4Checksum:], checksum(sum(0, ip[:24])))
	if got, err := ParseTCP(frame); err != nil || string(got.Segment.Payload) != "hello" {
		t.Errorf("payload %q, error %v", got.Segment.Payload, err)
	}
}

func TestParseTCPWalksIPv6ExtensionHeaders(t *testing.T) {
	tcp := AppendTCP(nil, testLink, client6, service6, Segment{Flags: ACK, Payload: []byte("hello")})
	build := func(first uint8, extensions ...byte) []byte {
		frame := bytes.Join([][]byte{tcp[:EthernetLen+ip6Len], extensions, tcp[EthernetLen+ip6Len:]}, nil)
		ip := frame[EthernetLen:]
		ip[ip6NextHeader] = first
		binary.BigEndian.PutUint16(ip[ip6PayloadLen:], uint16(len(ip)-ip6Len))
		return frame
	}
	for _, c := range []struct {
		name  string
		frame []byte
		want  error
	}{
		{"hop-by-hop", build(extHopByHop, 6, 0, 1, 4, 0, 0, 0, 0), nil},
		{"destination options of 16 octets", build(extDestOpts, 6, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), nil},
		{"two in a row", build(extHopByHop, extDestOpts, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0), nil},
		{"routing header used up", build(extRouting, 6, 0, 4, 0, 0, 0, 0, 0), nil},
		{"routing header under way", build(extRouting, 6, 0, 4, 1, 0, 0, 0, 0), ErrMalformed},
		{"atomic fragment", build(extFragment, 6, 0, 0, 0, 1, 2, 3, 4), nil},
		{"first fragment", build(extFragment, 6, 0, 0, 1, 1, 2, 3, 4), ErrFragment},
		{"last fragment", build(extFragment, 6, 0, 0, 8, 1, 2, 3, 4), ErrFragment},
		{"longer than the packet", build(extDestOpts, 6, 255, 1, 4, 0, 0, 0, 0), ErrTruncated},
		{"no next header", build(extDestOpts, 59, 0, 1, 4, 0, 0, 0, 0), ErrNotTCP},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseTCP(c.frame)
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if c.want == nil && string(got.Segment.Payload) != "hello" {
				t.Errorf("payload %q", got.Segment.Payload)
			}
		})
	}
	cut := build(extDestOpts, 6, 0, 1, 4)
	if _, err := ParseTCP(cut[:len(cut)-25]); !errors.Is(err, ErrTruncated) {
		t.Errorf("cut extension header: %v", err)
	}
}

func TestAppendTCPPanicsOnImpossiblePackets(t *testing.T) {
	for name, f := range map[string]func(){
		"mixed families": func() { AppendTCP(nil, testLink, client4, service6, Segment{}) },
		"too long":       func() { AppendTCP(nil, testLink, client4, service4, Segment{Payload: make([]byte, 65536)}) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		})
	}
}

// slowChecksum is RFC 1071 §4.1 as written there, 16 bits at a time.
func slowChecksum(b []byte) uint16 {
	var s uint32
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		s += uint32(b[len(b)-1]) << 8
	}
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}

func TestChecksumEqualsItsSlowTwin(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 3000 {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
			if n%3 == 0 {
				b[i] = 0xff // carries everywhere
			}
		}
		if got, want := checksum(sum(0, b)), slowChecksum(b); got != want {
			t.Fatalf("%d octets: got %#x, want %#x", n, got, want)
		}
	}
}

func TestSegmentLenCountsSYNAndFIN(t *testing.T) {
	if n := (Segment{Flags: SYN | FIN, Payload: []byte("ab")}).Len(); n != 4 {
		t.Errorf("got %d", n)
	}
}

func TestStringsReadWell(t *testing.T) {
	for got, want := range map[string]string{
		(SYN | ACK).String():              "S.",
		Flags(0).String():                 "none",
		Flags(0xff).String():              "FSRP.UEW",
		testLink.Dst.String():             "02:00:00:00:00:01",
		Tuple{client4, service4}.String(): "10.77.0.100:40000 -> 10.77.0.10:80",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func FuzzParseTCP(f *testing.F) {
	f.Add(AppendTCP(nil, testLink, client4, service4, Segment{Flags: SYN, Options: synOption}))
	f.Add(AppendTCP(nil, testLink, client6, service6, Segment{Flags: ACK, Payload: []byte("hello"),
		Options: Options{NSACK: 2, SACK: [4]Block{{1, 2}, {3, 4}}}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		frame, err := ParseTCP(repair(data))
		if err != nil || len(frame.Segment.Payload) > 60000 {
			return
		}
		out := AppendTCP(nil, frame.Link, frame.Src, frame.Dst, frame.Segment)
		again, err := ParseTCP(out)
		if err != nil {
			t.Fatalf("own frame %x: %v", out, err)
		}
		frame.Segment.Options.trim()
		if len(frame.Segment.Payload) == 0 {
			frame.Segment.Payload, again.Segment.Payload = nil, nil
		}
		if !reflect.DeepEqual(frame, again) {
			t.Errorf("parsed %+v\nagain  %+v", frame, again)
		}
	})
}

// trim drops the SACK blocks that append leaves out.
func (o *Options) trim() {
	for i := o.blocks(); i < len(o.SACK); i++ {
		o.SACK[i] = Block{}
	}
	o.NSACK = o.blocks()
}

// repair puts right checksums into a frame where it can, so that fuzzing gets past them.
func repair(data []byte) []byte {
	frame := bytes.Clone(data)
	_, etherType, b, err := ParseEthernet(frame)
	if err != nil {
		return frame
	}
	if etherType == EtherTypeIPv4 && len(b) >= ip4MinLen {
		if n := int(b[0]&0x0f) * 4; n >= ip4MinLen && n <= len(b) {
			b[ip4Checksum], b[ip4Checksum+1] = 0, 0
			binary.BigEndian.PutUint16(b[ip4Checksum:], checksum(sum(0, b[:n])))
		}
	}
	p, err := parseIP(etherType, b)
	if err != nil || p.protocol != protoTCP || len(p.payload) < tcpMinLen {
		return frame
	}
	tcp := p.payload
	tcp[tcpChecksum], tcp[tcpChecksum+1] = 0, 0
	fixed := checksum(sum(pseudoSum(p.src, p.dst, protoTCP, len(tcp)), tcp))
	binary.BigEndian.PutUint16(tcp[tcpChecksum:], fixed)
	return frame
}

func BenchmarkParseTCP(b *testing.B) {
	frame := AppendTCP(nil, testLink, client4, service4, Segment{Flags: ACK, Payload: make([]byte, 200),
		Options: Options{HasTimestamps: true}})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseTCP(frame); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendTCP(b *testing.B) {
	s := Segment{Flags: ACK, Payload: make([]byte, 200), Options: Options{HasTimestamps: true}}
	buf := make([]byte, 0, 1600)
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendTCP(buf[:0], testLink, client4, service4, s)
	}
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	s := Segment{Flags: ACK, Payload: make([]byte, 200), Options: Options{HasTimestamps: true}}
	buf := make([]byte, 0, 1600)
	n := testing.AllocsPerRun(100, func() {
		buf = AppendTCP(buf[:0], testLink, client6, service6, s)
		if _, err := ParseTCP(buf); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
