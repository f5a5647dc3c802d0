package fastpath

import (
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"baton/fastpath/flow"
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

var (
	clientMAC  = wire.MAC{0x02, 0xc1, 0, 0, 0, 1}
	targetMACs = []wire.MAC{1: {0x02, 0x7a, 0, 0, 0, 1}, 2: {0x02, 0x7a, 0, 0, 0, 2}}
	client4    = netip.MustParseAddrPort("10.77.0.100:40000")
	service4   = netip.MustParseAddrPort("10.77.0.10:80")
	client6    = netip.MustParseAddrPort("[2001:db8::100]:40000")
	service6   = netip.MustParseAddrPort("[2001:db8::10]:80")
	portAddr   = netip.MustParsePrefix("10.77.0.1/24")
	epoch      = time.Unix(1_800_000_000, 0)
)

const window = 32768

// rig is a forwarder with one in-memory port in virtual time.
type rig struct {
	*Forwarder
	t    testing.TB
	now  time.Time
	mac  wire.MAC // of the port
	free []flow.Punt
}

// newRig opens a forwarder; change adjusts its configuration.
func newRig(t testing.TB, change ...func(*Config)) *rig {
	t.Helper()
	config := Config{
		Ports: []PortConfig{{Device: "mem0,tight", Address: portAddr}},
		Services: []Service{
			{ID: 7, Addr: service4, OwnMSS: 1460, Window: window, Scale: 7},
			{ID: 8, Addr: service6, OwnMSS: 1440, Window: window, Scale: 7},
		},
		Key:         [32]byte{1, 2, 3},
		IPv4Entries: 1000, IPv6Entries: 1000, RouterFlows: 100, HeldPackets: 8,
	}
	for _, c := range change {
		c(&config)
	}
	several(&config)
	f, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	r := &rig{Forwarder: f, t: t, now: epoch, free: make([]flow.Punt, 64)}
	r.mac, _ = f.Port(0)
	r.advance(0)
	for id := 1; id <= 2; id++ {
		r.must(f.SetOwner(flow.OwnerID(id), flow.Nexthop{MAC: targetMACs[id]}))
	}
	f.Poll()
	return r
}

// loopsEnv runs the tests with several loops: their number, and ",mixed" if the first receives for all.
const loopsEnv = "BATON_TEST_LOOPS"

// several gives a test's forwarder the number of loops that loopsEnv says.
func several(c *Config) {
	loops, kind, mixed := strings.Cut(os.Getenv(loopsEnv), ",")
	if loops == "" || c.Lcores != 0 {
		return
	}
	c.Lcores, _ = strconv.Atoi(loops)
	for i := range c.Ports {
		device, args, _ := strings.Cut(c.Ports[i].Device, ",")
		if mixed && strings.HasPrefix(device, "mem") && args != "bare" {
			c.Ports[i].Device = device + "," + kind
		}
	}
}

// oneLoop is for tests that count to a bound, of which each of several loops has a part.
func oneLoop(c *Config) { c.Lcores = 1 }

// TestSuiteWithSeveralLoops runs all other tests of the package again, with their connections spread over several loops.
func TestSuiteWithSeveralLoops(t *testing.T) {
	if os.Getenv(loopsEnv) != "" {
		t.Skip("this is it")
	}
	for _, loops := range []string{"2", "3,mixed"} {
		t.Run(loops, func(t *testing.T) {
			t.Parallel()
			run := exec.CommandContext(t.Context(), os.Args[0], "-test.count=1")
			run.Env = append(os.Environ(), loopsEnv+"="+loops)
			if out, err := run.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// advance moves virtual time.
func (r *rig) advance(d time.Duration) {
	r.now = r.now.Add(d)
	r.SetClock(r.now)
	r.Poll()
}

// put injects a frame and polls.
func (r *rig) put(frame []byte) {
	r.t.Helper()
	r.must(r.Inject(0, frame))
	r.Poll()
}

// out returns the frames that the port sent.
func (r *rig) out() [][]byte {
	var frames [][]byte
	for {
		frame, ok := r.Collect(0, nil)
		if !ok {
			return frames
		}
		frames = append(frames, frame)
	}
}

// segments returns what the port sent, which must be TCP with right checksums.
func (r *rig) segments() []wire.Frame {
	r.t.Helper()
	var parsed []wire.Frame
	for _, frame := range r.out() {
		p, err := wire.ParseTCP(frame)
		if err != nil {
			r.t.Fatalf("sent a bad frame: %v", err)
		}
		parsed = append(parsed, p)
	}
	return parsed
}

// one returns the only segment that the port sent.
func (r *rig) one() wire.Frame {
	r.t.Helper()
	s := r.segments()
	if len(s) != 1 {
		r.t.Fatalf("port sent %d frames, want 1", len(s))
	}
	return s[0]
}

// none checks that the port sent nothing.
func (r *rig) none() {
	r.t.Helper()
	if n := len(r.out()); n != 0 {
		r.t.Fatalf("port sent %d frames, want none", n)
	}
}

// punts returns what was punted; frames are copied.
func (r *rig) punts() []flow.Punt {
	var all []flow.Punt
	for {
		n := r.Receive(r.free)
		if n == 0 {
			return all
		}
		for _, p := range r.free[:n] {
			p.Frame = append([]byte(nil), p.Frame...)
			all = append(all, p)
		}
	}
}

// punted returns the only punt, which must be of that kind.
func (r *rig) punted(kind flow.Kind) flow.Punt {
	r.t.Helper()
	p := r.punts()
	if len(p) != 1 || p[0].Kind != kind {
		r.t.Fatalf("punts %v, want one of kind %d", kinds(p), kind)
	}
	return p[0]
}

func kinds(punts []flow.Punt) []flow.Kind {
	k := make([]flow.Kind, len(punts))
	for i := range punts {
		k[i] = punts[i].Kind
	}
	return k
}

func (r *rig) wantKinds(want ...flow.Kind) []flow.Punt {
	r.t.Helper()
	p := r.punts()
	got := kinds(p)
	if len(got) != len(want) {
		r.t.Fatalf("punts %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			r.t.Fatalf("punts %v, want %v", got, want)
		}
	}
	return p
}

// count reads a counter by group and name.
func (r *rig) count(group, name string) uint64 {
	r.t.Helper()
	for _, c := range r.Counters() {
		if c.Group == group && c.Name == name {
			return c.Value
		}
	}
	r.t.Fatalf("no counter %s/%s", group, name)
	return 0
}

func (r *rig) wantCount(group, name string, want uint64) {
	r.t.Helper()
	if got := r.count(group, name); got != want {
		r.t.Errorf("%s/%s = %d, want %d", group, name, got, want)
	}
}

// peer is a client of the rig.
type peer struct {
	*rig
	client, service netip.AddrPort
	isn             seq.Value
	options         wire.Options // of the SYN
	iss             seq.Value    // from the SYN-ACK
	synAck          wire.Segment
}

func (r *rig) peer(client netip.AddrPort, isn seq.Value) *peer {
	service := service4
	if client.Addr().Is6() {
		service = service6
	}
	return &peer{rig: r, client: client, service: service, isn: isn,
		options: wire.Options{MSS: 1460, Scale: 9, HasScale: true, SACKPermitted: true, HasTimestamps: true, TSVal: 77}}
}

func (p *peer) frame(s wire.Segment) []byte {
	return wire.AppendTCP(nil, wire.Link{Dst: p.mac, Src: clientMAC}, p.client, p.service, s)
}

func (p *peer) syn() []byte {
	return p.frame(wire.Segment{Seq: p.isn, Flags: wire.SYN, Window: 64240, Options: p.options})
}

// connect does the SYN and takes the SYN-ACK.
func (p *peer) connect() *peer {
	p.t.Helper()
	p.put(p.syn())
	f := p.one()
	if f.Link != (wire.Link{Dst: clientMAC, Src: p.mac}) || f.Src != p.service || f.Dst != p.client {
		p.t.Fatalf("SYN-ACK goes %v %v -> %v", f.Link, f.Src, f.Dst)
	}
	p.synAck, p.iss = f.Segment, f.Segment.Seq
	return p
}

// segment makes a client's segment at offset from the first octet of its stream.
func (p *peer) segment(offset int, flags wire.Flags, data string) wire.Segment {
	s := wire.Segment{Seq: p.isn.Add(1 + offset), Ack: p.iss.Add(1), Flags: flags, Window: 1000, Payload: []byte(data)}
	if p.options.HasTimestamps {
		s.Options = wire.Options{HasTimestamps: true, TSVal: p.options.TSVal + 1, TSEcr: p.synAck.Options.TSVal}
	}
	return s
}

func (p *peer) send(offset int, flags wire.Flags, data string) {
	p.t.Helper()
	p.put(p.frame(p.segment(offset, flags, data)))
}

// open connects and sends the first data; it returns its punt.
func (p *peer) open() flow.Punt {
	p.t.Helper()
	p.connect().send(0, wire.ACK|wire.PSH, "GET ")
	return p.punted(flow.First)
}

func (p *peer) inc() wire.Incarnation {
	return wire.Incarnation{Tuple: wire.Tuple{Client: p.client, Service: p.service}, IRS: p.isn, ISS: p.iss}
}

// transfer opens a flow and switches it to an owner.
func (p *peer) transfer(owner flow.OwnerID) {
	p.t.Helper()
	id := p.open().Flow
	p.must(p.Freeze(id, flow.HoldBuffer))
	p.must(p.Switch(id, owner))
	p.Poll()
	p.wantKinds(flow.Frozen, flow.Switched)
}
