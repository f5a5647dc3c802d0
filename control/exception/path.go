package exception

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"baton/fastpath/wire"
)

// backlog is how many frames may wait for the kernel.
const backlog = 256

// Path is a TAP device and what waits for it. It exists until Run ends, or Close.
type Path struct {
	name    string
	file    *os.File
	waiting chan []byte
}

// Open makes a TAP device in the process's network namespace and sets it up. mtu is of IP packets, octets.
func Open(name string, mac wire.MAC, mtu int) (*Path, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun (is the module tun there?): %w", err)
	}
	if err := create(fd, name); err != nil {
		return nil, errors.Join(fmt.Errorf("create TAP %s: %w", name, err), unix.Close(fd))
	}
	// Only now: the runtime's poller wants a device.
	p := &Path{name: name, file: os.NewFile(uintptr(fd), name), waiting: make(chan []byte, backlog)}
	if err := setUp(name, mac, mtu); err != nil {
		return nil, errors.Join(fmt.Errorf("set up TAP %s: %w", name, err), p.Close())
	}
	return p, nil
}

func create(fd int, name string) error {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	return unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
}

func setUp(name string, mac wire.MAC, mtu int) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return errors.Join(netlink.LinkSetHardwareAddr(link, net.HardwareAddr(mac[:])), netlink.LinkSetMTU(link, mtu),
		netlink.LinkSetUp(link))
}

// Name is the interface's.
func (p *Path) Name() string { return p.name }

// Close removes the device.
func (p *Path) Close() error { return p.file.Close() }

// Give queues a copy of a frame for the kernel. false: too many wait.
func (p *Path) Give(frame []byte) bool {
	select {
	case p.waiting <- slices.Clone(frame):
		return true
	default:
		return false
	}
}

// Run carries frames in both directions until ctx ends, and closes the path. send gets the kernel's frames, one at a
// time; they are its for the call. Its error, or one of the device, ends Run. refused is called for each frame that the
// kernel did not take, on another goroutine than send.
func (p *Path) Run(ctx context.Context, send func(frame []byte) error, refused func()) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer context.AfterFunc(ctx, func() { _ = p.Close() })() // ends the read
	go func() { cancel(p.deliver(ctx, refused)) }()
	err := p.fetch(send)
	cancel(err)
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return fmt.Errorf("TAP %s: %w", p.name, cause)
	}
	return nil
}

// deliver writes what waits.
func (p *Path) deliver(ctx context.Context, refused func()) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case frame := <-p.waiting:
			_, err := p.file.Write(frame)
			if errors.Is(err, os.ErrClosed) {
				return err
			}
			if err != nil { // the device may have been set down: as with a cable that is out
				refused()
			}
		}
	}
}

// fetch reads what the kernel sends.
func (p *Path) fetch(send func(frame []byte) error) error {
	buf := make([]byte, 1<<16)
	for {
		n, err := p.file.Read(buf)
		if err != nil {
			return err
		}
		if err := send(buf[:n]); err != nil {
			return err
		}
	}
}
