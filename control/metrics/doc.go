// Package metrics is what both daemons show to Prometheus.
//
// Its two central types are Router (cmd/baton) and Target (cmd/baton-target): each owns a registry, has a few methods
// that the event loops call (histograms and outcome counters), and a collector that reads everything else, the
// forwarder's C counters above all, once per scrape through one Read function. Nothing here is called per packet.
//
// Units are in the names (seconds, ratios); labels come from small fixed sets or from the configuration, never from
// clients, so the number of series is bounded. All methods are safe from any goroutine.
package metrics
