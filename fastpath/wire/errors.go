package wire

import "errors"

// Why a frame was not parsed. Parsers return exactly these, unwrapped: a bad packet is ordinary and must stay cheap.
var (
	ErrTruncated = errors.New("frame is shorter than its headers say")
	ErrMalformed = errors.New("header field has an impossible value")
	ErrChecksum  = errors.New("checksum is wrong")
	ErrFragment  = errors.New("packet is a fragment")
	ErrNotTCP    = errors.New("frame does not carry TCP")
	ErrNotICMP   = errors.New("frame does not carry an ICMP error")
	ErrNotARP    = errors.New("frame does not carry ARP for IPv4")
	ErrNotNDP    = errors.New("frame does not carry a neighbour solicitation or advertisement")
)
