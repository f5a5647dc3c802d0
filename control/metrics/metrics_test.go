package metrics

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func fullRouter() (*Router, *int) {
	reads := 0
	m := NewRouter(func() RouterSample {
		reads++
		return RouterSample{
			Ports:      []Port{{Name: "net_af_xdp0", RxPackets: 7, TxPackets: 5, RxBytes: 700, TxBytes: 500}},
			Drops:      map[string]uint64{"checksum": 2},
			Punts:      map[string]uint64{"first": 3},
			Handshakes: map[string]uint64{"accepted": 3},
			Packets:    map[string]uint64{"forwarded": 7},
			Commands:   map[string]uint64{"done": 2},
			Forgotten:  map[string]uint64{"aged": 1},
			Tables:     []Table{{Family: "ipv4", Entries: 3, Capacity: 1024}},
			Lcores:     []Lcore{{Share: 0.25, Busy: time.Second, Polls: 9, GapMax: time.Millisecond}},
			Flows:      1,
			Events:     map[string]uint64{"opened": 4},
			Messages:   map[string]uint64{"delivered": 6},
			Peers:      []Peer{{Host: "t1", Up: true, RTT: time.Millisecond}, {Host: "t2"}},
			Services:   []Share{{Service: "10.77.0.10:443", Target: "t1", Ready: true, Weight: 3, Connections: 17}},
		}
	})
	m.TransferEnded("switched", "t1")
	m.PhaseTook("total", 120*time.Microsecond)
	m.Refused("404")
	return m, &reads
}

func fullTarget() *Target {
	m := NewTarget(func() TargetSample {
		return TargetSample{Flows: 4, Reservations: 1, GuardDrops: map[string]uint64{"syn": 9}, Decapsulated: 5,
			Messages: map[string]uint64{"refused_queue_full": 1},
			Routers:  []Peer{{Host: "rh1", Up: true}}}
	})
	m.Imported("imported", 40*time.Microsecond)
	m.Imported("window", 0)
	return m
}

func TestNamesFollowPrometheusConventions(t *testing.T) {
	router, _ := fullRouter()
	for name, g := range map[string]prometheus.Gatherer{"router": router.Registry(), "target": fullTarget().Registry()} {
		t.Run(name, func(t *testing.T) {
			problems, err := testutil.GatherAndLint(g)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range problems {
				t.Errorf("%s: %s", p.Metric, p.Text)
			}
		})
	}
}

func TestRouterSampleIsReadOncePerScrape(t *testing.T) {
	m, reads := fullRouter()
	if _, err := m.Registry().Gather(); err != nil {
		t.Fatal(err)
	}
	if *reads != 1 {
		t.Errorf("sample read %d times in one scrape, want 1", *reads)
	}
}

func TestRouterValues(t *testing.T) {
	m, _ := fullRouter()
	const want = `
# HELP baton_service_connections Connections of a conventional service, by target.
# TYPE baton_service_connections gauge
baton_service_connections{service="10.77.0.10:443",target="t1"} 17
# HELP baton_packets_total Packets on a data port.
# TYPE baton_packets_total counter
baton_packets_total{direction="rx",port="net_af_xdp0"} 7
baton_packets_total{direction="tx",port="net_af_xdp0"} 5
# HELP baton_transfers_total Attempts to hand a connection to a target, by outcome.
# TYPE baton_transfers_total counter
baton_transfers_total{outcome="switched",target="t1"} 1
# HELP baton_xcf_peer_rtt_seconds Last measured round trip to the target host.
# TYPE baton_xcf_peer_rtt_seconds gauge
baton_xcf_peer_rtt_seconds{host="t1"} 0.001
# HELP baton_xcf_peer_up Whether the target host is connected.
# TYPE baton_xcf_peer_up gauge
baton_xcf_peer_up{host="t1"} 1
baton_xcf_peer_up{host="t2"} 0
`
	err := testutil.GatherAndCompare(m.Registry(), strings.NewReader(want),
		"baton_service_connections", "baton_packets_total", "baton_transfers_total", "baton_xcf_peer_up", "baton_xcf_peer_rtt_seconds")
	if err != nil {
		t.Error(err)
	}
}

func TestRefusedImportHasNoDuration(t *testing.T) {
	const want = `
# HELP baton_target_imports_total Connections that this host was asked to take, by outcome.
# TYPE baton_target_imports_total counter
baton_target_imports_total{outcome="imported"} 1
baton_target_imports_total{outcome="window"} 1
`
	m := fullTarget()
	if err := testutil.GatherAndCompare(m.Registry(), strings.NewReader(want), "baton_target_imports_total"); err != nil {
		t.Error(err)
	}
	families, err := m.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "baton_target_import_seconds" && f.Metric[0].Histogram.GetSampleCount() != 1 {
			t.Errorf("durations recorded: %d, want 1", f.Metric[0].Histogram.GetSampleCount())
		}
	}
}

func TestServeAnswersScrapesUntilCancelled(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	m, _ := fullRouter()
	go func() { done <- serve(ctx, l, m.Registry()) }()
	resp, err := http.Get("http://" + l.Addr().String() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || !strings.Contains(string(body), `baton_drops_total{reason="checksum"} 2`) {
		t.Errorf("scrape: %v, body lacks the drop counter", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("serve after cancel: %v", err)
	}
}
