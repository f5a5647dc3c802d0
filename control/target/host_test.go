package target

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"baton/control/transfer"
)

func mustRead(t *testing.T, l *lab, key string) (value string) {
	t.Helper()
	l.do(t, func() (err error) {
		value, err = readSysctl(key)
		return err
	})
	return value
}

// What managing changes, restoring changes back; what was right before is left alone.
func TestManagedHostIsRestored(t *testing.T) {
	l := newLab(t)
	dir := newPinDir(t)
	l.sysctl(t, "net/ipv4/conf/all/arp_announce", "2")
	vips := []netip.Addr{netip.MustParseAddr("10.77.0.11"), netip.MustParseAddr("fd77::11"), service4.Addr()}
	for range 2 { // the second agent does not take the first one's settings for the original ones
		u, err := openUndo(dir)
		if err != nil {
			t.Fatal(err)
		}
		l.do(t, func() error { return manageHost(u, vips) })
		u.Close()
	}
	// The kernel needs a moment for an IPv6 address.
	deadline := time.Now().Add(answerTimeout)
	for _, c := range checksIn(t, l, func() []Check { return checkAddresses(vips) }) {
		for !c.OK && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
			c.OK = isLocalIn(t, l, c.Name)
		}
		if !c.OK {
			t.Errorf("after managing: %+v", c)
		}
	}
	u, err := openUndo(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	changes, err := u.all()
	if err != nil {
		t.Fatal(err)
	}
	if len(changes) != 3 || changes[undoSysctl+"net/ipv4/conf/all/arp_ignore"] != "0" {
		t.Errorf("remembered %v, want two addresses and arp_ignore=0", changes)
	}
	l.do(t, func() error { return restoreHost(changes) })
	if got := mustRead(t, l, "net/ipv4/conf/all/arp_ignore"); got != "0" {
		t.Errorf("arp_ignore is %s, want 0 again", got)
	}
	l.do(t, func() error {
		if isLocal(vips[0]) || isLocal(vips[1]) || !isLocal(vips[2]) {
			t.Error("want the two added addresses gone, the third still there")
		}
		return nil
	})
	if err := removePins(dir + "/nothing"); err != nil {
		t.Errorf("removing no pins: %v", err)
	}
}

func isLocalIn(t *testing.T, l *lab, check string) (local bool) {
	t.Helper()
	l.do(t, func() error {
		a, err := netip.ParseAddr(strings.TrimPrefix(check, "address "))
		local = err == nil && isLocal(a)
		return nil
	})
	return local
}

func checksIn(t *testing.T, l *lab, look func() []Check) (checks []Check) {
	t.Helper()
	l.do(t, func() error {
		checks = look()
		return nil
	})
	return checks
}

// Each wrong setting is found, alone, with the line that mends it.
func TestChecksSayWhatToSet(t *testing.T) {
	look := func() []Check { return append(checkSysctls(), checkAddresses([]netip.Addr{service4.Addr()})...) }
	tests := []struct{ key, value, want string }{
		{"net/ipv4/tcp_syncookies", "0", "set net.ipv4.tcp_syncookies=1"},
		{"net/ipv4/tcp_timestamps", "0", "set net.ipv4.tcp_timestamps=1"},
		{"net/ipv4/tcp_sack", "0", "set net.ipv4.tcp_sack=1"},
		{"net/ipv4/tcp_window_scaling", "0", "set net.ipv4.tcp_window_scaling=1"},
		{"net/ipv4/tcp_rfc1337", "1", "set net.ipv4.tcp_rfc1337=0"},
		{"net/netfilter/nf_conntrack_tcp_loose", "0", "set net.netfilter.nf_conntrack_tcp_loose=1"},
		{"net/ipv4/conf/all/arp_ignore", "0", "set net.ipv4.conf.all.arp_ignore=1"},
		{"net/ipv4/conf/all/arp_announce", "1", "set net.ipv4.conf.all.arp_announce=2"},
	}
	l := newLab(t)
	for _, s := range arpSettings {
		l.sysctl(t, s.key, s.value)
	}
	for _, tt := range tests {
		t.Run(tt.key, func(t *testing.T) {
			if _, err := os.Stat(sysctlPath(tt.key)); err != nil {
				t.Skipf("not in this kernel: %v", err)
			}
			before := mustRead(t, l, tt.key)
			l.sysctl(t, tt.key, tt.value)
			defer l.sysctl(t, tt.key, before)
			var bad []Check
			for _, c := range checksIn(t, l, look) {
				if !c.OK {
					bad = append(bad, c)
				}
			}
			if len(bad) != 1 || !strings.HasPrefix(bad[0].Detail, tt.want) || strings.Contains(bad[0].Detail, "\n") {
				t.Errorf("found %+v, want one line that begins with %q", bad, tt.want)
			}
		})
	}
}

func TestListenerChecks(t *testing.T) {
	tests := []struct {
		name            string
		network, listen string // "": nobody
		mptcp           bool
		want            uint32
		reason          transfer.Reason
		detail          string
	}{
		{name: "exact", network: "tcp4", listen: "10.77.0.10:80", want: 32768},
		{name: "wildcard", network: "tcp4", listen: ":80", want: 32768},
		{name: "dual-stack wildcard", network: "tcp", listen: ":80", want: 32768},
		{name: "IPv6 only", network: "tcp6", listen: "[::]:80", want: 32768, reason: transfer.ReasonNotListening,
			detail: "start the application"},
		{name: "nobody", want: 32768, reason: transfer.ReasonNotListening, detail: "start the application"},
		{name: "another address", network: "tcp4", listen: "10.77.0.21:80", want: 32768,
			reason: transfer.ReasonNotListening, detail: "start the application"},
		{name: "MPTCP", network: "tcp4", listen: ":80", mptcp: true, want: 32768, reason: transfer.ReasonHost,
			detail: "set net.mptcp.enabled=0"},
		{name: "small window", network: "tcp4", listen: ":80", want: 65000, reason: transfer.ReasonWindow,
			detail: "raise the application's SO_RCVBUF"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			if tt.listen != "" {
				l.listen(t, tt.network, tt.listen, tt.mptcp)
			}
			d := l.importer(t).diag
			all, err := d.Dump(Listen)
			if err != nil {
				t.Fatal(err)
			}
			one, err := d.Listener(service4)
			if err != nil {
				t.Fatal(err)
			}
			for how, found := range map[string][]Socket{"all listeners": all, "the kernel's choice": {one}} {
				window, p := checkListener(found, service4, 1460, tt.want)
				if tt.reason == transfer.ReasonNone {
					if p != nil || window != 64240 {
						t.Errorf("%s: window %d, %v; want 64240 and no problem", how, window, p)
					}
					continue
				}
				if p == nil || p.Reason != tt.reason || !strings.Contains(p.Detail, tt.detail) {
					t.Errorf("%s: problem %+v, want %v: ...%s", how, p, tt.reason, tt.detail)
				}
			}
		})
	}
}

func TestProgramThatDoesNotLoadSaysWhatToDo(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"kernel without the function", fmt.Errorf("kfunc %q: %w", "bpf_sk_assign_tcp_reqsk", ebpf.ErrNotSupported),
			"use a kernel with bpf_sk_assign_tcp_reqsk"},
		{"no capabilities", fmt.Errorf("map create: %w", unix.EPERM), "run it as root"},
		{"verifier", errors.New("R1 is no pointer"), "the import program does not load: R1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := loadProblem(tt.err)
			if !strings.HasPrefix(err.Error(), tt.want) || !errors.Is(err, tt.err) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}
