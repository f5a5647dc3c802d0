//go:build dpdk

package cgo

/*
#include "source_dpdk.h"

static inline void baton_unit_rival_find(struct baton_lookup **l, uint32_t n)
{
	baton_rival_get()->find(NULL, l, n);
}

static inline int baton_unit_rival_insert(const struct baton_key *k, uint64_t value)
{
	return baton_rival_get()->insert(k, value);
}

static inline void baton_unit_rival_remove(const struct baton_key *k)
{
	baton_rival_get()->remove(k);
}

static inline bool baton_unit_rival_next(uint32_t *at, struct baton_entry *e)
{
	return baton_rival_get()->next(at, e);
}
*/
import "C"

import (
	"iter"
	"unsafe"
)

// RivalFind is Table.FindBulk for the table of OpenRival.
func RivalFind(keys [][3]uint64) []uint64 {
	return findBulk(keys, func(l **C.struct_baton_lookup, n C.uint32_t) { C.baton_unit_rival_find(l, n) })
}

// RivalInsert adds a key to the table of OpenRival, or gives it another value.
func RivalInsert(key [3]uint64, value uint64) error {
	return errno(C.baton_unit_rival_insert((*C.struct_baton_key)(unsafe.Pointer(&key)), C.uint64_t(value)))
}

// RivalRemove takes a key out of the table of OpenRival.
func RivalRemove(key [3]uint64) {
	C.baton_unit_rival_remove((*C.struct_baton_key)(unsafe.Pointer(&key)))
}

// RivalEntries are the entries of the table of OpenRival, which must not change meanwhile.
func RivalEntries() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		var at C.uint32_t
		var e Entry
		for bool(C.baton_unit_rival_next(&at, (*C.struct_baton_entry)(unsafe.Pointer(&e)))) && yield(e) {
		}
	}
}
