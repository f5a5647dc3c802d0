// Package tcp is the server side of TCP (RFC 9293) without I/O: segments, calls and the time go in, segments come out.
// Its central type is Conn, one connection from the client's side of which the handshake is already done (the forwarder
// answers SYNs with a cookie and knows what was agreed).
//
// # Who calls it
//
// The router owns each Conn and calls it from one goroutine: Segment for what arrives, Tick when Deadline has passed, and
// the application's calls. Every call that takes the time returns Actions, to be carried out at once, because they alias
// the Conn's memory. A Conn never looks at a clock; times must not go back between calls.
//
// # What is decided where
//
// An arriving segment passes the steps of RFC 9293 §3.10.7.4 in their order (arrive.go): timestamps (RFC 7323), sequence
// number, RST, SYN, ACK, text, FIN. Only the becomeX functions (state.go) change the state.
//
// In-order data and FIN are never acknowledged by Segment itself: the acknowledgment is owed until the router has read
// the data and either lets it go (AckNow; after 40 ms it goes anyway) or freezes the connection, because bytes that the
// client still holds need no care during a transfer. All that data could not decide anything with is answered at
// once: duplicates, gaps, challenge ACKs.
//
// # The window
//
//	read            nxt                       edge  <=  limit
//	 |--- received ---|--- may come, with gaps ---|        |
//	 |<------------------------ W ------------------------>|
//
// The right edge never passes limit = read + W, where read is the first octet that the next owner would have to read: the
// next owner must be able to announce the same edge. Edge is the highest one announced, and whatever fits below it
// is accepted. It never goes back either, as long as a scaled window can say so: see announce. Where it cannot, the edge
// on the wire lies up to 2^scale - 1 octets before edge, which RFC 7323 §2.4 and appendix F ask senders to live with.
//
// # Transfers
//
// Freeze stops all sending, Export gives the state away, Thaw continues as if nothing had happened, Import makes a Conn
// from a record. From Freeze on, sending is a broken invariant and panics.
//
// # What it does not do yet
//
// No SYN-RECEIVED (the forwarder has that), no SACK-based loss recovery for what we send (NewReno instead; received SACK
// blocks are ignored), no ECN (declined in the SYN-ACK), no ICMP input, no keepalive of its own.
//
// Units: octets, except the window field of a segment, which is scaled. Sources are cited at each function.
package tcp
