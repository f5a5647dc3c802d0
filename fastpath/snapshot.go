package fastpath

import (
	"net/netip"
	"time"

	"baton/cgo"
	"baton/fastpath/flow"
	"baton/fastpath/wire"
)

// State is what a CRT entry is in.
type State uint8

// The states, in the order of a connection's life.
const (
	RouterOwned State = iota // the control plane talks to the client
	Frozen                   // a transfer is under way; frames are held or discarded
	TargetOwned              // frames are forwarded to the owner
	Lingering                // ended, still forwarded, forgotten soon
)

// String names the state as operators see it.
func (s State) String() string {
	return [...]string{"router", "frozen", "target", "linger"}[s&3]
}

// Entry is one flow of the CRT.
type Entry struct {
	Tuple       wire.Tuple
	State       State
	Owner       flow.OwnerID  // flow.Router unless the state is TargetOwned or Lingering
	Idle        time.Duration // since the client's last segment, whole seconds, modulo 9 h 6 min
	Incarnation uint32        // 24-bit hash of (irs, iss): tells two lives of one tuple apart
}

// maxScans bounds how often Snapshot starts again because entries moved meanwhile.
const maxScans = 3

// Snapshot copies the CRT while the loop goes on. Each entry is as it was at one instant; the whole is not of one
// instant: flows that began or ended meanwhile may be there or not. In a table that is filled beyond some 80 %,
// insertions move other entries; a scan that saw this is repeated, at most twice, and what was seen is united.
func (f *Forwarder) Snapshot() []Entry {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.closed {
		return nil
	}
	var out []Entry
	for _, l := range f.loops {
		out = append(out, f.scan(l.Table(false), false)...)
		out = append(out, f.scan(l.Table(true), true)...)
	}
	return out
}

func (f *Forwarder) scan(t cgo.Table, ipv6 bool) []Entry {
	var out []Entry
	var seen map[[3]uint64]bool // only if there is a second scan
	for range maxScans {
		moved := t.Displaced()
		out = f.scanOnce(t, ipv6, out, seen)
		if t.Displaced() == moved {
			break
		}
		seen = map[[3]uint64]bool{}
		for i := range out {
			seen[out[i].key()] = true
		}
	}
	return out
}

// key identifies an entry within one family.
func (e *Entry) key() [3]uint64 {
	client := toIP(e.Tuple.Client.Addr())
	service := toIP(e.Tuple.Service.Addr())
	ports := uint64(e.Tuple.Client.Port())<<16 | uint64(e.Tuple.Service.Port())
	return [3]uint64{client.Hi ^ service.Hi<<1, client.Lo ^ service.Lo<<1, ports}
}

func (f *Forwarder) scanOnce(t cgo.Table, ipv6 bool, out []Entry, seen map[[3]uint64]bool) []Entry {
	second := uint16(f.loops[0].Now() / 1000)
	var bucket [4]cgo.Entry
	for b := range t.Buckets() {
		for i := range t.Read(b, &bucket) {
			e := f.entry(&bucket[i], ipv6, second)
			if seen == nil || !seen[e.key()] {
				out = append(out, e)
			}
		}
	}
	return out
}

func (f *Forwarder) entry(e *cgo.Entry, ipv6 bool, second uint16) Entry {
	client, service := f.decodeKey(e, ipv6)
	out := Entry{
		Tuple:       wire.Tuple{Client: client, Service: service},
		State:       State(e.State()),
		Idle:        time.Duration((second-e.Second())&0x7fff) * time.Second,
		Incarnation: e.Incarnation(),
	}
	if out.State >= TargetOwned {
		out.Owner = flow.OwnerID(e.Index())
	}
	return out
}

// decodeKey takes apart a key as baton.h draws it.
func (f *Forwarder) decodeKey(e *cgo.Entry, ipv6 bool) (client, service netip.AddrPort) {
	if ipv6 {
		addr := fromIP(cgo.IP{Hi: e.Key[0], Lo: e.Key[1]})
		return netip.AddrPortFrom(addr, uint16(e.Key[2]>>32)), f.services[uint16(e.Key[2]>>16)]
	}
	addr := netip.AddrFrom4([4]byte{byte(e.Key[0] >> 56), byte(e.Key[0] >> 48), byte(e.Key[0] >> 40), byte(e.Key[0] >> 32)})
	return netip.AddrPortFrom(addr, uint16(e.Key[0]>>16)), f.services[uint16(e.Key[0])]
}

// Table is the fill of one family's CRT.
type Table struct {
	Family            string // "ipv4" or "ipv6"
	Entries, Capacity uint64
}

// Tables reads the fill of the CRT, all shards together.
func (f *Forwarder) Tables() []Table {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.closed {
		return nil
	}
	tables := []Table{{Family: "ipv4"}, {Family: "ipv6"}}
	for _, l := range f.loops {
		for i := range tables {
			t := l.Table(i == 1)
			tables[i].Entries += t.Used()
			tables[i].Capacity += t.Limit()
		}
	}
	return tables
}
