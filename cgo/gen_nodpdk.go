//go:build !dpdk

package cgo

// LaunchOnLcore is not possible without DPDK.
func (g *Generator) LaunchOnLcore() error { return errNoDPDK }

// JoinLcore does nothing without DPDK.
func (g *Generator) JoinLcore() {}

// LinkSpeed knows nothing without DPDK.
func LinkSpeed(string) uint32 { return 0 }
