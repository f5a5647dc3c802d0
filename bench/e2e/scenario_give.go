package main

import (
	"bufio"
	"errors"
	"fmt"
	"strings"

	"baton/bench/lab"
)

// quizzing is where one program is routing application and target application on both targets, and connections go from
// each to each.
var quizzing = Shape{Cluster: lab.Cluster{
	Applications: true,
	Section:      "application: external",
	Jobs:         []lab.Job{{Name: "quiz", Hosts: []string{"t1", "t2"}, Application: "ask"}},
}, Server: func(_ *Env, h *lab.Host) error {
	_, err := h.Quiz("quiz")
	return err
}}

var giveScenarios = []Scenario{
	{
		Name: "give-take-3-hosts",
		Doc: "a connection goes from the routing host to t1, on to t2 and back to t1, with state, unread and unsent octets; " +
			"each host speaks its part of the dialogue",
		Shape:  quizzing,
		Expect: Expect{Connections: 1, Transferred: 1, Moves: true, Retransmissions: true},
		Run: func(e *Env) error {
			return e.quiz(func(d *dialogue, _ *lab.Process) error {
				fill := strings.Repeat("x", 200000)
				return errors.Join(
					d.talk("one", "rh1 1 one", "GO quiz t1\r\ntwo", "t1 2 two",
						"FILL 200000\r\nGO quiz t2\r\nthree", fill, "", "t2 3 three", "GO quiz t1\r\nfour", "t1 4 four",
						"QUIT", "bye"), d.end(),
					e.Target(2).Process("quiz").Says(e.Ctx, "from t1 quiz"),
					e.Target(1).Process("quiz").Says(e.Ctx, "from t2 quiz"))
			})
		},
	},
	{
		Name:   "hand-back-to-router",
		Doc:    "a target application gives a connection back; the routing application gets it with state, talks, and hands it over anew",
		Shape:  quizzing,
		Expect: Expect{Connections: 1, Transferred: 1, Moves: true, Retransmissions: true},
		Run: func(e *Env) error {
			return e.quiz(func(d *dialogue, router *lab.Process) error {
				return errors.Join(
					d.talk("GO quiz t1\r\none", "t1 1 one", "GO -\r\ntwo", "rh1 2 two", "three", "rh1 3 three",
						"GO quiz t2\r\nfour", "t2 4 four", "QUIT", "bye"), d.end(),
					router.Says(e.Ctx, "from t1 quiz"))
			})
		},
	},
	{
		Name:   "same-app-both-roles",
		Doc:    "instances of one program route and serve, and pass a connection to each other as the client wishes",
		Shape:  quizzing,
		Expect: Expect{Connections: 2, Transferred: 2, Moves: true, Retransmissions: true},
		Run: func(e *Env) error {
			for range 2 {
				err := e.quiz(func(d *dialogue, _ *lab.Process) error {
					return errors.Join(d.talk("a", "rh1 1 a", "GO quiz t2\r\nb", "t2 2 b", "GO -\r\nc", "rh1 3 c",
						"GO quiz t1\r\nd", "t1 4 d", "QUIT", "bye"), d.end())
				})
				if err != nil {
					return err
				}
			}
			return nil
		},
	},
	{
		Name:   "hop-limit",
		Doc:    "a connection that goes round without a word is refused by the ninth give, and lives on; so are gifts to nobody",
		Shape:  quizzing,
		Expect: Expect{Connections: 1, Transferred: 1, Moves: true, Retransmissions: true},
		Run: func(e *Env) error {
			return e.quiz(func(d *dialogue, _ *lab.Process) error {
				return errors.Join(
					d.talk("GO quiz t1\r\none", "t1 1 one", "GO quiz t1", "-ERR hop limit: the connection is there already",
						"GO none", `-ERR unknown job: no job "none" in the configuration`,
						"LOOP quiz", "-ERR hop limit", "two", "* 2 two", "QUIT", "bye"), d.end())
			})
		},
	},
	{
		Name: "c-give",
		Doc: "target applications with the library for C give a connection on and back, with state and what was not read, are " +
			"told what cannot be given, and write to the routing application",
		Shape:  Shape{Cluster: quizzing.Cluster, Server: targetInC("quiz")},
		Expect: Expect{Connections: 1, Transferred: 1, Moves: true, Retransmissions: true},
		Run: func(e *Env) error {
			return e.quiz(func(d *dialogue, _ *lab.Process) error {
				const knows = ` knows {"answered": 1}`
				return errors.Join(
					d.talk("one", "rh1 1 one", "TELL t1 hello", "+OK t1 heard hello", "GO quiz t1", "+OK t1"+knows,
						"TELL rh1 back", "+OK rh1 heard back", "TELL t9 nobody", "-ERR unknown host: *",
						"GIVE none", `-ERR unknown job: no job "none" in the configuration`,
						"GIVE quiz t2\r\nSTAT", "+OK t2"+knows, "", "+OK 0 0", "GIVE -\r\ntwo", "rh1 2 two", "QUIT", "bye"), d.end(),
					e.Target(2).Process("c-target").Says(e.Ctx, "from quiz"))
			})
		},
	},
	{
		Name: "app-messages",
		Doc: "applications of the routing host and of both targets write to each other while connections are handed over; a " +
			"flood for one that does not read is refused and holds up nothing",
		Shape:  private(quizzing),
		Expect: Expect{Connections: 8, Transferred: 8},
		Run: func(e *Env) error {
			return e.quiz(func(d *dialogue, _ *lab.Process) error {
				if err := e.write(d); err != nil {
					return err
				}
				return e.overwhelm(d)
			})
		},
	},
}

