// Command fastpath measures what a frame costs in the data path: CPU time of one polling thread, less that of making
// the frame and throwing it away.
//
// The source is part of the process (cgo/source.h): it makes TCP segments of so many flows, uniformly at random, and
// the pipeline under test is what a forwarder runs, with all its checks. In the same round, one after the other, the
// same source feeds
//
//   - io: the sink, and nothing in between; every other time is given less this one,
//   - stub: the pipeline, where each lookup finds the same entry at once: what all the rest costs,
//   - crt: the pipeline as it is,
//   - rte_hash: the pipeline with DPDK's rte_hash (lock-free, bulk) in the place of the connection routing table,
//     filled with the same flows, for segments of known flows.
//
// Each table has a forwarder of its own. Times are medians over rounds, in nanoseconds a frame; the result file has all
// samples. Without the build tag dpdk, buffers are memory of the source and there is no rte_hash.
package main
