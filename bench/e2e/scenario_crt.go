package main

import (
	"errors"
	"fmt"
	"math"
	"time"

	"baton/bench/lab"
	"baton/control/admin"
)

// Sizes of the scenarios with a small table.
const (
	tablePlaces   = 64 // the smallest that can be configured
	beyondTable   = 8
	evictIdle     = 1500 * time.Millisecond // rounded down to 1 s by the forwarder
	evictedLinger = 100 * time.Millisecond
)

// smallTable has few places and forgets ended flows soon.
func smallTable(evict string) lab.Cluster {
	return lab.Cluster{Entries: tablePlaces, EvictIdle: evict, Linger: evictedLinger}
}

var crtScenarios = []Scenario{
	{
		Name:   "crt-lost",
		Doc:    "the routing host's daemon is restarted: connections go on with their next packet, no client notices",
		Shape:  Shape{Private: true},
		Expect: Expect{Connections: 2, Transferred: 2},
		Run:    runLost,
	},
	{
		Name:   "crt-full",
		Doc:    "in a full table all connections keep their owner; refused ones are counted, and served when there is room",
		Shape:  Shape{Cluster: smallTable("0s"), Private: true},
		Expect: Expect{Connections: tablePlaces + beyondTable, Transferred: tablePlaces + beyondTable, Retransmissions: true},
		Run:    runFullRefuses,
	},
	{
		Name:   "crt-full-evicts",
		Doc:    "or the oldest idle ones make room, and come back with their next packet when there is room",
		Shape:  Shape{Cluster: smallTable(evictIdle.String()), Private: true},
		Expect: Expect{Connections: tablePlaces + beyondTable, Transferred: tablePlaces + beyondTable, Retransmissions: true},
		Run:    runFullEvicts,
	},
}

// runLost restarts the daemon under a connection of a target.
func runLost(e *Env) error {
	kept, err := e.keep(1)
	if err != nil {
		return err
	}
	if err := e.restartRouter(); err != nil {
		return err
	}
	if err := errors.Join(kept.ask("/again"), e.wantCounter("table", "restored", 1, 1)); err != nil {
		return err
	}
	if err := errors.Join(kept.ask("/and-again"), kept.close()); err != nil {
		return err
	}
	return e.curls([]fetched{{"a.example", "/new", "t1"}})
}

// runFullRefuses fills the table, lets more clients come, and makes room.
func runFullRefuses(e *Env) error {
	kept, err := e.keep(tablePlaces)
	if err != nil {
		return err
	}
	late, err := e.connect(beyondTable)
	if err != nil {
		return err
	}
	if err := late.send("/late"); err != nil {
		return err
	}
	if err := e.untilCounter("drop", "crt_full", beyondTable); err != nil {
		return err
	}
	if err := errors.Join(kept.ask("/full"), e.wantCounter("table", "evicted", 0, 0)); err != nil {
		return err
	}
	if err := kept.close(); err != nil {
		return err
	}
	return errors.Join(late.hear("/late"), late.close())
}

// runFullEvicts fills the table, waits until its flows are idle, and lets more clients come. Then all go on.
func runFullEvicts(e *Env) error {
	kept, err := e.keep(tablePlaces)
	if err != nil {
		return err
	}
	if err := e.sleep(evictIdle + time.Second); err != nil { // the forwarder counts whole seconds
		return err
	}
	late, err := e.keep(beyondTable)
	if err != nil {
		return err
	}
	err = errors.Join(e.wantCounter("table", "evicted", beyondTable, beyondTable), late.close(), e.gone(late))
	if err != nil {
		return err
	}
	return errors.Join(kept.ask("/back"), e.wantCounter("table", "restored", beyondTable, beyondTable), kept.close())
}

// clients are connections to t1 that stay open.
type clients struct {
	e     *Env
	conns []*lab.Conn
}

// connect opens n connections.
func (e *Env) connect(n int) (*clients, error) {
	all := &clients{e: e}
	for range n {
		c, err := e.Dial()
		if err != nil {
			return nil, err
		}
		all.conns = append(all.conns, c)
	}
	return all, nil
}

// keep opens n connections and waits until they are t1's.
func (e *Env) keep(n int) (*clients, error) {
	all, err := e.connect(n)
	if err != nil {
		return nil, err
	}
	if err := all.ask("/first"); err != nil {
		return nil, err
	}
	for _, c := range all.conns {
		if err := e.Settled(c.Local(), "t1"); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// ask makes a request on each connection, one after the other.
func (all *clients) ask(path string) error {
	for i, c := range all.conns {
		r, err := lab.RoundTrip(all.e.Ctx, c, lab.Request("a.example", path))
		if err := all.served(i, path, r, err); err != nil {
			return err
		}
	}
	return nil
}

// served looks at what a request on connection i got.
func (all *clients) served(i int, path string, r *lab.Response, err error) error {
	if err != nil {
		return fmt.Errorf("connection %d, %s: %w", i+1, path, err)
	}
	all.e.note(all.conns[i].Local(), r)
	if err := want(r, "t1", "a.example", path); err != nil {
		return fmt.Errorf("connection %d: %w", i+1, err)
	}
	return nil
}

// send makes requests whose responses hear awaits.
func (all *clients) send(path string) error {
	for i, c := range all.conns {
		if _, err := c.Write(lab.Request("a.example", path)); err != nil {
			return fmt.Errorf("connection %d, %s: %w", i+1, path, err)
		}
	}
	return nil
}

func (all *clients) hear(path string) error {
	for i, c := range all.conns {
		r, err := lab.NewResponses(c).Next()
		if err := all.served(i, path, r, err); err != nil {
			return err
		}
	}
	return nil
}

func (all *clients) close() error {
	var errs []error
	for _, c := range all.conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// gone waits until the table has none of the connections any more.
func (e *Env) gone(all *clients) error {
	for _, c := range all.conns {
		err := lab.Until(e.Ctx, fmt.Sprintf("%v is forgotten", c.Local()), func() error {
			page, err := e.Baton.Admin.CRT(e.Ctx, admin.CRTQuery{Client: c.Local().String()})
			if err == nil && len(page.Entries) > 0 {
				return fmt.Errorf("its entries are %+v", page.Entries)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// wantCounter expects one of the forwarder's counters between two values.
func (e *Env) wantCounter(group, name string, least, most uint64) error {
	n, err := e.counter(group, name)
	if err == nil && (n < least || n > most) {
		err = fmt.Errorf("%s %s is %d, want %d to %d", group, name, n, least, most)
	}
	return err
}

// untilCounter waits until one of them is at least so high.
func (e *Env) untilCounter(group, name string, least uint64) error {
	return lab.Until(e.Ctx, fmt.Sprintf("%s %s is %d", group, name, least), func() error {
		return e.wantCounter(group, name, least, math.MaxUint64)
	})
}
