package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"baton/bench/judge"
	"baton/bench/lab"
)

// The flood comes by a port of its own, which is memory that two processes share, so that the client's network is not
// what limits it. Everything but the forwarder runs on CPU 0, the generator included.
var (
	floodPort = lab.Port{
		Device:  "net_memif0,role=server,id=0,socket=${dir}/flood.sock,socket-abstract=no,rsize=11",
		Address: netip.MustParsePrefix("10.79.0.1/24"),
	}
	// Two CPUs are few for a flood, its source and all hosts: hosts may take longer to answer each other.
	floodCluster = lab.Cluster{Ports: []lab.Port{floodPort}, LogLevel: "info"}
	stormCluster = lab.Cluster{Ports: []lab.Port{floodPort}, LogLevel: "info", SourceFlows: 256, SourcePunts: 1000}
)

// Sizes of the floods.
const (
	floodClients   = 1000 // legitimate connections at each rate
	floodAtATime   = 64
	floodRate      = 500_000 // SYNs a second that must not be felt
	stormSources   = 20      // legitimate addresses
	stormClients   = 10      // connections of each
	stormRate      = 20_000  // handshakes a second
	stormTime      = 30 * time.Second
	memoryMayGrow  = 32 << 20 // octets of the routing host's daemon: connections leave some garbage
	buffersMayMiss = 512      // of the pool, before and after: what an lcore and the rings keep
)

// floodRates are tried for the highest one at which everybody is served.
var floodRates = []int{500_000, 1_000_000, 2_000_000, 5_000_000}

var floodScenarios = []Scenario{
	{
		Name:   "syn-flood",
		Doc:    "1000 connections are served during 500000 SYNs a second, each of which is answered, in constant memory",
		Shape:  Shape{Cluster: floodCluster, Private: true},
		Expect: Expect{Connections: floodClients, Transferred: floodClients, Retransmissions: true},
		Run:    runFlood,
		Note:   remarks,
	},
	{
		Name:    "syn-flood-rates",
		Doc:     "the same at up to 5 million SYNs a second; the highest rate at which everybody is served is told",
		Shape:   Shape{Cluster: floodCluster, Private: true},
		Expect:  Expect{Unjudged: true},
		Timeout: 3 * time.Minute,
		Run:     runFloodRates,
		Note:    remarks,
	},
	{
		Name:    "punt-storm",
		Doc:     "20000 valid handshakes a second from one address do not keep 20 others from being served",
		Shape:   Shape{Cluster: stormCluster, Private: true},
		Expect:  Expect{Connections: stormSources * stormClients, Transferred: stormSources * stormClients, Retransmissions: true},
		Timeout: 2 * time.Minute,
		Run:     runStorm,
		Note:    remarks,
	},
}

func remarks(e *Env, _ judge.Report) string { return strings.Join(e.remarks, "; ") }

func (e *Env) remark(format string, args ...any) {
	e.remarks = append(e.remarks, fmt.Sprintf(format, args...))
}

// flood is a packet generator that is connected to the flood's port. It stays connected as long as the laboratory stands:
// DPDK 22.11's net_memif may crash when its peer leaves while it polls.
type flood struct {
	*lab.Process
	e      *Env
	orders *os.File
	ended  int // rates that it has reported
}

// flood starts the generator.
func (e *Env) flood(args ...string) (*flood, error) {
	program, err := e.Baton.Program("pktgen")
	if err != nil {
		return nil, err
	}
	fifo := e.Lab.Router.Path("flood.orders")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		return nil, err
	}
	orders, err := os.OpenFile(fifo, os.O_RDWR, 0) // read, too: it does not wait for the reader then
	if err != nil {
		return nil, err
	}
	argv := append([]string{"sh", "-c", `exec nice -n "$0" taskset -c 0 "$@" <flood.orders`, floodNice, program, "steer", "--nap",
		"--late", "50ms", "--drain", "500ms", "--device",
		e.Lab.Router.Expand("net_memif0,role=client,id=0,socket=${dir}/flood.sock,socket-abstract=no,rsize=11"),
		"--gateway", floodPort.Address.Addr().String(), "--own", "10.79.0.2", "--service", service.String()}, args...)
	p, err := e.Lab.Router.Start("pktgen", argv...)
	return &flood{p, e, orders, 0}, err
}

// begin floods at a rate and waits until the forwarder answers.
func (f *flood) begin(rate int) error {
	before, err := f.e.counter("handshake", "answered")
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(f.orders, rate); err != nil {
		return err
	}
	return f.Ready(f.e.Ctx, func() error {
		now, err := f.e.counter("handshake", "answered")
		if err == nil && now-before < 100 {
			err = fmt.Errorf("%d of its SYNs are answered", now-before)
		}
		return err
	})
}

