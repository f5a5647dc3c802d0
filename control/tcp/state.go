package tcp

import (
	"fmt"
	"slices"
)

// State is a state of RFC 9293 §3.3.2. Those before ESTABLISHED belong to the forwarder.
type State uint8

// The states.
const (
	Established State = iota
	FinWait1
	FinWait2
	CloseWait
	Closing
	LastAck
	TimeWait
	Closed
)

// String prints the state as the RFC does.
func (s State) String() string {
	return [...]string{"ESTABLISHED", "FIN-WAIT-1", "FIN-WAIT-2", "CLOSE-WAIT", "CLOSING", "LAST-ACK", "TIME-WAIT",
		"CLOSED"}[s]
}

// receives reports whether data may still arrive: the client has not sent its FIN.
func (s State) receives() bool { return s == Established || s == FinWait1 || s == FinWait2 }

// sends reports whether the application may still write.
func (s State) sends() bool { return s == Established || s == CloseWait }

// enter changes the state. Only the becomeX functions call it.
func (c *Conn) enter(to State, from ...State) {
	if !slices.Contains(from, c.state) {
		panic(fmt.Sprintf("tcp: no way from %v to %v", c.state, to))
	}
	c.state = to
}

// becomeFinWait1 follows CLOSE in ESTABLISHED (RFC 9293 §3.10.4).
func (c *Conn) becomeFinWait1() {
	c.enter(FinWait1, Established)
	c.timers.end = c.now.Add(closeTimeout)
}

// becomeLastAck follows CLOSE in CLOSE-WAIT.
func (c *Conn) becomeLastAck() {
	c.enter(LastAck, CloseWait)
	c.timers.end = c.now.Add(closeTimeout)
}

// becomeFinWait2 follows the acknowledgment of our FIN. From here on we only linger: what the client still sends is
// acknowledged and dropped, because a RST could overtake the response and destroy it (RFC 2525 §2.17).
func (c *Conn) becomeFinWait2() {
	c.enter(FinWait2, FinWait1)
	c.lingerUntil = c.now.Add(lingerTotal)
	c.timers.end = c.now.Add(lingerIdle)
}

// becomeCloseWait follows the client's FIN.
func (c *Conn) becomeCloseWait() { c.enter(CloseWait, Established) }

// becomeClosing follows the client's FIN while ours is under way: a simultaneous close.
func (c *Conn) becomeClosing() { c.enter(Closing, FinWait1) }

// becomeTimeWait follows the last of the two FINs and of their acknowledgments.
func (c *Conn) becomeTimeWait() {
	c.enter(TimeWait, FinWait1, FinWait2, Closing)
	c.timers.end = c.now.Add(timeWait)
}

// becomeClosed ends the connection; err says why, nil for an orderly end. All memory but the received data goes.
func (c *Conn) becomeClosed(err error) {
	c.enter(Closed, Established, FinWait1, FinWait2, CloseWait, Closing, LastAck, TimeWait)
	c.err = err
	c.timers = timers{}
	c.snd.buf, c.rcv.gaps = nil, nil
	c.ackNow = false
}
