package main

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"baton/bench/judge"
	"baton/bench/lab"
	"baton/control/admin"
	"baton/fastpath/wire"
)

// authenticated is a cluster whose routing application authenticates POP3 users before it hands their connections over.
// mail is on both targets, mail-1 on t1 and mail-2 on t2; web-2 is a conventional job of t2, on the same port.
func authenticated() lab.Cluster {
	return lab.Cluster{
		Applications: true,
		Section:      "protocol: pop3\napplication: external",
		Jobs: []lab.Job{
			{Name: "mail", Hosts: []string{"t1", "t2"}, Application: "ask"},
			{Name: "conventional", Hosts: []string{"t2"}},
		},
	}
}

// logins are users of the routing application in this file's scenarios.
var logins = []string{"ada:lovelace=mail", "large:state=mail,1048576", "sure:thing=!mail", "lost:job=none", "plain:old=conventional",
	"none:state=conventional,-1", "anyone:x=mail"}

const largest = 1 << 20 // octets of state

// asking is where targets are asked.
var asking = Shape{Cluster: authenticated(), Server: func(_ *Env, h *lab.Host) error {
	words := []string{"eve=locked", "slow=slow", "late=late"}
	if h.Name == "t1" {
		words = append(words, "bob=locked")
	}
	_, err := h.Mailboxes("mail", words...)
	return err
}}

