package cgo

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"baton/fastpath/wire"
)

const genHz = 1e9 // of the tests' virtual time: a cycle is a nanosecond

var (
	genMAC     = [6]byte{2, 0xba, 0x70, 0, 0, 9}
	serviceMAC = [6]byte{2, 0xba, 0x70, 0, 0, 1}
	genRequest = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
)

func ipOf(s string) IP {
	a := netip.MustParseAddr(s).As16()
	return IP{binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(a[8:])}
}

// genConfig is 4 addresses, 100 flows from port 1000 on.
func genConfig(kind GeneratorKind, ipv6 bool, sizes ...uint16) *GeneratorConfig {
	c := &GeneratorConfig{
		Client: ipOf("10.1.0.0"), Service: ipOf("10.77.0.10"), Flows: 100, Clients: 4, Kind: kind, Run: 0xabcd1234,
		FirstPort: 1000, ServicePort: 80, SrcMAC: genMAC, DstMAC: serviceMAC, Timeout: genHz, Late: 1e6,
		SizeCount: uint16(len(sizes)),
	}
	if ipv6 {
		c.Client, c.Service = ipOf("2001:db8:1::"), ipOf("2001:db8::10")
	}
	copy(c.Sizes[:], sizes)
	c.RequestLen = uint16(copy(c.Request[:], genRequest))
	return c
}

// genRig is a generator on an in-memory port in virtual time.
type genRig struct {
	*Generator
	t    *testing.T
	port *Forwarder
}

func memoryForwarder(t *testing.T, mac [6]byte, services ...Service) *Forwarder {
	t.Helper()
	f, err := Open(&Config{Secret: [32]byte{1, 2, 3}, IPv4Entries: 1000, IPv6Entries: 1000, RouterFlows: 1000, HeldPackets: 1,
		RouterIdleMS: 60000, LingerMS: 2000, PortCount: 1, Seed: 42}, services)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	if err := f.OpenMemory(0, mac, MemoryPool); err != nil {
		t.Fatal(err)
	}
	return f
}

func newGenRig(t *testing.T, c *GeneratorConfig) *genRig {
	t.Helper()
	f := memoryForwarder(t, genMAC)
	g, err := OpenGenerator(f, c, genHz)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return &genRig{g, t, f}
}

// sent returns the frames that a memory port sent.
func sent(f *Forwarder) (frames [][]byte) {
	for {
		frame := make([]byte, 9216)
		n := f.Collect(0, frame)
		if n == 0 {
			return frames
		}
		frames = append(frames, frame[:n])
	}
}

func inject(t *testing.T, f *Forwarder, frames ...[]byte) {
	t.Helper()
	for _, frame := range frames {
		if err := f.Inject(0, frame); err != nil {
			t.Fatal(err)
		}
	}
}

func (r *genRig) want(counters map[string]uint64) {
	r.t.Helper()
	got := r.Counters()
	for name, n := range counters {
		if got[name] != n {
			r.t.Errorf("counter %s is %d, want %d; all: %v", name, got[name], n, got)
		}
	}
}

// reserialized is the frame as gopacket would write it, with checksums and lengths of its own.
func reserialized(t *testing.T, frame []byte) ([]byte, gopacket.Packet) {
	t.Helper()
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	if p.ErrorLayer() != nil {
		t.Fatal(p.ErrorLayer().Error())
	}
	var out []gopacket.SerializableLayer
	for _, l := range p.Layers() {
		switch l := l.(type) {
		case *layers.TCP:
			if err := l.SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
				t.Fatal(err)
			}
		case *layers.UDP:
			if err := l.SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
				t.Fatal(err)
			}
		case *layers.ICMPv6:
			if err := l.SetNetworkLayerForChecksum(p.NetworkLayer()); err != nil {
				t.Fatal(err)
			}
		}
		if s, ok := l.(gopacket.SerializableLayer); ok {
			out = append(out, s)
			if l, ok := l.(*layers.ICMPv6); ok { // gopacket loses what is behind the echo header
				out = append(out, gopacket.Payload(l.LayerPayload()))
				break
			}
		} else {
			t.Fatalf("layer %v in what should be simple", l.LayerType())
		}
	}
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, out...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), p
}

