package fastpath

// Counter is one of the forwarder's counters since its start.
type Counter struct {
	Group string // "packets", "drops", "punts", "handshakes" or "commands"
	Name  string // unique within its group, snake_case
	Help  string // one sentence
	Value uint64
}

// Counters reads all counters, in the order of their definition. Each dropped frame is counted under exactly one of
// group "drops".
func (f *Forwarder) Counters() []Counter {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.closed {
		return nil
	}
	var out []Counter
	for i := 0; ; i++ {
		group, name, help, value, ok := f.c.Counter(i)
		if !ok {
			return out
		}
		out = append(out, Counter{Group: group, Name: name, Help: help, Value: value})
	}
}
