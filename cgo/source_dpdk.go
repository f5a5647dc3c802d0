//go:build dpdk

package cgo

// #include "source_dpdk.h"
import "C"

// OpenRival makes an rte_hash for so many entries the rival of the CRT, in the place of an older one. 0: no rival.
func OpenRival(entries uint64) error {
	var err error
	mainDo(func() { err = errno(C.baton_rival_open(C.uint64_t(entries))) })
	return err
}
