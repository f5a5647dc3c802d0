package xcf

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestCertificateFilesAreForTheOwnerOnlyAndNotOverwritten(t *testing.T) {
	t.Parallel()
	dir := newCA(t)
	host(t, dir, RoleTarget, "t1", 0)
	for _, name := range []string{"ca.pem", "ca.key", "t1.pem", "t1.key"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != 0o600 {
			t.Errorf("%s has mode %s, want 0600", name, info.Mode())
		}
	}
	before, err := os.ReadFile(filepath.Join(dir, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := CreateCA(dir); !errors.Is(err, os.ErrExist) {
		t.Errorf("second CreateCA: %v, want ErrExist", err)
	}
	if err := IssueHost(dir, RoleRouter, "t1", 0); !errors.Is(err, os.ErrExist) {
		t.Errorf("second IssueHost: %v, want ErrExist", err)
	}
	if after, err := os.ReadFile(filepath.Join(dir, "ca.key")); err != nil || string(after) != string(before) {
		t.Errorf("ca.key changed (%v)", err)
	}
}

func TestCertificateNamesItsHost(t *testing.T) {
	t.Parallel()
	dir := newCA(t)
	if err := IssueHost(dir, RoleRouter, "rh1", time.Hour, netip.MustParseAddr("10.78.0.1")); err != nil {
		t.Fatal(err)
	}
	certs, err := readCertificates(filepath.Join(dir, "rh1.pem"))
	if err != nil {
		t.Fatal(err)
	}
	cert := certs[0]
	if len(cert.URIs) != 1 || cert.URIs[0].String() != "baton://router/rh1" {
		t.Errorf("URIs %v, want baton://router/rh1", cert.URIs)
	}
	if len(cert.IPAddresses) != 1 || !cert.IPAddresses[0].Equal(net.IPv4(10, 78, 0, 1)) {
		t.Errorf("IPs %v, want 10.78.0.1", cert.IPAddresses)
	}
	if left := time.Until(cert.NotAfter); left > time.Hour || left < 59*time.Minute {
		t.Errorf("valid for %s, want an hour", left)
	}
}

func TestNamesThatCannotBeFilesOrLabelsAreRefused(t *testing.T) {
	t.Parallel()
	dir := newCA(t)
	for _, name := range []string{"", "a/b", "..", ".x", "ca", "a b", "ä", strings.Repeat("x", 64)} {
		if err := IssueHost(dir, RoleTarget, name, 0); !errors.Is(err, ErrName) {
			t.Errorf("name %q: %v, want ErrName", name, err)
		}
	}
	if err := IssueHost(dir, "client", "c1", 0); !errors.Is(err, ErrRole) {
		t.Errorf("role client: %v, want ErrRole", err)
	}
}

func TestCheckSaysWhatIsWrongWithTheFiles(t *testing.T) {
	t.Parallel()
	dir, other := newCA(t), newCA(t)
	good := host(t, dir, RoleTarget, "t1", 0).Files
	expired := host(t, dir, RoleTarget, "old", -time.Hour).Files
	foreign := host(t, other, RoleTarget, "t1", 0).Files
	junk := filepath.Join(dir, "junk.pem")
	if err := os.WriteFile(junk, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		name  string
		files Files
		role  Role
		host  string
		is    error // nil: only the words count
		words []string
	}{
		{"right", good, RoleTarget, "t1", nil, nil},
		{"expired", expired, RoleTarget, "old", ErrExpired, []string{"old.pem", "xcf-expired", "batonctl certs"}},
		{"another CA", Files{CA: foreign.CA, Cert: good.Cert, Key: good.Key}, RoleTarget, "t1",
			ErrUnknownCA, []string{"t1.pem", "baton://target/t1"}},
		{"role", good, RoleRouter, "t1", ErrRole, []string{"it is baton://target/t1, a router is wanted"}},
		{"name", good, RoleTarget, "t2", ErrName, []string{"it is baton://target/t1", "host t2 is wanted"}},
		{"no CA file", Files{CA: "/nowhere/ca.pem", Cert: good.Cert, Key: good.Key}, RoleTarget, "t1",
			os.ErrNotExist, []string{"/nowhere/ca.pem"}},
		{"no key file", Files{CA: good.CA, Cert: good.Cert, Key: "/nowhere/t1.key"}, RoleTarget, "t1",
			os.ErrNotExist, []string{"/nowhere/t1.key"}},
		{"another's key", Files{CA: good.CA, Cert: good.Cert, Key: foreign.Key}, RoleTarget, "t1",
			nil, []string{"private key does not match"}},
		{"CA file without certificate", Files{CA: junk, Cert: good.Cert, Key: good.Key}, RoleTarget, "t1",
			nil, []string{"junk.pem", "no certificate"}},
		{"CA as host", Files{CA: good.CA, Cert: good.CA, Key: filepath.Join(dir, "ca.key")}, RoleTarget, "t1",
			ErrIdentity, []string{"0 baton:// URIs"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			id, err := row.files.Check(row.role, row.host)
			if row.words == nil && row.is == nil {
				if err != nil || id != (Identity{RoleTarget, "t1"}) {
					t.Errorf("%s, %v", id, err)
				}
				return
			}
			if err == nil || row.is != nil && !errors.Is(err, row.is) || !containsAll(err.Error(), row.words) {
				t.Errorf("error %q, want %v with %q", err, row.is, row.words)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("error has several lines: %q", err)
			}
		})
	}
}

// TestServerRefusesStrangers: the routing host's log says why, and what the target sees is ErrRefused with a hint.
func TestServerRefusesStrangers(t *testing.T) {
	t.Parallel()
	dir, other := newCA(t), newCA(t)
	s, h, log := serve(t, host(t, dir, RoleRouter, "rh1", 0))
	rows := []struct {
		name string
		peer Config
		want string
	}{
		{"wrong CA", host(t, other, RoleTarget, "t9", 0), "baton://target/t9: certificate is not signed by our CA"},
		{"router as target", host(t, dir, RoleRouter, "rh2", 0), "it is baton://router/rh2, a target is wanted"},
		{"expired", host(t, dir, RoleTarget, "old", -time.Hour), "baton://target/old: certificate is expired"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			conn := rawPeer(t, s.Addr().String(), row.peer)
			_, err := conn.Read(make([]byte, 1))
			if err = explainHandshake(err); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "its log says which") {
				t.Errorf("peer sees %v, want ErrRefused with a hint", err)
			}
			log.waitFor(t, "refused", row.want)
		})
	}
	t.Run("no certificate", func(t *testing.T) {
		conn, err := tls.Dial("tcp", s.Addr().String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_, err = conn.Read(make([]byte, 1))
		if err = explainHandshake(err); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "got no certificate") {
			t.Errorf("peer sees %v", err)
		}
	})
	select {
	case e := <-h:
		t.Errorf("handler was told of a %s", e.kind)
	default:
	}
}

