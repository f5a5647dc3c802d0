package target

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"

	"baton/control/target/bpf"
	"baton/control/transfer"
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// Mover takes the FIN of connections that their application closes while they are idle and kept alive, so that they
// can go back to their routing host. It stands in one network namespace, beside the Guard and the Importer, as long as
// it is open: without it every FIN passes. Methods may be called concurrently.
type Mover struct {
	objects bpf.MoveObjects
	links   []link.Link
	reader  *ringbuf.Reader
	done    chan struct{}

	mu    sync.Mutex // guards what follows
	flows map[wire.Tuple]origin
}

// origin is what the kernel does not know of a connection.
type origin struct {
	inc      wire.Incarnation
	epoch    uint64
	shake    wire.Handshake
	tsOffset uint32
}

// OpenMover stands on the interfaces that the namespace has, and at its importer's TAP. taken is called, from one
// goroutine, with the state of each connection whose FIN was taken: it is frozen then, its socket is an orphan, and it
// must end by LetGo, or by an RST of the Importer and Forget.
func OpenMover(n *Namespace, interfaces []string, im *Importer, log *slog.Logger, taken func(transfer.Record)) (
	*Mover, error,
) {
	m := &Mover{flows: make(map[wire.Tuple]origin), done: make(chan struct{})}
	if err := n.Do(func() error { return m.open(interfaces, im.tap.index) }); err != nil {
		close(m.done)
		return nil, errors.Join(fmt.Errorf("mover: %w", err), m.Close())
	}
	go m.read(log, taken)
	return m, nil
}

func (m *Mover) open(interfaces []string, tap int) error {
	indexes, err := indexesOf(interfaces)
	if err != nil {
		return err
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return err
	}
	if err := bpf.LoadMoveObjects(&m.objects, nil); err != nil {
		return loadProblem(err)
	}
	if m.reader, err = ringbuf.NewReader(m.objects.Taken); err != nil {
		return err
	}
	if err := m.attach(tap, m.objects.BatonMoveImport, ebpf.AttachTCXIngress); err != nil {
		return err
	}
	for name, index := range indexes {
		err := errors.Join(m.attach(index, m.objects.BatonMoveIn, ebpf.AttachTCXIngress),
			m.attach(index, m.objects.BatonMoveOut, ebpf.AttachTCXEgress))
		if err != nil {
			return fmt.Errorf("attach to %s: %w", name, err)
		}
	}
	return nil
}

// attach puts a program behind those that are there: packets in tunnels are then taken out.
func (m *Mover) attach(index int, program *ebpf.Program, where ebpf.AttachType) error {
	l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: program, Attach: where, Anchor: link.Tail()})
	if err == nil {
		m.links = append(m.links, l)
	}
	return err
}

// moveKey names a connection for the program.
func moveKey(t wire.Tuple) *bpf.MoveBatonFlow { return (*bpf.MoveBatonFlow)(playKey(t)) }

// Follow has the program follow a connection that is about to be imported. window is what its next owner can promise
// the client, octets: more is not announced.
func (m *Mover) Follow(r *transfer.Record, window uint32) error {
	return m.follow(r, bpf.MoveBatonMove{Window: window})
}

func (m *Mover) follow(r *transfer.Record, move bpf.MoveBatonMove) error {
	move.Scale, move.Acked, move.Edge = uint32(r.Handshake.RcvScale), uint32(r.RcvAcked), uint32(r.RcvEdge)
	move.Request.Next, move.Response.Next = uint32(r.ReadFrom), uint32(r.SndNxt)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.objects.Moves.Put(moveKey(r.Inc.Tuple), &move); err != nil {
		return fmt.Errorf("follow %v: %w", r.Inc.Tuple, err)
	}
	m.flows[r.Inc.Tuple] = origin{inc: r.Inc, epoch: r.Epoch, shake: r.Handshake, tsOffset: r.TSOffset}
	return nil
}

