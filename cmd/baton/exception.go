package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"baton/cmd/internal/daemon"
	"baton/control/exception"
	"baton/control/router"
)

// openExceptions makes the ways to the kernel that the configuration wants.
func (d *routingHost) openExceptions(rc *router.Config) error {
	d.kernel = map[uint16]*exception.Path{}
	for i, port := range d.forwarder.Ports() {
		if !d.cfg.Data.Ports[i].TAP() {
			continue
		}
		path, err := exception.Open(fmt.Sprintf("baton%d", i), port.MAC, port.FrameMax-ethernetLen)
		if err != nil {
			return errors.Join(fmt.Errorf("exception path of data port %d: %w", i, err), d.closeExceptions())
		}
		d.kernel[uint16(i)] = path
	}
	if len(d.kernel) == 0 {
		return nil
	}
	rc.Kernel = func(port uint16, frame []byte) bool {
		path := d.kernel[port]
		return path != nil && path.Give(frame)
	}
	return nil
}

const ethernetLen = 14

func (d *routingHost) closeExceptions() error {
	var errs []error
	for _, path := range d.kernel {
		errs = append(errs, path.Close())
	}
	return errors.Join(errs...)
}

// runExceptions carries frames between the data ports and the kernel.
func (d *routingHost) runExceptions(ctx context.Context) error {
	parts := []func(context.Context) error{waitFor}
	for _, port := range slices.Sorted(maps.Keys(d.kernel)) {
		path := d.kernel[port]
		d.log.Info("kernel has a data port", "port", port, "interface", path.Name())
		parts = append(parts, func(ctx context.Context) error {
			return path.Run(ctx, func(frame []byte) error { return d.router.FromKernel(ctx, port, frame) },
				d.router.KernelRefused)
		})
	}
	return daemon.Together(ctx, parts...)
}

// waitFor is a part that only waits for the end.
func waitFor(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
