package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"baton/bench/judge"
	"baton/bench/lab"
	"baton/control/admin"
	"baton/fastpath/wire"
)

// What happens to a client's segments while its connection changes hands. A freeze lasts less than a millisecond, so the
// target's agent is stopped to hold it up: for less than the 3 s after which its stream would be given up.
const (
	freezeSingle = 20                     // requests of one segment
	freezePieces = 3                      // segments sent during a freeze
	freezePiece  = 1000                   // octets of each
	soon         = 150 * time.Millisecond // no kernel repeats its request within that (RTO: 200 ms)
	shortConfirm = 300 * time.Millisecond // until a target is asked what became of a commit
	paused       = time.Second            // longer than that
	commitHead   = 2000                   // octets that make a commit larger than any other message
	commitLeast  = 1500
)

var freezeScenarios = []Scenario{
	frozenClients("freeze-buffer", "what arrives during a freeze is held and not repeated: a request of one segment costs nothing",
		"", "packet", "held", func(c judge.Conn) int { return c.Retransmissions }),
	frozenClients("freeze-discard", "what arrives during a freeze is dropped, and the client repeats it; a request of one segment is not",
		"discard", "drop", "discarded", func(c judge.Conn) int { return c.Handover }),
	{
		Name:   "client-rst-during-freeze",
		Doc:    "a client's RST during the freeze reaches the target after the import, and the entry is forgotten",
		Shape:  Shape{NoBaton: true, Private: true},
		Expect: Expect{ClientResets: true},
		Run:    runResetDuringFreeze,
	},
	{
		Name:   "client-fin-during-freeze",
		Doc:    "a client that closes its side during the freeze gets the whole response",
		Expect: Expect{Connections: 1, Transferred: 1, Retransmissions: true},
		Run: func(e *Env) error {
			return e.with(nil, func(c *lab.Conn) error {
				if err := e.frozen(c, lab.Request("a.example", "/fin"), c.CloseWrite, 1, "packet", "held"); err != nil {
					return err
				}
				responses := lab.NewResponses(c)
				r, err := responses.Next()
				if err != nil {
					return err
				}
				return errors.Join(want(r, "t1", "a.example", "/fin"), responses.End())
			})
		},
	},
	{
		Name:   "confirm-lost",
		Doc:    "a confirmation that is lost with its stream is asked for on the next one, and the connection is served once",
		Shape:  Shape{Cluster: lab.Cluster{Confirm: shortConfirm}},
		Expect: Expect{Connections: 1, Transferred: 1, Retransmissions: true},
		Run:    runConfirmLost,
	},
	{
		Name:   "target-pauses-after-commit",
		Doc:    "a target that is stopped when the commit arrives serves once it goes on: nobody else was given the connection",
		Shape:  Shape{Cluster: lab.Cluster{Confirm: shortConfirm}},
		Expect: Expect{Connections: 1, Transferred: 1, Retransmissions: true},
		Run:    runTargetPauses,
	},
}

// frozenClients makes the scenario of one way to freeze. group and counter count what arrives during a freeze. repeated
// counts what must not be repeated where the request is one segment. What the target answers before the forwarder has
// switched is acknowledged during the freeze, so discarding costs something even there.
func frozenClients(name, doc, mode, group, counter string, repeated func(judge.Conn) int) Scenario {
	return Scenario{
		Name: name, Doc: doc, Shape: Shape{Cluster: lab.Cluster{Freeze: mode}},
		Expect: Expect{Connections: freezeSingle + 1, Transferred: freezeSingle + 1, Retransmissions: true},
		Run: func(e *Env) error {
			for i := range freezeSingle {
				if err := e.fetchOne("t1", "a.example", fmt.Sprintf("/single/%d", i)); err != nil {
					return err
				}
			}
			return e.with(nil, func(c *lab.Conn) error { return e.uploadDuringFreeze(c, name, group, counter) })
		},
		Note: func(e *Env, r judge.Report) string {
			total, upload := 0, r.Conns[len(r.Conns)-1].Retransmissions
			for _, c := range r.Conns[:len(r.Conns)-1] {
				total += c.Retransmissions
			}
			e.remark("%d single segments: %d repeats; upload: %d", len(r.Conns)-1, total, upload)
			return remarks(e, r)
		},
		Check: func(_ *Env, r judge.Report) error { return checkFrozen(r, mode == "discard", repeated) },
	}
}

