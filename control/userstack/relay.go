package userstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"

	"baton/control/agent"
	"baton/control/transfer"
)

// Times of a Relay.
const (
	// lookAfter is how long an application that took a connection is believed to take another.
	lookAfter   = time.Second
	dialTimeout = 200 * time.Millisecond
	// halfClosed is how long a client may say nothing after its application has closed its side: as Linux's
	// tcp_fin_timeout, because of a stream socket one cannot tell whether both directions are closed.
	halfClosed = time.Minute
)

// Relay gives the connections of a job to an application behind a local stream socket: one connection to it for each.
type Relay struct {
	Network string // "unix" or "tcp"
	Address string // path of the socket, or host:port
	// ProxyProtocol announces each connection by a PROXY header, version 2, with the addresses of client and service.
	ProxyProtocol bool
	Log           *slog.Logger

	took atomic.Int64 // when the application last took a connection, ns since 1970
}

// Relay makes the application behind r's socket the one of a job, which is ready while the socket takes connections.
func (s *Stack) Relay(name agent.Job, r *Relay) error {
	if err := s.attach(name, r); err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	return nil
}

// dial connects to the application.
func (r *Relay) dial(ctx context.Context) (net.Conn, *agent.Problem) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var d net.Dialer
	d.SetMultipathTCP(false)
	c, err := d.DialContext(ctx, r.Network, r.Address)
	if err == nil {
		r.took.Store(time.Now().UnixNano())
		return c, nil
	}
	r.took.Store(0)
	return nil, &agent.Problem{Reason: transfer.ReasonNotListening,
		Detail: fmt.Sprintf("the application does not take connections on %s: %v", r.Address, err)}
}

// problem implements acceptor. It tries, where nobody has for a while.
func (r *Relay) problem() *agent.Problem {
	if time.Since(time.Unix(0, r.took.Load())) < lookAfter {
		return nil
	}
	c, p := r.dial(context.Background())
	if p != nil {
		return p
	}
	_ = c.Close() // only a look
	return nil
}

// admit implements acceptor. The application is connected to before the hand-over is final, so that one that is gone
// costs no client its connection.
func (r *Relay) admit(ctx context.Context) (give func(*Conn), p *agent.Problem) {
	if ctx.Err() != nil {
		return nil, &agent.Problem{Reason: transfer.ReasonCapacity, Detail: "connecting to the application takes time"}
	}
	application, p := r.dial(ctx)
	if p != nil {
		return nil, p
	}
	return func(c *Conn) {
		if c == nil {
			_ = application.Close() // it has seen nothing
			return
		}
		go r.serve(c, application)
	}, nil
}

// halfCloser is a connection whose sending side can be closed by itself: of package net, and Conn.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// serve copies both ways until both are done.
func (r *Relay) serve(client *Conn, application net.Conn) {
	server := application.(halfCloser) // those of both networks are
	if r.ProxyProtocol {
		if _, err := server.Write(proxyHeader(client.remote.AddrPort(), client.local.AddrPort())); err != nil {
			r.Log.Warn("the application closes before its PROXY header", "address", r.Address, "err", err)
		}
	}
	var finished atomic.Bool // the application has closed its side
	bound := func() {
		if finished.Load() {
			_ = client.SetReadDeadline(time.Now().Add(halfClosed)) // fails of a connection that is closed
		}
	}
	up := make(chan error, 1)
	go func() { up <- pump(server, client, bound, func() { _ = server.Close() }) }()
	downErr := pump(client, server, func() {}, client.reset)
	finished.Store(true)
	bound()
	if upErr := <-up; downErr != nil || upErr != nil && !errors.Is(upErr, os.ErrDeadlineExceeded) {
		client.reset()
	}
	_ = client.Close() // of neither is anything left to lose
	_ = server.Close()
}

// pump copies from src to dst until src ends, and then closes dst's sending side. before is called before each read. When
// src fails, dst is broken off: nobody may take a part for the whole. When dst fails, its reader notices by itself.
func pump(dst, src halfCloser, before, breakOff func()) error {
	memory := chunks.Get().(*[chunk]byte)
	defer chunks.Put(memory)
	for {
		before()
		n, err := src.Read(memory[:])
		if n > 0 {
			if _, err := dst.Write(memory[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return dst.CloseWrite()
		case err != nil:
			breakOff()
			return err
		}
	}
}
