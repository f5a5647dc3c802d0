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
		Expect: Expect{Connections: 1, Transferred: 1},
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
		some("doctor", findings, func(x admin.Finding) bool { return x.OK }),
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

func count[T any](rows []T, good func(T) bool) (n int) {
	for _, x := range rows {
		if good(x) {
			n++
		}
	}
	return n
}

func runMetrics(e *Env) error {
	scrape := func() (router, target float64, err error) {
		router, err = e.metric(e.Lab.Router, 9600, `baton_transfers_total{`)
		if err != nil {
			return 0, 0, err
		}
		target, err = e.metric(e.Target(1), 9601, `baton_target_imports_total{`)
		return router, target, err
	}
	router, target, err := scrape()
	if err != nil {
		return err
	}
	if err := e.curls([]fetched{{"a.example", "/", "t1"}}); err != nil {
		return err
	}
	routerAfter, targetAfter, err := scrape()
	if err != nil {
		return err
	}
	if routerAfter-router != 1 || targetAfter-target != 1 {
		return fmt.Errorf("transfers grew by %g, imports by %g, want 1 and 1", routerAfter-router, targetAfter-target)
	}
	return nil
}

// metric scrapes a host's daemon and adds up the samples whose line begins with prefix.
func (e *Env) metric(h *lab.Host, port uint16, prefix string) (total float64, err error) {
	c, err := h.Dial(e.Ctx, netip.AddrPort{}, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port))
	if err != nil {
		return 0, err
	}
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil },
	}}
	r, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", port))
	if err != nil {
		return 0, err
	}
	defer func() { _ = r.Body.Close() }() // only read
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return 0, err
	}
	if r.StatusCode != http.StatusOK || !strings.Contains(string(text), "# TYPE baton") {
		return 0, fmt.Errorf("scrape of %s: status %d, %.100q", h.Name, r.StatusCode, text)
	}
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, prefix) {
			continue
		}
		var value float64
		if _, err := fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &value); err != nil {
			return 0, fmt.Errorf("sample %q: %w", line, err)
		}
		total += value
	}
	return total, nil
}
