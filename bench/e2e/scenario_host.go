package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"baton/bench/lab"
)

// Bounds of an idle forwarder.
const (
	idleWatch = 4 * time.Second
	idleShare = 0.10 // of one core
)

var hostScenarios = []Scenario{
	{
		Name:   "idle-cpu",
		Doc:    "a forwarder without traffic uses at most a tenth of a core",
		Shape:  Shape{NoBaton: true, Private: true},
		Expect: Expect{Connections: None},
		Run:    runIdle,
	},
	{
		Name:   "config-errors",
		Doc:    "a wrong configuration is refused with file and line, and with what would be right",
		Shape:  Shape{NoBaton: true, Private: true},
		Expect: Expect{Unjudged: true},
		Run:    runConfigErrors,
	},
}

func runIdle(e *Env) error {
	b, err := e.PrepareBaton(lab.TwoSites())
	if err != nil {
		return err
	}
	router, err := b.StartRouter(e.Ctx)
	if err != nil {
		return err
	}
	before, err := cpuTime(router.PID())
	if err != nil {
		return err
	}
	began := time.Now()
	if err := e.sleep(idleWatch); err != nil {
		return err
	}
	after, err := cpuTime(router.PID())
	if err != nil {
		return err
	}
	share := float64(after-before) / float64(time.Since(began))
	if share > idleShare {
		return fmt.Errorf("the idle forwarder uses %.1f %% of a core, want at most %.0f %%", 100*share, 100*idleShare)
	}
	return nil
}

// cpuTime is the CPU time that a process has used in user and kernel mode (proc_pid_stat(5), fields 14 and 15).
func cpuTime(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the program's name in parentheses, which may have spaces.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux
	var total time.Duration
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(field)
		if err != nil {
			return 0, err
		}
		total += time.Duration(n) * tick
	}
	return total, nil
}

// wrongConfigs change one line of a right configuration file; the message must name that line and have the words.
var wrongConfigs = []struct {
	program  string
	old, new string
	words    string
}{
	{"baton", "protocol: http", "protocol: gopher", "http"},
	{"baton", "window: 32768", "window: 32767", "multiple"},
	{"baton", "window: 32768", "window: lots", "number"},
	{"baton", "offer: 200ms", "offer: 200", "ms"},
	{"baton", "distribute:", "distribut:", "distribute"},
	{"baton", "job: web-b", "job: web-x", "web-x"},
	{"baton", "hosts: [t1, t2]", "hosts: [t1, t9]", "t9"},
	{"baton", "- address: 10.77.0.10", "- address: 10.77.0.300", "address"},
	{"baton-target", "addresses: manage", "addresses: maybe", "manage"},
	{"baton-target", "port: 80", "port: 80000", "65535"},
	{"baton-target", "interfaces: [data0]", "interface: [data0]", "interfaces"},
}

// exampleConfigs are the commented examples, which have every key.
var exampleConfigs = map[string]string{
	"baton": "configs/baton.example.yaml", "baton-target": "configs/target.example.yaml",
}

func runConfigErrors(e *Env) error {
	b, err := e.PrepareBaton(lab.TwoSites())
	if err != nil {
		return err
	}
	var errs []error
	for program, path := range exampleConfigs {
		if out, err := check(b, program, path); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w: %s", path, err, out))
		}
	}
	for i, w := range wrongConfigs {
		path := e.Client.Path(fmt.Sprintf("wrong-%d.yaml", i))
		if err := checkWrong(b, path, w.program, w.old, w.new, w.words); err != nil {
			errs = append(errs, fmt.Errorf("%q instead of %q: %w", w.new, w.old, err))
		}
	}
	return errors.Join(errs...)
}

// check runs "PROGRAM check FILE".
func check(b *lab.Baton, program, path string) (string, error) {
	binary, err := b.Program(program)
	if err != nil {
		return "", err
	}
	out, err := exec.Command(binary, "check", path).CombinedOutput()
	return string(out), err
}

// checkWrong writes a changed example to path and expects it to be refused.
func checkWrong(b *lab.Baton, path, program, old, changed, words string) error {
	text, err := os.ReadFile(exampleConfigs[program])
	if err != nil {
		return err
	}
	before, after, found := strings.Cut(string(text), old)
	if !found {
		return errors.New("the example does not have that any more")
	}
	if err := os.WriteFile(path, []byte(before+changed+after), 0o644); err != nil {
		return err
	}
	out, err := check(b, program, path)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return fmt.Errorf("is accepted: %s", out)
	case !errors.As(err, &exit):
		return err
	}
	place := fmt.Sprintf("%s:%d:", path, strings.Count(before, "\n")+1)
	if !strings.Contains(out, place) || !strings.Contains(out, words) {
		return fmt.Errorf("message %q, want one with %q and %q", strings.TrimSpace(out), place, words)
	}
	return nil
}
