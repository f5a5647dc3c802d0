package peers

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"math/rand/v2"
	"net/netip"
	"time"

	"baton/bench/faults"
	"baton/control/tcp"
	"baton/control/transfer"
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

var (
	serverAddr = netip.MustParseAddrPort("10.99.0.2:80")
	clientAddr = netip.MustParseAddr("10.99.0.1")
	serverMAC  = wire.MAC{2, 0, 0, 0, 0, 2}
	clientMAC  = wire.MAC{2, 0, 0, 0, 0, 1}
)

const (
	serverWindow = 64 << 10
	serverScale  = 3
	serverQueue  = 64 << 10 // octets that the application keeps queued
)

// job is one conversation.
type job struct {
	name     string
	up, down int // octets
	faults   faults.Rates
	mtu      int           // of the client's interface
	mss      int           // of the client, if the interface is not to decide
	after    bool          // the server answers only when the client has closed its side
	slow     time.Duration // the server begins to read only then
	lazy     time.Duration // the client does
	wrap     bool          // both sequence numbers wrap on the way
	nagle    bool
	migrate  int // give the connection to a new owner every so many events; 0: never
}

// stream is n octets that depend on the seed.
func stream(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 3))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// server is the core and its application, for one connection.
type server struct {
	job
	conn    *tcp.Conn
	in      chan []byte
	out     *faults.Link
	client  netip.AddrPort
	offset  seq.Value // added to the client's sequence numbers
	begin   time.Time
	down    []byte // left to be written
	got     hash.Hash
	octets  int
	events  int
	moves   int
	damaged int
	shut    int // zero windows of the client's
	closed  int // zero windows of ours
}

func newServer(j job, out *faults.Link) *server {
	return &server{job: j, in: make(chan []byte, 4096), out: out, begin: time.Now(), down: stream(j.down, 2), got: sha256.New()}
}

// deliver is the end of the link from the client.
func (s *server) deliver(frame []byte) {
	select {
	case s.in <- frame:
	default: // a full queue loses, as others do
	}
}

// run serves until the connection is closed, or the time is over.
func (s *server) run(patience time.Duration) error {
	end := time.Now().Add(patience)
	for time.Now().Before(end) {
		select {
		case frame := <-s.in:
			s.arrived(frame, time.Now())
		case <-time.After(s.sleep(time.Now())):
			if s.conn != nil {
				s.do(s.conn.Tick(time.Now()))
			}
		}
		if s.conn == nil {
			continue
		}
		s.application(time.Now())
		if st := s.conn.State(); st == tcp.Closed || st == tcp.TimeWait {
			return s.conn.Err()
		}
		if s.events++; s.migrate > 0 && s.events%s.migrate == 0 {
			if err := s.move(time.Now()); err != nil {
				return err
			}
		}
	}
	if s.conn == nil {
		return errors.New("no SYN came")
	}
	return fmt.Errorf("stuck in %v with %d octets received, %d left to write, %d queued", s.conn.State(), s.octets,
		len(s.down), s.conn.Queued())
}

// sleep is how long nothing has to be done.
func (s *server) sleep(now time.Time) time.Duration {
	d := 20 * time.Millisecond
	if s.conn != nil {
		if at := s.conn.Deadline(); !at.IsZero() {
			d = min(d, max(0, at.Sub(now)))
		}
	}
	return d
}

func (s *server) arrived(frame []byte, now time.Time) {
	f, err := wire.ParseTCP(frame)
	if err != nil {
		s.damaged++
		return
	}
	f.Segment.Seq += s.offset
	if f.Segment.Window == 0 && !f.Segment.Flags.Has(wire.RST) {
		s.shut++
	}
	if s.conn != nil {
		s.do(s.conn.Segment(f.Segment, now))
		return
	}
	iss := seq.Value(12345)
	if s.wrap && f.Segment.Flags.Has(wire.SYN) {
		s.offset = seq.Value(1<<32-20_000) - f.Segment.Seq
		f.Segment.Seq += s.offset
		iss = 1<<32 - 30_000
	}
	l := tcp.Listener{MSS: 1460, Scale: serverScale, Window: serverWindow,
		Announced: tcp.FirstWindow(serverWindow, serverScale)}
	c, a := l.Segment(wire.Tuple{Client: f.Src, Service: f.Dst}, f.Segment, iss, 4242, now)
	s.client = f.Src
	if c != nil {
		c.AutoACK(true)
		s.conn = c
	}
	s.do(a)
	if c != nil && s.nagle {
		s.do(c.Configure(transfer.Settings{Nagle: true}, now))
	}
}

// do sends what the core wants sent.
func (s *server) do(a tcp.Actions) {
	for _, seg := range a.Segments {
		if seg.Window == 0 {
			s.closed++
		}
		seg.Ack -= s.offset
		for i := range seg.Options.NSACK {
			seg.Options.SACK[i].Left -= s.offset
			seg.Options.SACK[i].Right -= s.offset
		}
		s.out.Carry(wire.AppendTCP(nil, wire.Link{Dst: clientMAC, Src: serverMAC}, serverAddr, s.client, seg))
	}
}

// application reads, writes and closes.
func (s *server) application(now time.Time) {
	c := s.conn
	if p := c.Peek(); len(p) > 0 && now.Sub(s.begin) >= s.slow {
		s.got.Write(p)
		s.octets += len(p)
		c.Receive(len(p))
	}
	if s.after && !c.EOF() {
		return
	}
	for len(s.down) > 0 && c.Queued() < serverQueue && c.State() != tcp.Closed {
		n := min(len(s.down), 5000)
		s.do(c.Write(s.down[:n], now))
		s.down = s.down[n:]
	}
	if len(s.down) == 0 && c.State() != tcp.SynReceived && c.State() != tcp.Closed {
		s.do(c.CloseWrite(now))
	}
}

// move gives the connection to a new owner.
func (s *server) move(now time.Time) error {
	if st := s.conn.State(); st == tcp.SynReceived {
		return nil
	}
	s.conn.Freeze()
	rec, err := s.conn.Export("next", 1)
	if err != nil {
		return err
	}
	b, err := rec.Encode()
	if err != nil {
		return err
	}
	if rec, err = transfer.Decode(b); err != nil {
		return err
	}
	if s.conn, err = tcp.Import(rec, serverWindow, now); err != nil {
		return err
	}
	s.conn.AutoACK(true)
	s.moves++
	return nil
}
