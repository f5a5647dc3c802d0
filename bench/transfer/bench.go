package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"baton/bench/judge"
	"baton/bench/lab"
	"baton/control/admin"
	"baton/fastpath/wire"
)

const (
	site      = "a.example" // the Host that is asked for
	job       = "web"       // that serves it
	bodySize  = 1 << 10     // octets of the file that is fetched
	startTime = 30 * time.Second
	// batch is how many rounds are made before the router is asked for its transfers, of which it keeps the last 1024.
	batch = 250
	// newest is how long after the last fetch of a batch its transfer may be missing from the router's list.
	newest = 5 * time.Second
)

// way is how connections are handed over.
type way struct {
	transfer    string // of the DVIPA's port: offered or unconditional
	application string // of the job: conventional, or ask, which is answered over a control socket
}

// The ways that are measured. The first is the usual one.
var (
	offered       = way{"offered", "conventional"}
	asked         = way{"offered", "ask"}
	unconditional = way{"unconditional", "conventional"}
)

// bench is a laboratory ready to measure in.
type bench struct {
	options
	lab     *lab.Lab
	baton   *lab.Baton
	client  *client
	direct  netip.AddrPort // nginx by the target's own address
	virtual netip.AddrPort // nginx by the DVIPA
	target  wire.MAC
	trips   *trips
	series  series
}

// round is what was measured in one round.
type round struct {
	baton, direct fetched
	trip          time.Duration
}

// fetched is one fetch.
type fetched struct {
	local netip.AddrPort // the client's end
	took  time.Duration
	// When frames passed the client's interface: its SYN, the SYN-ACK, its request, the target's first octet.
	syn, synAck, asked, answered time.Time
}

func newBench(ctx context.Context, l *lab.Lab, o options, w way) (*bench, error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	host := l.Targets[0]
	b := &bench{options: o, lab: l,
		direct:  netip.AddrPortFrom(host.Data.Addr(), 80),
		virtual: netip.AddrPortFrom(lab.DVIPA, 80),
		client:  newClient(fmt.Sprintf("/static/data-%d", bodySize), lab.Data(bodySize), host.Name),
	}
	if _, err := l.File(bodySize); err != nil {
		return nil, err
	}
	if _, err := host.Nginx(ctx, lab.ServerOptions{}); err != nil {
		return nil, err
	}
	var err error
	if b.target, err = host.MAC(); err != nil {
		return nil, err
	}
	cluster := lab.Cluster{Device: o.device, LogLevel: "info", IdleSleep: o.idleSleep, Transfer: w.transfer,
		Applications: w == asked, Rules: []lab.Rule{{Host: site, Job: job}},
		Jobs: []lab.Job{{Name: job, Hosts: []string{host.Name}, Application: w.application}}}
	if w == asked {
		if err := startApplication(host); err != nil {
			return nil, err
		}
	}
	if b.baton, err = l.Baton(ctx, o.bin, cluster); err != nil {
		return nil, err
	}
	b.trips, err = startTrips(ctx, l)
	return b, err
}

func (b *bench) stop() error { return b.trips.stop() }

// run warms up and measures, batch by batch.
func (b *bench) run(ctx context.Context) (*series, error) {
	if _, err := b.batch(ctx, b.warmup); err != nil {
		return nil, err
	}
	b.series = series{}
	for left := b.rounds; left > 0; left -= batch {
		if err := b.measured(ctx, min(left, batch)); err != nil {
			return nil, err
		}
	}
	return &b.series, nil
}

// measured makes n rounds and adds all that can be known of them.
func (b *bench) measured(ctx context.Context, n int) error {
	rounds, err := b.batch(ctx, n)
	if err != nil {
		return err
	}
	transfers, err := b.transfers(ctx, rounds)
	if err != nil {
		return err
	}
	for _, r := range rounds {
		b.series.add(r, transfers[r.baton.local.String()])
	}
	return nil
}

