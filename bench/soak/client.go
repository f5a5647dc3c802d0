package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"baton/bench/lab"
)

// Connections of one client address use ports from here on, each once: none is in TIME-WAIT, and none comes twice.
const firstPort = 10000

// worker is one of many clients at work at the same time. It takes connections by their numbers until there are none left.
func (s *soak) worker(ctx context.Context) error {
	return s.lab.Client.Do(func() error { // whose thread opens the sockets
		for ctx.Err() == nil {
			i := int(s.next.Add(1)) - 1
			if i >= s.connections {
				return nil
			}
			client, service := s.place(i)
			if err := s.connection(ctx, client, service); err != nil {
				return fmt.Errorf("connection %d, %v to %v: %w%s", i+1, client, service, err, s.attempts(client))
			}
			s.done.Add(1)
		}
		return context.Cause(ctx)
	})
}

// attempts tells what the routing host has tried for a client lately.
func (s *soak) attempts(client netip.AddrPort) (text string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	all, err := s.baton.Admin.Transfers(ctx)
	if err != nil {
		return fmt.Sprint("; ", err)
	}
	for _, t := range all {
		if t.Client == client.String() {
			text += fmt.Sprintf("; %s by %s: %s", t.Outcome, t.Target, t.Reason)
		}
	}
	return text
}

// place is the client's end of a connection, and the service that it is to.
func (s *soak) place(i int) (client, service netip.AddrPort) {
	port := firstPort + i/len(s.clients)
	return netip.AddrPortFrom(s.clients[i%len(s.clients)], uint16(port)), netip.AddrPortFrom(lab.DVIPA, services[port%len(services)].port)
}

// connection makes one, and checks every octet that comes, and its end.
func (s *soak) connection(ctx context.Context, client, service netip.AddrPort) (err error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(client), Control: reuse, Timeout: patience}
	d.SetMultipathTCP(false)
	c, err := d.DialContext(ctx, "tcp4", service.String())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	q := s.fate.requestOf(client)
	want := []byte(refusal)
	target, rejections := s.fate.taker(client, orderOf(service))
	if target != "" {
		want = response(target, q.octets)
	}
	for _, piece := range [][]byte{q.octets[:q.split], q.octets[q.split:]} {
		if _, err := c.Write(piece); err != nil {
			return err
		}
	}
	var source io.Reader = c
	if q.clientFirst && target != "" {
		source = io.LimitReader(c, int64(len(want)))
	}
	got, err := io.ReadAll(source)
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("got %d octets, %.80q, want %d, %.80q", len(got), got, len(want), want)
	}
	s.rejected[rejections].Add(1)
	return err
}

// reuse lets a client have a port that another address has, too.
func reuse(_, _ string, raw syscall.RawConn) (err error) {
	return errors.Join(raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}), err)
}
