package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
		Shape:  Shape{Cluster: stockMail(mailSection("pop3")), Server: dovecot("pop3")},
		Expect: tookLong(4, 4),
		Run: func(e *Env) error {
			return e.playing(map[string]uint64{"played": 4, "mismatched": 0, "abandoned": 0}, func() error {
				return errors.Join(e.curlMail("pop3", "ada@a.example", "t1"), e.curlMail("pop3", "bob@b.example", "t2"),
					e.poplib("ada@a.example", "t1"), e.poplib("bob@b.example", "t2"))
			})
		},
	},
	{
		Name:   "imap-dovecot",
		Doc:    "the same of two IMAP servers, by LOGIN and by AUTHENTICATE, whose first line the server has to be told again",
		Shape:  Shape{Cluster: stockMail(mailSection("imap")), Server: dovecot("imap")},
		Expect: tookLong(6, 6),
		Run: func(e *Env) error {
			return e.playing(map[string]uint64{"played": 6, "mismatched": 0, "abandoned": 0}, func() error {
				return errors.Join(e.curlMail("imap", "ada@a.example", "t1"), e.curlMail("imap", "bob@b.example", "t2"),
					e.imaplib("login", "ada@a.example", "t1"), e.imaplib("login", "bob@b.example", "t2"),
					e.imaplib("authenticate", "ada@a.example", "t1"), e.imaplib("authenticate", "bob@b.example", "t2"))
			})
		},
	},
	{
		Name:   "smtp-postfix",
		Doc:    "two postfixes hear EHLO and MAIL again, take the recipient, and deliver the mail that curl and python send",
		Shape:  Shape{Cluster: stockMail(smtpSection), Server: postfix},
		Expect: tookLong(4, 4),
		Run: func(e *Env) error {
			return e.playing(map[string]uint64{"played": 4, "mismatched": 0, "abandoned": 0}, func() error {
				return errors.Join(e.curlSend("ada@a.example", e.Target(1)), e.curlSend("bob@b.example", e.Target(2)),
					e.smtplib("ada@a.example", e.Target(1)), e.smtplib("bob@b.example", e.Target(2)))
			})
		},
	},
	{
		Name:   "lockstep-unconditional",
		Doc:    "a server that speaks first is played to between the assignment of a connection and its confirmation",
		Shape:  Shape{Cluster: assignedMail(), Server: dovecot("pop3")},
		Expect: tookLong(2, 2),
		Run: func(e *Env) error {
			return e.playing(map[string]uint64{"played": 2, "mismatched": 0, "abandoned": 0}, func() error {
				return errors.Join(e.poplib("ada@a.example", "t1"), e.poplib("bob@b.example", "t2"), e.inOneMessage(2))
			})
		},
	},
	{
		Name: "lockstep-mismatch-rejected",
		Doc: "a server that answers otherwise than the routing host has is rejected: the next target takes the connection, or " +
			"the client gets an error; it hears nothing of that server",
		Shape:  Shape{Cluster: stockMail(mailSection("pop3")), Server: strangeMail},
		Expect: tookLong(2, 1),
		Run: func(e *Env) error {
			return e.playing(map[string]uint64{"played": 1, "mismatched": 2, "abandoned": 0}, e.mismatched)
		},
	},
}

// assignedMail hands over in one message.
func assignedMail() lab.Cluster {
	c := stockMail(mailSection("pop3"))
	c.Transfer = "unconditional"
	return c
}

// strangeMail has IMAP on t1 and POP3 on t2.
func strangeMail(e *Env, h *lab.Host) error {
	if h.Name == "t1" {
		return dovecot("imap")(e, h)
	}
	return dovecot("pop3")(e, h)
}

