package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"baton/fastpath"
)

func TestLinkChangesAreLoggedAndCounted(t *testing.T) {
	var log bytes.Buffer
	port := fastpath.PortInfo{Device: "net_af_xdp0,iface=data0"}
	l := links{log: slog.New(slog.NewTextHandler(&log, nil)), ports: func() []fastpath.PortInfo { return []fastpath.PortInfo{port} }}
	for _, step := range []struct {
		up      bool
		changes uint64
		says    string
	}{{true, 0, ""}, {true, 0, ""}, {false, 1, "link is down"}, {false, 1, ""}, {true, 2, "link is up"}} {
		log.Reset()
		port.Up = step.up
		l.look()
		if got := l.changes(0); got != step.changes {
			t.Errorf("%d changes, want %d", got, step.changes)
		}
		if said := log.String(); (step.says == "") != (said == "") || !strings.Contains(said, step.says) {
			t.Errorf("logged %q, want %q", said, step.says)
		}
	}
	if l.changes(1) != 0 {
		t.Error("a port that is not there changed")
	}
}
