package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"baton/fastpath/wire"
)

// Host is one namespace: a host of the laboratory. Its methods are safe for several goroutines.
type Host struct {
	Name      string // client, rh1, t1, t2, ...
	Namespace string // as ip-netns(8) knows it
	Data      netip.Prefix
	Data6     netip.Prefix // in a lab with IPv6
	XCF       netip.Prefix // the client has no interface there
	Userspace bool         // a target that continues connections in userspace, on a port of its own
	lab       *Lab
}

// On returns the host's address on the data network, of one family or the other.
func (h *Host) On(ipv6 bool) netip.Prefix {
	if ipv6 {
		return h.Data6
	}
	return h.Data
}

// Dir is the host's own directory.
func (h *Host) Dir() string { return h.lab.Path(h.Name) }

// Path returns a path below the host's directory.
func (h *Host) Path(elem ...string) string {
	return filepath.Join(append([]string{h.Dir()}, elem...)...)
}

// Expand replaces ${dir} by the host's directory.
func (h *Host) Expand(text string) string { return strings.ReplaceAll(text, "${dir}", h.Dir()) }

// Do runs f with its thread in the host's network namespace. Sockets that f opens stay there; goroutines that it starts
// do not.
func (h *Host) Do(f func() error) error { return inNamespace(h.Namespace, f) }

// inNamespace runs f on a thread of its own, which ends with it: a thread that has changed its namespace is not reused.
func inNamespace(name string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- enter(name, f)
	}()
	return <-done
}

func enter(name string, f func() error) error {
	fd, err := unix.Open(namespacePath(name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open namespace %s: %w", name, err)
	}
	err = unix.Setns(fd, unix.CLONE_NEWNET)
	_ = unix.Close(fd)
	if err != nil {
		return fmt.Errorf("enter namespace %s: %w", name, err)
	}
	return f()
}

// MAC returns the address of the host's data interface.
func (h *Host) MAC() (mac wire.MAC, err error) {
	err = h.Do(func() error {
		dev, err := net.InterfaceByName(DataInterface)
		if err == nil {
			mac = wire.MAC(dev.HardwareAddr)
		}
		return err
	})
	return mac, err
}

// SeenMAC returns the address from which the data segment gets the host's frames.
func (h *Host) SeenMAC() (wire.MAC, error) {
	if h.lab.Gateway != nil && !dataNetwork.Contains(h.Data.Addr()) {
		return h.lab.Gateway.MAC()
	}
	return h.MAC()
}

// SetSysctl sets a kernel parameter of the host ("net.ipv4.tcp_sack") and returns a function that puts it back.
func (h *Host) SetSysctl(key, value string) (restore func() error, err error) {
	path := filepath.Join("/proc/sys", strings.ReplaceAll(key, ".", "/"))
	var old []byte
	err = h.Do(func() error {
		var err error
		if old, err = os.ReadFile(path); err != nil {
			return err
		}
		return os.WriteFile(path, []byte(value), 0)
	})
	return func() error {
		return h.Do(func() error { return os.WriteFile(path, old, 0) })
	}, err
}

// Listen listens on the host. MPTCP is off: the kernel cannot import into a listener that has it.
func (h *Host) Listen(address string) (l net.Listener, err error) {
	c := net.ListenConfig{}
	c.SetMultipathTCP(false)
	return h.ListenConfig(c, address)
}

// ListenConfig listens with options of one's own. Go's default includes MPTCP.
func (h *Host) ListenConfig(c net.ListenConfig, address string) (l net.Listener, err error) {
	err = h.Do(func() error {
		var err error
		l, err = c.Listen(context.Background(), "tcp", address)
		return err
	})
	return l, err
}

// Dial connects from the host, from local if it is valid (a port of 0 lets the kernel choose).
func (h *Host) Dial(ctx context.Context, local, remote netip.AddrPort) (c *Conn, err error) {
	d := net.Dialer{}
	d.SetMultipathTCP(false)
	if local.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(local)
		d.Control = reuseAddress
	}
	return h.dial(ctx, d, remote)
}

// DialWith connects from the host with a socket that set has changed before.
func (h *Host) DialWith(ctx context.Context, remote netip.AddrPort, set func(fd int) error) (*Conn, error) {
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		return errors.Join(raw.Control(func(fd uintptr) { err = set(int(fd)) }), err)
	}}
	d.SetMultipathTCP(false)
	return h.dial(ctx, d, remote)
}

func (h *Host) dial(ctx context.Context, d net.Dialer, remote netip.AddrPort) (c *Conn, err error) {
	err = h.Do(func() error {
		raw, err := d.DialContext(ctx, "tcp", remote.String())
		if err == nil {
			c = newConn(raw.(*net.TCPConn))
		}
		return err
	})
	return c, err
}
