package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"baton/bench/judge"
	"baton/bench/lab"
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// Clients that use TCP in ways of their own.
const (
	unreadFile  = 8_000_000 // octets; no receive buffer grows to that while nobody reads
	slowFile    = 400_000
	slowBuffer  = 8192 // SO_RCVBUF
	slowRead    = 16_384
	slowPause   = 5 * time.Millisecond
	wrapUpload  = 300_000
	halfUpload  = 300_000
	probeAfter  = time.Second             // of silence; a connection whose probe is not answered ends a second later
	silence     = 2500 * time.Millisecond // longer than both
	smallMSS    = 536
	zeroWindows = time.Second
	smallWindow = 40
)

var tcpScenarios = []Scenario{
	{
		Name:   "half-close-upload",
		Doc:    "a client that closes its side with its request, or after an upload, gets the whole response",
		Expect: Expect{Connections: 4, Transferred: 4},
		Run:    runHalfClose,
	},
	{
		Name:   "zero-window-client",
		Doc:    "a client that shuts its window gets everything once it opens it: from the router, which probes, and a target",
		Expect: Expect{Connections: 2, Transferred: 1, Allow: []judge.Rule{judge.WindowRespected}}, // a probe is one octet
		Run:    runZeroWindow,
		Check:  checkZeroWindow,
	},
	{
		Name:   "slow-reader",
		Doc:    "a client with a small buffer that reads slowly gets every octet",
		Expect: Expect{Connections: 1, Transferred: 1},
		Run:    func(e *Env) error { return e.slowReader(slowFile) },
	},
	{
		Name:   "mss-536",
		Doc:    "a client with an MSS of 536 is served: a page, a download, an upload",
		Expect: Expect{Connections: 3, Transferred: 3},
		Run: func(e *Env) error {
			for _, talk := range []func(*lab.Conn) error{e.page, e.fetchFile(slowFile), e.store("mss", slowFile)} {
				if err := e.with(maxSegment(smallMSS), talk); err != nil {
					return err
				}
			}
			return nil
		},
		Check: askedMSS(smallMSS),
	},
	{
		Name:   "mss-tiny",
		Doc:    "a client with an MSS of 88 cannot be given to a kernel: it gets 503, in tiny segments, and the log says why",
		Expect: Expect{Connections: 1, Transferred: None},
		Run:    runTinyRefused,
		Check:  askedMSS(tinyMSS),
	},
	{
		Name:   "seq-wrap",
		Doc:    "the client's sequence numbers wrap in the request's head, and in the target's hands",
		Expect: Expect{Connections: 2, Transferred: 2},
		Run:    runWrap,
		Check:  checkWrap,
	},
	{
		Name:   "ecn-syn",
		Doc:    "a client that asks for ECN is declined, and served without",
		Expect: Expect{Connections: 2, Transferred: 2},
		Run: func(e *Env) (err error) {
			restore, err := e.Client.SetSysctl("net.ipv4.tcp_ecn", "1")
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, restore()) }()
			return errors.Join(e.curls([]fetched{{"a.example", "/", "t1"}}), e.download(optionSize))
		},
		Check: checkECN,
	},
	{
		Name:   "tfo-syn",
		Doc:    "data on a SYN is not acknowledged, comes again, and is there once",
		Expect: Expect{Connections: 1, Transferred: 1, Retransmissions: true},
		Run: func(e *Env) (err error) {
			restore, err := e.Client.SetSysctl("net.ipv4.tcp_fastopen", "5") // as a client, and without a cookie
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, restore()) }()
			got, err := e.Curl("a.example", "/early", "--tcp-fastopen")
			if err != nil {
				return err
			}
			return want(got.Response, "t1", "a.example", "/early")
		},
		Check: checkFastOpen,
	},
	{
		Name:   "keepalive-probe",
		Doc:    "keep-alive probes are answered before the request, in the middle of it, and at the target",
		Expect: Expect{Connections: 1, Transferred: 1},
		Run:    runKeepAlive,
	},
}

// connectWith is Dial with a socket that set has changed.
func (e *Env) connectWith(to netip.AddrPort, set func(fd int) error) (*lab.Conn, error) {
	c, err := e.Client.DialWith(e.Ctx, to, set)
	if err != nil {
		return nil, err
	}
	e.record(c.Local(), c.Stream)
	deadline, ok := e.Ctx.Deadline()
	if !ok {
		return c, nil
	}
	return c, c.SetDeadline(deadline)
}

// with talks on a connection of its own, whose socket set has changed (nil: it has not), and closes it.
func (e *Env) with(set func(fd int) error, talk func(*lab.Conn) error) error {
	if set == nil {
		set = func(int) error { return nil }
	}
	c, err := e.connectWith(service, set)
	if err != nil {
		return err
	}
	return errors.Join(talk(c), c.Close())
}

