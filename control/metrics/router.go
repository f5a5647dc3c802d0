package metrics

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// phaseBuckets go from 10 microseconds (a command to the lcore) to 1 s (the longest confirmation timeout by default).
var phaseBuckets = []float64{
	10e-6, 20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 100e-3, 200e-3, 500e-3, 1,
}

// Port is one data port's counters since start.
type Port struct {
	Name                 string // as configured
	RxPackets, TxPackets uint64
	RxBytes, TxBytes     uint64
	Up                   bool   // the link, at the last look
	LinkChanges          uint64 // that were seen
}

// Lcore is one poll loop, since start.
type Lcore struct {
	Share       float64 // busy share of the last second, 0-1
	Busy, Idle  time.Duration
	Polls       uint64
	Gap, GapMax time.Duration // longest wait for a poll: in the last second, and ever
	Waits       uint64        // for a receive interrupt
}

// Table is the fill of one connection routing table.
type Table struct {
	Family            string // "ipv4" or "ipv6"
	Entries, Capacity uint64
}

// Peer is one target host, seen over XCF.
type Peer struct {
	Host string
	Up   bool
	RTT  time.Duration // of the last ping; 0 unknown
}

// Share is one target of a service whose connections go to targets from the first SYN on.
type Share struct {
	Service, Target string // DVIPA:port, host
	Ready           bool   // gets new connections
	Weight          int
	Connections     int
}

// RouterSample is everything that a scrape of a routing host reads at once. Maps go from a label's value to a total.
type RouterSample struct {
	Ports      []Port
	Drops      map[string]uint64 // by reason
	Punts      map[string]uint64 // by kind
	Handshakes map[string]uint64 // by result: answered, accepted, forged ...
	Packets    map[string]uint64 // what else the forwarder did with packets
	Commands   map[string]uint64 // of the control plane to the forwarder, by result
	Forgotten  map[string]uint64 // what the table lost of itself and got back: aged, evicted, restored ...
	Tables     []Table
	Lcores     []Lcore           // poll loops
	Flows      int               // connections in the router's hands
	Events     map[string]uint64 // what the router counts, by event
	Messages   map[string]uint64 // between applications, by result
	Peers      []Peer
	Services   []Share
}

// Router is the metrics of a routing host.
type Router struct {
	registry  *prometheus.Registry
	transfers *prometheus.CounterVec
	phases    *prometheus.HistogramVec
	requests  *prometheus.CounterVec
}

// NewRouter makes the metrics of a routing host. read is called once per scrape, possibly from several goroutines.
func NewRouter(read func() RouterSample) *Router {
	m := &Router{
		registry: newRegistry(),
		transfers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "baton_transfers_total",
			Help: "Attempts to hand a connection to a target, by outcome.",
		}, []string{"outcome", "target"}),
		phases: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "baton_transfer_seconds",
			Help:    "Duration of the phases of completed transfers; total is from the decision to the switched entry.",
			Buckets: phaseBuckets,
		}, []string{"phase"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "baton_refusals_total",
			Help: "Connections that the router answered with an error itself, by HTTP status or cause.",
		}, []string{"cause"}),
	}
	m.registry.MustRegister(m.transfers, m.phases, m.requests, &routerCollector{read: read})
	return m
}

// Registry is what Serve shows.
func (m *Router) Registry() *prometheus.Registry { return m.registry }

// TransferEnded counts one attempt of a transfer.
func (m *Router) TransferEnded(outcome, target string) {
	m.transfers.WithLabelValues(outcome, target).Inc()
}

// PhaseTook records one phase of a completed transfer.
func (m *Router) PhaseTook(phase string, d time.Duration) {
	m.phases.WithLabelValues(phase).Observe(d.Seconds())
}

// Refused counts one connection that got an error from the router.
func (m *Router) Refused(cause string) { m.requests.WithLabelValues(cause).Inc() }

