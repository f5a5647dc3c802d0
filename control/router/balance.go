package router

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"baton/control/maglev"
	"baton/fastpath/flow"
)

// settleTime is how long after the start the router waits for targets that it has not heard of before it lets the Maglev
// tables decide about flows without an entry. A flow of a former process that was given to another target than its own
// would be lost; its segments are dropped until then, and its client sends them again.
const settleTime = 5 * time.Second

// ErrNoTarget says that no target of that name is configured.
var ErrNoTarget = errors.New("no such target")

// balance is what the forwarder was told about a conventional service. The forwarder picks the targets of connections; the
// router only keeps their set up to date.
type balance struct {
	service   *Service
	told      bool // published has been
	published []flow.Candidate
	recovers  bool // flows without an entry may go by the table: all targets have been there, or had their time
}

// addBalances begins to watch over the conventional services.
func (r *Router) addBalances(now time.Time) {
	for i := range r.cfg.Services {
		if s := &r.cfg.Services[i]; s.Distribution.Conventional() {
			r.balances = append(r.balances, &balance{service: s})
		}
	}
	r.settled = now.Add(settleTime)
	r.settling.Fire = func(time.Time) { r.rebalance() }
	if len(r.balances) > 0 {
		r.timers.Set(&r.settling, r.settled)
	}
}

// rebalance publishes the targets of each conventional service for which something has changed.
func (r *Router) rebalance() {
	for _, b := range r.balances {
		candidates, complete := r.balanced(b.service)
		recovers := b.recovers || complete || !r.now.Before(r.settled)
		if b.told && recovers == b.recovers && slices.Equal(candidates, b.published) {
			continue
		}
		b.told, b.recovers, b.published = true, recovers, candidates
		r.publish(b)
	}
}

// balanced are the targets that take new connections of a conventional service. complete says that there are no others
// that could.
func (r *Router) balanced(s *Service) (candidates []flow.Candidate, complete bool) {
	complete = true
	for _, host := range r.cfg.Jobs[s.Job] {
		t, weight := r.targets[host], s.weight(host)
		switch {
		case weight == 0:
		case t.unfit(s.Job, s) != "":
			complete = complete && t.draining
		default:
			candidates = append(candidates, flow.Candidate{Owner: t.owner, Weight: weight})
		}
	}
	slices.SortFunc(candidates, func(a, b flow.Candidate) int { return cmp.Compare(a.Owner, b.Owner) })
	return candidates, complete
}

// weight is a host's share of a conventional service, relative to the others'.
func (s *Service) weight(host string) uint16 {
	if w, given := s.Weights[host]; given {
		return w
	}
	return 1
}

func (r *Router) publish(b *balance) {
	targets := flow.Targets{Candidates: b.published, Recovers: b.recovers}
	if b.service.Distribution == flow.Maglev {
		table, err := r.maglevTable(b.published)
		if err != nil {
			r.log.Error("no table", "service", b.service.Address, "error", err)
			return
		}
		targets.Table = table
	}
	r.command(func() error { return r.dp.SetTargets(b.service.Address, targets) })
	r.log.Info("targets of new connections", "service", b.service.Address, "distribute", b.service.Distribution,
		"targets", r.names(b.published), "recovers", b.recovers)
}

// maglevTable makes the same table on each routing host: by the targets' names.
func (r *Router) maglevTable(candidates []flow.Candidate) ([]flow.OwnerID, error) {
	backends := make([]maglev.Backend, len(candidates))
	for i, c := range candidates {
		backends[i] = maglev.Backend{Name: r.byOwner[c.Owner].name, Weight: int(c.Weight)}
	}
	places, err := maglev.Table(maglev.Size, backends)
	if err != nil {
		return nil, err
	}
	table := make([]flow.OwnerID, len(places))
	for i, p := range places {
		table[i] = candidates[p].Owner
	}
	return table, nil
}

func (r *Router) names(candidates []flow.Candidate) []string {
	names := make([]string, len(candidates))
	for i, c := range candidates {
		names[i] = r.byOwner[c.Owner].name
	}
	return names
}

// Drain makes a target take no new connections of any service, or again; those that it has stay. It lasts until the
// process ends. Safe from any goroutine. Errors wrap ErrNoTarget, or are those of Do.
func (r *Router) Drain(ctx context.Context, host string, drain bool) (err error) {
	doErr := r.Do(ctx, func() {
		t := r.targets[host]
		if t == nil {
			err = fmt.Errorf("%w: %q", ErrNoTarget, host)
			return
		}
		if t.draining != drain {
			r.log.Info("drain", "target", host, "drain", drain)
		}
		t.draining = drain
		r.rebalance()
	})
	return cmp.Or(doErr, err)
}

// ServiceStatus is a service and one target of its job; of a content-routed one there is a row for each job.
type ServiceStatus struct {
	Service *Service
	Job     string
	Host    string
	Owner   flow.OwnerID
	Weight  uint16 // of conventional services
	Unfit   string // why it gets no new connections; "" is that it does
}

// Services asks the loop who serves what. Safe from any goroutine.
func (r *Router) Services(ctx context.Context) ([]ServiceStatus, error) {
	var all []ServiceStatus
	err := r.Do(ctx, func() {
		for i := range r.cfg.Services {
			all = append(all, r.serviceStatus(&r.cfg.Services[i])...)
		}
	})
	return all, err
}

func (r *Router) serviceStatus(s *Service) (rows []ServiceStatus) {
	if !s.Distribution.Conventional() {
		return []ServiceStatus{{Service: s}}
	}
	for _, host := range r.cfg.Jobs[s.Job] {
		t := r.targets[host]
		row := ServiceStatus{Service: s, Job: s.Job, Host: host, Owner: t.owner, Weight: s.weight(host),
			Unfit: t.unfit(s.Job, s)}
		if row.Weight == 0 && row.Unfit == "" {
			row.Unfit = "weight 0"
		}
		rows = append(rows, row)
	}
	return rows
}
