// Package trunk makes a switch's port one for tagged frames (IEEE 802.1Q), by two programs at the kernel's TCX hooks. Its
// central type is Trunk. What a host behind the port gets has the tag of its VLAN; before that, as on a cable with
// several VLANs, the same frame comes without a tag and with the tag of another VLAN. What the host sends has to have its
// VLAN's tag, and loses it; the rest is dropped and counted.
//
// trunk.bpf.c is the source of the programs, trunkprograms_bpfel.o is made from it by "go generate" (clang 14). bench/lab
// is the caller.
package trunk

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -target bpfel -go-package trunk TrunkPrograms trunk.bpf.c -- -I../../../control/target/bpf -O2 -Wall -Wextra -Werror
