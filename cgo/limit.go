package cgo

/*
#include <stdlib.h>
#include "limit.h"
*/
import "C"

import "unsafe"

// Limit is struct limit by itself, for tests.
type Limit struct{ c *C.struct_limit }

// NewLimit makes a limit of so many punts a second by one source and by all, and of a source's flows; 0: none.
func NewLimit(sourcePunts, punts, sourceFlows uint32, seed uint64) Limit {
	l := Limit{(*C.struct_limit)(C.calloc(1, C.sizeof_struct_limit))}
	C.limit_init(l.c, C.uint32_t(sourcePunts), C.uint32_t(punts), C.uint32_t(sourceFlows), C.uint64_t(seed))
	return l
}

// Free frees what NewLimit made.
func (l Limit) Free() { C.free(unsafe.Pointer(l.c)) }

func (ip IP) c() C.struct_baton_ip {
	return C.struct_baton_ip{hi: C.uint64_t(ip.Hi), lo: C.uint64_t(ip.Lo)}
}

// Punt takes one punt of a source at a time in ms.
func (l Limit) Punt(source IP, ms uint64) bool {
	return bool(C.limit_punt(l.c, source.c(), C.uint64_t(ms)))
}

// BeginFlow takes one flow, and a punt, of a source at a time in ms.
func (l Limit) BeginFlow(source IP, ms uint64) bool {
	ok := bool(C.limit_flow(l.c, source.c(), C.uint64_t(ms)))
	if ok {
		C.limit_flow_begin(l.c, source.c())
	}
	return ok
}

// EndFlow gives back a flow.
func (l Limit) EndFlow(source IP) { C.limit_flow_end(l.c, source.c()) }
