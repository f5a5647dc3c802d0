// Package tcp is the server side of TCP (RFC 9293) without I/O: segments, calls and the time go in, segments come out.
// Its central type is Conn, one connection. Accept makes one whose handshake is done already (the forwarder answers SYNs
// with a cookie and knows what was agreed), Listener one in SYN-RECEIVED from a SYN, for services whose server speaks
// first, and Import one that another owner had before.
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
// once: duplicates, gaps, challenge ACKs. An owner that reads everything in the end asks for AutoACK instead.
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
// Freeze stops all sending, and time; Export gives the state away, Thaw continues as if nothing had happened, Import makes
// a Conn from a record that goes on exactly where the old one stopped, in every state from ESTABLISHED to TIME-WAIT, with
// whatever is under way. ExportPlain is for kernels, which cannot. From Freeze on, sending is a broken invariant and
// panics.
//
// # What it leaves out
//
// ECN (RFC 3168) and TCP Fast Open (RFC 7413) are declined in the SYN-ACK. The urgent pointer is advice: urgent data is read
// in line (RFC 9293 §3.8.5). A path MTU that ICMP lowered is not raised again (RFC 1191 §6.3 allows to try), and nothing is
// probed (RFC 4821). Round trips are measured once per acknowledgment, and the RTO is never below the 1 s of RFC 6298.
//
// Units: octets, except the window field of a segment, which is scaled. Sources are cited at each function.
package tcp
