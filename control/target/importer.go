package target

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"baton/control/target/bpf"
	"baton/control/transfer"
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// ErrKernel says that no import is possible here.
var ErrKernel = errors.New("use a kernel with bpf_sk_assign_tcp_reqsk and BTF (Linux 6.9 or later, " +
	"CONFIG_DEBUG_INFO_BTF, CONFIG_SYN_COOKIES)")

// Why an import failed. After any of them nothing exists at this host, and nothing will.
var (
	ErrNotListening = errors.New("nobody listens there")
	ErrBacklog      = errors.New("the listener's accept queue stayed full: " +
		"let the application accept faster, or raise its backlog and net.core.somaxconn")
	ErrLeftover = errors.New("a socket of an earlier connection with this tuple could not be removed: " +
		"set net.ipv4.tcp_rfc1337=0")
	ErrRefused   = errors.New("the kernel refused the connection")
	ErrRecord    = errors.New("record cannot be imported into a kernel")
	ErrSwallowed = errors.New("the packet filter swallowed the connection's first segment: " +
		"accept it, on the interfaces baton*, in the input chain")
)

// The smallest MSS of a client that the kernel takes (net/core/filter.c: TCP_MIN_MSS of the family).
const (
	MinMSS4 = 536
	MinMSS6 = 1220
)

// Limits of one import. Each is far above what was ever needed.
const (
	killsMax     = 8                      // exact RSTs for one leftover
	killPause    = 500 * time.Microsecond // an application inside a system call on the leftover delays its end
	backlogPause = 2 * time.Millisecond
	settlePause  = 2 * time.Millisecond // for the kernel's report that a socket has ended already
	resendsMax   = 20
	resendPause  = 5 * time.Millisecond
)

// tapName is the pattern for the kernel to choose a free name from.
const tapName = "baton%d"

// Imported is a connection that exists now.
type Imported struct {
	State   SocketState // Established, or CloseWait with the client's FIN; later states if the application was fast
	RcvNxt  seq.Value   // what the socket expects next, read from it
	Cookie  uint64      // names the socket; 0 when it had ended before it could be looked at
	Took    time.Duration
	Killed  int // leftovers removed first
	Retried int // times that the accept queue was full
}

// Importer makes connections in one network namespace. Its methods may be called concurrently; imports follow each
// other, and one takes tens of microseconds.
type Importer struct {
	tap     *tap
	objects bpf.ImportObjects
	link    link.Link
	diag    *diag
	ends    *ends

	mu    sync.Mutex // guards what follows, and the program's request and result
	frame []byte
}

// OpenImporter makes the TAP in the namespace and loads the program. ended is called, from one goroutine, for every
// TCP socket of the namespace that the kernel forgets, imported or not; with the zero Socket when some may have been
// missed. The application's abort takes a socket's tuple away; its Cookie stays. ErrKernel: the kernel lacks
// bpf_sk_assign_tcp_reqsk.
func OpenImporter(n *Namespace, ended func(Socket)) (*Importer, error) {
	im := &Importer{}
	if err := n.Do(im.open); err != nil {
		im.Close()
		return nil, fmt.Errorf("importer: %w", err)
	}
	im.ends.watch(ended)
	return im, nil
}

func (im *Importer) open() (err error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return err
	}
	if err := bpf.LoadImportObjects(&im.objects, nil); err != nil {
		return loadProblem(err)
	}
	if im.tap, err = openTAP(tapName); err != nil {
		return err
	}
	if im.link, err = attachIngress(im.tap.index, im.objects.BatonImport); err != nil {
		return err
	}
	if im.diag, err = openDiag(); err != nil {
		return err
	}
	im.ends, err = openEnds()
	return err
}

// loadProblem says what to do about a program that does not load: the only reliable way to ask for a kernel function.
func loadProblem(err error) error {
	switch {
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("run it as root: BPF programs cannot be loaded: %w", err)
	case errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("%w: %w", ErrKernel, err)
	}
	return fmt.Errorf("the import program does not load: %w", err)
}

func attachIngress(index int, program *ebpf.Program) (link.Link, error) {
	return link.AttachTCX(link.TCXOptions{Interface: index, Program: program, Attach: ebpf.AttachTCXIngress})
}

// Close removes the TAP. Connections stay.
func (im *Importer) Close() error {
	var errs []error
	if im.ends != nil {
		errs = append(errs, im.ends.Close())
	}
	if im.diag != nil {
		errs = append(errs, im.diag.Close())
	}
	if im.link != nil {
		errs = append(errs, im.link.Close())
	}
	if im.tap != nil {
		errs = append(errs, im.tap.Close())
	}
	return errors.Join(append(errs, im.objects.Close())...)
}

