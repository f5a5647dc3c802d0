// Package app is for applications that take part in the hand-over of connections: routing applications, which talk with
// a client until they know who should serve it, and target applications, which are asked before they get a connection
// and receive application state with it. An application that does not care needs none of this: conventional servers get
// connections from accept() as ever.
//
// Its central type is Socket, the control socket between an application and the Baton daemon of its host, or Exchange where
// that is over UDP. Router and
// Listener are what applications in Go use; other languages speak the protocol below, which needs no more than a Unix
// socket and JSON: see the examples in Python and Go (directory examples) and the library for applications in C (directory
// c).
//
// # The control socket
//
// The daemon listens on a Unix socket of type SOCK_SEQPACKET ("applications.socket" in its configuration). Each message
// is one packet of at most 64 KiB, a JSON object as in Message; "type" says what it means. What does not fit is passed
// beside it: "files" lists, in order, what the file descriptors of the packet (SCM_RIGHTS) are.
//
//	"connection"  the client's octets: a stream socket
//	"listener"    a listening socket, as a name for an address and a port
//	"state"       application state, up to 1 MiB, as a sealed memfd (F_SEAL_WRITE, F_SEAL_SHRINK, F_SEAL_GROW)
//
// A daemon believes what the kernel says about its peer (SO_PEERCRED), compared with "applications.allow" in its
// configuration; nobody else is listened to. The life of the control socket is the registration: when it is closed, by
// the application or with it, the daemon takes everything back.
//
// A request may have a "seq"; its answer repeats it. Whatever cannot be done is answered with "error", which has a
// "code" for programs and a "detail" for people; the control socket stays open.
//
// # Routing applications
//
//	application                          daemon
//	register role=router service   ──>
//	                               <──   registered, dpt
//	                               <──   connection conn client (files: connection)
//	peeks, reads, replies on the connection's socket, for as many rounds as it likes
//	transfer conn job [host state] ──>
//	                               <──   accepted conn host        closes its end
//	                               <──   rejected conn by reason   goes on, chooses again, or sends an error and closes
//
// Octets that were peeked (MSG_PEEK) but not read stay in the connection: the target reads them. Octets that were read
// are the application's; it may put what matters into the state. Between transfer and its answer the application must
// not read; what it writes meanwhile reaches the client after a rejection, and nobody after a success. A connection that it
// closes without a transfer is closed towards the client; if it has not answered what the client said last, the daemon
// first refuses the client as the service's protocol does.
//
// "registered" is said when clients' handshakes are answered. Several applications may register for one service: connections
// are dealt out in turn. While none is registered, the
// service is not content-routed: clients' handshakes are not answered; when the last one leaves, connections in progress
// are refused as the protocol of the service says.
//
// The destination port table (DPT) lists who listens where; "dpt" comes after registration, at each change, and as the
// answer to a "dpt" request.
//
// A connection that a target application has given back comes as another "connection", with "from" and, if it has some,
// "state"; what its client was sent or has been read is not repeated. So does one that a target application gave to a job
// of which nobody took it.
//
// # Target applications
//
//	application                          daemon
//	register role=target job service ──>
//	                               <──   registered
//	                               <──   offer transfer client state from
//	accept transfer                ──>
//	reject transfer reason         ──>
//	                               <──   arrived transfer client   the connection is in the accept queue
//	                               <──   canceled transfer         it will not come
//
// Jobs that ask their applications are listed in the target host's configuration ("application: ask"); such a job is ready
// while an application is registered for it. Several may be: they are asked in turn. An application that ends has rejected
// what it has not answered. A connection that its routing application assigned, without an offer, is told of by
// "arrived", with all that an offer has. A conventional job takes no state: an offer that has some is rejected.
//
//	give job host state (files: connection) ──>     as with takesocket() and givesocket(): it goes on elsewhere
//	                               <──   given host         closes its socket: it is not the application's any more
//	                               <──   rejected by code   goes on: nothing has happened
//	                               <──   ended              closes its socket: nobody knows who has it
//
// "give" hands a connection on that has come, with application state, to a job: on the host that it names, or any other
// than this one; without a job it goes back to the routing application. Who takes it is told "from" whom it comes. What
// was not read yet, and what the client has not acknowledged yet, go with it. Between "give" and its answer the
// application must neither read nor write. A connection may be given on as often as the applications like, but not by more
// than 16 owners in a row none of whom has read or written an octet: that is a loop, and is rejected, as is giving to
// the job and host where it is.
//
// The connection arrives by accept() on the listening socket of the job; its peer address is the offer's client. The
// application binds and listens as ever, but clients' SYNs never reach it: only transfers do. Its listening socket must not be
// one of Multipath TCP, to which no connection can be handed over; the job is not ready then, and says so. In Go net.Listen
// makes such a one; this makes one of TCP:
//
//	var c net.ListenConfig
//	c.SetMultipathTCP(false)
//	l, err := c.Listen(ctx, "tcp", "10.77.0.10:110")
//
// # Messages between applications
//
//	application                          daemon
//	message to tag data seq        ──>
//	                               <──   error seq code detail to   nobody was given it
//	                               <──   message from tag data      of another application
//
// Every application that is registered may write to any other: of its host, of a routing host and its target hosts, and, by
// way of a routing host, of two target hosts. "to" is an object that has "host" (default: this one) and at least one of
// "role", "name", "job" and "id"; the message goes to the application that has been registered for longest of those for whom
// all of it is true. "from" is filled in by the daemons, in the same form and with the id, so an answer to it reaches the
// same application, or nobody; hosts are who their certificates say. Rejections, offers and "given" tell no ids: who
// wants to be answered writes first. Data has at most 32 KiB, the tag and each text of an address 255 octets.
//
// A message comes once or not at all, and those of one application to another in the order in which they were sent. The
// "error" has "to", and the code "unknown host", "unknown application", "queue full" (512 messages wait for the receiver, or
// 1 MiB for its host), "too large", "malformed" or "not allowed". That none comes says nothing, as a host may fail:
// applications that need to know answer each other. Messages wait until nothing of a transfer does, and the
// other half of what may wait for an application is kept for offers.
//
// # Control sockets over UDP
//
// Where the configuration has "applications.udp", a loopback address and port, messages may also be datagrams, of at most
// 65000 octets, from an application's UDP socket. There the kernel does not say who speaks: each datagram of an application
// has the "token" of a user in "applications.allow", from that user's "token_file". One without is dropped and counted
// ("control_udp" in batonctl counters), and never answered. A port below 1024 keeps others from taking the daemon's place
// while it is down, and the token with it.
//
//	application                                                daemon
//	{token session number=1 type=register role job ...}  ──>
//	                                                     <──   {session number=1 type=ack}
//	                                                     <──   {session number=1 type=registered lease=10000 ...}
//	{token session number=1 type=ack}                    ──>
//	{token session type=ping}                            ──>
//	                                                     <──   {session type=pong}
//
// The application chooses "session", 1 to 64 octets that it did not use before; where its datagrams come from is a part of
// the session's name. Each side numbers its messages from 1, in "number", and sends the next when the other has acknowledged
// the one before: "ack" with its number. What is not acknowledged is sent again, after 50 ms at first and then in intervals
// that double, up to 400 ms. The number that is due is taken; one that was taken before is only acknowledged again, so a
// request that is repeated is executed once, and its answer, a message as well, comes until it is acknowledged. Everything
// else is as on the Unix socket: "seq", types and fields.
//
// "registered" tells the lease in milliseconds. Each datagram renews it, "ping" is for when there is nothing to say, and
// is sent once the first message was acknowledged. Who was not heard in that time, or has not acknowledged a message, has
// left: everything is taken back. "leave" says so at once, from either side; it also answers what is for a session that the
// daemon does not know (any more): the application registers anew, in a new session.
//
// No descriptors can be passed. State is in the message, up to 32 KiB: more is rejected, or goes to an application at the
// Unix socket. "give" and registration by a listening socket need the Unix socket as well.
//
// A routing application names in "stream", when it registers, a Unix stream socket at which it listens: "@" and an abstract
// name, which like UDP on loopback belongs to the network namespace, or an absolute path that the daemon sees as well. Before it says "connection", the daemon
// connects there and writes one line, "conn 7" with the connection's number; from then on the stream is what is passed
// otherwise, MSG_PEEK included. The kernel must say that the user of the token listens there (SO_PEERCRED), and the
// application does well to take streams from root only. The library for C knows the Unix socket only.
//
// Units: lengths in octets, addresses as text ("10.77.0.10:80", "[2001:db8::1]:80"), octets in JSON as base64.
package app
