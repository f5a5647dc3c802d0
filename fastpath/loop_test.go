package fastpath

import (
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"baton/fastpath/flow"
	"baton/fastpath/wire"
)

// startRig opens a forwarder with the real clock and runs its loop.
func startRig(t testing.TB, change ...func(*Config)) *rig {
	t.Helper()
	r := newRig(t, change...)
	r.must(r.Start())
	return r
}

// await waits for the next frame of the port.
func (r *rig) await() []byte {
	r.t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Microsecond) {
		if frame, ok := r.Collect(0, nil); ok {
			return frame
		}
	}
	r.t.Fatal("no frame for 5 s")
	return nil
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nothing happened for 15 s")
		}
	}
}

func TestLoopServesWhileOperatorsLook(t *testing.T) {
	r := startRig(t)
	var operators sync.WaitGroup
	done := make(chan struct{})
	operators.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				r.Counters()
				r.Snapshot()
				r.Ports()
				r.Tables()
				r.Loops()
			}
		}
	})
	punts := make([]flow.Punt, 8)
	for i := range 200 {
		p := r.peer(netip.AddrPortFrom(client4.Addr(), uint16(i+1)), 5)
		r.must(r.Inject(0, p.syn()))
		f, err := wire.ParseTCP(r.await())
		r.must(err)
		p.synAck, p.iss = f.Segment, f.Segment.Seq
		r.must(r.Inject(0, p.frame(p.segment(0, wire.ACK, "x"))))
		for r.Receive(punts) == 0 {
			r.Wait(time.Second)
		}
		if punts[0].Kind != flow.First || punts[0].Inc != p.inc() {
			t.Fatalf("punt %+v", punts[0])
		}
		r.must(r.CloseFlow(punts[0].Flow))
	}
	close(done)
	operators.Wait()
}

func TestWaitEndsByWakeAndByTime(t *testing.T) {
	r := startRig(t)
	start := time.Now()
	r.Wake()
	r.Wait(10 * time.Second) // the Wake before counts
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("Wait ignored an earlier Wake for %v", d)
	}
	go func() {
		time.Sleep(20 * time.Millisecond)
		r.Wake()
	}()
	start = time.Now()
	r.Wait(10 * time.Second)
	if d := time.Since(start); d < 10*time.Millisecond || d > 5*time.Second {
		t.Errorf("Wait lasted %v, Wake came after 20 ms", d)
	}
	start = time.Now()
	r.Wait(20 * time.Millisecond)
	if d := time.Since(start); d < 15*time.Millisecond {
		t.Errorf("Wait lasted %v, want 20 ms", d)
	}
}

func TestCommandEndsTheLoopsNap(t *testing.T) {
	r := startRig(t, func(c *Config) { c.IdleSleep = 300 * time.Millisecond })
	time.Sleep(time.Second) // the naps have grown long
	start := time.Now()
	r.must(r.Transmit(0, make([]byte, 60)))
	r.await()
	if d := time.Since(start); d > 100*time.Millisecond {
		t.Errorf("a command waited %v", d)
	}
}

// TestIdleLoopWaitsForInterrupts has frames, commands and the end reach a loop that waits, and counts its polls meanwhile:
// a loop that naps makes 3000 a second.
func TestIdleLoopWaitsForInterrupts(t *testing.T) {
	r := startRig(t, func(c *Config) { c.Interrupts = true })
	if d := r.NoInterrupts(); d != "" {
		t.Fatalf("port %s has no interrupts", d)
	}
	waits := func(n uint64) LoopInfo {
		from := r.Loops()[0].Waits
		waitFor(t, func() bool { return r.Loops()[0].Waits >= from+n })
		return r.Loops()[0]
	}
	for i := range uint16(3) {
		waits(3)
		r.must(r.Inject(0, r.peer(netip.AddrPortFrom(client4.Addr(), i+1), 5).syn()))
		if f, err := wire.ParseTCP(r.await()); err != nil || f.Segment.Flags != wire.SYN|wire.ACK {
			t.Fatalf("answer %+v, %v", f.Segment, err)
		}
		waits(3)
		r.must(r.Transmit(0, make([]byte, 60)))
		r.await()
	}
	before := waits(150)
	if after := waits(300); after.Polls-before.Polls > 2*(after.Waits-before.Waits) {
		t.Errorf("%d polls in %d waits", after.Polls-before.Polls, after.Waits-before.Waits)
	}
	r.stop()
}

