package inspect

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Shadowed returns, by rule, the index of the earlier rule that matches everything that it matches, or -1: such a rule
// is never reached. Rules that Check refuses are not looked at.
func Shadowed(rules []Rule) []int {
	seen := table{}
	by := make([]int, len(rules))
	for i, r := range rules {
		by[i] = -1
		c, err := r.parse()
		if err != nil {
			continue
		}
		if first := seen.find([]byte(c.host), []byte(c.path)); first != none {
			by[i] = first
		}
		if !c.asks() {
			seen.add(c.host, c.path, i)
		}
	}
	return by
}

// SplitByPath returns the indexes, ascending, of rules whose path makes requests of one host go to different jobs
// (with fallback, the default job, among them; "" is none). Where routing is per connection, such rules decide about
// the first request of a connection only. One rule is named for each host pattern that is split. Rules that Check
// refuses or that ask for more than host and path are not looked at.
func SplitByPath(rules []Rule, fallback string) []int {
	byHost := map[string][]branch{}
	for i, r := range rules {
		c, err := r.parse()
		if err == nil && !c.asks() && !slices.ContainsFunc(byHost[c.host], branch{i, c}.repeats) {
			byHost[c.host] = append(byHost[c.host], branch{i, c})
		}
	}
	found := map[int]bool{}
	for host := range byHost {
		if i, ok := firstSplit(branches(byHost, host), fallback); ok {
			found[i] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// branch is one rule among those for a host.
type branch struct {
	index int
	rule  compiled
}

// repeats reports whether b leads where an earlier rule of the same host pattern leads, as far as jobs go.
func (b branch) repeats(earlier branch) bool {
	return b.rule.choice.Job == earlier.rule.choice.Job && (b.rule.path == "") == (earlier.rule.path == "")
}

// branches returns the rules for a host pattern and those above it, in their order.
func branches(byHost map[string][]branch, host string) []branch {
	all := slices.Clone(byHost[host])
	for rest := host; rest != ""; {
		cut := strings.IndexByte(rest[1:], '.')
		if cut < 0 {
			all = append(all, byHost[""]...)
			break
		}
		rest = rest[1+cut:]
		all = append(all, byHost[rest]...)
	}
	slices.SortFunc(all, func(a, b branch) int { return cmp.Compare(a.index, b.index) })
	return all
}

// firstSplit returns the first rule with a path if what follows it, up to the first rule for every path, leads to
// another job.
func firstSplit(all []branch, fallback string) (int, bool) {
	first := slices.IndexFunc(all, func(b branch) bool { return b.rule.path != "" })
	rest := slices.IndexFunc(all, func(b branch) bool { return b.rule.path == "" })
	if first < 0 || rest >= 0 && rest < first {
		return 0, false
	}
	job := all[first].rule.choice.Job
	if rest < 0 {
		rest = len(all)
		if fallback != job {
			return all[first].index, true
		}
	} else {
		rest++
	}
	other := slices.ContainsFunc(all[first:rest], func(b branch) bool { return b.rule.choice.Job != job })
	return all[first].index, other
}
