package admin

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Version says what runs.
type Version struct {
	Program string    `json:"program"` // "baton" or "baton-target"
	Version string    `json:"version"`
	Go      string    `json:"go"`
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
}

// CRTQuery selects entries of the connection routing table. Empty fields select everything.
type CRTQuery struct {
	Client  string // address, or address:port
	Service string // address, or address:port
	Owner   string // "router" or a target's name
	Offset  int    // entries to skip
	Limit   int    // most entries in the answer: 1 to MaxPage; 0 means DefaultPage
}

// Bounds of a page of entries.
const (
	DefaultPage = 100
	MaxPage     = 10000
)

// CRTPage is a part of the connection routing table, in the table's order. The table changes while it is read: an entry
// that moves between two pages can be missed or seen twice.
type CRTPage struct {
	Entries  []CRTEntry `json:"entries"`
	Offset   int        `json:"offset"`
	Matching int        `json:"matching"` // entries that the query selects, on all pages
	Total    int        `json:"total"`    // entries in the table
	Capacity int        `json:"capacity"`
}

// CRTEntry is one flow of the connection routing table.
type CRTEntry struct {
	Client  string  `json:"client"`
	Service string  `json:"service"`
	Owner   string  `json:"owner"`
	State   string  `json:"state"`
	Idle    float64 `json:"idle_seconds"`
}

// Target is one row of the destination port table, or a target host without any.
type Target struct {
	Host      string  `json:"host"`
	Job       string  `json:"job,omitempty"`
	Service   string  `json:"service,omitempty"` // DVIPA:port
	Ready     bool    `json:"ready"`             // could be given a connection now
	Reason    string  `json:"reason,omitempty"`  // why not
	Connected bool    `json:"connected"`         // over XCF
	Draining  bool    `json:"draining"`          // gets no new connections of any service
	Address   string  `json:"address"`           // on the data network
	Tunnel    string  `json:"tunnel,omitempty"`  // ipip or gue; the MAC is then the next hop's
	MAC       string  `json:"mac,omitempty"`
	Window    uint32  `json:"window,omitempty"` // the listener's first window
	RTT       float64 `json:"rtt_seconds"`      // of the last XCF ping; 0 unknown
	Pending   int     `json:"pending"`          // transfers under way to this host
	Active    int     `json:"active"`           // connections given to this host that have not ended
}

// Drained is the answer to a drain or undrain.
type Drained struct {
	Target   string `json:"target"`
	Draining bool   `json:"draining"`
}

// Service is a service of a routing host and one of its targets; of a content-routed one, whose rules name the jobs, there
// is one row without a target.
type Service struct {
	Service     string `json:"service"`    // DVIPA:port
	Distribute  string `json:"distribute"` // as configured
	Job         string `json:"job,omitempty"`
	Target      string `json:"target,omitempty"`
	Ready       bool   `json:"ready"`            // gets new connections
	Reason      string `json:"reason,omitempty"` // why not
	Weight      int    `json:"weight"`
	Connections int    `json:"connections"` // that the client has not ended
}

// Transfer is one attempt to hand a connection to a target.
type Transfer struct {
	Time    time.Time          `json:"time"` // of the decision
	Client  string             `json:"client"`
	Service string             `json:"service"`
	Job     string             `json:"job"`
	Target  string             `json:"target"`
	Outcome string             `json:"outcome"`
	Reason  string             `json:"reason,omitempty"`
	Bytes   int                `json:"bytes"`          // octets that the target had to read
	Held    int                `json:"held"`           // packets flushed to the target
	Phases  map[string]float64 `json:"phases_seconds"` // frozen, accepted, confirmed, switched: since the phase before
	Total   float64            `json:"total_seconds"`
}

// Counter is one named total.
type Counter struct {
	Group string `json:"group"` // packet, drop, punt, handshake, table, command, router, guard, import, "xcf HOST" ...
	Name  string `json:"name"`
	Value uint64 `json:"value"`
}

// Counters lists totals of one group by their names, whose spaces become "_".
func Counters(group string, totals map[string]uint64) []Counter {
	list := make([]Counter, 0, len(totals))
	for _, name := range slices.Sorted(maps.Keys(totals)) {
		list = append(list, Counter{Group: group, Name: strings.ReplaceAll(name, " ", "_"), Value: totals[name]})
	}
	return list
}

// Port is one data port.
type Port struct {
	Name      string `json:"name"` // device string
	Driver    string `json:"driver"`
	MAC       string `json:"mac"`
	Address   string `json:"address"`
	Up        bool   `json:"up"`
	Changes   uint64 `json:"link_changes"` // times that the link was seen to go up or down
	RxPackets uint64 `json:"rx_packets"`
	TxPackets uint64 `json:"tx_packets"`
	RxBytes   uint64 `json:"rx_bytes"`
	TxBytes   uint64 `json:"tx_bytes"`
	// Stats are rte_eth_stats of the driver: rx_missed, rx_errors, tx_errors, rx_no_buffer ..., and free_buffers of the
	// pool that all ports share; absent without DPDK.
	Stats map[string]uint64 `json:"stats,omitempty"`
}

// Lcore is one poll loop of the forwarder. Each has its part of the connections. Times are renewed once a second.
type Lcore struct {
	Index   int     `json:"index"`
	Share   float64 `json:"busy_share"`   // of the last second, 0-1
	Busy    float64 `json:"busy_seconds"` // since the start, in polls that found packets or commands
	Idle    float64 `json:"idle_seconds"`
	Polls   uint64  `json:"polls"`
	Gap     float64 `json:"poll_gap_seconds"`     // longest wait for a poll in the last second, without intended sleep
	GapMax  float64 `json:"poll_gap_max_seconds"` // the same since the start
	Entries uint64  `json:"entries"`              // in its part of the connection routing table
	Flows   int     `json:"flows"`                // of those, in the router's hands
	// What it did: accepted connections, forwarded packets, and packets handed to the loop of their connection.
	Accepted  uint64 `json:"accepted"`
	Forwarded uint64 `json:"forwarded"`
	Passed    uint64 `json:"passed"`
}

// Key is one secret of SYN cookies. Hosts with the same secrets complete each other's handshakes.
type Key struct {
	Fingerprint string    `json:"fingerprint"` // of the secret, to compare hosts
	From        time.Time `json:"from"`        // it is used from then on
	State       string    `json:"state"`       // retired, retiring (its handshakes may be under way), current, next
}

// Flow is one connection that a target host has taken.
type Flow struct {
	Client  string    `json:"client"`
	Service string    `json:"service"`
	Job     string    `json:"job"`
	State   string    `json:"state"`
	Router  string    `json:"router"` // the routing host that gave it
	Since   time.Time `json:"since"`
}

// Application is one registration at the host's control socket.
type Application struct {
	Name    string    `json:"name"`
	Role    string    `json:"role"`          // "router" or "target"
	Job     string    `json:"job,omitempty"` // of a target application
	Service string    `json:"service"`
	Since   time.Time `json:"since"`
	Open    int       `json:"open"`  // connections in a routing application's hands; offers that a target's has not settled
	Taken   uint64    `json:"taken"` // connections that were handed over: by a routing application, to a target's
}

// Finding is the result of one check of the doctor.
type Finding struct {
	Check  string `json:"check"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"` // what was found; not OK: also the one thing to set
}
