package cgo

import (
	"sync/atomic"
	"unsafe"
)

// loadWord reads a baton_word, which the poll thread writes with atomic stores.
func loadWord(p unsafe.Pointer) uint64 { return atomic.LoadUint64((*uint64)(p)) }
