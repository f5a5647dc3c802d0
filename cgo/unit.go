package cgo

/*
#include <stdlib.h>
#include "baton.h"

#cgo noescape baton_crt_init
#cgo nocallback baton_crt_init
#cgo noescape baton_crt_hash
#cgo nocallback baton_crt_hash
#cgo noescape baton_crt_find
#cgo nocallback baton_crt_find
#cgo noescape baton_crt_insert
#cgo nocallback baton_crt_insert
#cgo noescape baton_siphash
#cgo nocallback baton_siphash
*/
import "C"

import "unsafe"

// The parts of the data path by themselves, for tests and benchmarks: a test file cannot import "C".

// TablePercent is what part of its places a forwarder's table uses.
const TablePercent = C.BATON_CRT_PERCENT

// NewTable makes a table of a test's own, whose entries are so many percent of its places; keyWords is 1 (IPv4) or 3
// (IPv6). One goroutine writes; see Table.Read.
func NewTable(entries uint64, percent, keyWords int, seed uint64) (Table, error) {
	t := Table{(*C.struct_baton_crt)(C.calloc(1, C.sizeof_struct_baton_crt))}
	err := errno(C.baton_crt_init(t.c, C.uint64_t(entries), C.uint32_t(percent), C.uint32_t(keyWords), C.uint64_t(seed)))
	if err != nil {
		C.free(unsafe.Pointer(t.c))
	}
	return t, err
}

// Free frees what NewTable made.
func (t Table) Free() {
	C.baton_crt_free(t.c)
	C.free(unsafe.Pointer(t.c))
}

func (t Table) find(key *[3]uint64) (*C.baton_word, C.uint64_t) {
	k := (*C.struct_baton_key)(unsafe.Pointer(key))
	hash := C.baton_crt_hash(t.c, k)
	return C.baton_crt_find(t.c, k, hash), hash
}

// Find returns the value of a key.
func (t Table) Find(key [3]uint64) (value uint64, ok bool) {
	v, _ := t.find(&key)
	if v == nil {
		return 0, false
	}
	return loadWord(unsafe.Pointer(v)), true
}

// Insert adds a key that is not there; false: the table is full.
func (t Table) Insert(key [3]uint64, value uint64) bool {
	_, hash := t.find(&key)
	return C.baton_crt_insert(t.c, (*C.struct_baton_key)(unsafe.Pointer(&key)), hash, C.uint64_t(value)) != nil
}

// Remove takes a key out; false: it is not there.
func (t Table) Remove(key [3]uint64) bool {
	v, _ := t.find(&key)
	if v != nil {
		C.baton_crt_remove(t.c, v)
	}
	return v != nil
}

// SipHash is SipHash-2-4.
func SipHash(key [2]uint64, data []byte) uint64 {
	return uint64(C.baton_siphash((*C.uint64_t)(unsafe.Pointer(&key)), (*C.uint8_t)(unsafe.Pointer(unsafe.SliceData(data))),
		C.size_t(len(data))))
}
