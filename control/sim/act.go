package sim

import (
	"fmt"
	"time"

	"baton/control/transfer"
	"baton/fastpath/wire"
)

// act does a disturbance.
func (w *world) act(a Act) {
	if w.healed {
		return
	}
	c, t := w.clients[a.Client], w.targets[a.Target]
	w.logf("act", "%s (%s, %s, %v)", actNames[a.Kind], c.name, t.name, a.For.Round(time.Microsecond))
	switch a.Kind {
	case BreakStream:
		t.stream.fail(streamNotices)
	case CutStream:
		t.stream.cut(a.For)
	case CutClient:
		w.cut(a.For, c.up, c.down)
	case CutTarget:
		w.cut(a.For, t.lan, w.host.lan[t.index])
	case ShrinkPath:
		c.down.room, c.up.room = 700, 700
		w.in(a.For, func() { c.down.room, c.up.room = 0, 0 })
	case PauseHost:
		w.tally.fault(HostPaused)
		w.host.stopped = w.now.Add(a.For)
	case StallRouter:
		w.tally.fault(RouterStalled)
		w.host.stalled = w.now.Add(a.For)
	case StallForwarder:
		w.tally.fault(ForwarderStalled)
		w.host.halted = w.now.Add(a.For)
	case PauseTarget:
		t.pause(a.For)
	case CrashAgent:
		t.crashAgent(a.For)
	case CrashTarget:
		t.crash()
	case ResetClient:
		c.reset()
	case FinishClient:
		c.finish()
	case SynClient:
		c.blindSYN()
	case ProbeClient:
		c.probe()
	case RestartClient:
		c.restart()
	case ForgeReset, ForgeOld, ForgeACK:
		c.forge(a.Kind)
	case actKinds:
	}
}

// cut takes links away for a time.
func (w *world) cut(d time.Duration, links ...*link) {
	for _, l := range links {
		l.cut = true
	}
	w.in(min(d, start.Add(w.plan.Heal).Sub(w.now)), func() {
		for _, l := range links {
			l.cut = false
		}
	})
}

// reach fires the triggers of a point that a transfer has come to.
func (w *world) reach(p Point, c *client, t *target) {
	if c == nil || w.healed {
		return
	}
	nth := w.passed[p]
	w.passed[p]++
	for _, g := range w.plan.Triggers {
		if g.Point != p || g.Nth != nth {
			continue
		}
		a := g.Act
		if a.Client == Subject {
			a.Client = c.index
		}
		if a.Target == Subject {
			a.Target = 0
			if t != nil {
				a.Target = t.index
			}
		}
		if g.After == 0 {
			w.act(a)
			continue
		}
		w.in(g.After, func() { w.act(a) })
	}
}

// show prints a segment with numbers relative to the connection's.
func (c *client) show(s *wire.Segment, ours bool) string {
	mine, theirs := c.isn, c.iss
	if !ours {
		mine, theirs = c.iss, c.isn
	}
	text := fmt.Sprintf("[%s] seq %d", s.Flags, s.Seq.Sub(mine))
	if s.Flags.Has(wire.SYN) && (ours || c.state != open) {
		text = fmt.Sprintf("[%s]", s.Flags)
	}
	if n := len(s.Payload); n > 0 {
		text += fmt.Sprintf("+%d", n)
	}
	if s.Flags.Has(wire.ACK) {
		text += fmt.Sprintf(" ack %d", s.Ack.Sub(theirs))
	}
	text += fmt.Sprintf(" win %d", s.Window)
	for _, b := range s.Options.SACK[:s.Options.NSACK] {
		text += fmt.Sprintf(" sack %d-%d", b.Left.Sub(theirs), b.Right.Sub(theirs))
	}
	return text
}

// describe prints a message between hosts.
func describe(m transfer.Message) string {
	switch m := m.(type) {
	case transfer.Offer:
		return fmt.Sprintf("offer of %d octets for %s", m.Bytes, m.Job)
	case transfer.OfferReply:
		if m.Accepted {
			return "accepted"
		}
		return "rejected: " + m.Reason.String()
	case transfer.Assign:
		return fmt.Sprintf("assigns %d octets for %s", m.Offer.Bytes, m.Offer.Job)
	case transfer.Release:
		return "release"
	case transfer.Commit:
		return "commit"
	case transfer.Confirm:
		if m.Imported {
			return "confirmed"
		}
		return "not imported: " + m.Reason.String() + " " + m.Detail
	case transfer.Query:
		return "query"
	case transfer.QueryReply:
		return "query answered: " + m.State.String()
	case transfer.EndReport:
		return "end report"
	}
	return fmt.Sprintf("%T", m)
}