// Forget forgets a connection that has no socket any more; it does nothing about others of its tuple.
func (m *Mover) Forget(inc wire.Incarnation) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.flows[inc.Tuple].inc != inc {
		return nil
	}
	delete(m.flows, inc.Tuple)
	if err := m.objects.Moves.Delete(moveKey(inc.Tuple)); err != nil {
		return fmt.Errorf("forget %v: %w", inc.Tuple, err)
	}
	return nil
}

// LetGo thaws a connection whose FIN was taken: it ends as if nobody had looked, with the kernel's next repetition of
// the FIN.
func (m *Mover) LetGo(inc wire.Incarnation) error {
	return m.setPhase(inc, bpf.MoveBatonPhaseBATON_PHASE_TAKEN, bpf.MoveBatonPhaseBATON_PHASE_LEFT)
}

// Bound has the program keep the promises of a connection within what a next owner can keep, and leave its FIN alone.
func (m *Mover) Bound(r *transfer.Record, window uint32) error {
	// An edge that the client knows never goes back, although windows are rounded down.
	promised := uint32(max(0, r.RcvEdge.Sub(r.ReadFrom))) + 1<<r.Handshake.RcvScale
	return m.follow(r, bpf.MoveBatonMove{Window: max(window, promised), Closes: 1})
}

// Why a connection cannot be frozen or thawed.
var (
	// ErrNotFollowed is a connection that came before the Mover was opened.
	ErrNotFollowed = errors.New("it came before the agent was started")
	// ErrOtherPhase is a connection that is frozen already, or that has closed, or is not frozen any more.
	ErrOtherPhase = errors.New("it is on its way to another owner, or closes")
)

// Hold freezes a connection that its application gives away: nothing of it passes until Release. Only one that is open
// can be: whoever froze it first decides what becomes of it.
func (m *Mover) Hold(inc wire.Incarnation) error {
	return m.setPhase(inc, bpf.MoveBatonPhaseBATON_PHASE_OPEN, bpf.MoveBatonPhaseBATON_PHASE_TAKEN)
}

// Release thaws a connection that Hold froze.
func (m *Mover) Release(inc wire.Incarnation) error {
	return m.setPhase(inc, bpf.MoveBatonPhaseBATON_PHASE_TAKEN, bpf.MoveBatonPhaseBATON_PHASE_OPEN)
}

// setPhase has the program change the phase: it may be about to do so itself, and notes promises in the same value.
func (m *Mover) setPhase(inc wire.Incarnation, from, to bpf.MoveBatonPhase) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.flows[inc.Tuple].inc != inc {
		return ErrNotFollowed
	}
	wish := bpf.MoveBatonChange{Flow: *moveKey(inc.Tuple), From: from, To: to}
	changed, err := m.objects.BatonMoveChange.Run(&ebpf.RunOptions{Context: &wish})
	if err != nil {
		return fmt.Errorf("freeze or thaw %v: %w", inc.Tuple, err)
	}
	if changed == 0 {
		return ErrOtherPhase
	}
	return nil
}

// Promised is what the client of a frozen connection knows: the highest acknowledgment and right edge; and the timestamp
// that the last segment, which was dropped, echoes.
func (m *Mover) Promised(t wire.Tuple) (acked, edge seq.Value, echoes uint32, err error) {
	var move bpf.MoveBatonMove
	if err := m.objects.Moves.Lookup(moveKey(t), &move); err != nil {
		return 0, 0, 0, fmt.Errorf("%w: %w", ErrNotFollowed, err)
	}
	return seq.Value(move.Acked), seq.Value(move.Edge), move.Tsecr, nil
}

// read hands the taken ones over until the Mover is closed.
func (m *Mover) read(log *slog.Logger, taken func(transfer.Record)) {
	defer close(m.done)
	var event ringbuf.Record
	for {
		err := m.reader.ReadInto(&event)
		if errors.Is(err, ringbuf.ErrClosed) {
			return
		}
		var t bpf.MoveBatonTaken
		if err == nil {
			_, err = binary.Decode(event.RawSample, binary.NativeEndian, &t)
		}
		if err != nil {
			log.Error("a closing connection is not understood", "error", err)
			continue
		}
		if r, ok := m.record(&t); ok {
			taken(r)
		}
	}
}

