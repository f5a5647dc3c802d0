package judge

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// TestHarmlessPasses lists what is unusual and still right.
func TestHarmlessPasses(t *testing.T) {
	for name, row := range map[string]struct {
		change func([]*item) []*item
		retr   int
	}{
		"SYN and SYN-ACK repeated": {func(items []*item) []*item {
			items = after(items, syn, synAck, func(*item) {})
			return after(items, synAck, synAck+1, func(*item) {})
		}, 1},
		"SYN repeated, and only that one was answered": {func(items []*item) []*item {
			items = after(items, syn, syn, func(it *item) { it.seg.Options.TSVal++ })
			items[synAck+1].seg.Options.TSEcr = items[syn+1].seg.Options.TSVal
			return items
		}, 1},
		"request repeated with other boundaries": {func(items []*item) []*item {
			return after(items, secondData, secondData, func(it *item) {
				it.seg.Seq = it.seg.Seq.Add(-5)
				it.seg.Payload = append(bytes.Clone(first[len(first)-5:]), second[:7]...)
			})
		}, 1},
		"response out of order": {func(items []*item) []*item {
			items[targetData1], items[targetData2] = items[targetData2], items[targetData1]
			a, b := &items[targetData1].seg.Options, &items[targetData2].seg.Options
			a.TSVal, b.TSVal = b.TSVal, a.TSVal
			return items
		}, 0},
		"what was forwarded is flooded back": {func(items []*item) []*item {
			items = after(items, secondData, secondData, func(it *item) { it.mac = routerMAC })
			return after(items, syn, syn, func(it *item) { it.mac = routerMAC })
		}, 0},
		"D-SACK": {func(items []*item) []*item {
			return after(items, clientAck, clientAck, sackBlock(iss.Add(1), iss.Add(4)))
		}, 0},
		"blind SYN on a running connection": {func(items []*item) []*item {
			items = after(items, syn, targetData1, func(it *item) { it.seg.Seq = 77 })
			return after(items, synAck, targetData1+1, func(it *item) { it.seg.Ack, it.seg.Seq = 78, 1 })
		}, 0},
		"window closes while octets arrive": {func(items []*item) []*item {
			items[synAck].seg.Window = 255 << 7
			items[routerAck].seg.Window = 255
			return items
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := Judge(capture(t, row.change(clean())), expectation())
			for _, v := range r.Violations {
				t.Error(v)
			}
			if got := r.Retransmissions(); got != row.retr {
				t.Errorf("%d retransmissions, want %d", got, row.retr)
			}
			if late := r.Conns[0].Repeated; name == "response out of order" && late != 1 {
				t.Errorf("%d late segments of the service, want 1", late)
			}
			if len(r.Conns) != 1 {
				t.Errorf("%d connections, want 1", len(r.Conns))
			}
		})
	}
}

func TestReportMeasuresHandover(t *testing.T) {
	items := after(clean(), secondData, secondData, func(*item) {})
	c := Judge(capture(t, items), expectation()).Conns[0]
	if !c.Transferred || c.Switched != targetData1+2 || c.Owner != targetMAC {
		t.Errorf("transferred %v at frame %d to %v", c.Transferred, c.Switched, c.Owner)
	}
	if c.RouterAcked != len(first) {
		t.Errorf("router acknowledged %d octets, want %d", c.RouterAcked, len(first))
	}
	if c.Handover != 1 || c.Retransmissions != 1 {
		t.Errorf("%d of %d retransmissions in the hand-over, want 1 of 1", c.Handover, c.Retransmissions)
	}
	if c.Repeated != 0 {
		t.Errorf("%d segments of the service repeated, want none", c.Repeated)
	}
	if c.Gap != time.Millisecond {
		t.Errorf("gap %v, want 1ms", c.Gap)
	}
	if !c.Closed || c.Received != *DigestOf(answer) {
		t.Errorf("closed %v, received %v", c.Closed, c.Received)
	}
}

func TestReusedPortIsAnotherConnection(t *testing.T) {
	items := clean()
	for _, it := range clean()[syn:] {
		shift := seq.Value(1 << 20)
		if it.toServer {
			it.seg.Seq += shift
			it.seg.Ack += 3 * shift
		} else {
			it.seg.Seq += 3 * shift
			it.seg.Ack += shift
		}
		items = append(items, it)
	}
	items[len(clean())].seg.Ack = 0
	e := expectation()
	e.Streams[client] = append(e.Streams[client], e.Streams[client][0])
	r := Judge(capture(t, items), e)
	for _, v := range r.Violations {
		t.Error(v)
	}
	if len(r.Conns) != 2 || r.Transferred() != 2 {
		t.Errorf("%s, want 2 connections, 2 transferred", r.Summary())
	}
}

func TestLateResetIsAnAnswerToWhatCameTooLate(t *testing.T) {
	reset := func(at int) Report {
		items := after(clean(), at, at, func(it *item) {
			it.seg.Flags, it.seg.Payload, it.toServer, it.mac = wire.RST, nil, true, clientMAC
			it.seg.Seq = clean()[lastAck].seg.Seq
		})
		e := expectation()
		e.Unordered = true
		return Judge(capture(t, items), e)
	}
	if r := reset(lastAck); !r.Pass() || r.Resets != 0 || r.Late != 1 {
		t.Errorf("after the end: violations %v, %d resets, %d late", r.Violations, r.Resets, r.Late)
	}
	if r := reset(targetFin); r.Pass() || r.Resets != 1 || r.Late != 0 {
		t.Errorf("before the end: violations %v, %d resets, %d late", r.Violations, r.Resets, r.Late)
	}
}

