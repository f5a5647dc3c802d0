package target

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"baton/control/transfer"
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// The test network: a namespace with the service on lo and one device, behind which a client made of hand-written
// segments sits.
var (
	service4 = netip.MustParseAddrPort("10.77.0.10:80")
	client4  = netip.MustParseAddrPort("10.77.0.100:40000")
	service6 = netip.MustParseAddrPort("[fd77::10]:80")
	client6  = netip.MustParseAddrPort("[fd77::100]:40000")
)

const (
	answerTimeout = 5 * time.Second
	shortly       = 30 * time.Millisecond // for nothing to come
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces and BPF need root")
	}
}

// lab is a namespace and its network device, whose other end the test holds.
type lab struct {
	*Namespace
	nic  *tap
	dev  string
	wrap func(frame []byte) []byte // what the client's frames go through; nil: nothing
}

func newLab(t testing.TB) *lab {
	t.Helper()
	needRoot(t)
	l := &lab{Namespace: newNamespace(t)}
	l.do(t, func() (err error) {
		if l.nic, err = openTAP("nic%d"); err != nil {
			return err
		}
		link, err := netlink.LinkByIndex(l.nic.index)
		if err != nil {
			return err
		}
		l.dev = link.Attrs().Name
		return addAddresses(link)
	})
	t.Cleanup(func() { l.nic.Close() })
	return l
}

// newNamespace makes a namespace without a name; it ends with its last socket and device.
func newNamespace(t testing.TB) *Namespace {
	t.Helper()
	handle := make(chan netns.NsHandle, 1)
	go func() {
		runtime.LockOSThread()
		h, err := netns.New()
		if err != nil {
			t.Error(err)
		}
		handle <- h
	}()
	n := &Namespace{Name: "test", handle: <-handle}
	t.Cleanup(func() { n.Close() })
	return n
}

func addAddresses(nic netlink.Link) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	for cidr, link := range map[string]netlink.Link{
		"10.77.0.10/32": lo, "fd77::10/128": lo, "10.77.0.21/24": nic, "fd77::21/64": nic,
	} {
		addr, err := netlink.ParseAddr(cidr)
		if err != nil {
			return err
		}
		addr.Flags |= unix.IFA_F_NODAD
		if err := netlink.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("add %s: %w", cidr, err)
		}
	}
	return nil
}

func (l *lab) do(t testing.TB, f func() error) {
	t.Helper()
	if err := l.Do(f); err != nil {
		t.Fatal(err)
	}
}

func (l *lab) sysctl(t testing.TB, key, value string) {
	t.Helper()
	l.do(t, func() error { return writeSysctl(key, value) })
}

// listen opens a listener in the lab, an ordinary TCP one unless mptcp.
func (l *lab) listen(t testing.TB, network, address string, mptcp bool) net.Listener {
	t.Helper()
	var ln net.Listener
	l.do(t, func() (err error) {
		var c net.ListenConfig
		c.SetMultipathTCP(mptcp)
		ln, err = c.Listen(context.Background(), network, address)
		return err
	})
	t.Cleanup(func() { ln.Close() })
	return ln
}

func (l *lab) importer(t testing.TB) *Importer {
	t.Helper()
	im, err := OpenImporter(l.Namespace, func(Socket) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { im.Close() })
	return im
}

// start runs a program in the lab until the test ends.
func (l *lab) start(t testing.TB, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stderr = os.Stderr
	l.do(t, cmd.Start)
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
}

// run runs a program in the lab to its end.
func (l *lab) run(t testing.TB, stdin, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	l.do(t, func() error {
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", name, err, out)
		}
		return nil
	})
}

// send is what the client sends over the network.
func (l *lab) send(t testing.TB, src, dst netip.AddrPort, s wire.Segment) {
	t.Helper()
	frame := wire.AppendTCP(nil, wire.Link{Dst: tapMAC, Src: agentMAC}, src, dst, s)
	if l.wrap != nil {
		frame = l.wrap(frame)
	}
	if err := l.nic.Write(frame); err != nil {
		t.Fatal(err)
	}
}

// next is the next TCP segment that arrives at the client; ok is false when none did within d.
func (l *lab) next(t testing.TB, d time.Duration) (f wire.Frame, ok bool) {
	t.Helper()
	buf := make([]byte, 70000)
	for deadline := time.Now().Add(d); ; {
		poll := []unix.PollFd{{Fd: int32(l.nic.fd), Events: unix.POLLIN}}
		wait := max(time.Until(deadline), 0)
		n, err := unix.Poll(poll, int(wait.Milliseconds()))
		if n == 0 {
			return wire.Frame{}, false
		}
		if err != nil { // a signal: to read now would be to wait for ever
			continue
		}
		n, err = unix.Read(l.nic.fd, buf)
		if err != nil {
			continue
		}
		if f, err := wire.ParseTCP(buf[:n]); err == nil {
			return f, true
		}
	}
}