func TestGeneratorFramesAreWhatAnotherLibraryWouldWrite(t *testing.T) {
	kinds := map[string]GeneratorKind{"syn": GenerateSYN, "ack": GenerateACK, "data": GenerateData,
		"handshake": GenerateHandshake, "udp": GenerateUDP, "echo": GenerateEcho}
	for name, kind := range kinds {
		for _, ipv6 := range []bool{false, true} {
			for _, vlan := range []uint16{0, 100} {
				t.Run(fmt.Sprintf("%s/ipv6=%v/vlan=%d", name, ipv6, vlan), func(t *testing.T) {
					c := genConfig(kind, ipv6, 64, 570, 1518)
					c.VLAN = vlan
					r := newGenRig(t, c)
					for flow := uint64(0); flow < c.Flows; flow += 9 {
						for turn := range c.SizeCount {
							checkFrame(t, r.Frame(flow, turn, 1<<40+flow*977), flow, c.Sizes[turn], kind)
						}
					}
				})
			}
		}
	}
}

// checkFrame knows that the client of flow i is address i % 4, port 1000 + i / 4.
func checkFrame(t *testing.T, frame []byte, flow uint64, size uint16, kind GeneratorKind) {
	t.Helper()
	again, p := reserialized(t, frame)
	if !bytes.Equal(frame, again) {
		t.Fatalf("flow %d, size %d:\n%x\nwant\n%x", flow, size, frame, again)
	}
	src, _ := netip.AddrFromSlice(p.NetworkLayer().NetworkFlow().Src().Raw())
	if b := src.AsSlice(); b[len(b)-1] != byte(flow%4) {
		t.Errorf("flow %d comes from %v", flow, src)
	}
	if l := p.TransportLayer(); l != nil && binary.BigEndian.Uint16(l.TransportFlow().Src().Raw()) != uint16(1000+flow/4) {
		t.Errorf("flow %d comes from port %v", flow, l.TransportFlow().Src())
	}
	grows := kind != GenerateSYN && kind != GenerateHandshake
	if want := int(size) - 4; grows && len(frame) != want && (len(frame) < want || size > 64) {
		t.Errorf("frame of size %d has %d octets", size, len(frame))
	}
}

func TestGeneratorRefusesWhatCannotBe(t *testing.T) {
	for name, change := range map[string]func(*GeneratorConfig){
		"no flows":               func(c *GeneratorConfig) { c.Flows = 0 },
		"more flows than tuples": func(c *GeneratorConfig) { c.Flows = 4*64536 + 1 },
		"three addresses":        func(c *GeneratorConfig) { c.Clients = 3 },
		"no size":                func(c *GeneratorConfig) { c.SizeCount = 0 },
		"two families":           func(c *GeneratorConfig) { c.Client = ipOf("2001:db8::1") },
		"port 0":                 func(c *GeneratorConfig) { c.FirstPort = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			c := genConfig(GenerateSYN, false, 64)
			change(c)
			if g, err := OpenGenerator(memoryForwarder(t, genMAC), c, genHz); err == nil {
				g.Close()
				t.Error("is accepted")
			}
		})
	}
}

// pace polls every step ns for a time, starting at from, and returns how many frames were sent.
func (r *genRig) pace(from, length, step uint64) (n int) {
	for at := from; at < from+length; at += step {
		r.Poll(at)
		n += len(sent(r.port))
	}
	return n
}

func TestGeneratorPaceIsExact(t *testing.T) {
	for _, pps := range []float64{1, 999, 123456.7, 1e6, 7.3e6} {
		r := newGenRig(t, genConfig(GenerateUDP, false, 64))
		r.Start(pps, 0)
		const length, step = 20e6, 1000
		got, want := r.pace(1<<40, length, step), pps*length/1e9
		if float64(got) < want-pps*step/1e9-1 || float64(got) > want+1 {
			t.Errorf("at %g per second %d frames left in 20 ms, want %g", pps, got, want)
		}
		r.want(map[string]uint64{"skipped": 0, "tx": uint64(got), "paced": uint64(got)})
	}
}

