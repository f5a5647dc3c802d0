package appsock

import (
	"fmt"
	"net"
	"net/netip"
	"os"
)

// listenerAddress is where a listening socket listens.
func listenerAddress(f *os.File) (netip.AddrPort, error) {
	l, err := net.FileListener(f)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("listener: %w", err)
	}
	defer l.Close()
	a, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("listener: %s is no TCP address", l.Addr())
	}
	ap := a.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}
