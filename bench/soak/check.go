package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf"

	"baton/bench/lab"
	"baton/control/admin"
)

// provoke shows that resets are counted: of an attempt to connect to a port where nobody listens there is one.
func (s *soak) provoke(ctx context.Context) error {
	nobody := netip.AddrPortFrom(s.lab.Targets[0].Data.Addr(), 9)
	if _, err := s.lab.Client.Dial(ctx, netip.AddrPort{}, nobody); !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("provoke a reset: %w, want a refused connection", err)
	}
	n, err := s.resets.Count()
	if err == nil && n != 1 {
		err = fmt.Errorf("%d resets counted, want the one that was provoked", n)
	}
	return err
}

// noReset checks that there was none but the one that was provoked.
func (s *soak) noReset() error {
	n, err := s.resets.Count()
	if err == nil && n != 1 {
		err = fmt.Errorf("%d resets", n-1)
	}
	return err
}

// counted checks that there was no reset, and that the routing host has counted as the clients have.
func (s *soak) counted(ctx context.Context) error {
	if err := s.noReset(); err != nil {
		return err
	}
	all, err := s.baton.Admin.Counters(ctx)
	if err != nil {
		return err
	}
	want := map[string]int64{"transferred": s.rejected[0].Load() + s.rejected[1].Load(), "refused": s.rejected[2].Load(),
		"opened": s.done.Load(), "aborted": 0, "reset": 0, "vanished": 0, "faults": 0}
	for _, c := range all {
		n, known := want[c.Name]
		if c.Group != "router" || !known {
			continue
		}
		delete(want, c.Name)
		if int64(c.Value) != n {
			err = errors.Join(err, fmt.Errorf("router %s: %d, want %d", c.Name, c.Value, n))
		}
	}
	if len(want) > 0 {
		err = errors.Join(err, fmt.Errorf("the router does not count %v", want))
	}
	return err
}

// use is what the daemons have of what must not grow with the connections that have been there.
type use struct {
	daemons []memory // of baton and the agents
	buffers uint64   // free in the forwarder's pool
}

// memory is a daemon's.
type memory struct {
	name           string
	resident, heap int // octets; heap is of Go, what is garbage included
}

// String prints it for people.
func (u use) String() string {
	var b strings.Builder
	for _, m := range u.daemons {
		fmt.Fprintf(&b, "%s %.0f MiB (heap %.1f), ", m.name, float64(m.resident)/(1<<20), float64(m.heap)/(1<<20))
	}
	fmt.Fprintf(&b, "%d buffers free", u.buffers)
	return b.String()
}

func (s *soak) use(ctx context.Context) (u use, err error) {
	for i, p := range s.baton.Processes() {
		h := s.lab.Hosts()[1+i]
		m := memory{name: h.Name}
		if m.resident, err = p.Resident(); err != nil {
			return u, err
		}
		if m.heap, err = heap(ctx, h); err != nil {
			return u, err
		}
		u.daemons = append(u.daemons, m)
	}
	ports, err := s.baton.Admin.Ports(ctx)
	if err != nil {
		return u, err
	}
	u.buffers = ports[0].Stats["free_buffers"]
	return u, nil
}

// heap asks a host's daemon for the size of its heap.
func heap(ctx context.Context, h *lab.Host) (int, error) {
	port := 9601
	if h.Name == "rh1" {
		port = 9600
	}
	out, err := h.Run(ctx, "curl", "--silent", "--show-error", fmt.Sprintf("http://127.0.0.1:%d/metrics", port))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(out), "\ngo_memstats_heap_alloc_bytes ")
	text, _, _ := strings.Cut(rest, "\n")
	octets, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, fmt.Errorf("heap of the daemon on %s: %w", h.Name, err)
	}
	return int(octets), nil
}

// Bounds of what daemons may have more of when nothing is left.
const (
	growth      = 16 << 20 // octets: maps do not shrink, and the heap has garbage; a leak of 170 a connection is more
	uncollected = 32       // buffers: the driver takes those that were sent back when it sends the next ones
)

// fits compares with what there was before the first connection; but of the memory of the routing host's process, which
// touches its tables' pages as they fill, with that after the first of the steps.
func (u use) fits(before, warm use) error {
	var err error
	if u.buffers+uncollected < before.buffers {
		err = fmt.Errorf("%d buffers are free, %d were before", u.buffers, before.buffers)
	}
	for i, m := range u.daemons {
		if m.heap > before.daemons[i].heap+growth {
			err = errors.Join(err, fmt.Errorf("the heap of the daemon on %s has grown: %v; before: %v", m.name, u, before))
		}
	}
	if u.daemons[0].resident > warm.daemons[0].resident+growth {
		err = errors.Join(err, fmt.Errorf("memory has grown: %v; after the first connections: %v", u, warm))
	}
	return err
}

// settleTime is how long something may be left: agents keep the pins of what has ended for two minutes.
const settleTime = 150 * time.Second

// settled waits until nothing is left of the connections, and nobody holds on to memory.
func (s *soak) settled(ctx context.Context, before, warm use) error {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	began := time.Now()
	return lab.Until(ctx, "nothing is left", func() error {
		if err := errors.Join(s.nothingRouted(ctx), s.nothingServed(ctx)); err != nil {
			return err
		}
		after, err := s.use(ctx)
		if err != nil {
			return err
		}
		if err := after.fits(before, warm); err != nil {
			return err
		}
		fmt.Printf("nothing is left after %.0f s; %v\n", time.Since(began).Seconds(), after)
		return nil
	})
}

// nothingRouted reports what the routing host still has.
func (s *soak) nothingRouted(ctx context.Context) error {
	page, err := s.baton.Admin.CRT(ctx, admin.CRTQuery{Limit: 1})
	if err != nil {
		return err
	}
	if page.Total != 0 {
		return fmt.Errorf("%d entries in the table, as %+v", page.Total, page.Entries)
	}
	targets, err := s.baton.Admin.Targets(ctx)
	for _, t := range targets {
		if t.Pending != 0 || t.Active != 0 {
			err = errors.Join(err, fmt.Errorf("%s: %d transfers, %d connections", t.Host, t.Pending, t.Active))
		}
	}
	return err
}

// nothingServed reports what target hosts still have.
func (s *soak) nothingServed(ctx context.Context) (err error) {
	for _, h := range s.lab.Targets {
		flows, flowsErr := h.Admin().Flows(ctx)
		apps, appsErr := h.Admin().Applications(ctx)
		pins, pinsErr := pinnedFlows(h)
		if err := errors.Join(flowsErr, appsErr, pinsErr); err != nil {
			return err
		}
		if len(flows) != 0 || pins != 0 {
			err = errors.Join(err, fmt.Errorf("%s: %d connections, %d pinned", h.Name, len(flows), pins))
		}
		for _, a := range apps {
			if a.Open != 0 {
				err = errors.Join(err, fmt.Errorf("%s: %d offers to %s", h.Name, a.Open, a.Name))
			}
		}
	}
	return err
}

// pinnedFlows counts what a target's agent has pinned for its successor.
func pinnedFlows(h *lab.Host) (n int, err error) {
	var path string
	err = filepath.WalkDir(h.Path("bpf"), func(at string, _ fs.DirEntry, err error) error {
		if filepath.Base(at) == "flows" {
			path = at
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	m, err := ebpf.LoadPinnedMap(path, &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return 0, fmt.Errorf("pinned connections of %s: %w", h.Name, err)
	}
	defer m.Close()
	var key, value []byte
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		n++
	}
	return n, entries.Err()
}
