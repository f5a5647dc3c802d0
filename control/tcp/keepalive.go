package tcp

import (
	"time"

	"baton/fastpath/wire"
)

// armKeepalive sets the time of the next probe of our own (RFC 9293 §3.8.4: off unless the user asks for it). While
// something is queued the retransmission timer finds out about a dead client.
func (c *Conn) armKeepalive() {
	k := &c.settings
	if k.KeepIdle == 0 || c.snd.queued() > 0 || c.state == TimeWait {
		c.timers.keepalive = never
		return
	}
	c.timers.keepalive = c.heard.Add(k.KeepIdle + k.KeepInterval*time.Duration(c.probes))
}

// keepalive sends a probe, a segment without text that the client has to answer, or gives up.
func (c *Conn) keepalive() {
	if c.probes >= c.settings.KeepProbes {
		c.abort(ErrTimeout)
		return
	}
	c.probes++
	c.emit(c.snd.nxt.Add(-1), wire.ACK, nil)
}
