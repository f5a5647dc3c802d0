package agent

import (
	"context"
	"time"

	"baton/control/transfer"
)

// runImport makes a connection and tells the machine. Where it can be, it is made at once, by the goroutine that has
// read the commit; what is full is waited for elsewhere.
func (a *Agent) runImport(i transfer.Import) {
	a.mu.Lock()
	ctx, cancel := context.WithTimeout(a.stopping, time.Duration(a.config.Limits.BacklogRetry))
	a.running[attempt{i.Host, i.Transfer}] = cancel
	a.mu.Unlock()
	now, stop := context.WithCancel(ctx)
	stop()
	done, problem := a.importer.Import(now, &i)
	if problem == nil || problem.Reason != transfer.ReasonCapacity {
		a.finish(i, done, problem)
		return
	}
	a.imports.Go(func() {
		done, problem := a.importer.Import(ctx, &i)
		a.finish(i, done, problem)
	})
}

// finish tells the machine, then the log: the routing host waits for the first only.
func (a *Agent) finish(i transfer.Import, done Imported, problem *Problem) {
	tuple := i.Record.Inc.Tuple
	outcome := outcomeImported
	if problem != nil {
		outcome = problem.Reason.String()
		a.step(transfer.NotImported{Host: i.Host, Transfer: i.Transfer, Reason: problem.Reason, Detail: problem.Detail})
		a.log.Warn("connection not imported", "client", tuple.Client, "service", tuple.Service, "job", i.Record.Job,
			"host", i.Host, "error", problem.Detail)
	} else {
		a.step(transfer.Imported{Host: i.Host, Transfer: i.Transfer, RcvNxt: done.RcvNxt, Took: done.Took})
		done.Known()
		if a.asks(Job{i.Record.Job, tuple.Service}) {
			a.config.Applications.Arrived(i.Host, i.Transfer)
		}
		a.log.Debug("connection imported", "client", tuple.Client, "service", tuple.Service, "job", i.Record.Job,
			"host", i.Host, "took", done.Took)
	}
	a.mu.Lock()
	a.running[attempt{i.Host, i.Transfer}]()
	delete(a.running, attempt{i.Host, i.Transfer})
	a.outcomes[outcome]++
	a.mu.Unlock()
	if a.config.Observe != nil {
		a.config.Observe(outcome, done.Took)
	}
}