// record is the state of a connection whose FIN was taken; false: its tuple has another one meanwhile.
func (m *Mover) record(t *bpf.MoveBatonTaken) (transfer.Record, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o, known := m.flows[tupleOf((*bpf.LockstepBatonFlow)(&t.Flow))]
	var move bpf.MoveBatonMove
	err := m.objects.Moves.Lookup(&t.Flow, &move)
	if !known || err != nil || move.Phase != bpf.MoveBatonPhaseBATON_PHASE_TAKEN {
		return transfer.Record{}, false
	}
	rcvNxt, sndNxt := seq.Value(t.RcvNxt), seq.Value(t.SndNxt)
	return transfer.Record{
		Epoch: o.epoch, Inc: o.inc, Handshake: o.shake,
		ReadFrom: rcvNxt, RcvNxt: rcvNxt, RcvAcked: seq.Value(t.Acked), RcvEdge: seq.Value(t.Edge),
		SndUna: sndNxt, SndNxt: sndNxt, SndWnd: t.SndWnd, SndMaxWnd: t.SndWnd, SndWL1: seq.Value(t.SndWl1), SndWL2: sndNxt,
		TSOffset: o.tsOffset, TSLast: t.Tsval, TSRecent: t.Tsecr,
	}, true
}

// Closes are totals since the Mover was opened.
type Closes struct {
	Taken    uint64            // FINs: their connections went back, or were let go of again
	Passed   map[string]uint64 // FINs, by the reason
	Waited   uint64            // FINs that the kernel was made to repeat, until the client had acknowledged all before
	Held     uint64            // packets that were dropped because a FIN was taken, or waits: the client repeats them
	Repeated uint64            // FINs and others of their orphans, dropped
}

// passed names the reasons why a FIN passes, as metrics and batonctl have them.
var passed = map[bpf.MoveBatonClose]string{
	bpf.MoveBatonCloseBATON_CLOSE_DATA:     "data",
	bpf.MoveBatonCloseBATON_CLOSE_SAID:     "said",
	bpf.MoveBatonCloseBATON_CLOSE_FRAMING:  "framing",
	bpf.MoveBatonCloseBATON_CLOSE_RESPONSE: "response",
	bpf.MoveBatonCloseBATON_CLOSE_REQUEST:  "request",
	bpf.MoveBatonCloseBATON_CLOSE_UNACKED:  "unacknowledged",
	bpf.MoveBatonCloseBATON_CLOSE_CLIENT:   "half_closed",
	bpf.MoveBatonCloseBATON_CLOSE_WINDOW:   "window",
	bpf.MoveBatonCloseBATON_CLOSE_FULL:     "busy",
}

// Closes reads the totals.
func (m *Mover) Closes() (Closes, error) {
	c := Closes{Passed: make(map[string]uint64, len(passed))}
	var totals [bpf.MoveBatonCloseBATON_CLOSES]uint64
	for i := range totals {
		var perCPU []uint64
		if err := m.objects.Closes.Lookup(uint32(i), &perCPU); err != nil {
			return c, fmt.Errorf("counters of closes: %w", err)
		}
		for _, n := range perCPU {
			totals[i] += n
		}
	}
	c.Taken = totals[bpf.MoveBatonCloseBATON_CLOSE_TAKEN]
	c.Waited = totals[bpf.MoveBatonCloseBATON_CLOSE_WAITS]
	c.Held = totals[bpf.MoveBatonCloseBATON_CLOSE_HELD_IN]
	c.Repeated = totals[bpf.MoveBatonCloseBATON_CLOSE_HELD_OUT]
	for reason, name := range passed {
		c.Passed[name] = totals[reason]
	}
	return c, nil
}

// Close lets every FIN pass from now on, those that were taken with their next repetition.
func (m *Mover) Close() error {
	var errs []error
	for _, l := range m.links {
		errs = append(errs, l.Close())
	}
	if m.reader != nil {
		errs = append(errs, m.reader.Close())
	}
	<-m.done
	return errors.Join(append(errs, m.objects.Close())...)
}
