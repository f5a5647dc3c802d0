package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// RawHost is a client without a kernel: it owns an address and a MAC on a host's data interface, and sends what it is
// told to, segment by segment. The host's kernel ignores what is sent to the other MAC.
type RawHost struct {
	Addr netip.Addr
	MAC  wire.MAC

	fd    int
	index int
	ended chan struct{}

	mu         sync.Mutex
	conns      map[wire.Tuple]*RawConn
	neighbours map[netip.Addr]wire.MAC
}

// Raw adds a raw client with that address, which nobody else may have. Close it before its host.
func (h *Host) Raw(addr netip.Addr) (*RawHost, error) {
	a := addr.As4()
	r := &RawHost{
		Addr: addr, MAC: wire.MAC{2, 0xba, a[0], a[1], a[2], a[3]}, ended: make(chan struct{}),
		conns: map[wire.Tuple]*RawConn{}, neighbours: map[netip.Addr]wire.MAC{},
	}
	if err := h.Do(r.open); err != nil {
		return nil, fmt.Errorf("raw client %s: %w", addr, err)
	}
	go r.read()
	return r, nil
}

func (r *RawHost) open() error {
	dev, err := net.InterfaceByName(DataInterface)
	if err != nil {
		return err
	}
	r.index = dev.Index
	if r.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	to := allFrames(r.index)
	timeout := unix.Timeval{Usec: 50_000}
	if err := errors.Join(unix.Bind(r.fd, to), unix.SetsockoptTimeval(r.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout)); err != nil {
		_ = unix.Close(r.fd)
		return err
	}
	return nil
}

// Close removes the client; it answers nothing any more.
func (r *RawHost) Close() error {
	r.mu.Lock()
	r.conns = nil
	r.mu.Unlock()
	<-r.ended // within the receive timeout
	return unix.Close(r.fd)
}

// read dispatches frames until Close.
func (r *RawHost) read() {
	defer close(r.ended)
	buf := make([]byte, 65536)
	for {
		n, _, err := unix.Recvfrom(r.fd, buf, 0)
		r.mu.Lock()
		closed := r.conns == nil
		r.mu.Unlock()
		if closed {
			return
		}
		if err == nil {
			r.frame(buf[:n])
		}
	}
}

func (r *RawHost) frame(b []byte) {
	if arp, err := wire.ParseARP(b); err == nil {
		r.arp(arp)
		return
	}
	f, err := wire.ParseTCP(b)
	if err != nil || f.Link.Dst != r.MAC {
		return
	}
	r.mu.Lock()
	c := r.conns[wire.Tuple{Client: f.Dst, Service: f.Src}]
	r.mu.Unlock()
	if c != nil {
		f.Segment.Payload = append([]byte(nil), f.Segment.Payload...)
		c.arrived(f.Segment)
	}
}

// arp answers for the client's address and learns others'.
func (r *RawHost) arp(a wire.ARP) {
	if a.SenderMAC == r.MAC {
		return
	}
	r.mu.Lock()
	r.neighbours[a.SenderIP] = a.SenderMAC
	r.mu.Unlock()
	if a.Op == wire.ARPRequest && a.TargetIP == r.Addr {
		_ = r.send(wire.AppendARP(nil, wire.ARP{ // the asker repeats itself if this is lost
			Op: wire.ARPReply, SenderMAC: r.MAC, SenderIP: r.Addr, TargetMAC: a.SenderMAC, TargetIP: a.SenderIP,
		}))
	}
}

func (r *RawHost) send(frame []byte) error {
	return unix.Sendto(r.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: r.index})
}

// resolve finds a neighbour's MAC by ARP.
func (r *RawHost) resolve(ctx context.Context, addr netip.Addr) (mac wire.MAC, err error) {
	asked := time.Time{}
	err = Until(ctx, addr.String()+" answers ARP", func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		var ok bool
		if mac, ok = r.neighbours[addr]; ok {
			return nil
		}
		if time.Since(asked) > 200*time.Millisecond {
			asked = time.Now()
			err := r.send(wire.AppendARP(nil, wire.ARP{
				Op: wire.ARPRequest, SenderMAC: r.MAC, SenderIP: r.Addr, TargetIP: addr}))
			if err != nil {
				return err
			}
		}
		return errors.New("no answer")
	})
	return mac, err
}

// RawConn is a connection of a raw client, or what it pretends is one. Its fields may be changed between calls: the next
// segment is made from them.
type RawConn struct {
	Tuple   wire.Tuple
	SndNxt  seq.Value
	RcvNxt  seq.Value
	Window  uint16
	Options wire.Options // of the SYN; with HasTimestamps all segments carry them
	TSVal   uint32
	TSEcr   uint32

	host *RawHost
	hop  wire.MAC
	in   chan wire.Segment
}

// rawQueue is how many segments may wait for Receive, enough for any window in use here.
const rawQueue = 65536

// Conn makes a connection object without sending anything. offer holds the options of the SYN to come.
func (r *RawHost) Conn(ctx context.Context, port uint16, to netip.AddrPort, offer wire.Options) (*RawConn, error) {
	hop, err := r.resolve(ctx, to.Addr())
	if err != nil {
		return nil, err
	}
	return r.ConnVia(hop, port, to, offer), nil
}

