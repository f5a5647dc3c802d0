package target

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespaceDir is where iproute2 keeps the named network namespaces.
const namespaceDir = "/var/run/netns"

// Namespace is a network namespace in which the agent works. Its methods may be called concurrently.
type Namespace struct {
	Name   string // as configured: a name of iproute2, or a path; "" is the agent's own
	handle netns.NsHandle
}

// OpenNamespace opens a namespace by name ("blue"), path ("/proc/1234/ns/net") or "" for the caller's own. The caller
// closes it.
func OpenNamespace(name string) (*Namespace, error) {
	handle, err := openHandle(name)
	if err != nil {
		return nil, fmt.Errorf("network namespace %q: %w", name, err)
	}
	return &Namespace{Name: name, handle: handle}, nil
}

func openHandle(name string) (netns.NsHandle, error) {
	switch {
	case name == "":
		return netns.Get()
	case strings.Contains(name, "/"):
		return netns.GetFromPath(name)
	}
	return netns.GetFromPath(filepath.Join(namespaceDir, name))
}

// Gone reports whether the name stands for another namespace by now, or for none: a container was started again.
func (n *Namespace) Gone() bool {
	if n.Name == "" {
		return false
	}
	handle, err := openHandle(n.Name)
	if err != nil {
		return true
	}
	defer handle.Close()
	return !handle.Equal(n.handle)
}

// id tells namespaces apart that exist at the same time.
func (n *Namespace) id() string { return n.handle.UniqueId() }

// Close lets the namespace go. What was opened inside stays open.
func (n *Namespace) Close() error { return n.handle.Close() }

// Do runs f inside the namespace, on a thread of its own: sockets, devices and links that f opens belong to it, and
// /proc/sys/net is the namespace's. f must not start goroutines that rely on it.
func (n *Namespace) Do(f func() error) error {
	done := make(chan error)
	go func() {
		// Never unlocked: the thread ends with the goroutine, so no other one finds itself in the namespace.
		runtime.LockOSThread()
		if err := netns.Set(n.handle); err != nil {
			done <- fmt.Errorf("enter network namespace %q: %w", n.Name, err)
			return
		}
		done <- f()
	}()
	return <-done
}

// sysctlPath is the file of a sysctl, for example "net/ipv4/tcp_sack". Slashes, because interface names have dots.
func sysctlPath(key string) string { return filepath.Join("/proc/sys", key) }

// readSysctl reads a sysctl of the calling thread's namespace.
func readSysctl(key string) (string, error) {
	value, err := os.ReadFile(sysctlPath(key))
	return strings.TrimSpace(string(value)), err
}

// writeSysctl sets a sysctl of the calling thread's namespace.
func writeSysctl(key, value string) error {
	return os.WriteFile(sysctlPath(key), []byte(value), 0o644)
}

// writeSysctlIfThere is writeSysctl for what some kernels are built without, for example IPv6.
func writeSysctlIfThere(key, value string) error {
	if err := writeSysctl(key, value); !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}
