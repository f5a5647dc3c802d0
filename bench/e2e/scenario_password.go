package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"baton/bench/lab"
)

// passwordFile and passwordURL are where the routing host has passwords from.
const (
	passwordFile = "passwords"
	passwordURL  = "http://127.0.0.1:9000/auth"
)

// hashes are those of the mailboxes' password, "secret": by htpasswd -B and by doveadm pw.
const hashes = `# users
ada@a.example:$2y$05$s1PcjA4f02di2L4UgH0mIed.LUKBYsQYTKS58HugB/3fDbeZ5XGTK
bob@b.example:{SHA512-CRYPT}$6$abc$IdWKNKTJEb8LxY7CGg8YBXlvtfZzFw7Mp/r6niK9YB2mdvgY..TKjv1T..8RadRt2qvUHYRLr/TsVArtr91iR1
`

// checkedMail is stockMail whose users log in with the routing host first, by a line about passwords.
func checkedMail(protocol, passwords string) lab.Cluster {
	return stockMail(mailSection(protocol) + "\n  passwords: { delay: 100ms, " + passwords + " }")
}

var passwordScenarios = []Scenario{
	{
		Name: "password-check",
		Doc: "curl and python get to their dovecot by POP3 with the password whose hash the routing host has, also after a wrong " +
			"one; with none but wrong ones the routing host answers, and no target hears of the client",
		Shape:  Shape{Cluster: checkedMail("pop3", "file: ${dir}/"+passwordFile), Server: hashedMail, Private: true},
		Expect: tookLong(6, 3),
		Run:    runPasswordFile,
	},
	{
		Name: "password-service",
		Doc: "a service that speaks nginx's auth_http knows the passwords of IMAP users; while it is down clients are told to try " +
			"later, and no target hears of them",
		Shape:  Shape{Cluster: checkedMail("imap", "http: "+passwordURL), Server: dovecot("imap"), Private: true},
		Expect: tookLong(5, 3),
		Run:    runPasswordService,
	},
}

// hashedMail is dovecot on each target, and hashes on the routing host.
func hashedMail(e *Env, h *lab.Host) error {
	if err := os.WriteFile(e.Lab.Router.Path(passwordFile), []byte(hashes), 0o600); err != nil {
		return err
	}
	return dovecot("pop3")(e, h)
}

// runPasswordFile has three clients who know their password in the end, and three who do not.
func runPasswordFile(e *Env) error {
	return e.checking(map[string]uint64{"passwords_right": 3, "passwords_wrong": 6, "passwords_failed": 0, "transferred": 3}, func() error {
		return e.playing(map[string]uint64{"played": 3, "mismatched": 0, "abandoned": 0}, func() error {
			return errors.Join(
				e.curlMail("pop3", "ada@a.example", "t1"),
				e.poplib("bob@b.example", "t2"),
				e.afterWrong("ada@a.example", "t1"),
				e.curlDenied("pop3", "ada@a.example", "wrong", "[AUTH] wrong user or password"),
				e.curlDenied("pop3", "eve@a.example", "secret", "[AUTH] wrong user or password"),
				e.guesses("ada@a.example"),
			)
		})
	})
}

// runPasswordService has clients while the service is there, is gone, and is back.
func runPasswordService(e *Env) error {
	want := map[string]uint64{"passwords_right": 3, "passwords_wrong": 1, "passwords_failed": 1, "transferred": 3}
	return e.checking(want, func() error {
		service, err := e.passwordService()
		if err != nil {
			return err
		}
		err = errors.Join(
			e.curlMail("imap", "ada@a.example", "t1"),
			e.imaplib("login", "bob@b.example", "t2"),
			e.curlDenied("imap", "ada@a.example", "wrong", "NO [AUTHENTICATIONFAILED] wrong user or password"),
		)
		service.Stop()
		err = errors.Join(err, e.curlDenied("imap", "ada@a.example", "secret", "NO [UNAVAILABLE] passwords cannot be checked now"))
		if _, again := e.passwordService(); again != nil {
			return errors.Join(err, again)
		}
		return errors.Join(err, e.curlMail("imap", "ada@a.example", "t1"))
	})
}

