package xcf

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// RoundTrips are measured round trips, shortest first.
type RoundTrips []time.Duration

// Quantile returns the q-th quantile (0 to 1), 0 without a measurement.
func (r RoundTrips) Quantile(q float64) time.Duration {
	if len(r) == 0 {
		return 0
	}
	return r[min(int(q*float64(len(r))), len(r)-1)]
}

// MeasureRoundTrips sends n commits of size octets, one after the other, over a real stream on loopback, whose other
// end sends each back as it is: the least that an answer over XCF can take on this machine. It makes a CA and
// certificates in dir, which must be empty.
func MeasureRoundTrips(ctx context.Context, dir string, n, size int) (RoundTrips, error) {
	ctx, cancel := context.WithCancel(ctx)
	router, target, err := measurePair(dir)
	if err != nil {
		cancel()
		return nil, err
	}
	probe := NewProbe()
	log := slog.New(slog.DiscardHandler)
	server, err := Listen("127.0.0.1:0", router, probe, log)
	if err != nil {
		cancel()
		return nil, err
	}
	dialer, err := NewDialer(target, []Router{{Host: router.Name, Address: server.Addr().String()}}, Echo{}, log)
	if err != nil {
		cancel()
		return nil, errors.Join(err, server.Close())
	}
	served, dialed := make(chan error, 1), make(chan struct{})
	go func() { served <- server.Serve(ctx) }()
	go func() { dialer.Run(ctx); close(dialed) }()
	trips, err := probe.measure(ctx, server, target.Name, n, size)
	cancel()
	<-dialed
	return trips, errors.Join(err, <-served)
}

// measurePair makes the two hosts of a measurement.
func measurePair(dir string) (router, target Config, err error) {
	file := func(name string) string { return dir + "/" + name }
	config := func(name string) Config {
		return Config{Name: name, Files: Files{CA: file("ca.pem"), Cert: file(name + ".pem"), Key: file(name + ".key")}}
	}
	if err := CreateCA(dir); err != nil {
		return router, target, err
	}
	if err := IssueHost(dir, RoleRouter, "measure-router", time.Hour); err != nil {
		return router, target, err
	}
	if err := IssueHost(dir, RoleTarget, "measure-target", time.Hour); err != nil {
		return router, target, err
	}
	return config("measure-router"), config("measure-target"), nil
}

// Echo is a Handler that sends every message back: the other end of a Probe.
type Echo struct{}

// Up implements Handler.
func (Echo) Up(*Peer) {}

// Down implements Handler.
func (Echo) Down(*Peer, error) {}

// Message implements Handler. A lost answer ends the measurement by its time limit.
func (Echo) Message(p *Peer, e *Envelope) { _ = p.Send(e) }

// Probe is a Server's Handler that times round trips to the one target host that connects, whose Handler is Echo. It is
// for one goroutine. Make it with NewProbe.
type Probe struct{ arrived chan struct{} } // the stream is up, or an answer has come

// NewProbe returns a Probe for a new Server.
func NewProbe() Probe { return Probe{arrived: make(chan struct{}, 1)} }

// Up implements Handler.
func (p Probe) Up(*Peer) { p.arrived <- struct{}{} }

// Down implements Handler.
func (p Probe) Down(*Peer, error) {}

// Message implements Handler.
func (p Probe) Message(*Peer, *Envelope) { p.arrived <- struct{}{} }

// Await waits until the target host is connected, at most 5 s: ErrDead.
func (p Probe) Await(ctx context.Context) error {
	if err := p.wait(ctx); err != nil {
		return fmt.Errorf("wait for the stream: %w", err)
	}
	return nil
}

// RoundTrip sends a commit with a record of size octets and returns how long its echo took: until this goroutine runs
// again. An echo that does not come within 5 s is ErrDead.
func (p Probe) RoundTrip(ctx context.Context, s *Server, target string, size int) (time.Duration, error) {
	message := &Envelope{Message: &Envelope_Commit{Commit: &Commit{Transfer: 1, Record: make([]byte, size)}}}
	begin := time.Now()
	if err := s.Send(target, message); err != nil {
		return 0, err
	}
	if err := p.wait(ctx); err != nil {
		return 0, fmt.Errorf("wait for an answer: %w", err)
	}
	return time.Since(begin), nil
}

// measure waits for the stream and times n round trips.
func (p Probe) measure(ctx context.Context, server *Server, target string, n, size int) (RoundTrips, error) {
	if err := p.Await(ctx); err != nil {
		return nil, err
	}
	trips := make(RoundTrips, 0, n)
	for range n {
		trip, err := p.RoundTrip(ctx, server, target, size)
		if err != nil {
			return nil, err
		}
		trips = append(trips, trip)
	}
	slices.Sort(trips)
	return trips, nil
}

// wait waits for the next thing to arrive, within handshakeTime.
func (p Probe) wait(ctx context.Context) error {
	limit := time.NewTimer(handshakeTime)
	defer limit.Stop()
	select {
	case <-p.arrived:
		return nil
	case <-limit.C:
		return ErrDead
	case <-ctx.Done():
		return ctx.Err()
	}
}