func TestGeneratorGivesUpWhatIsTooLate(t *testing.T) {
	r := newGenRig(t, genConfig(GenerateUDP, false, 64)) // more than 1 ms
	r.Start(1e6, 0)
	r.Poll(1 << 40)
	n := 1 + r.pace(1<<40+11e6, 2e6, 1000) // 10 ms of it are too late
	if got := r.Counters()["skipped"]; got < 9_999 || got > 10_001 {
		t.Errorf("%d frames were given up, want 10000", got)
	}
	if n < 2990 || n > 3010 {
		t.Errorf("%d frames left, want 3000: what is owed of 1 ms, and 2 ms", n)
	}
}

func TestGeneratorEndsAfterItsCount(t *testing.T) {
	r := newGenRig(t, genConfig(GenerateUDP, false, 64))
	r.Start(0, 1000)
	if !r.Sending() {
		t.Error("does not send before the first poll")
	}
	if n := r.pace(1, 100, 1); n != 1000 || r.Sending() {
		t.Errorf("%d frames of 1000, sending: %v", n, r.Sending())
	}
	r.Start(0, 5)
	if n := r.pace(200, 100, 1); n != 5 || r.Sending() {
		t.Errorf("%d frames of the second count of 5, sending: %v", n, r.Sending())
	}
	r.Start(0, 0)
	r.Poll(400)
	r.Stop()
	r.Poll(500)
	sent(r.port)
	if n := r.pace(600, 100, 1); n != 0 {
		t.Errorf("%d frames after the stop", n)
	}
}

func TestGeneratorFlowsInTurn(t *testing.T) {
	r := newGenRig(t, genConfig(GenerateData, false, 64))
	r.Start(0, 200)
	seen := map[netip.AddrPort]int{}
	for at := uint64(1); r.Sending(); at++ {
		r.Poll(at)
	}
	r.Poll(1000)
	for _, frame := range sent(r.port) {
		p, err := wire.ParseTCP(frame)
		if err != nil {
			t.Fatal(err)
		}
		seen[p.Src]++
	}
	if len(seen) != 100 {
		t.Errorf("%d flows of 100 sent", len(seen))
	}
	for client, n := range seen {
		if n != 2 {
			t.Errorf("%v sent %d of 2 frames", client, n)
		}
	}
}

func TestGeneratorMatchesAndTimesWhatComesBack(t *testing.T) {
	for _, kind := range []GeneratorKind{GenerateData, GenerateUDP, GenerateEcho} {
		for _, size := range []uint16{64, 90, 1518} {
			for _, ipv6 := range []bool{false, true} {
				t.Run(fmt.Sprintf("kind %d, %d octets, ipv6=%v", kind, size, ipv6), func(t *testing.T) {
					r := newGenRig(t, genConfig(kind, ipv6, size))
					r.Start(0, 32)
					r.Poll(1 << 40)
					frames := sent(r.port)
					if len(frames) != 32 {
						t.Fatalf("%d of 32 frames left", len(frames))
					}
					const delay = 8000 // ns
					frames[0][len(frames[0])-1] ^= 1
					inject(t, r.port, frames...)
					r.Poll(1<<40 + delay)
					r.want(map[string]uint64{"rx": 32, "matched": 31, "bad": 1, "other": 0})
					wantPlace(t, r.Generator, delay, 31)
				})
			}
		}
	}
}

// wantPlace expects that all latencies are within 4 % of ns.
func wantPlace(t *testing.T, g *Generator, ns, count uint64) {
	t.Helper()
	var n uint64
	for place, times := range g.Latencies(nil) {
		if bound := LatencyBound(place); times > 0 && (bound < ns-16 || bound > ns*104/100) {
			t.Errorf("%d latencies up to %d ns, want about %d", times, bound, ns)
		}
		n += times
	}
	if n != count {
		t.Errorf("%d latencies of %d", n, count)
	}
}

func TestGeneratorDoesNotMatchAnotherRun(t *testing.T) {
	other := genConfig(GenerateUDP, false, 64)
	other.Run++
	a, b := newGenRig(t, genConfig(GenerateUDP, false, 64)), newGenRig(t, other)
	a.Start(0, 10)
	a.Poll(1)
	inject(t, b.port, sent(a.port)...)
	b.Poll(2)
	b.want(map[string]uint64{"matched": 0, "other": 10})
}

