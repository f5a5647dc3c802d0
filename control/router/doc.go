// Package router is the control plane of a routing host: it speaks TCP with clients until it is known who should serve
// them, and then hands the live connections over. Its central type is Router, one event loop.
//
// # What comes in, what goes out
//
//	Dataplane   punts: a client's segments, and that a command took effect    frames and commands
//	Cluster     events: hosts come and go, announce jobs, answer offers       offers, commits, queries
//	time        deadlines of endpoints, requests and transfers
//
// Everything is handled on one goroutine, in turns (Turn): a batch of punts, a batch of events, the deadlines that are
// due. There is no lock, and no clock but the one that the turn was given, so tests run it in virtual time. Between
// turns it sleeps in Dataplane.Wait, which ends early for both kinds of input.
//
// # One connection
//
//	First punt -> reading --decision--> handing --switched--> (the target's)
//	                 |  ^                  |
//	                 |  +---next target----+
//	                 |                     | no target left: 503
//	                 +--no request, 404, 408 ...--> closing --both FINs--> (ended)
//
// While reading, a control/tcp endpoint acknowledges what does not decide; while handing, the endpoint is frozen: it
// sends nothing, and what was punted before the freeze still enters the record. A transfer.Giver decides what happens
// with offer and commit; this package gives it a target, and carries out what it says (handover.go). After the switch
// only the forwarder's entry and the target know the connection.
//
// The answer to a client goes to the link address that its latest frame came from, on the same port: the way back is
// the way there, and the router needs no routing table.
//
// # Bounds
//
// Connections (Config.MaxConns), of which 1024 may be coming back at once, recent attempts (1024), tuples asked about (4096), events that wait (4096; their
// senders wait then), rows of a target (4096). Passwords that are checked at once are bounded by who checks them. Commands that find the ring full are kept in order and given again;
// there are at most a few for each connection.
//
// Called by cmd/baton. Units are octets and time.Duration.
package router
