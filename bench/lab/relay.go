package lab

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Pass decides what becomes of a frame on its way: what goes on in its place, in that order. Calls for the two directions
// come from two goroutines.
type Pass func(frame []byte) [][]byte

// Relay is somebody in the middle of the link between a host and the data network's switch: every frame is taken off the
// wire, and what a function makes of it is put back.
type Relay struct {
	splice
	stop chan struct{}
	both sync.WaitGroup
}

// Relay puts a relay into a host's link. Close takes it out again.
func (l *Lab) Relay(h *Host, toHost, fromHost Pass) (*Relay, error) {
	r := &Relay{splice: splice{namespace: l.dataSwitch(), port: "p-" + h.Name}, stop: make(chan struct{})}
	err := r.open()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("relay at %s: %w", h.Name, err), r.mend())
	}
	r.both.Go(func() { r.carry(switchEnd, toHost) })
	r.both.Go(func() { r.carry(hostEnd, fromHost) })
	return r, nil
}

// Close connects the host to its switch again.
func (r *Relay) Close() error {
	close(r.stop)
	r.both.Wait() // within the receive timeout
	return r.mend()
}

// carry passes on what arrives at one end, until Close.
func (r *Relay) carry(end int, pass Pass) {
	from, to := r.ends[end].fd, r.ends[1-end].fd
	buf := make([]byte, 65536)
	for {
		select {
		case <-r.stop:
			return
		default:
		}
		n, err := unix.Read(from, buf)
		if err != nil {
			continue // the timeout, or an interface that goes down
		}
		for _, frame := range pass(slices.Clone(buf[:n])) {
			_ = unix.Send(to, frame, 0) // what the link does not take is lost, as on a wire
		}
	}
}
