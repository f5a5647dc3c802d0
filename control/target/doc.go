// Package target has the Linux kernel continue connections: it puts a live TCP connection, described by a
// transfer.Record, into the kernel, where an unmodified application gets it from accept().
//
// Its central type is Kernel, the agent's way to the kernel; below it, Importer makes connections and Guard keeps
// strangers out. Both exist once per network namespace that has a listener, and can be used without the Kernel.
//
// # How a connection is made
//
// The Importer owns a TAP in the listener's namespace. On its ingress sits the import program (package bpf). One
// write to the TAP brings one Ethernet frame with one segment that starts at the first octet the application has to
// read and holds all octets (and the FIN, if the client has sent it). The program finds the listener and, with the
// kernel function bpf_sk_assign_tcp_reqsk (kernel commit e472f88891ab), tells the stack what SYN and SYN-ACK had
// agreed on; the stack then treats the segment as it does one that answers a SYN cookie: irs = seq - 1, iss = ack -
// 1. All that happens within write(), because nothing between a TAP and a listener queues: when write() has returned,
// the connection is in the accept queue, or will never be. An exact inet_diag look-up confirms it and says how much
// the socket has received, so what is reported to the routing host was read from the socket.
//
// A socket that already has the tuple (TIME_WAIT, FIN_WAIT, ESTABLISHED ... of an earlier life) hides the listener. The
// program reports its rcv_nxt, and an RST with exactly this sequence number (RFC 5961 section 3.2), written to the same
// TAP, ends it without a packet to anybody.
//
// # Servers that speak first
//
// Lockstep has a server that greets believe that it has talked to the client already: it imports the connection earlier by
// what both sides have said, plays the client's part over the TAP, and takes the server's words from the egress of the
// interface that leads to the client (program lockstep) before anybody hears them. Continue then gives it the client.
//
// # Who keeps strangers out
//
// A service on a target has no connections but those handed over. The guard program on the interfaces of clients'
// packets drops what would make a listener, or the lack of one, answer: SYNs, and segments of no connection. Program,
// maps and links are pinned in a bpffs, so it works on without the agent; the next agent replaces the program in
// place.
//
// # Who has connections go back
//
// Where a job is routed anew for each request, a Mover (program move) takes the FIN of connections that the application
// closes between two requests, and freezes them; the agent hands them back to their routing host, and ends the orphan by
// the same local RST. What a close means it reads from the HTTP/1.1 messages (RFC 9112 sections 6, 7, 9).
//
// # What outlives the agent
//
// Pins in the bpffs, one directory per namespace: guard, services, counters, the links, "flows" (which connections
// were imported, from whom, which incarnation: so that a restarted agent still answers queries and reports their
// ends) and "undo" (what the agent changed at the host, for Cleanup). They live exactly as long as the kernel's
// sockets do. The TAP ends with the agent.
//
// # Assumptions and units
//
// Linux with the kernel function (probed by loading, never by version), BTF, TCX (6.6) and an own clock in
// milliseconds for TSval. Addresses are netip, IPv4 never IPv4-mapped. Needs CAP_NET_ADMIN, CAP_BPF, CAP_SYS_ADMIN
// (namespaces, mount).
//
// Sources: net/core/filter.c, net/ipv4/syncookies.c, net/ipv4/tcp_input.c, net/ipv4/inet_diag.c of Linux 6.18; RFC
// 9293, RFC 7323, RFC 5961.
package target