// Lookup finds the socket of a tuple in the namespace; State is None if there is none.
func (im *Importer) Lookup(t wire.Tuple) (Socket, error) { return im.diag.Lookup(t) }

// Import makes the connection that r describes, as a child of the listener at listener (an unspecified address means
// the record's service address), and returns when it is in the accept queue. A leftover of the tuple is removed first;
// while the accept queue is full it is tried again until ctx ends. Errors: the ones above, or the system's.
func (im *Importer) Import(ctx context.Context, r *transfer.Record, listener netip.AddrPort) (Imported, error) {
	if err := checkRecord(r); err != nil {
		return Imported{}, err
	}
	start := time.Now()
	var done Imported
	for {
		err := im.try(r, listener, &done)
		var leftover leftoverError
		switch {
		case err == nil:
			done.Took = time.Since(start)
			return done, nil
		case errors.As(err, &leftover):
			if done.Killed++; done.Killed > killsMax {
				return Imported{}, err
			}
			if err := im.kill(r.Inc.Tuple, leftover, done.Killed > 1); err != nil {
				return Imported{}, err
			}
		case errors.Is(err, ErrBacklog) && sleep(ctx, backlogPause):
			done.Retried++
		default:
			return Imported{}, err
		}
	}
}

// sleep waits for d, or returns false when ctx ends before.
func sleep(ctx context.Context, d time.Duration) bool {
	if ctx.Err() != nil {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// checkRecord refuses what the kernel could not continue.
func checkRecord(r *transfer.Record) error {
	limit, minMSS := 65535-20-20-12, uint16(MinMSS4)
	if !r.Inc.Service.Addr().Is4() {
		limit, minMSS = tapMTU-40-20-12, MinMSS6
	}
	switch {
	case r.Inc.Client.Addr().Is4() != r.Inc.Service.Addr().Is4():
		return fmt.Errorf("%w: addresses of two families", ErrRecord)
	case len(r.SendData) > 0 || r.SndUna != r.SndNxt:
		return fmt.Errorf("%w: data for the client is under way", ErrRecord)
	case r.Handshake.MSS < minMSS:
		return fmt.Errorf("%w: the client's MSS is %d, below %d", ErrRecord, r.Handshake.MSS, minMSS)
	case len(r.Data) > limit:
		return fmt.Errorf("%w: %d octets of data, above %d", ErrRecord, len(r.Data), limit)
	case r.RcvNxt != endOf(r):
		return fmt.Errorf("%w: rcv.nxt %d does not follow %d octets from %d", ErrRecord, r.RcvNxt, len(r.Data), r.ReadFrom)
	}
	return nil
}

// endOf is the sequence number after everything that the record brings.
func endOf(r *transfer.Record) seq.Value {
	end := r.ReadFrom.Add(len(r.Data))
	if r.FIN {
		end++
	}
	return end
}

// leftoverError is a socket in the way.
type leftoverError struct {
	state  SocketState
	rcvNxt seq.Value
}

func (e leftoverError) Error() string { return fmt.Sprintf("%v (it is in %v)", ErrLeftover, e.state) }
func (e leftoverError) Unwrap() error { return ErrLeftover }

// try is one attempt.
func (im *Importer) try(r *transfer.Record, listener netip.AddrPort, done *Imported) error {
	im.mu.Lock()
	defer im.mu.Unlock()
	im.ends.expect(r.Inc.Tuple)
	result, err := im.inject(r, listener)
	if err != nil {
		return err
	}
	if err := verdict(result); err != nil {
		return err
	}
	return im.confirm(r, done)
}

// inject writes the frame and returns what the program made of it.
func (im *Importer) inject(r *transfer.Record, listener netip.AddrPort) (bpf.ImportBatonResult, error) {
	var result bpf.ImportBatonResult
	if err := im.objects.Result.Set(&result); err != nil {
		return result, err
	}
	now := tsval(r, time.Now())
	if err := im.objects.Request.Set(requestOf(r, listener, now)); err != nil {
		return result, err
	}
	im.frame = appendFirst(im.frame[:0], r)
	if err := im.tap.Write(im.frame); err != nil {
		return result, fmt.Errorf("write to TAP: %w", err)
	}
	return result, im.objects.Result.Get(&result)
}

func verdict(result bpf.ImportBatonResult) error {
	switch bpf.ImportBatonStatus(result.Status) {
	case bpf.ImportBatonStatusBATON_STATUS_ASSIGNED:
		return nil
	case bpf.ImportBatonStatusBATON_STATUS_LEFTOVER:
		return leftoverError{SocketState(result.State), seq.Value(result.RcvNxt)}
	case bpf.ImportBatonStatusBATON_STATUS_NO_LISTENER:
		return ErrNotListening
	case bpf.ImportBatonStatusBATON_STATUS_BACKLOG:
		return ErrBacklog
	case bpf.ImportBatonStatusBATON_STATUS_REFUSED:
		return fmt.Errorf("%w: %w", ErrRefused, unix.Errno(-result.Error))
	case bpf.ImportBatonStatusBATON_STATUS_PENDING:
	}
	return fmt.Errorf("%w: the TAP did not deliver the segment at once: is net.core.rps_default_mask set?", ErrRefused)
}

// confirm reads from the socket that it exists and has received everything. Called with mu held.
func (im *Importer) confirm(r *transfer.Record, done *Imported) error {
	socket, err := im.appeared(r)
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		done.State, done.Cookie, done.RcvNxt = socket.State, socket.Cookie, r.ReadFrom.Add(int(socket.Received))
		if !hasReceived(socket) || !done.RcvNxt.Before(r.RcvNxt) {
			done.RcvNxt = r.RcvNxt
			return nil
		}
		if i == resendsMax {
			break
		}
		// The kernel was short of memory. The segment again, as an ordinary one.
		time.Sleep(resendPause)
		if err := im.pass(im.frame); err != nil {
			return err
		}
		if socket, err = im.diag.Lookup(r.Inc.Tuple); err != nil {
			return err
		}
	}
	im.reset(r.Inc.Tuple, done.RcvNxt)
	return fmt.Errorf("%w: it does not take the data (short of TCP memory?)", ErrRefused)
}

// hasReceived reports whether the socket can still say how much it has received; in TIME-WAIT it cannot, but gets there
// only after having received all.
func hasReceived(s Socket) bool { return s.State != None && s.State != TimeWait }

// appeared finds the new socket. A socket that has ended again already counts: the application was faster than we.
func (im *Importer) appeared(r *transfer.Record) (Socket, error) {
	socket, err := im.diag.Lookup(r.Inc.Tuple)
	if err != nil || socket.State != None {
		return socket, err
	}
	if im.ends.seen(settlePause) {
		return Socket{State: None}, nil
	}
	if socket, err = im.diag.Lookup(r.Inc.Tuple); err != nil || socket.State != None {
		return socket, err
	}
	return socket, ErrSwallowed
}

// Continue gives the segment that r describes to a socket that was imported where r's connection had got to at from, and
// returns when the socket has received everything.
func (im *Importer) Continue(r *transfer.Record, from seq.Value) (Imported, error) {
	start := time.Now()
	im.mu.Lock()
	defer im.mu.Unlock()
	im.ends.expect(r.Inc.Tuple)
	im.frame = appendFirst(im.frame[:0], r)
	if err := im.pass(im.frame); err != nil {
		return Imported{}, err
	}
	whole := *r
	whole.ReadFrom = from
	var done Imported
	err := im.confirm(&whole, &done)
	done.Took = time.Since(start)
	return done, err
}

// Remove ends the socket that has a tuple, if there is one, without a packet to anybody.
func (im *Importer) Remove(t wire.Tuple) error {
	nobody := netip.AddrPortFrom(t.Service.Addr(), 0)
	for kills := 0; ; kills++ {
		err := im.try(&transfer.Record{Inc: wire.Incarnation{Tuple: t}}, nobody, &Imported{})
		var leftover leftoverError
		switch {
		case errors.Is(err, ErrNotListening):
			return nil
		case !errors.As(err, &leftover) || kills == killsMax:
			return err
		}
		if err := im.kill(t, leftover, kills > 0); err != nil {
			return err
		}
	}
}

// send gives a frame to the namespace's stack.
func (im *Importer) send(frame []byte) error {
	im.mu.Lock()
	defer im.mu.Unlock()
	return im.pass(frame)
}

// kill removes a leftover. pause: it resisted the last time.
func (im *Importer) kill(t wire.Tuple, l leftoverError, pause bool) error {
	if pause {
		time.Sleep(killPause)
	}
	im.mu.Lock()
	defer im.mu.Unlock()
	socket, err := im.diag.Lookup(t)
	if err != nil || socket.State == None {
		return err
	}
	im.ends.ignore(socket.Cookie)
	return im.reset(t, l.rcvNxt)
}

// End ends the socket of a tuple that expects rcvNxt next, without a packet to anybody.
func (im *Importer) End(t wire.Tuple, rcvNxt seq.Value) error {
	im.mu.Lock()
	defer im.mu.Unlock()
	for range killsMax {
		if err := im.reset(t, rcvNxt); err != nil {
			return err
		}
		if socket, err := im.diag.Lookup(t); err != nil || over(socket.State) {
			return err
		}
		time.Sleep(killPause)
	}
	return ErrLeftover
}

// reset ends a socket of this host by an RST that only it sees. Called with mu held.
func (im *Importer) reset(t wire.Tuple, rcvNxt seq.Value) error {
	return im.pass(appendReset(nil, t, rcvNxt))
}

// pass writes a frame that the program does not touch. Called with mu held.
func (im *Importer) pass(frame []byte) error {
	err := im.objects.Request.Set(&bpf.ImportBatonRequest{Kind: uint32(bpf.ImportBatonKindBATON_KIND_PASS)})
	if err != nil {
		return err
	}
	return im.tap.Write(frame)
}

// tsval is our TSval at this moment: never behind what the client has seen, even where the new socket's first segment goes
// by the millisecond before the one in which it was made.
func tsval(r *transfer.Record, now time.Time) uint32 {
	if !r.Handshake.Timestamps {
		return 0
	}
	return uint32(seq.Max(seq.Value(uint32(now.UnixMilli())+r.TSOffset), seq.Value(r.TSLast+1)))
}

// requestOf tells the program what SYN and SYN-ACK had agreed on.
func requestOf(r *transfer.Record, listener netip.AddrPort, tsecr uint32) *bpf.ImportBatonRequest {
	if listener.Addr().IsUnspecified() {
		listener = netip.AddrPortFrom(r.Inc.Service.Addr(), listener.Port())
	}
	h := r.Handshake
	return &bpf.ImportBatonRequest{
		Kind:           uint32(bpf.ImportBatonKindBATON_KIND_IMPORT),
		Ipv6:           one[uint32](!r.Inc.Service.Addr().Is4()),
		ClientBe:       words(r.Inc.Client.Addr()),
		ServiceBe:      words(r.Inc.Service.Addr()),
		ListenerBe:     words(listener.Addr()),
		ClientPortBe:   swap16(r.Inc.Client.Port()),
		ServicePortBe:  swap16(r.Inc.Service.Port()),
		ListenerPortBe: swap16(listener.Port()),
		Mss:            h.MSS,
		Tsval:          r.TSRecent,
		Tsecr:          tsecr,
		RcvWscale:      h.RcvScale,
		SndWscale:      h.SndScale,
		WscaleOk:       one[uint8](h.Scaling),
		SackOk:         one[uint8](h.SACK),
		TstampOk:       one[uint8](h.Timestamps),
	}
}

func one[T uint8 | uint32](b bool) T {
	if b {
		return 1
	}
	return 0
}

// words are the octets of an address in the order in which they are on the wire; IPv4 is the first word.
func words(a netip.Addr) (w [4]uint32) {
	octets := a.AsSlice()
	for i := range len(octets) / 4 {
		w[i] = binary.NativeEndian.Uint32(octets[4*i:])
	}
	return w
}

// swap16 puts a port's octets into the order in which they are on the wire.
func swap16(port uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	return binary.NativeEndian.Uint16(b[:])
}

// appendFirst appends the frame that makes the connection: the stack takes irs = seq - 1 and iss = ack - 1 from it.
func appendFirst(b []byte, r *transfer.Record) []byte {
	s := wire.Segment{
		Seq:     r.ReadFrom,
		Ack:     r.SndNxt,
		Flags:   wire.ACK,
		Window:  uint16(min(r.SndWnd>>r.Handshake.SndScale, 65535)),
		Payload: r.Data,
	}
	if len(r.Data) > 0 {
		s.Flags |= wire.PSH
	}
	if r.FIN {
		s.Flags |= wire.FIN
	}
	if r.Handshake.Timestamps {
		s.Options = wire.Options{HasTimestamps: true, TSVal: r.TSRecent, TSEcr: r.TSLast}
	}
	return wire.AppendTCP(b, wire.Link{Dst: tapMAC, Src: agentMAC}, r.Inc.Client, r.Inc.Service, s)
}

// appendReset appends an RST from the client at exactly rcvNxt.
func appendReset(b []byte, t wire.Tuple, rcvNxt seq.Value) []byte {
	s := wire.Segment{Seq: rcvNxt, Flags: wire.RST}
	return wire.AppendTCP(b, wire.Link{Dst: tapMAC, Src: agentMAC}, t.Client, t.Service, s)
}
