package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"baton/bench/lab"
	"baton/fastpath/wire"
)

// What a hop with a narrow link behind it complains of.
const (
	narrowMTU      = 1000
	narrowestMTU   = 120 // makes even a short answer several segments
	icmpQuoted     = 8   // octets of TCP: the least that a hop may quote (RFC 792)
	ipAndTCP       = 40  // octets of headers without options
	narrowFile     = 50_000
	unreachable    = 3
	fragmentNeeded = 4
)

// hop is the router that the client pretends to hear from; nobody has its address.
var hop = netip.MustParseAddr("10.77.0.254")

var wireScenarios = []Scenario{
	{
		Name:   "icmp-8-bytes",
		Doc:    "fragmentation needed, 8 octets quoted, makes whoever owns the flow send smaller packets: target, router",
		Shape:  Shape{Private: true}, // the target keeps a client that has gone
		Expect: Expect{Connections: 2, Transferred: 1, Retransmissions: true},
		Run:    runICMP,
	},
}

func runICMP(e *Env) (err error) {
	raw, err := e.Client.Raw(rawAddress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, raw.Close()) }()
	return errors.Join(e.narrowTarget(raw), e.narrowRouter(raw))
}

// narrowTarget downloads a file, tells the target of a narrow link, and downloads it again.
func (e *Env) narrowTarget(raw *lab.RawHost) error {
	if _, err := e.Lab.File(narrowFile); err != nil {
		return err
	}
	c, err := raw.Connect(e.Ctx, 40001, service, wire.Options{MSS: 1460, SACKPermitted: true})
	if err != nil {
		return err
	}
	defer c.Close()
	first, err := e.largest(c)
	if err != nil {
		return err
	}
	if first != 1460 {
		return fmt.Errorf("at first the target sends segments of up to %d octets, want 1460", first)
	}
	if err := e.Settled(c.Tuple.Client, "t1"); err != nil {
		return err
	}
	if err := tooBig(c, narrowMTU); err != nil {
		return err
	}
	if err := e.pathMTU(e.Target(1), raw.Addr, narrowMTU); err != nil {
		return err
	}
	second, err := e.largest(c)
	if err != nil {
		return err
	}
	if second > narrowMTU-ipAndTCP {
		return fmt.Errorf("told of an MTU of %d, the target still sends segments of %d octets", narrowMTU, second)
	}
	n, err := e.counter("packet", "icmp_errors")
	if err == nil && n != 1 {
		err = fmt.Errorf("%d ICMP errors were forwarded, want 1", n)
	}
	return err
}

// tooBig complains about the service's next segment.
func tooBig(c *lab.RawConn, mtu int) error {
	return c.SendError(hop, wire.ICMPError{Seq: c.RcvNxt, Type: unreachable, Code: fragmentNeeded, MTU: mtu}, icmpQuoted)
}

// largest fetches the file on a connection and returns the size of the largest segment with a part of it.
func (e *Env) largest(c *lab.RawConn) (largest int, err error) {
	request := lab.Request("a.example", fmt.Sprintf("/static/data-%d", narrowFile))
	if err := c.Send(wire.ACK|wire.PSH, request); err != nil {
		return 0, err
	}
	last := lab.Data(narrowFile)[narrowFile-100:]
	before := 0
	_, err = c.ReadUntil(e.Ctx, func(b []byte) bool {
		largest, before = max(largest, len(b)-before), len(b)
		return bytes.HasSuffix(b, last)
	})
	return largest, err
}

// pathMTU waits until a host's kernel knows the MTU of the way to a client.
func (e *Env) pathMTU(h *lab.Host, client netip.Addr, mtu int) error {
	return lab.Until(e.Ctx, fmt.Sprintf("%s has heard of the MTU", h.Name), func() error {
		out, err := h.Run(e.Ctx, "ip", "route", "get", client.String())
		if err == nil && !strings.Contains(string(out), fmt.Sprintf("mtu %d", mtu)) {
			err = fmt.Errorf("its way to the client is %q", out)
		}
		return err
	})
}

// narrowRouter lets the router refuse a request, and tells it that its answer did not get through.
func (e *Env) narrowRouter(raw *lab.RawHost) error {
	c, err := raw.Connect(e.Ctx, 40002, service, wire.Options{MSS: 1460})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Send(wire.ACK|wire.PSH, lab.Request("nobody.example", "/")); err != nil {
		return err
	}
	lost := c.RcvNxt
	answer, err := c.Receive(e.Ctx)
	for err == nil && len(answer.Payload) == 0 {
		answer, err = c.Receive(e.Ctx)
	}
	if err != nil {
		return err
	}
	c.RcvNxt = lost // it is not acknowledged
	if err := tooBig(c, narrowestMTU); err != nil {
		return err
	}
	largest, before := 0, 0
	got, err := c.ReadUntil(e.Ctx, func(b []byte) bool {
		largest, before = max(largest, len(b)-before), len(b)
		return false // to the end
	})
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(got, answer.Payload) || largest > narrowestMTU-ipAndTCP {
		return fmt.Errorf("after %q the router repeats %q, in segments of up to %d octets", answer.Payload, got, largest)
	}
	n, err := e.counter("router", "icmp_errors")
	if err == nil && n != 1 {
		err = fmt.Errorf("the router took %d ICMP errors, want 1", n)
	}
	return errors.Join(err, c.Send(wire.ACK|wire.FIN, nil))
}