var (
	packetsDesc  = desc("baton_packets_total", "Packets on a data port.", "port", "direction")
	bytesDesc    = desc("baton_bytes_total", "Octets on a data port, Ethernet headers included.", "port", "direction")
	linkDesc     = desc("baton_port_up", "Whether the data port's link is up.", "port")
	linksDesc    = desc("baton_port_link_changes_total", "Times that the data port's link went up or down.", "port")
	dropsDesc    = desc("baton_drops_total", "Packets that the forwarder dropped, by reason.", "reason")
	puntsDesc    = desc("baton_punts_total", "What the forwarder handed to the control plane, by kind.", "kind")
	shakesDesc   = desc("baton_handshakes_total", "TCP handshakes answered by cookie, by result.", "result")
	actsDesc     = desc("baton_forwarder_packets_total", "What the forwarder did with packets, by action.", "action")
	commandsDesc = desc("baton_forwarder_commands_total", "Commands that the forwarder got, by result.", "result")
	tableDesc    = desc("baton_crt_events_total", "What the table forgot of itself and got back, by event.", "event")
	entriesDesc  = desc("baton_crt_entries", "Flows in the connection routing table.", "family")
	roomDesc     = desc("baton_crt_capacity", "Flows that the connection routing table has room for.", "family")
	busyDesc     = desc("baton_poll_busy_ratio", "Share of a poll loop's last second that was spent on packets.", "lcore")
	spentDesc    = desc("baton_poll_seconds_total", "Time of a poll loop, in polls that found something or none.", "lcore", "state")
	pollsDesc    = desc("baton_polls_total", "Bursts that a poll loop asked its ports for.", "lcore")
	gapDesc      = desc("baton_poll_gap_seconds", "Longest wait for a poll in the last second, without intended sleep.", "lcore")
	gapMaxDesc   = desc("baton_poll_gap_max_seconds", "Longest wait for a poll since the start, without intended sleep.", "lcore")
	waitsDesc    = desc("baton_interrupt_waits_total", "Times that an idle poll loop began to wait for an interrupt.", "lcore")
	flowsDesc    = desc("baton_router_connections", "Connections that the router owns at the moment.")
	eventsDesc   = desc("baton_router_events_total", "What happened in the router, by event.", "event")
	messagesDesc = desc("baton_app_messages_total", "Messages between applications, by what became of them at this host.", "result")
	peerDesc     = desc("baton_xcf_peer_up", "Whether the target host is connected.", "host")
	sharesDesc   = desc("baton_service_connections", "Connections of a conventional service, by target.", "service", "target")
	weightDesc   = desc("baton_service_target_weight", "Share of a target of a conventional service.", "service", "target")
	readyDesc    = desc("baton_service_target_ready", "Whether the target gets new connections of the service.", "service", "target")
	rttDesc      = desc("baton_xcf_peer_rtt_seconds", "Last measured round trip to the target host.", "host")
)

type routerCollector struct{ read func() RouterSample }

// Describe implements prometheus.Collector.
func (c *routerCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{packetsDesc, bytesDesc, linkDesc, linksDesc, dropsDesc, puntsDesc, shakesDesc,
		actsDesc, commandsDesc, tableDesc, entriesDesc, roomDesc, busyDesc, spentDesc, pollsDesc, gapDesc, gapMaxDesc, waitsDesc,
		sharesDesc, weightDesc, readyDesc, flowsDesc, eventsDesc, messagesDesc, peerDesc, rttDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *routerCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.read()
	for _, p := range s.Ports {
		ch <- counter(packetsDesc, p.RxPackets, p.Name, "rx")
		ch <- counter(packetsDesc, p.TxPackets, p.Name, "tx")
		ch <- counter(bytesDesc, p.RxBytes, p.Name, "rx")
		ch <- counter(bytesDesc, p.TxBytes, p.Name, "tx")
		ch <- gauge(linkDesc, one(p.Up), p.Name)
		ch <- counter(linksDesc, p.LinkChanges, p.Name)
	}
	counters(ch, dropsDesc, s.Drops)
	counters(ch, puntsDesc, s.Punts)
	counters(ch, shakesDesc, s.Handshakes)
	counters(ch, actsDesc, s.Packets)
	counters(ch, commandsDesc, s.Commands)
	counters(ch, tableDesc, s.Forgotten)
	for _, t := range s.Tables {
		ch <- gauge(entriesDesc, float64(t.Entries), t.Family)
		ch <- gauge(roomDesc, float64(t.Capacity), t.Family)
	}
	for i, l := range s.Lcores {
		lcore := strconv.Itoa(i)
		ch <- gauge(busyDesc, l.Share, lcore)
		ch <- seconds(spentDesc, l.Busy, lcore, "busy")
		ch <- seconds(spentDesc, l.Idle, lcore, "idle")
		ch <- counter(pollsDesc, l.Polls, lcore)
		ch <- gauge(gapDesc, l.Gap.Seconds(), lcore)
		ch <- gauge(gapMaxDesc, l.GapMax.Seconds(), lcore)
		ch <- counter(waitsDesc, l.Waits, lcore)
	}
	ch <- gauge(flowsDesc, float64(s.Flows))
	counters(ch, eventsDesc, s.Events)
	counters(ch, messagesDesc, s.Messages)
	for _, x := range s.Services {
		ch <- gauge(sharesDesc, float64(x.Connections), x.Service, x.Target)
		ch <- gauge(weightDesc, float64(x.Weight), x.Service, x.Target)
		ch <- gauge(readyDesc, one(x.Ready), x.Service, x.Target)
	}
	for _, p := range s.Peers {
		ch <- gauge(peerDesc, one(p.Up), p.Host)
		if p.RTT > 0 {
			ch <- gauge(rttDesc, p.RTT.Seconds(), p.Host)
		}
	}
}
