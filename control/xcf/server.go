package xcf

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// handshakesMax bounds the connections that are not authenticated yet; more are closed at once. An attacker on the XCF
// network who holds them all keeps targets out for as long as he pays for it, but costs no more memory than this.
const handshakesMax = 256

// acceptPause is the wait after a failed accept (no file descriptors left, most likely).
const acceptPause = 100 * time.Millisecond

// Server is the routing host's side: it accepts streams of target hosts, one per host. When a host opens another one,
// the older is closed first (ErrReplaced): its peer must have given up on it, as a restarted agent has. Its methods are
// safe for concurrent use.
type Server struct {
	hosts
	config   Config
	handler  Handler
	log      *slog.Logger
	listener *net.TCPListener

	admit sync.Mutex // one stream at a time takes its host's place
}

// Listen opens the XCF port of a routing host, and checks its certificate.
func Listen(address string, c Config, h Handler, log *slog.Logger) (*Server, error) {
	if _, err := c.Files.Check(RoleRouter, c.Name); err != nil {
		return nil, fmt.Errorf("listen for targets: %w", err)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for targets: %w", err)
	}
	return &Server{config: c, handler: h, log: log, listener: l.(*net.TCPListener)}, nil
}

// Addr is the address that the server listens on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Serve accepts streams until ctx is done, and returns when all of them are closed and their Down was called. The error
// is nil then.
func (s *Server) Serve(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = s.listener.Close() })()
	var streams sync.WaitGroup
	defer streams.Wait()
	slots := make(chan struct{}, handshakesMax)
	for {
		raw, err := s.listener.AcceptTCP()
		if ctx.Err() != nil {
			if err == nil {
				_ = raw.Close()
			}
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept targets: %w", err)
		}
		if err != nil {
			s.log.Error("xcf: accept", "err", err)
			time.Sleep(acceptPause)
			continue
		}
		select {
		case slots <- struct{}{}:
			streams.Go(func() { s.serve(ctx, raw, slots) })
		default:
			s.log.Warn("xcf: too many handshakes", "from", raw.RemoteAddr())
			_ = raw.Close()
		}
	}
}

// Close stops listening without a Serve; with one, end its context.
func (s *Server) Close() error { return s.listener.Close() }

// serve is one connection from its first octet to its end. It gives its slot back after the handshake.
func (s *Server) serve(ctx context.Context, raw *net.TCPConn, slots <-chan struct{}) {
	st, err := s.config.accept(ctx, raw)
	<-slots
	if err != nil {
		s.log.Warn("xcf: refused", "from", raw.RemoteAddr(), "err", err)
		return
	}
	p, err := s.place(ctx, st)
	if err != nil {
		_ = raw.Close()
		s.log.Warn("xcf: refused", "host", st.id.Name, "from", raw.RemoteAddr(), "err", err)
		return
	}
	defer context.AfterFunc(ctx, p.Close)()
	s.log.Info("xcf: target up", "host", p.Name(), "from", p.Addr(), "software", p.Software())
	err = p.run(st.frames, s.handler)
	s.log.Warn("xcf: target down", "host", p.Name(), "err", err)
}

// place makes the stream its host's one, after the older one's Down.
func (s *Server) place(ctx context.Context, st *stream) (*Peer, error) {
	s.admit.Lock()
	defer s.admit.Unlock()
	count := s.of(st.id.Name)
	if old := count.current(); old != nil {
		old.close(ErrReplaced)
		select {
		case <-old.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	p, err := newPeer(st, count)
	if err != nil {
		return nil, err
	}
	count.reserve(p)
	return p, nil
}
