package password

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"baton/control/inspect"
)

// Question is a login to check.
type Question struct {
	inspect.Login
	Protocol string // "pop3", "imap" or "smtp"
	Client   netip.AddrPort
}

// Checker knows passwords. It is safe for concurrent use.
type Checker interface {
	// Check says whether a password is Right or Wrong. It ends with the context, if not before. With an error, which has no
	// secrets, the outcome is Failed.
	Check(context.Context, Question) (inspect.Outcome, error)
}

// waiting is how many logins wait for each goroutine of a pool at most.
const waiting = 16

// Pool checks the logins of one service. It implements router.Passwords.
type Pool struct {
	checker  Checker
	protocol string
	timeout  time.Duration
	workers  int
	tasks    chan task
	health   health
}

type task struct {
	question Question
	by       time.Time
	answer   func(inspect.Outcome)
}

// NewPool makes a pool that lets so many checks, each of which takes no longer than the timeout, be under way at once. It
// does nothing before Run.
func NewPool(c Checker, protocol string, workers int, timeout time.Duration, log *slog.Logger) *Pool {
	return &Pool{checker: c, protocol: protocol, timeout: timeout, workers: workers,
		tasks: make(chan task, waiting*workers), health: health{log: log}}
}

// Check begins to check a login, and calls answer once from another goroutine. It reports false if there is no room for it.
// Safe for concurrent use.
func (p *Pool) Check(l inspect.Login, client netip.AddrPort, answer func(inspect.Outcome)) bool {
	select {
	case p.tasks <- task{Question{l, p.protocol, client}, time.Now().Add(p.timeout), answer}:
		return true
	default:
		return false
	}
}

// Run checks until ctx ends. What waits then is never answered.
func (p *Pool) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for range p.workers {
		all.Go(func() { p.work(ctx) })
	}
	all.Wait()
	return nil
}

func (p *Pool) work(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case t := <-p.tasks:
			t.answer(p.check(ctx, t))
		}
	}
}

// check checks a login, unless its time is over.
func (p *Pool) check(ctx context.Context, t task) inspect.Outcome {
	ctx, cancel := context.WithDeadline(ctx, t.by)
	defer cancel()
	err := ctx.Err()
	outcome := inspect.Failed
	if err == nil {
		outcome, err = p.checker.Check(ctx, t.question)
	}
	p.health.note(p.protocol, err)
	if err != nil {
		return inspect.Failed
	}
	return outcome
}

// health logs when checks begin to fail, and when that is over.
type health struct {
	log *slog.Logger
	mu  sync.Mutex
	ill bool
}

func (h *health) note(protocol string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case err != nil && !h.ill:
		h.log.Error("passwords cannot be checked", "protocol", protocol, "err", err)
	case err == nil && h.ill:
		h.log.Info("passwords can be checked again", "protocol", protocol)
	}
	h.ill = err != nil
}
