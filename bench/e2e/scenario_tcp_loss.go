package main

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"baton/bench/faults"
	"baton/bench/judge"
	"baton/bench/lab"
)

// What clients on a bad wire do.
const (
	wireFetches = 24        // small requests
	wireHeads   = 4         // requests whose head takes many segments
	wireRefused = 4         // requests that the router answers itself
	wireClients = 8         // at a time
	wireHead    = 20_000    // octets of a long head
	wireBulk    = 1_000_000 // octets of the download, and of the upload
)

var lossScenarios = []Scenario{
	onWire("lossy-1pct", "every hundredth segment is lost in each direction, and no octet is wrong", faults.Rates{Lose: 1}),
	onWire("lossy-5pct", "so it is when every twentieth is lost", faults.Rates{Lose: 5}),
	onWire("reorder", "segments overtake each other", faults.Rates{Delay: 10}),
	onWire("duplicate", "segments come twice, and some of them much later", faults.Rates{Repeat: 20, Delay: 2}),
	onWire("corrupt", "segments are damaged: checksums find it, and nothing damaged is ever used", faults.Rates{Damage: 3}),
}

// onWire makes the scenario of clients on a bad wire. They fetch, upload and are refused; segments of each phase of a
// connection are hit.
func onWire(name, doc string, rates faults.Rates) Scenario {
	const served = wireFetches + wireHeads + 2
	return Scenario{
		Name: name, Doc: doc, Wire: &lab.Wire{Up: rates, Down: rates, Seed: 1},
		Expect: Expect{Connections: served + wireRefused, Transferred: served, Retransmissions: true},
		Run:    runOnWire,
		Note: func(e *Env, _ judge.Report) string {
			up, down := e.Wire.Count()
			return fmt.Sprintf("faults: up %+v, down %+v", up, down)
		},
		Check: func(e *Env, _ judge.Report) error {
			up, down := e.Wire.Count()
			return errors.Join(struck("up", rates, up), struck("down", rates, down))
		},
	}
}

// struck checks that each kind of fault happened.
func struck(direction string, rates faults.Rates, c faults.Counts) error {
	for _, kind := range []struct {
		percent int
		count   int64
	}{{rates.Lose, c.Lost}, {rates.Repeat, c.Repeated}, {rates.Delay, c.Delayed}, {rates.Damage, c.Damaged}} {
		if kind.percent > 0 && kind.count == 0 {
			return fmt.Errorf("the wire never did what it was told: %s %+v, want %+v", direction, c, rates)
		}
	}
	return nil
}

// runOnWire has several clients at work at a time; each of them has some of the small jobs.
func runOnWire(e *Env) error {
	if _, err := e.Lab.File(wireBulk); err != nil { // its digests are for one goroutine
		return err
	}
	jobs := []func() error{
		func() error { return e.download(wireBulk) },
		func() error { return e.upload(wireBulk) },
	}
	for i := range wireFetches {
		f := sites[i%len(sites)]
		jobs = append(jobs, func() error { return e.fetchOne(f.target, f.host, fmt.Sprintf("/%d", i)) })
	}
	for i := range wireHeads {
		padding := "X-Padding: " + strings.Repeat("p", wireHead)
		jobs = append(jobs, func() error { return e.fetchOne("t1", "a.example", fmt.Sprintf("/long/%d", i), padding) })
	}
	for range wireRefused {
		jobs = append(jobs, func() error { return e.refused(lab.Request("nobody.example", "/"), 404) })
	}
	return inParallel(wireClients, jobs)
}

// inParallel does jobs, so many at a time.
func inParallel(workers int, jobs []func() error) error {
	queue := make(chan int)
	errs := make([]error, len(jobs))
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for i := range queue {
				errs[i] = jobs[i]()
			}
		})
	}
	for i := range jobs {
		queue <- i
	}
	close(queue)
	all.Wait()
	return errors.Join(errs...)
}

// fetchOne fetches a page on a connection of its own and checks who served it.
func (e *Env) fetchOne(target, host, path string, headers ...string) error {
	r, err := e.Fetch(lab.Request(host, path, headers...))
	if err != nil {
		return fmt.Errorf("%s%s: %w", host, path, err)
	}
	return want(r, target, host, path)
}
