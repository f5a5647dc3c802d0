package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"baton/bench/lab"
)

// mailSection routes users of one mail protocol: those of a.example to t1, of b.example to t2, of c.example to t1 and, if
// that does not take them, to t2.
func mailSection(protocol string) string {
	return fmt.Sprintf(`protocol: %[1]s
%[1]s:
  rules:
    - { user: "*@a.example", job: mail-a }
    - { user: "*@b.example", job: mail-b }
    - { user: "*@c.example", job: mail-c }`, protocol)
}

// stockMail is a cluster of servers that speak first and know nothing of Baton. Offers wait for a server that has to start
// its processes on a busy machine.
func stockMail(section string) lab.Cluster {
	return lab.Cluster{
		Section: section,
		Offer:   10 * time.Second,
		Confirm: 10 * time.Second,
		Jobs: []lab.Job{
			{Name: "mail-a", Hosts: []string{"t1"}, Dialogue: "lockstep"},
			{Name: "mail-b", Hosts: []string{"t2"}, Dialogue: "lockstep"},
			{Name: "mail-c", Hosts: []string{"t1", "t2"}, Dialogue: "lockstep"},
		},
	}
}

// tookLong is what a capture must show of connections whose server has to be played to: a client may repeat the segment
// that decided meanwhile, as nobody acknowledges it.
func tookLong(connections, transferred int) Expect {
	return Expect{Connections: connections, Transferred: transferred, Retransmissions: true}
}

var lockstepScenarios = []Scenario{
	{
		Name: "pop3-dovecot",
		Doc: "users of two dovecots, which greet again, are greeted once: curl and python list and read the mail of the " +
			"target that has it",
		Shape:  Shape{Cluster: stockMail(mailSection("pop3")), Server: dovecot("pop3", "ready.")},
		Expect: tookLong(4, 4),
		Run: func(e *Env) error {
			return e.playing(map[string]uint64{"played": 4, "mismatched": 0, "abandoned": 0}, func() error {
				return errors.Join(e.curlMail("pop3", "ada@a.example", "t1"), e.curlMail("pop3", "bob@b.example", "t2"),
					e.poplib("ada@a.example", "t1"), e.poplib("bob@b.example", "t2"))
			})
		},
	},
}

// dovecotConfig is for one protocol of one host. Its files are in a file system that only its processes see, because
// the mail belongs to a user who must not see the laboratory's.
const dovecotConfig = `
base_dir = /srv/run
state_dir = /srv/state
protocols = %[1]s
listen = 0.0.0.0
ssl = no
disable_plaintext_auth = no
login_greeting = %[2]s
log_path = /dev/stderr
first_valid_uid = 1
mail_location = maildir:/srv/mail/%%u
passdb {
  driver = static
  args = password=secret
}
userdb {
  driver = static
  args = uid=%[3]d gid=%[3]d home=/srv/mail/%%u
}
service %[1]s-login {
  service_count = 0
  process_min_avail = 1
  inet_listener %[1]s {
    port = 80
  }
  inet_listener %[1]ss {
    port = 0
  }
}
`

// mailUID owns the mail: nobody.
const mailUID = 65534

// mailboxes are those that every host has; the mail in them says on which host they are.
var mailboxes = []string{"ada@a.example", "bob@b.example", "cy@c.example"}

// dovecot is a server of one protocol with this greeting.
func dovecot(protocol, greeting string) Server {
	return func(e *Env, h *lab.Host) error {
		config := h.Path("dovecot.conf")
		if err := os.WriteFile(config, fmt.Appendf(nil, dovecotConfig, protocol, greeting, mailUID), 0o644); err != nil {
			return err
		}
		var script strings.Builder
		script.WriteString("set -e; mount -t tmpfs -o mode=755 tmpfs /srv; cd /srv; mkdir run state mail\n")
		for _, box := range mailboxes {
			fmt.Fprintf(&script, "mkdir -p mail/%[1]s/new mail/%[1]s/cur mail/%[1]s/tmp\n"+
				"printf 'Subject: mail on %[2]s\\n\\nfor %[1]s on %[2]s\\n' >mail/%[1]s/new/1\n", box, h.Name)
		}
		fmt.Fprintf(&script, "chown -R %d:%d mail; exec dovecot -F -c %s\n", mailUID, mailUID, config)
		return e.speaksFirst(h, "dovecot", script.String(), greeting)
	}
}

