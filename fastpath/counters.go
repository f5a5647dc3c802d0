package fastpath

// Counter is one of the forwarder's counters since its start.
type Counter struct {
	Group string // "packets", "drops", "punts", "handshakes", "table" or "commands"
	Name  string // unique within its group, snake_case
	Help  string // one sentence
	Value uint64
}

// Counters reads all counters, summed over the poll loops, in the order of their definition. Each dropped frame is counted under exactly one of
// group "drops".
func (f *Forwarder) Counters() []Counter {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.closed {
		return nil
	}
	var out []Counter
	for i := 0; ; i++ {
		group, name, help, value, ok := f.loops[0].Counter(i)
		if !ok {
			return out
		}
		for _, l := range f.loops[1:] {
			_, _, _, more, _ := l.Counter(i)
			value += more
		}
		out = append(out, Counter{Group: group, Name: name, Help: help, Value: value})
	}
}