var appScenarios = []Scenario{
	{
		Name:   "app-state-pop3",
		Doc:    "the routing application authenticates the user; the target application gets the user as state and starts after PASS",
		Shape:  asking,
		Expect: Expect{Connections: 4, Transferred: 4},
		Run: func(e *Env) error {
			return e.appsTake("mail", 4, func() error {
				return e.authenticating(func(*lab.Process) error {
					for range 4 {
						if err := e.mailSession("ada", "lovelace"); err != nil {
							return err
						}
					}
					return nil
				})
			})
		},
	},
	{
		Name: "control-udp",
		Doc: "routing and target applications with control sockets over UDP: connections go on with their state, too much of it " +
			"is rejected; who is killed has left when its lease is over, and then no SYN is answered",
		Shape:  private(askingOverUDP),
		Expect: Expect{Connections: 8, Transferred: 7},
		Run:    runOverUDP,
	},
	{
		Name:   "target-rejects",
		Doc:    "target applications reject a connection with a reason, which the routing application tells the client; it goes on",
		Shape:  asking,
		Expect: Expect{Connections: 1, Transferred: 1},
		Run: func(e *Env) error {
			return e.refusedFirst("eve", "x", "-ERR application: application: the mailbox of eve is locked", "mail rejected")
		},
	},
	{
		Name:   "reject-then-second",
		Doc:    "what the application on the first target rejects is offered to the second, which takes it",
		Shape:  asking,
		Expect: Expect{Connections: 1, Transferred: 1},
		Run: func(e *Env) error {
			return e.authenticating(func(p *lab.Process) error {
				d, err := e.login("bob", "x")
				if err != nil {
					return err
				}
				return errors.Join(d.talk("", "+OK t2 has the mailbox of bob", "QUIT", "+OK bye"), d.end(),
					p.Says(e.Ctx, "transfer bob mail accepted t2"), e.Target(1).Process("pop3d").Says(e.Ctx, " bob "))
			})
		},
	},
	{
		Name:   "unknown-job",
		Doc:    "a job that nobody has is rejected by the router at once; the client logs in as somebody else",
		Shape:  asking,
		Expect: Expect{Connections: 1, Transferred: 1},
		Run: func(e *Env) error {
			return e.refusedFirst("lost", "job", `-ERR router: unknown job: no job "none" in the configuration`, "none rejected")
		},
	},
	{
		Name:   "conventional-app",
		Doc:    "a conventional application takes a connection without state; one with state is rejected, so none gets lost",
		Shape:  asking,
		Expect: Expect{Connections: 2, Transferred: 2},
		Run: func(e *Env) error {
			err := e.refusedFirst("plain", "old",
				"-ERR stack: stack: host: job conventional cannot be given application state: set application: ask",
				"conventional rejected")
			if err != nil {
				return err
			}
			return e.authenticating(func(p *lab.Process) error {
				d, err := e.login("none", "state")
				if err != nil {
					return err
				}
				return errors.Join(d.talk("", "+OK t2 has the mailbox of nobody", "QUIT", "+OK bye"), d.end(),
					p.Says(e.Ctx, "transfer none conventional accepted t2"))
			})
		},
	},
	{
		Name:   "large-app-state",
		Doc:    "1 MiB of state reaches the target application to the octet",
		Shape:  asking,
		Expect: Expect{Connections: 1, Transferred: 1},
		Run: func(e *Env) error {
			return e.authenticating(func(*lab.Process) error {
				d, err := e.login("large", "state")
				if err != nil {
					return err
				}
				state := largeState()
				return errors.Join(d.talk("", "+OK * has the mailbox of large",
					"XSTATE", fmt.Sprintf("+OK %d %x", len(state), sha256.Sum256(state)), "QUIT", "+OK bye"), d.end())
			})
		},
	},
	{
		Name:   "app-unconditional",
		Doc:    "a target application that is not asked is told of the connection and its state when it has arrived",
		Shape:  asking,
		Expect: Expect{Connections: 1, Transferred: 1},
		Run: func(e *Env) error {
			return e.authenticating(func(p *lab.Process) error {
				if err := e.mailSession("sure", "thing"); err != nil {
					return err
				}
				for _, h := range e.Lab.Targets {
					if h.Process("pop3d").Said(" sure ") == nil {
						return fmt.Errorf("%s was asked about the connection", h.Name)
					}
				}
				return p.Says(e.Ctx, "transfer sure !mail accepted")
			})
		},
	},
	{
		Name:   "target-dies-during-offer",
		Doc:    "applications that die before they answer have rejected: the client is told at once",
		Shape:  private(asking),
		Expect: Expect{Connections: 1, Transferred: None},
		Run:    runTargetDies,
	},
	{
		Name: "client-closes-during-offer",
		Doc: "a client that ends while the application has its offer arrives with its FIN, or the offer is canceled; one that " +
			"resets leaves nothing behind",
		Shape:  hurried,
		Expect: Expect{Connections: 3, Transferred: 1, ClientResets: true, Retransmissions: true},
		Run:    runClientCloses,
	},
	{
		Name: "target-dies-after-commit",
		Doc:  "of a connection whose target dies between commit and confirmation, the client hears nothing but one RST in the end",
		Shape: Shape{Private: true,
			Cluster: lab.Cluster{Transfer: "unconditional", Confirm: time.Second, GiveUp: 3 * time.Second}},
		Expect: Expect{Connections: 1, Transferred: None, Resets: 1, Retransmissions: true},
		Run:    runTargetDiesAfterCommit,
		Check: func(e *Env, _ judge.Report) error {
			data := e.segments(func(f wire.Frame) bool { return f.Src.Addr() == lab.DVIPA && len(f.Segment.Payload) > 0 })
			fins := e.segments(func(f wire.Frame) bool { return f.Src.Addr() == lab.DVIPA && f.Segment.Flags.Has(wire.FIN) })
			if data+fins != 0 {
				return fmt.Errorf("%d segments with data and %d with FIN from the service, want none", data, fins)
			}
			return nil
		},
	},
	{
		Name:   "direct-syn-blocked",
		Doc:    "SYNs that clients send to a target directly reach no listener and get no answer; transfers do reach it",
		Shape:  asking,
		Expect: Expect{Connections: 1, Transferred: 1},
		Run:    runDirectSYN,
		Check: func(e *Env, _ judge.Report) error {
			if n := e.segments(func(f wire.Frame) bool { return f.Dst.Addr() == rawAddress }); n != 0 {
				return fmt.Errorf("%d answers to SYNs, want none", n)
			}
			return nil
		},
	},
	{
		Name:   "c-target",
		Doc:    "a target application with the library for C takes a connection with its state, and rejects another",
		Shape:  Shape{Cluster: authenticated(), Server: targetInC("mail")},
		Expect: Expect{Connections: 1, Transferred: 1},
		Run:    runTargetInC,
	},
	{
		Name:   "go-target",
		Doc:    "a target application with the library for Go finds the state of each connection that it accepts, and rejects another",
		Shape:  Shape{Cluster: authenticated(), Server: targetInGo},
		Expect: Expect{Connections: 1, Transferred: 1},
		Run:    runTargetInGo,
	},
	{
		Name: "go-router",
		Doc: "a routing application with the library for Go authenticates users, hears why a mailbox rejects one, and hands " +
			"another's connection over with its state",
		Shape:  Shape{Cluster: authenticated(), Server: targetInGo},
		Expect: Expect{Connections: 1, Transferred: 1},
		Run:    authenticatingBy("go-router"),
	},
	{
		Name:   "c-router",
		Doc:    "a routing application with the library for C does the same",
		Shape:  Shape{Cluster: authenticated(), Server: targetInGo},
		Expect: Expect{Connections: 1, Transferred: 1},
		Run:    authenticatingBy("c-router"),
	},
	{
		Name:  "peer-not-allowed",
		Doc:   "applications of users that the configuration does not name are not listened to, on either kind of host",
		Shape: Shape{Cluster: forNobody, Server: asking.Server, NoBaton: true, Private: true},
		Run:   runPeerNotAllowed, Expect: Expect{Unjudged: true},
	},
}

