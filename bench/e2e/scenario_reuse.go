package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"baton/bench/judge"
	"baton/bench/lab"
	"baton/control/admin"
	"baton/fastpath/wire"
)

// Numbers of these scenarios.
const (
	reusedPort     = 33333
	reuses         = 20
	forgedSegments = 200 // forged segments
)

// rawAddress belongs to no kernel.
var rawAddress = netip.MustParseAddr("10.77.0.150")

var reuseScenarios = []Scenario{
	{
		Name:   "port-reuse-time-wait",
		Doc:    "a client port serves again at once although the target that closed first still has it in TIME-WAIT",
		Expect: Expect{Connections: reuses, Transferred: reuses},
		Run:    runReuseTimeWait,
	},
	{
		Name:   "port-reuse-established",
		Doc:    "a client that forgot its connection gets a new one on the same port, at the same target and at another",
		Shape:  Shape{Private: true}, // the target goes on repeating what the client forgot
		Expect: Expect{Connections: 3, Transferred: 3},
		Run:    runReuseEstablished,
	},
	{
		Name:   "forged-ack",
		Doc:    "segments whose cookie is wrong are dropped and counted: no answer, no flow, no harm",
		Expect: Expect{Connections: 1, Transferred: 1},
		Run:    runForged,
		Check: func(_ *Env, r judge.Report) error {
			if r.Strays != forgedSegments {
				return fmt.Errorf("the capture has %d forged segments, want %d", r.Strays, forgedSegments)
			}
			return nil
		},
	},
}

func runReuseTimeWait(e *Env) error {
	local := netip.AddrPortFrom(e.Client.Data.Addr(), reusedPort)
	for i := range reuses {
		c, err := e.DialFrom(local)
		if err != nil {
			return fmt.Errorf("use %d: %w", i+1, err)
		}
		path := fmt.Sprintf("/%d", i)
		r, err := lab.RoundTrip(e.Ctx, c, lab.Request("a.example", path, "Connection: close"))
		if err != nil {
			return errors.Join(fmt.Errorf("use %d: %w", i+1, err), c.Close())
		}
		// The server's FIN comes first, then ours: only it keeps a TIME-WAIT.
		err = errors.Join(want(r, "t1", "a.example", path), lab.NewResponses(c).End(), c.Close())
		if err != nil {
			return fmt.Errorf("use %d: %w", i+1, err)
		}
	}
	return nil
}

func runReuseEstablished(e *Env) (err error) {
	raw, err := e.Client.Raw(rawAddress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, raw.Close()) }()
	for i, f := range []fetched{{"a.example", "/1", "t1"}, {"a.example", "/2", "t1"}, {"www.b.example", "/3", "t2"}} {
		if err := e.forgetful(raw, f); err != nil {
			return fmt.Errorf("use %d: %w", i+1, err)
		}
	}
	return nil
}

// forgetful fetches once from the same port, and then behaves as a host that has crashed.
func (e *Env) forgetful(raw *lab.RawHost, f fetched) error {
	c, err := raw.Connect(e.Ctx, reusedPort, service, wire.Options{MSS: 1460, SACKPermitted: true})
	if err != nil {
		return err
	}
	defer c.Close()
	request := lab.Request(f.host, f.path)
	if err := c.Send(wire.ACK|wire.PSH, request); err != nil {
		return err
	}
	line := fmt.Sprintf("%s GET %s %s\n", f.target, f.host, f.path)
	got, err := c.ReadUntil(e.Ctx, func(b []byte) bool { return strings.HasSuffix(string(b), line) })
	if err != nil {
		return fmt.Errorf("received %.100q: %w", got, err)
	}
	e.Record(c.Tuple.Client, judge.Stream{Sent: judge.DigestOf(request), Received: judge.DigestOf(got)})
	return nil
}

func runForged(e *Env) (err error) {
	raw, err := e.Client.Raw(rawAddress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, raw.Close()) }()
	before, err := e.forwarderState()
	if err != nil {
		return err
	}
	for i := range forgedSegments {
		c, err := raw.Conn(e.Ctx, uint16(20000+i), service, wire.Options{})
		if err != nil {
			return err
		}
		c.RcvNxt = c.SndNxt * 7 // no cookie that anybody was sent
		var payload []byte
		if i%2 == 1 {
			payload = lab.Request("a.example", "/forged")
		}
		if err := c.Send(wire.ACK, payload); err != nil {
			return err
		}
	}
	if err := e.curls([]fetched{{"a.example", "/", "t1"}}); err != nil {
		return err
	}
	after, err := e.forwarderState()
	if err != nil {
		return err
	}
	if n := after.flows - before.flows; n > 1 {
		return fmt.Errorf("the CRT grew by %d flows, want at most the real one", n)
	}
	if n := after.forged - before.forged; n != forgedSegments {
		return fmt.Errorf("%d forged segments were counted, want %d", n, forgedSegments)
	}
	return nil
}

// forwarderState is what a forged segment could change.
type forwarderState struct {
	flows  int
	forged uint64
}

func (e *Env) forwarderState() (s forwarderState, err error) {
	page, err := e.Baton.Admin.CRT(e.Ctx, admin.CRTQuery{Limit: 1})
	if err != nil {
		return s, err
	}
	s.flows = page.Total
	counters, err := e.Baton.Admin.Counters(e.Ctx)
	for _, c := range counters {
		if c.Group == "handshake" && c.Name == "forged" {
			s.forged = c.Value
		}
	}
	return s, err
}
