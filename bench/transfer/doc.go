// Command transfer measures what handing a live connection over costs, in a laboratory of network namespaces on one
// machine: a client, a routing host, a target with stock nginx.
//
// Its central type is Series: one measured quantity with all its samples. A run makes rounds. In each round the same
// client code fetches the same file of 1 kB over a new connection, once through Baton and once from nginx directly, and
// one message of a commit's size goes to the target's namespace and back on an XCF stream of its own, beside Baton's.
// So all series see the same machine in the same minute. A pause before each of them lets the one before end: FINs, end
// reports. bench/README.md defines each series and tells what the numbers mean.
//
// Requests that are routed anew, on one connection, are measured in a laboratory of their own, with HAProxy beside Baton.
//
// The result is a table on standard output and a JSON file with every sample, the machine and the commit. Aims are
// reported, not asserted: a slow machine is no failure. A fetch that was not handed over, or brought other octets, is.
//
// Usage: baton-bench-transfer [-n ROUNDS] [-out FILE] [-bin DIR] [-device DRIVER] [-hugepages N]. It needs root and
// leaves nothing behind.
package main
