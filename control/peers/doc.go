// Package peers has no code of its own: its tests let the TCP core (control/tcp) serve clients that others wrote, gVisor's
// netstack and the Linux kernel, over links that lose, repeat, reorder and damage. The streams of both directions are
// compared by their hashes. The connection is given to a new owner every few events, so both also judge transfers.
//
// Its central type is job, one conversation. The server's side (server) runs in one goroutine, in real time, and knows the
// client's frames only. The links (bench/faults) are seeded; what real time leaves open is when things happen.
//
// The module is one of its own because of gVisor. The kernel's tests need root, a TAP and a network namespace of their own,
// which is anonymous and ends with the test; without root they are skipped.
package peers
