package app

import (
	"fmt"
	"sync/atomic"
)

// maxNotes is how many messages of other applications wait to be taken.
const maxNotes = 256

// Note is a message of another application, or one of this one that came back.
type Note struct {
	From Party // with the ID; so an answer reaches the same one
	Tag  string
	Data []byte
	// Code is not empty if nobody was given the message that Send numbered Seq, which was for From. Detail says why.
	Code, Detail string
	Seq          uint64
}

// notes is the part of a Router and a Listener that writes to other applications.
type notes struct {
	control link
	sent    atomic.Uint64
	taken   chan Note
}

func newNotes(l link) *notes { return &notes{control: l, taken: make(chan Note, maxNotes)} }

// Send sends data, at most MaxData octets, to an application: the one that has been registered for longest of those for
// whom all that to says is true. Without a host it is one of this host. Messages come at most once, those to one application
// in order. That one has not come is told by Messages, where that can be known; its number is the one that Send returns.
// Nothing is known from silence. Errors: ErrTooLarge, or of the control socket.
func (n *notes) Send(to Party, tag string, data []byte) (seq uint64, err error) {
	if len(data) > MaxData {
		return 0, fmt.Errorf("%w: %d octets of data, at most %d", ErrTooLarge, len(data), MaxData)
	}
	seq = n.sent.Add(1)
	return seq, n.control.Send(Message{Type: TypeMessage, Seq: seq, To: &to, Tag: tag, Data: data})
}

// Messages are those of other applications, and those that came back. Up to 256 wait to be taken; more are lost. The
// channel is closed when the control socket ends.
func (n *notes) Messages() <-chan Note { return n.taken }

// hear takes a message of the daemon, and reports whether it was about one of another application.
func (n *notes) hear(m Message) bool {
	note := Note{Tag: m.Tag, Data: m.Data}
	switch {
	case m.Type == TypeMessage && m.From != nil:
		note.From = *m.From
	case m.Type == TypeError && m.To != nil:
		note.From, note.Seq, note.Code, note.Detail = *m.To, m.Seq, m.Code, m.Detail
	default:
		return false
	}
	select {
	case n.taken <- note:
	default: // offers and answers must not wait for who takes no messages
	}
	return true
}
