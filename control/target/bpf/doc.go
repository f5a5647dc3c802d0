// Package bpf holds the programs of a target host, compiled: import, which makes connections, guard, which keeps
// strangers from the listeners, lockstep, which keeps from clients what they have heard, and move, which has idle
// connections go back. Sources are the .bpf.c files, which say what the programs do; the Go types here are generated from
// them, ImportObjects, GuardObjects, LockstepObjects and MoveObjects being the central ones. control/target is the caller.
//
// "go generate" needs clang 14 and libbpf's headers and writes the same octets on every machine. The objects are CO-RE:
// one object fits every kernel that has what it uses. Little-endian machines only.
package bpf
