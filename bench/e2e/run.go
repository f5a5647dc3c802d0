package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"baton/bench/judge"
	"baton/bench/lab"
)

// Times of a run.
const (
	scenarioTime = 60 * time.Second
	buildTime    = 60 * time.Second
	// quietTime without a frame means that the connections of a scenario have ended; it exceeds a delayed ACK (40 ms).
	quietTime = 60 * time.Millisecond
	// mendedTime is the same after a bad wire was mended: what it lost last comes again within an RTO.
	mendedTime = 1300 * time.Millisecond
)

// runner runs scenarios one after the other and keeps the laboratory as long as it serves.
type runner struct {
	bin       string
	device    string
	hugepages int
	again     bool // a failed scenario gets a second attempt
	out       io.Writer
	keep      string // directory for what failed scenarios leave; made at the first
	lab       *lab.Lab
	baton     *lab.Baton
	shape     Shape

	summary string // of the last scenario's capture
}

// run runs one scenario and prints its line, and below it how long it took and what the capture had.
func (r *runner) run(ctx context.Context, s Scenario) bool {
	began := time.Now()
	r.summary = "not judged"
	err := r.attempt(ctx, s)
	if err == nil {
		fmt.Fprintf(r.out, "PASS %s\n", s.Name)
	} else {
		fmt.Fprintf(r.out, "FAIL %s: %s (see %s)\n", s.Name, oneLine(err), r.keepDir(s))
	}
	fmt.Fprintf(r.out, "     %v, %s\n", time.Since(began).Round(10*time.Millisecond), r.summary)
	return err == nil
}

// oneLine makes an error one line of bounded length.
func oneLine(err error) string {
	text := strings.Join(strings.Fields(err.Error()), " ")
	if len(text) > 1500 {
		text = text[:1500] + "..."
	}
	return text
}

// attempt builds what the scenario needs, runs it and judges it. After a failure the laboratory is not used again.
func (r *runner) attempt(ctx context.Context, s Scenario) (err error) {
	e, err := r.prepare(ctx, s.Shape)
	if err != nil {
		return errors.Join(fmt.Errorf("prepare: %w", err), r.saveLogs(s), r.close())
	}
	defer func() {
		if err == nil {
			err = r.standing()
		}
		if err != nil {
			err = errors.Join(err, r.saveLogs(s))
		}
		if err != nil || s.Shape.Private {
			err = errors.Join(err, r.close())
		}
	}()
	limit := s.Timeout
	if limit == 0 {
		limit = scenarioTime
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	e.Ctx = ctx
	if s.Expect.Unjudged {
		err := s.Run(e)
		if s.Note != nil {
			r.summary += "; " + s.Note(e, judge.Report{})
		}
		return err
	}
	return r.judged(s, e)
}

// judged runs a scenario under a capture and judges it.
func (r *runner) judged(s Scenario, e *Env) error {
	capture, quiet, err := e.capture(s.Wire)
	if err != nil {
		return err
	}
	runErr := s.Run(e)
	if e.Wire != nil {
		e.Wire.Mend()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.Ctx), 10*time.Second)
	defer cancel()
	quietErr := capture.Quiet(ctx, quiet)
	frames, err := capture.Stop(ctx)
	if e.Wire != nil {
		err = errors.Join(err, e.Wire.Close())
	}
	if err != nil {
		return errors.Join(runErr, err)
	}
	e.Frames = frames.Frames
	expectation, err := e.expectation(s.Expect)
	if err != nil {
		return errors.Join(runErr, err)
	}
	report := judge.Judge(frames, expectation)
	r.summary = report.Summary()
	if s.Note != nil {
		r.summary += "; " + s.Note(e, report)
	}
	err = s.verdict(e, report, errors.Join(runErr, quietErr))
	if err != nil {
		err = errors.Join(err, r.saveCapture(s, frames, report))
	}
	return err
}

// recorder is a capture, wherever it is made.
type recorder interface {
	Quiet(ctx context.Context, d time.Duration) error
	Stop(ctx context.Context) (judge.Capture, error)
}

// capture begins a capture of the client's interface, or of both ends of its wire if that is a bad one, and says how long
// a silence means the end.
func (e *Env) capture(w *lab.Wire) (c recorder, quiet time.Duration, err error) {
	if w == nil {
		c, err = e.Client.Capture()
		return c, quietTime, err
	}
	e.Wire, err = e.Client.Spoil(lab.DataInterface, *w)
	return e.Wire, mendedTime, err
}

