// Package readme holds the README against the tree: the stops of a packet's way that it lists exist, its links lead
// somewhere, and the make targets that it names are there. It has tests only.
package readme
