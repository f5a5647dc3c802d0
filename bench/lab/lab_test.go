package lab

import (
	"bufio"
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"baton/bench/judge"
	"baton/fastpath/wire"
)

func TestMain(m *testing.M) {
	RunWatcher()
	if os.Getenv("BATON_LAB_TEST_HANG") != "" {
		hang()
	}
	os.Exit(m.Run())
}

// hang builds a lab with a process and a mount in it, says so, and waits to be killed.
func hang() {
	l, err := New(Options{})
	if err != nil {
		panic(err)
	}
	if _, err := l.Targets[0].Start("sleep", "sleep", "1000"); err != nil {
		panic(err)
	}
	if err := l.bpffs(l.Targets[0]); err != nil {
		panic(err)
	}
	os.Stdout.WriteString(l.Prefix + "\n")
	time.Sleep(time.Hour)
}

func newLab(t *testing.T, o Options) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip(ErrNotRoot)
	}
	for _, program := range []string{"ip", "ethtool", "nginx", "haproxy", "curl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	l, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close lab: %v", err)
		}
		if left := remains(l.Prefix); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	return l
}

// remains lists what is there of a lab.
func remains(prefix string) (left []string) {
	names, _ := filepath.Glob(namespacePath(prefix + "-*")) // the patterns are well-formed
	dirs, _ := filepath.Glob(directoryOf(prefix))
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	if strings.Contains(string(mounts), prefix+"-") || strings.Contains(string(mounts), directoryOf(prefix)) {
		left = append(left, "mounts")
	}
	return append(append(left, names...), dirs...)
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// direct expects that a host serves its own address.
func direct(t *testing.T, h *Host) judge.Expectation {
	t.Helper()
	mac, err := h.MAC()
	if err != nil {
		t.Fatal(err)
	}
	return judge.Expectation{DVIPA: h.Data.Addr(), Owner: mac, Streams: map[netip.AddrPort][]judge.Stream{}}
}

// verdict ends the capture and judges it.
func verdict(t *testing.T, c *Capture, e judge.Expectation) judge.Report {
	t.Helper()
	ctx := deadline(t)
	if err := c.Quiet(ctx, 100*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	frames, err := c.Stop(ctx)
	if err != nil {
		t.Fatal(err)
	}
	r := judge.Judge(frames, e)
	for _, v := range r.Violations {
		t.Error(v)
	}
	return r
}

// TestServersAnswerDirectly fetches from each stock server without Baton and judges the capture.
func TestServersAnswerDirectly(t *testing.T) {
	l := newLab(t, Options{Targets: 4})
	ctx := deadline(t)
	for i, start := range []func(*Host) error{
		func(h *Host) error { _, err := h.Nginx(ctx, ServerOptions{}); return err },
		func(h *Host) error { _, err := h.Haproxy(ctx, ServerOptions{}); return err },
		func(h *Host) error { _, err := h.Python(ctx); return err },
		func(h *Host) error {
			listener, err := h.Listen(":80")
			if err == nil {
				h.Go(listener)
			}
			return err
		},
	} {
		h := l.Targets[i]
		t.Run(h.Name, func(t *testing.T) {
			if err := start(h); err != nil {
				t.Fatal(err)
			}
			c, err := l.Client.Capture()
			if err != nil {
				t.Fatal(err)
			}
			e := direct(t, h)
			got, err := l.Client.Curl(ctx, "http://"+h.Data.Addr().String()+"/some/path", "--header", "Host: a.example")
			if err != nil {
				t.Fatal(err)
			}
			if want := h.Name + " GET a.example /some/path\n"; string(got.Response.Data) != want {
				t.Errorf("body %q, want %q", got.Response.Data, want)
			}
			e.Streams[got.Local] = []judge.Stream{got.Stream}
			conn, err := l.Client.Dial(ctx, netip.AddrPort{}, netip.AddrPortFrom(h.Data.Addr(), 80))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := RoundTrip(ctx, conn, Request("b.example", "/")); err != nil {
				t.Error(err)
			}
			e.Streams[conn.Local()] = []judge.Stream{conn.Stream()}
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
			if r := verdict(t, c, e); len(r.Conns) != 2 || r.Retransmissions() != 0 {
				t.Errorf("%s, want 2 connections without retransmissions", r.Summary())
			}
		})
	}
}

// TestCaptureKeepsUpWithDownload judges every octet of a long download.
func TestCaptureKeepsUpWithDownload(t *testing.T) {
	l := newLab(t, Options{})
	ctx := deadline(t)
	h := l.Targets[0]
	want, err := l.File(100_000_000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Nginx(ctx, ServerOptions{}); err != nil {
		t.Fatal(err)
	}
	c, err := l.Client.Capture()
	if err != nil {
		t.Fatal(err)
	}
	e := direct(t, h)
	got, err := l.Client.Curl(ctx, "http://"+h.Data.Addr().String()+"/static/data-100000000")
	if err != nil {
		t.Fatal(err)
	}
	if *judge.DigestOf(got.Response.Data) != *want {
		t.Error("curl received something else than the file")
	}
	e.Streams[got.Local] = []judge.Stream{got.Stream}
	began := time.Now()
	r := verdict(t, c, e)
	t.Logf("download %v, %d frames, %s, judged in %v", got.Total, r.Frames, r.Summary(), time.Since(began))
}

func TestUploadIsStored(t *testing.T) {
	l := newLab(t, Options{})
	ctx := deadline(t)
	h := l.Targets[0]
	if _, err := h.Nginx(ctx, ServerOptions{}); err != nil {
		t.Fatal(err)
	}
	file := l.Client.Path("upload")
	if err := os.WriteFile(file, Data(3_000_000), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := l.Client.Curl(ctx, "http://"+h.Data.Addr().String()+"/upload/it", "--upload-file", file)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := FileDigest(h.Path("upload", "it"))
	if err != nil || *stored != *judge.DigestOf(Data(3_000_000)) {
		t.Errorf("status %d, stored %v, %v", got.Response.StatusCode, stored, err)
	}
}

// TestRawClientSpeaksTCP sends a request octet by octet, without any option, from an address of no kernel.
func TestRawClientSpeaksTCP(t *testing.T) {
	l := newLab(t, Options{})
	ctx := deadline(t)
	h := l.Targets[0]
	if _, err := h.Nginx(ctx, ServerOptions{}); err != nil {
		t.Fatal(err)
	}
	c, err := l.Client.Capture()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := l.Client.Raw(netip.MustParseAddr("10.77.0.150"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := raw.Connect(ctx, 4000, netip.AddrPortFrom(h.Data.Addr(), 80), wire.Options{})
	if err != nil {
		t.Fatal(err)
	}
	request := Request("raw.example", "/x", "Connection: close")
	for i := range request {
		if err := conn.Send(wire.ACK|wire.PSH, request[i:i+1]); err != nil {
			t.Fatal(err)
		}
	}
	got, err := conn.ReadUntil(ctx, func([]byte) bool { return false })
	if err != nil || !strings.HasSuffix(string(got), "t1 GET raw.example /x\n") {
		t.Errorf("received %q, %v", got, err)
	}
	if err := conn.Send(wire.FIN|wire.ACK, nil); err != nil {
		t.Error(err)
	}
	e := direct(t, h)
	e.Streams[conn.Tuple.Client] = []judge.Stream{{Sent: judge.DigestOf(request), Received: judge.DigestOf(got)}}
	r := verdict(t, c, e)
	if len(r.Conns) != 1 || !r.Conns[0].Closed {
		t.Errorf("%s, want one closed connection", r.Summary())
	}
	if err := raw.Close(); err != nil {
		t.Error(err)
	}
}

// TestPlainForwarder sends a download's client side through testpmd; the DVIPA then has two MACs: the client sends to
// the routing host's, and the target answers from its own.
func TestPlainForwarder(t *testing.T) {
	if _, err := exec.LookPath("dpdk-testpmd"); err != nil {
		t.Skip(err)
	}
	for _, device := range []string{"net_af_xdp", "net_af_packet"} {
		t.Run(device, func(t *testing.T) {
			l := newLab(t, Options{})
			ctx := deadline(t)
			h := l.Targets[0]
			if _, err := h.Nginx(ctx, ServerOptions{}); err != nil {
				t.Fatal(err)
			}
			want, err := l.File(20_000_000)
			if err != nil {
				t.Fatal(err)
			}
			if err := h.AddDVIPA(DVIPA); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Testpmd(ctx, device, h); err != nil {
				t.Fatal(err)
			}
			c, err := l.Client.Capture()
			if err != nil {
				t.Fatal(err)
			}
			got, err := l.Client.Curl(ctx, "http://"+DVIPA.String()+"/static/data-20000000")
			if err != nil {
				t.Fatal(err)
			}
			if *judge.DigestOf(got.Response.Data) != *want {
				t.Error("curl received something else than the file")
			}
			e := direct(t, h)
			e.DVIPA = DVIPA
			e.Streams[got.Local] = []judge.Stream{got.Stream}
			r := verdict(t, c, e)
			t.Logf("%v, %d frames, %s", got.Total, r.Frames, r.Summary())
		})
	}
}

func TestSysctlIsPutBack(t *testing.T) {
	l := newLab(t, Options{})
	read := func() string {
		out, err := l.Client.Run(deadline(t), "cat", "/proc/sys/net/ipv4/tcp_timestamps")
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	restore, err := l.Client.SetSysctl("net.ipv4.tcp_timestamps", "0")
	if err != nil || read() != "0" {
		t.Errorf("set: %v, reads %q", err, read())
	}
	if err := restore(); err != nil || read() != "1" {
		t.Errorf("restored: %v, reads %q", err, read())
	}
}

func TestReadyReportsWhatAProcessSaidBeforeItDied(t *testing.T) {
	l := newLab(t, Options{})
	p, err := l.Client.Start("fails", "sh", "-c", "echo no such thing; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	err = p.Ready(deadline(t), func() error { return errors.New("never") })
	if !errors.Is(err, ErrEnded) || !strings.Contains(err.Error(), "no such thing") {
		t.Errorf("error %v, want ErrEnded and the log", err)
	}
}

// TestWatcherCleansUpAfterSIGKILL kills a process that has built a lab.
func TestWatcherCleansUpAfterSIGKILL(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip(ErrNotRoot)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "BATON_LAB_TEST_HANG=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	prefix := strings.TrimSpace(line)
	if len(remains(prefix)) == 0 {
		t.Error("the lab is not there")
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err = Until(ctx, "the watcher has cleaned up", func() error {
		if left := remains(prefix); len(left) > 0 {
			return errors.New(strings.Join(left, " "))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
