package target

import (
	"errors"
	"fmt"
	"net/netip"
	"structs"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// flowsMax bounds the connections that a namespace can have from routing hosts at once.
const flowsMax = 1 << 20

// Flow is a connection that was imported, or is about to be.
type Flow struct {
	Inc    wire.Incarnation
	Epoch  uint64
	RcvNxt seq.Value // after the import
	Job    string
	Router string    // host that gave it away
	Since  time.Time // of the import
	// Deadline is when an import that is not confirmed is given up: written before the import, zero after it. A
	// restarted agent decides by the kernel's socket what became of it.
	Deadline time.Time
}

// flowKey and flowValue are the layout in the pinned map: host byte order, addresses IPv4-mapped.
type flowKey struct {
	_                       structs.HostLayout
	Client, Service         [16]byte
	ClientPort, ServicePort uint16
}

type flowValue struct {
	_               structs.HostLayout
	Epoch           uint64
	Since, Deadline int64 // ns since 1970; 0: none
	IRS, ISS        uint32
	RcvNxt, Pad     uint32
	Job             [256]byte // zero-padded
	Router          [256]byte
}

// flows is what a namespace's connections were before they came here, which the kernel does not know. It is pinned and
// lives as long as the connections do. Safe for concurrent use.
type flows struct{ entries *ebpf.Map }

func openFlows(dir string) (*flows, error) {
	m, err := openPinned(dir, &ebpf.MapSpec{
		Name: "flows", Type: ebpf.Hash, KeySize: 36, ValueSize: 552, MaxEntries: flowsMax, Flags: unix.BPF_F_NO_PREALLOC,
	})
	return &flows{entries: m}, err
}

func keyOf(t wire.Tuple) flowKey {
	return flowKey{
		Client: t.Client.Addr().As16(), ClientPort: t.Client.Port(),
		Service: t.Service.Addr().As16(), ServicePort: t.Service.Port(),
	}
}

func (k flowKey) tuple() wire.Tuple {
	return wire.Tuple{
		Client:  netip.AddrPortFrom(netip.AddrFrom16(k.Client).Unmap(), k.ClientPort),
		Service: netip.AddrPortFrom(netip.AddrFrom16(k.Service).Unmap(), k.ServicePort),
	}
}

// put writes a flow, in place of any other of its tuple.
func (f *flows) put(flow Flow) error {
	value := flowValue{
		Epoch: flow.Epoch, Since: nanos(flow.Since), Deadline: nanos(flow.Deadline),
		IRS: uint32(flow.Inc.IRS), ISS: uint32(flow.Inc.ISS), RcvNxt: uint32(flow.RcvNxt),
	}
	copy(value.Job[:], flow.Job)
	copy(value.Router[:], flow.Router)
	if err := f.entries.Put(keyOf(flow.Inc.Tuple), &value); err != nil {
		return fmt.Errorf("remember flow %v: %w", flow.Inc.Tuple, err)
	}
	return nil
}

// forget removes the flow of a tuple if there is one.
func (f *flows) forget(t wire.Tuple) error {
	err := f.entries.Delete(keyOf(t))
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

// all lists the flows, in no order.
func (f *flows) all() ([]Flow, error) {
	var found []Flow
	var key flowKey
	var value flowValue
	entries := f.entries.Iterate()
	for entries.Next(&key, &value) {
		found = append(found, Flow{
			Inc:    wire.Incarnation{Tuple: key.tuple(), IRS: seq.Value(value.IRS), ISS: seq.Value(value.ISS)},
			Epoch:  value.Epoch,
			RcvNxt: seq.Value(value.RcvNxt),
			Job:    cString(value.Job[:]), Router: cString(value.Router[:]),
			Since: instant(value.Since), Deadline: instant(value.Deadline),
		})
	}
	return found, entries.Err()
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func instant(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

func (f *flows) Close() error { return f.entries.Close() }