// write has the applications write to each other, to all that a connection passes, while others are handed over.
func (e *Env) write(d *dialogue) error {
	handed := make(chan error, 1)
	go func() { handed <- e.quizzes(3) }()
	err := d.talk("TELL t2 early", "+OK t2 heard early", "GO quiz t1\r\none", "t1 1 one", "TELL rh1 back", "+OK rh1 heard back",
		"TELL t2 across", "+OK t2 heard across", "TELL t9 nobody", "-ERR unknown host")
	return errors.Join(err, <-handed, e.Lab.Router.Process("rh1").Says(e.Ctx, "asked by target t1 quiz back"),
		e.Target(2).Process("quiz").Says(e.Ctx, "asked by target t1 quiz across"))
}

// overwhelm has t1, which has the connection, write to t2 without end, where nobody reads.
func (e *Env) overwhelm(d *dialogue) error {
	deaf := e.Target(2).Process("quiz")
	defer func() { _ = deaf.Continue() }() // so that it can be stopped, whatever happens
	if err := errors.Join(deaf.Pause(e.Ctx), d.talk("FLOOD t2", "+OK")); err != nil {
		return err
	}
	err := errors.Join(e.refusedMessages(e.Target(2), "queue_full"), e.quizzes(3), d.talk("CALM", "+OK"), deaf.Continue())
	if err != nil {
		return err
	}
	err = lab.Until(e.Ctx, "t2 has read the flood", func() error { return d.talk("TELL t2 again", "+OK t2 heard again") })
	if err := errors.Join(err, e.quizOn("t2")); err != nil {
		return err
	}
	deaf.Stop()
	err = lab.Until(e.Ctx, "t2 misses its application", func() error { // until then it would be given messages
		apps, err := e.Target(2).Admin().Applications(e.Ctx)
		if err == nil && len(apps) > 0 {
			err = errors.New("it is registered")
		}
		return err
	})
	return errors.Join(err, d.talk("TELL t2 gone", "-ERR unknown application", "QUIT", "bye"), d.end(),
		e.refusedMessages(e.Target(2), "unknown_application"))
}

// quizzes hands connections over to t1, one after the other.
func (e *Env) quizzes(n int) error {
	for range n {
		if err := e.quizOn("t1"); err != nil {
			return err
		}
	}
	return nil
}

// quizOn hands a connection over to a host.
func (e *Env) quizOn(host string) error {
	c, err := e.Dial()
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	d := &dialogue{c, bufio.NewReader(c)}
	return errors.Join(d.talk("a", "rh1 1 a", "GO quiz "+host+"\r\nb", host+" 2 b", "QUIT", "bye"), d.end())
}

// refusedMessages waits until a host has refused messages between applications for a reason.
func (e *Env) refusedMessages(h *lab.Host, code string) error {
	return lab.Until(e.Ctx, "messages are refused: "+code, func() error {
		counters, err := h.Admin().Counters(e.Ctx)
		for _, c := range counters {
			if c.Group == "message" && c.Name == "refused_"+code && c.Value > 0 {
				return nil
			}
		}
		return errors.Join(err, errors.New("none is"))
	})
}

// quiz runs the routing application and a client's dialogue meanwhile.
func (e *Env) quiz(run func(*dialogue, *lab.Process) error) error {
	p, err := e.Lab.Router.QuizRouter(e.Ctx)
	if err != nil {
		return err
	}
	defer p.Stop()
	c, err := e.Dial()
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	return run(&dialogue{c, bufio.NewReader(c)}, p)
}