// page fetches a page of t1's.
func (e *Env) page(c *lab.Conn) error { return e.ask(c, "/page") }

// ask fetches a page of t1's by its path.
func (e *Env) ask(c *lab.Conn, path string, headers ...string) error {
	r, err := lab.RoundTrip(e.Ctx, c, lab.Request("a.example", path, headers...))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	e.note(c.Local(), r)
	return want(r, "t1", "a.example", path)
}

// fetchFile fetches a file of n octets.
func (e *Env) fetchFile(n int64) func(*lab.Conn) error {
	return func(c *lab.Conn) error {
		file, err := e.Lab.File(n)
		if err != nil {
			return err
		}
		r, err := lab.RoundTrip(e.Ctx, c, lab.Request("a.example", fmt.Sprintf("/static/data-%d", n)))
		if err != nil {
			return err
		}
		if r.StatusCode != 200 || *judge.DigestOf(r.Data) != *file {
			return fmt.Errorf("download: status %d, %v, want 200, %v", r.StatusCode, *judge.DigestOf(r.Data), *file)
		}
		return nil
	}
}

// putHead is the head of an upload of n octets.
func putHead(name string, n int) []byte {
	return fmt.Appendf(nil, "PUT /upload/%s HTTP/1.1\r\nHost: a.example\r\nContent-Length: %d\r\n\r\n", name, n)
}

// store uploads n octets to t1 under a name.
func (e *Env) store(name string, n int) func(*lab.Conn) error {
	return func(c *lab.Conn) error {
		if _, err := c.Write(slices.Concat(putHead(name, n), lab.Data(n))); err != nil {
			return err
		}
		return e.stored(c, name, n)
	}
}

// stored reads the answer to an upload and looks at the file.
func (e *Env) stored(c io.Reader, name string, n int) error {
	r, err := lab.NewResponses(c).Next()
	if err != nil {
		return fmt.Errorf("upload %s: %w", name, err)
	}
	path := e.Target(1).Path("upload", name)
	file, err := lab.FileDigest(path)
	if err != nil {
		return err
	}
	if r.StatusCode/100 != 2 || *file != *judge.DigestOf(lab.Data(n)) {
		return fmt.Errorf("upload %s: status %d, the target stored %v, want %v", name, r.StatusCode, *file, *judge.DigestOf(lab.Data(n)))
	}
	return os.Remove(path)
}

