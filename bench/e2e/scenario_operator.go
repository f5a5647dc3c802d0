package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"baton/bench/lab"
	"baton/control/admin"
)

var operatorScenarios = []Scenario{
	{
		Name:   "batonctl-json",
		Doc:    "batonctl prints what the daemons know as JSON: the flow, its transfer, its target, the ports",
		Expect: Expect{Connections: 1, Transferred: 1},
		Run:    runBatonctl,
	},
	{
		Name:   "metrics-scrape",
		Doc:    "both daemons are scraped by Prometheus's format, and a transfer shows on both",
		Expect: Expect{Connections: 2, Transferred: 2},
		Run:    runMetrics,
	},
}

// batonctl runs "batonctl --json COMMAND" at a host's daemon and decodes what it prints.
func (e *Env) batonctl(h *lab.Host, into any, command ...string) error {
	program, err := e.Baton.Program("batonctl")
	if err != nil {
		return err
	}
	out, err := h.Run(e.Ctx, append([]string{program, "--json", "--socket", h.AdminSocket()}, command...)...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("batonctl %s: %w: %.200s", strings.Join(command, " "), err, out)
	}
	return nil
}

func runBatonctl(e *Env) error {
	c, err := e.Dial()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // closed below when all went well
	r, err := lab.RoundTrip(e.Ctx, c, lab.Request("a.example", "/kept"))
	if err != nil {
		return err
	}
	if err := want(r, "t1", "a.example", "/kept"); err != nil {
		return err
	}
	var (
		version   admin.Version
		crt       admin.CRTPage
		targets   []admin.Target
		transfers []admin.Transfer
		counters  []admin.Counter
		ports     []admin.Port
		findings  []admin.Finding
		flows     []admin.Flow
	)
	rh, t1 := e.Lab.Router, e.Target(1)
	client := c.Local().String()
	err = errors.Join(
		e.Settled(c.Local(), "t1"),
		e.batonctl(rh, &version, "version"), e.batonctl(rh, &crt, "crt", "--client", client),
		e.batonctl(rh, &targets, "targets"), e.batonctl(rh, &transfers, "transfers"),
		e.batonctl(rh, &counters, "counters"), e.batonctl(rh, &ports, "ports"),
		e.batonctl(rh, &findings, "doctor"), e.batonctl(t1, &flows, "flows"))
	if err != nil {
		return err
	}
	return errors.Join(
		c.Close(),
		one("crt", crt.Entries, func(x admin.CRTEntry) bool { return x.Client == client && x.Owner == "t1" }),
		one("targets", targets, func(x admin.Target) bool { return x.Host == "t1" && x.Job == "web-a" && x.Ready && x.Connected }),
		one("transfers", transfers, func(x admin.Transfer) bool { return x.Client == client && x.Target == "t1" && x.Total > 0 }),
		one("flows", flows, func(x admin.Flow) bool { return x.Client == client && x.Router == "rh1" }),
		one("ports", ports, func(x admin.Port) bool { return x.Up && x.RxPackets > 0 && x.MAC != "" }),
		one("version", []admin.Version{version}, func(x admin.Version) bool { return x.PID == e.Baton.Router.PID() }),
		some("counters", counters, func(x admin.Counter) bool { return x.Value > 0 }),
		all("doctor", findings, func(x admin.Finding) bool { return x.OK }),
	)
}

// one expects exactly one row to be good.
func one[T any](what string, rows []T, good func(T) bool) error {
	if n := count(rows, good); n != 1 {
		return fmt.Errorf("batonctl %s has %d such rows, want 1: %+v", what, n, rows)
	}
	return nil
}

// some expects at least one row to be good.
func some[T any](what string, rows []T, good func(T) bool) error {
	if count(rows, good) == 0 {
		return fmt.Errorf("batonctl %s has no such row: %+v", what, rows)
	}
	return nil
}

// all expects rows, and every one to be good.
func all[T any](what string, rows []T, good func(T) bool) error {
	if n := count(rows, good); n == 0 || n != len(rows) {
		return fmt.Errorf("batonctl %s has %d good rows of %d: %+v", what, n, len(rows), rows)
	}
	return nil
}