// runDirectSYN sends SYNs to each target, past the routing host.
func runDirectSYN(e *Env) error {
	for _, h := range e.Lab.Targets {
		before, err := e.guardDrops(h, "syn")
		if err := errors.Join(err, e.strayTo(h, wire.SYN)); err != nil {
			return err
		}
		after, err := e.guardDrops(h, "syn")
		if err != nil {
			return err
		}
		if after-before < strays {
			return fmt.Errorf("the guard of %s dropped %d SYNs, want %d", h.Name, after-before, strays)
		}
	}
	return e.authenticating(func(*lab.Process) error { return e.mailSession("ada", "lovelace") })
}

// targetInC has been built by make; it serves a job.
func targetInC(job string) func(*Env, *lab.Host) error {
	return func(e *Env, h *lab.Host) error {
		path, err := filepath.Abs(filepath.Join(e.bin, "c-target"))
		if err != nil {
			return err
		}
		_, err = h.MailboxesInC(path, job)
		return err
	}
}

// runTargetInC logs in as a user whose name has "locked" in it, and then as ada.
func runTargetInC(e *Env) error {
	return e.authenticating(func(p *lab.Process) error {
		d, err := e.login("locked", "x")
		if err != nil {
			return err
		}
		err = d.talk("", "-ERR application: application: the mailbox is locked", "USER ada", "+OK", "PASS lovelace",
			`+OK * knows {"user": "ada", "padding": ""}`, "STAT", "+OK 0 0", "QUIT", "+OK bye")
		return errors.Join(err, d.end(), p.Says(e.Ctx, "transfer locked mail rejected"),
			p.Says(e.Ctx, "transfer ada mail accepted"))
	})
}

// targetInGo has been built by make.
func targetInGo(e *Env, h *lab.Host) error {
	path, err := filepath.Abs(filepath.Join(e.bin, "go-target"))
	if err != nil {
		return err
	}
	_, err = h.MailboxesInGo(path, "mail", "eve")
	return err
}

// runTargetInGo logs in as eve, whose mailbox is locked, and then as ada.
func runTargetInGo(e *Env) error {
	err := e.refusedFirst("eve", "x", "-ERR application: application: the mailbox of eve is locked", "mail rejected")
	return errors.Join(err, e.Target(1).Process("go-target").Says(e.Ctx, "for ada from front"))
}

// authenticatingBy logs in as eve, whose mailbox is locked, and then as ada, whose next commands are under way already.
// The routing application is a program that make has built.
func authenticatingBy(program string) func(*Env) error {
	return func(e *Env) error {
		path, err := filepath.Abs(filepath.Join(e.bin, program))
		if err != nil {
			return err
		}
		p, err := e.Lab.Router.AuthenticateBy(e.Ctx, path, "front", "eve:x=mail", "ada:lovelace=mail")
		if err != nil {
			return err
		}
		defer p.Stop()
		d, err := e.login("eve", "x")
		if err != nil {
			return err
		}
		err = d.talk("", "-ERR application: application: the mailbox of eve is locked", "USER ada", "+OK",
			"PASS lovelace\r\nSTAT\r\nQUIT", "+OK * has the mailbox of ada", "", "+OK 0 0", "", "+OK bye")
		return errors.Join(err, d.end(), p.Says(e.Ctx, "transfer eve mail rejected"),
			p.Says(e.Ctx, "transfer ada mail accepted"), e.Target(1).Process("go-target").Says(e.Ctx, "for ada from front"))
	}
}

