// Package lab builds the laboratory in which Baton is tested, shown and measured: a client, a routing host and target
// hosts as network namespaces of one machine, real programs in them, and a capture on the client's interface.
//
//	       data segment 10.77.0.0/24 (a bridge in a namespace of its own)
//	client .100       rh1 (forwarder's port)        t1 .21   t2 .22 ...
//	                   |                             |        |
//	                  XCF segment 10.78.0.0/24, rh1 .1, t1 .21, t2 .22 ...
//
// With Options.Far the targets' data segment is 10.79.0.0/24, and a plain Linux router (.254 on both) leads there.
//
// Its central type is Lab. Nothing is created in the machine's own network namespace, no neighbour is static, and every
// name carries the lab's prefix, so several labs can stand side by side and Cleanup can find what a crashed one left:
// namespaces PREFIX-*, processes in them, and the directory with its mounts. A watcher process does that when the lab's
// own process dies, be it by SIGKILL; a program that builds labs calls RunWatcher first thing in main.
//
// Segments are judged one by one, so checksum and segmentation offloads of all interfaces are off; a kernel that
// leaves checksums to a virtual NIC would also send wrong ones through the forwarder's port. Nor does the network
// reorder, except where a test makes it.
//
// It needs root and the commands ip, ethtool, mount and umount. Callers: bench/e2e, demonstrations, benchmarks, tests.
// A Lab is for one goroutine; its hosts, captures and processes may be used by several.
package lab
