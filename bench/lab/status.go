package lab

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A ring block's status says who owns the block. The kernel publishes a block's frames by it and expects the same from
// us, hence acquire and release (Go's atomics are both).

func loadStatus(h *unix.TpacketHdrV1) uint32     { return atomic.LoadUint32(&h.Block_status) }
func storeStatus(h *unix.TpacketHdrV1, s uint32) { atomic.StoreUint32(&h.Block_status, s) }