// uploadDuringFreeze sends an upload whose head decides and whose body arrives during the freeze.
func (e *Env) uploadDuringFreeze(c *lab.Conn, name, group, counter string) error {
	const n = freezePieces * freezePiece
	var sent time.Time
	body := func() error {
		if err := c.TCP().SetNoDelay(true); err != nil {
			return err
		}
		sent = time.Now()
		for piece := range slices.Chunk(lab.Data(n), freezePiece) {
			if _, err := c.Write(piece); err != nil {
				return err
			}
		}
		return nil
	}
	if err := e.frozen(c, putHead(name, n), body, freezePieces, group, counter); err != nil {
		return err
	}
	thawed := time.Now()
	if err := e.stored(c, name, n); err != nil {
		return err
	}
	e.remark("frozen for %v with data under way, answered %v after that", thawed.Sub(sent).Round(time.Millisecond),
		time.Since(thawed).Round(time.Millisecond))
	return nil
}

// checkFrozen looks at the cost of single segments, unless the machine was so busy that a client had to repeat its request.
// What was sent into a freeze that discards must have been repeated.
func checkFrozen(r judge.Report, discards bool, repeated func(judge.Conn) int) error {
	quick := 0
	for _, c := range r.Conns[:freezeSingle] {
		if c.Gap > soon {
			continue
		}
		quick++
		if n := repeated(c); n > 0 {
			return fmt.Errorf("%v: handed over within %v, and %d segments were repeated", c, c.Gap, n)
		}
	}
	if quick < freezeSingle/2 {
		return fmt.Errorf("only %d of %d hand-overs took less than %v", quick, freezeSingle, soon)
	}
	if last := r.Conns[freezeSingle]; discards && last.Retransmissions == 0 {
		return fmt.Errorf("%v: nothing was repeated of what was discarded", last)
	}
	return nil
}

// frozen sends a request to t1, whose agent is stopped, does something once the connection is frozen, waits until the
// forwarder has counted so many segments of it, and lets the agent go on.
func (e *Env) frozen(c *lab.Conn, request []byte, do func() error, n uint64, group, counter string) (err error) {
	before, err := e.counter(group, counter)
	if err != nil {
		return err
	}
	agent := e.Baton.Agents[0]
	if err := agent.Pause(e.Ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, agent.Continue()) }()
	if _, err := c.Write(request); err != nil {
		return err
	}
	if err := e.inState(c.Local(), "frozen"); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return lab.Until(e.Ctx, "the forwarder has got it", func() error {
		now, err := e.counter(group, counter)
		if err == nil && now < before+n {
			err = fmt.Errorf("%s/%s is %d, was %d", group, counter, now, before)
		}
		return err
	})
}

// inState waits until the client's entry is in a state; "" is no entry.
func (e *Env) inState(client netip.AddrPort, state string) error {
	return lab.Until(e.Ctx, fmt.Sprintf("the entry of %v is %q", client, state), func() error {
		page, err := e.Baton.Admin.CRT(e.Ctx, admin.CRTQuery{Client: client.String()})
		if err != nil {
			return err
		}
		if now := stateOf(page.Entries); now != state {
			return fmt.Errorf("it is %q", now)
		}
		return nil
	})
}

func stateOf(entries []admin.CRTEntry) string {
	if len(entries) == 0 {
		return ""
	}
	return entries[0].State
}

// runResetDuringFreeze has an application that accepts only when all is over, so that nothing is sent to a client that
// has gone.
func runResetDuringFreeze(e *Env) (err error) {
	l, err := e.Target(1).Listen(":80")
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	if err := nginx(e, e.Target(2)); err != nil {
		return err
	}
	if e.Baton, err = e.StartBaton(lab.TwoSites()); err != nil {
		return err
	}
	c, err := e.Dial()
	if err != nil {
		return err
	}
	if err := e.frozen(c, lab.Request("a.example", "/reset"), c.Abort, 1, "packet", "held"); err != nil {
		return err
	}
	got, err := l.Accept()
	if err != nil {
		return err
	}
	if err := errors.Join(wasReset(got), got.Close()); err != nil {
		return err
	}
	return e.inState(c.Local(), "") // after the target's report, and the linger
}

