package lab

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// splice is where the cable between a host and its switch is cut, to put something in: what arrives at one end has to be
// carried to the other.
type splice struct {
	namespace string // of the switch
	port      string // the host's, in there
	ends      [2]*wireEnd
}

// wireEnd is a packet socket on an interface in the switch's namespace.
type wireEnd struct{ fd, index int }

// The ends of a wire, and the directions of its links: from that end.
const (
	hostEnd = iota
	switchEnd
)

// wireBuffer is what a packet socket may hold, octets: a reader that comes late must not add faults of its own.
const wireBuffer = 32 << 20

// open takes the host's port off the bridge and puts a link of its own there.
func (s *splice) open() error {
	far, near := s.far()
	if err := ip(s.namespace, fmt.Sprintf("link add %s type veth peer name %s\n", far, near)); err != nil {
		return err
	}
	if err := errors.Join(likeWire(s.namespace, far), likeWire(s.namespace, near)); err != nil {
		return err
	}
	err := ip(s.namespace, fmt.Sprintf("link set %s up\nlink set %s nomaster\nlink set %s master br0 up\n", near, s.port, far))
	if err != nil {
		return err
	}
	return inNamespace(s.namespace, func() (err error) {
		if s.ends[hostEnd], err = openEnd(s.port); err == nil {
			s.ends[switchEnd], err = openEnd(near)
		}
		return err
	})
}

// far names the link that stands in for the host at the bridge, and its other end.
func (s *splice) far() (far, near string) { return "f" + s.port[1:], "n" + s.port[1:] }

func openEnd(name string) (*wireEnd, error) {
	dev, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	timeout := unix.Timeval{Usec: 50_000}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, wireBuffer),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
		unix.Bind(fd, allFrames(dev.Index)))
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &wireEnd{fd, dev.Index}, nil
}

// mend puts the cable back that was there before.
func (s *splice) mend() error {
	var errs []error
	for _, end := range s.ends {
		if end != nil {
			errs = append(errs, unix.Close(end.fd))
		}
	}
	far, _ := s.far()
	errs = append(errs, ip(s.namespace, fmt.Sprintf("link del %s\nlink set %s master br0\n", far, s.port)))
	return errors.Join(errs...)
}
