// Package fastpath is the forwarder as Go sees it: it opens ports, starts the poll loop, carries commands to it and
// punts from it, and reads its counters and its connection routing table (CRT). Its central type is Forwarder, which
// implements the control plane's Dataplane interface.
//
// Packets that the forwarder can decide on never come here: the loop runs in C on a thread of its own (package cgo).
// What comes is one record per punted segment. Two in-memory ports and Poll instead of Start make the same code run in
// virtual time, without privileges and without DPDK.
//
// The programs in cmd and the tests call this package; it calls cgo and nothing else of Baton but the vocabulary in
// flow, wire and seq. Durations are time.Duration, addresses netip; an IPv4 address is never IPv4-mapped IPv6.
package fastpath
