package xcf

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"
)

// Config is what a Server and a Dialer need to know of their own host.
type Config struct {
	Name     string // this host's name, the one in its certificate
	Files    Files
	Software string // version, told to peers for their operators
	Epoch    uint64 // routing host: of its ownership of its DVIPAs
}

// stream is a connection whose peer is known: handshake and Hello are done.
type stream struct {
	id     Identity
	hello  *Hello
	raw    *net.TCPConn
	conn   *tls.Conn
	frames *frameReader
}

// accept does the server's part of a new connection: TLS, our Hello, theirs. On error the connection is closed.
func (c Config) accept(ctx context.Context, raw *net.TCPConn) (*stream, error) {
	s, err := c.secure(ctx, raw, RoleRouter, tls.Server, RoleTarget, "")
	if err != nil {
		return nil, err
	}
	return s.greet(c.sendHello, (*stream).readHello)
}

// connect does the client's part: TLS, their Hello, ours.
func (c Config) connect(ctx context.Context, raw *net.TCPConn, router string) (*stream, error) {
	s, err := c.secure(ctx, raw, RoleTarget, tls.Client, RoleRouter, router)
	if err != nil {
		return nil, err
	}
	return s.greet((*stream).readHello, c.sendHello)
}

// secure reads our certificate and does the TLS handshake within handshakeTime, as side (tls.Server or tls.Client),
// with a peer that has the role, and the name unless that is empty.
func (c Config) secure(ctx context.Context, raw *net.TCPConn, own Role, side func(net.Conn, *tls.Config) *tls.Conn,
	role Role, name string) (*stream, error) {
	s := &stream{raw: raw}
	if err := s.begin(ctx, c, own, side, role, name); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return s, nil
}

func (s *stream) begin(ctx context.Context, c Config, own Role, side func(net.Conn, *tls.Config) *tls.Conn,
	role Role, name string) error {
	creds, err := c.Files.load(own, c.Name, time.Now())
	if err != nil {
		return err
	}
	if err := s.raw.SetDeadline(time.Now().Add(handshakeTime)); err != nil {
		return err
	}
	if err := s.raw.SetNoDelay(true); err != nil {
		return err
	}
	if err := s.raw.SetWriteBuffer(sendBuffer); err != nil {
		return err
	}
	if err := boundNotSent(s.raw); err != nil {
		return err
	}
	s.conn = side(s.raw, creds.tlsConfig(role, name, &s.id))
	if err := s.conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("handshake: %w", explainHandshake(err))
	}
	s.frames = newFrameReader(s.conn)
	return nil
}

// greet exchanges the Hellos in the order given, and ends the time limit of the handshake.
func (s *stream) greet(first, second func(*stream) error) (*stream, error) {
	err := first(s)
	if err == nil {
		err = second(s)
	}
	if err == nil {
		err = s.raw.SetDeadline(time.Time{})
	}
	if err != nil {
		_ = s.raw.Close()
		return nil, fmt.Errorf("hello: %w", explainHandshake(err))
	}
	return s, nil
}

// sendHello writes our Hello.
func (c Config) sendHello(s *stream) error {
	frame, err := appendFrame(nil, &Envelope{Message: &Envelope_Hello{Hello: &Hello{
		Version: ProtocolVersion, Host: c.Name, Software: c.Software, Epoch: c.Epoch,
	}}})
	if err != nil {
		return err
	}
	_, err = s.conn.Write(frame)
	return err
}

// readHello reads and checks the peer's Hello, which must name the host of its certificate.
func (s *stream) readHello() error {
	e, _, err := s.frames.next()
	if err != nil {
		return err
	}
	hello := e.GetHello()
	if hello == nil {
		return fmt.Errorf("%w: %s opens with %T, not with Hello", ErrProtocol, s.id, e.GetMessage())
	}
	if v := hello.GetVersion(); v != ProtocolVersion {
		return fmt.Errorf("%w: %s speaks XCF version %d, we speak %d", ErrProtocol, s.id, v, ProtocolVersion)
	}
	if hello.GetHost() != s.id.Name {
		return fmt.Errorf("%w: %s calls itself %q", ErrName, s.id, hello.GetHost())
	}
	s.hello = hello
	return nil
}

// explainHandshake says in the operator's words why no stream came up.
func explainHandshake(err error) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return fmt.Errorf("%w within %s", ErrDead, handshakeTime)
	}
	var record tls.RecordHeaderError
	if errors.As(err, &record) {
		return fmt.Errorf("%w: peer does not speak TLS", ErrProtocol)
	}
	return explainAlert(err)
}
