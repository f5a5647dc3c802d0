// Package examples has applications that take part in the hand-over of connections, in languages that only need sockets
// and JSON. They are small, complete, and run as they are.
package examples

import "embed"

// Python has those in Python, and the module that some of them share.
//
//go:embed *.py
var Python embed.FS
