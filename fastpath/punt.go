package fastpath

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"baton/cgo"
	"baton/fastpath/flow"
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// Receive fills dst with what the forwarder punted, oldest first within a connection, and returns how many. It never blocks. Frames that it
// returned before are gone with this call.
func (f *Forwarder) Receive(dst []flow.Punt) int {
	if f.closed {
		return 0
	}
	n := 0
	for i := range f.loops {
		for _, p := range f.loops[(f.next+i)%len(f.loops)].Receive(len(dst) - n) {
			if flow.Kind(p.Kind) != flow.Served {
				fillPunt(&dst[n], p)
			} else if !f.serves(p.Flow, &dst[n]) {
				continue
			}
			n++
		}
	}
	f.next = (f.next + 1) % len(f.loops) // so that no loop's punts wait for those of another
	return n
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

// answerTime is how long Wait looks for the answer to a command before it sleeps: a loop that is awake answers within a
// few microseconds, and waking up takes many times as long.
const answerTime = 20 * time.Microsecond

// Wait blocks until there is something to receive, Wake is called, or d has passed. It may return early.
func (f *Forwarder) Wait(d time.Duration) {
	if f.closed {
		return
	}
	if f.asked {
		f.asked = false
		if f.answered() {
			return
		}
	}
	for _, l := range f.loops {
		if !l.PreparePuntWait() {
			return
		}
	}
	f.alarm.Reset(d)
	select {
	case <-f.woken:
		f.alarm.Stop()
	case <-f.alarm.C:
	}
}

// answered looks for punts for a short time, or until Wake is called. It leaves the processor to other goroutines.
func (f *Forwarder) answered() bool {
	for end := time.Now().Add(answerTime); time.Now().Before(end); runtime.Gosched() {
		if len(f.woken) > 0 || slices.ContainsFunc(f.loops, (*cgo.Forwarder).PuntReady) {
			return true
		}
	}
	return false
}

// Wake ends a Wait, now or the next one. Safe from any goroutine.
func (f *Forwarder) Wake() {
	select {
	case f.woken <- struct{}{}:
	default: // it was woken already
	}
}

// openBell begins to pass on the loops' common bell. Wait sleeps on a channel, not on the bell itself: whoever wakes it from
// another goroutine then needs no system call, and no thread has to be scheduled for it.
func (f *Forwarder) openBell() error {
	fd, err := unix.FcntlInt(uintptr(f.loops[0].PuntFD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open bell: %w", err)
	}
	f.bell = os.NewFile(uintptr(fd), "bell") // does not block, so the runtime's poller waits for it
	f.alarm = time.NewTimer(0)
	go f.hear()
	return nil
}

// hear wakes the consumer whenever a loop rings, until the bell is closed.
func (f *Forwarder) hear() {
	var count [8]byte
	for {
		if _, err := f.bell.Read(count[:]); err != nil {
			return
		}
		f.Wake()
	}
}
