package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"baton/bench/lab"
)

// cleanTime is how long the demonstration and its watcher may take to remove everything.
const cleanTime = 10 * time.Second

var demoScenarios = []Scenario{{
	Name:    "demo-clean",
	Doc:     "the demonstration leaves nothing behind, when it ends and when it is interrupted or killed",
	Shape:   Shape{NoBaton: true, Private: true},
	Expect:  Expect{Unjudged: true},
	Timeout: 2 * time.Minute,
	Run:     runDemoClean,
}}

// ending is a way for the demonstration to end: by a signal, once it has printed a line that begins so.
type ending struct {
	signal syscall.Signal // 0: by itself
	at     string
	by     string // who continues its connections; "" is auto
}

func runDemoClean(e *Env) error {
	for _, end := range []ending{
		{},
		{by: "userspace"},
		{signal: syscall.SIGINT, at: "== A client"},
		{signal: syscall.SIGINT, at: "== curl"},
		{signal: syscall.SIGINT, at: "== A download"},
		{signal: syscall.SIGKILL, at: "== A download", by: "userspace"},
	} {
		if err := end.try(e); err != nil {
			return fmt.Errorf("signal %d at %q: %w", end.signal, end.at, err)
		}
	}
	return nil
}

func (end ending) try(e *Env) error {
	before, err := machine()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(e.Ctx, filepath.Join(e.bin, "baton-demo"), "-bin", e.bin, "-hugepages", "8",
		"-import", cmp.Or(end.by, "auto"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var complaints strings.Builder
	cmd.Stderr = &complaints
	if err := cmd.Start(); err != nil {
		return err
	}
	prefix := fmt.Sprintf("bt%d-", cmd.Process.Pid)
	last, inside, err := end.follow(out, cmd.Process, prefix)
	waitErr := cmd.Wait()
	switch {
	case err != nil:
		return fmt.Errorf("%w; the demo said %s", err, complaints.String())
	case end.signal == 0 && (waitErr != nil || !strings.HasPrefix(last, "demo ok: ")):
		return fmt.Errorf("the demo ended with %w, its last line is %q: %s", waitErr, last, complaints.String())
	case end.signal != 0 && waitErr == nil:
		return errors.New("the demo succeeded although it was interrupted")
	}
	ctx, cancel := context.WithTimeout(e.Ctx, cleanTime)
	defer cancel()
	return lab.Until(ctx, "nothing is left", func() error { return before.left(prefix, inside) })
}

// follow reads what the demo prints to its end, signals it at the line, and returns its last line and the network
// namespaces (inode numbers) that it had at that time.
func (end ending) follow(out io.Reader, demo *os.Process, prefix string) (last string, inside []string, err error) {
	signalled := end.signal == 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		last = lines.Text()
		if signalled || !strings.HasPrefix(last, end.at) {
			continue
		}
		signalled = true
		if inside, err = namespacesOf(prefix); err != nil {
			return last, nil, err
		}
		if err := demo.Signal(end.signal); err != nil {
			return last, nil, err
		}
	}
	if !signalled {
		return last, inside, fmt.Errorf("no line begins with %q", end.at)
	}
	return last, inside, nil
}

// namespacesOf lists the inodes of named network namespaces, as /proc/PID/ns/net shows them. There have to be some.
func namespacesOf(prefix string) (inodes []string, err error) {
	names, err := filepath.Glob("/run/netns/" + prefix + "*")
	if err != nil || len(names) == 0 {
		return nil, errors.Join(err, errors.New("the demo has no network namespaces"))
	}
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		inodes = append(inodes, fmt.Sprintf("net:[%d]", info.Sys().(*syscall.Stat_t).Ino))
	}
	return inodes, nil
}

// state is what the demo could leave behind on the machine outside of its own names.
type state struct {
	links     map[string]bool
	pins      map[string]bool
	hugepages string
}

func machine() (s state, err error) {
	s = state{links: map[string]bool{}, pins: map[string]bool{}}
	links, err := os.ReadDir("/sys/class/net")
	if err != nil {
		return s, err
	}
	for _, l := range links {
		s.links[l.Name()] = true
	}
	err = filepath.WalkDir("/sys/fs/bpf", func(path string, _ fs.DirEntry, err error) error {
		s.pins[path] = true
		return err
	})
	if err != nil {
		return s, err
	}
	pages, err := os.ReadFile("/proc/sys/vm/nr_hugepages")
	s.hugepages = strings.TrimSpace(string(pages))
	return s, err
}

// left says what is there that was not there before: everything with the demo's prefix, and what the machine has more.
func (before state) left(prefix string, inside []string) error {
	now, err := machine()
	if err != nil {
		return err
	}
	var found []string
	for _, pattern := range []string{"/run/netns/" + prefix + "*", filepath.Join(os.TempDir(), "baton-lab-"+prefix+"*")} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		found = append(found, names...)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	if strings.Contains(string(mounts), prefix) {
		found = append(found, "mounts")
	}
	for _, more := range [][2]map[string]bool{{before.links, now.links}, {before.pins, now.pins}} {
		for name := range maps.Keys(more[1]) {
			if !more[0][name] {
				found = append(found, name)
			}
		}
	}
	if now.hugepages != before.hugepages {
		found = append(found, fmt.Sprintf("%s hugepages, were %s", now.hugepages, before.hugepages))
	}
	found = append(found, processesIn(inside)...)
	if len(found) > 0 {
		slices.Sort(found)
		return fmt.Errorf("left behind: %s", strings.Join(found, ", "))
	}
	return nil
}

// processesIn lists processes in network namespaces.
func processesIn(inodes []string) (found []string) {
	processes, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well-formed
	for _, p := range processes {
		// A process that ended meanwhile has no namespace.
		if ns, err := os.Readlink(filepath.Join(p, "ns/net")); err == nil && slices.Contains(inodes, ns) {
			found = append(found, p)
		}
	}
	return found
}
