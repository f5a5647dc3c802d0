package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"baton/bench/lab"
	"baton/control/app"
)

// patience is how long anything about one connection may take.
const patience = 30 * time.Second

var errFate = errors.New("so it was meant to be")

// startApplication registers a target application for a job on a target.
func (s *soak) startApplication(h *lab.Host, job string, port int) error {
	inner, err := h.Listen(fmt.Sprintf(":%d", port))
	if err != nil {
		return err
	}
	l, err := app.Listen(h.ControlSocket(), app.Registration{Job: job, Name: "soak"}, inner, func(o app.Offer) error {
		if s.fate.rejects(o.Client, h.Name) {
			return errFate
		}
		return nil
	})
	if err != nil {
		return errors.Join(err, inner.Close())
	}
	s.applications = append(s.applications, l)
	go s.accept(l, h.Name)
	return nil
}

func (s *soak) accept(l net.Listener, target string) {
	for {
		c, err := l.Accept()
		if err != nil {
			s.fail(fmt.Errorf("application on %s: %w", target, err))
			return
		}
		go func() {
			if err := answer(c.(*app.Conn), target); err != nil {
				s.fail(fmt.Errorf("%v at %s: %w", c.RemoteAddr(), target, err))
			}
		}()
	}
}

// answer serves one connection.
func answer(c *app.Conn, target string) error {
	if c.Offer.Client.String() != c.RemoteAddr().String() {
		return errors.Join(fmt.Errorf("it came by the offer of %v", c.Offer.Client), c.Close())
	}
	err := c.SetDeadline(time.Now().Add(patience))
	head, readErr := readHead(c)
	if err := errors.Join(err, readErr); err != nil {
		return errors.Join(fmt.Errorf("read request: %w", err), c.Close())
	}
	if _, err := c.Write(response(target, head)); err != nil {
		return errors.Join(err, c.Close())
	}
	if !bytes.HasSuffix(head, []byte("Connection: close\r\n\r\n")) {
		if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			return errors.Join(fmt.Errorf("%d octets (%w) instead of the end", n, err), c.Close())
		}
	}
	return c.Close()
}

// readHead reads a request, of which no more is sent before its response.
func readHead(c io.Reader) ([]byte, error) {
	var head []byte
	piece := make([]byte, 8192)
	for !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
		n, err := c.Read(piece)
		if err != nil {
			return nil, fmt.Errorf("after %d octets: %w", len(head), err)
		}
		head = append(head, piece[:n]...)
	}
	return head, nil
}