func count[T any](rows []T, good func(T) bool) (n int) {
	for _, x := range rows {
		if good(x) {
			n++
		}
	}
	return n
}

// sample is a metric of a routing host (else of a target host), by the beginning of its lines, and by how much one
// connection makes it grow; 0: it is only there.
type sample struct {
	router bool
	prefix string
	grows  float64
}

var samples = []sample{
	{true, `baton_handshakes_total{result="answered"}`, 1},
	{true, `baton_handshakes_total{result="accepted"}`, 1},
	{true, `baton_punts_total{kind="first"}`, 1},
	{true, `baton_transfers_total{`, 1},
	{true, `baton_transfer_seconds_count{phase="frozen"}`, 1},
	{true, `baton_transfer_seconds_count{phase="accepted"}`, 1},
	{true, `baton_transfer_seconds_count{phase="confirmed"}`, 1},
	{true, `baton_transfer_seconds_count{phase="switched"}`, 1},
	{true, `baton_transfer_seconds_count{phase="total"}`, 1},
	{true, `baton_packets_total{direction="rx"`, 0},
	{true, `baton_forwarder_packets_total{action="forwarded"}`, 0},
	{true, `baton_forwarder_commands_total{result="done"}`, 0},
	{true, `baton_drops_total{reason="forged_cookie"}`, 0},
	{true, `baton_crt_events_total{event="aged"}`, 0},
	{true, `baton_crt_events_total{event="evicted"}`, 0},
	{true, `baton_crt_entries{family="ipv4"}`, 0},
	{true, `baton_poll_busy_ratio`, 0},
	{false, `baton_target_imports_total{`, 1},
	{false, `baton_target_import_seconds_count`, 1},
	{false, `baton_target_guard_drops_total{reason="syn"}`, 0},
}

func runMetrics(e *Env) error {
	if err := e.curls([]fetched{{"a.example", "/", "t1"}}); err != nil { // a counter is there from its first event on
		return err
	}
	before, err := e.samples()
	if err != nil {
		return err
	}
	if err := e.curls([]fetched{{"a.example", "/", "t1"}}); err != nil {
		return err
	}
	// The client may have its response before the routing host has switched.
	return lab.Until(e.Ctx, "one connection shows in all metrics", func() error {
		after, err := e.samples()
		if err != nil {
			return err
		}
		for i, s := range samples {
			if got := after[i] - before[i]; s.grows != 0 && got != s.grows {
				return fmt.Errorf("%s grew by %g, want %g", s.prefix, got, s.grows)
			}
		}
		return nil
	})
}

// samples reads all samples.
func (e *Env) samples() ([]float64, error) {
	router, err := e.scrape(e.Lab.Router, 9600)
	if err != nil {
		return nil, err
	}
	target, err := e.scrape(e.Target(1), 9601)
	if err != nil {
		return nil, err
	}
	values := make([]float64, len(samples))
	for i, s := range samples {
		text := target
		if s.router {
			text = router
		}
		if values[i], err = sum(text, s.prefix); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// scrape reads what a host's daemon tells Prometheus.
func (e *Env) scrape(h *lab.Host, port uint16) (string, error) {
	c, err := h.Dial(e.Ctx, netip.AddrPort{}, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port))
	if err != nil {
		return "", err
	}
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil },
	}}
	r, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", port))
	if err != nil {
		return "", err
	}
	defer func() { _ = r.Body.Close() }() // only read
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return "", err
	}
	if r.StatusCode != http.StatusOK {
		return "", fmt.Errorf("scrape of %s: status %d, %.100q", h.Name, r.StatusCode, text)
	}
	return string(text), nil
}

// sum adds up the samples whose lines begin with prefix; there has to be one.
func sum(text, prefix string) (total float64, err error) {
	found := false
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, prefix) {
			continue
		}
		var value float64
		if _, err := fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &value); err != nil {
			return 0, fmt.Errorf("sample %q: %w", line, err)
		}
		total += value
		found = true
	}
	if !found {
		return 0, fmt.Errorf("no sample %s", prefix)
	}
	return total, nil
}
