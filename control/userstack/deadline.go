package userstack

import (
	"sync"
	"time"
)

// deadline is a time after which a call must not wait any longer. It is safe for concurrent use.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	over  chan struct{} // closed once the time has passed; nil until it is asked for
}

// set changes the time; zero: never. Calls that wait notice.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	over := d.channel()
	if d.timer != nil && !d.timer.Stop() {
		<-over // it has fired: wait until it has closed the channel
	}
	d.timer = nil
	if isClosed(over) {
		over = make(chan struct{})
		d.over = over
	}
	if t.IsZero() {
		return
	}
	if left := time.Until(t); left > 0 {
		d.timer = time.AfterFunc(left, func() { close(over) })
		return
	}
	close(over)
}

// channel is over, made at the first time. Called with mu held.
func (d *deadline) channel() chan struct{} {
	if d.over == nil {
		d.over = make(chan struct{})
	}
	return d.over
}

// done is closed when the time that is set has passed.
func (d *deadline) done() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.channel()
}

func (d *deadline) passed() bool { return isClosed(d.done()) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
