package fastpath

import "baton/cgo"

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
	return counters(f.loops)
}

// counters adds up what loops counted.
func counters(loops []*cgo.Forwarder) []Counter {
	var out []Counter
	for i := 0; ; i++ {
		var sum Counter
		for _, l := range loops {
			group, name, help, value, ok := l.Counter(i)
			if !ok {
				return out
			}
			sum = Counter{Group: group, Name: name, Help: help, Value: sum.Value + value}
		}
		out = append(out, sum)
	}
}