// ConnVia is Conn by way of a host of one's own choice, whoever owns the address.
func (r *RawHost) ConnVia(hop wire.MAC, port uint16, to netip.AddrPort, offer wire.Options) *RawConn {
	c := &RawConn{
		Tuple:  wire.Tuple{Client: netip.AddrPortFrom(r.Addr, port), Service: to},
		SndNxt: seq.Value(rand.Uint32()), Window: 32768, Options: offer, TSVal: rand.Uint32(),
		host: r, hop: hop, in: make(chan wire.Segment, rawQueue),
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns[c.Tuple] = c
	return c
}

// Connect makes a connection and does the handshake.
func (r *RawHost) Connect(ctx context.Context, port uint16, to netip.AddrPort, offer wire.Options) (*RawConn, error) {
	c, err := r.Conn(ctx, port, to, offer)
	if err != nil {
		return nil, err
	}
	return c, c.Handshake(ctx)
}

// Handshake sends a SYN, takes in the SYN-ACK and acknowledges it. Options that the answer lacks are off afterwards.
func (c *RawConn) Handshake(ctx context.Context) error {
	if err := c.Begin(ctx); err != nil {
		return err
	}
	return c.Send(wire.ACK, nil)
}

// Begin is a handshake without its last ACK.
func (c *RawConn) Begin(ctx context.Context) error {
	if err := c.Send(wire.SYN, nil); err != nil {
		return err
	}
	answer, err := c.Receive(ctx)
	if err != nil {
		return err
	}
	if !answer.Flags.Has(wire.SYN|wire.ACK) || answer.Ack != c.SndNxt {
		return fmt.Errorf("SYN is answered by %v, ack %d", answer.Flags, answer.Ack)
	}
	c.Options.HasTimestamps = c.Options.HasTimestamps && answer.Options.HasTimestamps
	return nil
}

// Send sends the next segment: flags and payload at SndNxt, which it advances.
func (c *RawConn) Send(flags wire.Flags, payload []byte) error {
	s := wire.Segment{Seq: c.SndNxt, Flags: flags, Window: c.Window, Payload: payload}
	if flags.Has(wire.ACK) {
		s.Ack = c.RcvNxt
	}
	if flags.Has(wire.SYN) {
		s.Options = c.Options
	}
	c.TSVal++
	s.Options.HasTimestamps = c.Options.HasTimestamps && !flags.Has(wire.RST)
	s.Options.TSVal, s.Options.TSEcr = c.TSVal, c.TSEcr
	c.SndNxt = c.SndNxt.Add(s.Len())
	return c.SendSegment(s)
}

// SendSegment sends a segment exactly as it is.
func (c *RawConn) SendSegment(s wire.Segment) error {
	link := wire.Link{Dst: c.hop, Src: c.host.MAC}
	return c.host.send(wire.AppendTCP(nil, link, c.Tuple.Client, c.Tuple.Service, s))
}

// SendError sends an ICMP error in which the host from complains about a segment of the service, at e.Seq of its stream.
// It quotes that segment's IP header and so many octets behind it.
func (c *RawConn) SendError(from netip.Addr, e wire.ICMPError, quoted int) error {
	link := wire.Link{Dst: c.hop, Src: c.host.MAC}
	e.Tuple = c.Tuple
	packet := wire.AppendTCP(nil, link, c.Tuple.Service, c.Tuple.Client, wire.Segment{Seq: e.Seq, Ack: c.SndNxt, Flags: wire.ACK})
	header := 20
	if c.Tuple.Client.Addr().Is6() {
		header = 40
	}
	return c.host.send(wire.AppendICMPError(nil, link, from, e, packet[wire.EthernetLen:][:header+quoted]))
}

// arrived queues a segment; what exceeds the queue is lost, as on a network.
func (c *RawConn) arrived(s wire.Segment) {
	select {
	case c.in <- s:
	default:
	}
}

// Receive returns the next segment that arrived, and advances RcvNxt when it is the one expected. It sends nothing.
func (c *RawConn) Receive(ctx context.Context) (wire.Segment, error) {
	select {
	case s := <-c.in:
		if s.Flags.Has(wire.SYN) {
			c.RcvNxt = s.Seq
		}
		if s.Seq == c.RcvNxt && !s.Flags.Has(wire.RST) {
			c.RcvNxt = c.RcvNxt.Add(s.Len())
			c.TSEcr = s.Options.TSVal
		}
		return s, nil
	case <-ctx.Done():
		return wire.Segment{}, fmt.Errorf("receive on %v: %w", c.Tuple, ctx.Err())
	}
}

// ReadUntil receives and acknowledges in-order octets until done says that they are enough, or the service's FIN or RST.
func (c *RawConn) ReadUntil(ctx context.Context, done func([]byte) bool) ([]byte, error) {
	var got []byte
	for !done(got) {
		before := c.RcvNxt
		s, err := c.Receive(ctx)
		if err != nil {
			return got, err
		}
		if s.Flags.Has(wire.RST) {
			return got, fmt.Errorf("receive on %v: reset", c.Tuple)
		}
		if s.Seq == before {
			got = append(got, s.Payload...)
		}
		if s.Len() > 0 {
			if err := c.Send(wire.ACK, nil); err != nil {
				return got, err
			}
		}
		if s.Seq == before && s.Flags.Has(wire.FIN) {
			return got, nil
		}
	}
	return got, nil
}

// Close forgets the connection without telling the peer.
func (c *RawConn) Close() {
	c.host.mu.Lock()
	defer c.host.mu.Unlock()
	delete(c.host.conns, c.Tuple)
}
