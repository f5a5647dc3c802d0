//go:build !dpdk

package cgo

// OpenRival is not possible without DPDK.
func OpenRival(uint64, int) error { return errNoDPDK }
