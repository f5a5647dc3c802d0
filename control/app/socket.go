package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Errors of a Socket. A malformed message does not end it.
var (
	ErrMalformed = errors.New("malformed message")
	ErrTooLarge  = errors.New("message too large")
)

// Socket is one end of a control socket. Send may be called from several goroutines, Receive from one.
type Socket struct {
	conn    *net.UnixConn
	sending sync.Mutex
	in      []byte
	oob     []byte
}

// Dial connects to a daemon's control socket.
func Dial(path string) (*Socket, error) {
	c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return NewSocket(c), nil
}

// NewSocket makes a Socket of a connection of type "unixpacket", which is the Socket's from then on.
func NewSocket(c *net.UnixConn) *Socket {
	return &Socket{conn: c, in: make([]byte, MaxMessage+1), oob: make([]byte, unix.CmsgSpace(4*maxFiles))}
}

// Close ends the registration.
func (s *Socket) Close() error { return s.conn.Close() }

// SetReadDeadline bounds Receive, as that of a net.Conn.
func (s *Socket) SetReadDeadline(t time.Time) error { return s.conn.SetReadDeadline(t) }

// Credentials are the peer's, as of when it connected.
func (s *Socket) Credentials() (*unix.Ucred, error) { return credentials(s.conn) }

func credentials(c *net.UnixConn) (*unix.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) { cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return cred, errors.Join(err, failed)
}

// Send sends a message with files, by the names that m.Files gives them; they remain the caller's. State that does
// not fit goes as a memfd, which Send adds. Errors: ErrTooLarge, or of the socket.
func (s *Socket) Send(m Message, files ...*os.File) error {
	if len(m.Files) != len(files) {
		return fmt.Errorf("%w: %d files, %d names", ErrMalformed, len(files), len(m.Files))
	}
	if len(m.State) > MaxState {
		return fmt.Errorf("%w: %d octets of state, at most %d", ErrTooLarge, len(m.State), MaxState)
	}
	if len(m.State) > MaxInline {
		f, err := seal(FileState, m.State)
		if err != nil {
			return err
		}
		defer f.Close()
		m.State = nil
		m.Files, files = append(slices.Clip(m.Files), FileState), append(slices.Clip(files), f)
	}
	return s.write(m, files)
}

func (s *Socket) write(m Message, files []*os.File) error {
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if len(b) > MaxMessage || len(files) > maxFiles {
		return fmt.Errorf("%w: %d octets (at most %d), %d files (at most %d)", ErrTooLarge, len(b), MaxMessage, len(files),
			maxFiles)
	}
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		oob = unix.UnixRights(fds...)
	}
	s.sending.Lock()
	defer s.sending.Unlock()
	if _, _, err := s.conn.WriteMsgUnix(b, oob, nil); err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}

// Receive waits for the next message. State that came as a memfd is in the message; the other files are
// returned as m.Files names them, and are the caller's to close. Errors: io.EOF when the peer has closed; ErrMalformed
// and ErrTooLarge, after which the next message may be received; or of the socket.
func (s *Socket) Receive() (m Message, files []*os.File, err error) {
	n, oobn, flags, _, err := s.conn.ReadMsgUnix(s.in, s.oob)
	if err != nil {
		return m, nil, fmt.Errorf("control socket: %w", err)
	}
	files, err = filesOf(s.oob[:oobn])
	switch {
	case err != nil:
	case n == 0 && len(files) == 0:
		return m, nil, io.EOF
	case n > MaxMessage || flags&unix.MSG_TRUNC != 0:
		err = fmt.Errorf("%w: more than %d octets", ErrTooLarge, MaxMessage)
	case flags&unix.MSG_CTRUNC != 0:
		err = fmt.Errorf("%w: more than %d files", ErrTooLarge, maxFiles)
	default:
		m, files, err = parse(s.in[:n], files)
	}
	if err != nil {
		closeAll(files)
		return Message{}, nil, err
	}
	return m, files, nil
}

// parse reads a packet, and the files that are parts of it.
func parse(b []byte, files []*os.File) (m Message, rest []*os.File, err error) {
	if err := json.Unmarshal(b, &m); err != nil {
		return m, files, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if m.Type == "" {
		return m, files, fmt.Errorf("%w: no type", ErrMalformed)
	}
	if len(m.Files) != len(files) {
		return m, files, fmt.Errorf("%w: %d file descriptors, but files names %d", ErrMalformed, len(files), len(m.Files))
	}
	names := m.Files
	m.Files = nil
	for i, f := range files {
		if names[i] != FileState {
			m.Files, rest = append(m.Files, names[i]), append(rest, f)
			continue
		}
		if m.State, err = unseal(f, MaxState); err != nil {
			return m, files, fmt.Errorf("%s: %w", names[i], err)
		}
		f.Close()
	}
	return m, rest, nil
}

// filesOf takes the file descriptors out of ancillary data. They close on exec.
func filesOf(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("%w: ancillary data: %w", ErrMalformed, err)
	}
	var files []*os.File
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // credentials or the like
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// seal puts octets into a memfd that nobody can change any more (memfd_create(2), fcntl(2)).
func seal(name string, octets []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("baton-"+name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.Write(octets); err != nil {
		f.Close()
		return nil, fmt.Errorf("memfd: %w", err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		f.Close()
		return nil, fmt.Errorf("seal memfd: %w", err)
	}
	return f, nil
}

// unseal reads a memfd. One that its sender could still change or shorten is refused.
func unseal(f *os.File, limit int64) ([]byte, error) {
	have, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	if err != nil || have&seals != seals {
		return nil, fmt.Errorf("%w: want a memfd sealed against writing, growing and shrinking", ErrMalformed)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%w: %d octets, at most %d", ErrTooLarge, info.Size(), limit)
	}
	b := make([]byte, info.Size())
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	return b, nil
}
