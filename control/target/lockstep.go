package target

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"baton/control/target/bpf"
	"baton/control/transfer"
	"baton/fastpath/wire"
)

// Why a server that speaks first cannot take a connection.
var (
	ErrDialogue = errors.New("dialogue mismatch")
	ErrNoPlay   = errors.New("nothing was played for this transfer here")
)

// egressPrefix begins the names of pinned links; the interface's index follows.
const egressPrefix = "egress-"

const (
	lengthsMax = 1024 // dialogues whose answers' length is remembered
	triesMax   = 3    // with a length that is learned from the one before
)

// Lockstep plays to servers that speak first what they have missed. A connection is imported where its server has said
// nothing yet: as many octets before the routing host's SND.NXT as the server is going to say, and as many before its
// RCV.NXT as the client has said. The program takes what the server says from the interfaces, and the answers here
// acknowledge it; when all is said the connection is where the routing host's is, and waits for Continue.
//
// Methods may be called concurrently.
type Lockstep struct {
	dir      string
	ns       *Namespace
	importer *Importer
	program  *ebpf.Program
	entries  *ebpf.Map
	routes   *netlink.Handle
	stop     [2]int // a pipe; its closing wakes the reader
	reader   sync.WaitGroup
	counts   lockstepCounts

	mu      sync.Mutex   // guards what follows
	egress  map[int]bool // interfaces that have the program
	plays   map[wire.Tuple]*play
	lengths map[string]int // of the answers to a dialogue, as learned
	closed  bool
}

type lockstepCounts struct{ played, learned, mismatched, stolen, abandoned atomic.Uint64 }

// Counts are totals of a Lockstep since it was opened.
type Counts struct {
	Played     uint64 // dialogues whose connection then waited for its data
	Learned    uint64 // played again, because the answers had another length than expected
	Mismatched uint64 // the server answered otherwise than the routing host
	Abandoned  uint64 // well played, and the connection went elsewhere
	Stolen     uint64 // segments taken from the interfaces
}

// OpenLockstep begins to read the importer's TAP. Connections of an earlier agent that were not continued are ended. dir has
// the namespace's pins.
func OpenLockstep(n *Namespace, dir string, im *Importer) (*Lockstep, error) {
	l := &Lockstep{dir: dir, ns: n, importer: im, egress: map[int]bool{}, plays: map[wire.Tuple]*play{},
		lengths: map[string]int{}, stop: [2]int{-1, -1}}
	err := l.load()
	if err == nil {
		l.routes, err = netlink.NewHandleAt(n.handle, unix.NETLINK_ROUTE)
	}
	if err == nil {
		err = l.restore()
	}
	if err == nil {
		err = unix.Pipe2(l.stop[:], unix.O_CLOEXEC)
	}
	if err != nil {
		l.release()
		return nil, fmt.Errorf("lockstep: %w", err)
	}
	l.reader.Go(l.read)
	return l, nil
}

// retireLockstep takes down what an earlier agent's Lockstep has left, where no job has one any more: connections that
// were not continued end, and the program leaves the interfaces. Those that were continued do not need it.
func retireLockstep(n *Namespace, dir string, im *Importer) error {
	pins, err := egressPins(dir)
	if err != nil || len(pins) == 0 {
		return err
	}
	l, err := OpenLockstep(n, dir, im)
	if err != nil {
		return err
	}
	errs := []error{l.Close()}
	for _, pin := range pins {
		if err := os.Remove(pin); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// egressPins are the links of a namespace's program.
func egressPins(dir string) ([]string, error) {
	files, err := os.ReadDir(dir)
	var pins []string
	for _, f := range files {
		if strings.HasPrefix(f.Name(), egressPrefix) {
			pins = append(pins, filepath.Join(dir, f.Name()))
		}
	}
	return pins, err
}

// load loads the program with the map that the guard reads, too.
func (l *Lockstep) load() error {
	spec, err := bpf.LoadLockstep()
	if err != nil {
		return err
	}
	if l.entries, err = openPinned(l.dir, spec.Maps[bpf.LockstepMapPlays]); err != nil {
		return err
	}
	var programs bpf.LockstepPrograms
	err = spec.LoadAndAssign(&programs, &ebpf.CollectionOptions{
		MapReplacements: map[string]*ebpf.Map{bpf.LockstepMapPlays: l.entries},
	})
	if err != nil {
		return fmt.Errorf("load program: %w", err)
	}
	l.program = programs.BatonLockstep
	return nil
}

// restore puts this program in the place of an earlier agent's, and ends the connections that it had begun: whoever
// would continue them is gone.
func (l *Lockstep) restore() error {
	pins, err := egressPins(l.dir)
	if err != nil {
		return err
	}
	for _, pin := range pins {
		if err := l.takeOver(pin); err != nil {
			return err
		}
	}
	var flow bpf.LockstepBatonFlow
	var entry bpf.LockstepBatonPlay
	var flows []bpf.LockstepBatonFlow
	all := l.entries.Iterate()
	for all.Next(&flow, &entry) {
		flows = append(flows, flow)
	}
	if err := all.Err(); err != nil {
		return fmt.Errorf("connections that were played to: %w", err)
	}
	for _, f := range flows {
		if err := l.finish(tupleOf(&f)); err != nil {
			return err
		}
	}
	return nil
}

// takeOver updates the program of a pinned link, or removes the pin of an interface that is gone.
func (l *Lockstep) takeOver(path string) error {
	old, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return os.Remove(path)
	}
	defer old.Close()
	info, err := old.Info()
	if err != nil || info.TCX() == nil || info.TCX().Ifindex == 0 {
		return old.Unpin()
	}
	l.egress[int(info.TCX().Ifindex)] = true
	return old.Update(l.program)
}

// Play makes the connection of an offer whose server, at listener, then believes that it has talked to the client; until
// Continue or Abandon no segment of it passes. ErrDialogue: the server answers otherwise than the routing host has, or not
// before ctx ends.
func (l *Lockstep) Play(ctx context.Context, host string, o *transfer.Offer, listener netip.AddrPort) error {
	rec, err := transfer.Decode(o.Dialogue.Record)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRecord, err)
	}
	if rec.Inc != o.Inc {
		return fmt.Errorf("%w: it is not of the connection that is offered", ErrRecord)
	}
	ctx, cancel := context.WithCancel(ctx)
	p := newPlay(l, host, o, &rec, cancel)
	defer close(p.over)
	err = l.begin(p)
	if err == nil {
		err = l.attach(rec.Inc.Tuple)
	}
	if err == nil {
		err = l.perform(ctx, p, listener)
	}
	if err != nil {
		if errors.Is(err, ErrDialogue) {
			l.counts.mismatched.Add(1)
		}
		return errors.Join(err, l.end(p))
	}
	l.counts.played.Add(1)
	return nil
}

