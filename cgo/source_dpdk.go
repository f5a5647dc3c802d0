//go:build dpdk

package cgo

// #include "source_dpdk.h"
import "C"

// OpenRival makes an rte_hash for so many entries the rival of the CRT, in the place of an older one. 0: no rival.
// keyWords: 1 or 3.
func OpenRival(entries uint64, keyWords int) error {
	var err error
	mainDo(func() { err = errno(C.baton_rival_open(C.uint64_t(entries), C.uint32_t(keyWords))) })
	return err
}
