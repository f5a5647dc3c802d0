package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

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
	{
		Name:   "ipv6-http",
		Doc:    "IPv6 from the client to the targets, found by neighbour discovery: pages, a download, an upload",
		Shape:  Shape{Cluster: lab.Cluster{IPv6: true}, Server: nginx6},
		Expect: Expect{Connections: 4, Transferred: 4},
		Run:    runIPv6,
	},
	{
		Name:   "fragments",
		Doc:    "what comes in fragments is put together for the router, and forwarded to the targets",
		Shape:  Shape{Private: true},
		Expect: Expect{Connections: 2, Transferred: 2, Retransmissions: true},
		Run:    runFragments,
	},
	{
		Name:   "exception-tap",
		Doc:    "what is for the routing host's other addresses and protocols reaches its kernel by a TAP",
		Shape:  Shape{Private: true, Cluster: lab.Cluster{Device: "net_af_xdp", Exception: "tap"}},
		Expect: Expect{Connections: 1, Transferred: 1},
		Run:    runException,
	},
	vlanScenario("vlan", "net_af_xdp", "the data port's frames have the tag of its VLAN; others are not for us"),
	vlanScenario("vlan-af-packet", "net_af_packet", "the same where the kernel takes tags off (vlan_tci)"),
}

// nginx6 is nginx for both families.
func nginx6(e *Env, h *lab.Host) error {
	_, err := h.Nginx(e.Ctx, lab.ServerOptions{Listen: "[::]:80 ipv6only=off"})
	return err
}

func runIPv6(e *Env) error {
	if _, err := e.Client.Run(e.Ctx, "ping", "-6", "-c", "1", "-W", "5", lab.DVIPA6.String()); err != nil {
		return fmt.Errorf("echo: %w", err)
	}
	// A kernel's first question for a neighbour may be lost while addresses are still tentative (RFC 4862), and is repeated
	// after 1 s: that would look like a slow hand-over.
	for _, h := range e.Lab.Targets {
		if _, err := h.Run(e.Ctx, "ping", "-6", "-c", "1", "-W", "5", e.Client.Data6.Addr().String()); err != nil {
			return fmt.Errorf("neighbours of %s: %w", h.Name, err)
		}
	}
	return errors.Join(e.curls([]fetched{{"a.example", "/", "t1"}, {"www.b.example", "/", "t2"}}),
		e.download(optionSize), e.upload(optionSize))
}

// What passes the relay in the scenario of fragments: IP packets above this size in parts of at most this size.
const fragmentMTU = 576

// fragmenter splits packets of clients, and counts how many.
type fragmenter struct{ split atomic.Uint32 }

func (f *fragmenter) pass(frame []byte) [][]byte {
	parts := wire.Fragments(frame, fragmentMTU, f.split.Load())
	if len(parts) > 1 {
		f.split.Add(1)
	}
	return parts
}

func unchanged(frame []byte) [][]byte { return [][]byte{frame} }

func runFragments(e *Env) (err error) {
	var f fragmenter
	relay, err := e.Lab.Relay(e.Lab.Router, f.pass, unchanged)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, relay.Close()) }()
	// A head of several segments, which only the router can read.
	r, err := e.Fetch(lab.Request("a.example", "/large", "X-Padding: "+strings.Repeat("p", 4000)))
	if err != nil {
		return err
	}
	if err := want(r, "t1", "a.example", "/large"); err != nil {
		return err
	}
	if err := e.upload(optionSize); err != nil {
		return err
	}
	whole, err := e.counter("packet", "reassembled")
	if err != nil {
		return err
	}
	stack, err := reassembled(e, e.Target(1))
	if err != nil {
		return err
	}
	if split := f.split.Load(); whole < 2 || stack < 100 || split < 1000 {
		return fmt.Errorf("of %d packets in fragments the forwarder put together %d, and t1's kernel %d", split, whole, stack)
	}
	return nil
}

