package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"baton/bench/lab"
)

// patience bounds each step of a fetch.
const patience = 5 * time.Second

var headEnd = []byte("\r\n\r\n")

// client fetches one file again and again, by blocking system calls: no runtime that might wake up late stands between
// it and the kernel.
type client struct {
	request []byte
	body    []byte // the file
	served  []byte // header line that names the target
	buf     []byte
}

func newClient(path string, body []byte, target string) *client {
	return &client{request: lab.Request(site, path), body: body, served: []byte("\r\nX-Target: " + target + "\r\n"),
		buf: make([]byte, 64<<10)}
}

// fetch opens a connection, asks for the file and reads it, and returns how long that took, from socket(2) to the last
// octet, and the connection's own end. The thread must be in the client's namespace.
func (c *client) fetch(from netip.AddrPort) (took time.Duration, local netip.AddrPort, err error) {
	begin := time.Now()
	fd, err := connect(from)
	if err != nil {
		return 0, local, err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	n, err := c.ask(fd)
	took = time.Since(begin)
	if err != nil {
		return 0, local, fmt.Errorf("fetch from %v: %w", from, err)
	}
	if err := c.verify(c.buf[:n]); err != nil {
		return 0, local, fmt.Errorf("fetch from %v: %w", from, err)
	}
	local, err = localEnd(fd)
	return took, local, err
}

func connect(to netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	limit := unix.NsecToTimeval(patience.Nanoseconds())
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(patience.Milliseconds())), // of connect
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit))
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	}
	if err != nil {
		return -1, errors.Join(fmt.Errorf("connect to %v: %w", to, err), unix.Close(fd))
	}
	return fd, nil
}

// ask sends the request and reads until head and body are there. It returns their size.
func (c *client) ask(fd int) (int, error) {
	if _, err := unix.Write(fd, c.request); err != nil {
		return 0, err
	}
	for have := 0; ; {
		n, err := unix.Read(fd, c.buf[have:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, err
		case n == 0:
			return 0, fmt.Errorf("closed after %d octets: %.60q", have, c.buf[:have])
		}
		have += n
		if head := bytes.Index(c.buf[:have], headEnd); head >= 0 && have >= head+len(headEnd)+len(c.body) {
			return have, nil
		}
	}
}

// verify makes sure that the target has sent the file.
func (c *client) verify(response []byte) error {
	head, body, _ := bytes.Cut(response, headEnd)
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) || !bytes.Contains(append(head, '\r', '\n'), c.served) {
		return fmt.Errorf("unexpected response: %.300q", head)
	}
	if !bytes.Equal(body, c.body) {
		return errors.New("the body is not the file")
	}
	return nil
}

func localEnd(fd int) (netip.AddrPort, error) {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, err
	}
	in, ok := name.(*unix.SockaddrInet4)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("%T is no IPv4 socket", name)
	}
	return netip.AddrPortFrom(netip.AddrFrom4(in.Addr), uint16(in.Port)), nil
}
