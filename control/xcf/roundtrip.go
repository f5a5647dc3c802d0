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
	answers := make(answers, 1)
	log := slog.New(slog.DiscardHandler)
	server, err := Listen("127.0.0.1:0", router, answers, log)
	if err != nil {
		cancel()
		return nil, err
	}
	dialer, err := NewDialer(target, []Router{{Host: router.Name, Address: server.Addr().String()}}, echo{}, log)
	if err != nil {
		cancel()
		return nil, errors.Join(err, server.Close())
	}
	served, dialed := make(chan error, 1), make(chan struct{})
	go func() { served <- server.Serve(ctx) }()
	go func() { dialer.Run(ctx); close(dialed) }()
	trips, err := answers.measure(ctx, server, target.Name, n, size)
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

// echo sends every message back.
type echo struct{}

func (echo) Up(*Peer)                     {}
func (echo) Down(*Peer, error)            {}
func (echo) Message(p *Peer, e *Envelope) { _ = p.Send(e) } // a lost answer ends the measurement by its time limit

// answers gets what comes back: a value for Up, and one for each answer.
type answers chan struct{}

func (a answers) Up(*Peer)                 { a <- struct{}{} }
func (a answers) Down(*Peer, error)        {}
func (a answers) Message(*Peer, *Envelope) { a <- struct{}{} }

// measure waits for the stream and times n round trips.
func (a answers) measure(ctx context.Context, server *Server, target string, n, size int) (RoundTrips, error) {
	if err := a.wait(ctx); err != nil {
		return nil, fmt.Errorf("wait for the stream: %w", err)
	}
	message := &Envelope{Message: &Envelope_Commit{Commit: &Commit{Transfer: 1, Record: make([]byte, size)}}}
	trips := make(RoundTrips, 0, n)
	for range n {
		begin := time.Now()
		if err := server.Send(target, message); err != nil {
			return nil, err
		}
		if err := a.wait(ctx); err != nil {
			return nil, fmt.Errorf("wait for an answer: %w", err)
		}
		trips = append(trips, time.Since(begin))
	}
	slices.Sort(trips)
	return trips, nil
}

// wait takes one value, within handshakeTime.
func (a answers) wait(ctx context.Context) error {
	limit := time.NewTimer(handshakeTime)
	defer limit.Stop()
	select {
	case <-a:
		return nil
	case <-limit.C:
		return ErrDead
	case <-ctx.Done():
		return ctx.Err()
	}
}
