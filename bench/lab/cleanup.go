package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// prefixOf begins the prefix of every lab; the process's number follows.
const prefixOf = "bt"

// namespaces is where ip-netns(8) keeps named namespaces.
const namespaces = "/run/netns"

func namespacePath(name string) string   { return filepath.Join(namespaces, name) }
func directoryOf(prefix string) string   { return filepath.Join(os.TempDir(), "baton-lab-"+prefix) }
func unmount(path string) error          { return unix.Unmount(path, unix.MNT_DETACH) }
func isOf(prefix, namespace string) bool { return strings.HasPrefix(namespace, prefix+"-") }

// Cleanup removes what the lab with that prefix left: processes, namespaces, mounts, hugepages, and its directory unless
// it was given one. It is no error when nothing is left.
func Cleanup(prefix string) error {
	dir := directoryOf(prefix)
	return errors.Join(removeNetwork(prefix), unmountBelow(dir), os.RemoveAll(dir), returnHugepages(prefix))
}

// CleanupStale cleans up after all labs whose process is gone.
func CleanupStale() error {
	var errs []error
	for _, pattern := range []string{namespacePath(prefixOf + "*"), directoryOf(prefixOf + "*")} {
		paths, err := filepath.Glob(pattern)
		errs = append(errs, err)
		for _, path := range paths {
			if prefix, pid, ok := parsePrefix(filepath.Base(path)); ok && !alive(pid) {
				errs = append(errs, Cleanup(prefix))
			}
		}
	}
	return errors.Join(errs...)
}

// parsePrefix finds "btPID-N" in the name of a namespace or directory.
func parsePrefix(name string) (prefix string, pid int, ok bool) {
	name = strings.TrimPrefix(name, "baton-lab-")
	parts := strings.SplitN(name, "-", 3)
	if len(parts) < 2 || !strings.HasPrefix(name, prefixOf) {
		return "", 0, false
	}
	pid, err := strconv.Atoi(strings.TrimPrefix(parts[0], prefixOf))
	return parts[0] + "-" + parts[1], pid, err == nil
}

func alive(pid int) bool { return !errors.Is(unix.Kill(pid, 0), unix.ESRCH) }

// removeNetwork ends every process in the lab's namespaces, then removes them with all their links.
func removeNetwork(prefix string) error {
	entries, err := os.ReadDir(namespaces)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	var mine []string
	for _, e := range entries {
		if isOf(prefix, e.Name()) {
			mine = append(mine, e.Name())
		}
	}
	errs := []error{killAll(mine)}
	for _, name := range mine {
		errs = append(errs, ipNetns("del", name))
	}
	return errors.Join(errs...)
}

// killAll kills the processes whose network namespace is one of names, and waits until they are gone.
func killAll(names []string) error {
	inodes := map[uint64]bool{}
	for _, name := range names {
		if ino, err := inode(namespacePath(name)); err == nil {
			inodes[ino] = true
		}
	}
	if len(inodes) == 0 {
		return nil
	}
	for range 500 {
		pids := processesIn(inodes)
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL) // it may be gone already
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("processes %v do not end", processesIn(inodes))
}

// processesIn lists the processes in the given network namespaces, this one (some of its threads may be) left out.
func processesIn(inodes map[uint64]bool) (pids []int) {
	links, _ := filepath.Glob("/proc/[0-9]*/ns/net") // the pattern is well-formed
	for _, link := range links {
		pid, err := strconv.Atoi(strings.Split(link, "/")[2])
		if err != nil || pid == os.Getpid() {
			continue
		}
		if ino, err := inode(link); err == nil && inodes[ino] {
			pids = append(pids, pid)
		}
	}
	return pids
}

func inode(path string) (uint64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Sys().(*syscall.Stat_t).Ino, nil
}

// unmountBelow detaches all mounts in a directory, the newest first.
func unmountBelow(dir string) error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var errs []error
	lines := strings.Split(string(table), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		fields := strings.Fields(lines[i])
		if len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			errs = append(errs, unmount(fields[4]))
		}
	}
	return errors.Join(errs...)
}
