// Package sim runs whole clusters in one thread, with virtual time and one seed: clients, the routing host with the
// forwarder's real C on an in-memory port and the real router, target hosts with the real taker and connections that
// control/tcp imported, and their networks. Its central type is Plan, one schedule; Run runs it.
//
// # What is real
//
//	client          a TCP of its own (client.go), so that no mistake of control/tcp is made twice
//	client's net    frames with their checksums; loss, duplication, reordering, corruption, delay, MTU, partition
//	routing host    fastpath.Forwarder (Poll, SetClock), router.Router (Turn); each may stand still, and so may the host
//	streams         messages in order, repeated, or dying with their stream; they break and are cut off
//	target host     transfer.Taker; its kernel's sockets are tcp.Import-ed, its agent and the host may crash or pause
//	application     reads and writes as its plan says; a socket may move on by Export and Import at any time, and its
//	                application may give it on: the agent's transfer.Giver hands it back to the router
//
// PlanFor makes a plan of a seed. A plan and its seed decide everything that follows, so a failure is replayed by its seed
// alone. Disturbances come by the clock (Act) or at a point of a transfer (Trigger), where they hurt most.
//
// # What is checked
//
// The judge (judge.go) knows everything and looks at every event:
//   - what the router, the target's application and the client read is a prefix of what the other side wrote;
//   - exactly one owner may send: the router until the freeze and after a thaw, a target from its import on, the router
//     again once it has taken a frozen one back; nobody gets a connection that another has or had;
//   - on the wire towards the client ACK, right edge (but for the unit of a scaled window) and TSval never go back; there is
//     nothing that nobody wrote, nothing beyond window (but for a probe's octet), MSS and path, only agreed options,
//     SACK blocks of what was sent, one FIN in its place;
//   - a record continues where the wire is;
//   - after the faults end, every client comes to an end that its plan knows, and one that gives up needs a reason: the
//     host that had its connection crashed, or nobody could be asked;
//   - nothing is left at the end: flows, entries, held frames, connections, transfers, reservations, pins.
//
// # What is assumed
//
// A host that crashes is away for longer than a giver waits. The routing host does not crash: its recovery needs peers
// that it does not have yet. Only entries of a crashed target may stay. An agent does not crash while it hands something
// back: its freeze would end with it.
//
// Called by control/sim/run (make sim) and the tests. Times are time.Duration since the start of a schedule; lengths octets.
package sim
