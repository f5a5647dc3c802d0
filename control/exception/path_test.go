package exception

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"baton/fastpath/wire"
)

var (
	mac  = wire.MAC{2, 0xba, 0x70, 0, 0, 9}
	peer = wire.MAC{2, 0xc1, 0, 0, 0, 1}
	own  = netip.MustParseAddr("10.99.0.1")
)

// open makes a path in a network namespace of the test's own, which ends with the thread; with does something to its
// device there.
func open(t *testing.T, with ...func(netlink.Link) error) *Path {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes a network namespace and a TAP")
	}
	opened := make(chan *Path)
	go func() {
		runtime.LockOSThread() // never unlocked: the namespace must not be anybody else's
		defer close(opened)
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		p, err := Open("baton9", mac, 1400)
		if err != nil {
			t.Error(err)
			return
		}
		dev, err := net.InterfaceByName("baton9")
		if err != nil || wire.MAC(dev.HardwareAddr) != mac || dev.MTU != 1400 || dev.Flags&net.FlagUp == 0 {
			t.Errorf("device %+v, %v", dev, err)
		}
		link, err := netlink.LinkByName("baton9")
		if err == nil {
			err = netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: own.AsSlice(), Mask: net.CIDRMask(24, 32)}})
		}
		for _, do := range with {
			err = errors.Join(err, do(link))
		}
		if err != nil {
			t.Error(err)
			return
		}
		opened <- p
	}()
	p := <-opened
	if p == nil {
		t.Fatal("no path")
	}
	return p
}

// TestPathCarriesFrames asks the kernel who has its address, and gets its answer.
func TestPathCarriesFrames(t *testing.T) {
	p := open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	answered := make(chan wire.ARP, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- p.Run(ctx, func(frame []byte) error {
			if a, err := wire.ParseARP(frame); err == nil && a.Op == wire.ARPReply {
				answered <- a
			}
			return nil
		}, func() { t.Error("a frame was refused") })
	}()
	question := wire.ARP{Op: wire.ARPRequest, SenderMAC: peer, SenderIP: own.Next(), TargetIP: own}
	if !p.Give(wire.AppendARP(nil, question)) {
		t.Fatal("no room for one frame")
	}
	select {
	case a := <-answered:
		want := wire.ARP{Op: wire.ARPReply, SenderMAC: mac, SenderIP: own, TargetMAC: peer, TargetIP: own.Next()}
		if a != want {
			t.Errorf("answer %+v, want %+v", a, want)
		}
	case <-ctx.Done():
		t.Error("the kernel does not answer")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestPathThatNobodyRunsLosesFrames(t *testing.T) {
	p := open(t)
	defer func() { _ = p.Close() }()
	for i := range backlog + 1 {
		if took := p.Give([]byte("frame")); took != (i < backlog) {
			t.Fatalf("frame %d of %d: took %v", i+1, backlog, took)
		}
	}
}

func TestErrorOfTheSenderEndsThePath(t *testing.T) {
	p := open(t)
	broken := errors.New("broken")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := p.Run(ctx, func([]byte) error { return broken }, func() {}); !errors.Is(err, broken) {
		t.Errorf("Run: %v", err)
	}
}

func TestFrameThatTheKernelRefusesIsTold(t *testing.T) {
	p := open(t, netlink.LinkSetDown)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if !p.Give(wire.AppendARP(nil, wire.ARP{Op: wire.ARPRequest, SenderMAC: peer, SenderIP: own.Next(), TargetIP: own})) {
		t.Fatal("no room for one frame")
	}
	refused := 0
	if err := p.Run(ctx, func([]byte) error { return nil }, func() { refused++; cancel() }); err != nil {
		t.Errorf("Run: %v", err)
	}
	if refused != 1 {
		t.Errorf("%d frames were refused, want 1", refused)
	}
}
