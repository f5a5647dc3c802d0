// Package exception is the way between a data port and the host's kernel: a TAP device with the port's MAC address, by
// which the kernel gets the frames that are not for Baton, and from which its own frames leave by the port. Its central
// type is Path.
//
// The kernel then has the data network as on an interface of its own: addresses, routes and firewalls are the
// operator's business. It is a slow path: each frame is copied twice and wakes a goroutine. What the kernel does not
// take in time is lost and counted, and its own frames go one at a time, so that neither side can keep the router from
// its work.
//
// Called by cmd/baton. Give is for one goroutine, Run for another.
package exception
