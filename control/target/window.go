package target

// FirstWindow is the receive window, in octets, with which a connection starts that is created on a listener: the
// amount that the client may have been allowed beyond the first octet to be read.
//
// rcvbuf is the listener's receive buffer as the kernel accounts it, mss the client's MSS. The rule is that of
// cookie_v4_check() and tcp_select_initial_window() in Linux 6.18: half the buffer (a socket that has received
// nothing yet counts every octet twice, TCP_DEFAULT_SCALING_RATIO), whole segments only. The kernel may grant more
// than 65,535, which no W needs. On the wire the window scale may cut off less than one unit, which does not matter
// either: W is a whole number of units.
func FirstWindow(rcvbuf uint32, mss uint16) uint32 {
	space := rcvbuf / 2
	if mss > 0 && space > uint32(mss) {
		space -= space % uint32(mss)
	}
	return min(space, 65535)
}
