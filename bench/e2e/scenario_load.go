package main

import (
	"errors"
	"fmt"
	"sync"

	"baton/bench/judge"
	"baton/bench/lab"
)

// Sizes of the load scenarios.
const (
	sequential  = 1000
	concurrent  = 64
	perWorker   = 10     // connections of each concurrent client, one after the other
	loadedBytes = 50_000 // of each response where clients are concurrent
)

var loadScenarios = []Scenario{
	{
		Name:   "sequential-1000",
		Doc:    "1000 connections, one after the other, to two targets in turn, closed by client and server in turn",
		Expect: Expect{Connections: sequential, Transferred: sequential, Retransmissions: true},
		Run:    runSequential,
	},
	{
		Name:   "concurrent-64",
		Doc:    "64 clients at a time fetch 50 kB from two targets, every octet right",
		Expect: Expect{Connections: concurrent * perWorker, Transferred: concurrent * perWorker, Retransmissions: true},
		Run:    runConcurrent,
	},
}

// sites alternate in load scenarios.
var sites = []fetched{{"a.example", "/", "t1"}, {"www.b.example", "/", "t2"}}

func runSequential(e *Env) error {
	for i := range sequential {
		f := sites[i%len(sites)]
		var headers []string
		if i%4 < 2 {
			headers = []string{"Connection: close"} // the server closes first
		}
		path := fmt.Sprintf("/%d", i)
		r, err := e.Fetch(lab.Request(f.host, path, headers...))
		if err != nil {
			return fmt.Errorf("connection %d: %w", i+1, err)
		}
		if err := want(r, f.target, f.host, path); err != nil {
			return fmt.Errorf("connection %d: %w", i+1, err)
		}
	}
	return nil
}

func runConcurrent(e *Env) error {
	file, err := e.Lab.File(loadedBytes)
	if err != nil {
		return err
	}
	errs := make([]error, concurrent)
	var all sync.WaitGroup
	for i := range concurrent {
		all.Go(func() { errs[i] = e.worker(i, file) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// worker is one of many clients.
func (e *Env) worker(i int, file *judge.Digest) error {
	path := fmt.Sprintf("/static/data-%d", loadedBytes)
	for j := range perWorker {
		f := sites[(i+j)%len(sites)]
		r, err := e.Fetch(lab.Request(f.host, path))
		if err != nil {
			return fmt.Errorf("client %d, connection %d: %w", i+1, j+1, err)
		}
		if r.Target() != f.target || *judge.DigestOf(r.Data) != *file {
			return fmt.Errorf("client %d, connection %d: status %d from %q, %v",
				i+1, j+1, r.StatusCode, r.Target(), *judge.DigestOf(r.Data))
		}
	}
	return nil
}