// mismatched has a user whose other target takes the connection, and one who has no other.
func (e *Env) mismatched() error {
	if err := e.poplib("cy@c.example", "t2"); err != nil {
		return err
	}
	c, err := e.Dial()
	if err != nil {
		return err
	}
	d := &dialogue{c, bufio.NewReader(c)}
	err = d.talk("", "+OK POP3 ready", "USER ada@a.example", "-ERR [SYS/TEMP] no server can take the connection now")
	return errors.Join(err, d.end(), e.rejectedBy("t1", "cy", "mail-c"), e.rejectedBy("t1", "ada", "mail-a"))
}

// rejectedBy checks what operators are told about a rejected job.
func (e *Env) rejectedBy(target, user, job string) error {
	transfers, err := e.Baton.Admin.Transfers(e.Ctx)
	if err != nil {
		return err
	}
	const want = `dialogue: dialogue mismatch: the server says "* OK `
	for _, t := range transfers {
		if t.Job == job && t.Target == target && t.Outcome == "rejected" && strings.HasPrefix(t.Reason, want) {
			return nil
		}
	}
	return fmt.Errorf("no transfer of %s was rejected by %s with %q: %+v", user, target, want, transfers)
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

// dovecotReady is its greeting.
const dovecotReady = "ready."

// dovecot is a server of one protocol.
func dovecot(protocol string) Server {
	return func(e *Env, h *lab.Host) error {
		config := h.Path("dovecot.conf")
		if err := os.WriteFile(config, fmt.Appendf(nil, dovecotConfig, protocol, dovecotReady, mailUID), 0o644); err != nil {
			return err
		}
		var script strings.Builder
		script.WriteString("set -e; mount -t tmpfs -o mode=755 tmpfs /srv; cd /srv; mkdir run state mail\n")
		for _, box := range mailboxes {
			fmt.Fprintf(&script, "mkdir -p mail/%[1]s/new mail/%[1]s/cur mail/%[1]s/tmp\n"+
				"printf 'Subject: mail on %[2]s\\n\\nfor %[1]s on %[2]s\\n' >mail/%[1]s/new/1\n", box, h.Name)
		}
		fmt.Fprintf(&script, "chown -R %d:%d mail; exec dovecot -F -c %s\n", mailUID, mailUID, config)
		return e.speaksFirst(h, "dovecot", script.String(), dovecotReady)
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
	first := map[string]string{"pop3": "1", "imap": "INBOX;MAILINDEX=1"}
	url := fmt.Sprintf("%s://%v/%s", scheme, service, first[scheme])
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

// imaplib has a whole session by python's client, which logs in one way or the other.
func (e *Env) imaplib(how, user, host string) error {
	out, err := e.Client.Run(e.Ctx, "python3", "-c", imapSession, service.Addr().String(), fmt.Sprint(service.Port()), how, user)
	if err == nil && !strings.HasPrefix(string(out), "OK b'1' SELECTED\n") {
		err = fmt.Errorf("session: %.200q", out)
	}
	return errors.Join(err, wantMail(out, user, host))
}

const imapSession = `
import imaplib, sys
box = imaplib.IMAP4(sys.argv[1], int(sys.argv[2]), timeout=30)
if sys.argv[3] == "login":
    box.login(sys.argv[4], "secret")
else:
    box.authenticate("PLAIN", lambda _: b"\0" + sys.argv[4].encode() + b"\0secret")
status, count = box.select()
print(status, count[0], box.state)
print(box.fetch("1", "(BODY.PEEK[])")[1][0][1].decode())
box.logout()
`

// smtpSection routes mail by its first recipient.
const smtpSection = `protocol: smtp
smtp:
  name: mx.example
  extensions: ["SIZE 10240000", 8BITMIME]
  rules:
    - { recipient: "*@a.example", job: mail-a }
    - { recipient: "*@b.example", job: mail-b }`

// postfixMain and postfixMaster make a host that takes mail for its domains and puts all of it into one maildir. Everything
// is in a file system that only its processes see.
const (
	postfixMain = `
compatibility_level = 3.6
queue_directory = /srv/spool
data_directory = /srv/data
myhostname = %s.example
mydestination =
inet_interfaces = all
inet_protocols = ipv4
maillog_file = /dev/stdout
smtpd_peername_lookup = no
smtpd_relay_restrictions = permit_auth_destination, reject
virtual_mailbox_domains = a.example, b.example, c.example
virtual_mailbox_maps = static:all/
virtual_mailbox_base = /srv/mail
virtual_uid_maps = static:%[2]d
virtual_gid_maps = static:%[2]d
alias_maps =
alias_database =
`
	postfixMaster = `
80 inet n - n - - smtpd
postlog unix-dgram n - n - 1 postlogd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
`
)

// postfix is a mail server. Postfix's own way to start it takes seconds to look after permissions.
func postfix(e *Env, h *lab.Host) error {
	if err := os.MkdirAll(h.Path("postfix"), 0o755); err != nil {
		return err
	}
	err := errors.Join(os.WriteFile(h.Path("postfix", "main.cf"), fmt.Appendf(nil, postfixMain, h.Name, mailUID), 0o644),
		os.WriteFile(h.Path("postfix", "master.cf"), []byte(postfixMaster), 0o644))
	if err != nil {
		return err
	}
	script := fmt.Sprintf(`set -e; mount -t tmpfs -o mode=755 tmpfs /srv; cd /srv; mkdir data mail etc spool spool/pid
cp %s/*.cf etc; chown postfix data; chown %d:%[2]d mail
for queue in active bounce corrupt defer deferred flush hold incoming maildrop private public saved trace; do
	install -d -o postfix -m 700 spool/$queue
done
export MAIL_CONFIG=/srv/etc; exec $(postconf -h daemon_directory)/master -d`, h.Path("postfix"), mailUID)
	return e.speaksFirst(h, "postfix", script, "220 "+h.Name+".example ESMTP")
}

// curlSend sends a mail by curl.
func (e *Env) curlSend(to string, h *lab.Host) error {
	return e.delivers("curl", to, h, func(subject string) error {
		file := e.Client.Path("mail")
		if err := os.WriteFile(file, fmt.Appendf(nil, "Subject: %s\r\n\r\nhello\r\n", subject), 0o644); err != nil {
			return err
		}
		_, err := e.Client.Run(e.Ctx, "curl", "--silent", "--show-error", "--mail-from", "eve@e.example", "--mail-rcpt", to,
			"--upload-file", file, fmt.Sprintf("smtp://%v/client.example", service))
		return err
	})
}

// smtplib sends a mail by python's client.
func (e *Env) smtplib(to string, h *lab.Host) error {
	return e.delivers("smtplib", to, h, func(subject string) error {
		_, err := e.Client.Run(e.Ctx, "python3", "-c", smtpSession, service.Addr().String(), fmt.Sprint(service.Port()), to, subject)
		return err
	})
}

const smtpSession = `
import smtplib, sys
with smtplib.SMTP(sys.argv[1], int(sys.argv[2]), "client.example", timeout=30) as s:
    s.sendmail("eve@e.example", [sys.argv[3]], "Subject: " + sys.argv[4] + "\r\n\r\nhello\r\n")
`

// delivers sends a mail and waits until it is in the host's mailbox.
func (e *Env) delivers(by, to string, h *lab.Host, send func(subject string) error) error {
	subject := fmt.Sprintf("by %s to %s", by, to)
	if err := send(subject); err != nil {
		return fmt.Errorf("%s: %w", subject, err)
	}
	// The server's own view of the file system.
	box := fmt.Sprintf("/proc/%d/root/srv/mail/all/new/*", h.Process("postfix").PID())
	return lab.Until(e.Ctx, subject+" is in the mailbox on "+h.Name, func() error {
		mails, err := filepath.Glob(box)
		if err != nil {
			return err
		}
		for _, path := range mails {
			mail, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if strings.Contains(string(mail), "Subject: "+subject+"\n") && strings.Contains(string(mail), "for <"+to+">") {
				return nil
			}
		}
		return fmt.Errorf("%d other mails are there", len(mails))
	})
}