// forNobody is authenticated whose applications belong to another user.
var forNobody = func() lab.Cluster {
	c := authenticated()
	c.AppUser = "nobody"
	return c
}()

func private(s Shape) Shape {
	s.Private = true
	return s
}

// largeState is what the routing application knows of the user large.
func largeState() []byte {
	const empty = `{"user": "large", "padding": ""}`
	padding := strings.Repeat("x", largest-len(empty))
	return []byte(strings.Replace(empty, `"padding": "`, `"padding": "`+padding, 1))
}

// refusedFirst logs in as a user whose connection is rejected, and then, on the same connection, as ada.
func (e *Env) refusedFirst(user, password, answer, result string) error {
	return e.authenticating(func(p *lab.Process) error {
		d, err := e.login(user, password)
		if err != nil {
			return err
		}
		err = d.talk("", answer, "USER ada", "+OK", "PASS lovelace", "+OK * has the mailbox of ada", "QUIT", "+OK bye")
		return errors.Join(err, d.end(), p.Says(e.Ctx, "transfer "+user+" "+result))
	})
}

// runTargetDies kills the applications one after the other, while each has an offer that it does not answer.
func runTargetDies(e *Env) error {
	return e.authenticating(func(p *lab.Process) error {
		d, err := e.login("slow", "x")
		if err != nil {
			return err
		}
		for _, h := range e.Lab.Targets {
			app := h.Process("pop3d")
			if err := app.Says(e.Ctx, " slow "); err != nil {
				return err
			}
			app.Kill()
		}
		return errors.Join(d.talk("", "-ERR application: application: the application is gone", "QUIT", "+OK bye"), d.end(),
			p.Says(e.Ctx, "transfer slow mail rejected  application application"))
	})
}

// askingOverUDP is asking by control sockets over UDP.
var askingOverUDP = func() Shape {
	s := asking
	s.Cluster.ControlUDP = true
	s.Server = func(_ *Env, h *lab.Host) error {
		_, err := h.MailboxesOverUDP("mail")
		return err
	}
	return s
}()

// runOverUDP has applications take part by UDP alone, and kills them.
func runOverUDP(e *Env) error {
	users := append([]string{"full:state=mail,32768", "more:state=mail,40000"}, logins...)
	p, err := e.Lab.Router.AuthenticateOverUDP(e.Ctx, "front", users...)
	if err != nil {
		return err
	}
	defer p.Stop()
	if err := e.appsTake("mail", 6, e.sessionsOverUDP); err != nil {
		return err
	}
	if err := e.wasUDP(); err != nil {
		return err
	}
	d, err := e.login("ada", "wrong")
	if err != nil {
		return err
	}
	if err := d.talk("", "-ERR [AUTH] wrong"); err != nil {
		return err
	}
	p.Kill()
	e.Target(1).Process("pop3d").Kill()
	if err := errors.Join(d.end(), e.unserved(), e.forgotten(e.Target(1))); err != nil {
		return err
	}
	again, err := e.Lab.Router.AuthenticateOverUDP(e.Ctx, "again", logins...)
	if err != nil {
		return err
	}
	defer again.Stop()
	return errors.Join(e.mailSession("ada", "lovelace"), again.Says(e.Ctx, "transfer ada mail accepted t2"))
}

// sessionsOverUDP are without state but the user, with as much as goes by UDP, and with more.
func (e *Env) sessionsOverUDP() error {
	for range 4 {
		if err := e.mailSession("ada", "lovelace"); err != nil {
			return err
		}
	}
	d, err := e.login("full", "state")
	if err != nil {
		return err
	}
	err = errors.Join(d.talk("", "+OK * has the mailbox of full", "XSTATE", "+OK 32768 *", "QUIT", "+OK bye"), d.end())
	if err != nil {
		return err
	}
	if d, err = e.login("more", "state"); err != nil {
		return err
	}
	return errors.Join(d.talk("", "-ERR router: too large: 40000 octets of state, at most 32768 over UDP: register at the Unix socket",
		"USER ada", "+OK", "PASS lovelace", "+OK * has the mailbox of ada", "QUIT", "+OK bye"), d.end())
}

