package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"baton/bench/lab"
	"baton/control/app"
)

// Sizes of a run.
const (
	addresses  = 8  // of clients
	concurrent = 64 // clients at work at the same time
	steps      = 10 // reports of how far it is
)

// services are two ports of the DVIPA, each with a job whose targets are asked in another order.
var services = []struct {
	port  uint16
	job   string
	hosts []string
}{
	{80, "forth", []string{"t1", "t2"}},
	{81, "back", []string{"t2", "t1"}},
}

// orderOf is in which order the targets of a service are asked.
func orderOf(service netip.AddrPort) []string {
	for _, s := range services {
		if s.port == service.Port() {
			return s.hosts
		}
	}
	return nil
}

// soak is a run.
type soak struct {
	lab          *lab.Lab
	baton        *lab.Baton
	resets       *lab.ResetCounter
	fate         fate
	connections  int
	clients      []netip.Addr
	applications []*app.Listener
	fail         context.CancelCauseFunc

	next, done atomic.Int64
	rejected   [3]atomic.Int64 // connections, by how many applications rejected them
}

func main() {
	lab.RunWatcher()
	n := flag.Int("n", 100_000, "connections, at most 400000")
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "of what is rejected and said")
	rate := flag.Float64("rate", 0.3, "share of the offers that an application rejects, 0 to 1")
	bin := flag.String("bin", "bin", "directory of baton and baton-target")
	hugepages := flag.Int("hugepages", 0, "2 MiB hugepages to reserve for the forwarder; 0: it does without any")
	flag.Parse()
	if *n < 1 || *n > addresses*50_000 {
		fmt.Fprintln(os.Stderr, "soak-reject: -n: want 1 to 400000")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s := &soak{connections: *n, fate: fate{*seed, *rate}}
	if err := s.run(ctx, *bin, *hugepages); err != nil {
		stop()
		fmt.Fprintf(os.Stderr, "soak-reject: seed %d: %v\n", *seed, err)
		os.Exit(1)
	}
}

// run builds, soaks, checks, and prints the summary.
func (s *soak) run(ctx context.Context, bin string, hugepages int) (err error) {
	ctx, s.fail = context.WithCancelCause(ctx)
	defer s.fail(nil)
	if err := lab.CleanupStale(); err != nil {
		return err
	}
	if s.lab, err = lab.New(lab.Options{Targets: 2, Hugepages: hugepages}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.lab.Close()) }()
	if err := s.start(ctx, bin); err != nil {
		return err
	}
	if s.resets, err = s.lab.Client.CountResets(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.resets.Close()) }()
	if err := s.provoke(ctx); err != nil {
		return err
	}
	began := time.Now()
	if err := s.soak(ctx); err != nil {
		return err
	}
	took := time.Since(began)
	if err := s.counted(ctx); err != nil {
		return err
	}
	fmt.Printf("soak-reject ok: %d connections, %d rejected once, %d rejected by all, 0 resets, %.0f s\n", s.done.Load(),
		s.rejected[1].Load(), s.rejected[2].Load(), took.Seconds())
	return nil
}

// start gives the client its addresses, and starts daemons and applications.
func (s *soak) start(ctx context.Context, bin string) (err error) {
	first := s.lab.Client.Data
	s.clients = []netip.Addr{first.Addr()}
	for len(s.clients) < addresses {
		next := s.clients[len(s.clients)-1].Next()
		s.clients = append(s.clients, next)
		_, err := s.lab.Client.Run(ctx, "ip", "addr", "add", netip.PrefixFrom(next, first.Bits()).String(), "dev", lab.DataInterface)
		if err != nil {
			return err
		}
	}
	if s.baton, err = s.lab.Launch(ctx, bin, cluster()); err != nil {
		return err
	}
	for _, h := range s.lab.Targets {
		for _, v := range services {
			if err := s.startApplication(h, v.job, int(v.port)); err != nil {
				return err
			}
		}
	}
	return s.baton.Ready(ctx)
}

// cluster has what a full run needs, and patience with a busy machine.
func cluster() lab.Cluster {
	c := lab.Cluster{Applications: true, LogLevel: "warn", Entries: 1 << 18, Request: patience, Offer: patience, Confirm: patience,
		GiveUp: 2 * patience}
	for i, v := range services {
		section := "protocol: http\nhttp: { default: " + v.job + " }"
		c.Jobs = append(c.Jobs, lab.Job{Name: v.job, Hosts: v.hosts, Port: int(v.port), Application: "ask"})
		if i == 0 {
			c.Section = section
		} else {
			c.Services = append(c.Services, lab.Service{Port: int(v.port), Section: section})
		}
	}
	return c
}

// soak makes the connections, and waits until nothing is left of them.
func (s *soak) soak(ctx context.Context) error {
	before, err := s.use(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for range concurrent {
		all.Go(func() {
			if err := s.worker(ctx); err != nil {
				cancel(err)
			}
		})
	}
	finished := make(chan struct{})
	go func() { all.Wait(); close(finished) }()
	warm, err := s.watch(ctx, finished)
	if err != nil {
		cancel(err)
	}
	<-finished
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return s.settled(ctx, before, warm)
}

// watch reports how far it is, until it is finished or there was a reset, and returns what the daemons use after the first step.
func (s *soak) watch(ctx context.Context, finished <-chan struct{}) (warm use, err error) {
	began, step := time.Now(), 1
	for {
		select {
		case <-finished:
			if warm.daemons == nil { // it was too short to look before
				return s.use(ctx)
			}
			return warm, nil
		case <-time.After(100 * time.Millisecond):
		}
		if err := s.noReset(); err != nil {
			return warm, err
		}
		done := int(s.done.Load())
		if done < step*s.connections/steps {
			continue
		}
		u, err := s.use(ctx)
		if err != nil {
			return warm, err
		}
		if step == 1 {
			warm = u
		}
		fmt.Printf("%d connections, %.0f/s; %v\n", done, float64(done)/time.Since(began).Seconds(), u)
		step++
	}
}