func TestLatencyPlacesFollowEachOther(t *testing.T) {
	last := uint64(0)
	for place := 1; place < len(newGenRig(t, genConfig(GenerateUDP, false, 64)).Latencies(nil)); place++ {
		bound := LatencyBound(place)
		if bound <= last || (place > 64 && float64(bound-last) > 0.04*float64(last)) {
			t.Fatalf("place %d ends at %d ns, the one before at %d", place, bound, last)
		}
		last = bound
	}
}

// exchange carries frames between a generator and a forwarder until nothing moves.
func exchange(t *testing.T, r *genRig, f *Forwarder, now uint64) {
	t.Helper()
	for moved := 1; moved > 0; {
		moved = r.Poll(now) + f.Poll()
		frames, answers := sent(r.port), sent(f)
		inject(t, f, frames...)
		inject(t, r.port, answers...)
		moved += len(frames) + len(answers)
	}
}

func genServices() []Service {
	return []Service{
		{Addr: ipOf("10.77.0.10"), Port: 80, ID: 1, OwnMSS: 1460, Scale: 7, Window: 32768},
		{Addr: ipOf("2001:db8::10"), Port: 80, ID: 2, OwnMSS: 1440, Scale: 7, Window: 32768},
	}
}

func TestGeneratorCompletesHandshakesWithTheForwarder(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		f := memoryForwarder(t, serviceMAC, genServices()...)
		r := newGenRig(t, genConfig(GenerateHandshake, ipv6, 64))
		r.Start(0, 100)
		exchange(t, r, f, 1<<40)
		r.want(map[string]uint64{"synack": 100, "paced": 100, "tx": 200, "other": 0, "bad": 0, "timeout": 0})
		wantCounter(t, f, "accepted", 100)
		punts := drain(f)
		if len(punts) != 100 {
			t.Fatalf("forwarder punted %d first segments of 100", len(punts))
		}
		for _, p := range punts {
			if string(p.Segment.Payload) != genRequest || p.Segment.Flags != wire.ACK|wire.PSH {
				t.Fatalf("first segment %v %q", p.Segment.Flags, p.Segment.Payload)
			}
		}
		respond(t, r, punts)
		r.Poll(1<<40 + 1)
		r.want(map[string]uint64{"response": 100})
		for i, frame := range sent(r.port) {
			if p, err := wire.ParseTCP(frame); err != nil || !p.Segment.Flags.Has(wire.RST) ||
				p.Segment.Seq != punts[i].Segment.Seq.Add(len(genRequest)) {
				t.Fatalf("after the response: %+v, %v", p, err)
			}
		}
	}
}

// respond sends what a server would.
func respond(t *testing.T, r *genRig, requests []wire.Frame) {
	t.Helper()
	for _, q := range requests {
		link := wire.Link{Src: serviceMAC, Dst: genMAC}
		inject(t, r.port, wire.AppendTCP(nil, link, q.Dst, q.Src, wire.Segment{
			Seq: q.Segment.Ack, Ack: q.Segment.Seq.Add(len(q.Segment.Payload)), Flags: wire.ACK | wire.PSH, Payload: []byte("HTTP/1.1 200 OK\r\n\r\n"),
		}))
		r.Poll(1 << 40)
	}
}

// drain takes all punted segments.
func drain(f *Forwarder) (frames []wire.Frame) {
	for {
		punts := f.Receive(64)
		if len(punts) == 0 {
			return frames
		}
		for _, p := range punts {
			if frame, err := wire.ParseTCP(bytes.Clone(p.Frame())); err == nil {
				frames = append(frames, frame)
			}
		}
	}
}

func wantCounter(t *testing.T, f *Forwarder, want string, n uint64) {
	t.Helper()
	for i := 0; ; i++ {
		_, name, _, value, ok := f.Counter(i)
		if !ok {
			t.Fatalf("no counter %s", want)
		}
		if name == want {
			if value != n {
				t.Errorf("forwarder's %s is %d, want %d", name, value, n)
			}
			return
		}
	}
}