// wasUDP wants that the applications which had connections are there over UDP, and have said more than that they are.
func (e *Env) wasUDP() error {
	for _, h := range []*lab.Host{e.Lab.Router, e.Target(1)} {
		counters, err := h.Admin().Counters(e.Ctx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(counters, func(c admin.Counter) bool { return c.Group == "control_udp" && c.Name == "message" })
		if i < 0 || counters[i].Value < 7 {
			return fmt.Errorf("no messages over UDP at %s: %+v", h.Name, counters)
		}
	}
	return errors.Join(e.Baton.Router.Said("udp=true"), e.Baton.Agents[0].Said("udp=true"))
}

// forgotten waits until no application is registered at a host.
func (e *Env) forgotten(h *lab.Host) error {
	return lab.Until(e.Ctx, "the registration at "+h.Name+" is over", func() error {
		apps, err := h.Admin().Applications(e.Ctx)
		if err == nil && len(apps) > 0 {
			err = fmt.Errorf("still there: %+v", apps)
		}
		return err
	})
}

// hurried is asking whose offers do not wait for long.
var hurried = func() Shape {
	s := asking
	s.Cluster.Offer = 2 * time.Second
	return s
}()

// runClientCloses has three clients end while an application has their offer: before it accepts, and before it has not
// answered in time, by FIN and by RST.
func runClientCloses(e *Env) error {
	return e.authenticating(func(*lab.Process) error {
		late, err := e.loginOffered("late")
		if err != nil {
			return err
		}
		err = errors.Join(late.c.CloseWrite(), late.talk("", "+OK * has the mailbox of late"), late.end())
		if err != nil {
			return fmt.Errorf("closed before it is accepted: %w", err)
		}
		slow, err := e.loginOffered("slow")
		if err != nil {
			return err
		}
		err = errors.Join(slow.c.CloseWrite(), slow.talk("", "-ERR stack: timeout: *"), slow.end(),
			e.Target(1).Process("pop3d").Says(e.Ctx, "canceled "+slow.c.Local().String()))
		if err != nil {
			return fmt.Errorf("closed before it is rejected: %w", err)
		}
		gone, err := e.loginOffered("slow")
		if err != nil {
			return err
		}
		if err := gone.c.Abort(); err != nil {
			return err
		}
		return errors.Join(e.Target(1).Process("pop3d").Says(e.Ctx, "canceled "+gone.c.Local().String()), e.nothingOpen())
	})
}

// loginOffered logs in and waits until a target application has the offer.
func (e *Env) loginOffered(user string) (*dialogue, error) {
	d, err := e.login(user, "x")
	if err != nil {
		return nil, err
	}
	return d, lab.Until(e.Ctx, "the application has the offer", func() error {
		want := fmt.Sprintf("offer %v %s ", d.c.Local(), user)
		if e.Target(1).Process("pop3d").Said(want) == nil {
			return nil
		}
		return e.Target(2).Process("pop3d").Said(want)
	})
}

// nothingOpen waits until no application has a connection or an offer that is not settled, and the router none at all.
func (e *Env) nothingOpen() error {
	return lab.Until(e.Ctx, "nothing is left open", func() error {
		for _, h := range append([]*lab.Host{e.Lab.Router}, e.Lab.Targets...) {
			apps, err := h.Admin().Applications(e.Ctx)
			if err != nil {
				return err
			}
			for _, a := range apps {
				if a.Open != 0 {
					return fmt.Errorf("%s on %s has %d open", a.Name, h.Name, a.Open)
				}
			}
		}
		return e.nothingPending()
	})
}

// nothingPending reports an error while a transfer is under way.
func (e *Env) nothingPending() error {
	targets, err := e.Baton.Admin.Targets(e.Ctx)
	for _, t := range targets {
		if t.Pending != 0 {
			return fmt.Errorf("%d transfers to %s are under way", t.Pending, t.Host)
		}
	}
	return err
}

// runTargetDiesAfterCommit stops an agent, so that it does not read the commit that is sent to it, and then kills it.
func runTargetDiesAfterCommit(e *Env) error {
	aborted, err := e.counter("router", "aborted")
	if err != nil {
		return err
	}
	c, err := e.Dial()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // it is reset below
	agent := e.Baton.Agents[0]
	if err := agent.Pause(e.Ctx); err != nil {
		return err
	}
	if _, err := c.Write(lab.Request("a.example", "/")); err != nil {
		return err
	}
	err = lab.Until(e.Ctx, "the commit is out", func() error {
		if e.nothingPending() == nil {
			return errors.New("no transfer is under way")
		}
		return nil
	})
	if err != nil {
		return err
	}
	agent.Kill()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		return fmt.Errorf("the client got %w, want a reset", err)
	}
	after, err := e.counter("router", "aborted")
	if err != nil || after != aborted+1 {
		return errors.Join(err, fmt.Errorf("%d connections aborted, want 1", after-aborted))
	}
	return nil
}

