// E2e runs Baton end to end: real programs in a laboratory of network namespaces (bench/lab), judged by what the client
// could see (bench/judge).
//
//	e2e [-only REGEX] [-bin DIR] [-device net_af_xdp|net_af_packet] [-list]
//
// Its central type is Scenario; each file scenario_*.go has some that belong together. It prints the versions of the
// stock programs, then one line per scenario, PASS or FAIL with the reason, and last "e2e: N passed, N failed"; its exit
// status is 1 if any failed. A scenario that cannot run here fails: nothing is skipped. What a failed one leaves for
// people (logs, configurations, the capture as pcapng) is in a directory that its line names.
//
// It needs root, the packages of scripts/deps.sh, and the daemons in bin/. Without -hugepages the
// forwarder does without them.
package main