// batch makes n rounds under a capture.
func (b *bench) batch(ctx context.Context, n int) ([]round, error) {
	capture, err := b.lab.Client.Capture()
	if err != nil {
		return nil, err
	}
	rounds := make([]round, n)
	err = b.lab.Client.Do(func() error {
		for i := range rounds {
			if err := b.round(ctx, &rounds[i], i); err != nil {
				return err
			}
		}
		return nil
	})
	frames, stopErr := capture.Stop(ctx)
	if err := errors.Join(err, stopErr); err != nil {
		return nil, fmt.Errorf("%w; the routing host's log ends: %s", err, lastLine(b.baton.Router.Log()))
	}
	return rounds, b.find(rounds, frames)
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// round measures everything once. Which of the fetches is the first alternates.
func (b *bench) round(ctx context.Context, r *round, i int) (err error) {
	baton := func() error {
		r.baton.took, r.baton.local, err = b.client.fetch(b.virtual)
		return err
	}
	direct := func() error {
		r.direct.took, r.direct.local, err = b.client.fetch(b.direct)
		return err
	}
	trip := func() error {
		r.trip, err = b.trips.one(ctx)
		return err
	}
	parts := []func() error{baton, direct, trip}
	if i%2 == 1 {
		parts = []func() error{direct, baton, trip}
	}
	for _, part := range parts {
		time.Sleep(b.pause)
		if err := errors.Join(ctx.Err(), part()); err != nil {
			return fmt.Errorf("round %d: %w", i, err)
		}
	}
	return nil
}

// find looks up when the frames of each fetch passed the client's interface.
func (b *bench) find(rounds []round, c judge.Capture) error {
	if c.Lost > 0 {
		return fmt.Errorf("the capture lost %d frames", c.Lost)
	}
	fetches := make(map[wire.Tuple]*fetched, 2*len(rounds))
	for i := range rounds {
		r := &rounds[i]
		fetches[wire.Tuple{Client: r.baton.local, Service: b.virtual}] = &r.baton
		fetches[wire.Tuple{Client: r.direct.local, Service: b.direct}] = &r.direct
	}
	for _, frame := range c.Frames {
		f, err := wire.ParseTCP(frame.Data)
		if err != nil {
			continue // ARP
		}
		if r := fetches[wire.Tuple{Client: f.Src, Service: f.Dst}]; r != nil {
			r.sent(&f, frame.Time)
		} else if r := fetches[wire.Tuple{Client: f.Dst, Service: f.Src}]; r != nil {
			r.received(&f, frame.Time, b.target)
		}
	}
	for tuple, r := range fetches {
		if r.syn.IsZero() || r.synAck.Before(r.syn) || r.asked.Before(r.synAck) || r.answered.Before(r.asked) {
			return fmt.Errorf("%v: the capture lacks the handshake, the request or the target's answer", tuple)
		}
	}
	return nil
}

// sent takes in a frame of the client. What is repeated counts from the first time on.
func (r *fetched) sent(f *wire.Frame, at time.Time) {
	switch {
	case f.Segment.Flags.Has(wire.SYN) && r.syn.IsZero():
		r.syn = at
	case len(f.Segment.Payload) > 0 && r.asked.IsZero():
		r.asked = at
	}
}

// received takes in a frame for the client.
func (r *fetched) received(f *wire.Frame, at time.Time, target wire.MAC) {
	switch {
	case f.Segment.Flags.Has(wire.SYN) && r.synAck.IsZero():
		r.synAck = at
	case len(f.Segment.Payload) > 0 && f.Link.Src == target && r.answered.IsZero():
		r.answered = at
	}
}

// transfers asks the router for the transfers of the rounds, by the client's end. The last one may still be under way.
func (b *bench) transfers(ctx context.Context, rounds []round) (map[string]admin.Transfer, error) {
	ctx, cancel := context.WithTimeout(ctx, newest)
	defer cancel()
	found := make(map[string]admin.Transfer, len(rounds))
	err := lab.Until(ctx, "the router lists the transfers", func() error {
		list, err := b.baton.Admin.Transfers(ctx)
		if err != nil {
			return err
		}
		for _, t := range list[:min(len(list), len(rounds))] { // newest first
			found[t.Client] = t
		}
		for _, r := range rounds {
			if t := found[r.baton.local.String()]; t.Outcome != "switched" {
				return fmt.Errorf("%v: outcome %q %s", r.baton.local, t.Outcome, t.Reason)
			}
		}
		return nil
	})
	return found, err
}
