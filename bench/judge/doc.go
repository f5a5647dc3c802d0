// Package judge decides from a capture whether connections to a DVIPA were served as TCP and Baton promise. The capture
// is taken on the client's interface, so it shows what a client can see, whatever the hosts behind it think they did.
//
// Its central type is Report, which Judge makes from a Capture and an Expectation. A Report names each broken Rule with
// the connection and the frame (counted from 1, as Wireshark does), and counts what a hand-over costs: transferred
// connections, resets, client retransmissions, octets that the router acknowledged.
//
// A capture is judged frame by frame in the order of the capture; nothing but sequence numbers, a running SHA-256 per
// direction and the last octets of each stream (to compare retransmissions) is kept, so a capture of a long download
// costs no memory beyond the capture itself. Live does the same while capturing.
//
// The package is pure: no clock, no I/O except WritePcapng to a given io.Writer. Frames are decoded by gopacket and not
// by Baton's own parser, so a mistake in the latter cannot hide itself. Sequence numbers are absolute, lengths are
// octets. Offloads of the captured interface must be off: a segment larger than the MSS is a broken rule.
//
// Sources: RFC 9293 (TCP), RFC 7323 (window scale, timestamps), RFC 2018 and 2883 (SACK, D-SACK), RFC 6691 (MSS and
// options), RFC 826 (ARP).
package judge
