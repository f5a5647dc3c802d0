package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"baton/bench/lab"
	"baton/fastpath/wire"
)

// The mail service, whose server speaks first.
var mailService = netip.AddrPortFrom(lab.DVIPA, 110)

// mailUsers are clients of the mail service, and who has their mailboxes.
var mailUsers = []struct{ user, target string }{
	{"ann@a.example", "t1"}, {"bob@b.example", "t2"}, {"carol@a.example", "t1"}, {"root", "t2"},
}

// mailCluster routes users to t1 and t2.
func mailCluster() lab.Cluster {
	c := lab.TwoSites()
	c.Jobs = []lab.Job{{Name: "web-a", Hosts: []string{"t1"}}, {Name: "web-b", Hosts: []string{"t2"}},
		{Name: "mail-a", Hosts: []string{"t1"}, Port: 110}, {Name: "mail-b", Hosts: []string{"t2"}, Port: 110}}
	c.Services = []lab.Service{{Port: 110, Section: `protocol: pop3
pop3:
  rules:
    - { user: "*@a.example", job: mail-a }
    - { user: "*@b.example", job: mail-b }
    - { user: root, job: mail-b }`}}
	return c
}

var firstScenarios = []Scenario{
	{
		Name:   "server-first",
		Doc:    "clients are greeted, ask what the server can do, name their user, and go on with the target that has the mailbox",
		Shape:  Shape{Cluster: mailCluster(), Server: mail},
		Expect: Expect{Connections: len(mailUsers) + 1, Transferred: len(mailUsers)},
		Run: func(e *Env) error {
			for _, u := range mailUsers {
				if err := e.readMail(u.user, u.target); err != nil {
					return fmt.Errorf("%s: %w", u.user, err)
				}
			}
			return e.quitEarly()
		},
	},
	{
		Name:   "third-ack-lost-server-first",
		Doc:    "a client that waits for the greeting gets it although the ACK of its handshake was lost: the SYN-ACK is repeated",
		Shape:  Shape{Cluster: mailCluster(), Server: mail},
		Wire:   &lab.Wire{Censor: loseHandshakeACK()},
		Expect: Expect{Connections: len(mailUsers), Transferred: len(mailUsers)},
		Run:    runThirdACKLost,
	},
}

// mail starts nginx, and a POP3 server that leaves the greeting to others.
func mail(e *Env, h *lab.Host) error {
	if err := nginx(e, h); err != nil {
		return err
	}
	l, err := h.Listen(":110")
	if err != nil {
		return err
	}
	h.Serve(l, func(c net.Conn) { serveMail(c, h.Name) })
	return nil
}

// serveMail speaks POP3 after the greeting, until QUIT. There is no client yet that would want more of it.
func serveMail(c net.Conn, host string) {
	defer func() { _ = c.Close() }()
	user := ""
	for lines := bufio.NewScanner(c); lines.Scan(); {
		verb, arg, _ := strings.Cut(lines.Text(), " ")
		answer := "-ERR no"
		switch verb {
		case "USER":
			user, answer = arg, "+OK"
		case "PASS":
			answer = fmt.Sprintf("+OK %s has the mailbox of %s", host, user)
		case "QUIT":
			answer = "+OK bye"
		}
		if _, err := fmt.Fprintf(c, "%s\r\n", answer); err != nil || verb == "QUIT" {
			return
		}
	}
}

// dialogue is a client's side of POP3.
type dialogue struct {
	c     *lab.Conn
	lines *bufio.Reader
}

// greeted connects to the mail service and reads the greeting.
func (e *Env) greeted() (*dialogue, error) {
	c, err := e.connectWith(mailService, func(int) error { return nil })
	if err != nil {
		return nil, err
	}
	d := &dialogue{c, bufio.NewReader(c)}
	return d, d.expect("+OK POP3 ready")
}

// expect reads a line.
func (d *dialogue) expect(want string) error {
	line, err := d.lines.ReadString('\n')
	if err != nil {
		return fmt.Errorf("wait for %q: %w", want, err)
	}
	if line != want+"\r\n" {
		return fmt.Errorf("got %q, want %q", line, want)
	}
	return nil
}

// say sends a command and reads the lines of its answer.
func (d *dialogue) say(command string, want ...string) error {
	if _, err := fmt.Fprintf(d.c, "%s\r\n", command); err != nil {
		return err
	}
	for _, line := range want {
		if err := d.expect(line); err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
	}
	return nil
}

// readMail is a whole session of a user's.
func (e *Env) readMail(user, target string) error {
	d, err := e.greeted()
	if err != nil {
		return err
	}
	for _, step := range [][]string{
		{"CAPA", "+OK capabilities follow", "USER", "SASL PLAIN", "RESP-CODES", "AUTH-RESP-CODE", "."},
		{"USER " + user, "+OK"},
		{"PASS secret", fmt.Sprintf("+OK %s has the mailbox of %s", target, user)},
		{"QUIT", "+OK bye"},
	} {
		if err := d.say(step[0], step[1:]...); err != nil {
			return err
		}
	}
	return d.c.Close()
}

// quitEarly is a client that leaves before it has named a user.
func (e *Env) quitEarly() error {
	d, err := e.greeted()
	if err != nil {
		return err
	}
	if err := d.say("QUIT", "+OK bye"); err != nil {
		return err
	}
	if rest, err := d.lines.ReadString('\n'); rest != "" || err == nil {
		return fmt.Errorf("after QUIT: %q, %w", rest, err)
	}
	return d.c.Close()
}

// loseHandshakeACK loses the first segment of each client after its SYN.
func loseHandshakeACK() func(up bool, f wire.Frame) bool {
	lost := map[netip.AddrPort]bool{}
	return func(up bool, f wire.Frame) bool {
		if !up || f.Segment.Flags.Has(wire.SYN) || lost[f.Src] {
			return false
		}
		lost[f.Src] = true
		return true
	}
}

// runThirdACKLost has all users at once: each waits for the second SYN-ACK.
func runThirdACKLost(e *Env) error {
	before, err := e.counter("handshake", "repeated")
	if err != nil {
		return err
	}
	errs := make([]error, len(mailUsers))
	var all sync.WaitGroup
	for i, u := range mailUsers {
		all.Go(func() { errs[i] = e.readMail(u.user, u.target) })
	}
	all.Wait()
	after, err := e.counter("handshake", "repeated")
	if err := errors.Join(append(slices.Clone(errs), err)...); err != nil {
		return err
	}
	if n := after - before; n < uint64(len(mailUsers)) {
		return fmt.Errorf("%d SYN-ACKs were repeated, want at least %d", n, len(mailUsers))
	}
	return nil
}