// speaksFirst starts a server by a script in a mount namespace of its own, and waits until it greets.
func (e *Env) speaksFirst(h *lab.Host, name, script, greeting string) error {
	p, err := h.Start(name, "unshare", "--mount", "--propagation", "private", "sh", "-c", script)
	if err != nil {
		return err
	}
	return p.Ready(e.Ctx, func() error {
		out, err := h.Run(e.Ctx, "python3", "-c", greetedBy, h.Data.Addr().String())
		if err == nil && !strings.Contains(string(out), greeting) {
			err = fmt.Errorf("it greets with %q", out)
		}
		return err
	})
}

// greetedBy prints a server's first line.
const greetedBy = `
import socket, sys
print(socket.create_connection((sys.argv[1], 80), 5).makefile().readline())
`

// playing makes traffic that has to move the counters of dialogues, all targets' together, by so much.
func (e *Env) playing(want map[string]uint64, traffic func() error) error {
	before, err := e.played()
	if err := errors.Join(err, traffic()); err != nil {
		return err
	}
	after, err := e.played()
	if err != nil {
		return err
	}
	for event, n := range want {
		if got := after[event] - before[event]; got != n {
			err = errors.Join(err, fmt.Errorf("lockstep %s: %d, want %d", event, got, n))
		}
	}
	if after["stolen"] == before["stolen"] {
		err = errors.Join(err, errors.New("nothing was stolen from the servers"))
	}
	return err
}

func (e *Env) played() (map[string]uint64, error) {
	sum := map[string]uint64{}
	for _, h := range e.Lab.Targets {
		all, err := h.Admin().Counters(e.Ctx)
		if err != nil {
			return nil, err
		}
		for _, c := range all {
			if c.Group == "lockstep" {
				sum[c.Name] += c.Value
			}
		}
	}
	return sum, nil
}

// curlMail reads a user's first mail by curl.
func (e *Env) curlMail(scheme, user, host string) error {
	url := fmt.Sprintf("%s://%v/1", scheme, service)
	out, err := e.Client.Run(e.Ctx, "curl", "--silent", "--show-error", "--user", user+":secret", url)
	return errors.Join(err, wantMail(out, user, host))
}

// wantMail checks that a mail is the one of a user on a host.
func wantMail(mail []byte, user, host string) error {
	if want := fmt.Sprintf("for %s on %s", user, host); !strings.Contains(string(mail), want) {
		return fmt.Errorf("got %.200q, want %q in it", mail, want)
	}
	return nil
}

// poplib has a whole session by python's client, and shows the greetings that it got.
func (e *Env) poplib(user, host string) error {
	out, err := e.Client.Run(e.Ctx, "python3", "-c", popSession, service.Addr().String(), fmt.Sprint(service.Port()), user)
	if err == nil && !strings.HasPrefix(string(out), "b'+OK POP3 ready' 1 1\n") {
		err = fmt.Errorf("session: %.200q", out)
	}
	return errors.Join(err, wantMail(out, user, host))
}

const popSession = `
import poplib, sys
box = poplib.POP3(sys.argv[1], int(sys.argv[2]), timeout=30)
greeting = box.getwelcome()
box.capa()
box.user(sys.argv[3])
box.pass_("secret")
print(greeting, box.stat()[0], len(box.list()[1]))
print(b"\n".join(box.retr(1)[1]).decode())
box.quit()
`
