package sim

import (
	"time"

	"baton/control/router"
	"baton/control/transfer"
)

// stream is the connection between the routing host and one target: messages arrive in order, or die with it.
type stream struct {
	w  *world
	t  *target
	id int // counts the streams; messages of older ones are dead

	hostUp, targetUp bool // what the two sides think
	standing         bool // what is true
	blackhole        bool // nothing arrives
	dialing          bool // the target will try soon
	lastDown, lastUp time.Time
}

// Times of streams.
const (
	streamQuick   = 30 * time.Microsecond
	streamSlow    = 300 * time.Microsecond
	streamNotices = 50 * time.Millisecond // a broken stream is noticed within
	streamSilence = 3 * time.Second       // one on which nothing arrives
	streamBackoff = 500 * time.Millisecond
)

// open lets the target dial.
func (s *stream) open() {
	if s.standing || s.t.taker == nil { // an agent that starts dials
		return
	}
	if s.blackhole {
		s.redial()
		return
	}
	s.id++
	s.standing = true
	s.w.logf(s.t.name, "stream stands")
	if s.hostUp { // the host learns of a new stream only by its coming
		s.hostUp = false
		s.w.host.router.HostDown(s.t.name)
	}
	s.hostUp, s.targetUp = true, true
	s.w.host.router.HostUp(s.t.name)
	s.w.host.router.HostJobs(s.t.name, s.t.jobs())
	s.t.step(transfer.PeerUp{Host: hostName})
}

// fail ends the stream; both sides notice within the time, and then the target dials again.
func (s *stream) fail(notice time.Duration) {
	if !s.standing {
		return
	}
	s.standing = false
	id := s.id
	s.w.tally.fault(StreamLost)
	s.w.logf(s.t.name, "stream is lost")
	s.w.in(s.w.between(0, notice), func() {
		if s.id == id && s.hostUp {
			s.hostUp = false
			s.w.host.router.HostDown(s.t.name)
		}
	})
	s.w.in(s.w.between(0, notice), func() { s.targetNotices(id) })
}

func (s *stream) targetNotices(id int) {
	if s.id != id {
		return
	}
	if s.targetUp {
		s.targetUp = false
		s.t.step(transfer.PeerLost{Host: hostName})
	}
	s.redial()
}

// redial tries again, in a while.
func (s *stream) redial() {
	if s.dialing {
		return
	}
	s.dialing = true
	s.w.in(s.w.between(0, streamBackoff), func() {
		s.dialing = false
		s.open()
	})
}

// cut lets nothing pass for a time.
func (s *stream) cut(d time.Duration) {
	s.blackhole = true
	s.w.tally.fault(Partition)
	s.fail(streamSilence)
	s.w.in(d, func() { s.blackhole = false })
}

// heal ends what a fault did to the stream.
func (s *stream) heal() { s.blackhole = false }

// down sends a message to the target. False: surely not.
func (s *stream) down(m transfer.Message) bool {
	if !s.hostUp {
		return false
	}
	s.pass(&s.lastDown, m, func() {
		s.w.logf("router", "to %s: %s", s.t.name, describe(m))
		s.t.hear(m)
	})
	return true
}

// up sends a message to the routing host.
func (s *stream) up(m transfer.Message) {
	if !s.targetUp {
		s.w.in(0, func() { s.t.step(transfer.PeerLost{Host: hostName}) })
		return
	}
	s.pass(&s.lastUp, m, func() {
		s.w.logf(s.t.name, "to router: %s", describe(m))
		s.w.host.router.HostSays(s.t.name, m)
	})
}

// pass delivers a message after those before it, if the stream still stands then.
func (s *stream) pass(last *time.Time, m transfer.Message, deliver func()) {
	if !s.standing {
		s.w.logf("net", "stream to %s: %s is lost", s.t.name, describe(m))
		return
	}
	w, id := s.w, s.id
	times := 1
	if !w.healed && w.chance(w.plan.Repeat) {
		w.tally.fault(MessageRepeated)
		times = 2
	}
	for i := range times {
		at := w.now.Add(w.between(streamQuick, streamSlow) + time.Duration(i)*w.between(0, 20*time.Millisecond))
		if i == 0 {
			if at.Before(*last) {
				at = *last
			}
			*last = at
		}
		w.at(at, func() {
			if s.standing && s.id == id {
				deliver()
			} else {
				w.logf("net", "stream to %s: %s is lost", s.t.name, describe(m))
			}
		})
	}
}

// jobs are what the target announces.
func (t *target) jobs() []router.Job {
	var all []router.Job
	for i := range services {
		for _, name := range []string{"web", "solo"} {
			all = append(all, router.Job{Name: name, Service: services[i].addr, Ready: true, Window: t.w.plan.Window})
		}
	}
	return all
}
