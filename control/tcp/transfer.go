package tcp

import (
	"errors"
	"fmt"
	"time"

	"baton/control/transfer"
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// Why a connection cannot be exported or imported.
var (
	ErrNotFrozen  = errors.New("connection is not frozen")
	ErrHandshake  = errors.New("handshake is not done")
	ErrClosed     = errors.New("connection is closed")
	ErrTooLarge   = errors.New("connection has more data than a record holds")
	ErrNotOpen    = errors.New("connection is closing or closed")
	ErrDataQueued = errors.New("client has not acknowledged everything that was sent")
	ErrRecord     = errors.New("record contradicts itself")
	ErrWindow     = errors.New("window is smaller than what the client was promised")
)

// Freeze stops all sending, the owed acknowledgment included, and time: the timers wait. Segments that still arrive (those
// that the forwarder had punted before it froze the flow) are taken as ever, in silence.
func (c *Conn) Freeze() { c.frozen = true }

// Thaw goes on as if there had been no freeze: what was held back is sent, what is owed will be acknowledged, and the
// timers have as much left as they had.
func (c *Conn) Thaw(now time.Time) Actions {
	if c.frozen {
		c.frozen, c.exported = false, false
		c.postpone(max(0, now.Sub(c.now)))
	}
	c.begin(now)
	return c.flush()
}

// postpone moves all that lies ahead, and what it is counted from.
func (c *Conn) postpone(d time.Duration) {
	for _, t := range []*time.Time{&c.timers.ack, &c.timers.retransmit, &c.timers.end, &c.lingerUntil, &c.snd.since,
		&c.snd.timedAt, &c.heard} {
		if !t.IsZero() {
			*t = t.Add(d)
		}
	}
}

// ExportPlain is Export for a next owner that only continues what is plain, as a kernel does: an open connection without
// anything under way. Data that came out of order is left out; the client, which was only told of it by SACK, keeps it
// (RFC 2018 §8).
//
// Errors: ErrNotFrozen; ErrNotOpen outside ESTABLISHED and CLOSE-WAIT; ErrDataQueued while the client has not acknowledged
// everything that was written, because a kernel that continues the connection could not repeat it; ErrTooLarge.
func (c *Conn) ExportPlain(job string, epoch uint64) (transfer.Record, error) {
	switch {
	case !c.frozen:
		return transfer.Record{}, ErrNotFrozen
	case c.state != Established && c.state != CloseWait:
		return transfer.Record{}, ErrNotOpen
	case c.snd.queued() > 0:
		return transfer.Record{}, ErrDataQueued
	}
	rec, err := c.Export(job, epoch)
	rec.Early, rec.EarlyFIN, rec.FINAt, rec.Duplicate = nil, false, 0, wire.Block{}
	return rec, err
}

// Preview is what ExportPlain would return of a connection that were frozen now, less the data and the FIN that are to be
// read. The connection goes on.
func (c *Conn) Preview(job string, epoch uint64) (transfer.Record, error) {
	frozen, exported := c.frozen, c.exported
	c.frozen = true
	rec, err := c.ExportPlain(job, epoch)
	c.frozen, c.exported = frozen, exported
	rec.Data, rec.FIN, rec.RcvNxt, rec.RcvAcked = nil, false, rec.ReadFrom, rec.ReadFrom
	return rec, err
}

// Export returns the whole state of a frozen connection for its next owner, job, as it was at the freeze and with what has
// arrived since. Epoch is that of the DVIPA's owner. Afterwards arriving segments are ignored (the client repeats
// them) until Thaw.
//
// Errors: ErrNotFrozen; ErrHandshake in SYN-RECEIVED, whose client can still be answered with a cookie; ErrClosed;
// ErrTooLarge with more data than a record holds.
func (c *Conn) Export(job string, epoch uint64) (transfer.Record, error) {
	s, r := &c.snd, &c.rcv
	switch {
	case !c.frozen:
		return transfer.Record{}, ErrNotFrozen
	case c.state == SynReceived:
		return transfer.Record{}, ErrHandshake
	case c.state == Closed:
		return transfer.Record{}, ErrClosed
	case len(r.buf) > transfer.MaxData || len(s.buf) > transfer.MaxSendData:
		return transfer.Record{}, ErrTooLarge
	}
	c.exported = true
	rec := transfer.Record{
		Epoch: epoch, Inc: c.cfg.Inc, Handshake: c.cfg.Handshake, Job: job, Hops: c.Hops(),
		ReadFrom: r.read, RcvNxt: r.nxt, RcvAcked: r.acked, RcvEdge: r.edge,
		FIN: r.finished(), Data: clone(r.data()), Early: c.early(),
		Unopened:  uint32(r.read.Add(int(c.cfg.Window)).Sub(r.limit)),
		Duplicate: r.duplicate, Waiting: r.waiting, Reader: transfer.Reader(r.reader),
		SndUna: s.una, SndNxt: s.nxt, SndWnd: s.wnd, SndWL1: s.wl1, SndWL2: s.wl2, SendData: clone(s.buf),
		SndMaxWnd: s.maxWnd, SndFIN: s.closing, SndFINAcked: s.finAcked,
		SndFINFirst: c.state == FinWait1 || c.state == FinWait2 || c.state == Closing || c.state == TimeWait,
		ToRepeat:    uint32(s.nxt.Sub(s.rtx)), PathMSS: s.pathMSS,
		TSOffset: c.cfg.TSOffset, TSLast: c.ts.last, TSRecent: c.ts.recent,
		Recovery: c.exportRecovery(), Clock: c.exportClock(), Settings: c.settings,
	}
	if r.fin && !rec.FIN {
		rec.EarlyFIN, rec.FINAt = true, r.finAt
	}
	return rec, nil
}

// given is what an imported connection was when it came.
type given struct {
	hops      uint8 // of the record that this owner makes, unless it has talked with the client
	read, end seq.Value
}

// Hops is what a record's would be: it starts anew with an owner who has read or written anything.
func (c *Conn) Hops() uint8 {
	if c.rcv.read != c.given.read || c.snd.end() != c.given.end {
		return 0
	}
	return c.given.hops
}

// clone copies octets; none are nil.
func clone(b []byte) []byte { return append([]byte(nil), b...) }

// early are the ranges that wait for data before them, the newest first.
func (c *Conn) early() []transfer.Range {
	var ranges []transfer.Range
	for _, g := range c.rcv.gaps {
		from, to := g.Left.Sub(c.rcv.read), g.Right.Sub(c.rcv.read)
		ranges = append(ranges, transfer.Range{At: g.Left, Data: clone(c.rcv.buf[from:to])})
	}
	return ranges
}

func (c *Conn) exportRecovery() transfer.Recovery {
	s := &c.snd
	return transfer.Recovery{
		Cwnd: uint32(s.cwnd), Ssthresh: uint32(s.ssthresh), Phase: uint8(s.phase), Recover: s.recover,
		Duplicates: uint8(min(s.dups, 255)), Held: append([]wire.Block(nil), s.held...), High: s.high,
		SRTT: s.srtt, RTTVar: s.rttvar, RTO: s.base, Backoff: uint8(min(s.backoff, 255)),
		Timing: s.timing, TimedEnd: s.timedEnd, Probes: c.probes,
	}
}

func (c *Conn) exportClock() transfer.Clock {
	t, s := &c.timers, &c.snd
	return transfer.Clock{
		ACK: left(t.ack, c.now), Retransmit: left(t.retransmit, c.now), End: left(t.end, c.now),
		Linger: left(c.lingerUntil, c.now),
		Silent: left(c.now, s.since), Timed: left(c.now, s.timedAt), Sent: left(c.now, s.sentAt),
		Challenged: left(c.now, c.challenged), Recent: left(c.now, c.ts.seen), Heard: left(c.now, c.heard),
	}
}

// left is how long after now a time comes, for a record: 0 if the time is not set, else one more than the distance. (For
// the age of a time, they are exchanged.)
func left(t, now time.Time) time.Duration {
	if t.IsZero() || now.IsZero() {
		return 0
	}
	return max(0, t.Sub(now)) + 1
}

// ahead is the time that left has measured.
func ahead(d time.Duration, now time.Time) time.Time {
	if d == 0 {
		return never
	}
	return now.Add(d - 1)
}

// ago is the time whose age left has measured.
func ago(d time.Duration, now time.Time) time.Time {
	if d == 0 {
		return never
	}
	return now.Add(1 - d)
}

// Import makes the Conn that continues the connection of a record, with window W, exactly where the old owner stopped. It
// takes over the record's memory. A new owner whom the network has to learn about calls Announce next.
//
// Errors: ErrRecord; ErrWindow if W does not cover the right edge that the client has been promised.
func Import(rec transfer.Record, window uint32, now time.Time) (*Conn, error) {
	if err := rec.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	if phase(rec.Recovery.Phase) > timedOut {
		return nil, fmt.Errorf("%w: phase %d", ErrRecord, rec.Recovery.Phase)
	}
	limit := rec.ReadFrom.Add(int(window))
	if rec.RcvEdge.After(limit) || earlyEnd(&rec).After(limit) {
		return nil, ErrWindow
	}
	c := &Conn{
		cfg:      Config{Inc: rec.Inc, Handshake: rec.Handshake, TSOffset: rec.TSOffset, Window: window},
		settings: rec.Settings, state: stateOf(&rec), now: now, probes: rec.Recovery.Probes,
		ts:          timestamps{last: rec.TSLast, recent: rec.TSRecent, seen: ago(rec.Clock.Recent, now)},
		challenged:  ago(rec.Clock.Challenged, now),
		heard:       ago(max(1, rec.Clock.Heard), now),
		lingerUntil: ahead(rec.Clock.Linger, now),
		timers: timers{
			ack: ahead(rec.Clock.ACK, now), retransmit: ahead(rec.Clock.Retransmit, now), end: ahead(rec.Clock.End, now),
		},
	}
	c.importReceiver(&rec, seq.Max(rec.RcvEdge, limit.Add(-int(rec.Unopened))))
	c.importSender(&rec, now)
	c.given = given{hops: max(rec.Hops, rec.Hops+1), read: c.rcv.read, end: c.snd.end()}
	if c.rcv.nxt != c.rcv.acked && c.timers.ack.IsZero() {
		c.owe()
	}
	c.armRetransmit()
	c.armKeepalive()
	return c, nil
}

// Announce sends an ACK: it tells the client that its window is still open, and the network where the connection now lives.
func (c *Conn) Announce(now time.Time) Actions {
	c.begin(now)
	c.ackNow = c.state != Closed
	return c.flush()
}

// stateOf is the state that the two FINs of a record make.
func stateOf(rec *transfer.Record) State {
	switch {
	case rec.FIN && rec.SndFINAcked:
		return TimeWait
	case rec.FIN && rec.SndFINFirst:
		return Closing
	case rec.FIN && rec.SndFIN:
		return LastAck
	case rec.FIN:
		return CloseWait
	case rec.SndFINAcked:
		return FinWait2
	case rec.SndFIN:
		return FinWait1
	}
	return Established
}

// earlyEnd is the end of what came out of order.
func earlyEnd(rec *transfer.Record) seq.Value {
	end := rec.RcvNxt
	for _, e := range rec.Early {
		end = seq.Max(end, e.At.Add(len(e.Data)))
	}
	return end
}

func (c *Conn) importReceiver(rec *transfer.Record, limit seq.Value) {
	c.rcv = receiver{
		read: rec.ReadFrom, nxt: rec.RcvNxt, acked: rec.RcvAcked, edge: rec.RcvEdge, limit: limit, buf: rec.Data,
		duplicate: rec.Duplicate, waiting: rec.Waiting, reader: reader(rec.Reader),
		fin: rec.FIN || rec.EarlyFIN, finAt: rec.FINAt,
	}
	if rec.FIN {
		c.rcv.finAt = rec.RcvNxt.Add(-1)
	}
	for i := len(rec.Early) - 1; i >= 0; i-- { // the newest is stored last
		c.rcv.store(rec.Early[i].At, rec.Early[i].Data)
	}
}

func (c *Conn) importSender(rec *transfer.Record, now time.Time) {
	c.snd = newSender(&c.cfg, rec.SndUna)
	s, g, k := &c.snd, &rec.Recovery, &rec.Clock
	s.nxt, s.rtx, s.buf = rec.SndNxt, rec.SndNxt.Add(-int(rec.ToRepeat)), rec.SendData
	s.closing, s.finAcked, s.pathMSS = rec.SndFIN, rec.SndFINAcked, rec.PathMSS
	s.wnd, s.maxWnd, s.wl1, s.wl2 = rec.SndWnd, max(rec.SndMaxWnd, rec.SndWnd), rec.SndWL1, rec.SndWL2
	s.sentAt, s.since, s.timedAt = ago(k.Sent, now), ago(k.Silent, now), ago(k.Timed, now)
	s.timing, s.timedEnd = g.Timing, g.TimedEnd
	if g.Cwnd == 0 { // the record begins anew, as it may
		return
	}
	s.congestion = congestion{cwnd: int(g.Cwnd), ssthresh: int(g.Ssthresh), phase: phase(g.Phase), recover: g.Recover,
		dups: int(g.Duplicates)}
	s.held, s.high = g.Held, g.High
	s.srtt, s.rttvar, s.base, s.backoff = g.SRTT, g.RTTVar, max(g.RTO, minRTO), uint(g.Backoff)
}
