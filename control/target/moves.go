package target

import (
	"baton/control/admin"
	"baton/control/config"
	"baton/control/transfer"
	"baton/fastpath/wire"
)

// follow has the space's Mover follow a connection that is about to be imported, if its job's are routed anew, or may be
// given away.
func (s *space) follow(j config.TargetJob, r *transfer.Record) error {
	switch {
	case j.Reroutes():
		return s.mover.Follow(r, j.Window)
	case j.Asks():
		return s.mover.Bound(r, j.Window)
	}
	return nil
}

// unfollow is for a connection that has no socket (any more). s may be nil: its namespace is gone.
func (k *Kernel) unfollow(s *space, inc wire.Incarnation) {
	if s == nil || s.mover == nil {
		return
	}
	if err := s.mover.Forget(inc); err != nil {
		k.log.Error("connection is still followed", "client", inc.Client, "error", err)
	}
}

// closing has a connection go back that its application closes while it is idle.
func (k *Kernel) closing(s *space, r transfer.Record) {
	k.mu.Lock()
	ours := k.live[r.Inc.Tuple].Inc == r.Inc
	k.mu.Unlock()
	if !ours { // not yet, after an application that was very fast
		k.settle(s, &r, false)
		return
	}
	k.to.Back(r, func(left bool) { k.settle(s, &r, left) })
}

// settle ends the orphan of a connection that left, before anything else can come of it; or lets it close.
func (k *Kernel) settle(s *space, r *transfer.Record, left bool) {
	var err error
	if left {
		k.left(r.Inc)
		if err = s.importer.End(r.Inc.Tuple, r.RcvNxt); err == nil {
			k.unfollow(s, r.Inc) // else it stays frozen
		}
	} else {
		err = s.mover.LetGo(r.Inc)
	}
	if err != nil {
		k.log.Error("closing connection is stuck", "client", r.Inc.Client, "left", left, "error", err)
	}
}

// left takes a flow that has another owner out of the tables; a later one of its tuple stays.
func (k *Kernel) left(inc wire.Incarnation) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.live[inc.Tuple].Inc == inc {
		k.drop(inc.Tuple)
	}
}

// Closes adds up what became of FINs in all namespaces, by outcome: taken, or why they passed; waited are repetitions.
func (k *Kernel) Closes() map[string]uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	sum := make(map[string]uint64)
	for name, s := range k.spaces {
		if s.mover == nil {
			continue
		}
		c, err := s.mover.Closes()
		if err != nil {
			k.log.Error("counters of closes cannot be read", "netns", name, "error", err)
		}
		sum["taken"] += c.Taken
		sum["waited"] += c.Waited
		for reason, n := range c.Passed {
			sum["passed_"+reason] += n
		}
	}
	return sum
}

// CloseCounters are Closes as the admin socket tells them.
func (k *Kernel) CloseCounters() []admin.Counter {
	return admin.Counters("close", k.Closes())
}