// begin makes p the play of its tuple. One of an older offer ends first.
func (l *Lockstep) begin(p *play) error {
	l.mu.Lock()
	older, closed := l.plays[p.tuple()], l.closed
	if !closed {
		l.plays[p.tuple()] = p
	}
	l.mu.Unlock()
	if closed {
		return ErrNoPlay
	}
	if older != nil {
		older.cancel()
		<-older.over
	}
	return nil
}

// attach puts the program on the interface that leads to the client.
func (l *Lockstep) attach(t wire.Tuple) error {
	routes, err := l.routes.RouteGetWithOptions(t.Client.Addr().AsSlice(),
		&netlink.RouteGetOptions{SrcAddr: t.Service.Addr().AsSlice()})
	if err == nil && len(routes) == 0 {
		err = unix.ENETUNREACH
	}
	if err != nil {
		return fmt.Errorf("route to the client: %w", err)
	}
	index := routes[0].LinkIndex
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.egress[index] {
		return nil
	}
	err = l.ns.Do(func() error { return l.attachTo(index) })
	if err != nil {
		return fmt.Errorf("attach to interface %d: %w", index, err)
	}
	l.egress[index] = true
	return nil
}

func (l *Lockstep) attachTo(index int) error {
	attached, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: l.program, Attach: ebpf.AttachTCXEgress})
	if err != nil {
		return err
	}
	defer attached.Close()
	return attached.Pin(filepath.Join(l.dir, fmt.Sprint(egressPrefix, index)))
}

// perform plays until the server says as much as was expected.
func (l *Lockstep) perform(ctx context.Context, p *play, listener netip.AddrPort) error {
	key := p.key()
	l.mu.Lock()
	length := l.lengths[key]
	l.mu.Unlock()
	for range triesMax {
		said, err := p.try(ctx, listener, length)
		if err != nil || said == length {
			return err
		}
		l.counts.learned.Add(1)
		l.learn(key, said)
		length = said
		if err := l.importer.Remove(p.tuple()); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: the server's answers differ in length from one connection to the next: have it greet without "+
		"times and numbers", ErrDialogue)
}

// learn remembers how much a server says.
func (l *Lockstep) learn(key string, length int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lengths) >= lengthsMax {
		clear(l.lengths)
	}
	l.lengths[key] = length
}

// Continue hands the connection that was played for a transfer to its application, with the data of the record, and lets
// segments pass in both directions. After an error nothing exists.
func (l *Lockstep) Continue(host string, id transfer.ID, r *transfer.Record) (Imported, error) {
	l.mu.Lock()
	p := l.plays[r.Inc.Tuple]
	l.mu.Unlock()
	if p == nil || p.host != host || p.id != id {
		return Imported{}, ErrNoPlay
	}
	done, err := p.goOn(r)
	if err != nil {
		return Imported{}, errors.Join(err, l.end(p))
	}
	return done, l.remove(p)
}

// Abandon ends the connection that was played for a transfer, if it was not continued.
func (l *Lockstep) Abandon(host string, id transfer.ID) error {
	p := l.find(host, id)
	if p == nil {
		return nil
	}
	l.counts.abandoned.Add(1)
	return l.end(p)
}

