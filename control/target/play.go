package target

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"baton/control/target/bpf"
	"baton/control/transfer"
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// heardMax is how many segments of a server wait to be looked at.
const heardMax = 256

// play is one dialogue with a server: this side of it speaks for the client. For one goroutine at a time; begin and end of
// Lockstep see to that.
type play struct {
	lockstep *Lockstep
	host     string
	id       transfer.ID
	record   *transfer.Record // the connection at the end of the dialogue
	turns    []transfer.Turn
	cancel   context.CancelFunc
	heard    chan wire.Segment // what the server has sent
	over     chan struct{}     // closed when Play has returned

	from  seq.Value // of the first octet that the client says
	snd   seq.Value // the client's next octet
	rcv   seq.Value // the server's next one
	tsval uint32    // the server's newest
}

func newPlay(l *Lockstep, host string, o *transfer.Offer, r *transfer.Record, cancel context.CancelFunc) *play {
	return &play{lockstep: l, host: host, id: o.Transfer, record: r, turns: o.Dialogue.Turns, cancel: cancel,
		heard: make(chan wire.Segment, heardMax), over: make(chan struct{}),
		from: r.ReadFrom.Add(-o.Dialogue.Said())}
}

func (p *play) tuple() wire.Tuple { return p.record.Inc.Tuple }

// key names dialogues whose answers are likely to have the same length: of a job, and alike in the answers' beginnings.
func (p *play) key() string {
	var b strings.Builder
	b.WriteString(p.record.Job)
	for _, t := range p.turns {
		fmt.Fprintf(&b, "\x00%s\x00%s", t.More, t.Last)
	}
	return b.String()
}

// try has the dialogue once, as if the server were to say length octets, and returns how many it has said.
func (p *play) try(ctx context.Context, listener netip.AddrPort, length int) (said int, err error) {
	if err := p.watch(bpf.LockstepBatonPlay{}); err != nil {
		return 0, err
	}
	p.drain()
	start := p.record.SndNxt.Add(-length)
	p.snd, p.rcv = p.from, start
	r := *p.record
	r.ReadFrom, r.RcvNxt, r.SndUna, r.SndNxt = p.from, p.from, start, start
	if _, err := p.lockstep.importer.Import(ctx, &r, listener); err != nil {
		return 0, err
	}
	for _, t := range p.turns {
		if err := p.turn(ctx, t); err != nil {
			return 0, err
		}
	}
	return p.rcv.Sub(start), nil
}

// watch tells the programs what may pass of the connection.
func (p *play) watch(entry bpf.LockstepBatonPlay) error {
	entry.Tap = uint32(p.lockstep.importer.tap.index)
	return p.lockstep.entries.Put(playKey(p.tuple()), &entry)
}

// drain takes what was not looked at, and returns whether the server has said more than what was acknowledged: it repeats
// what was acknowledged late.
func (p *play) drain() (spoke bool) {
	for {
		select {
		case s := <-p.heard:
			spoke = spoke || s.Flags.Has(wire.RST) || s.Seq.Add(s.Len()).After(p.rcv)
		default:
			return spoke
		}
	}
}

// turn says what the client has said, and listens until the server has answered.
func (p *play) turn(ctx context.Context, t transfer.Turn) error {
	if len(t.Say) > 0 {
		if err := p.say(wire.ACK|wire.PSH, t.Say); err != nil {
			return err
		}
	}
	for a := (answer{turn: t}); !a.done; {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: the server does not answer in time; it has said %.80q", ErrDialogue, a.line)
		case s := <-p.heard:
			if err := p.hear(s, &a); err != nil {
				return err
			}
		}
	}
	return nil
}

// hear takes a segment of the server, and acknowledges it at once: what waits for an acknowledgment would be repeated, or
// hold back what comes after it.
func (p *play) hear(s wire.Segment, a *answer) error {
	if s.Flags&wire.RST != 0 {
		return fmt.Errorf("%w: the server resets the connection", ErrDialogue)
	}
	known := p.rcv.Sub(s.Seq)
	if known < 0 || known >= len(s.Payload) && s.Flags&wire.FIN == 0 {
		if len(s.Payload) == 0 {
			return nil
		}
		return p.say(wire.ACK, nil)
	}
	fresh := s.Payload[min(known, len(s.Payload)):]
	p.rcv, p.tsval = p.rcv.Add(len(fresh)), s.Options.TSVal
	if err := a.add(fresh); err != nil {
		return fmt.Errorf("%w: %w", ErrDialogue, err)
	}
	if s.Flags&wire.FIN != 0 {
		return fmt.Errorf("%w: the server closes the connection", ErrDialogue)
	}
	return p.say(wire.ACK, nil)
}

// say sends a segment of the client.
func (p *play) say(flags wire.Flags, text []byte) error {
	r := p.record
	s := wire.Segment{Seq: p.snd, Ack: p.rcv, Flags: flags, Payload: text,
		Window: uint16(min(r.SndWnd>>r.Handshake.SndScale, 65535))}
	if r.Handshake.Timestamps {
		s.Options = wire.Options{HasTimestamps: true, TSVal: r.TSRecent, TSEcr: p.tsval}
	}
	p.snd = p.snd.Add(len(text))
	frame := wire.AppendTCP(nil, wire.Link{Dst: tapMAC, Src: agentMAC}, r.Inc.Client, r.Inc.Service, s)
	return p.lockstep.importer.send(frame)
}

// goOn opens the connection for its client, and gives it the data.
func (p *play) goOn(r *transfer.Record) (Imported, error) {
	switch {
	case r.Inc != p.record.Inc || r.ReadFrom != p.record.ReadFrom || r.SndNxt != p.record.SndNxt:
		return Imported{}, fmt.Errorf("%w: it does not begin where the dialogue has ended", ErrRecord)
	case p.drain():
		return Imported{}, fmt.Errorf("%w: the server has gone on speaking", ErrDialogue)
	}
	if err := checkRecord(r); err != nil {
		return Imported{}, err
	}
	err := p.watch(bpf.LockstepBatonPlay{Open: 1, Seq: uint32(r.SndNxt), Ack: uint32(r.RcvNxt)})
	if err != nil {
		return Imported{}, err
	}
	return p.lockstep.importer.Continue(r, p.from)
}

// addrOf is the address that lastWords has taken apart.
func addrOf(w [4]uint32) netip.Addr {
	var b [16]byte
	for i, word := range w {
		binary.NativeEndian.PutUint32(b[4*i:], word)
	}
	if w[0]|w[1]|w[2] == 0 {
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return netip.AddrFrom16(b)
}
