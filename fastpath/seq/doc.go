// Package seq is TCP sequence number arithmetic (RFC 9293 §3.4).
//
// Its central type is Value: a 32-bit number on a circle, so it has no order of its own, only "before" and "after"
// within half the circle (2^31). Lengths and distances are plain ints or uint32s; the type keeps a length from being
// compared with a sequence number by accident. Everything here is pure and inlines.
package seq
