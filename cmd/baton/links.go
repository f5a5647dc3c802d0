package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"baton/fastpath"
)

// linkPeriod is how often the links are looked at. A port whose link is down just carries nothing: what was under way
// goes on when it is up again.
const linkPeriod = 500 * time.Millisecond

// links watches the links of the data ports.
type links struct {
	ports func() []fastpath.PortInfo
	log   *slog.Logger

	mu    sync.Mutex
	up    []bool
	count []uint64
}

// watch looks at the links until ctx ends, and logs what changes.
func (l *links) watch(ctx context.Context) error {
	tick := time.NewTicker(linkPeriod)
	defer tick.Stop()
	for {
		l.look()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (l *links) look() {
	ports := l.ports()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, p := range ports {
		if i == len(l.up) { // the first look
			l.up, l.count = append(l.up, true), append(l.count, 0)
		}
		if p.Up == l.up[i] {
			continue
		}
		l.up[i] = p.Up
		l.count[i]++
		if p.Up {
			l.log.Info("data port: link is up", "port", i, "device", p.Device)
		} else {
			l.log.Warn("data port: link is down", "port", i, "device", p.Device)
		}
	}
}

// changes is how often port i's link was seen to go up or down.
func (l *links) changes(i int) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i >= len(l.count) {
		return 0
	}
	return l.count[i]
}
