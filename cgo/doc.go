// Package cgo is Baton's data path: plain C, and the thin Go functions that call it. It is the only package that imports
// "C". Its central type is Forwarder; baton.h is the contract behind it, and poll.c the way of a packet.
//
// All memory that both sides see is allocated by C; no Go pointer rests there. The Go structs of this package mirror
// those of baton.h; both languages check the layout when they compile. Only package fastpath calls this package.
//
// Without the build tag "dpdk" there are in-memory ports only; everything else is the same code.
package cgo
