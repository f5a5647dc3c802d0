// Pktgen is a packet generator and sink on DPDK ports: a real NIC, or any virtual device (net_memif, net_af_xdp,
// net_af_packet, net_ring, ...).
//
//	pktgen run        -d DEVICE --rate 1M --for 10s    send at a rate, count and time what comes back
//	pktgen steer      -d DEVICE                        the same at the rates that are read, for scripts
//	pktgen throughput -d DEVICE                        highest rate without loss (RFC 2544 26.1)
//	pktgen latency    -d DEVICE --rate 1M              latency at a rate (RFC 2544 26.2)
//	pktgen loss       -d DEVICE                        loss at 100 %, 90 %, ... of a rate (RFC 2544 26.3)
//
// Its central type is rig: an open generator that runs one trial after the other. The loop is C on a core of its own
// (cgo/gen.h); this package steers it, searches, and prints. Frames leave by the first device and are taken from all.
//
// Sizes are octets with the frame check sequence, as in RFC 2544; rates are frames per second; a percentage is of the
// link's speed, at which a frame takes 20 octets more (preamble and gap). Latencies are from the making of a frame to the
// poll that received it, so they have this program's own burst in them. --nap gives the core to others between bursts,
// which delays both.
//
// IPv4's next hop is found by ARP (--gateway) and ARP for the clients' addresses is answered; for IPv6 give --dst-mac.
package main
