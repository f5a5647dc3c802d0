package tcp

import (
	"fmt"
	"slices"
)

// State is a state of RFC 9293 §3.3.2. LISTEN is a Listener, and SYN-SENT does not occur: we never open.
type State uint8

// The states.
const (
	SynReceived State = iota
	Established
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
	return [...]string{"SYN-RECEIVED", "ESTABLISHED", "FIN-WAIT-1", "FIN-WAIT-2", "CLOSE-WAIT", "CLOSING", "LAST-ACK",
		"TIME-WAIT", "CLOSED"}[s]
}

// receives reports whether data may still arrive: the client has not sent its FIN.
func (s State) receives() bool { return s == Established || s == FinWait1 || s == FinWait2 }

// sends reports whether the application may still write.
func (s State) sends() bool { return s == SynReceived || s == Established || s == CloseWait }

// enter changes the state. Only the becomeX functions call it.
func (c *Conn) enter(to State, from ...State) {
	if !slices.Contains(from, c.state) {
		panic(fmt.Sprintf("tcp: no way from %v to %v", c.state, to))
	}
	c.state = to
}

// becomeEstablished follows the acknowledgment of our SYN (RFC 9293 §3.10.7.4, fifth). A CLOSE that came before it is
// done now.
func (c *Conn) becomeEstablished() {
	c.enter(Established, SynReceived)
	c.timers.retransmit = never
	c.snd.handshakeDone(c.now.Sub(c.opened))
	if c.snd.closing {
		c.becomeFinWait1()
	}
}

// becomeFinWait1 follows CLOSE in ESTABLISHED (RFC 9293 §3.10.4).
func (c *Conn) becomeFinWait1() {
	c.enter(FinWait1, Established)
	c.snd.closing = true
	c.boundWait()
}

// becomeLastAck follows CLOSE in CLOSE-WAIT.
func (c *Conn) becomeLastAck() {
	c.enter(LastAck, CloseWait)
	c.snd.closing = true
	c.boundWait()
}

// becomeFinWait2 follows the acknowledgment of our FIN.
func (c *Conn) becomeFinWait2() {
	c.enter(FinWait2, FinWait1)
	c.boundWait()
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
	c.enter(Closed, SynReceived, Established, FinWait1, FinWait2, CloseWait, Closing, LastAck, TimeWait)
	c.err = err
	c.timers = timers{}
	c.snd.buf, c.snd.room, c.snd.held, c.rcv.gaps = nil, nil, nil, nil
	c.ackNow = false
}

// boundWait bounds the states that wait for the client once the application has left. While it still reads, it is the
// application that decides how long to wait, and R2 if the client is silent.
func (c *Conn) boundWait() {
	switch {
	case c.rcv.reader == reads:
	case c.state != FinWait2:
		c.timers.end = c.now.Add(closeTimeout)
	case c.rcv.reader == discards:
		c.lingerUntil = c.now.Add(lingerTotal)
		c.timers.end = c.now.Add(lingerIdle)
	default:
		c.timers.end = c.now.Add(closeTimeout)
	}
}