// wasReset reads what a client sent before it reset the connection. The kernel may have thrown it away.
func wasReset(c net.Conn) error {
	_, err := c.Read(make([]byte, 4096))
	if err == nil {
		_, err = c.Read(make([]byte, 4096))
	}
	if !errors.Is(err, unix.ECONNRESET) {
		return fmt.Errorf("the target's application sees no reset: %w", err)
	}
	return nil
}

// request is one whose commit is larger than any other message, so that it can be told on the wire.
func largeRequest(path string) []byte {
	return lab.Request("a.example", path, "X-Padding: "+strings.Repeat("p", commitHead))
}

// isCommit reports whether a segment to a target carries the commit of a large request.
func isCommit(up bool, f wire.Frame) bool {
	return !up && len(f.Segment.Payload) >= min(commitLeast, 1400)
}

// runConfirmLost cuts t1's messages off from the commit on until the routing host has given the stream up.
func runConfirmLost(e *Env) (err error) {
	var cut, restored atomic.Bool
	var lost atomic.Int64
	cable, err := e.Target(1).Spoil(lab.XCFInterface, lab.Wire{Censor: func(up bool, f wire.Frame) bool {
		if isCommit(up, f) {
			cut.Store(true)
		}
		if !up || !cut.Load() || restored.Load() || len(f.Segment.Payload) == 0 {
			return false
		}
		lost.Add(1)
		return true
	}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cable.Close(), e.Baton.Ready(e.Ctx)) }()
	return e.with(nil, func(c *lab.Conn) error {
		r, err := lab.RoundTrip(e.Ctx, c, largeRequest("/confirm"))
		if err != nil {
			return err
		}
		if err := errors.Join(want(r, "t1", "a.example", "/confirm"), e.inState(c.Local(), "frozen")); err != nil {
			return err
		}
		if err := e.connected("t1", false); err != nil {
			return err
		}
		restored.Store(true)
		if err := e.Settled(c.Local(), "t1"); err != nil {
			return err
		}
		if lost.Load() == 0 {
			return errors.New("nothing of t1 was lost after the commit")
		}
		return errors.Join(e.ask(c, "/after"), e.servedOnce("/confirm"))
	})
}

// connected waits until the routing host has a stream of a target, or has none.
func (e *Env) connected(host string, up bool) error {
	return lab.Until(e.Ctx, fmt.Sprintf("%s connected: %v", host, up), func() error {
		targets, err := e.Baton.Admin.Targets(e.Ctx)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(targets, func(t admin.Target) bool { return t.Host == host && t.Connected != up }) {
			return fmt.Errorf("connected: %v", !up)
		}
		return nil
	})
}

// servedOnce looks for a path in the access log of t1, which must have it once, and of t2, which must not.
func (e *Env) servedOnce(path string) error {
	for i, times := range []int{1, 0} {
		log, err := os.ReadFile(e.Target(i + 1).Path("access.log"))
		if err != nil {
			return err
		}
		if n := bytes.Count(log, []byte("GET "+path+" ")); n != times {
			return fmt.Errorf("t%d served %s %d times, want %d", i+1, path, n, times)
		}
	}
	return nil
}

// runTargetPauses stops t1's agent while the commit is on the wire.
func runTargetPauses(e *Env) (err error) {
	agent := e.Baton.Agents[0]
	stopped := make(chan error, 1)
	var once atomic.Bool
	cable, err := e.Target(1).Spoil(lab.XCFInterface, lab.Wire{Censor: func(up bool, f wire.Frame) bool {
		if isCommit(up, f) && once.CompareAndSwap(false, true) {
			stopped <- agent.Pause(e.Ctx)
		}
		return false
	}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cable.Close()) }()
	return e.with(nil, func(c *lab.Conn) error {
		if _, err := c.Write(largeRequest("/paused")); err != nil {
			return err
		}
		select {
		case err := <-stopped:
			if err != nil {
				return err
			}
		case <-e.Ctx.Done():
			return fmt.Errorf("no commit: %w", e.Ctx.Err())
		}
		if err := errors.Join(e.sleep(paused), e.inState(c.Local(), "frozen"), agent.Continue()); err != nil {
			return err
		}
		r, err := lab.NewResponses(c).Next()
		if err != nil {
			return err
		}
		if err := errors.Join(want(r, "t1", "a.example", "/paused"), e.Settled(c.Local(), "t1")); err != nil {
			return err
		}
		return e.servedOnce("/paused")
	})
}
