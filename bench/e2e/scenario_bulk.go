package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"baton/bench/judge"
	"baton/bench/lab"
)

// Bulk transfers: Baton's runs and those through a plain L2 forwarder over the same devices alternate, because what a
// loaded machine loses changes from minute to minute.
const (
	bulkSize     = 100_000_000
	bulkRuns     = 3
	bulkFactor   = 2  // Baton's retransmissions may be this many times the plain forwarder's,
	bulkSegments = 20 // and so many more
)

var bulkScenarios = []Scenario{
	bulk("download-100MB", "a long download keeps its speed and octets: the forwarder loses no more than a plain one",
		func(e *Env) error { return e.download(bulkSize) }, fetchPlain),
	bulk("upload-100MB", "so does a long upload, all of which passes the forwarder",
		func(e *Env) error { return e.upload(bulkSize) }, storePlain),
}

// bulk makes a scenario of one kind of transfer through Baton and through the plain forwarder.
func bulk(name, doc string, through func(*Env) error, plain func(context.Context, *lab.Lab) error) Scenario {
	return Scenario{
		Name: name, Doc: doc, Timeout: 4 * time.Minute,
		Expect: Expect{Connections: bulkRuns, Transferred: bulkRuns},
		Run: func(e *Env) error {
			for range bulkRuns {
				if err := through(e); err != nil {
					return err
				}
				n, err := e.plainRun(plain)
				if err != nil {
					return fmt.Errorf("plain forwarder: %w", err)
				}
				e.plain = append(e.plain, n)
			}
			return nil
		},
		Note: func(e *Env, r judge.Report) string {
			return fmt.Sprintf("segments repeated %v, through a plain forwarder %v", repeats(r), e.plain)
		},
		Check: func(e *Env, r judge.Report) error {
			runs := repeats(r)
			if got, limit := median(runs), bulkFactor*median(e.plain)+bulkSegments; got > limit {
				return fmt.Errorf("retransmissions %v, through the plain forwarder %v: median %d, want at most %d",
					runs, e.plain, got, limit)
			}
			return nil
		},
	}
}

// repeats counts, per connection, what either end sent twice or what came late.
func repeats(r judge.Report) (runs []int) {
	for _, c := range r.Conns {
		runs = append(runs, c.Retransmissions+c.Repeated)
	}
	return runs
}

func median(n []int) int {
	sorted := slices.Sorted(slices.Values(n))
	return sorted[len(sorted)/2]
}

// plainRun makes one transfer in a laboratory of its own, with testpmd in the forwarder's place, and counts what was
// sent twice.
func (e *Env) plainRun(transfer func(context.Context, *lab.Lab) error) (total int, err error) {
	l, err := lab.New(lab.Options{})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	h := l.Targets[0]
	if _, err := h.Nginx(e.Ctx, lab.ServerOptions{}); err != nil {
		return 0, err
	}
	if err := h.AddDVIPA(lab.DVIPA); err != nil {
		return 0, err
	}
	if _, err := l.Testpmd(e.Ctx, e.device, h); err != nil {
		return 0, err
	}
	capture, err := l.Client.Capture()
	if err != nil {
		return 0, err
	}
	transferErr := transfer(e.Ctx, l)
	frames, err := capture.Stop(e.Ctx)
	if err := errors.Join(transferErr, err); err != nil {
		return 0, err
	}
	for _, n := range repeats(judge.Judge(frames, judge.Expectation{DVIPA: lab.DVIPA})) {
		total += n
	}
	return total, nil
}

func fetchPlain(ctx context.Context, l *lab.Lab) error {
	if _, err := l.File(bulkSize); err != nil {
		return err
	}
	_, err := l.Client.Curl(ctx, fmt.Sprintf("http://%s/static/data-%d", lab.DVIPA, bulkSize))
	return err
}

func storePlain(ctx context.Context, l *lab.Lab) error {
	path := l.Client.Path("upload")
	if err := os.WriteFile(path, lab.Data(bulkSize), 0o644); err != nil {
		return err
	}
	url := fmt.Sprintf("http://%s/upload/data", lab.DVIPA)
	_, err := l.Client.Curl(ctx, url, "--upload-file", path, "--header", "Expect:")
	return err
}
