package transfer

import (
	"errors"
	"fmt"
)

// Limits of a Dialogue. Each is far above what a protocol needs.
const (
	MaxTurns       = 64
	MaxTurnPattern = 255     // octets of More and of Last
	MaxSaid        = 8 << 10 // octets of all that the client said
)

// ErrDialogue is returned for a Dialogue that no server could be played.
var ErrDialogue = errors.New("malformed dialogue")

// Dialogue is what the routing host and the client have said to each other: what a server that knows nothing of it has to
// be played before it can go on. Its zero value is none.
type Dialogue struct {
	// Record is the connection as it is at the offer, without data (Record.Encode). The commit's has the same ReadFrom
	// and SndNxt. A dialogue ends there: the server's last octet is SndNxt - 1, the client's ReadFrom - 1.
	Record []byte
	Turns  []Turn // the greeting is the first
}

// Turn is something that the client said, and how the server answers if all is well: with lines that begin with More, and
// a last one that begins with Last. Lines end with LF.
type Turn struct {
	Say  []byte // with its line end; empty: the server speaks without having been spoken to
	More string // "": the answer is one line
	Last string
}

// None reports whether there is no dialogue.
func (d *Dialogue) None() bool { return len(d.Turns) == 0 }

// Said is how many octets the client said.
func (d *Dialogue) Said() (n int) {
	for _, t := range d.Turns {
		n += len(t.Say)
	}
	return n
}

// Check returns ErrDialogue, and why, or nil.
func (d *Dialogue) Check() error {
	switch {
	case d.None() != (len(d.Record) == 0):
		return fmt.Errorf("%w: record of %d octets, %d turns", ErrDialogue, len(d.Record), len(d.Turns))
	case len(d.Record) > MaxRecord || len(d.Turns) > MaxTurns || d.Said() > MaxSaid:
		return fmt.Errorf("%w: record of %d octets, %d turns, %d octets said", ErrDialogue, len(d.Record), len(d.Turns), d.Said())
	}
	for i, t := range d.Turns {
		if t.Last == "" || len(t.Last) > MaxTurnPattern || len(t.More) > MaxTurnPattern {
			return fmt.Errorf("%w: turn %d: answers that begin with %q, and last with %q", ErrDialogue, i+1, t.More, t.Last)
		}
	}
	return nil
}