// TestDialerRefusesStrangers: what is not the configured routing host never comes up, and Stats and log say why.
func TestDialerRefusesStrangers(t *testing.T) {
	t.Parallel()
	dir, other := newCA(t), newCA(t)
	t1 := host(t, dir, RoleTarget, "t1", 0)
	rows := []struct {
		name string
		peer Config
		want string
	}{
		{"wrong CA", host(t, other, RoleRouter, "rh1", 0), "baton://router/rh1: certificate is not signed by our CA"},
		{"target as router", host(t, dir, RoleTarget, "rh1", 0), "it is baton://target/rh1, a router is wanted"},
		{"wrong name", host(t, dir, RoleRouter, "rh2", 0), "it is baton://router/rh2, host rh1 is wanted"},
		{"expired", host(t, dir, RoleRouter, "rh3", -time.Hour), "baton://router/rh3: certificate is expired"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			address := strangeServer(t, row.peer)
			d, h, log := dial(t, t1, Router{"rh1", address})
			log.waitFor(t, row.want, "host=rh1")
			if got := d.Stats()[0]; got.Up || !strings.Contains(got.LastError, row.want) {
				t.Errorf("stats %+v, want the reason", got)
			}
			select {
			case e := <-h:
				t.Errorf("handler was told of a %s", e.kind)
			default:
			}
		})
	}
}

// strangeServer accepts TLS with a certificate that Listen would not even start with.
func strangeServer(t *testing.T, c Config) (address string) {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(c.Files.Cert, c.Files.Key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).Handshake() // fails: the dialer refuses
			_ = conn.Close()
		}
	}()
	return l.Addr().String()
}

func TestOwnCertificateIsCheckedAtStart(t *testing.T) {
	t.Parallel()
	dir := newCA(t)
	if _, err := Listen("127.0.0.1:0", host(t, dir, RoleTarget, "t1", 0), newRecorder(), nil); !errors.Is(err, ErrRole) {
		t.Errorf("Listen with a target's certificate: %v, want ErrRole", err)
	}
	old := host(t, dir, RoleTarget, "old", -time.Hour)
	if _, err := NewDialer(old, nil, newRecorder(), nil); !errors.Is(err, ErrExpired) {
		t.Errorf("NewDialer with an expired certificate: %v, want ErrExpired", err)
	}
}

func TestCertificateFilesAreReadAgainForEachStream(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	host(t, p.dir, RoleTarget, "old", -time.Hour)
	use := func(name string) {
		t.Helper()
		for _, ext := range []string{".pem", ".key"} {
			if err := os.Rename(filepath.Join(p.dir, "t1"+ext), filepath.Join(p.dir, "kept"+ext)); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(p.dir, name+ext), filepath.Join(p.dir, "t1"+ext)); err != nil {
				t.Fatal(err)
			}
		}
	}
	use("old")
	p.server.find("t1").Close()
	p.atDialer.next(t, "down")
	refused := func() bool { return strings.Contains(p.dialer.Stats()[0].LastError, "xcf-expired") }
	eventually(t, refused, func() string { return p.dialer.Stats()[0].LastError })
	for _, ext := range []string{".pem", ".key"} {
		if err := os.Rename(filepath.Join(p.dir, "kept"+ext), filepath.Join(p.dir, "t1"+ext)); err != nil {
			t.Fatal(err)
		}
	}
	p.atDialer.next(t, "up")
}
