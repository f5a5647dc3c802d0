package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"baton/bench/judge"
)

// The lab's networks (documentation in doc.go).
var (
	DVIPA        = netip.MustParseAddr("10.77.0.10")
	DVIPA6       = netip.MustParseAddr("2001:db8:77::10")
	dataNetwork  = netip.MustParsePrefix("10.77.0.0/24")
	dataNetwork6 = netip.MustParsePrefix("2001:db8:77::/64")
	farNetwork   = netip.MustParsePrefix("10.79.0.0/24")
	xcfNetwork   = netip.MustParsePrefix("10.78.0.0/24")
)

// Host numbers in both networks.
const (
	routerNumber  = 1
	targetNumber  = 20 // + 1, 2, ...
	clientNumber  = 100
	gatewayNumber = 254
)

// Options says what to build. The zero value is one target.
type Options struct {
	Targets   int    // 1 to 70; 0 means 1
	Userspace int    // so many of them, the first ones, continue connections in userspace; the kernels of the others do
	Far       bool   // the targets are on a network of their own, behind a router
	Dir       string // for configurations, logs and data; "" makes one that Close removes
	Hugepages int    // of 2 MiB, added to the machine's while the lab stands; 0: its forwarders do without any
	IPv6      bool   // client and targets have IPv6 on the data network, too
}

// Lab is a running laboratory.
type Lab struct {
	Prefix  string // of its namespaces; unique on the machine
	Dir     string // one directory per host below it
	Client  *Host
	Router  *Host
	Targets []*Host
	Gateway *Host // the router between data segment and targets; nil without Options.Far

	hugepages int
	ipv6      bool
	keepDir   bool
	files     map[int64]*judge.Digest // made by File
	mu        sync.Mutex              // guards processes
	processes []*Process              // oldest first
	atClose   []func() error
	watcher   *watcher
}

var labs atomic.Int32 // made by this process

// New builds a laboratory. Its error says what is missing; nothing is left behind then.
func New(o Options) (*Lab, error) {
	if o.Targets == 0 {
		o.Targets = 1
	}
	if o.Targets < 1 || o.Targets > 70 {
		return nil, fmt.Errorf("build a lab of %d targets: between 1 and 70 are possible", o.Targets)
	}
	if os.Geteuid() != 0 {
		return nil, ErrNotRoot
	}
	l := &Lab{Prefix: fmt.Sprintf("%s%d-%d", prefixOf, os.Getpid(), labs.Add(1)), Dir: o.Dir, keepDir: o.Dir != "",
		hugepages: o.Hugepages, ipv6: o.IPv6, files: map[int64]*judge.Digest{}}
	if l.Dir == "" {
		l.Dir = directoryOf(l.Prefix)
	}
	if err := l.build(o); err != nil {
		return nil, errors.Join(fmt.Errorf("build lab: %w", err), l.Close())
	}
	return l, nil
}

// ErrNotRoot is returned to callers that are not root.
var ErrNotRoot = errors.New("a lab needs root")

func (l *Lab) build(o Options) error {
	if err := os.MkdirAll(l.Dir, 0o755); err != nil {
		return err
	}
	var err error
	if l.watcher, err = startWatcher(l.Prefix); err != nil {
		return err
	}
	if l.hugepages > 0 {
		if err := borrowHugepages(l.Prefix, l.hugepages); err != nil {
			return err
		}
	}
	l.Client = l.host("client", clientNumber)
	l.Router = l.host("rh1", routerNumber)
	for i := range o.Targets {
		l.Targets = append(l.Targets, l.host(fmt.Sprintf("t%d", i+1), targetNumber+i+1))
	}
	for i := range min(o.Userspace, o.Targets) {
		l.Targets[i].Userspace = true
	}
	if o.Far {
		l.Gateway = l.host("gw", gatewayNumber)
		for i, h := range l.Targets {
			h.Data = address(farNetwork, targetNumber+i+1)
		}
	}
	for _, h := range l.Hosts() {
		if err := os.MkdirAll(h.Dir(), 0o755); err != nil {
			return err
		}
	}
	if l.Gateway != nil {
		if err := os.MkdirAll(l.Gateway.Dir(), 0o755); err != nil {
			return err
		}
	}
	return l.network()
}

func (l *Lab) host(name string, number int) *Host {
	return &Host{
		Name: name, Namespace: l.Prefix + "-" + name, lab: l,
		Data: address(dataNetwork, number), Data6: address(dataNetwork6, number), XCF: address(xcfNetwork, number),
	}
}

// address returns the host with that number, below 256, in a network.
func address(network netip.Prefix, number int) netip.Prefix {
	a := network.Addr().AsSlice()
	a[len(a)-1] = byte(number)
	addr, _ := netip.AddrFromSlice(a) // of a length that it can have
	return netip.PrefixFrom(addr, network.Bits())
}

// Hosts lists the hosts that matter: the client, the routing host, the targets. A gateway is network.
func (l *Lab) Hosts() []*Host { return append([]*Host{l.Client, l.Router}, l.Targets...) }

// Close ends all processes and removes everything that the lab made. It may be called again.
func (l *Lab) Close() error {
	var errs []error
	l.mu.Lock()
	processes := l.processes
	l.processes = nil
	l.mu.Unlock()
	for _, p := range slices.Backward(processes) {
		p.Stop()
	}
	for _, f := range slices.Backward(l.atClose) {
		errs = append(errs, f())
	}
	l.atClose = nil
	errs = append(errs, removeNetwork(l.Prefix), unmountBelow(l.Dir), returnHugepages(l.Prefix))
	if !l.keepDir {
		errs = append(errs, os.RemoveAll(l.Dir))
	}
	if l.watcher != nil {
		errs = append(errs, l.watcher.dismiss())
		l.watcher = nil
	}
	return errors.Join(errs...)
}

// Path returns a path below the lab's directory.
func (l *Lab) Path(elem ...string) string { return filepath.Join(append([]string{l.Dir}, elem...)...) }

// Until calls try every few milliseconds until it returns nil, and gives up with its last error when ctx ends.
func Until(ctx context.Context, what string, try func() error) error {
	pause := time.Millisecond
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, err)
		case <-time.After(pause):
			pause = min(2*pause, 50*time.Millisecond)
		}
	}
}
