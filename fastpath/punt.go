package fastpath

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"

	"baton/cgo"
	"baton/fastpath/flow"
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// Receive fills dst with what the forwarder punted, oldest first, and returns how many. It never blocks. Frames that it
// returned before are gone with this call.
func (f *Forwarder) Receive(dst []flow.Punt) int {
	if f.closed {
		return 0
	}
	punts := f.c.Receive(len(dst))
	for i, p := range punts {
		fillPunt(&dst[i], p)
	}
	return len(punts)
}

func fillPunt(dst *flow.Punt, p *cgo.Punt) {
	*dst = flow.Punt{
		Kind:      flow.Kind(p.Kind),
		Port:      p.Port,
		Flow:      flow.ID(p.Flow),
		Handshake: handshake(p),
		TSOffset:  p.TSOffset,
		Owner:     flow.OwnerID(p.Owner),
		Held:      int(p.Held),
		Frame:     p.Frame(),
	}
	if dst.Kind == flow.Neighbour {
		dst.Addr, dst.MAC = fromIP(p.Tuple.Client), p.MAC
		return
	}
	dst.Inc = wire.Incarnation{Tuple: fromTuple(p.Tuple), IRS: seq.Value(p.IRS), ISS: seq.Value(p.ISS)}
}

func handshake(p *cgo.Punt) wire.Handshake {
	return wire.Handshake{
		MSS:        p.MSS,
		OwnMSS:     p.OwnMSS,
		SndScale:   p.SndScale,
		RcvScale:   p.RcvScale,
		Scaling:    p.Has&cgo.HasScaling != 0,
		SACK:       p.Has&cgo.HasSACK != 0,
		Timestamps: p.Has&cgo.HasTimestamps != 0,
	}
}

// Wait blocks until there is something to receive, Wake is called, or d has passed. It may return early.
func (f *Forwarder) Wait(d time.Duration) {
	if f.closed || !f.c.PreparePuntWait() {
		return
	}
	fds := []unix.PollFd{{Fd: int32(f.c.PuntFD()), Events: unix.POLLIN}}
	timeout := unix.NsecToTimespec(max(0, int64(d)))
	if n, err := unix.Ppoll(fds, &timeout, nil); err == nil && n > 0 {
		var count [8]byte
		_, _ = unix.Read(f.c.PuntFD(), count[:]) // EAGAIN: nothing to clear
	}
}

// Wake ends a Wait, now or the next one. Safe from any goroutine.
func (f *Forwarder) Wake() {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.closed {
		return
	}
	one := binary.NativeEndian.AppendUint64(nil, 1)
	_, _ = unix.Write(f.c.PuntFD(), one) // EAGAIN: it rings already
}
