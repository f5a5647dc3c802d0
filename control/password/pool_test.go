package password

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"baton/control/inspect"
)

// checkFunc is a Checker.
type checkFunc func(context.Context, Question) (inspect.Outcome, error)

func (f checkFunc) Check(ctx context.Context, q Question) (inspect.Outcome, error) { return f(ctx, q) }

// running is a pool that runs until the test ends.
func running(t *testing.T, workers int, timeout time.Duration, f checkFunc) (*Pool, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	p := NewPool(f, "pop3", workers, timeout, slog.New(slog.NewTextHandler(&log, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		if err := p.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); done.Wait() })
	return p, &log
}

// outcome waits for the outcome of a login.
func outcome(t *testing.T, p *Pool, user string) inspect.Outcome {
	t.Helper()
	answer := make(chan inspect.Outcome, 1)
	if !p.Check(inspect.Login{User: user, Password: "hush"}, question.Client, func(o inspect.Outcome) { answer <- o }) {
		t.Fatal("no room")
	}
	return <-answer
}

func TestPoolAnswers(t *testing.T) {
	errDown := errors.New("down")
	p, log := running(t, 2, time.Minute, func(_ context.Context, q Question) (inspect.Outcome, error) {
		switch {
		case q.Protocol != "pop3" || q.Client != question.Client || q.Password != "hush":
			return inspect.Failed, errors.New("another question")
		case q.User == "down":
			return inspect.Right, errDown
		case q.User == "ann":
			return inspect.Right, nil
		}
		return inspect.Wrong, nil
	})
	for _, row := range []struct {
		user string
		want inspect.Outcome
	}{{"ann", inspect.Right}, {"eve", inspect.Wrong}, {"down", inspect.Failed}, {"down", inspect.Failed}, {"ann", inspect.Right}} {
		if got := outcome(t, p, row.user); got != row.want {
			t.Errorf("%s: %d, want %d", row.user, got, row.want)
		}
	}
	text := log.String()
	if strings.Count(text, "cannot be checked") != 1 || strings.Count(text, "checked again") != 1 || strings.Contains(text, "hush") {
		t.Errorf("log:\n%s", text)
	}
}

func TestPoolIsBounded(t *testing.T) {
	const workers = 2
	release, busy := make(chan struct{}), make(chan struct{}, workers)
	p, _ := running(t, workers, time.Minute, func(context.Context, Question) (inspect.Outcome, error) {
		busy <- struct{}{}
		<-release
		return inspect.Right, nil
	})
	var answers sync.WaitGroup
	ask := func() bool {
		answers.Add(1)
		ok := p.Check(inspect.Login{}, question.Client, func(inspect.Outcome) { answers.Done() })
		if !ok {
			answers.Done()
		}
		return ok
	}
	for range workers {
		if !ask() {
			t.Fatal("no room at all")
		}
		<-busy
	}
	n := 0
	for ask() {
		n++
	}
	if n != workers*waiting {
		t.Errorf("%d wait, want %d", n, workers*waiting)
	}
	go func() {
		for range busy { // until the test's end
		}
	}()
	close(release)
	answers.Wait()
	close(busy)
}

// A login that waited too long costs no work any more.
func TestPoolKeepsTime(t *testing.T) {
	worked := 0
	p, _ := running(t, 1, time.Nanosecond, func(context.Context, Question) (inspect.Outcome, error) {
		worked++
		return inspect.Right, nil
	})
	if got := outcome(t, p, "ann"); got != inspect.Failed || worked != 0 {
		t.Errorf("%d after %d checks", got, worked)
	}
	var by time.Time
	p, _ = running(t, 1, time.Minute, func(ctx context.Context, _ Question) (inspect.Outcome, error) {
		by, _ = ctx.Deadline()
		return inspect.Right, nil
	})
	if got := outcome(t, p, "ann"); got != inspect.Right || time.Until(by) > time.Minute || time.Until(by) < time.Second {
		t.Errorf("%d, by %v", got, by)
	}
}
