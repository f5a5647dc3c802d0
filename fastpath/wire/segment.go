package wire

import (
	"net/netip"
	"strings"

	"baton/fastpath/seq"
)

// Flags are the control bits of a TCP header (RFC 9293 §3.1), least significant bit FIN.
type Flags uint8

// The control bits.
const (
	FIN Flags = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
	ECE
	CWR
)

// Has reports whether all bits of mask are set.
func (f Flags) Has(mask Flags) bool { return f&mask == mask }

// String prints the bits as tcpdump does: F S R P . U E W, or "none".
func (f Flags) String() string {
	if f == 0 {
		return "none"
	}
	var b strings.Builder
	for i, letter := range "FSRP.UEW" {
		if f.Has(1 << i) {
			b.WriteRune(letter)
		}
	}
	return b.String()
}

// Segment is a TCP segment without its addresses: what control/tcp takes and makes.
type Segment struct {
	Seq     seq.Value
	Ack     seq.Value // meaningful with ACK
	Flags   Flags
	Window  uint16 // as on the wire, not scaled
	Options Options
	Payload []byte // aliases the packet it was parsed from
}

// Len is SEG.LEN: the octets of sequence space that the segment occupies, SYN and FIN included.
func (s Segment) Len() int {
	n := len(s.Payload)
	if s.Flags.Has(SYN) {
		n++
	}
	if s.Flags.Has(FIN) {
		n++
	}
	return n
}

// Options are the TCP options that Baton understands. Unknown ones are skipped.
type Options struct {
	MSS           uint16 // 0: absent
	Scale         uint8  // as on the wire; meaningful with HasScale
	HasScale      bool
	SACKPermitted bool
	HasTimestamps bool
	TSVal, TSEcr  uint32
	SACK          [4]Block // the first NSACK are set
	NSACK         int
}

// Block is one SACK block: octets from Left up to but not including Right (RFC 2018 §3).
type Block struct{ Left, Right seq.Value }

// Link is the Ethernet header of a frame.
type Link struct {
	Dst, Src MAC
}

// Frame is a parsed Ethernet frame that carries TCP.
type Frame struct {
	Link     Link
	Src, Dst netip.AddrPort
	Segment  Segment
}
