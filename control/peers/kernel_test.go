package peers

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// kernel is the kernel's TCP in an anonymous network namespace, behind a TAP.
type kernel struct {
	tap  *os.File
	mss  int
	work chan func() // done in the namespace
}

func startKernel(t *testing.T, j job, out func([]byte)) peer {
	k := &kernel{mss: j.mss, work: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread, and the namespace with it, ends with this goroutine
		ready <- k.setUp(j)
		for f := range k.work {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		k.pump(out)
	}()
	t.Cleanup(func() {
		k.tap.Close()
		<-stopped
		close(k.work)
	})
	return k
}

// setUp makes the namespace and the TAP in it. The server's address is known to it without ARP.
func (k *kernel) setUp(j job) error {
	ns, err := netns.New()
	if err != nil {
		return fmt.Errorf("namespace: %w", err)
	}
	defer ns.Close()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open /dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq("peer0")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		unix.Close(fd)
		return fmt.Errorf("TAP: %w", err)
	}
	k.tap = os.NewFile(uintptr(fd), "tap")
	l, err := netlink.LinkByName("peer0")
	if err != nil {
		return err
	}
	return k.address(l, j.mtu)
}

func (k *kernel) address(l netlink.Link, mtu int) error {
	if mtu == 0 {
		mtu = 1500
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: clientAddr.AsSlice(), Mask: net.CIDRMask(24, 32)}}
	neighbour := &netlink.Neigh{LinkIndex: l.Attrs().Index, State: netlink.NUD_PERMANENT, Family: unix.AF_INET,
		IP: serverAddr.Addr().AsSlice(), HardwareAddr: serverMAC[:]}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"MTU", func() error { return netlink.LinkSetMTU(l, mtu) }},
		{"MAC", func() error { return netlink.LinkSetHardwareAddr(l, clientMAC[:]) }},
		{"up", func() error { return netlink.LinkSetUp(l) }},
		{"address", func() error { return netlink.AddrAdd(l, addr) }},
		{"neighbour", func() error { return netlink.NeighSet(neighbour) }},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return nil
}

// pump carries the frames that the kernel sends, IPv4 only.
func (k *kernel) pump(out func([]byte)) {
	b := make([]byte, 1<<16)
	for {
		n, err := k.tap.Read(b)
		if err != nil {
			return
		}
		if n > 34 && b[12] == 8 && b[13] == 0 {
			out(b[:n])
		}
	}
}

func (k *kernel) frame(f []byte) { k.tap.Write(f) } //nolint:errcheck // a closed TAP is the test's end

func (k *kernel) dial() (c client, err error) {
	d := net.Dialer{Timeout: patience, Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) {
			if k.mss > 0 {
				failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, k.mss)
			}
		})
		if err != nil {
			return err
		}
		return failed
	}}
	done := make(chan struct{})
	k.work <- func() {
		defer close(done)
		var conn net.Conn
		if conn, err = d.DialContext(context.Background(), "tcp4", serverAddr.String()); err == nil {
			c = conn.(*net.TCPConn)
		}
	}
	<-done
	return c, err
}

func TestKernel(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("run it as root: it makes a network namespace and a TAP")
	}
	for _, j := range jobs {
		t.Run(j.name, func(t *testing.T) {
			t.Parallel()
			converse(t, j, startKernel)
		})
	}
}
