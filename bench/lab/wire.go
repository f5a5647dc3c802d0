package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"baton/bench/faults"
	"baton/bench/judge"
	"baton/fastpath/wire"
)

// Wire is what a host's cable is to do to TCP segments; other frames pass.
type Wire struct {
	Up, Down faults.Rates // from the host, and to it
	Seed     uint64
	// Censor, if any, sees each segment before anything else happens to it, and says whether it is lost. It is called
	// by one goroutine at a time, in the order in which segments were sent. It may take its time: what comes after waits.
	Censor func(up bool, f wire.Frame) (lost bool)
}

// BadWire is a cable with faults. It records what either end sent, before the faults: what captures at both ends would
// show of it, in order of cause and effect, without what the network did in between.
type BadWire struct {
	splice
	links   [2]*faults.Link
	censor  func(up bool, f wire.Frame) bool
	mended  atomic.Bool
	readers sync.WaitGroup

	mu     sync.Mutex // also held while Censor decides
	closed bool
	frames []judge.Frame
	last   time.Time // of frames
}

// Spoil puts a bad wire between one of the host's interfaces (DataInterface or XCFInterface) and its switch. An interface
// has one at most. Close it before the lab.
func (h *Host) Spoil(iface string, w Wire) (*BadWire, error) {
	b := &BadWire{splice: splice{namespace: h.lab.dataSwitch(), port: "p-" + h.Name}, censor: w.Censor, last: time.Now()}
	if iface == XCFInterface {
		b.namespace = h.lab.xcfSwitch()
	}
	b.links[hostEnd] = faults.New(w.Up, w.Seed, func(frame []byte) { b.send(switchEnd, frame) })
	b.links[switchEnd] = faults.New(w.Down, w.Seed+1, func(frame []byte) { b.send(hostEnd, frame) })
	if err := b.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("spoil %s of %s: %w", iface, h.Name, err), b.Close())
	}
	for end := range b.ends {
		b.readers.Go(func() { b.read(end) })
	}
	return b, nil
}

// read carries what comes in at one end, until Close.
func (b *BadWire) read(end int) {
	buf := make([]byte, 65536)
	for {
		n, _, err := unix.Recvfrom(b.ends[end].fd, buf, 0)
		if b.isClosed() {
			return
		}
		if err == nil {
			b.carry(end, buf[:n])
		}
	}
}

func (b *BadWire) isClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed
}

func (b *BadWire) carry(end int, frame []byte) {
	segment, err := wire.ParseTCP(frame)
	switch lost := b.record(end, frame, segment, err == nil); {
	case lost:
	case err != nil || b.mended.Load():
		b.send(1-end, frame)
	default:
		b.links[end].Carry(frame)
	}
}

// record notes a frame, and asks the censor about it if it is a segment.
func (b *BadWire) record(end int, frame []byte, segment wire.Frame, tcp bool) (lost bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last = time.Now()
	b.frames = append(b.frames, judge.Frame{Time: b.last, Data: bytes.Clone(frame)})
	return tcp && b.censor != nil && !b.mended.Load() && b.censor(end == hostEnd, segment)
}

// send sends a frame at an end. It may be late, after Close.
func (b *BadWire) send(end int, frame []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		// A full queue loses, as any link does.
		_ = unix.Sendto(b.ends[end].fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: b.ends[end].index})
	}
}

// Mend ends the faults; the wire goes on carrying and recording.
func (b *BadWire) Mend() { b.mended.Store(true) }

// Count is what has happened so far to segments from the host and to it, what Censor took aside.
func (b *BadWire) Count() (up, down faults.Counts) {
	return b.links[hostEnd].Count(), b.links[switchEnd].Count()
}

// Quiet waits until nothing was sent for d.
func (b *BadWire) Quiet(ctx context.Context, d time.Duration) error {
	return Until(ctx, "the wire is quiet", func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		if time.Since(b.last) < d {
			return errors.New("frames still come")
		}
		return nil
	})
}

// Stop ends the recording and returns it.
func (b *BadWire) Stop(context.Context) (judge.Capture, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	frames := b.frames
	b.frames = nil
	return judge.Capture{Frames: frames}, nil
}

// Close puts the cable back that was there before.
func (b *BadWire) Close() error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.readers.Wait() // within the receive timeout
	return b.mend()
}
