package appsock

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"baton/control/app"
)

// errOwner says that a stream's listener is not the application's.
var errOwner = errors.New("belongs to another user")

// meetStream connects to the Unix socket at which an application takes its connections, if that is of the application's user,
// and says which connection it is. It does not block: an application that does not accept gets no more (unix(7), EAGAIN).
func meetStream(path string, uid uint32, conn uint64) (*stream, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	s := &stream{file: os.NewFile(uintptr(fd), "connection")}
	if err := introduce(fd, path, uid, conn); err != nil {
		s.file.Close()
		return nil, fmt.Errorf("stream %s: %w", path, err)
	}
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		s.file.Close()
		return nil, fmt.Errorf("stream %s: %w", path, err)
	}
	s.own = uint32(stat.Ino)
	return s, nil
}

func introduce(fd int, path string, uid uint32, conn uint64) error {
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return err
	}
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED) // of who called listen()
	if err != nil {
		return err
	}
	if cred.Uid != uid {
		return fmt.Errorf("%w: %d, want %d", errOwner, cred.Uid, uid)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, streamBuffer); err != nil {
		return err
	}
	_, err = unix.SendmsgN(fd, fmt.Appendf(nil, app.Introduction, conn), nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
	return err
}
