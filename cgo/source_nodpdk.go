//go:build !dpdk

package cgo

// OpenRival is not possible without DPDK.
func OpenRival(uint64) error { return errNoDPDK }
