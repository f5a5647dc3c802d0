package main

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"strings"

	"baton/bench/machine"
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
	m.CPU, m.Kernel, m.LoadBefore = machine.CPU(), machine.Kernel(), machine.Load()
	for to, name := range map[*string]string{&m.DPDK: "libdpdk-dev", &m.Nginx: "nginx"} {
		if *to, err = machine.Package(ctx, name); err != nil {
			return m, err
		}
	}
	m.MemoryMB, err = memory()
	return m, err
}

// memory is the machine's, MiB.
func memory() (int, error) {
	kb, err := strconv.Atoi(strings.TrimSuffix(machine.Value("/proc/meminfo", "MemTotal"), " kB")) // "8123456 kB"
	return kb / 1024, err
}
