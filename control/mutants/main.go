package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// options are the command line.
type options struct {
	tests   []string
	run     string
	args    []string
	only    *regexp.Regexp
	min     int
	timeout time.Duration
}

func main() {
	tests := flag.String("tests", "./control/tcp ./control/transfer", "packages whose tests have to find the bugs")
	run := flag.String("run", "", "only these of their tests, as in go test")
	args := flag.String("args", "", "arguments of their test programs")
	only := flag.String("only", "", "only bugs whose names match")
	least := flag.Int("min", -1, "how many have to be found; -1: all")
	timeout := flag.Duration("timeout", 2*time.Minute, "for the tests of one bug; running longer finds it")
	flag.Parse()
	o := options{tests: strings.Fields(*tests), run: *run, args: strings.Fields(*args),
		only: regexp.MustCompile(*only), min: *least, timeout: *timeout}
	if err := check(o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// verdict is what became of one bug.
type verdict struct {
	caught []string // the tests that failed
	err    error
}

// check runs the tests for each bug and prints what they found.
func check(o options) error {
	if out, err := goTest(o, "", false); err != nil {
		return fmt.Errorf("the tests fail without a bug: %w\n%s", err, out)
	}
	var chosen []mutant
	for _, m := range mutants {
		if o.only.MatchString(m.name) {
			chosen = append(chosen, m)
		}
	}
	verdicts := make([]verdict, len(chosen))
	slots := make(chan struct{}, runtime.NumCPU())
	var all sync.WaitGroup
	for i, m := range chosen {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			verdicts[i] = try(o, m)
		})
	}
	all.Wait()
	return report(o, chosen, verdicts)
}

// report prints a line for each bug; the error says that too few were found.
func report(o options, chosen []mutant, verdicts []verdict) error {
	found := 0
	var errs []error
	for i, m := range chosen {
		v := verdicts[i]
		switch {
		case v.err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", m.name, v.err))
		case len(v.caught) == 0:
			fmt.Printf("SURVIVED %-28s\n", m.name)
		default:
			found++
			shown := v.caught[:min(3, len(v.caught))]
			fmt.Printf("caught   %-28s by %d: %s\n", m.name, len(v.caught), strings.Join(shown, ", "))
		}
	}
	fmt.Printf("mutants: %d planted, %d caught\n", len(chosen), found)
	want := o.min
	if want < 0 {
		want = len(chosen)
	}
	if found < want {
		errs = append(errs, fmt.Errorf("%d bugs were caught, want %d", found, want))
	}
	return errors.Join(errs...)
}

// try plants one bug and runs the tests.
func try(o options, m mutant) verdict {
	dir, err := os.MkdirTemp("", "mutant-")
	if err != nil {
		return verdict{err: err}
	}
	defer os.RemoveAll(dir)
	overlay, err := m.plant(dir)
	if err != nil {
		return verdict{err: err}
	}
	out, err := goTest(o, overlay, m.touches(giver, taker))
	switch {
	case err == nil:
		return verdict{}
	case bytes.Contains(out, []byte("[build failed]")):
		return verdict{err: fmt.Errorf("it does not compile:\n%s", out)}
	}
	return verdict{caught: failed(out)}
}

// failedTest is a line of go test about a test that failed, not one of its parts.
var failedTest = regexp.MustCompile(`(?m)^(?:--- FAIL: |panic: test timed out.*\n.*running tests:\n\t)(\w+)`)

// failed are the names of the tests that failed.
func failed(out []byte) []string {
	var names []string
	for _, m := range failedTest.FindAllSubmatch(out, -1) {
		names = append(names, string(m[1]))
	}
	if len(names) == 0 {
		names = append(names, "(the test program itself)")
	}
	return names
}

// goTest runs the tests, with an overlay if there is one. The model of the handshake, which takes long, concerns the
// handshake only.
func goTest(o options, overlay string, handshake bool) ([]byte, error) {
	args := []string{"test", "-timeout", o.timeout.String()}
	if !handshake {
		args = append(args, "-skip", "^TestModel")
	}
	if o.run != "" {
		args = append(args, "-run", o.run)
	}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	ctx, cancel := context.WithTimeout(context.Background(), o.timeout+5*time.Minute) // compiling included
	defer cancel()
	args = append(append(args, o.tests...), o.args...)
	return exec.CommandContext(ctx, "go", args...).CombinedOutput()
}

// touches reports whether the bug is in one of the files.
func (m mutant) touches(files ...string) bool {
	return slices.ContainsFunc(m.edits, func(e edit) bool { return slices.Contains(files, e.file) })
}

// plant writes the changed files and the overlay that puts them in place, and returns the overlay's name.
func (m mutant) plant(dir string) (string, error) {
	changed := map[string][]byte{}
	for _, e := range m.edits {
		source, ok := changed[e.file]
		if !ok {
			var err error
			if source, err = os.ReadFile(e.file); err != nil {
				return "", err
			}
		}
		if n := bytes.Count(source, []byte(e.old)); n != 1 {
			return "", fmt.Errorf("%s has %d times, not once: %s", e.file, n, e.old)
		}
		changed[e.file] = bytes.Replace(source, []byte(e.old), []byte(e.new), 1)
	}
	replace := map[string]string{}
	for file, source := range changed {
		at, err := filepath.Abs(file)
		if err != nil {
			return "", err
		}
		replace[at] = filepath.Join(dir, filepath.Base(file))
		if err := os.WriteFile(replace[at], source, 0o600); err != nil {
			return "", err
		}
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "overlay.json")
	return name, os.WriteFile(name, b, 0o600)
}
