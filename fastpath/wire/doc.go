// Package wire is the formats that Baton reads and writes on the data network: Ethernet, IPv4, IPv6, TCP with its
// options, ARP and neighbour discovery. Its central types are Segment, a TCP segment without addresses, and Frame, the
// Ethernet frame that carries one.
//
// One file holds one format and opens with the header diagram of its RFC. Each parser checks lengths, checksums and the
// fields that Baton depends on once; what it returns needs no further check. Each builder is called AppendX: it appends
// to the caller's slice, fills in lengths and checksums, and allocates nothing when the capacity suffices.
//
// Assumptions: frames are untagged Ethernet II, as the forwarder punts them. Byte order on the wire is big endian and
// nowhere else visible: fields are numbers, addresses netip.Addr. Parsed payloads alias the frame.
//
// Everything is pure and safe for concurrent use. Callers: control/router and control/tcp (Segment), control/target (the
// packet that makes a connection), tests and benchmarks. The forwarder parses in C, not here.
//
// Sources: RFC 791 (IPv4), RFC 8200 (IPv6), RFC 9293 (TCP), RFC 7323 and 2018 (options), RFC 826 (ARP), RFC 4861 (NDP),
// RFC 1071 (checksum).
package wire
