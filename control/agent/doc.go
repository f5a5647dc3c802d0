// Package agent is a target host: it takes offers and commits from routing hosts, has the connections made, and reports
// their ends.
//
// Its central type is Agent. It runs the pure machine transfer.Taker over the streams of package xcf, and knows nothing
// of how a connection goes on here: that is an Importer's business, of which there are two. Package target continues
// connections in the host's kernel, package userstack in a stack of its own.
//
// Order and locks: events reach the machine one at a time, and what it asks for is done in its order. Imports are the
// exception: they may take their time, and run without the agent's lock, each in one goroutine.
package agent