// runHalfClose has a FIN on the segment that decides, which then travels in the record, and FINs after uploads.
func runHalfClose(e *Env) (err error) {
	raw, err := e.Client.Raw(rawAddr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, raw.Close()) }()
	c, err := raw.Connect(e.Ctx, rawPort, service, wire.Options{MSS: 1460, SACKPermitted: true, HasTimestamps: true})
	if err != nil {
		return err
	}
	if err := c.Send(wire.ACK|wire.PSH|wire.FIN, lab.Request("a.example", "/fin")); err != nil {
		return err
	}
	octets, err := c.ReadUntil(e.Ctx, func([]byte) bool { return false }) // until the target closes too
	if err != nil {
		return err
	}
	r, err := lab.NewResponses(bytes.NewReader(octets)).Next()
	if err != nil {
		return err
	}
	if err := want(r, "t1", "a.example", "/fin"); err != nil {
		return err
	}
	for i := range 3 {
		name := fmt.Sprintf("half-%d", i)
		err := e.with(nil, func(c *lab.Conn) error {
			if _, err := c.Write(slices.Concat(putHead(name, halfUpload), lab.Data(halfUpload))); err != nil {
				return err
			}
			if err := c.CloseWrite(); err != nil {
				return err
			}
			return errors.Join(e.stored(c, name, halfUpload), lab.NewResponses(c).End())
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// rawAddr and rawPort are a raw client's.
var rawAddr = netip.MustParseAddr("10.77.0.150")

const rawPort = 40000

// runZeroWindow has a raw client that shuts its window before the router answers, and one that does not read a download.
func runZeroWindow(e *Env) (err error) {
	raw, err := e.Client.Raw(rawAddr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, raw.Close()) }()
	c, err := raw.Conn(e.Ctx, rawPort, service, wire.Options{MSS: 1460})
	if err != nil {
		return err
	}
	r, err := shutAndOpen(e, c)
	if err != nil {
		return err
	}
	return errors.Join(wantRefusal(r, 404), e.with(nil, func(c *lab.Conn) error {
		file, err := e.Lab.File(unreadFile)
		if err != nil {
			return err
		}
		if _, err := c.Write(lab.Request("a.example", fmt.Sprintf("/static/data-%d", unreadFile))); err != nil {
			return err
		}
		if err := e.sleep(zeroWindows); err != nil {
			return err
		}
		r, err := lab.NewResponses(c).Next()
		if err != nil {
			return err
		}
		if *judge.DigestOf(r.Data) != *file {
			return fmt.Errorf("after the window was shut: %v, want %v", *judge.DigestOf(r.Data), *file)
		}
		return nil
	}))
}

// shutAndOpen gets a refusal through a window that is small at first, then shut, then open.
func shutAndOpen(e *Env, c *lab.RawConn) (*lab.Response, error) {
	c.Window = smallWindow
	if err := c.Handshake(e.Ctx); err != nil {
		return nil, err
	}
	if err := c.Send(wire.ACK|wire.PSH, lab.Request("nobody.example", "/")); err != nil {
		return nil, err
	}
	var first []byte
	for len(first) < smallWindow {
		s, err := c.Receive(e.Ctx)
		if err != nil {
			return nil, err
		}
		first = append(first, s.Payload...)
	}
	c.Window = 0
	if err := errors.Join(c.Send(wire.ACK, nil), probed(e, c)); err != nil {
		return nil, err
	}
	c.Window = 32768
	if err := c.Send(wire.ACK, nil); err != nil {
		return nil, err
	}
	rest, err := c.ReadUntil(e.Ctx, func([]byte) bool { return false })
	if err != nil {
		return nil, err
	}
	if err := c.Send(wire.ACK|wire.FIN, nil); err != nil {
		return nil, err
	}
	return lab.NewResponses(bytes.NewReader(append(first, rest...))).Next()
}

// probed waits for two probes of a shut window, and answers as a host without room does.
func probed(e *Env, c *lab.RawConn) error {
	for probes := 0; probes < 2; {
		before := c.RcvNxt
		s, err := c.Receive(e.Ctx)
		if err != nil {
			return fmt.Errorf("wait for a probe of the window: %w", err)
		}
		c.RcvNxt = before // its octet has no room
		if len(s.Payload) > 1 {
			return fmt.Errorf("%d octets for a window of 0", len(s.Payload))
		}
		if len(s.Payload) == 1 {
			probes++
			if err := c.Send(wire.ACK, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkZeroWindow makes sure that the kernel's window was shut, and that only probes passed a shut one.
func checkZeroWindow(e *Env, r judge.Report) error {
	shut := func(f wire.Frame) bool {
		return f.Dst == service && f.Src.Addr() != rawAddr && f.Segment.Window == 0 && !f.Segment.Flags.Has(wire.RST)
	}
	if n := e.segments(shut); n == 0 {
		return errors.New("the client that did not read never shut its window")
	}
	for _, v := range r.Allowed {
		if !strings.Contains(v.Conn, rawAddr.String()) {
			return fmt.Errorf("not a probe: %v", v)
		}
	}
	return nil
}

// segments counts the segments of the capture that are of a kind.
func (e *Env) segments(kind func(wire.Frame) bool) (n int) {
	for _, frame := range e.Frames {
		if f, err := wire.ParseTCP(frame.Data); err == nil && kind(f) {
			n++
		}
	}
	return n
}

func (e *Env) slowReader(n int64) error {
	file, err := e.Lab.File(n)
	if err != nil {
		return err
	}
	set := func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, slowBuffer) }
	return e.with(set, func(c *lab.Conn) error {
		if _, err := c.Write(lab.Request("a.example", fmt.Sprintf("/static/data-%d", n))); err != nil {
			return err
		}
		r, err := lab.NewResponses(slow{c, e}).Next()
		if err != nil {
			return err
		}
		if *judge.DigestOf(r.Data) != *file {
			return fmt.Errorf("read slowly: %v, want %v", *judge.DigestOf(r.Data), *file)
		}
		return nil
	})
}

// slow pauses before each read.
type slow struct {
	io.Reader
	e *Env
}

func (s slow) Read(p []byte) (int, error) {
	if err := s.e.sleep(slowPause); err != nil {
		return 0, err
	}
	return s.Reader.Read(p[:min(len(p), slowRead)])
}

// maxSegment sets the MSS that a socket announces and keeps to.
func maxSegment(n int) func(fd int) error {
	return func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, n) }
}

// askedMSS checks that the clients were what they were meant to be.
func askedMSS(n uint16) func(*Env, judge.Report) error {
	return func(_ *Env, r judge.Report) error {
		for _, c := range r.Conns {
			if c.Asked.MSS != n {
				return fmt.Errorf("%v: MSS %d, want %d", c, c.Asked.MSS, n)
			}
		}
		return nil
	}
}

func runTinyRefused(e *Env) error {
	var client netip.AddrPort
	err := e.with(maxSegment(tinyMSS), func(c *lab.Conn) error {
		client = c.Local()
		if _, err := c.Write(lab.Request("a.example", "/tiny")); err != nil {
			return err
		}
		responses := lab.NewResponses(c)
		r, err := responses.Next()
		if err != nil {
			return err
		}
		return errors.Join(wantRefusal(r, 503), responses.End())
	})
	if err != nil {
		return err
	}
	return lab.Until(e.Ctx, "the log says why", func() error {
		for line := range strings.Lines(e.Baton.Router.Log()) {
			if strings.Contains(line, client.String()) && strings.Contains(line, "outcome=rejected") && strings.Contains(line, "mss") {
				return nil
			}
		}
		return errors.New("no line of the transfer names the MSS")
	})
}

// Initial sequence numbers whose streams wrap in the head of a request, and in the upload after it.
var wrapISNs = []seq.Value{0xffffffff - 20, 0xffffffff - wrapUpload/2}

// runWrap uploads with sequence numbers that wrap.
func runWrap(e *Env) error {
	for i, isn := range wrapISNs {
		if err := e.with(initialSequence(isn), e.store(fmt.Sprintf("wrap-%d", i), wrapUpload)); err != nil {
			return err
		}
	}
	return nil
}

// initialSequence chooses a socket's initial sequence number: what TCP_REPAIR sets, connect keeps (tcp_v4_connect).
func initialSequence(isn seq.Value) func(fd int) error {
	return func(fd int) error {
		return errors.Join(
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1),
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, tcpSendQueue),
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ, int(int32(isn))),
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 0))
	}
}

