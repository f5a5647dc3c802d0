package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"

	"baton/bench/machine"
)

// Machine is where the numbers are from.
type Machine struct {
	CPU        string `json:"cpu"`
	Cores      int    `json:"cores"`
	Caches     string `json:"caches"` // of the first core, by level
	Kernel     string `json:"kernel"`
	Go         string `json:"go"`
	Compiler   string `json:"compiler"`
	DPDK       string `json:"dpdk"` // Debian package and version; "": none
	LoadBefore string `json:"load_before"`
	LoadAfter  string `json:"load_after"`
}

func (r *Result) describe(ctx context.Context) (err error) {
	r.Machine = Machine{Cores: runtime.NumCPU(), Go: runtime.Version(), CPU: machine.CPU(), Caches: caches(),
		Kernel: machine.Kernel(), LoadBefore: machine.Load()}
	if r.Machine.DPDK, err = machine.Package(ctx, "libdpdk-dev"); err != nil {
		return err
	}
	if r.Commit, r.Modified, err = machine.Commit(ctx, "cgo"); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "gcc", "--version").Output()
	r.Machine.Compiler, _, _ = strings.Cut(string(out), "\n")
	return err
}

func caches() string {
	var out []string
	for i := range 4 {
		dir := fmt.Sprintf("/sys/devices/system/cpu/cpu0/cache/index%d/", i)
		if size := machine.Text(dir + "size"); size != "" {
			out = append(out, "L"+machine.Text(dir+"level")+" "+machine.Text(dir+"type")+" "+size)
		}
	}
	return strings.Join(out, ", ")
}

// hugeMB is how much of this process's memory is in transparent hugepages (proc(5), smaps_rollup).
func hugeMB() float64 {
	for line := range strings.Lines(machine.Text("/proc/self/smaps_rollup")) {
		var kB float64
		if n, _ := fmt.Sscanf(line, "AnonHugePages: %f kB", &kB); n == 1 {
			return kB / 1024
		}
	}
	return 0
}

// nrHugepages is the machine's number of 2 MiB hugepages (Linux, admin-guide/mm/hugetlbpage).
const nrHugepages = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"

// borrowHugepages adds up to n to the machine's hugepages; giveBack, never nil, takes away as many as were added.
func borrowHugepages(n int) (giveBack func(), err error) {
	before, err := strconv.Atoi(machine.Text(nrHugepages))
	if err != nil {
		return func() {}, fmt.Errorf("read the number of hugepages: %w", err)
	}
	if err := writeHugepages(before + n); err != nil {
		return func() {}, err
	}
	got, _ := strconv.Atoi(machine.Text(nrHugepages))
	giveBack = func() {
		now, _ := strconv.Atoi(machine.Text(nrHugepages))
		if err := writeHugepages(max(0, now-(got-before))); err != nil {
			fmt.Fprintln(os.Stderr, "bench-fastpath: hugepages remain reserved:", err)
		}
	}
	if got < before+n {
		return giveBack, fmt.Errorf("only %d of %d hugepages could be reserved: %w", got-before, n, errNoMemory)
	}
	return giveBack, nil
}

var errNoMemory = errors.New("memory is short or in pieces")

func writeHugepages(n int) error {
	return os.WriteFile(nrHugepages, []byte(strconv.Itoa(n)+"\n"), 0o644)
}
