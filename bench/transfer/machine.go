package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
)

// Machine is where the numbers are from.
type Machine struct {
	CPU        string `json:"cpu"`
	Cores      int    `json:"cores"`
	Kernel     string `json:"kernel"`
	MemoryMB   int    `json:"memory_mb"`
	Go         string `json:"go"`
	DPDK       string `json:"dpdk"` // Debian package and version
	Nginx      string `json:"nginx"`
	Device     string `json:"device"` // DPDK driver of the forwarder's port
	Hugepages  int    `json:"hugepages"`
	LoadBefore string `json:"load_before"` // of the last minute, of all programs on the machine
	LoadAfter  string `json:"load_after"`
}

func (b *bench) machine(ctx context.Context) (m Machine, err error) {
	m = Machine{Cores: runtime.NumCPU(), Go: runtime.Version(), Hugepages: b.hugepages}
	ports, err := b.baton.Admin.Ports(ctx)
	if err != nil {
		return m, err
	}
	if len(ports) == 0 {
		return m, errors.New("the forwarder has no port")
	}
	m.Device = ports[0].Driver
	for _, v := range []struct {
		to        *string
		path, key string
	}{{&m.CPU, "/proc/cpuinfo", "model name"}, {&m.Kernel, "/proc/sys/kernel/osrelease", ""}} {
		if *v.to, err = read(v.path, v.key); err != nil {
			return m, err
		}
	}
	for to, name := range map[*string]string{&m.DPDK: "libdpdk-dev", &m.Nginx: "nginx"} {
		if *to, err = packageVersion(ctx, name); err != nil {
			return m, err
		}
	}
	if m.MemoryMB, err = memory(); err != nil {
		return m, err
	}
	m.LoadBefore, err = load()
	return m, err
}

// read returns the value of the first line "key : value" of a file of proc(5), or the whole file without a key.
func read(path, key string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if key == "" {
		return strings.TrimSpace(string(text)), nil
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value), nil
		}
	}
	return "", nil // not every architecture has the same lines
}

func memory() (int, error) {
	text, err := read("/proc/meminfo", "MemTotal") // "8123456 kB"
	if err != nil {
		return 0, err
	}
	kb, err := strconv.Atoi(strings.TrimSuffix(text, " kB"))
	return kb / 1024, err
}

func load() (string, error) {
	text, err := read("/proc/loadavg", "")
	minute, _, _ := strings.Cut(text, " ")
	return minute, err
}

func packageVersion(ctx context.Context, name string) (string, error) {
	out, err := exec.CommandContext(ctx, "dpkg-query", "--show", "--showformat", "${Package} ${Version}", name).Output()
	if err != nil {
		return "", fmt.Errorf("version of %s: %w", name, err)
	}
	return string(out), nil
}

// commit names the source that is measured, and says whether the tree differs from it.
func commit(ctx context.Context) (hash string, modified bool, err error) {
	out, err := exec.CommandContext(ctx, "git", "rev-parse", "HEAD").Output()
	if err != nil {
		return "", false, fmt.Errorf("find the commit: %w", err)
	}
	changes := []string{"status", "--porcelain", "--untracked-files=no", "--", ":!bench"}
	status, err := exec.CommandContext(ctx, "git", changes...).Output()
	return string(bytes.TrimSpace(out)), len(bytes.TrimSpace(status)) > 0, err
}
