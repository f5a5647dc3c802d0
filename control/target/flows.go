package target

import (
	"errors"
	"fmt"
	"net/netip"
	"structs"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"baton/control/transfer"
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// flowsMax bounds the connections that a namespace can have from routing hosts at once.
const flowsMax = 1 << 20

// Flow is a connection that was imported, lately or still alive, or is about to be: it is written before the import, so
// that no connection can exist that a restarted agent does not know.
type Flow struct {
	transfer.Flow
	Since time.Time // the import began
}

// flowKey and flowValue are the layout in the pinned map: host byte order, addresses IPv4-mapped.
type flowKey struct {
	_                       structs.HostLayout
	Client, Service         [16]byte
	ClientPort, ServicePort uint16
	IRS, ISS                uint32
}

type flowValue struct {
	_               structs.HostLayout
	Epoch, Transfer uint64
	Since           int64 // ns since 1970
	RcvNxt, Pad     uint32
	Job             [256]byte // zero-padded
	Host            [256]byte
}

// flows is what a namespace's connections were before they came here, which the kernel does not know. It is pinned and
// lives as long as the connections do. Safe for concurrent use.
type flows struct{ entries *ebpf.Map }

func openFlows(dir string) (*flows, error) {
	m, err := openPinned(dir, &ebpf.MapSpec{
		Name: "flows", Type: ebpf.Hash, KeySize: 44, ValueSize: 544, MaxEntries: flowsMax, Flags: unix.BPF_F_NO_PREALLOC,
	})
	return &flows{entries: m}, err
}

// keyOf returns a pointer: the map library copies what is behind one, and takes a value apart by reflection.
func keyOf(inc wire.Incarnation) *flowKey {
	return &flowKey{
		Client: inc.Client.Addr().As16(), ClientPort: inc.Client.Port(),
		Service: inc.Service.Addr().As16(), ServicePort: inc.Service.Port(),
		IRS: uint32(inc.IRS), ISS: uint32(inc.ISS),
	}
}

func (k *flowKey) incarnation() wire.Incarnation {
	return wire.Incarnation{
		Tuple: wire.Tuple{
			Client:  netip.AddrPortFrom(netip.AddrFrom16(k.Client).Unmap(), k.ClientPort),
			Service: netip.AddrPortFrom(netip.AddrFrom16(k.Service).Unmap(), k.ServicePort),
		},
		IRS: seq.Value(k.IRS), ISS: seq.Value(k.ISS),
	}
}

// put writes a flow.
func (f *flows) put(flow Flow) error {
	value := flowValue{
		Epoch: flow.Epoch, Transfer: uint64(flow.Transfer), Since: flow.Since.UnixNano(), RcvNxt: uint32(flow.RcvNxt),
	}
	copy(value.Job[:], flow.Job)
	copy(value.Host[:], flow.Host)
	if err := f.entries.Put(keyOf(flow.Inc), &value); err != nil {
		return fmt.Errorf("remember flow %v: %w", flow.Inc.Tuple, err)
	}
	return nil
}

// forget removes a flow if it is there.
func (f *flows) forget(inc wire.Incarnation) error {
	err := f.entries.Delete(keyOf(inc))
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("forget flow %v: %w", inc.Tuple, err)
	}
	return nil
}

// all lists the flows, in no order.
func (f *flows) all() ([]Flow, error) {
	var found []Flow
	var key flowKey
	var value flowValue
	entries := f.entries.Iterate()
	for entries.Next(&key, &value) {
		found = append(found, value.flow(key.incarnation()))
	}
	return found, entries.Err()
}

func (v *flowValue) flow(inc wire.Incarnation) Flow {
	return Flow{
		Flow: transfer.Flow{
			Inc:      inc,
			Epoch:    v.Epoch,
			Job:      cString(v.Job[:]),
			Host:     cString(v.Host[:]),
			Transfer: transfer.ID(v.Transfer),
			RcvNxt:   seq.Value(v.RcvNxt),
		},
		Since: time.Unix(0, v.Since),
	}
}

func (f *flows) Close() error { return f.entries.Close() }
