package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"baton/bench/lab"
	"baton/control/xcf"
)

// refusedFor is how long a host with a wrong certificate must stay out; an agent dials again within that time.
const refusedFor = 3 * time.Second

var xcfScenarios = []Scenario{
	{
		Name:   "xcf-wrong-ca",
		Doc:    "a target whose certificate is of another CA is not let in; its job answers 503",
		Shape:  Shape{Private: true},
		Expect: Expect{Transferred: 1},
		Run: func(e *Env) error {
			return e.wrongCertificate(func(dir string) error {
				other := filepath.Join(dir, "other")
				err := errors.Join(xcf.CreateCA(other), xcf.IssueHost(other, xcf.RoleTarget, "t2", xcf.HostValidity))
				for _, name := range []string{"t2.pem", "t2.key"} {
					err = errors.Join(err, copyFile(filepath.Join(other, name), filepath.Join(dir, name)))
				}
				return err
			})
		},
	},
	{
		Name:   "xcf-expired",
		Doc:    "nor is one whose certificate has expired",
		Shape:  Shape{Private: true},
		Expect: Expect{Transferred: 1},
		Run: func(e *Env) error {
			return e.wrongCertificate(func(dir string) error {
				return xcf.IssueHost(dir, xcf.RoleTarget, "t2", -time.Hour)
			})
		},
	},
	{
		Name:   "xcf-target-as-router",
		Doc:    "an agent takes nothing from a host that shows a target's certificate where the routing host should be",
		Shape:  Shape{NoBaton: true, Private: true, Targets: 1},
		Expect: Expect{Unjudged: true},
		Run:    runTargetAsRouter,
	},
}

// wrongCertificate restarts t2's agent with a certificate that issue makes, and expects it to stay out. An agent may
// also refuse to start with it.
func (e *Env) wrongCertificate(issue func(dir string) error) error {
	e.Baton.Agents[1].Stop()
	dir := e.Lab.Certificates()
	err := errors.Join(os.Remove(filepath.Join(dir, "t2.pem")), os.Remove(filepath.Join(dir, "t2.key")), issue(dir))
	if err != nil {
		return err
	}
	p, err := e.Baton.StartAgent(e.Ctx, e.Target(2))
	switch {
	case err == nil:
		defer p.Stop()
	case !errors.Is(err, lab.ErrEnded) || !strings.Contains(err.Error(), "certificate"):
		return err
	}
	for began := time.Now(); time.Since(began) < refusedFor; {
		targets, err := e.Baton.Admin.Targets(e.Ctx)
		if err != nil {
			return err
		}
		for _, t := range targets {
			if t.Host == "t2" && (t.Connected || t.Ready) {
				return fmt.Errorf("t2 was let in: %+v", t)
			}
		}
		if err := e.sleep(50 * time.Millisecond); err != nil {
			return err
		}
	}
	return errors.Join(e.refused(lab.Request("www.b.example", "/"), 503), e.curls([]fetched{{"a.example", "/", "t1"}}))
}

// runTargetAsRouter stands in for the routing host with a certificate of the right CA and name, but of a target.
func runTargetAsRouter(e *Env) error {
	if err := nginx(e, e.Target(1)); err != nil {
		return err
	}
	c := lab.TwoSites()
	c.Jobs = c.Jobs[:1]
	c.Rules = c.Rules[:1]
	b, err := e.PrepareBaton(c)
	if err != nil {
		return err
	}
	dir := e.Lab.Certificates()
	err = errors.Join(os.Remove(filepath.Join(dir, "rh1.pem")), os.Remove(filepath.Join(dir, "rh1.key")),
		xcf.IssueHost(dir, xcf.RoleTarget, "rh1", xcf.HostValidity))
	if err != nil {
		return err
	}
	certificate, err := tls.LoadX509KeyPair(filepath.Join(dir, "rh1.pem"), filepath.Join(dir, "rh1.key"))
	if err != nil {
		return err
	}
	l, err := e.Lab.Router.Listen(net.JoinHostPort(e.Lab.Router.XCF.Addr().String(), "7600"))
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }() // no connection was let in, or the scenario failed
	if _, err := b.StartAgent(e.Ctx, e.Target(1)); err != nil {
		return err
	}
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequestClientCert}
	for range 2 {
		if err := e.expectRefusal(l, config); err != nil {
			return err
		}
	}
	return e.agentOut()
}

// expectRefusal accepts one connection of the agent and expects it to end before a single octet of XCF.
func (e *Env) expectRefusal(l net.Listener, config *tls.Config) error {
	ctx, cancel := context.WithTimeout(e.Ctx, agentPatience)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	raw, err := l.Accept()
	if err != nil {
		return fmt.Errorf("the agent does not dial: %w", err)
	}
	c := tls.Server(raw, config)
	defer func() { _ = c.Close() }() // only a probe
	if err := c.SetDeadline(time.Now().Add(refusedFor)); err != nil {
		return err
	}
	n, err := c.Read(make([]byte, 1)) // in TLS 1.3 the client's refusal comes after our handshake
	var timeout net.Error
	switch {
	case n > 0:
		return errors.New("the agent speaks XCF with a target's certificate")
	case errors.As(err, &timeout) && timeout.Timeout():
		return errors.New("the agent does not refuse a target's certificate")
	}
	return nil
}

// agentOut checks that t1's agent still runs, with its jobs and no connection.
func (e *Env) agentOut() error {
	flows, err := e.Target(1).Admin().Flows(e.Ctx)
	if err != nil {
		return err
	}
	if len(flows) > 0 {
		return fmt.Errorf("the agent has taken %+v", flows)
	}
	return nil
}
