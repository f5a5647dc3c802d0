package main

import (
	"math"
	"slices"

	"baton/cgo"
)

// Series is all that was measured of one kind of frame on one path.
type Series struct {
	Flows  uint64 `json:"flows"`  // in the table, or in those of all lcores
	Way    string `json:"way"`    // how clients and target are reached: "ipv4-l2", "ipv4-gue", "ipv6-l2"
	Lcores int    `json:"lcores"` // at work at the same time; times are their mean
	Frames string `json:"frames"` // what came: see kinds
	Path   string `json:"path"`   // what was in between: see the package's documentation; "table": bare insertions
	NS     series `json:"ns"`     // a sample for each round, source and sink included
	Net    ns     `json:"net_ns"` // median of the rounds, source and sink (path "io") of the same round subtracted
}

// ns is a time of a frame, in nanoseconds.
type ns float64

// rounded has two decimals.
func rounded(n ns) ns { return ns(math.Round(float64(n)*100) / 100) }

type series []ns

func (s series) median() ns {
	sorted := slices.Sorted(slices.Values(s))
	if len(sorted) == 0 {
		return ns(math.NaN())
	}
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// less subtracts sample by sample.
func (s series) less(other series) series {
	out := slices.Clone(s)
	for i := range out {
		out[i] -= other[i]
	}
	return out
}

// series begins one of this rig.
func (r *rig) series(frames, path string) Series {
	return Series{Flows: r.flows, Way: r.way.name, Lcores: len(r.shards.All), Frames: frames, Path: path}
}

// kind is one kind of frames and the paths that they take.
type kind struct {
	name  string
	frame cgo.SourceKind
	paths []string
}

var measurements = map[string]cgo.Measurement{
	"io": cgo.MeasureIO, "stub": cgo.MeasureStub, "crt": cgo.MeasurePoll, "rte_hash": cgo.MeasureRival,
}

// kinds are what comes on this rig. The first path is what the others are compared with. How the target is reached
// matters to known flows only, which two lcores show as well as all.
func (r *rig) kinds() []kind {
	both := []string{"io", "crt"}
	switch {
	case len(r.shards.All) > 1:
		return []kind{{"hit", cgo.SourceHit, both}}
	case r.way == ipv4GUE:
		return []kind{{"hit", cgo.SourceHit, []string{"io", "stub", "crt"}}}
	}
	hit := []string{"io", "stub", "crt"}
	if cgo.HasDPDK {
		hit = append(hit, "rte_hash")
	}
	return []kind{
		{"hit", cgo.SourceHit, hit},
		{"new", cgo.SourceInsert, both},
		{"syn", cgo.SourceSYN, both},
		{"forged", cgo.SourceForged, both},
		{"not_ours", cgo.SourceNotOurs, both},
	}
}

// measureKind makes the rounds of one kind of frames. The paths take turns, and every other round backwards.
func (r *rig) measureKind(k kind, rounds int, frames uint64) []Series {
	out := make([]Series, len(k.paths))
	r.send(k.frame)
	for i, path := range k.paths {
		out[i] = r.series(k.name, path)
		r.measure(measurements[path], frames/4) // warm up
	}
	for round := range rounds {
		for i := range k.paths {
			if round%2 == 1 {
				i = len(k.paths) - 1 - i
			}
			out[i].NS = append(out[i].NS, rounded(ns(r.measure(measurements[k.paths[i]], frames))))
		}
	}
	for i := range out {
		out[i].Net = rounded(out[i].NS.less(out[0].NS).median())
	}
	return out
}

// bare is something that is measured without a source.
type bare struct {
	frames, path string
	measure      func() float64
}

// measureBare measures the bare tables, and memory.
func (r *rig) measureBare(rounds int, frames uint64) []Series {
	all := []bare{
		{"line", "memory", func() float64 { return r.lines(frames) }},
		{"insert", "crt", func() float64 { return r.insert(false) }},
	}
	if cgo.HasDPDK {
		all = append(all, bare{"insert", "rte_hash", func() float64 { return r.insert(true) }})
	}
	out := make([]Series, len(all))
	for round := range rounds {
		for i, b := range all {
			if round == 0 {
				out[i] = r.series(b.frames, b.path)
				b.measure() // warm up
			}
			out[i].NS = append(out[i].NS, rounded(ns(b.measure())))
		}
	}
	for i := range out {
		out[i].Net = out[i].NS.median()
	}
	return out
}
