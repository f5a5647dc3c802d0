package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"baton/control/admin"
	"baton/control/xcf"
)

// daemon serves s on a socket of its own until the test ends.
func daemon(t *testing.T, s admin.Source) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := admin.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- admin.Serve(ctx, l, s) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return socket
}

func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := newCommand()
	cmd.SetOut(&out)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func fixed[T any](v T) func(context.Context) (T, error) {
	return func(context.Context) (T, error) { return v, nil }
}

func source() admin.Source {
	return admin.Source{
		Version: fixed(admin.Version{Program: "baton", Version: "dev", Host: "rh1"}),
		CRT: func(_ context.Context, q admin.CRTQuery) (admin.CRTPage, error) {
			e := admin.CRTEntry{Client: "10.77.0.100:4000", Service: "10.77.0.10:80", Owner: q.Owner, State: "established"}
			return admin.CRTPage{Entries: []admin.CRTEntry{e}, Matching: 1, Total: 9, Capacity: 64}, nil
		},
		Targets: fixed([]admin.Target{{Host: "t1", Job: "web-a", Ready: true, Connected: true, MAC: "02:00:00:00:00:21"},
			{Host: "t2", Reason: "no neighbour"}}),
		Transfers: fixed([]admin.Transfer{{Time: time.Unix(0, 0), Client: "10.77.0.100:4000", Target: "t1",
			Outcome: "switched", Phases: map[string]float64{"confirmed": 0.000123}, Total: 0.0002}}),
		Counters: fixed([]admin.Counter{{Group: "drop", Name: "checksum", Value: 3}}),
		Ports:    fixed([]admin.Port{{Name: "net_af_xdp0", Driver: "net_af_xdp", RxPackets: 42}}),
		Lcores:   fixed([]admin.Lcore{{Share: 0.5, GapMax: 0.0015}}),
		Keys:     fixed([]admin.Key{{Fingerprint: "abc", State: "retiring"}}),
		Rotate:   fixed([]admin.Key{{Fingerprint: "def", State: "next"}}),
		Flows:    fixed([]admin.Flow{{Client: "10.77.0.100:4000", Job: "web-a", State: "live"}}),
		Doctor:   fixed([]admin.Finding{{Check: "ip_forward", OK: true, Detail: "off on data0"}}),

		Applications: fixed([]admin.Application{{Name: "pop3d", Role: "target", Job: "mail", Taken: 5}}),
	}
}

func TestTablesAndJSONOfEveryCommand(t *testing.T) {
	socket := daemon(t, source())
	tests := []struct {
		command string
		table   string // must occur in the table
		json    string // must occur in the JSON
	}{
		{"crt --owner t1", "10.77.0.10:80  t1", `"owner": "t1"`},
		{"targets", "no neighbour", `"mac": "02:00:00:00:00:21"`},
		{"transfers", "123µs", `"outcome": "switched"`},
		{"counters", "checksum", `"value": 3`},
		{"ports", "42", `"driver": "net_af_xdp"`},
		{"lcores", "1.5ms", `"poll_gap_max_seconds": 0.0015`},
		{"keys", "retiring", `"fingerprint": "abc"`},
		{"keys rotate", "next", `"fingerprint": "def"`},
		{"flows", "live", `"job": "web-a"`},
		{"applications", "pop3d  target", `"taken": 5`},
		{"doctor", "ok", `"ok": true`},
		{"version", "baton dev", `"host": "rh1"`},
	}
	for _, test := range tests {
		t.Run(test.command, func(t *testing.T) {
			args := append(strings.Fields(test.command), "--socket", socket)
			out, err := run(t, args...)
			if err != nil || !strings.Contains(out, test.table) {
				t.Errorf("table %q, error %v; want it to contain %q", out, err, test.table)
			}
			out, err = run(t, append(args, "--json")...)
			if err != nil || !strings.Contains(out, test.json) || !json.Valid([]byte(out)) {
				t.Errorf("JSON %q, error %v; want it to contain %q", out, err, test.json)
			}
		})
	}
}

func TestDoctorFailsWhenAFindingIsBad(t *testing.T) {
	bad := []admin.Finding{{Check: "dvipa", Detail: "ip addr del 10.77.0.10/32 dev lo"}}
	socket := daemon(t, admin.Source{Doctor: fixed(bad)})
	out, err := run(t, "doctor", "--socket", socket)
	if !errors.Is(err, errUnhealthy) || !strings.Contains(out, "FAIL  dvipa  ip addr del") {
		t.Errorf("output %q, error %v; want the finding and errUnhealthy", out, err)
	}
}

func TestMissingDaemonIsSaidPlainly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none")
	_, err := run(t, "ports", "--socket", path)
	if !errors.Is(err, admin.ErrNotRunning) || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v, want ErrNotRunning and the path", err)
	}
}

func TestMissingBusesListNothing(t *testing.T) {
	nics, err := listNICs([]bus{{t.TempDir() + "/none", "class", "0x02"}})
	if err != nil || nics == nil || len(nics) != 0 {
		t.Errorf("nics %v, error %v; want an empty list", nics, err)
	}
}

func TestCertsThatAreIssuedCheckOut(t *testing.T) {
	dir := t.TempDir()
	if _, err := run(t, "certs", "init", "--dir", dir); err != nil {
		t.Fatal(err)
	}
	out, err := run(t, "certs", "issue", "t1", "--role", "target", "--ip", "10.78.0.21", "--dir", dir, "--json")
	if err != nil || !strings.Contains(out, `t1.pem"`) {
		t.Fatalf("output %q, error %v", out, err)
	}
	files := xcf.Files{CA: dir + "/ca.pem", Cert: dir + "/t1.pem", Key: dir + "/t1.key"}
	if _, err := files.Check(xcf.RoleTarget, "t1"); err != nil {
		t.Errorf("issued certificate: %v", err)
	}
	if _, err := run(t, "certs", "init", "--dir", dir); !errors.Is(err, os.ErrExist) {
		t.Errorf("second init: %v, want os.ErrExist", err)
	}
	if _, err := run(t, "certs", "issue", "t2", "--role", "client", "--dir", dir); err == nil {
		t.Error("an unknown role was accepted")
	}
}
