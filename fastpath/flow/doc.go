// Package flow has the words in which the forwarder and the control plane speak about connections: what is punted, and
// what can be commanded. Its central type is Punt.
//
// It is pure (no cgo, no I/O), so that the router, the simulation and tests can use it without the data path.
package flow
