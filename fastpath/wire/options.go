package wire

import (
	"encoding/binary"

	"baton/fastpath/seq"
)

// TCP options (RFC 9293 §3.2): kind, length of the whole option, value.
//
//	+--------+--------+
//	| kind 2 | len  4 |  MSS 2                           RFC 9293 §3.7.1
//	| kind 3 | len  3 |  shift 1                         RFC 7323 §2.2
//	| kind 4 | len  2 |                                  RFC 2018 §2, SACK permitted
//	| kind 5 | len 8n+2 |  n times: left edge 4, right 4 RFC 2018 §3, SACK
//	| kind 8 | len 10 |  TSval 4, TSecr 4                RFC 7323 §3.2
//	+--------+--------+
//
// Kinds 0 (end of list) and 1 (no operation) are single octets.
const (
	optEnd           = 0
	optNOP           = 1
	optMSS           = 2
	optScale         = 3
	optSACKPermitted = 4
	optSACK          = 5
	optTimestamps    = 8

	lenMSS           = 4
	lenScale         = 3
	lenSACKPermitted = 2
	lenTimestamps    = 10
	lenSACKBlock     = 8

	// MaxOptionsLen is the room for options in a TCP header, octets.
	MaxOptionsLen = 40
)

// parseOptions reads the options of a header. Unknown kinds are skipped, and known ones with a wrong length too; a length
// that cannot be ends the list, because nothing after it can be found (RFC 9293 §3.1, MUST-7).
func parseOptions(b []byte) Options {
	var o Options
	for len(b) > 0 && b[0] != optEnd {
		if b[0] == optNOP {
			b = b[1:]
			continue
		}
		if len(b) < 2 || int(b[1]) < 2 || int(b[1]) > len(b) {
			break
		}
		o.set(b[0], b[2:b[1]])
		b = b[b[1]:]
	}
	return o
}

// set takes one option. Of repeated ones the last counts.
func (o *Options) set(kind uint8, value []byte) {
	switch {
	case kind == optMSS && len(value) == lenMSS-2:
		o.MSS = binary.BigEndian.Uint16(value)
	case kind == optScale && len(value) == lenScale-2:
		o.Scale, o.HasScale = value[0], true
	case kind == optSACKPermitted && len(value) == lenSACKPermitted-2:
		o.SACKPermitted = true
	case kind == optTimestamps && len(value) == lenTimestamps-2:
		o.HasTimestamps = true
		o.TSVal = binary.BigEndian.Uint32(value)
		o.TSEcr = binary.BigEndian.Uint32(value[4:])
	case kind == optSACK && len(value) > 0 && len(value)%lenSACKBlock == 0:
		o.setSACK(value)
	}
}

// setSACK takes the SACK blocks; the header's length limits them to 4.
func (o *Options) setSACK(value []byte) {
	o.NSACK = len(value) / lenSACKBlock
	for i := range o.NSACK {
		block := value[i*lenSACKBlock:]
		o.SACK[i] = Block{
			Left:  seq.Value(binary.BigEndian.Uint32(block)),
			Right: seq.Value(binary.BigEndian.Uint32(block[4:])),
		}
	}
}

// fixedLen is the length of all options but SACK. Each group is padded to 4 octets, as append writes them.
func (o *Options) fixedLen() int {
	n := 0
	if o.MSS != 0 {
		n += 4
	}
	if o.HasTimestamps {
		n += 12
	} else if o.SACKPermitted {
		n += 4
	}
	if o.HasScale {
		n += 4
	}
	return n
}

// blocks returns how many SACK blocks fit beside the other options.
func (o *Options) blocks() int {
	room := MaxOptionsLen - o.fixedLen() - 4
	return max(0, min(o.NSACK, len(o.SACK), room/lenSACKBlock))
}

// Len returns how many octets the options take in a header that AppendTCP writes; a multiple of 4.
func (o *Options) Len() int {
	n := o.fixedLen()
	if k := o.blocks(); k > 0 {
		n += 4 + k*lenSACKBlock
	}
	return n
}

// append writes the options in the order, and with the padding, of a Linux SYN-ACK: MSS, SACK permitted, timestamps,
// window scale. Keeping that order keeps Baton's SYN-ACK like that of the servers behind it.
func (o *Options) append(b []byte) []byte {
	if o.MSS != 0 {
		b = append(b, optMSS, lenMSS, byte(o.MSS>>8), byte(o.MSS))
	}
	switch {
	case o.SACKPermitted:
		b = append(b, optSACKPermitted, lenSACKPermitted) // fills the two octets before the timestamps
		if !o.HasTimestamps {
			b = append(b, optNOP, optNOP)
		}
	case o.HasTimestamps:
		b = append(b, optNOP, optNOP)
	}
	if o.HasTimestamps {
		b = append(b, optTimestamps, lenTimestamps)
		b = binary.BigEndian.AppendUint32(b, o.TSVal)
		b = binary.BigEndian.AppendUint32(b, o.TSEcr)
	}
	if o.HasScale {
		b = append(b, optNOP, optScale, lenScale, o.Scale)
	}
	return o.appendSACK(b)
}

// appendSACK writes the SACK blocks that fit.
func (o *Options) appendSACK(b []byte) []byte {
	k := o.blocks()
	if k == 0 {
		return b
	}
	b = append(b, optNOP, optNOP, optSACK, byte(2+k*lenSACKBlock))
	for _, block := range o.SACK[:k] {
		b = binary.BigEndian.AppendUint32(b, uint32(block.Left))
		b = binary.BigEndian.AppendUint32(b, uint32(block.Right))
	}
	return b
}
