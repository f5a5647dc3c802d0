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
	Caches     string `json:"caches"` // of the first core, by level
	Kernel     string `json:"kernel"`
	Go         string `json:"go"`
	Compiler   string `json:"compiler"`
	DPDK       string `json:"dpdk"` // Debian package and version; "": none
	LoadBefore string `json:"load_before"`
	LoadAfter  string `json:"load_after"`
}

func (r *Result) describe(ctx context.Context) error {
	r.Machine = Machine{Cores: runtime.NumCPU(), Go: runtime.Version(), CPU: cpuModel(), Caches: caches(),
		Kernel: text("/proc/sys/kernel/osrelease"), LoadBefore: load()}
	commands := []struct {
		to   *string
		args []string
	}{
		{&r.Machine.Compiler, []string{"gcc", "--version"}},
		{&r.Machine.DPDK, []string{"dpkg-query", "--show", "--showformat", "${Package} ${Version}", "libdpdk-dev"}},
		{&r.Commit, []string{"git", "rev-parse", "HEAD"}},
	}
	for _, c := range commands {
		out, err := exec.CommandContext(ctx, c.args[0], c.args[1:]...).Output()
		if err != nil {
			return fmt.Errorf("%s: %w", strings.Join(c.args, " "), err)
		}
		first, _, _ := strings.Cut(string(out), "\n")
		*c.to = first
	}
	status, err := exec.CommandContext(ctx, "git", "status", "--porcelain", "--untracked-files=no", "--", "cgo").Output()
	r.Modified = len(bytes.TrimSpace(status)) > 0
	return err
}

// text is a file without the space around it; "" when there is none.
func text(path string) string {
	b, _ := os.ReadFile(path)
	return strings.TrimSpace(string(b))
}

func cpuModel() string {
	for line := range strings.Lines(text("/proc/cpuinfo")) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func caches() string {
	var out []string
	for i := range 4 {
		dir := fmt.Sprintf("/sys/devices/system/cpu/cpu0/cache/index%d/", i)
		if size := text(dir + "size"); size != "" {
			out = append(out, "L"+text(dir+"level")+" "+text(dir+"type")+" "+size)
		}
	}
	return strings.Join(out, ", ")
}

func load() string {
	minute, _, _ := strings.Cut(text("/proc/loadavg"), " ")
	return minute
}

// hugeMB is how much of this process's memory is in transparent hugepages (proc(5), smaps_rollup).
func hugeMB() float64 {
	for line := range strings.Lines(text("/proc/self/smaps_rollup")) {
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
	before, err := strconv.Atoi(text(nrHugepages))
	if err != nil {
		return func() {}, fmt.Errorf("read the number of hugepages: %w", err)
	}
	if err := writeHugepages(before + n); err != nil {
		return func() {}, err
	}
	got, _ := strconv.Atoi(text(nrHugepages))
	giveBack = func() {
		now, _ := strconv.Atoi(text(nrHugepages))
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
