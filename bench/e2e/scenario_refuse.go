package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"

	"baton/bench/judge"
	"baton/bench/lab"
	"baton/control/app"
)

// Texts that clients get when no target takes their connection.
const (
	nobodyTakes = "no server can take the connection now"
	turnedDown  = "not today" // the applications' reason, which is for operators
	busy        = "busy, come back"
)

// spoken are the ports of a service that speaks everything, and how: whoever comes is for the job of the port.
var spoken = []struct {
	port              int
	protocol, further string // section but for its default
}{
	{80, "http", ""}, {110, "pop3", ""}, {143, "imap", ""}, {25, "smtp", ""}, {443, "tls", ""}, {5432, "postgres", ""},
	{6379, "redis", ""}, {4000, "raw", `, refusal: "` + busy + `\r\n"`}, {4001, "raw", ""},
}

// polyglot is a cluster with a job for each port, whose applications are asked on both targets.
func polyglot() (c lab.Cluster) {
	c.Applications = true
	for _, s := range spoken {
		job := fmt.Sprintf("job-%d", s.port)
		section := fmt.Sprintf("protocol: %[1]s\n%[1]s: { default: %s%s }", s.protocol, job, s.further)
		c.Jobs = append(c.Jobs, lab.Job{Name: job, Hosts: []string{"t1", "t2"}, Port: s.port, Application: "ask"})
		if s.port == 80 {
			c.Section = section
		} else {
			c.Services = append(c.Services, lab.Service{Port: s.port, Section: section})
		}
	}
	return c
}

var refuseScenarios = []Scenario{
	{
		Name: "all-reject-error",
		Doc: "clients whose connection every target rejects, or nobody is there for, are told in the words of their protocol, " +
			"as an answer to what they asked, and the connection ends in good order",
		Shape:  Shape{NoBaton: true, Private: true},
		Expect: Expect{Connections: 2 * (stockRefused + len(talksRefused)), Transferred: None},
		Run:    runAllReject,
		Check: func(_ *Env, r judge.Report) error {
			for _, c := range r.Conns {
				if !c.Closed {
					return fmt.Errorf("%v was not closed by both ends", c)
				}
			}
			return nil
		},
	},
}

// runAllReject has clients come to applications that turn everybody down, and again when these are gone.
func runAllReject(e *Env) error {
	b, err := e.LaunchBaton(polyglot())
	if err != nil {
		return err
	}
	e.Baton = b
	unwilling, err := e.unwilling()
	if err := errors.Join(err, b.Ready(e.Ctx)); err != nil {
		return err
	}
	if err := e.everybodyRefused(); err != nil {
		return fmt.Errorf("applications turn them down: %w", err)
	}
	for _, l := range unwilling {
		if err := l.Close(); err != nil {
			return err
		}
	}
	if err := errors.Join(e.turnedDown(), e.nobodyReady()); err != nil {
		return err
	}
	if err := e.everybodyRefused(); err != nil {
		return fmt.Errorf("nobody is there: %w", err)
	}
	return e.outcomes("no_candidate", "")
}

// unwilling registers target applications for all jobs on all targets, which reject every connection.
func (e *Env) unwilling() (all []*app.Listener, err error) {
	for _, h := range e.Lab.Targets {
		for _, s := range spoken {
			inner, err := h.Listen(fmt.Sprintf(":%d", s.port))
			if err != nil {
				return all, err
			}
			l, err := app.Listen(h.ControlSocket(), app.Registration{Job: fmt.Sprintf("job-%d", s.port), Name: "unwilling"}, inner,
				func(app.Offer) error { return errors.New(turnedDown) })
			if err != nil {
				return all, errors.Join(err, inner.Close())
			}
			all = append(all, l)
		}
	}
	return all, nil
}

// turnedDown checks that the applications of both targets have turned down every connection.
func (e *Env) turnedDown() error {
	return errors.Join(e.outcomes("rejected", "t1"), e.outcomes("rejected", "t2"))
}

// outcomes checks that as many attempts as one round has connections ended so, at a target.
func (e *Env) outcomes(outcome, target string) error {
	transfers, err := e.Baton.Admin.Transfers(e.Ctx)
	if err != nil {
		return err
	}
	n := 0
	for _, t := range transfers {
		if t.Outcome != outcome || t.Target != target {
			continue
		}
		if outcome == "rejected" && t.Reason != "application: "+turnedDown {
			return fmt.Errorf("%s rejected for %q, want %q", target, t.Reason, turnedDown)
		}
		n++
	}
	if want := stockRefused + len(talksRefused); n != want {
		return fmt.Errorf("%d attempts with %q ended as %s, want %d", n, target, outcome, want)
	}
	return nil
}

// nobodyReady waits until the routing host knows that there is nobody.
func (e *Env) nobodyReady() error {
	return lab.Until(e.Ctx, "no target is ready", func() error {
		targets, err := e.Baton.Admin.Targets(e.Ctx)
		for _, t := range targets {
			if t.Ready {
				return fmt.Errorf("%s is ready on %s", t.Job, t.Host)
			}
		}
		return err
	})
}