func (l *Lockstep) find(host string, id transfer.ID) *play {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.plays {
		if p.host == host && p.id == id {
			return p
		}
	}
	return nil
}

// end ends a play with its connection.
func (l *Lockstep) end(p *play) error {
	l.mu.Lock()
	current := l.plays[p.tuple()] == p
	l.mu.Unlock()
	if !current {
		return nil // the tuple belongs to a newer one
	}
	return errors.Join(l.finish(p.tuple()), l.remove(p))
}

// finish ends a connection, and then the watch over it.
func (l *Lockstep) finish(t wire.Tuple) error {
	if err := l.importer.Remove(t); err != nil {
		return err
	}
	return l.forget(t)
}

// remove takes a play out of the tables; its segments pass then.
func (l *Lockstep) remove(p *play) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.plays[p.tuple()] != p {
		return nil
	}
	delete(l.plays, p.tuple())
	return l.forget(p.tuple())
}

func (l *Lockstep) forget(t wire.Tuple) error {
	if err := l.entries.Delete(playKey(t)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	return nil
}

// read passes on what the program has taken, until Close.
func (l *Lockstep) read() {
	tap := l.importer.tap.fd
	poll := []unix.PollFd{{Fd: int32(tap), Events: unix.POLLIN}, {Fd: int32(l.stop[0]), Events: unix.POLLIN}}
	frame := make([]byte, tapMTU+1024)
	for {
		_, err := unix.Poll(poll, -1)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil || poll[1].Revents != 0 || poll[0].Revents&(unix.POLLERR|unix.POLLNVAL) != 0:
			return // closed, or the TAP is gone
		}
		if n, err := unix.Read(tap, frame); err == nil {
			l.stolen(frame[:n])
		}
	}
}

// stolen gives a segment to its play. What else comes by the TAP is of no interest.
func (l *Lockstep) stolen(frame []byte) {
	f, err := wire.ParseTCP(frame)
	if err != nil {
		return
	}
	l.counts.stolen.Add(1)
	l.mu.Lock()
	p := l.plays[wire.Tuple{Client: f.Dst, Service: f.Src}]
	l.mu.Unlock()
	if p == nil {
		return
	}
	s := f.Segment
	s.Payload = slices.Clone(s.Payload)
	select {
	case p.heard <- s:
	default: // the server will repeat it
	}
}

// Counts returns the totals.
func (l *Lockstep) Counts() Counts {
	c := &l.counts
	return Counts{Played: c.played.Load(), Learned: c.learned.Load(), Mismatched: c.mismatched.Load(),
		Abandoned: c.abandoned.Load(), Stolen: c.stolen.Load()}
}

// Events are the totals as metrics and batonctl name them.
func (c Counts) Events() map[string]uint64 {
	return map[string]uint64{"played": c.Played, "learned": c.Learned, "mismatched": c.Mismatched,
		"abandoned": c.Abandoned, "stolen": c.Stolen}
}

// Close ends what was not continued. The program stays.
func (l *Lockstep) Close() error {
	l.mu.Lock()
	l.closed = true
	plays := slices.Collect(maps.Values(l.plays))
	l.mu.Unlock()
	var errs []error
	for _, p := range plays {
		p.cancel()
		<-p.over
		errs = append(errs, l.end(p))
	}
	unix.Close(l.stop[1])
	l.stop[1] = -1
	l.reader.Wait()
	return errors.Join(append(errs, l.release())...)
}

// release lets go of what load and OpenLockstep have opened.
func (l *Lockstep) release() error {
	for _, fd := range l.stop {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	if l.routes != nil {
		l.routes.Close()
	}
	var errs []error
	if l.program != nil {
		errs = append(errs, l.program.Close())
	}
	if l.entries != nil {
		errs = append(errs, l.entries.Close())
	}
	return errors.Join(errs...)
}

// playKey names a connection for the programs.
func playKey(t wire.Tuple) *bpf.LockstepBatonFlow {
	return &bpf.LockstepBatonFlow{
		ClientBe: lastWords(t.Client.Addr()), ServiceBe: lastWords(t.Service.Addr()),
		ClientPortBe: swap16(t.Client.Port()), ServicePortBe: swap16(t.Service.Port()),
	}
}

// lastWords is words, but IPv4 is the last one.
func lastWords(a netip.Addr) [4]uint32 {
	w := words(a)
	if a.Is4() {
		w[0], w[3] = 0, w[0]
	}
	return w
}

// tupleOf is the reverse of playKey.
func tupleOf(f *bpf.LockstepBatonFlow) wire.Tuple {
	return wire.Tuple{
		Client:  netip.AddrPortFrom(addrOf(f.ClientBe), swap16(f.ClientPortBe)),
		Service: netip.AddrPortFrom(addrOf(f.ServiceBe), swap16(f.ServicePortBe)),
	}
}
