package target

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"baton/control/transfer"
	"baton/fastpath/wire"
)

// newPinDir is a bpffs of the test's own.
func newPinDir(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bpffs")
	mounted, err := mountBPFFS(dir)
	if err != nil || mounted != dir {
		t.Fatalf("mounted %q: %v", mounted, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func (l *lab) guard(t *testing.T, dir string, services ...netip.AddrPort) *Guard {
	t.Helper()
	return l.guardAs(t, dir, false, services...)
}

func (l *lab) guardAs(t *testing.T, dir string, direct bool, services ...netip.AddrPort) *Guard {
	t.Helper()
	guarded := make([]Guarded, len(services))
	for i, s := range services {
		guarded[i] = Guarded{s, direct}
	}
	g, err := OpenGuard(l.Namespace, dir, []string{l.dev, "absent0"}, guarded, tunnelSources)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

func (l *lab) counters(t *testing.T, g *Guard) Counters {
	t.Helper()
	c, err := g.Counters()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// What would make the host speak about a connection that it does not have is dropped, and counted under its name; what
// is no business of the guard's passes.
func TestGuardDropsStrangers(t *testing.T) {
	other := netip.AddrPortFrom(service4.Addr(), 81)
	data := wire.Segment{Seq: 1, Ack: 2, Flags: wire.ACK | wire.PSH, Window: 100, Payload: []byte("x")}
	syn := wire.Segment{Seq: 1, Flags: wire.SYN, Window: 100}
	tests := []struct {
		name     string
		src, dst netip.AddrPort
		listen   bool
		segment  wire.Segment
		mangle   func([]byte) []byte
		want     Counters
		answered bool
	}{
		{name: "SYN", src: client4, dst: service4, listen: true, segment: syn, want: Counters{SYN: 1}},
		{name: "SYN ipv6", src: client6, dst: service6, listen: true, segment: syn, want: Counters{SYN: 1}},
		{name: "stray data, listener", src: client4, dst: service4, listen: true, segment: data,
			want: Counters{Listener: 1}},
		{name: "stray data, listener, ipv6", src: client6, dst: service6, listen: true, segment: data,
			want: Counters{Listener: 1}},
		{name: "stray data, nobody", src: client4, dst: service4, segment: data, want: Counters{NoSocket: 1}},
		{name: "SYN+ACK", src: client4, dst: service4, segment: wire.Segment{Flags: wire.SYN | wire.ACK},
			want: Counters{NoSocket: 1}},
		{name: "first fragment", src: client4, dst: service4, listen: true, segment: data, mangle: fragment,
			want: Counters{Listener: 1}},
		{name: "later fragment", src: client4, dst: service4, listen: true, segment: data, mangle: laterFragment,
			want: Counters{Fragment: 1}},
		{name: "SYN in a first fragment", src: client4, dst: service4, listen: true, segment: syn, mangle: fragment,
			want: Counters{SYN: 1}},
		{name: "truncated", src: client4, dst: service4, listen: true, segment: data, mangle: truncate,
			want: Counters{Malformed: 1}},
		{name: "SYN behind a hop-by-hop header", src: client6, dst: service6, listen: true, segment: syn, mangle: hopByHop,
			want: Counters{SYN: 1}},
		{name: "SYN behind a fragment header", src: client6, dst: service6, listen: true, segment: syn,
			mangle: fragmentHeader, want: Counters{SYN: 1}},
		{name: "behind a later fragment's header", src: client6, dst: service6, listen: true, segment: syn,
			mangle: laterFragmentHeader, want: Counters{Fragment: 1}},
		{name: "another port of the address", src: client4, dst: other, segment: syn, answered: true},
		{name: "another address", src: client4, dst: netip.MustParseAddrPort("10.77.0.21:80"), listen: true, segment: syn,
			answered: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			if tt.listen {
				l.listen(t, "tcp", ":80", false)
			}
			g := l.guard(t, newPinDir(t), service4, service6)
			frame := wire.AppendTCP(nil, wire.Link{Dst: tapMAC, Src: agentMAC}, tt.src, tt.dst, tt.segment)
			if tt.mangle != nil {
				frame = tt.mangle(frame)
			}
			if err := l.nic.Write(frame); err != nil {
				t.Fatal(err)
			}
			if got := l.counters(t, g); got != tt.want {
				t.Errorf("counters %+v, want %+v", got, tt.want)
			}
			if _, ok := l.next(t, shortly); ok != tt.answered {
				t.Errorf("answered %v, want %v", ok, tt.answered)
			}
		})
	}
}

// fragment sets More Fragments, laterFragment an offset of 8 octets.
func fragment(frame []byte) []byte      { return fragmentField(frame, 0x2000) }
func laterFragment(frame []byte) []byte { return fragmentField(frame, 1) }

// fragmentField adds to the fragment field and mends the header's checksum (RFC 1624: by the sum's complement).
func fragmentField(frame []byte, field uint32) []byte {
	frame[14+6] |= byte(field >> 8)
	frame[14+7] |= byte(field)
	sum := uint32(frame[14+10])<<8 | uint32(frame[14+11])
	sum = 0xffff - sum + field
	sum = 0xffff - (sum&0xffff + sum>>16)
	frame[14+10], frame[14+11] = byte(sum>>8), byte(sum)
	return frame
}

func truncate(frame []byte) []byte { return frame[:14+20+8] }

// hopByHop puts an empty hop-by-hop options header behind the IPv6 header (RFC 8200 section 4.3).
func hopByHop(frame []byte) []byte { return extend(frame, 0, []byte{6, 0, 1, 4, 0, 0, 0, 0}) }

// fragmentHeader puts the header of a fragment that is the whole packet there (RFC 6946), laterFragmentHeader that of one
// at an offset of 8 octets.
func fragmentHeader(frame []byte) []byte { return extend(frame, 44, []byte{6, 0, 0, 0, 0, 0, 0, 1}) }
func laterFragmentHeader(frame []byte) []byte {
	return extend(frame, 44, []byte{6, 0, 0, 8, 0, 0, 0, 1})
}

func extend(frame []byte, kind byte, header []byte) []byte {
	frame[14+5] += byte(len(header))
	frame[14+6] = kind
	return append(append(append([]byte{}, frame[:14+40]...), header...), frame[14+40:]...)
}

// Segments of an imported connection pass, to the end: also those for its TIME-WAIT.
func TestGuardPassesConnections(t *testing.T) {
	for _, end := range [][2]netip.AddrPort{{client4, service4}, {client6, service6}} {
		t.Run(fmt.Sprint(end[1]), func(t *testing.T) {
			l := newLab(t)
			ln := l.listen(t, "tcp", ":80", false)
			g := l.guard(t, newPinDir(t), service4, service6)
			r := record(end[0], end[1], request, func(*transfer.Record) {})
			mustImport(t, l.importer(t), r, end[1])
			c := accept(t, ln)
			checkConversation(t, l, c, r)
			l.drain(t)
			c.Close()
			peer := newClient(l, r)
			peer.snd, peer.rcv = peer.snd.Add(4), peer.rcv.Add(5000)
			peer.receive(t, 1)
			peer.send(t, wire.ACK|wire.FIN, "")
			before := l.counters(t, g)
			peer.snd--
			peer.send(t, wire.ACK|wire.FIN, "") // again: TIME-WAIT answers
			if _, ok := l.next(t, answerTimeout); !ok {
				t.Error("TIME-WAIT did not answer")
			}
			after := l.counters(t, g)
			if after.Passed != before.Passed+1 || after != (Counters{Passed: after.Passed}) {
				t.Errorf("counters %+v, then %+v: want one more passed", before, after)
			}
		})
	}
}

// A segment in fragments reaches its connection when the first one comes first.
func TestGuardPassesFragmentsOfConnections(t *testing.T) {
	for _, end := range [][2]netip.AddrPort{{client4, service4}, {client6, service6}} {
		t.Run(fmt.Sprint(end[1]), func(t *testing.T) {
			l := newLab(t)
			ln := l.listen(t, "tcp", ":80", false)
			g := l.guard(t, newPinDir(t), service4, service6)
			r := record(end[0], end[1], request, func(*transfer.Record) {})
			mustImport(t, l.importer(t), r, end[1])
			c := accept(t, ln)
			checkConversation(t, l, c, r)
			before := l.counters(t, g)
			peer := newClient(l, r)
			peer.snd, peer.rcv = peer.snd.Add(4), peer.rcv.Add(5000)
			data := strings.Repeat("fragmented ", 50)
			frame := wire.AppendTCP(nil, wire.Link{Dst: tapMAC, Src: agentMAC}, end[0], end[1],
				peer.segment(wire.ACK|wire.PSH, data))
			parts := wire.Fragments(frame, 256, 7)
			other := wire.Fragments(frame, 256, 8)
			for _, part := range append(other[1:2:2], parts...) {
				if err := l.nic.Write(part); err != nil {
					t.Fatal(err)
				}
			}
			got := make([]byte, len(data))
			if _, err := io.ReadFull(c, got); err != nil || string(got) != data {
				t.Errorf("the application reads %q, %v", got, err)
			}
			after := l.counters(t, g)
			if after.Fragment != before.Fragment+1 || after.Passed != before.Passed+uint64(len(parts)) {
				t.Errorf("counters %+v, then %+v: want %d more passed and 1 dropped", before, after, len(parts))
			}
		})
	}
}

// The guard stays when its process is gone, the next one takes over without a gap, and without pins it is gone.
func TestGuardOutlivesItsProcess(t *testing.T) {
	l := newLab(t)
	l.listen(t, "tcp4", ":80", false)
	dir := newPinDir(t)
	syn := wire.Segment{Seq: 1, Flags: wire.SYN, Window: 100}
	silent := func(when string) {
		t.Helper()
		l.send(t, client4, service4, syn)
		if _, ok := l.next(t, shortly); ok {
			t.Errorf("%s: the SYN was answered", when)
		}
	}
	g := l.guard(t, dir, service4)
	silent("at first")
	g.Close()
	silent("without a process")
	g = l.guard(t, dir, service4)
	silent("with the next process")
	if got := l.counters(t, g); got.SYN != 3 {
		t.Errorf("counted %d SYNs over two lives, want 3", got.SYN)
	}
	l.guard(t, dir, service6)
	l.send(t, client4, service4, syn)
	if _, ok := l.next(t, answerTimeout); !ok {
		t.Error("a service that is not configured any more is still guarded")
	}
	g = l.guard(t, dir, service4)
	g.Close()
	if err := os.Remove(filepath.Join(dir, linkPrefix+l.dev)); err != nil {
		t.Fatal(err)
	}
	l.send(t, clientPort(1), service4, syn)
	if _, ok := l.next(t, answerTimeout); !ok {
		t.Error("the SYN is dropped without pins")
	}
}

func TestGuardNeedsAnInterface(t *testing.T) {
	l := newLab(t)
	if _, err := OpenGuard(l.Namespace, newPinDir(t), []string{"absent0"}, nil, nil); err == nil {
		t.Error("guards no interface at all")
	}
}

// TestGuardOfADirectServiceLetsConnectionsBegin has the client's handshake, with and without SYN cookies, and nothing else:
// what is of no connection is dropped as at any service.
func TestGuardOfADirectServiceLetsConnectionsBegin(t *testing.T) {
	for _, cookies := range []string{"1", "2"} { // 2: always
		for _, end := range [][2]netip.AddrPort{{client4, service4}, {client6, service6}} {
			t.Run(fmt.Sprintf("tcp_syncookies %s, %v", cookies, end[1]), func(t *testing.T) {
				l := newLab(t)
				l.sysctl(t, "net/ipv4/tcp_syncookies", cookies)
				ln := l.listen(t, "tcp", ":80", false)
				g := l.guardAs(t, newPinDir(t), true, service4, service6)
				answer, syns := l.connect(t, end[0], end[1])
				l.send(t, end[0], end[1], wire.Segment{Seq: 2, Ack: answer.Segment.Seq.Add(1), Flags: wire.ACK, Window: 1000})
				accept(t, ln)
				if got := l.counters(t, g); got != (Counters{Passed: syns + 1}) {
					t.Errorf("counters %+v, want %d passed", got, syns+1)
				}
			})
		}
	}
}

// connect sends a SYN, again and again as clients do (a new device's IPv6 may not answer at once), until there is a SYN-ACK.
func (l *lab) connect(t *testing.T, src, dst netip.AddrPort) (answer wire.Frame, syns uint64) {
	t.Helper()
	for end := time.Now().Add(answerTimeout); time.Now().Before(end); {
		l.send(t, src, dst, wire.Segment{Seq: 1, Flags: wire.SYN, Window: 1000})
		syns++
		if answer, ok := l.next(t, 10*shortly); ok && answer.Segment.Flags.Has(wire.SYN|wire.ACK) {
			return answer, syns
		}
	}
	t.Fatalf("%d SYNs were not answered", syns)
	return answer, syns
}

func TestGuardOfADirectServiceDropsStrangers(t *testing.T) {
	tests := []struct {
		name   string
		listen bool
		flags  wire.Flags
		want   Counters
	}{
		{"SYN, nobody listens", false, wire.SYN, Counters{NoSocket: 1}},
		{"stray data", true, wire.ACK | wire.PSH, Counters{Listener: 1}},
		{"forged ACK of a cookie", true, wire.ACK, Counters{Listener: 1}},
		{"SYN+ACK", true, wire.SYN | wire.ACK, Counters{Listener: 1}},
		{"RST", true, wire.RST, Counters{Listener: 1}},
		{"FIN", true, wire.FIN | wire.ACK, Counters{Listener: 1}},
		{"stray data, nobody listens", false, wire.ACK, Counters{NoSocket: 1}},
	}
	for _, tt := range tests {
		for _, end := range [][2]netip.AddrPort{{client4, service4}, {client6, service6}} {
			t.Run(fmt.Sprintf("%s, %v", tt.name, end[1]), func(t *testing.T) {
				l := newLab(t)
				l.sysctl(t, "net/ipv4/tcp_syncookies", "2")
				if tt.listen {
					l.listen(t, "tcp", ":80", false)
				}
				g := l.guardAs(t, newPinDir(t), true, service4, service6)
				l.send(t, end[0], end[1], wire.Segment{Seq: 1, Ack: 2, Flags: tt.flags, Window: 1000})
				if got := l.counters(t, g); got != tt.want {
					t.Errorf("counters %+v, want %+v", got, tt.want)
				}
				if f, ok := l.next(t, shortly); ok {
					t.Errorf("answered by %+v", f.Segment)
				}
			})
		}
	}
}

// TestGuardFollowsTheMode makes a direct service one to which connections are handed over, and back.
func TestGuardFollowsTheMode(t *testing.T) {
	l := newLab(t)
	l.listen(t, "tcp4", ":80", false)
	dir := newPinDir(t)
	for i, direct := range []bool{false, true, false} {
		l.guardAs(t, dir, direct, service4)
		l.send(t, clientPort(i), service4, wire.Segment{Seq: 1, Flags: wire.SYN, Window: 1000})
		patience := shortly
		if direct {
			patience = answerTimeout
		}
		if _, ok := l.next(t, patience); ok != direct {
			t.Errorf("direct %t: the SYN is answered: %t", direct, ok)
		}
	}
}
