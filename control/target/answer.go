package target

import (
	"bytes"
	"fmt"

	"baton/control/transfer"
)

// answerMax bounds what a server says in one turn, octets.
const answerMax = 64 << 10

// answer is what a server says in one turn of a dialogue, as it comes.
type answer struct {
	turn transfer.Turn
	line []byte // not ended yet
	size int
	done bool // the last line has come
}

// add takes what the server has said next. The error says why that is not what the routing host has said.
func (a *answer) add(said []byte) error {
	if a.size += len(said); a.size > answerMax {
		return fmt.Errorf("the server's answer has more than %d octets", answerMax)
	}
	for len(said) > 0 {
		if a.done {
			return fmt.Errorf("the server goes on after its answer: %.80q", said)
		}
		end := bytes.IndexByte(said, '\n') + 1
		if end == 0 {
			a.line = append(a.line, said...)
			return nil
		}
		a.line = append(a.line, said[:end]...)
		said = said[end:]
		if err := a.judge(); err != nil {
			return err
		}
		a.line = a.line[:0]
	}
	return nil
}

// judge looks at a whole line.
func (a *answer) judge() error {
	switch {
	case bytes.HasPrefix(a.line, []byte(a.turn.Last)):
		a.done = true
	case a.turn.More == "" || !bytes.HasPrefix(a.line, []byte(a.turn.More)):
		return fmt.Errorf("the server says %.80q, want a line that begins with %q", a.line, a.turn.Last)
	}
	return nil
}
