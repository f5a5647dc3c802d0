package lab

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// watchVariable holds, in a watcher's environment, the prefix of the lab that it watches.
const watchVariable = "BATON_LAB_WATCH"

// watcher is a process that cleans up after the lab when this process dies. It holds the reading end of a pipe whose
// only writing end is here, so it notices every kind of death at once.
type watcher struct {
	cmd  *exec.Cmd
	pipe io.WriteCloser
}

// startWatcher runs this program once more. It sits in a session of its own, so that Ctrl-C does not reach it.
func startWatcher(prefix string) (*watcher, error) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), watchVariable+"="+prefix)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start watcher: %w", err)
	}
	return &watcher{cmd, pipe}, nil
}

// dismiss ends the watcher; by now there is nothing to clean up.
func (w *watcher) dismiss() error {
	if _, err := w.pipe.Write([]byte{dismissed}); err != nil {
		return fmt.Errorf("dismiss watcher: %w", err)
	}
	_ = w.pipe.Close() // nobody reads any more
	return w.cmd.Wait()
}

// dismissed on its standard input tells a watcher that the lab was removed in an orderly way.
const dismissed = 'q'

// RunWatcher makes this process a watcher, and does not return then, if that is what it was started for. Every program
// that builds labs (and TestMain of every such test) calls it first.
func RunWatcher() {
	prefix := os.Getenv(watchVariable)
	if prefix == "" {
		return
	}
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	if n, _ := os.Stdin.Read(make([]byte, 1)); n == 1 {
		os.Exit(0)
	}
	if err := Cleanup(prefix); err != nil {
		fmt.Fprintf(os.Stderr, "clean up lab %s: %v\n", prefix, err)
		os.Exit(1)
	}
	os.Exit(0)
}
