package cgo

import (
	"sync/atomic"
	"unsafe"
)

// loadWord reads a baton_word, which the poll thread writes with atomic stores.
func loadWord(p unsafe.Pointer) uint64 { return atomic.LoadUint64((*uint64)(p)) }

// storeWord writes a baton_word in the poll thread's place.
func storeWord(p unsafe.Pointer, v uint64) { atomic.StoreUint64((*uint64)(p), v) }
