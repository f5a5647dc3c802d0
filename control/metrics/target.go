package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// TargetSample is what a scrape of a target host reads at once.
type TargetSample struct {
	Flows        int               // connections taken and still alive
	Reservations int               // offers accepted and not yet committed
	GuardDrops   map[string]uint64 // packets dropped by the guard program, or by the forwarder of a target in userspace, by reason
	Lockstep     map[string]uint64 // what came of dialogues with servers that speak first, by event
	Decapsulated uint64            // packets that the guard program took out of tunnels
	Closes       map[string]uint64 // FINs of applications, where idle connections are routed anew, by outcome
	Messages     map[string]uint64 // between applications, by result
	Routers      []Peer            // routing hosts, seen over XCF
}

// Target is the metrics of a target host.
type Target struct {
	registry *prometheus.Registry
	imports  *prometheus.CounterVec
	seconds  prometheus.Histogram
}

// NewTarget makes the metrics of a target host. read is called once per scrape, possibly from several goroutines.
func NewTarget(read func() TargetSample) *Target {
	m := &Target{
		registry: newRegistry(),
		imports: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "baton_target_imports_total",
			Help: "Connections that this host was asked to take, by outcome.",
		}, []string{"outcome"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "baton_target_import_seconds",
			Help:    "How long it took to make the connection at this host.",
			Buckets: phaseBuckets,
		}),
	}
	m.registry.MustRegister(m.imports, m.seconds, &targetCollector{read: read})
	return m
}

// Registry is what Serve shows.
func (m *Target) Registry() *prometheus.Registry { return m.registry }

// Imported counts one import; d is how long it took, 0 when it was refused before it began.
func (m *Target) Imported(outcome string, d time.Duration) {
	m.imports.WithLabelValues(outcome).Inc()
	if d > 0 {
		m.seconds.Observe(d.Seconds())
	}
}

var (
	targetFlowsDesc = desc("baton_target_flows", "Transferred connections that live on this host.")
	reservedDesc    = desc("baton_target_reservations", "Offers accepted and not yet committed.")
	guardDesc       = desc("baton_target_guard_drops_total", "Packets dropped by the guard program, or the port in userspace, by reason.", "reason")
	closesDesc      = desc("baton_target_closes_total", "FINs of applications whose idle connections go back to their routing host, by outcome: taken, why they passed, or that they waited for the client's ACK.", "outcome")
	decapDesc       = desc("baton_target_decapsulated_total", "Packets that the guard program took out of tunnels.")
	lockstepDesc    = desc("baton_target_lockstep_total", "Dialogues played to servers that speak first, and segments stolen from them, by event.", "event")
	routerUpDesc    = desc("baton_target_router_up", "Whether the routing host is connected.", "host")
)

type targetCollector struct{ read func() TargetSample }

// Describe implements prometheus.Collector.
func (c *targetCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{targetFlowsDesc, reservedDesc, guardDesc, decapDesc, lockstepDesc, closesDesc, messagesDesc, routerUpDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *targetCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.read()
	ch <- gauge(targetFlowsDesc, float64(s.Flows))
	ch <- gauge(reservedDesc, float64(s.Reservations))
	counters(ch, guardDesc, s.GuardDrops)
	counters(ch, lockstepDesc, s.Lockstep)
	counters(ch, closesDesc, s.Closes)
	counters(ch, messagesDesc, s.Messages)
	ch <- counter(decapDesc, s.Decapsulated)
	for _, p := range s.Routers {
		ch <- gauge(routerUpDesc, one(p.Up), p.Host)
	}
}