func TestAllowedRuleDoesNotFail(t *testing.T) {
	items := after(clean(), lastAck, lastAck, func(it *item) { it.seg.Flags = wire.RST | wire.ACK })
	e := expectation()
	e.Allow = []Rule{NoRST}
	r := Judge(capture(t, items), e)
	if !r.Pass() || len(r.Allowed) != 1 || r.Resets != 1 {
		t.Errorf("violations %v, allowed %v, %d resets", r.Violations, r.Allowed, r.Resets)
	}
}

func TestStrayOfClientIsCounted(t *testing.T) {
	stray := &item{mac: clientMAC, toServer: true, seg: wire.Segment{Seq: 5, Ack: 6, Flags: wire.ACK}}
	r := Judge(capture(t, []*item{stray}), Expectation{DVIPA: dvipa.Addr()})
	if !r.Pass() || r.Strays != 1 || len(r.Conns) != 0 {
		t.Errorf("violations %v, %d strays, %d connections", r.Violations, r.Strays, len(r.Conns))
	}
}

// TestStreamEqualsReassembly delivers random pieces, reordered within reach and repeated, and compares with the whole.
func TestStreamEqualsReassembly(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	whole := make([]byte, 3*history)
	for i := range whole {
		whole[i] = byte(rnd.Uint32())
	}
	start := seq.Value(0xffff0000)
	s := newStream(start)
	for at := 0; at < len(whole); {
		n := min(1+rnd.IntN(100_000), len(whole)-at)
		m := min(1+rnd.IntN(100_000), len(whole)-at-n)
		back := rnd.IntN(min(at, history) + 1)
		for _, piece := range [][2]int{{at + n, at + n + m}, {at - back, at - back/2}, {at, at + n}} {
			if err := s.add(start.Add(piece[0]), whole[piece[0]:piece[1]]); err != nil {
				t.Fatalf("octets %v: %v", piece, err)
			}
		}
		at += n + m
	}
	if got := s.digest(); got.SHA256 != sha256.Sum256(whole) || s.hole() != 0 {
		t.Errorf("%v, hole %d; want the digest of %d octets", got, s.hole(), len(whole))
	}
	if len(s.tail) >= 2*history {
		t.Errorf("%d octets kept, want less than %d", len(s.tail), 2*history)
	}
}

func TestPcapngIsReadByTshark(t *testing.T) {
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("tshark is not installed")
	}
	var file bytes.Buffer
	if err := WritePcapng(&file, capture(t, clean())); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(tshark, "-r", "-", "-o", "tcp.check_checksum:TRUE", "-Y", "tcp.analysis.flags || tcp.checksum.status==0")
	cmd.Stdin = &file
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("tshark: %v: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, "Running as user") {
			t.Errorf("tshark sees a problem in the clean capture: %s", line)
		}
	}
}

// FuzzJudge feeds arbitrary frames: no input may make the judge panic.
func FuzzJudge(f *testing.F) {
	for _, it := range clean() {
		f.Add(it.build(&testing.T{}), uint16(3))
	}
	f.Fuzz(func(t *testing.T, frame []byte, times uint16) {
		j := New(Expectation{DVIPA: dvipa.Addr(), Owner: routerMAC})
		for range times % 4 {
			j.Add(Frame{Data: frame})
		}
		if r := j.Report(map[netip.AddrPort][]Stream{}); r.Frames != int(times%4) {
			t.Errorf("%d frames, want %d", r.Frames, times%4)
		}
	})
}

func BenchmarkDownload(b *testing.B) {
	items := clean()
	data := items[targetData1]
	data.seg.Payload = make([]byte, 1448)
	frames := make([]Frame, 0, 32)
	tt := &testing.T{}
	for _, it := range items[:targetData1] {
		frames = append(frames, Frame{Data: it.build(tt)})
	}
	j := New(Expectation{DVIPA: dvipa.Addr()})
	for _, f := range frames {
		j.Add(f)
	}
	b.SetBytes(1448)
	b.ReportAllocs()
	frame := Frame{Data: data.build(tt)}
	for b.Loop() {
		j.Add(frame)
	}
}

// TestDirectConnectionsAreTheirTargets has a target that answers the handshake itself.
func TestDirectConnectionsAreTheirTargets(t *testing.T) {
	judged := func(opener, later wire.MAC) Report {
		items := clean()
		for _, it := range items {
			switch {
			case it.arp != nil || it.toServer:
			case it.mac == routerMAC:
				it.mac = opener
			default:
				it.mac = later
			}
		}
		e := expectation()
		e.Direct = true
		return Judge(capture(t, items), e)
	}
	if r := judged(targetMAC, targetMAC); !r.Pass() || r.Transferred() != 0 || r.Conns[0].Owner != targetMAC {
		t.Errorf("a target's own: violations %v, %d transferred", r.Violations, r.Transferred())
	}
	for name, r := range map[string]Report{"by the routing host": judged(routerMAC, routerMAC), "by two": judged(targetMAC, otherMAC)} {
		if len(r.Violations) == 0 || r.Violations[0].Rule != OneOwner {
			t.Errorf("%s: violations %v, want one of %s", name, r.Violations, OneOwner)
		}
	}
}
