package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"baton/bench/judge"
	"baton/bench/lab"
)

// What tunnels over IPv4 add to a packet, and sizes of these scenarios.
const (
	ipipOverhead = 20
	gueOverhead  = ipipOverhead + 12
	ethernetMTU  = 1500
	farMTU       = 1400 // of a network that nobody told the routing host about
	farUpload    = 500_000
)

// tunnelled is a cluster of one target, which is behind a router.
func tunnelled(kind string) Shape {
	c := lab.TwoSites()
	c.Tunnel = kind
	c.Rules = []lab.Rule{{Host: "a.example", Job: "web-a"}}
	c.Jobs = []lab.Job{{Name: "web-a", Hosts: []string{"t1"}}}
	return Shape{Targets: 1, Far: true, Cluster: c}
}

var tunnelScenarios = []Scenario{
	throughTunnel("ipip", ipipOverhead),
	throughTunnel("gue", gueOverhead),
	{
		Name:   "icmp-frag-needed",
		Doc:    "an upload gets through a tunnel whose path carries less than configured: the client's kernel is told",
		Shape:  func() Shape { s := tunnelled("gue"); s.Private = true; return s }(), // the client's kernel remembers
		Expect: Expect{Connections: 1, Transferred: 1, Retransmissions: true},
		Run:    runNarrowTunnel,
	},
}

// throughTunnel makes the scenario of one kind of tunnel.
func throughTunnel(kind string, overhead int) Scenario {
	return Scenario{
		Name:   kind + "-target",
		Doc:    "a target on another network is reached through " + kind + ", answers its clients directly, and nothing is too big",
		Shape:  tunnelled(kind),
		Expect: Expect{Connections: 4, Transferred: 4, Retransmissions: true},
		Run: func(e *Env) error {
			err := errors.Join(
				e.curls([]fetched{{"a.example", "/", "t1"}, {"a.example", "/again", "t1"}}),
				e.download(optionSize), e.upload(optionSize))
			if err != nil {
				return err
			}
			return errors.Join(e.wentThrough(), e.tooBigReplies(0))
		},
		Check: func(_ *Env, r judge.Report) error {
			for _, c := range r.Conns {
				if want := ethernetMTU - overhead - ipAndTCP; int(c.Answered.MSS) != want {
					return fmt.Errorf("%v: the SYN-ACK announces an MSS of %d, want %d", c, c.Answered.MSS, want)
				}
			}
			return nil
		},
	}
}

// wentThrough checks that all that the target got came out of the tunnel, and that its doctor sees it.
func (e *Env) wentThrough() error {
	sent, err := e.counter("packet", "encapsulated")
	if err != nil {
		return err
	}
	forwarded, err := e.counter("packet", "forwarded")
	if err != nil {
		return err
	}
	if sent == 0 || sent != forwarded {
		return fmt.Errorf("%d packets were forwarded, %d of them encapsulated", forwarded, sent)
	}
	counters, err := e.Target(1).Admin().Counters(e.Ctx)
	if err != nil {
		return err
	}
	for _, c := range counters {
		switch name := c.Group + " " + c.Name; {
		case name == "guard decapsulated" && c.Value < sent*9/10, // a busy machine loses some
			name == "guard_drop tunnel_source" && c.Value != 0:
			return fmt.Errorf("%d packets were encapsulated, the target's counter %q is %d", sent, name, c.Value)
		}
	}
	return e.doctorSees(e.Target(1), "tunnels", "packets came from")
}

// doctorSees looks for a finding that is good and says so.
func (e *Env) doctorSees(h *lab.Host, check, words string) error {
	findings, err := h.Admin().Doctor(e.Ctx)
	if err != nil {
		return err
	}
	for _, f := range findings {
		if f.Check == check && f.OK && strings.Contains(f.Detail, words) {
			return nil
		}
	}
	return fmt.Errorf("the doctor of %s does not say %q of %s: %+v", h.Name, words, check, findings)
}

// tooBigReplies checks that the client was told at least so often that a segment is too big; 0: never.
func (e *Env) tooBigReplies(least uint64) error {
	n, err := e.counter("packet", "too_big_replies")
	if err == nil && (n < least || least == 0 && n > 0) {
		err = fmt.Errorf("the client was told %d times that a segment is too big, want %d", n, least)
	}
	return err
}

// runNarrowTunnel makes the targets' network one of a smaller MTU, as its hosts and the gateway know, and uploads.
func runNarrowTunnel(e *Env) error {
	for dev, h := range map[string]*lab.Host{lab.FarInterface: e.Lab.Gateway, lab.DataInterface: e.Target(1)} {
		if _, err := h.Run(e.Ctx, "ip", "link", "set", dev, "mtu", strconv.Itoa(farMTU)); err != nil {
			return err
		}
	}
	if err := e.upload(farUpload); err != nil {
		return err
	}
	reports, err := e.counter("packet", "path_mtu_updates")
	if err != nil {
		return err
	}
	if reports == 0 {
		return errors.New("the gateway did not report its MTU")
	}
	return errors.Join(e.wentThrough(), e.tooBigReplies(1), e.pathMTU(e.Client, lab.DVIPA, farMTU-gueOverhead))
}
