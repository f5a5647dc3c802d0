package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"runtime"
	"strings"
	"syscall"

	"baton/bench/lab"
)

// stockPackages are the Debian packages of the programs that Baton is tried with.
var stockPackages = []string{"nginx", "haproxy", "curl", "python3", "dpdk-dev", "libdpdk-dev", "iproute2", "ethtool",
	"dovecot-core"}

func main() {
	lab.RunWatcher()
	only := flag.String("only", "", "run only scenarios whose name matches this regular expression")
	bin := flag.String("bin", "bin", "directory of baton, baton-target and batonctl")
	device := flag.String("device", "net_af_xdp", "DPDK driver of the forwarder's port: net_af_xdp or net_af_packet")
	hugepages := flag.Int("hugepages", 0, "2 MiB hugepages to reserve for the forwarder; 0: it does without any")
	again := flag.Bool("again", false, "try a failed scenario once more; what passes only then is counted and named as unsteady")
	list := flag.Bool("list", false, "list the scenarios and what they claim")
	flag.Parse()
	chosen, err := choose(*only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(2)
	}
	if *list {
		for _, s := range chosen {
			fmt.Printf("%-26s %s\n", s.Name, s.Doc)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r := &runner{bin: *bin, device: *device, hugepages: *hugepages, again: *again, out: os.Stdout}
	if failed := runAll(ctx, r, chosen); failed > 0 {
		stop()
		os.Exit(1)
	}
}

// choose returns the scenarios whose names match, in the order in which they run; none is an error, as a mistyped name
// would pass otherwise.
func choose(only string) (chosen []Scenario, err error) {
	pattern, err := regexp.Compile(only)
	if err != nil {
		return nil, fmt.Errorf("-only: %w", err)
	}
	for _, s := range scenarios {
		if pattern.MatchString(s.Name) {
			chosen = append(chosen, s)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("-only %s matches no scenario", only)
	}
	return grouped(chosen), nil
}

// runAll runs scenarios, prints the result, and returns how many failed: with again, twice.
func runAll(ctx context.Context, r *runner, chosen []Scenario) (failed int) {
	if err := lab.CleanupStale(); err != nil {
		fmt.Fprintln(r.out, "clean up after former runs:", err)
	}
	printVersions(r.out)
	passed := 0
	var unsteady []string
	for _, s := range chosen {
		ok := r.run(ctx, s)
		if !ok && r.again {
			if ok = r.run(ctx, s); ok {
				unsteady = append(unsteady, s.Name)
			}
		}
		if ok {
			passed++
		} else {
			failed++
		}
	}
	if err := r.close(); err != nil {
		fmt.Fprintln(r.out, "FAIL clean-up:", oneLine(err))
		failed++
	}
	if len(unsteady) > 0 {
		fmt.Fprintf(r.out, "e2e: %d unsteady, passed only at the second attempt: %s\n", len(unsteady), strings.Join(unsteady, " "))
	}
	fmt.Fprintf(r.out, "e2e: %d passed, %d failed\n", passed, failed)
	return failed
}

// printVersions says what was tried.
func printVersions(out io.Writer) {
	show := append([]string{"--show", "--showformat", "${Package} ${Version}\n"}, stockPackages...)
	query := exec.Command("dpkg-query", show...)
	text, err := query.Output() // what is not installed is reported below
	for line := range strings.Lines(string(text)) {
		fmt.Fprint(out, "stock: ", line)
	}
	if err != nil {
		fmt.Fprintln(out, "stock: not all of", stockPackages, "are installed")
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease") // always there
	fmt.Fprintf(out, "stock: net/http %s\nstock: linux %s", runtime.Version(), kernel)
}
