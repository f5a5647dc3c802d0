package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"baton/control/admin"
)

func TestReportFailsWithTheHost(t *testing.T) {
	findings := []admin.Finding{{Check: "good", OK: true, Detail: "yes"}, {Check: "bad", Detail: "set it"}}
	for _, asJSON := range []bool{false, true} {
		var out bytes.Buffer
		if err := report(&out, findings, asJSON); !errors.Is(err, ErrUnhealthy) {
			t.Errorf("error %v, want %v", err, ErrUnhealthy)
		}
		if err := report(&bytes.Buffer{}, findings[:1], asJSON); err != nil {
			t.Errorf("a healthy host: %v", err)
		}
		var back []admin.Finding
		if asJSON && (json.Unmarshal(out.Bytes(), &back) != nil || len(back) != 2 || back[1] != findings[1]) {
			t.Errorf("JSON %s", out.Bytes())
		}
		if !asJSON && !strings.Contains(out.String(), "FAIL bad: set it\n") {
			t.Errorf("text %s", out.Bytes())
		}
	}
}

func TestTogetherEndsAllWithTheFirstError(t *testing.T) {
	boom := errors.New("boom")
	err := Together(context.Background(),
		func(ctx context.Context) error { <-ctx.Done(); return nil },
		func(context.Context) error { return boom },
		func(context.Context) error { return nil },
	)
	if !errors.Is(err, boom) {
		t.Errorf("error %v, want boom", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Together(ctx, func(ctx context.Context) error { <-ctx.Done(); return nil }); err != nil {
		t.Errorf("after an orderly end: %v", err)
	}
}

func TestWhileServesUntilTheOtherHasEnded(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var said []string
	serve := make(chan string)
	run := func(ctx context.Context) {
		cancel()
		<-ctx.Done()
		serve <- "last words"
	}
	err := While(run, func(ctx context.Context) error {
		for {
			select {
			case s := <-serve:
				said = append(said, s)
			case <-ctx.Done():
				return nil
			}
		}
	})(ctx)
	if err != nil || len(said) != 1 {
		t.Errorf("heard %q, error %v", said, err)
	}
	boom := errors.New("boom")
	err = While(func(ctx context.Context) { <-ctx.Done() }, func(context.Context) error { return boom })(context.Background())
	if !errors.Is(err, boom) {
		t.Errorf("error %v, want boom", err)
	}
}