func TestGeneratorBeginsAnUnansweredHandshakeAgain(t *testing.T) {
	r := newGenRig(t, genConfig(GenerateHandshake, false, 64)) // timeout: 1 s
	r.Start(0, 0)
	n := r.pace(1<<40, 1e9-1e6, 1e6)
	if n != 100 {
		t.Errorf("%d SYNs within the timeout, want one of each flow", n)
	}
	r.pace(1<<40+1e9+1e6, 1e6, 1e6)
	if got := r.Counters()["timeout"]; got == 0 {
		t.Error("no flow began again after its timeout")
	}
}

func TestGeneratorTimesTheAnswersToAFlood(t *testing.T) {
	f := memoryForwarder(t, serviceMAC, genServices()...)
	r := newGenRig(t, genConfig(GenerateSYN, false, 64))
	r.Start(0, 32)
	r.Poll(1 << 40)
	inject(t, f, sent(r.port)...)
	f.Poll()
	inject(t, r.port, sent(f)...)
	r.Poll(1<<40 + 50_000)
	r.want(map[string]uint64{"synack": 32, "reset": 0, "other": 0})
	wantPlace(t, r.Generator, 50_000, 32)
	wantCounter(t, f, "answered", 32)
}

func TestGeneratorForgedACKsAreRefused(t *testing.T) {
	f := memoryForwarder(t, serviceMAC, genServices()...)
	r := newGenRig(t, genConfig(GenerateACK, false, 64))
	r.Start(0, 100)
	exchange(t, r, f, 1<<40)
	wantCounter(t, f, "forged", 100)
	wantCounter(t, f, "accepted", 0)
}

func TestGeneratorResolvesTheForwarder(t *testing.T) {
	f := memoryForwarder(t, serviceMAC, genServices()...)
	f.SetAddress(0, ipOf("10.77.0.1"))
	c := genConfig(GenerateSYN, false, 64)
	c.DstMAC = [6]byte{}
	r := newGenRig(t, c)
	r.Resolve(0x0a010000, 0x0a4d0001)
	exchange(t, r, f, genHz)
	if mac, ok := r.Resolved(); !ok || mac != serviceMAC {
		t.Fatalf("resolved %x, %v", mac, ok)
	}
	r.Start(0, 10)
	exchange(t, r, f, genHz)
	wantCounter(t, f, "answered", 10)
}

func TestGeneratorAnswersARPForItsClients(t *testing.T) {
	r := newGenRig(t, genConfig(GenerateSYN, false, 64))
	for i, target := range []string{"10.1.0.3", "10.1.0.4"} {
		inject(t, r.port, wire.AppendARP(nil, wire.ARP{Op: wire.ARPRequest, SenderMAC: serviceMAC, SenderIP: netip.MustParseAddr("10.77.0.1"), TargetIP: netip.MustParseAddr(target)}))
		r.Poll(1)
		frames := sent(r.port)
		if want := 1 - i; len(frames) != want { // there are four addresses only
			t.Fatalf("%d answers for %s, want %d", len(frames), target, want)
		}
		for _, frame := range frames {
			a, err := wire.ParseARP(frame)
			if err != nil || a.SenderMAC != genMAC || a.SenderIP.String() != target || a.TargetMAC != serviceMAC {
				t.Fatalf("answer %+v, %v", a, err)
			}
		}
	}
}

func TestGeneratorKeepsNoBuffer(t *testing.T) {
	f := memoryForwarder(t, serviceMAC, genServices()...)
	r := newGenRig(t, genConfig(GenerateHandshake, false, 64))
	r.Start(0, 100)
	exchange(t, r, f, 1<<40)
	inject(t, r.port, []byte{1}, make([]byte, 60), make([]byte, 1500))
	exchange(t, r, f, 1<<40)
	if n := r.port.BuffersInUse(0); n != 0 {
		t.Errorf("%d buffers are not given back", n)
	}
}

func FuzzGeneratorReceive(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, 60))
	f.Fuzz(func(t *testing.T, frame []byte) {
		for _, kind := range []GeneratorKind{GenerateHandshake, GenerateData, GenerateEcho} {
			r := newGenRig(t, genConfig(kind, false, 64))
			if r.port.Inject(0, frame) != nil {
				return
			}
			r.Poll(1)
			sent(r.port)
			if n := r.port.BuffersInUse(0); n != 0 {
				t.Errorf("%d buffers are not given back", n)
			}
		}
	})
}
