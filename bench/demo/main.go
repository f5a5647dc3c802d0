// Command demo shows Baton's main job on real traffic: stock curl in one network namespace reaches stock nginx in two
// others through a virtual IP, chosen by content, over one TCP connection that is handed over while it runs. A judge
// reads the capture of the client's interface; the last line is its count.
//
// Usage: demo [-bin DIR] [-hugepages N] [-import auto|kernel|userspace]. The targets' kernels continue the connections, or
// the targets do that in userspace; auto chooses the latter where the kernel cannot. It needs root, leaves nothing behind, and exits with 1 when the judge
// or curl found anything wrong.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"baton/bench/judge"
	"baton/bench/lab"
	"baton/control/target"
)

const downloadSize = 100 << 20 // octets

func main() {
	lab.RunWatcher()
	bin := flag.String("bin", "bin", "directory of baton, baton-target and batonctl")
	hugepages := flag.Int("hugepages", 0, "2 MiB hugepages to reserve for the forwarder; 0: it does without any")
	how := flag.String("import", "auto", "who continues connections at the targets: auto, kernel or userspace")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *bin, *hugepages, *how); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// demo is a running demonstration.
type demo struct {
	lab     *lab.Lab
	baton   *lab.Baton
	bin     string
	streams map[netip.AddrPort][]judge.Stream
}

func run(ctx context.Context, bin string, hugepages int, how string) (err error) {
	userspace, why, err := inUserspace(how, target.CheckKernel)
	if err != nil {
		return err
	}
	if err := lab.CleanupStale(); err != nil {
		return err
	}
	options := lab.Options{Targets: 2, Hugepages: hugepages}
	if userspace {
		options.Userspace = options.Targets
	}
	l, err := lab.New(options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	d := &demo{lab: l, bin: bin, streams: map[netip.AddrPort][]judge.Stream{}}

	say("A client, a routing host and two target hosts, each a network namespace; nginx on both targets.")
	fmt.Println("   ", why)
	want, err := l.File(downloadSize)
	if err != nil {
		return err
	}
	for _, h := range l.Targets {
		if _, err := h.Nginx(ctx, lab.ServerOptions{}); err != nil {
			return err
		}
	}
	cluster := lab.TwoSites()
	cluster.Rules = append([]lab.Rule{{Path: "/static/", Job: "web-b"}}, cluster.Rules...)
	startCtx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if d.baton, err = l.Baton(startCtx, bin, cluster); err != nil {
		return err
	}
	capture, err := l.Client.Capture()
	if err != nil {
		return err
	}
	if err := errors.Join(d.routes(ctx), d.tables(ctx), d.download(ctx, want)); err != nil {
		return err
	}
	return d.judge(ctx, capture)
}

// inUserspace decides who continues the connections, and says why.
func inUserspace(how string, kernel func() target.Check) (userspace bool, why string, err error) {
	switch how {
	case "kernel":
		return false, "The targets' kernels continue the connections.", nil
	case "userspace":
		return true, "The targets continue the connections in userspace.", nil
	case "auto":
	default:
		return false, "", fmt.Errorf("-import %s: auto, kernel and userspace are possible", how)
	}
	if c := kernel(); !c.OK {
		return true, "The targets continue the connections in userspace, as their kernel cannot: " + c.Detail, nil
	}
	return inUserspace("kernel", kernel)
}

// routes shows that Host and path choose the server.
func (d *demo) routes(ctx context.Context) error {
	say("curl asks the virtual IP %s; Host or path decides who answers.", lab.DVIPA)
	for _, r := range []struct{ host, path, target string }{
		{"a.example", "/", "t1"},
		{"www.b.example", "/", "t2"},
		{"elsewhere.example", "/a/page", "t1"},
		{"elsewhere.example", "/b/page", "t2"},
	} {
		got, err := d.curl(ctx, r.host, r.path)
		if err != nil {
			return err
		}
		if got.Response.Target() != r.target {
			return fmt.Errorf("%s%s was served by %q, want %s", r.host, r.path, got.Response.Target(), r.target)
		}
		fmt.Printf("    %-32s -> %s  %s", "http://"+r.host+r.path, r.target, got.Response.Data)
	}
	return nil
}

// tables shows what an operator sees.
func (d *demo) tables(ctx context.Context) error {
	for _, command := range []string{"transfers", "crt"} {
		say("batonctl %s", command)
		out, err := d.lab.Router.Run(ctx, filepath.Join(d.bin, "batonctl"), "--socket", d.lab.Router.Path("baton.sock"), command)
		if err != nil {
			return err
		}
		fmt.Print("    ", strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", "\n    "), "\n")
	}
	return nil
}

// download fetches a large file, and shows what the routing host's CPU did meanwhile.
func (d *demo) download(ctx context.Context, want *judge.Digest) error {
	say("A download of %d MB: the target answers the client directly.", downloadSize>>20)
	before, err := cpuTime(d.baton.Router.PID())
	if err != nil {
		return err
	}
	start := time.Now()
	got, err := d.curl(ctx, "elsewhere.example", "/static/data-"+strconv.Itoa(downloadSize))
	if err != nil {
		return err
	}
	took := time.Since(start)
	after, err := cpuTime(d.baton.Router.PID())
	if err != nil {
		return err
	}
	sum := judge.DigestOf(got.Response.Data)
	if sum.String() != want.String() {
		return fmt.Errorf("the download's SHA-256 is %s, want %s", sum, want)
	}
	fmt.Printf("    %d octets from %s in %s, SHA-256 %s as served\n", len(got.Response.Data), got.Response.Target(),
		took.Round(time.Millisecond), sum)
	fmt.Printf("    the routing host used %s of CPU meanwhile: it forwards the client's ACKs only\n", after-before)
	return nil
}

func (d *demo) curl(ctx context.Context, host, path string) (*lab.Curled, error) {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	got, err := d.lab.Client.Curl(ctx, "http://"+lab.DVIPA.String()+path, "--header", "Host: "+host)
	if err != nil {
		return nil, err
	}
	d.streams[got.Local] = append(d.streams[got.Local], got.Stream)
	return got, nil
}

// judge ends the capture and prints the verdict.
func (d *demo) judge(ctx context.Context, capture *lab.Capture) error {
	if err := capture.Quiet(ctx, 300*time.Millisecond); err != nil {
		return err
	}
	frames, err := capture.Stop(ctx)
	if err != nil {
		return err
	}
	expect := judge.Expectation{DVIPA: lab.DVIPA, Streams: d.streams}
	if expect.Owner, err = d.lab.Router.MAC(); err != nil {
		return err
	}
	for _, h := range d.lab.Targets {
		mac, err := h.MAC()
		if err != nil {
			return err
		}
		expect.Targets = append(expect.Targets, mac)
	}
	return verdict(judge.Judge(frames, expect))
}

func verdict(r judge.Report) error {
	for _, v := range r.Violations {
		fmt.Println("   ", v)
	}
	if !r.Pass() {
		return fmt.Errorf("the judge found %d violations: %s", len(r.Violations), r.Summary())
	}
	if r.Transferred() != len(r.Conns) {
		return fmt.Errorf("not every connection was transferred: %s", r.Summary())
	}
	fmt.Println("demo ok:", r.Summary())
	return nil
}

// cpuTime is the CPU time that a process has used, user and system, all threads (proc(5), stat fields 14 and 15 in
// ticks of 10 ms).
func cpuTime(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the name may hold blanks
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("read /proc/%d/stat: %d fields", pid, len(fields))
	}
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err1, err2)
}

func say(format string, args ...any) { fmt.Printf("\n== "+format+"\n", args...) }
