package sim

import (
	"baton/control/transfer"
	"baton/fastpath/wire"
)

// bug is a mistake that the simulation makes itself when a test asks for it, to prove that the judge would notice.
type bug string

// The bugs.
const (
	noBug         bug = ""
	ackBack       bug = "an ACK goes back"
	edgeBack      bug = "a right edge goes back"
	clockBack     bug = "a TSval goes back"
	wrongOctet    bug = "an octet is changed, checksum and all"
	beyondWindow  bug = "data is sent beyond the client's window"
	unaskedOption bug = "a segment has an option of a SYN"
	lieInSACK     bug = "a SACK block names octets that were never sent"
	secondFIN     bug = "a FIN comes too early"
	doubleImport  bug = "a target imports what another target was given"
	sendsFrozen   bug = "the router's last segment is repeated after the freeze"
	wrongSwitch   bug = "a flow is switched to another target"
	deafTarget    bug = "a target loses all segments of one port"
	flowLeak      bug = "a flow is never closed"
	pinLeak       bug = "a pin is never removed"
	endLeak       bug = "the end of a connection is not reported"
	lateOctet     bug = "the application reads one octet twice"
	giverGoesOn   bug = "a target goes on with what it has handed back"
	backLost      bug = "an octet is lost on the way back"
)

// has reports whether the schedule is to have the bug.
func (w *world) has(b bug) bool { return w.plan.bug == b }

// spoil changes a segment towards a client, now and then.
func (w *world) spoil(frame []byte) []byte {
	if w.plan.bug == noBug || !w.chance(0.05) {
		return frame
	}
	f, err := wire.ParseTCP(frame)
	if err != nil || f.Segment.Flags.Has(wire.SYN) || f.Segment.Flags.Has(wire.RST) {
		return frame
	}
	s := &f.Segment
	switch w.plan.bug {
	case ackBack:
		s.Ack = s.Ack.Add(-1)
	case edgeBack:
		s.Window /= 2
	case clockBack:
		s.Options.TSVal -= 100_000
	case wrongOctet:
		if len(s.Payload) > 0 {
			s.Payload[0] ^= 1
		}
	case unaskedOption:
		s.Options.HasScale = true
	case lieInSACK:
		s.Options.NSACK, s.Options.SACK[0] = 1, wire.Block{Left: s.Ack.Add(1 << 20), Right: s.Ack.Add(1<<20 + 10)}
	case secondFIN:
		s.Flags |= wire.FIN
	case beyondWindow:
		for _, l := range w.judge.order {
			if at := l.clientEdge.Sub(l.inc.ISS) - 3; l.inc.Client == f.Dst && at > 0 && at+10 < len(l.expected) {
				s.Seq, s.Payload, l.sent = l.clientEdge.Add(-2), l.expected[at:at+10], l.clientEdge
			}
		}
	default:
		return frame
	}
	return wire.AppendTCP(nil, f.Link, f.Src, f.Dst, *s)
}

// shorten takes an octet from what a giver has left unsent, or unread.
func (w *world) shorten(r *transfer.Record) {
	switch {
	case !w.has(backLost):
	case len(r.SendData) > r.SndNxt.Sub(r.SndUna): // else it would contradict itself
		r.SendData = r.SendData[:len(r.SendData)-1]
	case len(r.Data) > 0:
		r.Data, r.ReadFrom = r.Data[1:], r.ReadFrom.Add(1)
	}
}

// importElsewhere lets the next target have the same record, without asking anybody.
func (t *target) importElsewhere(s *socket, rec *transfer.Record) {
	if other := t.w.targets[(t.index+1)%len(t.w.targets)]; t.w.has(doubleImport) && other != t {
		s.life.imported(other, rec)
	}
}
