package cgo

/*
#include <stdlib.h>
#include "baton.h"

#cgo noescape baton_shards_open
#cgo nocallback baton_shards_open
#cgo noescape baton_shard_of
#cgo nocallback baton_shard_of
#cgo noescape baton_shard_of_reply
#cgo nocallback baton_shard_of_reply
#cgo noescape baton_shard_of_request
#cgo nocallback baton_shard_of_request
#cgo noescape baton_toeplitz
#cgo nocallback baton_toeplitz
#cgo noescape baton_toeplitz_key
#cgo nocallback baton_toeplitz_key
*/
import "C"

import "unsafe"

// MaxShards bounds the forwarders of Shards.
const MaxShards = C.BATON_MAX_SHARDS

// Shards is struct baton_shards: forwarders that share ports. Its methods may be called from any goroutine until Close.
type Shards struct {
	c   *C.struct_baton_shards
	All []*Forwarder // not to be closed one by one
}

// OpenShards makes n forwarders, 1 to MaxShards, whose ports are still to be opened: DPDK's in the first of them only,
// in-memory ports in each.
func OpenShards(c *Config, services []Service, n int) (*Shards, error) {
	var err C.int
	c.ServiceCount = uint32(len(services))
	s := C.baton_shards_open((*C.struct_baton_config)(unsafe.Pointer(c)),
		(*C.struct_baton_service)(unsafe.Pointer(unsafe.SliceData(services))), C.uint32_t(n), &err)
	if s == nil {
		return nil, errno(err)
	}
	shards := &Shards{c: s}
	for i := range n {
		shards.All = append(shards.All, wrap(C.baton_shard(s, C.uint32_t(i))))
	}
	return shards, nil
}

// Close frees everything. The loops must have ended.
func (s *Shards) Close() {
	C.baton_shards_close(s.c)
	s.c = nil
	for _, f := range s.All {
		f.unwrap()
	}
}

// Of is the shard of a connection.
func (s *Shards) Of(t *Tuple) int {
	return int(C.baton_shard_of(s.c, (*C.struct_baton_tuple)(unsafe.Pointer(t))))
}

// OfFlow is the shard of a flow's ID, as it is in Command and Punt. It may be beyond the last if the ID is no flow's.
func OfFlow(id uint64) int { return int(uint32(id) >> C.BATON_ID_SHARD_SHIFT) }

// OfReply is the shard of the connection whose service sends the frame, 0 if it is none of a connection.
func (s *Shards) OfReply(frame []byte) int {
	return int(C.baton_shard_of_reply(s.c, (*C.uint8_t)(unsafe.Pointer(unsafe.SliceData(frame))), C.uint32_t(len(frame))))
}

// OfRequest is the shard of the connection whose client sends the frame, 0 if it is none of a connection.
func (s *Shards) OfRequest(frame []byte) int {
	return int(C.baton_shard_of_request(s.c, (*C.uint8_t)(unsafe.Pointer(unsafe.SliceData(frame))),
		C.uint32_t(len(frame))))
}

// SteerKey is the key of the hash that names a connection's shard, as network cards take it.
type SteerKey [C.BATON_STEER_KEY]byte

// SetKey replaces the random key, before the ports are opened.
func (s *Shards) SetKey(key SteerKey) { C.baton_toeplitz_key(s.c, (*C.uint8_t)(unsafe.Pointer(&key))) }

// Toeplitz is the hash of a connection as network cards compute it.
func (s *Shards) Toeplitz(t *Tuple) uint32 {
	return uint32(C.baton_toeplitz(s.c, (*C.struct_baton_tuple)(unsafe.Pointer(t))))
}
