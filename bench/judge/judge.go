package judge

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/gopacket/layers"

	"baton/fastpath/wire"
)

// Capture is what an interface saw, in order.
type Capture struct {
	Frames []Frame
	Lost   int // frames that the kernel could not store
}

// Expectation is what the judge has to know about the network and the applications.
type Expectation struct {
	DVIPA   netip.Addr // only connections to this address are judged
	Owner   wire.MAC   // the routing host's; zero: any may open a connection
	Targets []wire.MAC // who may take a connection over; nil: any
	// Streams has, by the client's end, what the applications know of the connections that used it, oldest first.
	Streams map[netip.AddrPort][]Stream
	// Unordered says that segments overtook each other on their way. A client may then answer with an RST what reaches it
	// after both ends have closed; such are counted as Late, not as Resets.
	Unordered bool
	// Direct says that the targets answer the handshake: one of them opens a connection, and keeps it.
	Direct bool
	// Moves says that connections are handed on, and back: whoever had one may have it again.
	Moves bool
	// Allow lists rules that may be broken; they are reported as Allowed.
	Allow []Rule
}

// Stream is what applications know of a connection. A nil digest is not compared.
type Stream struct {
	Sent     *Digest // by the client's application
	Received *Digest // by the client's application
}

// Report is the verdict on a capture.
type Report struct {
	Violations []Violation // none: the capture passes
	Allowed    []Violation // broken rules that the expectation allows
	Conns      []Conn      // established connections, in the order of their first frame
	Resets     int         // RST frames from or to the DVIPA
	Late       int         // RST frames of clients about what came after the end, with Expectation.Unordered
	Strays     int         // segments of clients that belong to no connection
	Flooded    int         // segments in the client's name from another MAC: a switch showed us what was forwarded
	Frames     int         // frames of the capture
}

// Conn is what a capture shows of one established connection.
type Conn struct {
	Inc       wire.Incarnation
	First     int // number of its first frame
	Opened    time.Time
	Handshake time.Duration // SYN to SYN-ACK
	// Transferred says that the service's MAC changed; Switched is then the number of the new owner's first frame.
	Transferred bool
	Switched    int
	Owner       wire.MAC // the last one
	// Owners are all, in the order in which they were heard of: with Expectation.Moves one may be there more than once.
	Owners []wire.MAC
	// Retransmissions counts the client's segments that repeat its own sequence space; Handover counts those of them
	// between the last frame of the routing host and the target's first: no freeze lies outside.
	Retransmissions int
	Handover        int
	Repeated        int           // the service's segments at or below what it had sent before: repeated or late
	RouterAcked     int           // octets of the client's stream that the first owner acknowledged
	Gap             time.Duration // the client's last new octets before the switch to the target's first frame
	Sent, Received  Digest        // by the client
	Closed          bool          // both ends sent FIN
	Asked, Answered wire.Options  // on the SYN, on the SYN-ACK
}

// String prints "client -> service".
func (c Conn) String() string { return c.Inc.String() }

// Pass reports whether no rule was broken.
func (r Report) Pass() bool { return len(r.Violations) == 0 }

// Transferred counts the connections whose owner changed.
func (r Report) Transferred() int {
	return r.count(func(c Conn) int {
		if c.Transferred {
			return 1
		}
		return 0
	})
}

// Retransmissions counts segments from clients that repeat their own sequence space.
func (r Report) Retransmissions() int { return r.count(func(c Conn) int { return c.Retransmissions }) }

// Handover counts the retransmissions between freeze and the target's first segment.
func (r Report) Handover() int { return r.count(func(c Conn) int { return c.Handover }) }

func (r Report) count(of func(Conn) int) (n int) {
	for _, c := range r.Conns {
		n += of(c)
	}
	return n
}

// Summary is the line that ends a demonstration.
func (r Report) Summary() string {
	return fmt.Sprintf("%d connections, %d transferred, %d resets, %d client retransmissions",
		len(r.Conns), r.Transferred(), r.Resets, r.Retransmissions())
}

// Judge judges a whole capture.
func Judge(c Capture, e Expectation) Report {
	j := New(e)
	for _, f := range c.Frames {
		j.Add(f)
	}
	j.Lost(c.Lost)
	return j.Report(e.Streams)
}