func TestLoopsDoWhatTheyWereToldBeforeTheyStop(t *testing.T) {
	r := startRig(t)
	frame := make([]byte, 60)
	const frames = 2000
	for i := range uint16(frames) {
		p := r.peer(netip.AddrPortFrom(client4.Addr(), i+1), 5)
		frame = wire.AppendTCP(frame[:0], wire.Link{Src: r.mac}, p.service, p.client, wire.Segment{Flags: wire.ACK})
		r.must(r.Transmit(0, frame))
	}
	r.stop()
	if n := len(r.out()); n != frames {
		t.Errorf("%d of %d frames were sent", n, frames)
	}
}

func TestLoopsTellHowTheySpendTheirTime(t *testing.T) {
	r := startRig(t)
	waitUntil := time.Now().Add(10 * time.Second)
	for {
		loops, done := r.Loops(), true
		for i, l := range loops {
			loops[i].Counters = nil
			done = done && l.Polls > 0 && l.Idle > 500*time.Millisecond && l.GapMax > 0 && l.Share < 0.9
		}
		if done && len(loops) == r.config.Lcores {
			return
		}
		if time.Now().After(waitUntil) {
			t.Fatalf("after 10 s: %+v", loops)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestClosedForwarderAnswers(t *testing.T) {
	r := startRig(t)
	r.must(r.Close())
	r.must(r.Close())
	r.Wake()
	r.Wait(time.Hour)
	if r.Receive(r.free) != 0 || r.Snapshot() != nil || r.Counters() != nil || r.Ports() != nil || r.Loops() != nil {
		t.Error("a closed forwarder still has something")
	}
	if err := r.CloseFlow(1); !errors.Is(err, ErrClosed) {
		t.Errorf("error %v, want ErrClosed", err)
	}
}

func TestConfigIsChecked(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Config)
	}{
		{"no port", func(c *Config) { c.Ports = nil }},
		{"mixed ports", func(c *Config) { c.Ports = append(c.Ports, PortConfig{Device: "net_null0"}) }},
		{"service twice", func(c *Config) {
			c.Services = append(c.Services, Service{ID: 9, Addr: service4, OwnMSS: 1460, Window: 128})
		}},
		{"ID twice", func(c *Config) { c.Services[1].ID = c.Services[0].ID }},
		{"window no multiple of the scale", func(c *Config) { c.Services[0].Window++ }},
		{"too many flows", func(c *Config) { c.RouterFlows = 1<<20 + 1 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := Config{Ports: []PortConfig{{Device: "mem0"}}, Services: []Service{
				{ID: 1, Addr: service4, OwnMSS: 1460, Window: window, Scale: 7},
				{ID: 2, Addr: service6, OwnMSS: 1440, Window: window, Scale: 7}}}
			tt.change(&c)
			if f, err := Open(c); err == nil {
				f.Close()
				t.Error("accepted")
			}
		})
	}
}

func TestDeviceStrings(t *testing.T) {
	for device, pci := range map[string]bool{
		"0000:3b:00.0": true, "3b:00.1,arg=1": true, "net_af_xdp0,iface=data0": false, "net_memif0,socket=/run/a:b.sock": false,
	} {
		if isPCI(device) != pci {
			t.Errorf("isPCI(%q) = %v", device, !pci)
		}
	}
	for device, memory := range map[string]bool{"mem0": true, "mem12,tight": true, "mem": true, "net_memif0": false, "memory0": false} {
		if _, ok := memoryDevice(device); ok != memory {
			t.Errorf("memoryDevice(%q) = %v", device, ok)
		}
	}
}

// BenchmarkAnswer has the loop of an open flow freeze it, and waits for the answer: the first step of every transfer.
func BenchmarkAnswer(b *testing.B) {
	r := startRig(b)
	p := r.peer(client4, 5)
	r.must(r.Inject(0, p.syn()))
	f, err := wire.ParseTCP(r.await())
	r.must(err)
	p.synAck, p.iss = f.Segment, f.Segment.Seq
	r.must(r.Inject(0, p.frame(p.segment(0, wire.ACK, "x"))))
	punts := make([]flow.Punt, 8)
	answer := func(want flow.Kind) flow.ID {
		for r.Receive(punts) == 0 {
			r.Wait(time.Second)
		}
		if punts[0].Kind != want {
			b.Fatalf("punt %+v, want kind %v", punts[0], want)
		}
		return punts[0].Flow
	}
	id := answer(flow.First)
	for b.Loop() {
		r.must(r.Freeze(id, flow.HoldBuffer))
		answer(flow.Frozen)
		r.must(r.Thaw(id))
	}
}

func BenchmarkHit(b *testing.B) {
	for _, flows := range []int{1, 1000, 60000} {
		b.Run(map[int]string{1: "1", 1000: "1k", 60000: "60k"}[flows]+" flows", func(b *testing.B) { benchmarkHit(b, flows) })
	}
}

// benchmarkHit measures 32 frames through a memory port: two copies a frame, injecting and collecting included.
func benchmarkHit(b *testing.B, flows int) {
	r := newRig(b, func(c *Config) {
		c.Ports[0].Device, c.IPv4Entries = "mem0", 100000
	})
	var frames [][]byte
	for i := range flows {
		p := r.peer(netip.AddrPortFrom(client4.Addr(), uint16(i+1)), 5)
		p.options = wire.Options{}
		p.connect()
		p.send(0, wire.ACK, "x")
		id := p.punted(flow.First).Flow
		r.must(r.Switch(id, 1))
		r.Poll()
		r.punted(flow.Switched)
		frames = append(frames, p.frame(p.segment(1, wire.ACK, "")))
	}
	room := make([]byte, 9216)
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		for range 32 {
			if err := r.loops[0].Inject(0, frames[n%flows]); err != nil {
				b.Fatal(err)
			}
			n++
		}
		r.Poll()
		for more := true; more; {
			more = r.loops[0].Collect(0, room) > 0
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/32, "ns/frame")
}

func TestFramesGoBackToTheMemoryOfTheirOwnPort(t *testing.T) {
	for _, device := range []string{"mem", "mem,tight"} {
		t.Run(device, func(t *testing.T) {
			kind := strings.TrimPrefix(device, "mem")
			r := newRig(t, func(c *Config) {
				c.Ports = []PortConfig{{Device: "mem0" + kind}, {Device: "mem1" + kind}}
			})
			r.must(r.SetOwner(1, flow.Nexthop{MAC: targetMACs[1], Port: 1}))
			p := r.peer(client4, 5)
			p.transfer(1)
			stray := make([]byte, 60) // dropped at once
			const frames = 20000      // more than the two ports have buffers
			for i := range frames {
				p.send(4, wire.ACK, "x")
				if _, ok := r.Collect(1, nil); !ok {
					t.Fatalf("frame %d was not forwarded", i)
				}
				r.must(r.Inject(1, stray))
				r.Poll()
			}
			r.wantCount("packets", "forwarded", frames)
			for port := range uint16(2) {
				if n := r.BuffersInUse(port); n != 0 {
					t.Errorf("port %d: %d buffers in use, want none", port, n)
				}
			}
		})
	}
}