// passwordService starts a service that knows one password.
func (e *Env) passwordService() (*lab.Process, error) {
	p, err := e.Lab.Router.Start("passwords", "python3", "-u", "-c", passwordServer)
	if err != nil {
		return nil, err
	}
	return p, p.Says(e.Ctx, "ready")
}

const passwordServer = `
import http.server
class Service(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        h = self.headers
        ok = self.path == "/auth" and h["Auth-Protocol"] == "imap" and h["Auth-Method"] == "plain" and h["Client-IP"]
        self.send_response(200 if ok else 400)
        self.send_header("Auth-Status", "OK" if h["Auth-Pass"] == "secret" else "Invalid login or password")
        self.send_header("Content-Length", "0")
        self.end_headers()
server = http.server.ThreadingHTTPServer(("127.0.0.1", 9000), Service)
print("ready")
server.serve_forever()
`

// checking makes traffic that has to move counters of the router by so much.
func (e *Env) checking(want map[string]uint64, traffic func() error) error {
	before := map[string]uint64{}
	for name := range want {
		n, err := e.counter("router", name)
		if err != nil {
			return err
		}
		before[name] = n
	}
	err := traffic()
	for name, n := range want {
		now, wrong := e.counter("router", name)
		if wrong == nil && now-before[name] != n {
			wrong = fmt.Errorf("%s: %d, want %d", name, now-before[name], n)
		}
		err = errors.Join(err, wrong)
	}
	return err
}

// loginDenied is how curl ends then.
const loginDenied = "exit status 67"

// curlDenied wants curl to be told why it may not log in.
func (e *Env) curlDenied(scheme, user, password, told string) error {
	out, err := e.Client.Run(e.Ctx, "curl", "--silent", "--verbose", "--user", user+":"+password, fmt.Sprintf("%s://%v/", scheme, service))
	if err == nil {
		return fmt.Errorf("curl of %s may log in with %q: %.200q", user, password, out)
	}
	if !strings.Contains(err.Error(), loginDenied) || !strings.Contains(err.Error(), told) {
		return fmt.Errorf("curl of %s with %q: %w %.200q, want %q and %q", user, password, err, out, loginDenied, told)
	}
	return nil
}

// afterWrong has a session of which the first password is wrong.
func (e *Env) afterWrong(user, host string) error {
	out, err := e.Client.Run(e.Ctx, "python3", "-c", secondTry, service.Addr().String(), fmt.Sprint(service.Port()), user)
	if err == nil && !strings.HasPrefix(string(out), "b'-ERR [AUTH] wrong user or password'\n1\n") {
		err = fmt.Errorf("second try: %.200q", out)
	}
	return errors.Join(err, wantMail(out, user, host))
}

const secondTry = `
import poplib, sys
box = poplib.POP3(sys.argv[1], int(sys.argv[2]), timeout=30)
box.user(sys.argv[3])
try:
    box.pass_("wrong")
except poplib.error_proto as e:
    print(e)
box.user(sys.argv[3])
box.pass_("secret")
print(box.stat()[0])
print(b"\n".join(box.retr(1)[1]).decode())
box.quit()
`

// guesses tries passwords until the routing host closes the connection.
func (e *Env) guesses(user string) error {
	out, err := e.Client.Run(e.Ctx, "python3", "-c", guess, service.Addr().String(), fmt.Sprint(service.Port()), user)
	if err == nil && string(out) != "3 b'-ERR [AUTH] wrong user or password' end\n" {
		err = fmt.Errorf("guesses: %.200q", out)
	}
	return err
}

const guess = `
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 30)
f = s.makefile("rb")
f.readline()
said = []
for password in ("one", "two", "three"):
    s.sendall(b"USER " + sys.argv[3].encode() + b"\r\n")
    f.readline()
    s.sendall(b"PASS " + password.encode() + b"\r\n")
    said.append(f.readline().rstrip())
print(said.count(said[0]), said[0], "end" if f.readline() == b"" else "goes on")
`