// Live judges frames one by one. It is for one goroutine.
type Live struct {
	expect  Expectation
	decode  *decoder
	lines   map[wire.Tuple]*line
	conns   []*conn
	report  Report
	flagged map[string]int // violations per rule and connection
}

// line is a 4-tuple: the connection that uses it and one that may be about to.
type line struct {
	current *conn
	opening *conn // the newest SYN of another incarnation; the client has not confirmed its answer
	count   int   // incarnations so far
}

// New begins a judgement. Expectation.Streams may come later, with Report.
func New(e Expectation) *Live {
	return &Live{expect: e, decode: newDecoder(), lines: map[wire.Tuple]*line{}, flagged: map[string]int{}}
}

// Add takes in the next frame of the capture. It keeps nothing of f.Data but a copy of recent payload.
func (j *Live) Add(f Frame) {
	j.report.Frames++
	layer, err := j.decode.decode(f.Data)
	switch {
	case layer == layers.LayerTypeARP:
		j.arp()
	case !j.concerned():
	case err != nil:
		j.violate(WellFormed, nil, j.report.Frames, "%v", err)
	case layer == layers.LayerTypeTCP:
		j.tcp(f.Time)
	case j.decode.fragment():
		j.violate(WellFormed, nil, j.report.Frames, "%v", errFragment)
	}
}

// Lost tells how many frames the capture lost.
func (j *Live) Lost(n int) {
	if n > 0 {
		j.violate(CaptureLost, nil, 0, "the kernel dropped %d frames of the capture", n)
	}
}

// Report ends the judgement.
func (j *Live) Report(streams map[netip.AddrPort][]Stream) Report {
	for _, c := range j.conns {
		if c.established {
			j.report.Conns = append(j.report.Conns, c.summary())
		}
		j.finish(c, streams)
	}
	j.missing(streams)
	return j.report
}

// concerned reports whether the frame just decoded comes from or goes to the DVIPA.
func (j *Live) concerned() bool {
	src, dst := j.decode.addresses()
	return src == j.expect.DVIPA || dst == j.expect.DVIPA
}

// violate notes a broken rule. Of one rule and connection, the first three are enough.
func (j *Live) violate(r Rule, c *conn, frame int, format string, args ...any) {
	v := Violation{Rule: r, Frame: frame, Detail: fmt.Sprintf(format, args...)}
	if c != nil {
		v.Conn = c.name()
	}
	key := string(r) + v.Conn
	if j.flagged[key]++; j.flagged[key] > 3 {
		return
	}
	if slices.Contains(j.expect.Allow, r) {
		j.report.Allowed = append(j.report.Allowed, v)
		return
	}
	j.report.Violations = append(j.report.Violations, v)
}

// arp checks that nobody but the owner speaks for the DVIPA: the sender fields of any ARP packet are a claim, and fill
// the receiver's cache (RFC 826).
func (j *Live) arp() {
	a := &j.decode.arp
	sender, ok := netip.AddrFromSlice(a.SourceProtAddress)
	if !ok || sender != j.expect.DVIPA || j.expect.Owner == (wire.MAC{}) {
		return
	}
	if !bytes.Equal(a.SourceHwAddress, j.expect.Owner[:]) || wire.MAC(j.decode.eth.SrcMAC) != j.expect.Owner {
		j.violate(ARPOwner, nil, j.report.Frames, "%v is claimed by %x (frame from %v)",
			sender, a.SourceHwAddress, j.decode.eth.SrcMAC)
	}
}

func (j *Live) tcp(at time.Time) {
	s, err := j.decode.segment(j.report.Frames, at)
	if err != nil {
		j.violate(WellFormed, nil, j.report.Frames, "%v", err)
		return
	}
	toServer := s.Dst.Addr() == j.expect.DVIPA
	if s.Segment.Flags.Has(wire.RST) {
		j.report.Resets++
	}
	c := j.conn(s, toServer)
	if s.checksums != nil {
		j.violate(Checksum, c, s.index, "%v", s.checksums)
		return
	}
	switch {
	case c != nil && toServer && s.Link.Src != c.clientMAC:
		j.report.Flooded++
	case c != nil:
		j.segment(c, s, toServer)
	case s.Segment.Flags.Has(wire.RST):
		j.violate(NoRST, nil, s.index, "RST from %v", s.Src)
	case toServer:
		j.report.Strays++
	default:
		j.violate(OneHandshake, nil, s.index, "%v sends to %v without a handshake", s.Src, s.Dst)
	}
}

