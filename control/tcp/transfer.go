package tcp

import (
	"bytes"
	"errors"
	"time"

	"baton/control/transfer"
)

// Why a connection cannot be exported or imported.
var (
	ErrNotFrozen  = errors.New("connection is not frozen")
	ErrNotOpen    = errors.New("connection is closing or closed")
	ErrDataQueued = errors.New("client has not acknowledged everything that was sent")
	ErrRecord     = errors.New("record contradicts itself")
	ErrWindow     = errors.New("window is smaller than what the client was promised")
)

// Freeze stops all sending, the owed acknowledgment included, and all timers. Segments that still arrive (those that the
// forwarder had punted before it froze the flow) are taken as ever, in silence.
func (c *Conn) Freeze() { c.frozen = true }

// Thaw goes on as if there had been no freeze: what was held back is sent, what is owed will be acknowledged, and the
// timers start anew.
func (c *Conn) Thaw(now time.Time) Actions {
	c.begin(now)
	if !c.frozen {
		return c.flush()
	}
	c.frozen, c.exported = false, false
	c.timers.ack = never
	if c.state != Closed && c.rcv.nxt != c.rcv.acked {
		c.owe()
	}
	c.timers.retransmit = never
	c.snd.since = never
	return c.flush()
}

// Export returns the state of a frozen connection for its next owner, job. Epoch is that of the DVIPA's owner. Afterwards
// arriving segments are ignored (the client repeats them) until Thaw. Data that came out of order is not part of a record;
// the client, which was only told of it by SACK, keeps it (RFC 2018 §8).
//
// Errors: ErrNotFrozen; ErrNotOpen outside ESTABLISHED and CLOSE-WAIT; ErrDataQueued while the client has not acknowledged
// everything that was written, because a kernel that continues the connection could not repeat it.
func (c *Conn) Export(job string, epoch uint64, now time.Time) (transfer.Record, error) {
	c.begin(now)
	switch {
	case !c.frozen:
		return transfer.Record{}, ErrNotFrozen
	case !c.state.sends():
		return transfer.Record{}, ErrNotOpen
	case c.snd.queued() > 0:
		return transfer.Record{}, ErrDataQueued
	}
	c.exported = true
	s, r := &c.snd, &c.rcv
	return transfer.Record{
		Epoch: epoch, Inc: c.cfg.Inc, Handshake: c.cfg.Handshake, Job: job, Hops: c.hops,
		ReadFrom: r.read, RcvNxt: r.nxt, RcvAcked: r.acked, RcvEdge: r.edge,
		FIN: r.finished(), Data: bytes.Clone(r.data()),
		SndUna: s.una, SndNxt: s.nxt, SndWnd: s.wnd, SndWL1: s.wl1, SndWL2: s.wl2,
		TSOffset: c.cfg.TSOffset, TSLast: c.ts.last, TSRecent: c.ts.recent,
	}, nil
}

// Import makes the Conn that continues the connection of a record, with window W. It takes over the record's memory. The
// new owner's first act is an ACK, due at once: it tells the client that its window is still open, and the network where
// the connection now lives. Unacknowledged data in the record is sent again when the client does not acknowledge it.
//
// Errors: ErrRecord; ErrWindow if W does not cover the right edge that the client has been promised.
func Import(rec transfer.Record, window uint32, now time.Time) (*Conn, error) {
	if !consistent(&rec) {
		return nil, ErrRecord
	}
	limit := rec.ReadFrom.Add(int(window))
	if rec.RcvEdge.After(limit) {
		return nil, ErrWindow
	}
	c := &Conn{
		cfg: Config{Inc: rec.Inc, Handshake: rec.Handshake, TSOffset: rec.TSOffset, Window: window},
		now: now, hops: rec.Hops + 1,
		rcv: receiver{
			read: rec.ReadFrom, nxt: rec.RcvNxt, acked: rec.RcvAcked, edge: rec.RcvEdge, limit: limit, buf: rec.Data,
		},
		ts: timestamps{last: rec.TSLast, recent: rec.TSRecent, seen: now},
	}
	c.snd = newSender(&c.cfg, rec.SndUna)
	s := &c.snd
	s.nxt, s.rtx, s.buf = rec.SndNxt, rec.SndNxt, rec.SendData
	s.wnd, s.maxWnd, s.wl1, s.wl2 = rec.SndWnd, rec.SndWnd, rec.SndWL1, rec.SndWL2
	if rec.FIN {
		c.rcv.fin, c.rcv.finAt = true, rec.RcvNxt.Add(-1)
		c.becomeCloseWait()
	}
	c.timers.ack = now
	c.armRetransmit()
	return c, nil
}

// consistent checks what the comments of transfer.Record promise.
func consistent(rec *transfer.Record) bool {
	end := rec.ReadFrom.Add(len(rec.Data))
	if rec.FIN {
		end = end.Add(1)
	}
	flight := rec.SndNxt.Sub(rec.SndUna)
	return rec.RcvNxt == end && !rec.RcvAcked.After(rec.RcvNxt) && !rec.RcvEdge.Before(rec.RcvNxt) &&
		flight >= 0 && flight <= len(rec.SendData)
}
