package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"baton/cmd/internal/daemon"
	"baton/control/config"
	"baton/control/password"
	"baton/control/router"
)

// passwords are the pools that check them, one for each service where clients log in with the routing host.
type passwords []*password.Pool

// openPasswords makes the pools, and has the services ask them.
func openPasswords(cfg *config.Router, rc *router.Config, log *slog.Logger) (all passwords, err error) {
	for i, s := range services(cfg) { // in the order of rc.Services
		w := s.port.Passwords()
		if s.port.Conventional() || !w.Given() {
			continue
		}
		checker, err := checkerOf(w, log)
		if err != nil {
			return nil, fmt.Errorf("service %s: %w", s.addr, err)
		}
		p := password.NewPool(checker, s.port.Protocol, w.Parallel, time.Duration(w.Timeout), log)
		rc.Services[i].Passwords, rc.Services[i].WrongDelay = p, time.Duration(w.Delay)
		all = append(all, p)
	}
	return all, nil
}

func checkerOf(w *config.Passwords, log *slog.Logger) (password.Checker, error) {
	if w.File == "" {
		return password.NewHTTP(w.HTTP, w.Parallel), nil
	}
	return password.OpenFile(w.File, log)
}

// run checks passwords until ctx ends.
func (p passwords) run(ctx context.Context) error {
	var parts []func(context.Context) error
	for _, pool := range p {
		parts = append(parts, pool.Run)
	}
	return daemon.Together(ctx, parts...)
}
