// Package maglev builds the lookup tables of Maglev hashing (Eisenbud et al., "Maglev: A Fast and Reliable Software
// Network Load Balancer", NSDI 2016, section 3.4): a flow's hash modulo the table's size names its backend. Every backend
// gets a share of the places that goes with its weight, almost exactly, and a change of the backends moves few places of
// those that stay. Its central function is Table.
//
// It is pure: the same backends give the same table in any order, at any time, on any host.
package maglev