// reassembled is how many packets a host's IPv4 has put together: ReasmOKs of /proc/net/snmp (RFC 4293).
func reassembled(e *Env, h *lab.Host) (n int, err error) {
	out, err := h.Run(e.Ctx, "cat", "/proc/net/snmp")
	if err != nil {
		return 0, err
	}
	lines := strings.Split(string(out), "\n")
	i := slices.Index(strings.Fields(lines[0]), "ReasmOKs")
	if len(lines) < 2 || i < 0 || i >= len(strings.Fields(lines[1])) {
		return 0, fmt.Errorf("no ReasmOKs in %.200q", out)
	}
	return strconv.Atoi(strings.Fields(lines[1])[i])
}

// Tags on the routing host's link.
const (
	dataVLAN  = 42
	otherVLAN = 43
)

func vlanScenario(name, device, doc string) Scenario {
	return Scenario{
		Name: name, Doc: doc,
		Shape:  Shape{NoBaton: true, Private: true},
		Expect: Expect{Connections: 4, Transferred: 4, Retransmissions: true},
		Run:    func(e *Env) error { return runVLAN(e, device) },
	}
}

func runVLAN(e *Env, device string) (err error) {
	t, err := e.Lab.Trunk(e.Lab.Router, dataVLAN, otherVLAN)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	for _, h := range e.Lab.Targets {
		if err := nginx(e, h); err != nil {
			return err
		}
	}
	if e.Baton, err = e.StartBaton(lab.Cluster{Device: device, VLAN: dataVLAN}); err != nil {
		return err
	}
	if _, err := e.Client.Run(e.Ctx, "ping", "-c", "1", "-W", "5", lab.DVIPA.String()); err != nil {
		return fmt.Errorf("echo: %w", err)
	}
	err = errors.Join(e.curls([]fetched{{"a.example", "/", "t1"}, {"www.b.example", "/", "t2"}}),
		e.download(optionSize), e.upload(optionSize))
	if err != nil {
		return err
	}
	c, err := t.Counts()
	if err != nil {
		return err
	}
	dropped, err := e.counter("drop", "vlan")
	if err == nil && (c.Strange > 0 || c.Tagged == 0 || c.Sent == 0 || dropped < c.Sent) {
		err = fmt.Errorf("%d frames left tagged, %d otherwise; of %d that came again with another tag or none, %d were dropped",
			c.Tagged, c.Strange, 2*c.Sent, dropped)
	}
	return err
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

// kernelAddress is the routing host's second address on the data network; the first one is the data port's.
var kernelAddress = netip.MustParseAddr("10.77.0.2")

// runException has the routing host's kernel answer pings and serve HTTP on both addresses.
func runException(e *Env) error {
	h := e.Lab.Router
	for _, addr := range []netip.Addr{kernelAddress, h.Data.Addr()} {
		if _, err := h.Run(e.Ctx, "ip", "addr", "add", addr.String()+"/24", "dev", "baton0"); err != nil {
			return err
		}
	}
	if _, err := e.Client.Run(e.Ctx, "ping", "-c", "3", "-i", "0.2", "-W", "5", kernelAddress.String()); err != nil {
		return fmt.Errorf("echo: %w", err)
	}
	l, err := h.Listen("0.0.0.0:8080")
	if err != nil {
		return err
	}
	_ = h.Go(l) // ends with the lab
	for _, addr := range []netip.Addr{kernelAddress, h.Data.Addr()} {
		if err := e.asks(netip.AddrPortFrom(addr, 8080), h.Name); err != nil {
			return err
		}
	}
	if err := e.curls([]fetched{{"a.example", "/", "t1"}}); err != nil {
		return err
	}
	given, err := e.counter("router", "exceptions")
	if err != nil {
		return err
	}
	sent, err := e.counter("router", "kernel_frames")
	if err == nil && (given < 10 || sent < 10) {
		err = fmt.Errorf("the kernel was given %d frames and sent %d, want 10 or more", given, sent)
	}
	return err
}

// asks fetches a page that no target serves.
func (e *Env) asks(from netip.AddrPort, server string) error {
	c, err := e.Client.Dial(e.Ctx, netip.AddrPort{}, from)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // the response is what counts
	r, err := lab.RoundTrip(e.Ctx, c, lab.Request("kernel.example", "/"))
	if err != nil {
		return err
	}
	return want(r, server, "kernel.example", "/")
}