// runPeerNotAllowed has applications of root where only nobody may register.
func runPeerNotAllowed(e *Env) error {
	if _, err := e.LaunchBaton(forNobody); err != nil {
		return err
	}
	if _, err := e.Lab.Router.Authenticate(e.Ctx, "front", logins...); !errors.Is(err, lab.ErrEnded) {
		return fmt.Errorf("the routing application is registered: %w", err)
	}
	for _, h := range e.Lab.Targets {
		if err := asking.Server(e, h); err != nil {
			return err
		}
		app := h.Process("pop3d")
		select {
		case <-app.Done():
		case <-e.Ctx.Done():
			return e.Ctx.Err()
		}
		err := app.Said("not allowed: user 0 ")
		if apps, err := h.Admin().Applications(e.Ctx); err != nil || len(apps) > 0 {
			return errors.Join(err, fmt.Errorf("registered at %s: %+v", h.Name, apps))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// authenticating runs the routing application meanwhile.
func (e *Env) authenticating(meanwhile func(*lab.Process) error) error {
	p, err := e.Lab.Router.Authenticate(e.Ctx, "front", logins...)
	if err != nil {
		return err
	}
	defer p.Stop()
	return meanwhile(p)
}

// login greets and names a user with a password; the answer to that is not read.
func (e *Env) login(user, password string) (*dialogue, error) {
	c, err := e.Dial()
	if err != nil {
		return nil, err
	}
	d := &dialogue{c, bufio.NewReader(c)}
	if err := d.talk("", "+OK POP3 ready", "PASS early", "-ERR [AUTH] wrong", "USER "+user, "+OK"); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	_, err = fmt.Fprintf(c, "PASS %s\r\n", password)
	return d, err
}

// mailSession is all that a client does whose mailbox is there.
func (e *Env) mailSession(user, password string) error {
	d, err := e.login(user, password)
	if err != nil {
		return err
	}
	return errors.Join(d.talk("", "+OK * has the mailbox of "+user, "STAT", "+OK 0 0", "QUIT", "+OK bye"), d.end())
}

// talk says each first line, if it is not empty, and expects the second, in which an asterisk stands for anything.
func (d *dialogue) talk(lines ...string) error {
	for i := 0; i < len(lines); i += 2 {
		if lines[i] != "" {
			if _, err := fmt.Fprintf(d.c, "%s\r\n", lines[i]); err != nil {
				return err
			}
		}
		line, err := d.lines.ReadString('\n')
		if err != nil {
			return fmt.Errorf("wait for %q: %w", lines[i+1], err)
		}
		before, after, wild := strings.Cut(lines[i+1]+"\r\n", "*")
		if fits := strings.HasPrefix(line, before) && strings.HasSuffix(line, after); !fits || !wild && line != before {
			return fmt.Errorf("got %q, want %q", line, lines[i+1])
		}
	}
	return nil
}

// end expects that the server closes, and closes.
func (d *dialogue) end() error {
	if _, err := d.lines.ReadByte(); !errors.Is(err, io.EOF) {
		return errors.Join(fmt.Errorf("instead of the end: %w", err), d.c.Close())
	}
	return d.c.Close()
}

// appsTake makes traffic of which the target applications of a job get so many connections, as operators see it.
func (e *Env) appsTake(job string, want uint64, traffic func() error) error {
	before, err := e.appsTook(job)
	if err := errors.Join(err, traffic()); err != nil {
		return err
	}
	return lab.Until(e.Ctx, "the applications have their connections", func() error {
		after, err := e.appsTook(job)
		if err == nil && after-before != want {
			err = fmt.Errorf("they got %d, want %d", after-before, want)
		}
		return err
	})
}

func (e *Env) appsTook(job string) (n uint64, err error) {
	for _, h := range e.Lab.Targets {
		apps, err := h.Admin().Applications(e.Ctx)
		if err != nil {
			return 0, err
		}
		for _, a := range apps {
			if a.Job == job && a.Role == "target" {
				n += a.Taken
			}
		}
	}
	return n, nil
}
