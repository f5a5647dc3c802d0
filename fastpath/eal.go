package fastpath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// chooseCPUs returns the poll loops' CPUs and those that are left for everything else: all others of the process's
// affinity mask, or the same ones if there is no other.
func chooseCPUs(c Config) (lcores, others []int, err error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, nil, err
	}
	cpus := cpusOf(&set)
	lcores = c.CPUs
	if len(lcores) == 0 {
		if len(cpus) < c.Lcores {
			return nil, nil, fmt.Errorf("%d loops, but the affinity mask is %v", c.Lcores, cpus)
		}
		lcores = cpus[len(cpus)-c.Lcores:]
	}
	for _, l := range lcores {
		if !set.IsSet(l) {
			return nil, nil, fmt.Errorf("CPU %d is not in the affinity mask %v", l, cpus)
		}
	}
	for _, cpu := range cpus {
		if !slices.Contains(lcores, cpu) {
			others = append(others, cpu)
		}
	}
	if len(others) == 0 {
		others = lcores
	}
	return lcores, others, nil
}

func cpusOf(set *unix.CPUSet) []int {
	var cpus []int
	for c := range len(set) * 64 {
		if set.IsSet(c) {
			cpus = append(cpus, c)
		}
	}
	return cpus
}

// leaveCPUs moves all threads of the process to the given CPUs. New threads inherit it: the Go runtime clones them from
// threads of its own. The list is read until it has no thread that was not moved.
func leaveCPUs(cpus []int) error {
	var set unix.CPUSet
	for _, c := range cpus {
		set.Set(c)
	}
	moved := map[string]bool{}
	for again := true; again; {
		again = false
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, t := range tasks {
			if moved[t.Name()] {
				continue
			}
			moved[t.Name()], again = true, true
			tid, _ := strconv.Atoi(t.Name())
			if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
	}
	return nil
}

// ealArgs are the arguments of rte_eal_init for the forwarder's ports.
func ealArgs(c Config, lcores, others []int) ([]string, error) {
	threads := fmt.Sprintf("0@(%s)", joinInts(others))
	for i, cpu := range lcores {
		threads += fmt.Sprintf(",%d@%d", i+1, cpu)
	}
	args := []string{"baton", "--log-level=error", "--no-telemetry", "--iova-mode=va",
		"--lcores", threads, "-m", strconv.Itoa(c.MemoryMB)}
	huge, err := useHugepages(c)
	if err != nil {
		return nil, err
	}
	if huge {
		args = append(args, "--in-memory")
	} else {
		args = append(args, "--no-huge", "--no-shconf")
	}
	pci := false
	for _, p := range c.Ports {
		if isPCI(p.Device) {
			pci = true
			args = append(args, "-a", p.Device)
		} else {
			args = append(args, "--vdev", p.Device)
		}
	}
	if !pci {
		args = append(args, "--no-pci")
	}
	return args, nil
}

func joinInts(n []int) string {
	s := make([]string, len(n))
	for i, v := range n {
		s[i] = strconv.Itoa(v)
	}
	return strings.Join(s, ",")
}

// isPCI tells a PCI address (domain:bus:device.function, domain optional) from a virtual device.
func isPCI(device string) bool { return strings.Contains(ethdevName(device), ":") }

// ethdevName is the name that DPDK gives the device's port.
func ethdevName(device string) string {
	name, _, _ := strings.Cut(device, ",")
	return name
}

func useHugepages(c Config) (bool, error) {
	if c.Hugepages == HugepagesNever {
		return false, nil
	}
	free := freeHugepagesMB("/sys/kernel/mm/hugepages")
	if free >= c.MemoryMB {
		return true, nil
	}
	if c.Hugepages == HugepagesAlways {
		return false, fmt.Errorf("%d MiB of free hugepages, %d are needed: "+
			"raise vm.nr_hugepages, lower data.memory, or set data.hugepages to auto", free, c.MemoryMB)
	}
	return false, nil
}

// freeHugepagesMB adds up the free hugepages of all sizes.
func freeHugepagesMB(root string) int {
	dirs, _ := filepath.Glob(filepath.Join(root, "hugepages-*kB"))
	total := 0
	for _, dir := range dirs {
		var kB, free int
		if _, err := fmt.Sscanf(filepath.Base(dir), "hugepages-%dkB", &kB); err != nil {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, "free_hugepages"))
		if err != nil {
			continue
		}
		free, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		total += free * kB / 1024
	}
	return total
}
