package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ealArgs are the arguments of rte_eal_init: the main lcore on all CPUs but the loop's, if there are others.
func (o *options) ealArgs() ([]string, error) {
	if len(o.devices) < 1 || len(o.devices) > 2 {
		return nil, fmt.Errorf("%d devices (-d): one or two are possible", len(o.devices))
	}
	lcore, others, err := o.cpus()
	if err != nil {
		return nil, err
	}
	args := []string{"pktgen", "--log-level=error", "--no-telemetry", "--iova-mode=va",
		"--lcores", fmt.Sprintf("0@(%s),1@%d", strings.Join(others, ","), lcore)}
	memory, err := o.memoryArgs()
	if err != nil {
		return nil, err
	}
	args = append(args, memory...)
	pci := false
	for _, d := range o.devices {
		if strings.Contains(ethdevName(d), ":") {
			pci = true
			args = append(args, "-a", d)
		} else {
			args = append(args, "--vdev", d)
		}
	}
	if !pci {
		args = append(args, "--no-pci")
	}
	return args, nil
}

// ethdevName is the name that DPDK gives a device's port.
func ethdevName(device string) string {
	name, _, _ := strings.Cut(device, ",")
	return name
}

func (o *options) cpus() (lcore int, others []string, err error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return 0, nil, err
	}
	var cpus []int
	for c := range len(set) * 64 {
		if set.IsSet(c) {
			cpus = append(cpus, c)
		}
	}
	lcore = o.lcore
	if lcore < 0 {
		lcore = cpus[len(cpus)-1]
	}
	if !slices.Contains(cpus, lcore) {
		return 0, nil, fmt.Errorf("--lcore %d is not in the affinity mask %v", lcore, cpus)
	}
	for _, c := range cpus {
		if c != lcore || len(cpus) == 1 {
			others = append(others, strconv.Itoa(c))
		}
	}
	return lcore, others, nil
}

// leastSmall is the memory, MiB, without which the buffers do not fit into pages of 4 KiB.
const leastSmall = 128

// memoryArgs: with hugepages nothing is left in the file system, without them there is no shared configuration.
func (o *options) memoryArgs() ([]string, error) {
	free := freeHugepagesMB("/sys/kernel/mm/hugepages")
	switch {
	case o.hugepages == "never", o.hugepages == "auto" && free < o.memory:
		return []string{"--no-huge", "--no-shconf", "-m", strconv.Itoa(max(o.memory, leastSmall))}, nil
	case o.hugepages != "auto" && o.hugepages != "always":
		return nil, fmt.Errorf("--hugepages %q: auto, always and never are possible", o.hugepages)
	case free < o.memory:
		return nil, fmt.Errorf("%d MiB of free hugepages, %d are needed: raise vm.nr_hugepages, or lower --memory", free, o.memory)
	}
	return []string{"--in-memory", "-m", strconv.Itoa(o.memory)}, nil
}

// freeHugepagesMB adds up the free hugepages of all sizes.
func freeHugepagesMB(root string) (total int) {
	dirs, _ := filepath.Glob(filepath.Join(root, "hugepages-*kB")) // the pattern is right
	for _, dir := range dirs {
		var kB int
		if _, err := fmt.Sscanf(filepath.Base(dir), "hugepages-%dkB", &kB); err != nil {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, "free_hugepages"))
		if err != nil {
			continue
		}
		free, _ := strconv.Atoi(strings.TrimSpace(string(text)))
		total += free * kB / 1024
	}
	return total
}