// flooded is what the generator reports.
type flooded struct {
	Rate     float64           `json:"sent_pps"`
	Loss     float64           `json:"loss_percent"`
	OwnNS    float64           `json:"own_ns_per_frame"`
	Counters map[string]uint64 `json:"counters"`
}

// end stops the flood and reads its report.
func (f *flood) end() (report flooded, err error) {
	if _, err := fmt.Fprintln(f.orders, "pause"); err != nil {
		return report, err
	}
	f.ended++
	err = f.Ready(f.e.Ctx, func() error {
		var reports []string
		for line := range strings.Lines(f.Log()) {
			if strings.HasPrefix(line, "{") && strings.HasSuffix(line, "}\n") {
				reports = append(reports, line)
			}
		}
		if len(reports) < f.ended {
			return fmt.Errorf("%d of %d reports", len(reports), f.ended)
		}
		return json.Unmarshal([]byte(reports[f.ended-1]), &report)
	})
	return report, err
}

// floodNice is the generator's priority, the poll loop's: nobody else should keep it from its pace.
const floodNice = "-10"

// counter reads one of the forwarder's counters.
func (e *Env) counter(group, name string) (uint64, error) {
	counters, err := e.Baton.Admin.Counters(e.Ctx)
	if err != nil {
		return 0, err
	}
	for _, c := range counters {
		if c.Group == group && c.Name == name {
			return c.Value, nil
		}
	}
	return 0, fmt.Errorf("no counter %s/%s", group, name)
}

// footprint is what a flood must not make grow: the daemon's resident memory, octets, and the free buffers.
type footprint struct {
	memory, buffers uint64
}

func (e *Env) footprint() (f footprint, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", e.Baton.Router.PID()))
	if err != nil {
		return f, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kB, err := strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				return f, err
			}
			f.memory = kB << 10
		}
	}
	ports, err := e.Baton.Admin.Ports(e.Ctx)
	if err != nil {
		return f, err
	}
	f.buffers = ports[0].Stats["free_buffers"]
	if f.memory == 0 || f.buffers == 0 {
		return f, fmt.Errorf("routing host's footprint is %+v", f)
	}
	return f, nil
}

// flat fails if the footprint is larger than it was.
func (f footprint) flat(e *Env) error {
	return lab.Until(e.Ctx, "the buffers are back", func() error {
		now, err := e.footprint()
		if err != nil {
			return err
		}
		if now.memory > f.memory+memoryMayGrow || now.buffers+buffersMayMiss < f.buffers {
			return fmt.Errorf("memory was %d and is %d octets, free buffers %d and %d", f.memory, now.memory, f.buffers, now.buffers)
		}
		return nil
	})
}

// crowd is floodClients clients, floodAtATime at a time, and how many of them were served. The first failure is told.
func (e *Env) crowd() (served int, first error) {
	var next, good atomic.Int64
	var once sync.Once
	var all sync.WaitGroup
	for range floodAtATime {
		all.Go(func() {
			for i := next.Add(1); i <= floodClients; i = next.Add(1) {
				if err := e.visitor(int(i)); err != nil {
					once.Do(func() { first = fmt.Errorf("connection %d: %w", i, err) })
				} else {
					good.Add(1)
				}
			}
		})
	}
	all.Wait()
	return int(good.Load()), first
}

func (e *Env) visitor(i int) error {
	f := sites[i%len(sites)]
	path := fmt.Sprintf("/%d", i)
	r, err := e.Fetch(lab.Request(f.host, path))
	if err != nil {
		return err
	}
	return want(r, f.target, f.host, path)
}

// synFlood starts a generator of SYNs of a million clients.
func (e *Env) synFlood() (*flood, error) {
	return e.flood("--kind", "syn", "--random", "--flows", "1000000", "--clients", "10.96.0.0/12")
}

// underFlood lets the crowd come during a flood and says how it was.
func (e *Env) underFlood(f *flood, rate int) (served int, report flooded, first error, err error) {
	if err := f.begin(rate); err != nil {
		return 0, report, nil, err
	}
	began := time.Now()
	served, first = e.crowd()
	took := time.Since(began)
	if took < time.Second { // or the rate is not meaningful
		err = e.sleep(time.Second - took)
	}
	report, endErr := f.end()
	if err := errors.Join(err, endErr); err != nil {
		return served, report, first, err
	}
	e.remark("%d SYNs/s asked, %.0f sent, %.2f %% of them answered: %d of %d served in %v, generator %.0f ns a frame", rate,
		report.Rate, 100-report.Loss, served, floodClients, took.Round(10*time.Millisecond), report.OwnNS)
	return served, report, first, nil
}