// A signal, as of a child that ends, must not have the tests wait for a frame for ever.
func TestSilenceEndsDespiteASignal(t *testing.T) {
	l := newLab(t)
	l.sysctl(t, "net/ipv6/conf/"+l.dev+"/disable_ipv6", "1") // no chatter
	thread, ended := make(chan int, 1), make(chan bool, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		thread <- unix.Gettid()
		_, ok := l.next(t, 200*time.Millisecond)
		ended <- ok
	}()
	id := <-thread
	time.Sleep(50 * time.Millisecond)
	if err := unix.Tgkill(os.Getpid(), id, unix.SIGURG); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(answerTimeout):
		t.Fatal("still waiting")
	}
}

// client is a TCP client of few words: it ACKs and collects what it gets.
type client struct {
	lab      *lab
	rec      *transfer.Record
	snd, rcv seq.Value
	first    wire.Segment // the first segment from the target
	got      []byte
	fin, rst bool
}

func newClient(l *lab, r *transfer.Record) *client {
	return &client{lab: l, rec: r, snd: r.RcvNxt, rcv: r.SndNxt}
}

// segment is one from the client, with the options that were agreed on.
func (c *client) segment(flags wire.Flags, data string) wire.Segment {
	s := wire.Segment{Seq: c.snd, Ack: c.rcv, Flags: flags, Window: 512, Payload: []byte(data)}
	if c.rec.Handshake.Timestamps {
		s.Options = wire.Options{HasTimestamps: true, TSVal: c.rec.TSRecent + 1, TSEcr: c.first.Options.TSVal}
	}
	return s
}

func (c *client) send(t testing.TB, flags wire.Flags, data string) {
	t.Helper()
	s := c.segment(flags, data)
	c.lab.send(t, c.rec.Inc.Client, c.rec.Inc.Service, s)
	c.snd = c.snd.Add(s.Len())
}

// receive takes segments until the client has n octets, or FIN, or RST.
func (c *client) receive(t testing.TB, n int) {
	t.Helper()
	for len(c.got) < n && !c.fin && !c.rst {
		f, ok := c.lab.next(t, answerTimeout)
		if !ok {
			t.Fatalf("client has %d of %d octets, then nothing for %v", len(c.got), n, answerTimeout)
		}
		if f.Dst == c.rec.Inc.Client {
			c.take(t, f.Segment)
		}
	}
}

func (c *client) take(t testing.TB, s wire.Segment) {
	t.Helper()
	if c.first.Flags == 0 {
		c.first = s
	}
	if s.Flags.Has(wire.RST) {
		c.rst = true
		return
	}
	if s.Seq != c.rcv || s.Len() == 0 {
		return
	}
	c.got = append(c.got, s.Payload...)
	c.rcv = c.rcv.Add(s.Len())
	c.fin = s.Flags.Has(wire.FIN)
	c.send(t, wire.ACK, "")
}

// ended is a context for one attempt.
func ended(t testing.TB) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// record is a connection that a routing host has answered and read: the handshake is over, data is waiting.
func record(client, service netip.AddrPort, data string, change ...func(*transfer.Record)) *transfer.Record {
	r := &transfer.Record{
		Epoch: 1,
		Inc:   wire.Incarnation{Tuple: wire.Tuple{Client: client, Service: service}, IRS: 0xfffffff0, ISS: 0x7ffffff0},
		Handshake: wire.Handshake{
			MSS: 1460, OwnMSS: 1460, SndScale: 7, RcvScale: 7, Scaling: true, SACK: true, Timestamps: true,
		},
		Job:      "web",
		SndWnd:   65536,
		TSOffset: 0x12345678,
		TSRecent: 5000,
		Data:     []byte(data),
	}
	r.TSLast = uint32(time.Now().UnixMilli()) + r.TSOffset
	r.ReadFrom = r.Inc.IRS + 1
	r.SndNxt = r.Inc.ISS + 1
	for _, f := range change {
		f(r)
	}
	r.SndUna = r.SndNxt
	r.RcvNxt = endOf(r)
	r.RcvAcked = r.ReadFrom
	r.RcvEdge = r.ReadFrom.Add(32768)
	return r
}
