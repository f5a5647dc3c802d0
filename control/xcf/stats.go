package xcf

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Stats is what is known of one peer, over all its streams.
type Stats struct {
	Host          string
	Addr          string        // of the current or last stream
	Software      string        // of the current or last stream
	Up            bool          // a stream stands
	Since         time.Time     // when that changed last; zero: never was up
	RTT           time.Duration // of the last ping of the current stream; 0 unknown
	Streams       uint64        // streams that came up; all but the first are reconnects
	Sent          uint64        // messages, all kinds
	Received      uint64        // messages, all kinds
	SentBytes     uint64        // octets before TLS
	ReceivedBytes uint64        // octets before TLS
	Refused       uint64        // messages that Send did not take
	LastError     string        // why there is no stream, or why the last one ended
}

// counters are the numbers of one peer. They outlive its streams.
type counters struct {
	sent, received, sentBytes, receivedBytes, refused atomic.Uint64

	mu    sync.Mutex
	stats Stats // what the atomics do not hold
	next  *Peer // the stream that has the host's place, or the last that had it
	peer  *Peer // the same while it can be sent to, or nil
}

// current returns the stream that has, or last had, the host's place; nil before the first.
func (c *counters) current() *Peer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.next
}

// reserve gives the host's place to p.
func (c *counters) reserve(p *Peer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next = p
}

func (c *counters) up(p *Peer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.peer = p
	c.stats.Up = true
	c.stats.Since = time.Now()
	c.stats.Streams++
	c.stats.Addr = p.Addr().String()
	c.stats.Software = p.Software()
}

func (c *counters) down(p *Peer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.peer = nil
	c.stats.Up = false
	c.stats.Since = time.Now()
	c.stats.LastError = p.reason.Error()
}

// failed notes why no stream came up, and reports whether that is news.
func (c *counters) failed(err error) (news bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	news = c.stats.LastError != err.Error()
	c.stats.LastError = err.Error()
	return news
}

func (c *counters) read() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	if c.peer != nil {
		s.RTT = c.peer.RTT()
	}
	s.Sent, s.Received = c.sent.Load(), c.received.Load()
	s.SentBytes, s.ReceivedBytes = c.sentBytes.Load(), c.receivedBytes.Load()
	s.Refused = c.refused.Load()
	return s
}

// hosts finds peers by name. It remembers the numbers of each host that was ever up, of which there are as many as the
// CA signed certificates for.
type hosts struct {
	mu    sync.Mutex
	count map[string]*counters
}

// of returns the host's counters, new ones for a new host.
func (h *hosts) of(name string) *counters {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.count == nil {
		h.count = make(map[string]*counters)
	}
	c := h.count[name]
	if c == nil {
		c = &counters{stats: Stats{Host: name}}
		h.count[name] = c
	}
	return c
}

// find returns the stream to a host, or nil.
func (h *hosts) find(name string) *Peer {
	h.mu.Lock()
	c := h.count[name]
	h.mu.Unlock()
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peer
}

// Send sends e to a host by name, as Peer.Send does; ErrNotConnected without a stream to it.
func (h *hosts) Send(name string, e *Envelope) error {
	p := h.find(name)
	if p == nil {
		return fmt.Errorf("send to %s: %w", name, ErrNotConnected)
	}
	if err := p.Send(e); err != nil {
		return fmt.Errorf("send to %s: %w", name, err)
	}
	return nil
}

// Stats returns the numbers of all hosts, by name.
func (h *hosts) Stats() []Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]Stats, 0, len(h.count))
	for _, name := range slices.Sorted(maps.Keys(h.count)) {
		all = append(all, h.count[name].read())
	}
	return all
}
