package target

import (
	"context"
	"errors"
	"time"

	"baton/control/transfer"
)

// runImport makes a connection and tells the machine. Where it can be, it is made at once, by the goroutine that has
// read the commit; only a full accept queue is waited for elsewhere.
func (a *Agent) runImport(i transfer.Import) {
	a.mu.Lock()
	ctx, cancel := context.WithTimeout(a.stopping, time.Duration(a.config.Limits.BacklogRetry))
	a.running[attempt{i.Host, i.Transfer}] = cancel
	job, s := a.find(i.Record.Job, i.Record.Inc.Tuple)
	a.mu.Unlock()
	if job == nil || s == nil {
		a.finish(i, Imported{}, ErrNotListening)
		return
	}
	if err := s.flows.put(flowOf(i)); err != nil {
		a.finish(i, Imported{}, err)
		return
	}
	now, stop := context.WithCancel(ctx)
	stop()
	done, err := s.importer.Import(now, &i.Record, listenerOf(*job))
	if !errors.Is(err, ErrBacklog) {
		a.finish(i, done, err)
		return
	}
	a.imports.Go(func() {
		done, err := s.importer.Import(ctx, &i.Record, listenerOf(*job))
		a.finish(i, done, err)
	})
}

func flowOf(i transfer.Import) Flow {
	r := &i.Record
	return Flow{
		Flow: transfer.Flow{
			Inc: r.Inc, Epoch: r.Epoch, Job: r.Job, Host: i.Host, Transfer: i.Transfer, RcvNxt: r.RcvNxt,
		},
		Since: time.Now(),
	}
}

// finish tells the machine, then the log: the routing host waits for the first only.
func (a *Agent) finish(i transfer.Import, done Imported, err error) {
	tuple := i.Record.Inc.Tuple
	outcome := outcomeImported
	if err != nil {
		reason := reasonOf(err)
		outcome = reason.String()
		a.mu.Lock()
		a.forget(i.Record.Inc)
		a.mu.Unlock()
		a.step(transfer.NotImported{Host: i.Host, Transfer: i.Transfer, Reason: reason, Detail: err.Error()})
		a.log.Warn("connection not imported", "client", tuple.Client, "service", tuple.Service, "job", i.Record.Job,
			"host", i.Host, "error", err)
	} else {
		// First the machine: an end that is seen before that is none to it, and the check below sees it again.
		a.step(transfer.Imported{Host: i.Host, Transfer: i.Transfer, RcvNxt: done.RcvNxt, Took: done.Took})
		a.keep(i, done)
		a.log.Debug("connection imported", "client", tuple.Client, "service", tuple.Service, "job", i.Record.Job,
			"host", i.Host, "took", done.Took, "leftovers", done.Killed, "retries", done.Retried)
	}
	a.mu.Lock()
	a.running[attempt{i.Host, i.Transfer}]()
	delete(a.running, attempt{i.Host, i.Transfer})
	a.outcomes[outcome]++
	a.mu.Unlock()
	if a.observe != nil {
		a.observe(outcome, done.Took)
	}
	a.checkEnd(tuple) // of a connection that was over at once, or of a leftover that was removed for nothing
}

// keep notes that the flow is here now. It is pinned already.
func (a *Agent) keep(i transfer.Import, done Imported) {
	flow := flowOf(i)
	a.mu.Lock()
	defer a.mu.Unlock()
	if job, _ := a.find(flow.Job, flow.Inc.Tuple); job != nil {
		a.hold(liveFlow{flow, job.Netns, done.Cookie})
	}
}

// reasonOf is an import's error as a routing host is told.
func reasonOf(err error) transfer.Reason {
	switch {
	case errors.Is(err, ErrNotListening):
		return transfer.ReasonNotListening
	case errors.Is(err, ErrBacklog):
		return transfer.ReasonCapacity
	case errors.Is(err, ErrLeftover):
		return transfer.ReasonLeftover
	case errors.Is(err, ErrSwallowed):
		return transfer.ReasonHost
	}
	return transfer.ReasonImport
}
