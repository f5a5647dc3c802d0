// Package appsock is the daemons' end of control sockets: applications register there, and take part in the hand-over of
// connections. The protocol is that of package app, which explains it.
//
// Its central type is Server: it takes control sockets, looks whether their owners may speak, and brings their messages
// to a Handler, as those of a Peer. Routing is the Handler of a routing host, and the router's Applications.
//
// An application's messages come and go by a link: a Unix socket, or an exchange of datagrams. Nobody but Server knows which,
// except that no descriptors and no large state go by UDP.
//
// One goroutine per control socket reads, another writes, so an application that does not read keeps nobody waiting: when
// too much is waiting for it, its control socket is closed, and with it all that it had registered.
package appsock
