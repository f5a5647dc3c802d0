package daemon

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"baton/control/admin"
	"baton/control/config"
)

// Log makes the daemon's log, on standard error.
func Log(c config.Log) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level)) // the configuration allows only its words
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}

// Version is the commit that the program was built from, or the module's version.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return s.Value[:12]
		}
	}
	return info.Main.Version
}

// Describe is what the daemon tells of itself over its admin socket.
func Describe(program, host string, started time.Time) admin.Version {
	return admin.Version{Program: program, Version: Version(), Go: runtime.Version(), Host: host, PID: os.Getpid(),
		Started: started}
}

// Together runs functions that end with their context, until all have ended. The first error ends the others and is
// returned; the end of ctx is none.
func Together(ctx context.Context, parts ...func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	for _, part := range parts {
		running.Go(func() {
			if err := part(ctx); err != nil {
				cancel(err)
			}
		})
	}
	running.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// While makes a part of two: run ends with the part's context, and serve once run has ended, so that run can still be heard.
// An error of serve ends both.
func While(run func(context.Context), serve func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		outer, end := context.WithCancel(context.WithoutCancel(ctx))
		inner, stop := context.WithCancel(ctx)
		var running sync.WaitGroup
		running.Go(func() {
			defer end()
			run(inner)
		})
		err := serve(outer)
		stop()
		running.Wait()
		return err
	}
}
