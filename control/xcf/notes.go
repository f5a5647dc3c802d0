package xcf

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// notes are frames that wait until no message of another kind does.
type notes struct {
	frames [][]byte
	size   int // octets
}

// isNote reports whether others may overtake a message.
func isNote(e *Envelope) bool { return e.GetNote() != nil || e.GetUndelivered() != nil }

// add adds a message for a host.
func (n *notes) add(e *Envelope, host string) error {
	if n.size >= notesMax {
		return fmt.Errorf("%w: %d octets of notes wait for %s", ErrQueueFull, n.size, host)
	}
	frame, err := appendFrame(nil, e)
	if err != nil {
		return err
	}
	n.frames, n.size = append(n.frames, frame), n.size+len(frame)
	return nil
}

// next takes the oldest frame out; there is one.
func (n *notes) next() []byte {
	frame := n.frames[0]
	n.frames, n.size = n.frames[1:], n.size-len(frame)
	return frame
}

// boundNotSent bounds what the socket takes before it goes out, so that what comes last does not wait for all that the
// send buffer holds. More than directMax, it leaves Send its room (TCP_NOTSENT_LOWAT, tcp(7); kernel c9bee3b7fdec).
func boundNotSent(raw *net.TCPConn) error {
	sys, err := raw.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = sys.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, 2*directMax)
	})
	return errors.Join(err, failed)
}
