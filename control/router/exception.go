package router

import (
	"context"

	"baton/fastpath/flow"
)

// exception gives a frame to the host's kernel.
func (r *Router) exception(p *flow.Punt) {
	if r.cfg.Kernel != nil && r.cfg.Kernel(p.Port, p.Frame) {
		r.count.Exceptions++
	} else {
		r.count.ExceptionsLost++
	}
}

// FromKernel sends a frame of the host's kernel on a data port, and returns when the loop has taken it. One that the
// data plane has no room for is lost, as on a network. Safe from any goroutine.
func (r *Router) FromKernel(ctx context.Context, port uint16, frame []byte) error {
	return r.Do(ctx, func() {
		if err := r.dp.Transmit(port, frame); err != nil {
			r.count.FramesLost++
			return
		}
		r.count.KernelFrames++
	})
}

// KernelRefused counts a frame that the host's kernel did not take after all. Safe from any goroutine.
func (r *Router) KernelRefused() {
	r.post(event{kind: call, call: func() { r.count.ExceptionsLost++ }})
}
