package judge

import (
	"fmt"
	"slices"
	"time"

	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// conn is one incarnation of a connection as far as the capture has shown it.
type conn struct {
	tuple          wire.Tuple
	number         int // of the incarnation on this tuple, from 1
	clientMAC      wire.MAC
	client, server half
	established    bool
	first          int
	opened         time.Time
	handshake      time.Duration

	owners         []wire.MAC // of the service, in the order in which they appeared
	switched       int
	gap            time.Duration
	newOctets      time.Time // when the client last sent octets for the first time
	retransmitted  int
	repeated       int // by the service
	sinceOwner     int // retransmissions since the service's last frame
	handover       int
	routerAckedEnd seq.Value
}

// half is what one end has sent.
type half struct {
	name    string
	rule    Rule // of its stream
	synSeen bool
	isn     seq.Value
	offered wire.Options // on its SYN
	next    seq.Value    // one after the highest sequence number sent

	ackSeen bool
	ack     seq.Value // highest
	edge    seq.Value // highest right edge announced
	tsSeen  bool
	tsval   uint32 // highest
	tsvals  map[uint32]struct{}
	fin     bool
	finAt   seq.Value
	stream  stream
}

func (h *half) synchronise(isn seq.Value, offered wire.Options) {
	h.synSeen, h.isn, h.offered = true, isn, offered
	h.next = isn.Add(1)
	h.stream = newStream(h.next)
	h.tsvals = map[uint32]struct{}{}
}

// scale is the shift of windows that h announces, once both ends have agreed on scaling.
func (h *half) scale(peer *half) uint8 {
	if !h.offered.HasScale || !peer.offered.HasScale {
		return 0
	}
	return min(h.offered.Scale, 14) // RFC 7323 §2.3
}

func (c *conn) name() string { return fmt.Sprintf("%s #%d", c.tuple, c.number) }

func (c *conn) timestamps() bool {
	return c.client.offered.HasTimestamps && c.server.offered.HasTimestamps
}

func (c *conn) sack() bool { return c.client.offered.SACKPermitted && c.server.offered.SACKPermitted }

func (c *conn) summary() Conn {
	s := Conn{
		Inc:   wire.Incarnation{Tuple: c.tuple, IRS: c.client.isn, ISS: c.server.isn},
		First: c.first, Opened: c.opened, Handshake: c.handshake,
		Transferred: c.switched > 0, Switched: c.switched,
		Retransmissions: c.retransmitted, Repeated: c.repeated, Handover: c.handover, Gap: c.gap,
		Sent: c.client.stream.digest(), Received: c.server.stream.digest(),
		Closed: c.client.fin && c.server.fin,
		Asked:  c.client.offered, Answered: c.server.offered,
	}
	if len(c.owners) > 0 {
		s.Owner, s.Owners = c.owners[len(c.owners)-1], c.owners
		// The ACK of a FIN counts one number that is no octet of the stream.
		s.RouterAcked = min(c.routerAckedEnd.Sub(c.client.isn.Add(1)), int(c.client.stream.octets))
	}
	return s
}

// segment checks one segment of a connection against every rule, then takes it in.
func (j *Live) segment(c *conn, s *segment, toServer bool) {
	from, to := &c.server, &c.client
	if toServer {
		from, to = to, from
	}
	if !toServer {
		j.owner(c, s)
	}
	if s.Segment.Flags.Has(wire.RST) {
		if !j.late(c, s, toServer) {
			j.violate(NoRST, c, s.index, "RST from the %s", from.name)
		}
		return
	}
	if s.Segment.Flags.Has(wire.SYN) && !j.syn(c, s, from) {
		return
	}
	j.options(c, s, from)
	j.timestamps(c, s, from, to)
	if s.Segment.Flags.Has(wire.ACK) {
		j.ack(c, s, from, to)
		j.sackBlocks(c, s, to)
	}
	j.size(c, s, from, to)
	if toServer {
		c.countClient(s)
	} else if s.Segment.Len() > 0 && !s.Segment.Flags.Has(wire.SYN) && s.Segment.Seq.Before(from.next) {
		c.repeated++
	}
	j.payload(c, s, from)
}

// late reports whether an RST is a client's answer to what reached it after both ends had closed.
func (j *Live) late(c *conn, s *segment, toServer bool) bool {
	closed := c.client.fin && c.server.fin && c.client.ack.After(c.server.finAt) && c.server.ack.After(c.client.finAt)
	if !closed || !toServer || !j.expect.Unordered || s.Segment.Seq != c.client.next {
		return false
	}
	j.report.Resets--
	j.report.Late++
	return true
}

// owner checks who speaks for the service.
func (j *Live) owner(c *conn, s *segment) {
	mac := s.Link.Src
	switch n := len(c.owners); {
	case n == 0:
		j.opened(c, s, mac)
		c.owners = append(c.owners, mac)
	case mac == c.owners[n-1]:
	case slices.Contains(c.owners, mac) && !j.expect.Moves:
		j.violate(OneOwner, c, s.index, "former owner %v sends again", mac)
		return
	default:
		j.ownerChanged(c, s, mac)
	}
	if len(c.owners) == 1 && s.Segment.Flags.Has(wire.ACK) {
		c.routerAckedEnd = seq.Max(c.routerAckedEnd, s.Segment.Ack)
		if s.Segment.Flags.Has(wire.SYN) {
			c.routerAckedEnd = s.Segment.Ack
		}
	}
	c.sinceOwner = 0
}

// opened checks who answers the handshake.
func (j *Live) opened(c *conn, s *segment, mac wire.MAC) {
	switch {
	case j.expect.Direct:
		if j.expect.Targets != nil && !slices.Contains(j.expect.Targets, mac) {
			j.violate(OneOwner, c, s.index, "opened by %v, which is no target", mac)
		}
	case j.expect.Owner != (wire.MAC{}) && mac != j.expect.Owner:
		j.violate(OneOwner, c, s.index, "opened by %v, not by the routing host", mac)
	}
}

func (j *Live) ownerChanged(c *conn, s *segment, mac wire.MAC) {
	c.owners = append(c.owners, mac)
	switch {
	case j.expect.Direct:
		j.violate(OneOwner, c, s.index, "taken over by %v, although nothing is handed over", mac)
	case len(c.owners) > 2 && !j.expect.Moves:
		j.violate(OneOwner, c, s.index, "third owner %v", mac)
	case j.expect.Moves && mac == j.expect.Owner: // it came back
	case j.expect.Targets != nil && !slices.Contains(j.expect.Targets, mac):
		j.violate(OneOwner, c, s.index, "taken over by %v, which is no target", mac)
	}
	if c.switched == 0 {
		c.switched, c.handover = s.index, c.sinceOwner
		if !c.newOctets.IsZero() {
			c.gap = s.time.Sub(c.newOctets)
		}
	}
}

// syn takes in a SYN of either end; false: the segment is not to be judged further.
func (j *Live) syn(c *conn, s *segment, from *half) bool {
	if from == &c.client {
		if s.index != c.first {
			c.retransmitted++ // found by its ISN, so it repeats the first one
			c.sinceOwner++
			j.timestamps(c, s, from, &c.server)
			return false
		}
		return true
	}
	if !s.Segment.Flags.Has(wire.ACK) {
		j.violate(OneHandshake, c, s.index, "the service sends a SYN without ACK")
		return false
	}
	if !from.synSeen {
		from.synchronise(s.Segment.Seq, s.Segment.Options)
		c.handshake = s.time.Sub(c.opened)
		return true
	}
	if from.isn != s.Segment.Seq {
		j.violate(OneHandshake, c, s.index, "second SYN-ACK with ISS %d, the first had %d", s.Segment.Seq, from.isn)
		return false
	}
	return true
}

// options checks that nothing is used that the handshake does not allow.
func (j *Live) options(c *conn, s *segment, from *half) {
	o := s.Segment.Options
	syn := s.Segment.Flags.Has(wire.SYN)
	if syn {
		if from == &c.server {
			j.offer(c, s)
		}
		return
	}
	switch {
	case o.MSS != 0 || o.HasScale || o.SACKPermitted:
		j.violate(OptionsNegotiated, c, s.index, "the %s sends an option that belongs on a SYN", from.name)
	case o.NSACK > 0 && !c.sack():
		j.violate(OptionsNegotiated, c, s.index, "the %s sends SACK blocks, not negotiated", from.name)
	case o.HasTimestamps && !c.timestamps():
		j.violate(OptionsNegotiated, c, s.index, "the %s sends timestamps, not negotiated", from.name)
	case !o.HasTimestamps && c.timestamps():
		j.violate(OptionsNegotiated, c, s.index, "the %s leaves out the negotiated timestamps", from.name)
	}
}

// offer checks a SYN-ACK against the SYN.
func (j *Live) offer(c *conn, s *segment) {
	o, asked := s.Segment.Options, c.client.offered
	for _, bad := range []struct {
		is   bool
		name string
	}{
		{o.HasScale && !asked.HasScale, "window scale"},
		{o.SACKPermitted && !asked.SACKPermitted, "SACK-permitted"},
		{o.HasTimestamps && !asked.HasTimestamps, "timestamps"},
	} {
		if bad.is {
			j.violate(OptionsNegotiated, c, s.index, "SYN-ACK offers %s, the SYN did not", bad.name)
		}
	}
}

func (j *Live) timestamps(c *conn, s *segment, from, to *half) {
	o := s.Segment.Options
	if !o.HasTimestamps {
		return
	}
	if from.tsSeen && int32(o.TSVal-from.tsval) < 0 {
		j.violate(TSvalMonotone, c, s.index, "TSval of the %s goes from %d back to %d", from.name, from.tsval, o.TSVal)
	} else {
		from.tsval, from.tsSeen = o.TSVal, true
	}
	from.tsvals[o.TSVal] = struct{}{}
	if _, seen := to.tsvals[o.TSEcr]; s.Segment.Flags.Has(wire.ACK) && c.timestamps() && !seen {
		j.violate(TSecrSeen, c, s.index, "the %s echoes TSval %d, which it was never sent", from.name, o.TSEcr)
	}
}

// ack checks acknowledgement number and window.
func (j *Live) ack(c *conn, s *segment, from, to *half) {
	ack := s.Segment.Ack
	if !to.synSeen || ack.After(to.next) {
		j.violate(AckOfSent, c, s.index, "the %s acknowledges %d, the %s has sent up to %d",
			from.name, ack, to.name, to.next)
		return
	}
	shift := from.scale(to)
	if s.Segment.Flags.Has(wire.SYN) {
		shift = 0 // RFC 7323 §2.2
	}
	edge := ack.Add(int(s.Segment.Window) << shift)
	if !from.ackSeen {
		from.ackSeen, from.ack, from.edge = true, ack, edge
		return
	}
	if ack.Before(from.ack) {
		j.violate(AckMonotone, c, s.index, "ACK of the %s goes back by %d", from.name, from.ack.Sub(ack))
		return // the edge follows from it
	}
	// After the peer's FIN nothing more can come, so the window says nothing (and TIME-WAIT rounds it).
	if ended := to.fin && ack.After(to.finAt); edge.Before(from.edge) && !ended {
		j.violate(RightEdgeMonotone, c, s.index, "right edge of the %s goes back by %d", from.name, from.edge.Sub(edge))
	}
	from.ack, from.edge = ack, seq.Max(from.edge, edge)
}

// sackBlocks checks the blocks that an end sends about the octets of to.
func (j *Live) sackBlocks(c *conn, s *segment, to *half) {
	o := s.Segment.Options
	if !c.sack() {
		return
	}
	for i, b := range o.SACK[:o.NSACK] {
		switch {
		case !b.Left.Before(b.Right):
			j.violate(SACKBlocksValid, c, s.index, "block %d is empty: %d-%d", i, b.Left, b.Right)
		case b.Right.After(to.next) || b.Left.Before(to.isn.Add(1)):
			j.violate(SACKBlocksValid, c, s.index, "block %d-%d was not sent by the %s", b.Left, b.Right, to.name)
		case b.Left.After(s.Segment.Ack):
		case i == 0 && !b.Right.After(s.Segment.Ack): // D-SACK (RFC 2883 §4)
		default:
			j.violate(SACKBlocksValid, c, s.index, "block %d-%d is not above the ACK %d", b.Left, b.Right, s.Segment.Ack)
		}
	}
}

// mssDefault is assumed where a SYN has no MSS option (RFC 9293 §3.7.1).
func mssDefault(c *conn) int {
	if c.tuple.Service.Addr().Is4() {
		return 536
	}
	return 1220
}

// size checks payload against the peer's MSS and window.
func (j *Live) size(c *conn, s *segment, from, to *half) {
	n := len(s.Segment.Payload)
	if n == 0 || s.Segment.Flags.Has(wire.SYN) {
		return
	}
	mss := int(to.offered.MSS)
	if mss == 0 {
		mss = mssDefault(c)
	}
	if n+s.optionLen > mss {
		j.violate(MSSRespected, c, s.index, "the %s sends %d octets and %d of options, the MSS is %d",
			from.name, n, s.optionLen, mss)
	}
	if end := s.Segment.Seq.Add(n); !to.ackSeen || end.After(to.edge) {
		j.violate(WindowRespected, c, s.index, "the %s sends up to %d, the window ends at %d", from.name, end, to.edge)
	}
}

// countClient counts repeated segments of the client and remembers when it sent something new.
func (c *conn) countClient(s *segment) {
	switch {
	case s.Segment.Len() == 0 || s.Segment.Flags.Has(wire.SYN):
	case s.Segment.Seq.Before(c.client.next):
		c.retransmitted++
		c.sinceOwner++
	case len(s.Segment.Payload) > 0:
		c.newOctets = s.time
	}
}

// payload takes the segment's sequence space in.
func (j *Live) payload(c *conn, s *segment, from *half) {
	at := s.Segment.Seq
	if s.Segment.Flags.Has(wire.SYN) {
		at = at.Add(1)
	}
	if !from.synSeen {
		return
	}
	end := at.Add(len(s.Segment.Payload))
	if from.fin && len(s.Segment.Payload) > 0 && end.After(from.finAt) {
		j.violate(from.rule, c, s.index, "the %s sends octets after its FIN", from.name)
		return
	}
	if err := from.stream.add(at, s.Segment.Payload); err != nil {
		j.violate(from.rule, c, s.index, "%d octets at %d: %v", len(s.Segment.Payload), at, err)
	}
	if s.Segment.Flags.Has(wire.FIN) {
		from.fin, from.finAt = true, end
		end = end.Add(1)
	}
	from.next = seq.Max(from.next, end)
}
