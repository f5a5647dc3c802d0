package flow

import "fmt"

// Distribution is how a service's connections find their targets. All but ContentRouted are conventional: the forwarder
// picks the target at the client's SYN, which the target answers; the control plane sees nothing of it.
type Distribution uint8

// The ways of distribution.
const (
	ContentRouted Distribution = iota // the router talks to the client first
	RoundRobin                        // one target after the other
	Weighted                          // the same, in proportion to the weights, interleaved
	LeastConn                         // who has the fewest connections for its weight
	Maglev                            // by a table, which tells the target of a flow even without an entry
)

var distributions = [...]string{"contentrouted", "roundrobin", "weighted", "leastconn", "maglev"}

// String is the configuration's word.
func (d Distribution) String() string {
	if int(d) < len(distributions) {
		return distributions[d]
	}
	return fmt.Sprintf("distribution %d", uint8(d))
}

// ParseDistribution reads the configuration's word.
func ParseDistribution(s string) (Distribution, error) {
	for i, word := range distributions {
		if s == word {
			return Distribution(i), nil
		}
	}
	return 0, fmt.Errorf("distribution %q: contentrouted, roundrobin, weighted, leastconn and maglev are possible", s)
}

// Conventional says that targets answer the handshake.
func (d Distribution) Conventional() bool { return d != ContentRouted }

// Candidate is a target that takes new connections of a conventional service.
type Candidate struct {
	Owner  OwnerID // not Router
	Weight uint16  // at least 1
}

// Targets are those of a conventional service, at one time. Flows that have an entry stay where they are, whatever the
// targets of new ones are.
type Targets struct {
	Candidates []Candidate // in rising order of owners
	// Table is what Maglev goes by: owners, one for each value of a flow's hash modulo its length. Empty without
	// candidates and for the other distributions.
	Table    []OwnerID
	Recovers bool // Maglev: a flow without an entry is its target's by the table; else its segments are dropped
}
