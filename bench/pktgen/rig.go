package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"baton/cgo"
)

// rig is an open generator. One goroutine uses it.
type rig struct {
	*cgo.Generator
	options *options
	out     *output
	config  *cgo.GeneratorConfig
	ports   *cgo.Forwarder // has the ports; never polled
	hz      float64
	line    float64 // frames per second of the link; 0: unknown
	trials  []Trial
	sum     []uint64 // histogram of all trials
}

// resolveTime is how long the next hop may take to answer.
const resolveTime = 5 * time.Second

func openRig(ctx context.Context, o *options, w *output) (*rig, error) {
	if !cgo.HasDPDK {
		return nil, errors.New("built without DPDK (-tags dpdk)")
	}
	r := &rig{options: o, out: w, hz: cgo.CyclesPerSecond()}
	var err error
	if r.config, err = o.config(r.hz); err != nil {
		return nil, err
	}
	if err := r.openPorts(); err != nil {
		return nil, err
	}
	if r.config.SrcMAC == [6]byte{} {
		r.config.SrcMAC = r.ports.Port(0).MAC
	}
	if r.Generator, err = cgo.OpenGenerator(r.ports, r.config, r.hz); err != nil {
		r.ports.Close()
		return nil, fmt.Errorf("open generator: %w", err)
	}
	if err := r.LaunchOnLcore(); err != nil {
		r.free()
		return nil, fmt.Errorf("start the loop: %w", err)
	}
	if err := r.resolve(ctx); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// openPorts opens the devices as ports of a forwarder that does nothing else.
func (r *rig) openPorts() error {
	args, err := r.options.ealArgs()
	if err != nil {
		return err
	}
	if err := cgo.StartEAL(args); err != nil {
		return fmt.Errorf("start DPDK with %v: %w", args, err)
	}
	r.ports, err = cgo.Open(&cgo.Config{IPv4Entries: 1, IPv6Entries: 1, RouterFlows: 1, HeldPackets: 1,
		PortCount: uint32(len(r.options.devices))}, nil)
	if err != nil {
		return fmt.Errorf("prepare ports: %w", err)
	}
	for i, d := range r.options.devices {
		if err := r.ports.OpenDPDK(uint16(i), ethdevName(d)); err != nil {
			r.ports.Close()
			return fmt.Errorf("open %s: %w", d, err)
		}
	}
	bits := float64(cgo.LinkSpeed(ethdevName(r.options.devices[0]))) * 1e6
	if r.options.lineRate != "" {
		if bits, err = parseNumber(r.options.lineRate); err != nil {
			r.ports.Close()
			return fmt.Errorf("--line-rate: %w", err)
		}
	}
	r.line = lineFrames(bits, r.config.Sizes[:r.config.SizeCount])
	return nil
}

// resolve finds the MAC address of --gateway.
func (r *rig) resolve(ctx context.Context) error {
	if r.options.gateway == "" {
		return nil
	}
	gateway, err := netip.ParseAddr(r.options.gateway)
	if err != nil || !gateway.Is4() {
		return fmt.Errorf("--gateway %q is no IPv4 address", r.options.gateway)
	}
	own := uint32(r.config.Client.Lo)
	if r.options.own != "" {
		addr, err := netip.ParseAddr(r.options.own)
		if err != nil || !addr.Is4() {
			return fmt.Errorf("--own %q is no IPv4 address", r.options.own)
		}
		own = uint32(toIP(addr).Lo)
	}
	r.Resolve(own, uint32(toIP(gateway).Lo))
	ctx, cancel := context.WithTimeout(ctx, resolveTime)
	defer cancel()
	for {
		if _, ok := r.Resolved(); ok {
			return nil
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return fmt.Errorf("%v does not answer ARP: %w", gateway, err)
		}
	}
}

func (r *rig) close() {
	r.JoinLcore()
	r.free()
}

// free gives back everything but the loop.
func (r *rig) free() {
	r.Close()
	r.ports.Close()
}

// rate reads a rate of the command line.
func (r *rig) rate(text string) (float64, error) {
	pps, err := parseRate(text, r.line)
	if err != nil {
		return 0, fmt.Errorf("--rate %s: %w", text, err)
	}
	return pps, nil
}

// exactTrial sends exactly what a rate has in a trial's time.
func (r *rig) exactTrial(ctx context.Context, pps float64) (Trial, error) {
	return r.trial(ctx, pps, max(1, uint64(pps*r.options.duration.Seconds())))
}

// trial sends at a rate (0: as fast as it goes) for the configured time, or count frames if count is not 0, and waits
// for what is still under way. The rig remembers it.
func (r *rig) trial(ctx context.Context, pps float64, count uint64) (Trial, error) {
	b := r.begin(pps, count)
	err := r.watch(ctx, b.at, count)
	t := r.finish(ctx, b)
	r.trials = append(r.trials, t)
	r.out.trial(len(r.trials), t)
	return t, err
}

// begun is a trial under way.
type begun struct {
	pps       float64
	at        time.Time
	counters  map[string]uint64 // before
	histogram []uint64          // before
}

func (r *rig) begin(pps float64, count uint64) begun {
	b := begun{pps, time.Now(), r.Counters(), r.Latencies(nil)}
	r.Start(pps, count)
	return b
}

// finish stops and waits for what is under way.
func (r *rig) finish(ctx context.Context, b begun) Trial {
	r.Stop()
	took := time.Since(b.at)
	r.drain(ctx)
	histogram := r.Latencies(nil)
	for i, n := range b.histogram {
		histogram[i] -= n
	}
	if r.sum == nil {
		r.sum = make([]uint64, len(histogram))
	}
	for i, n := range histogram {
		r.sum[i] += n
	}
	return newTrial(r.config.Kind, b.pps, took, difference(b.counters, r.Counters()), histogram, r.hz)
}

// difference is what counters grew by; the largest latency is one of the trial's own.
func difference(before, after map[string]uint64) map[string]uint64 {
	d := map[string]uint64{}
	for name, n := range after {
		d[name] = n - before[name]
	}
	d["latency_max"] = after["latency_max"]
	return d
}

// watch prints progress until the trial's time is over, or its frames are sent. An interrupt ends it early and is no
// error of a trial without a count.
func (r *rig) watch(ctx context.Context, began time.Time, count uint64) error {
	second, last := time.Second, r.Counters()
	for at := began; ; {
		if count > 0 && !r.Sending() {
			return nil
		}
		left := r.options.duration - time.Since(began)
		if count > 0 { // a rate that is not reached takes longer; not without end
			left += r.options.duration + 2*time.Second
		}
		if left <= 0 {
			return nil
		}
		step := min(left, second)
		if count > 0 {
			step = min(step, 5*time.Millisecond)
		}
		if err := pause(ctx, step); err != nil {
			if count == 0 && errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		}
		if now := time.Now(); now.Sub(at) >= second {
			counters := r.Counters()
			r.out.live(now.Sub(began), now.Sub(at), difference(last, counters))
			at, last = now, counters
		}
	}
}

// drain waits until nothing comes any more, but no longer than --drain, nor after an interrupt.
func (r *rig) drain(ctx context.Context) {
	const quiet = 100 * time.Millisecond
	last := r.Counters()["rx"]
	for end := time.Now().Add(r.options.drain); time.Now().Before(end); {
		if pause(ctx, min(quiet, r.options.drain)) != nil {
			return
		}
		rx := r.Counters()["rx"]
		if rx == last {
			return
		}
		last = rx
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