func runFlood(e *Env) error {
	f, err := e.synFlood()
	if err != nil {
		return err
	}
	before, err := e.footprint()
	if err != nil {
		return err
	}
	served, report, first, err := e.underFlood(f, floodRate)
	switch {
	case err != nil:
		return err
	case served != floodClients:
		return fmt.Errorf("%d of %d connections were served; the first failure: %w", served, floodClients, first)
	case report.Rate < 0.9*floodRate:
		return fmt.Errorf("the flood was %.0f SYNs a second, want %d: the machine is too busy for this scenario", report.Rate, floodRate)
	}
	return before.flat(e)
}

func runFloodRates(e *Env) error {
	f, err := e.synFlood()
	if err != nil {
		return err
	}
	before, err := e.footprint()
	if err != nil {
		return err
	}
	held := 0
	for _, rate := range floodRates {
		served, report, _, err := e.underFlood(f, rate)
		if err != nil {
			return err
		}
		if served == floodClients && report.Rate >= 0.9*float64(rate) {
			held = rate
		}
	}
	e.remark("highest rate at which all are served: %d", held)
	return before.flat(e)
}

func runStorm(e *Env) error {
	sources, err := e.addresses(stormSources)
	if err != nil {
		return err
	}
	accepted, err := e.counter("handshake", "accepted")
	if err != nil {
		return err
	}
	// What comes is never a whole request, so each flow that gets through stays with the router until it times out.
	f, err := e.flood("--kind", "handshake", "--clients", "10.96.0.1/32", "--flows", "60000", "--timeout", "2s", "--request",
		`GET / HTTP/1.1\r\n`)
	if err != nil {
		return err
	}
	if err := f.begin(stormRate); err != nil {
		return err
	}
	began := time.Now()
	if err := e.visitFrom(sources); err != nil {
		return err
	}
	took := time.Since(began)
	if took > stormTime {
		return fmt.Errorf("the others were served in %v, want at most %v", took, stormTime)
	}
	if err := e.sleep(max(0, 3*time.Second-took)); err != nil {
		return err
	}
	report, err := f.end()
	if err != nil {
		return err
	}
	return e.checkStorm(report, accepted, took)
}

// checkStorm accounts for every handshake of the storm: it was accepted, or counted as punt_limited.
func (e *Env) checkStorm(report flooded, before uint64, took time.Duration) error {
	var values [4]uint64
	for i, c := range [...][2]string{{"handshake", "accepted"}, {"drop", "punt_limited"}, {"drop", "flow_table_full"},
		{"drop", "ring_full"}} {
		var err error
		if values[i], err = e.counter(c[0], c[1]); err != nil {
			return err
		}
	}
	accepted, limited := values[0]-before, values[1]
	storm := report.Counters["synack"]
	e.remark("%.0f handshakes/s, %d in all, %d accepted with those of others, %d limited: %d others served in %v", report.Rate, storm,
		accepted, limited, stormSources*stormClients, took.Round(10*time.Millisecond))
	switch {
	case values[2]+values[3] > 0:
		return fmt.Errorf("%d handshakes found the flow table full, %d punts the ring", values[2], values[3])
	case limited == 0 || float64(accepted+limited) < 0.99*float64(storm):
		return fmt.Errorf("of %d handshakes of the storm, %d were accepted and %d limited", storm, accepted, limited)
	}
	return nil
}

// addresses gives the client more addresses.
func (e *Env) addresses(n int) (list []netip.Addr, err error) {
	a := e.Client.Data.Addr()
	for range n {
		a = a.Next()
		prefix := netip.PrefixFrom(a, e.Client.Data.Bits())
		if _, err := e.Client.Run(e.Ctx, "ip", "addr", "add", prefix.String(), "dev", lab.DataInterface); err != nil {
			return nil, err
		}
		list = append(list, a)
	}
	return list, nil
}

// visitFrom makes the same number of connections from each address, all addresses at a time.
func (e *Env) visitFrom(sources []netip.Addr) error {
	errs := make([]error, len(sources))
	var all sync.WaitGroup
	for i, source := range sources {
		all.Go(func() {
			for range stormClients {
				errs[i] = errors.Join(errs[i], e.fetchFrom(netip.AddrPortFrom(source, 0)))
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func (e *Env) fetchFrom(local netip.AddrPort) error {
	c, err := e.DialFrom(local)
	if err != nil {
		return err
	}
	r, err := lab.RoundTrip(e.Ctx, c, lab.Request("a.example", "/"))
	if err != nil {
		return errors.Join(fmt.Errorf("from %v: %w", local.Addr(), err), c.Close())
	}
	e.note(c.Local(), r)
	return errors.Join(want(r, "t1", "a.example", "/"), c.Close())
}
