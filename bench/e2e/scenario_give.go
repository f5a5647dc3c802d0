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
