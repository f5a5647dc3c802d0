package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"baton/bench/judge"
	"baton/bench/lab"
)

// direct gives the DVIPA to a target itself, without Baton: an application cannot tell, the judge can.
func direct(name string, x Expect) Scenario {
	return Scenario{
		Name: name, Doc: "the target has the DVIPA", Shape: Shape{NoBaton: true, Private: true, Targets: 1}, Expect: x,
		Run: func(e *Env) error {
			address := lab.DVIPA.String() + "/32"
			if _, err := e.Target(1).Run(e.Ctx, "ip", "address", "add", address, "dev", lab.DataInterface); err != nil {
				return err
			}
			if _, err := e.Target(1).Nginx(e.Ctx, lab.ServerOptions{}); err != nil {
				return err
			}
			_, err := e.Client.Curl(e.Ctx, "http://"+lab.DVIPA.String()+"/")
			return err
		},
	}
}

// TestRunnerJudges runs scenarios that need no daemon: one breaks what a capture must show, one is allowed to.
func TestRunnerJudges(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip(lab.ErrNotRoot)
	}
	var out strings.Builder
	r := &runner{out: &out, keep: t.TempDir()}
	failed := runAll(t.Context(), r, []Scenario{
		direct("broken", Expect{}),
		direct("allowed", Expect{Allow: []judge.Rule{judge.OneOwner, judge.ARPOwner}, Connections: 1, Transferred: None}),
	})
	if failed != 1 {
		t.Errorf("%d failed, want 1", failed)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if last := lines[len(lines)-1]; last != "e2e: 1 passed, 1 failed" {
		t.Errorf("last line %q", last)
	}
	for _, want := range []string{"\nFAIL broken: ", "; one-owner: ", "\nPASS allowed\n", "stock: curl "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output lacks %q", want)
		}
	}
	for _, name := range []string{"client.pcapng", "report.txt", "t1/nginx.log", "t1/nginx.conf"} {
		if info, err := os.Stat(filepath.Join(r.keep, "broken", name)); err != nil || info.Size() == 0 {
			t.Errorf("%s of the failed scenario: %v", name, err)
		}
	}
	if t.Failed() {
		t.Log(out.String())
	}
}

// TestUnsteadyIsNamed has a scenario that passes at its second attempt only, and one that never does.
func TestUnsteadyIsNamed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip(lab.ErrNotRoot)
	}
	attempts := 0
	once := func(*Env) error {
		if attempts++; attempts == 1 {
			return errors.New("not this time")
		}
		return nil
	}
	scenario := func(name string, run func(*Env) error) Scenario {
		return Scenario{Name: name, Shape: Shape{NoBaton: true, Targets: 1}, Expect: Expect{Unjudged: true}, Run: run}
	}
	var out strings.Builder
	failed := runAll(t.Context(), &runner{out: &out, keep: t.TempDir(), again: true}, []Scenario{
		scenario("sometimes", once), scenario("never", func(*Env) error { return errors.New("never") }),
	})
	if failed != 1 || attempts != 2 {
		t.Errorf("%d failed, want 1; %d attempts, want 2", failed, attempts)
	}
	want := "e2e: 1 unsteady, passed only at the second attempt: sometimes\ne2e: 1 passed, 1 failed\n"
	if !strings.HasSuffix(out.String(), want) {
		t.Errorf("output ends otherwise than %q:\n%s", want, out.String())
	}
}
