package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"baton/bench/lab"
	"baton/control/app"
)

// dialPause is the wait between two looks whether the daemon is there.
const dialPause = 20 * time.Millisecond

// startApplication starts this program as the target application of the job, beside the host's nginx, which takes the
// connections: what is measured is the question and its answer, and not another server.
func startApplication(h *lab.Host) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	_, err = h.Start("application", self, "-accept", h.ControlSocket())
	return err
}

// acceptAll registers for the job, once the daemon is there, and takes every connection that it is offered.
func acceptAll(ctx context.Context, path string) error {
	s, err := dial(ctx, path)
	if err != nil {
		return err
	}
	defer s.Close()
	defer context.AfterFunc(ctx, func() { s.Close() })()
	err = s.Send(app.Message{Type: app.TypeRegister, Role: app.RoleTarget, Job: job, Name: "bench"})
	for err == nil {
		var m app.Message
		if m, _, err = s.Receive(); err != nil {
			break
		}
		switch m.Type {
		case app.TypeOffer:
			err = s.Send(app.Message{Type: app.TypeAccept, Transfer: m.Transfer})
		case app.TypeError:
			err = fmt.Errorf("%s: %s", m.Code, m.Detail)
		default: // registered, arrived
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// dial waits for the daemon, which starts after its applications.
func dial(ctx context.Context, path string) (*app.Socket, error) {
	for {
		s, err := app.Dial(path)
		if err == nil {
			return s, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-time.After(dialPause):
		}
	}
}