// tcpSendQueue is TCP_SEND_QUEUE of linux/tcp.h.
const tcpSendQueue = 2

func checkWrap(_ *Env, r judge.Report) error {
	for i, c := range r.Conns {
		if c.Inc.IRS != wrapISNs[i] {
			return fmt.Errorf("%v: initial sequence number %d, want %d", c, c.Inc.IRS, wrapISNs[i])
		}
	}
	return nil
}

// checkECN makes sure that the SYNs asked and that nobody ever marked a packet.
func checkECN(e *Env, _ judge.Report) error {
	const both = wire.ECE | wire.CWR
	if n := e.segments(func(f wire.Frame) bool { return f.Segment.Flags.Has(wire.SYN | both) }); n != 2 {
		return fmt.Errorf("%d SYNs ask for ECN, want 2", n)
	}
	if n := e.segments(func(f wire.Frame) bool { return f.Src == service && f.Segment.Flags&both != 0 }); n != 0 {
		return fmt.Errorf("the service sends ECE or CWR %d times", n)
	}
	for _, frame := range e.Frames {
		if f, err := wire.ParseTCP(frame.Data); err == nil && f.Link.Dst != (wire.MAC{}) && frame.Data[ipTOS]&ecnBits != 0 {
			return fmt.Errorf("%v marks its packets as ECN-capable", f.Src)
		}
	}
	return nil
}

const (
	ipTOS   = 15 // offset in a frame
	ecnBits = 3
)

func checkFastOpen(e *Env, _ judge.Report) error {
	early := func(f wire.Frame) bool { return f.Segment.Flags.Has(wire.SYN) && len(f.Segment.Payload) > 0 }
	if e.segments(early) == 0 {
		return errors.New("no SYN carried data")
	}
	return nil
}

// runKeepAlive is silent for longer than a client with unanswered probes would live, three times.
func runKeepAlive(e *Env) error {
	return e.with(nil, func(c *lab.Conn) error {
		probing := net.KeepAliveConfig{Enable: true, Idle: probeAfter, Interval: probeAfter, Count: 1}
		if err := c.TCP().SetKeepAliveConfig(probing); err != nil {
			return err
		}
		before, err := e.counter("packet", "keepalive_replies")
		if err != nil {
			return err
		}
		if err := e.sleep(silence); err != nil {
			return err
		}
		after, err := e.counter("packet", "keepalive_replies")
		if err != nil {
			return err
		}
		if after == before {
			return errors.New("the forwarder answered no probe")
		}
		request := lab.Request("a.example", "/probed")
		if _, err := c.Write(request[:20]); err != nil {
			return err
		}
		if err := e.sleep(silence); err != nil {
			return err
		}
		r, err := lab.RoundTrip(e.Ctx, c, request[20:])
		if err != nil {
			return err
		}
		if err := errors.Join(want(r, "t1", "a.example", "/probed"), e.sleep(silence)); err != nil {
			return err
		}
		return e.ask(c, "/again")
	})
}