// verdict joins what the scenario found with what the judge found; the latter often explains the former.
func (s Scenario) verdict(e *Env, report judge.Report, runErr error) error {
	err := errors.Join(runErr, s.Expect.check(report))
	if err != nil {
		return err
	}
	if err := e.checkServed(report, s.Expect.Direct); err != nil {
		return err
	}
	if s.Check != nil {
		return s.Check(e, report)
	}
	return nil
}

// prepare returns an Env on a laboratory of that shape, the standing one if it serves.
func (r *runner) prepare(ctx context.Context, s Shape) (*Env, error) {
	if r.lab != nil && !r.shape.sharedBy(s) {
		if err := r.close(); err != nil {
			return nil, err
		}
	}
	fresh := r.lab == nil
	if fresh {
		if err := r.build(ctx, s); err != nil {
			return nil, err
		}
	}
	return r.env(ctx), nil
}

func (r *runner) env(ctx context.Context) *Env {
	dvipa := lab.DVIPA
	if r.shape.Cluster.IPv6 {
		dvipa = lab.DVIPA6
	}
	return &Env{Ctx: ctx, Lab: r.lab, dvipa: dvipa, Client: r.lab.Client, Baton: r.baton, bin: r.bin, device: r.device,
		served: map[netip.AddrPort][]string{}}
}

// build makes a laboratory with servers and daemons.
func (r *runner) build(ctx context.Context, s Shape) error {
	ctx, cancel := context.WithTimeout(ctx, buildTime)
	defer cancel()
	targets := s.Targets
	if targets == 0 {
		targets = 2
	}
	var err error
	options := lab.Options{Targets: targets, Userspace: s.Userspace, Far: s.Far, Hugepages: r.hugepages, IPv6: s.Cluster.IPv6}
	if r.lab, err = lab.New(options); err != nil {
		return err
	}
	r.shape = s
	if s.NoBaton {
		return nil
	}
	start := s.Server
	if start == nil {
		start = nginx
	}
	for _, h := range r.lab.Targets {
		if err := start(r.env(ctx), h); err != nil {
			return err
		}
	}
	r.baton, err = r.env(ctx).StartBaton(s.Cluster)
	return err
}

// standing checks that the scenario left the laboratory as the next one expects it: all daemons run and all targets are
// ready.
func (r *runner) standing() error {
	if r.baton == nil || r.shape.Private {
		return nil
	}
	for _, p := range r.baton.Processes() {
		select {
		case <-p.Done():
			return fmt.Errorf("%s: %w", p.Name, errors.Join(lab.ErrEnded, p.Exit()))
		default:
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return r.baton.Ready(ctx)
}

// close removes the laboratory.
func (r *runner) close() error {
	if r.lab == nil {
		return nil
	}
	err := r.lab.Close()
	r.lab, r.baton = nil, nil
	return err
}

// keepDir is where a failed scenario leaves what people want to look at.
func (r *runner) keepDir(s Scenario) string {
	if r.keep == "" {
		dir, err := os.MkdirTemp("", "baton-e2e-")
		if err != nil {
			return err.Error()
		}
		r.keep = dir
	}
	return filepath.Join(r.keep, s.Name)
}

// saveCapture keeps the capture and the judge's report.
func (r *runner) saveCapture(s Scenario, c judge.Capture, report judge.Report) error {
	dir := r.keepDir(s)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, "client.pcapng"))
	if err != nil {
		return err
	}
	if err := judge.WritePcapng(f, c); err != nil {
		return errors.Join(err, f.Close())
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s\n", report.Summary())
	for _, v := range append(report.Violations, report.Allowed...) {
		fmt.Fprintln(&text, v)
	}
	for _, c := range report.Conns {
		fmt.Fprintf(&text, "%+v\n", c)
	}
	return errors.Join(f.Close(), os.WriteFile(filepath.Join(dir, "report.txt"), []byte(text.String()), 0o644))
}

// saveLogs copies logs and configurations out of the laboratory.
func (r *runner) saveLogs(s Scenario) error {
	if r.lab == nil {
		return nil
	}
	var errs []error
	for _, h := range r.lab.Hosts() {
		for _, pattern := range []string{"*.log", "*.yaml", "*.conf", "*.cfg"} {
			paths, err := filepath.Glob(h.Path(pattern))
			errs = append(errs, err)
			for _, path := range paths {
				errs = append(errs, copyFile(path, filepath.Join(r.keepDir(s), h.Name, filepath.Base(path))))
			}
		}
	}
	return errors.Join(errs...)
}

func copyFile(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o644)
}
