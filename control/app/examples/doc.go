// Package examples has applications that take part in the hand-over of connections, in languages that only need sockets
// and JSON. They are small, complete, and run as they are.
package examples

import _ "embed"

// RouterPython is a routing application in Python: see its first lines.
//
//go:embed router.py
var RouterPython string
