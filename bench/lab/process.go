package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stopTime is how long a process may take to end on SIGTERM before it is killed.
const stopTime = 5 * time.Second

// Process is a program on a host. Its output goes to the file LogPath.
type Process struct {
	Name    string
	LogPath string
	cmd     *exec.Cmd
	logFrom int64         // where its part of the log begins: earlier ones of the name are before it
	done    chan struct{} // closed when it has ended
	err     error         // how; valid after done
	stop    sync.Once
}

// ErrEnded says that a process ended before it was ready.
var ErrEnded = errors.New("process has ended")

// Start starts a program on the host, in a process group of its own. The log of an earlier process of that name is
// continued. Lab.Close ends it.
func (h *Host) Start(name string, argv ...string) (*Process, error) {
	p := &Process{Name: name, LogPath: h.Path(name + ".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.LogPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the process has its own descriptor
	before, err := log.Stat()
	if err != nil {
		return nil, err
	}
	p.logFrom = before.Size()
	p.cmd = h.command(context.Background(), argv)
	p.cmd.Dir = h.Dir()
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s on %s: %w", name, h.Name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	h.lab.mu.Lock()
	defer h.lab.mu.Unlock()
	h.lab.processes = append(h.lab.processes, p)
	return p, nil
}

// Process is the one that was started last under a name; nil: none was.
func (h *Host) Process(name string) (last *Process) {
	h.lab.mu.Lock()
	defer h.lab.mu.Unlock()
	for _, p := range h.lab.processes {
		if p.LogPath == h.Path(name+".log") {
			last = p
		}
	}
	return last
}

// command wraps argv for the host. ip-netns(8) also gives it the namespace's own /sys, and then becomes the program,
// so the process's number is the program's.
func (h *Host) command(ctx context.Context, argv []string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", h.Namespace}, argv...)...)
}

// Run runs a program on the host to its end and returns its standard output. Its error has what it said on standard
// error.
func (h *Host) Run(ctx context.Context, argv ...string) ([]byte, error) {
	cmd := h.command(ctx, argv)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%s on %s: %w: %s", strings.Join(argv, " "), h.Name, err, bytes.TrimSpace(errs.Bytes()))
	}
	return out, nil
}

// PID is the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Resident is how much memory the process has in RAM, octets (VmRSS of proc(5)).
func (p *Process) Resident() (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.PID()))
	if err != nil {
		return 0, err
	}
	var size, resident int
	if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
		return 0, fmt.Errorf("read memory of %s: %w", p.Name, err)
	}
	return resident * os.Getpagesize(), nil
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit waits for the end and says how it was; nil is exit status 0.
func (p *Process) Exit() error {
	<-p.done
	return p.err
}

// Signal sends a signal to the process.
func (p *Process) Signal(s syscall.Signal) error { return unix.Kill(p.PID(), s) }

// Pause stops the process without its knowledge until Continue, and returns when all its threads stand still.
func (p *Process) Pause(ctx context.Context) error {
	if err := p.Signal(unix.SIGSTOP); err != nil {
		return err
	}
	return Until(ctx, p.Name+" is stopped", func() error {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.PID()))
		if err != nil {
			return err
		}
		for _, path := range threads {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			// The state comes after the name in parentheses, which may have any character (proc_pid_stat(5)).
			if state := text[bytes.LastIndexByte(text, ')')+2]; state != 'T' {
				return fmt.Errorf("a thread is in state %c", state)
			}
		}
		return nil
	})
}

// Continue ends a Pause.
func (p *Process) Continue() error { return p.Signal(unix.SIGCONT) }

// Stop ends the process and its group: SIGTERM first, SIGKILL after 5 s. It returns when the process has ended.
func (p *Process) Stop() {
	p.stop.Do(func() {
		_ = unix.Kill(-p.PID(), unix.SIGTERM) // it may have ended
		select {
		case <-p.done:
		case <-time.After(stopTime):
		}
		_ = unix.Kill(-p.PID(), unix.SIGKILL)
		<-p.done
	})
}

// Kill ends the process by SIGKILL, which it cannot notice.
func (p *Process) Kill() {
	_ = unix.Kill(-p.PID(), unix.SIGKILL) // it may have ended
	<-p.done
}

// Ready waits until check returns nil. It fails when ctx or the process ends first; its error then has the last lines
// of the log.
func (p *Process) Ready(ctx context.Context, check func() error) error {
	ended := false
	err := Until(ctx, p.Name+" is ready", func() error {
		select {
		case <-p.done:
			ended = true
			return nil
		default:
			return check()
		}
	})
	switch {
	case ended:
		return fmt.Errorf("%s: %w: %s", p.Name, errors.Join(ErrEnded, p.err), p.lastLines())
	case err != nil:
		return fmt.Errorf("%w: %s", err, p.lastLines())
	}
	return nil
}

// Log returns what the process has printed so far.
func (p *Process) Log() string {
	text, err := os.ReadFile(p.LogPath)
	if err != nil {
		return err.Error()
	}
	return string(text[min(p.logFrom, int64(len(text))):])
}

// Said returns nil if the process's output has the text.
func (p *Process) Said(text string) error {
	if !strings.Contains(p.Log(), text) {
		return fmt.Errorf("%s did not say %q, but: %s", p.Name, text, p.lastLines())
	}
	return nil
}

// Says waits until the process's output has the text. A program tells of something after a client has seen it, so what
// is expected of it is waited for; Said is for what must be there already, or must not be.
func (p *Process) Says(ctx context.Context, text string) error {
	return p.Ready(ctx, func() error { return p.Said(text) })
}

func (p *Process) lastLines() string {
	lines := strings.Split(strings.TrimSpace(p.Log()), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], " | ")
}