// conn returns the connection that a segment belongs to, or nil. A SYN of a new incarnation opens another one; the
// tuple's segments belong to it as soon as the client confirms the answer, so a SYN that nobody meant does no harm.
func (j *Live) conn(s *segment, toServer bool) *conn {
	tuple := wire.Tuple{Client: s.Dst, Service: s.Src}
	if toServer {
		tuple = wire.Tuple{Client: s.Src, Service: s.Dst}
	}
	l := j.lines[tuple]
	if l == nil {
		l = &line{}
		j.lines[tuple] = l
	}
	syn := s.Segment.Flags.Has(wire.SYN)
	switch {
	case syn && toServer:
		return j.open(l, tuple, s)
	case l.opening == nil:
		return l.current
	case syn && s.Segment.Ack == l.opening.client.isn.Add(1):
		return l.opening
	case toServer && l.opening.confirmedBy(s.Segment):
		l.current, l.opening = l.opening, nil
		l.current.established = true
	}
	return l.current
}

// open returns the connection of a client's SYN.
func (j *Live) open(l *line, tuple wire.Tuple, s *segment) *conn {
	for _, c := range []*conn{l.current, l.opening} {
		if c != nil && c.client.isn == s.Segment.Seq {
			return c
		}
	}
	l.count++
	l.opening = newConn(tuple, l.count, s)
	j.conns = append(j.conns, l.opening)
	return l.opening
}

// finish checks what shows only when all frames are known.
func (j *Live) finish(c *conn, streams map[netip.AddrPort][]Stream) {
	var known Stream
	if list := streams[c.tuple.Client]; c.number <= len(list) {
		known = list[c.number-1]
	}
	j.finishStream(StreamToServer, c, &c.client, known.Sent)
	j.finishStream(StreamToClient, c, &c.server, known.Received)
}

func (j *Live) finishStream(r Rule, c *conn, h *half, want *Digest) {
	if n := h.stream.hole(); n > 0 {
		j.violate(r, c, 0, "%d octets missing after %d", n, h.stream.octets)
		return
	}
	if want == nil {
		return
	}
	if !h.synSeen {
		j.violate(r, c, 0, "no handshake, the application says %v", *want)
		return
	}
	if got := h.stream.digest(); got != *want {
		j.violate(r, c, 0, "the capture has %v, the application %v", got, *want)
	}
}

// missing finds connections that the applications know and the capture does not have.
func (j *Live) missing(streams map[netip.AddrPort][]Stream) {
	for client, list := range streams {
		seen := 0
		for _, c := range j.conns {
			if c.tuple.Client == client {
				seen++
			}
		}
		if seen < len(list) {
			j.violate(OneHandshake, nil, 0, "the capture has %d connections of %v, the application %d", seen, client, len(list))
		}
	}
}

// newConn begins a connection with the client's SYN.
func newConn(tuple wire.Tuple, number int, s *segment) *conn {
	c := &conn{tuple: tuple, number: number, first: s.index, opened: s.time, clientMAC: s.Link.Src}
	c.client = half{name: "client", rule: StreamToServer}
	c.server = half{name: "service", rule: StreamToClient}
	c.client.synchronise(s.Segment.Seq, s.Segment.Options)
	return c
}

// confirmedBy reports whether a client's segment acknowledges the service's SYN of this incarnation.
func (c *conn) confirmedBy(s wire.Segment) bool {
	return c.server.synSeen && s.Flags.Has(wire.ACK) && s.Ack.Sub(c.server.isn.Add(1)) >= 0 &&
		s.Ack.Sub(c.server.next) <= 0 && s.Seq.Between(c.client.isn.Add(1), c.client.next.Add(windowMax))
}

// windowMax is the largest window that a first segment may be away from the SYN, octets (RFC 7323 §2.3).
const windowMax = 1 << 30
