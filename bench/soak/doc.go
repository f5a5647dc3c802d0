// Command soak has many connections be offered to applications that reject at random, and checks that nobody is the
// worse for it: each client gets every octet of who took its connection, or of the error if nobody did, and no reset.
//
// Usage: soak [-n CONNECTIONS] [-seed N]. Make builds it (make soak-reject). It needs root and leaves nothing behind.
//
// Its central type is soak: a laboratory in which the clients of eight addresses come to a service whose two targets are
// asked, in one order on one port and in the other on the other. What a target does with an offer follows from the seed,
// the client's address and port, and the target's name (type fate). So clients know what has to happen to them, without
// having been told, and a run can be repeated.
//
// That no segment with RST reached or left the clients is counted by a filter on their interface, which first has to see
// one that is provoked. When all is over, no daemon may have kept anything: entries of the table, connections of targets
// and their pins, offers, buffers, or memory that grows with the connections.
package main
