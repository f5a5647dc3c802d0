package cgo

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// straceFor is how long a loop is watched.
const straceFor = 2 * time.Second

// startLoop runs the loop of a forwarder whose port 0 is an endless source of hits, on a thread of its own.
func startLoop(t *testing.T, hits bool) (f *Forwarder, thread string) {
	t.Helper()
	f, err := Open(&Config{IPv4Entries: 1000, IPv6Entries: 1, RouterFlows: 1, HeldPackets: 1, PortCount: 1,
		IdleSpinUS: 50, IdleSleepUS: 100}, []Service{{Addr: ipOf("10.77.0.10"), Port: 80, ID: 1, OwnMSS: 1460, Window: 1024}})
	if err != nil {
		t.Fatal(err)
	}
	if hits {
		err = f.OpenMemorySource()
		f.SetSource(SourceHit, 0, 500)
	} else {
		err = f.OpenMemory(0, serviceMAC, MemoryPool)
	}
	if err == nil {
		err = f.FillTable(0, 0, 500, 1)
	}
	if err == nil {
		err = f.Send(&Command{Kind: SetOwner, Owner: 1}, nil)
	}
	if err == nil {
		err = f.Start(-1)
	}
	if err != nil {
		f.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.Stop()
		f.Close()
	})
	return f, loopThread(t)
}

// loopThread finds the thread of the only loop.
func loopThread(t *testing.T) string {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		names, _ := filepath.Glob("/proc/self/task/*/comm")
		for _, name := range names {
			if text, _ := os.ReadFile(name); string(text) == "baton-poll\n" {
				return filepath.Base(filepath.Dir(name))
			}
		}
	}
	t.Fatal("the loop's thread did not appear")
	return ""
}

// systemCalls returns what strace sees of a thread.
func systemCalls(t *testing.T, thread string) []string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "strace")
	cmd := exec.Command("strace", "-qq", "-e", "signal=none", "-o", out, "-p", thread)
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(straceFor)
	_ = cmd.Process.Signal(os.Interrupt)
	if err := cmd.Wait(); err != nil && !strings.Contains(err.Error(), "interrupt") {
		t.Fatalf("strace: %v: %s", err, said.String())
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
}

func needStrace(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("strace is not installed")
	}
	if os.Geteuid() != 0 {
		t.Skip("strace attaches to a running thread as root only")
	}
}

func TestLoopCallsNoSystemUnderLoad(t *testing.T) {
	needStrace(t)
	f, thread := startLoop(t, true)
	before := forwarded(f)
	calls := systemCalls(t, thread)
	if n := forwarded(f) - before; n < 1000 {
		t.Errorf("only %d frames were forwarded meanwhile", n)
	}
	if len(calls) > 0 {
		t.Errorf("%d system calls, the first is %s", len(calls), calls[0])
	}
}

// TestIdleLoopSleeps also shows that strace would have seen something.
func TestIdleLoopSleeps(t *testing.T) {
	needStrace(t)
	_, thread := startLoop(t, false)
	sleeps := 0
	for _, call := range systemCalls(t, thread) {
		if strings.Contains(call, "futex(") {
			sleeps++
		} else if !strings.Contains(call, "resum") {
			t.Errorf("an idle loop calls %s", call)
		}
	}
	if sleeps == 0 {
		t.Error("an idle loop never slept")
	}
}

func forwarded(f *Forwarder) uint64 {
	for i := 0; ; i++ {
		group, name, _, value, ok := f.Counter(i)
		if !ok {
			panic(fmt.Sprintf("no counter of %d", i))
		}
		if group == "packets" && name == "forwarded" {
			return value
		}
	}
}
