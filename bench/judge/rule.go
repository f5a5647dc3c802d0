package judge

import "fmt"

// Rule is the stable name of one property that a capture must have.
type Rule string

// The rules. Each speaks of one connection to the DVIPA unless it says otherwise.
const (
	// CaptureLost: the kernel dropped frames of the capture, so it proves nothing.
	CaptureLost Rule = "capture-lost"
	// WellFormed: frames from and to the DVIPA can be decoded and are no fragments.
	WellFormed Rule = "well-formed"
	// Checksum: IPv4 header and TCP checksums are right.
	Checksum Rule = "checksum"
	// OneHandshake: every answer to a SYN carries the same ISS, and nothing comes from the service without a handshake.
	OneHandshake Rule = "one-handshake"
	// NoRST: no RST, in either direction.
	NoRST Rule = "no-rst"
	// StreamToServer: what the client sent is gapless, never changes when repeated, and is what the application sent.
	StreamToServer Rule = "stream-to-server"
	// StreamToClient: the same for what the service sent and the application received.
	StreamToClient Rule = "stream-to-client"
	// RightEdgeMonotone: SEG.ACK + (SEG.WND << scale) never decreases (RFC 9293 §3.8.6).
	RightEdgeMonotone Rule = "right-edge-monotone"
	// AckMonotone: SEG.ACK never decreases.
	AckMonotone Rule = "ack-monotone"
	// AckOfSent: nothing is acknowledged that was not sent.
	AckOfSent Rule = "ack-of-sent"
	// TSvalMonotone: TSval never decreases (a peer's PAWS check would drop the segment, RFC 7323 §5).
	TSvalMonotone Rule = "tsval-monotone"
	// TSecrSeen: each TSecr was a TSval of the peer.
	TSecrSeen Rule = "tsecr-seen"
	// WindowRespected: no octet lies beyond the right edge that the peer announced.
	WindowRespected Rule = "window-respected"
	// MSSRespected: payload and options together fit the peer's MSS (RFC 6691).
	MSSRespected Rule = "mss-respected"
	// OptionsNegotiated: only negotiated options are used, and timestamps then on every segment (RFC 7323 §3.2).
	OptionsNegotiated Rule = "options-negotiated"
	// SACKBlocksValid: SACK blocks name octets that were sent, above the ACK except for a D-SACK (RFC 2883).
	SACKBlocksValid Rule = "sack-blocks-valid"
	// OneOwner: the service's MAC is first the routing host's, changes at most once to a target's, and never back
	// (with Expectation.Moves: to others and back).
	OneOwner Rule = "one-owner"
	// ARPOwner: only the routing host's MAC speaks ARP in the name of the DVIPA (whole capture).
	ARPOwner Rule = "arp-owner"
)

// Rules lists all rules in the order in which they are documented.
var Rules = []Rule{
	CaptureLost, WellFormed, Checksum, OneHandshake, NoRST, StreamToServer, StreamToClient, RightEdgeMonotone,
	AckMonotone, AckOfSent, TSvalMonotone, TSecrSeen, WindowRespected, MSSRespected, OptionsNegotiated,
	SACKBlocksValid, OneOwner, ARPOwner,
}

// Violation is one broken rule.
type Violation struct {
	Rule   Rule
	Conn   string // "client -> service #incarnation"; empty where the rule is not about one connection
	Frame  int    // number of the frame, from 1; 0 where it shows only at the end
	Detail string
}

// String prints the violation on one line.
func (v Violation) String() string {
	s := string(v.Rule) + ": "
	if v.Frame > 0 {
		s += fmt.Sprintf("frame %d: ", v.Frame)
	}
	if v.Conn != "" {
		s += v.Conn + ": "
	}
	return s + v.Detail
}
