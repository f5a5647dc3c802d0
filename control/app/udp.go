package app

import (
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"time"
)

// pingEvery is how often the lease is renewed: the shortest is 3 s.
const pingEvery = time.Second

// meetTime is how long a connection's message waits for its stream, which the daemon has connected before.
const meetTime = 2 * time.Second

// Introduction is the format of the line with which a daemon begins a stream that it connects: the number of the connection.
const Introduction = "conn %d\n"

const maxIntroduction = 32 // octets

// link is how messages come and go: a Socket or an Exchange.
type link interface {
	Send(m Message, files ...*os.File) error
	Receive() (m Message, files []*os.File, err error)
	Close() error
}

// dial connects to a control socket, a path or udp://, for an application that is about to register. What the
// registration has to tell the daemon of it is set in m.
func dial(where string, m *Message) (link, error) {
	if !strings.HasPrefix(where, "udp://") {
		return Dial(where)
	}
	x, err := DialUDP(where)
	if err != nil || m.Role != RoleRouter {
		return x, err
	}
	r, err := meet(x)
	if err != nil {
		x.Close()
		return nil, err
	}
	m.Stream = r.path()
	return r, nil
}

// DialUDP begins a session at a control socket over UDP, as in udp://127.0.0.1:7610/etc/baton/mail.token: the path is the
// file of the token. Errors: ErrToken, or of the address. Whether a daemon is there is not known before its first answer.
func DialUDP(where string) (*Exchange, error) {
	u, err := url.Parse(where)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	token, err := ReadToken(u.Path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	c, err := net.Dial("udp", u.Host) // connected: nobody else's datagrams are received
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	// An error is a loss: the daemon may be about to start.
	transmit := func(datagram []byte, _ bool) { _, _ = c.Write(datagram) }
	x := NewExchange(transmit, token, rand.Text(), DefaultLease)
	go x.pump(c)
	go x.keep(c)
	return x, nil
}

// pump takes the datagrams of a socket until that is closed. An error of another kind says that nobody was there to take one.
func (x *Exchange) pump(c net.Conn) {
	b := make([]byte, MaxDatagram+1)
	for !isClosed(x.ended) {
		n, err := c.Read(b)
		if err != nil {
			continue
		}
		if d, err := ParseDatagram(b[:n]); err == nil && d.Session == x.session {
			x.Take(d)
		}
	}
}

// keep renews the lease until the end, and closes the socket then.
func (x *Exchange) keep(c net.Conn) {
	defer c.Close()
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			x.ping()
		case <-x.ended:
			return
		}
	}
}

// meeting is the control socket over UDP of a routing application: it brings the streams that the daemon connects to a Unix
// socket to the messages about their connections. Receive is for one goroutine.
type meeting struct {
	*Exchange
	listener *net.UnixListener
	streams  map[uint64]*os.File // that came before their message, by connection
}

// meet opens a Unix socket by an abstract name. Like UDP on loopback that belongs to the network namespace: it needs no
// directory that both can see, and leaves nothing behind.
func meet(x *Exchange) (*meeting, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: "@baton-" + rand.Text(), Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("streams: %w", err)
	}
	return &meeting{x, l, map[uint64]*os.File{}}, nil
}

func (m *meeting) path() string { return m.listener.Addr().String() }

// Close ends the session, and with it the streams that nobody has met.
func (m *meeting) Close() error {
	m.listener.Close()
	return m.Exchange.Close()
}

// Receive is Exchange.Receive; the stream of a connection is among the files.
func (m *meeting) Receive() (Message, []*os.File, error) {
	message, files, err := m.Exchange.Receive()
	if err != nil {
		for _, f := range m.streams {
			f.Close()
		}
		return message, files, err
	}
	if message.Type != TypeConnection {
		return message, files, nil
	}
	if f := m.stream(message.Conn); f != nil {
		message.Files, files = []string{FileConnection}, []*os.File{f}
	}
	return message, files, nil
}

// stream waits for a connection's stream. Nil: it did not come.
func (m *meeting) stream(conn uint64) *os.File {
	_ = m.listener.SetDeadline(time.Now().Add(meetTime))
	for m.streams[conn] == nil {
		c, err := m.listener.AcceptUnix()
		if err != nil {
			return nil
		}
		id, err := introduced(c)
		f, failed := c.File()
		c.Close()
		switch {
		case failed != nil:
		case err != nil:
			f.Close()
		default:
			m.streams[id] = f
		}
	}
	f := m.streams[conn]
	delete(m.streams, conn)
	return f
}

// introduced reads the line with which a stream begins, and not more. Only root and the application's own user are believed.
func introduced(c *net.UnixConn) (conn uint64, err error) {
	cred, err := credentials(c)
	if err != nil {
		return 0, err
	}
	if cred.Uid != 0 && cred.Uid != uint32(os.Geteuid()) {
		return 0, fmt.Errorf("%w: from user %d", ErrMalformed, cred.Uid)
	}
	_ = c.SetReadDeadline(time.Now().Add(meetTime))
	var line []byte
	for b := make([]byte, 1); len(line) < maxIntroduction; line = append(line, b[0]) {
		if _, err := io.ReadFull(c, b); err != nil {
			return 0, err
		}
		if b[0] == '\n' {
			_, err := fmt.Sscanf(string(line)+"\n", Introduction, &conn)
			return conn, err
		}
	}
	return 0, ErrMalformed
}