// stockRefused is how many connections stock clients make in everybodyRefused.
const stockRefused = 8

// everybodyRefused has stock clients of all protocols, and such that say more than they need to, be refused.
func (e *Env) everybodyRefused() error {
	at := func(port int) netip.AddrPort { return netip.AddrPortFrom(lab.DVIPA, uint16(port)) }
	curl := func(scheme string, port int, args ...string) []string {
		url := fmt.Sprintf("%s://%v/client.example", scheme, at(port))
		return append([]string{"curl", "--silent", "--show-error", "--verbose", "--noproxy", "*", url}, args...)
	}
	mail := e.Client.Path("mail")
	got, err := e.Curl("a.example", "/")
	if err := errors.Join(err, os.WriteFile(mail, []byte("Subject: x\r\n\r\nhello\r\n"), 0o644)); err != nil {
		return err
	}
	errs := []error{wantRefusal(got.Response, 503), e.prints503("--head"),
		e.fails("< -ERR [SYS/TEMP] "+nobodyTakes, curl("pop3", 110, "--user", "ada:secret")),
		e.fails(" NO [UNAVAILABLE] "+nobodyTakes, curl("imap", 143, "--user", "ada:secret")),
		e.fails("< 421 4.3.2 "+nobodyTakes, curl("smtp", 25, "--mail-from", "eve@e.example", "--mail-rcpt", "ada@a.example",
			"--upload-file", mail)),
		e.fails("alert internal error", []string{"openssl", "s_client", "-connect", at(443).String(), "-servername", "a.example"}),
		e.fails("FATAL:  "+nobodyTakes, append(psql(at(5432), "shop"), "-c", "select 1")),
		e.fails("LOADING "+nobodyTakes, append(redisCLI(at(6379)), "SET", "color", "red")),
	}
	for _, t := range talksRefused {
		if err := e.toldAll(at(t.port), t.said, t.told); err != nil {
			errs = append(errs, fmt.Errorf("port %d: %w", t.port, err))
		}
	}
	return errors.Join(errs...)
}

// talksRefused are clients that say more than what decides, in one segment, and all that they are told.
var talksRefused = []struct {
	port       int
	said, told string
}{
	{80, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nHEAD /2 HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 503 Service Unavailable\r\nServer: baton\r\n" +
		"Content-Type: text/plain\r\nContent-Length: 39\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n" +
		"No server can take the connection now.\n"},
	{110, "CAPA\r\nUSER ada\r\nPASS secret\r\nSTAT\r\n", "+OK POP3 ready\r\n+OK capabilities follow\r\nUSER\r\nSASL PLAIN\r\n" +
		"RESP-CODES\r\nAUTH-RESP-CODE\r\n.\r\n-ERR [SYS/TEMP] " + nobodyTakes + "\r\n"},
	{143, "a1 NOOP\r\na2 LOGIN ada {6}\r\nsecret\r\na3 SELECT INBOX\r\n", "* OK [CAPABILITY IMAP4rev1 SASL-IR ID AUTH=PLAIN] ready\r\n" +
		"a1 OK completed\r\n+ go on\r\n* BYE [UNAVAILABLE] " + nobodyTakes + "\r\na2 NO [UNAVAILABLE] " + nobodyTakes + "\r\n"},
	{25, "EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<ada@a.example>\r\nRCPT TO:<bob@a.example>\r\nDATA\r\n", "220 localhost ESMTP\r\n" +
		"250-localhost\r\n250-PIPELINING\r\n250 ENHANCEDSTATUSCODES\r\n250 2.1.0 sender OK\r\n421 4.3.2 " + nobodyTakes + "\r\n"},
	{6379, "*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\nGET color\r\n", "-LOADING " + nobodyTakes + "\r\n"},
	{4000, "hello\nhow are you\n", busy + "\r\n"},
	{4001, "hello\nhow are you\n", ""},
}

// prints503 fetches a page by curl, in a way that shows no more than the head of the answer, and checks that.
func (e *Env) prints503(how string) error {
	out, err := e.Client.Run(e.Ctx, "curl", "--silent", "--show-error", "--noproxy", "*", how, "http://"+service.String()+"/")
	if err == nil && (!strings.HasPrefix(string(out), "HTTP/1.1 503 ") || !strings.HasSuffix(string(out), "\r\n\r\n")) {
		err = fmt.Errorf("curl %s: %q, want the head of a 503", how, out)
	}
	return err
}

// toldAll says something, and checks all that the service says until it closes.
func (e *Env) toldAll(to netip.AddrPort, said, want string) error {
	c, err := e.Client.Dial(e.Ctx, netip.AddrPort{}, to)
	if err != nil {
		return err
	}
	e.record(c.Local(), c.Stream)
	if deadline, ok := e.Ctx.Deadline(); ok {
		err = c.SetDeadline(deadline)
	}
	_, writeErr := io.WriteString(c, said)
	told, readErr := io.ReadAll(c)
	if err := errors.Join(err, writeErr, readErr, c.Close()); err != nil {
		return err
	}
	if string(told) != want {
		return fmt.Errorf("told %q, want %q", told, want)
	}
	return nil
}
