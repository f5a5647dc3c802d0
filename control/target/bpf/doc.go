// Package bpf holds the two programs of a target host, compiled: import, which makes connections, and guard, which keeps
// strangers from the listeners. Sources are import.bpf.c and guard.bpf.c, which say what the programs do; the Go types
// here are generated from them, ImportObjects and GuardObjects being the central ones. control/target is the caller.
//
// "go generate" needs clang 14 and libbpf's headers and writes the same octets on every machine. The objects are CO-RE:
// one object fits every kernel that has what it uses. Little-endian machines only.
package bpf
