package inspect

import "bytes"

// table finds the first rule that matches without looking at the others: what a request's host and path can match is
// few texts, each of which is looked up. The cost is labels of the host times segments of the path, whatever the
// number of rules.
type table map[string]*paths // by host pattern

// paths are the rules with one host pattern.
type paths struct {
	first   map[string]int // lowest index of a rule, by path pattern
	lowest  int            // of them all
	longest int            // path pattern, octets
}

// add enters rule i. Rules are added in their order.
func (t table) add(host, path string, i int) {
	p := t[host]
	if p == nil {
		p = &paths{first: map[string]int{}, lowest: i}
		t[host] = p
	}
	if _, ok := p.first[path]; !ok {
		p.first[path] = i
	}
	p.longest = max(p.longest, len(path))
}

// none is the index of no rule; it is after every other.
const none = int(^uint(0) >> 1)

// find returns the index of the first rule that matches a normalised host and path, or that covers a host pattern and a
// path pattern; none if there is no such rule.
func (t table) find(host, path []byte) int {
	best := t[string(host)].find(path, none)
	for i := bytes.IndexByte(host, '.'); i >= 0; {
		best = t[string(host[i:])].find(path, best)
		next := bytes.IndexByte(host[i+1:], '.')
		if next < 0 {
			break
		}
		i += 1 + next
	}
	if len(host) == 0 {
		return best
	}
	return t[""].find(path, best)
}

// find returns the index of the first rule for path if it is before best, else best.
func (p *paths) find(path []byte, best int) int {
	if p == nil || p.lowest >= best {
		return best
	}
	best = p.before(path, best)
	for i := 0; i < min(len(path), p.longest); i++ {
		if path[i] == '/' {
			best = p.before(path[:i+1], best)
		}
	}
	if len(path) == 0 {
		return best
	}
	return p.before(nil, best)
}

// before looks one text up.
func (p *paths) before(text []byte, best int) int {
	if len(text) > p.longest {
		return best
	}
	if i, ok := p.first[string(text)]; ok && i < best {
		return i
	}
	return best
}
