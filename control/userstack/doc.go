// Package userstack continues connections in userspace: it takes the records that routing hosts hand over, runs
// control/tcp for them on a poll-mode port of its own, and gives them to applications.
//
// Its central type is Stack. It is the agent's Importer (package agent) as package target is for the kernel, needs
// nothing of the kernel but the port, and therefore serves where the kernel has no way to take a connection, and clients
// that no kernel takes (a small MSS, data under way).
//
// # Who gets the connections
//
// A Go program in the same process calls Listen for a job and gets a net.Listener, whose connections are net.Conn with
// the client's address as RemoteAddr and the DVIPA as LocalAddr. A program of its own, unmodified, listens on a local
// stream socket; a Relay connects to it and copies both ways. That is the compatibility path of this kind of target: the
// relay is on the target host, beside the application, and nothing of it is on the routing host. The client's address
// reaches such a program by the PROXY protocol, version 2.
//
// # One loop
//
//	          net.Conn: Read, Write, Close                    commands, frames
//	applications <-----------------> Stack's loop <--------------------------------> forwarder's poll loop
//	          buffers of 64 KiB                               punted segments
//
// One goroutine (Run, or Turn in tests) owns all tcp.Conns, the neighbours and the Dataplane; it has the shape of
// control/router's. An application and the loop share two buffers per connection and a lock that is held to move octets,
// never to wait. Whatever an application does marks its connection, and the loop looks at the marked ones once a turn.
//
// Back-pressure goes all the way: an application that does not read fills its buffer, then the endpoint's, and the window
// closes; a client that does not read fills the endpoint's send buffer, then the application's, and Write waits; so does
// it while the forwarder takes no frames.
//
// # Where frames go
//
// The answers go to the client directly, not by way of the routing host: to its own link address if it is on the network
// of a port, else to the gateway's. The forwarder answers for the port's own address, and not for the DVIPA's: whoever
// asks for that finds the routing host.
//
// # What ends with the process
//
// Connections do: nothing of them outlives Run, which resets them so that their clients know. A hand-over of connections
// to another owner (tcp.Conn.Export) has its place in the loop, between exchange and the forwarder's Freeze and Switch.
//
// Units: octets. Sources: RFC 9293, RFC 826, RFC 4861; the PROXY protocol's specification (haproxy.org, proxy-protocol.txt,
// section 2.2).
package userstack
