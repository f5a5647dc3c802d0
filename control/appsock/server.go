package appsock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"baton/control/app"
)

// maxWaiting is how many messages may wait for an application.
const maxWaiting = 1024

// nameTooLong turns down a name that would not leave messages to others their room.
var nameTooLong = fmt.Sprintf("the application's name is longer than %d octets", app.MaxText)

// Handler is told what applications do. Calls about one Peer come from one goroutine, Joined first and Left last.
type Handler interface {
	Joined(p *Peer)
	// Said brings a message. The files are the Handler's to close.
	Said(p *Peer, m app.Message, files []*os.File)
	Left(p *Peer)
}

// Right is what the processes of one user may do.
type Right struct {
	UID      uint32
	Services []string // they may register for, as "10.77.0.10:80"; empty: for all
}

// Server takes control sockets at a path.
type Server struct {
	Rights  []Right // of the users that may speak; nobody else is listened to
	Handler Handler
	Log     *slog.Logger
}

// Peer is an application with its control socket.
type Peer struct {
	Name  string // of its process, or as it calls itself
	since time.Time
	taken uint64 // connections that it handed over; Routing's
	right Right
	send  func(app.Message, []*os.File) error
	out   chan outgoing
	close func()
	once  sync.Once
}

type outgoing struct {
	message app.Message
	files   []*os.File
}

// Listen opens the control socket at a path. A socket that a dead daemon left is replaced; one that answers is not.
// Everybody may connect: who is listened to is decided by credentials.
func Listen(path string) (*net.UnixListener, error) {
	if c, err := net.Dial("unixpacket", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("applications.socket: %s is another daemon's", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("applications.socket: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("applications.socket: %w", err)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("applications.socket: %w", err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		l.Close()
		return nil, fmt.Errorf("applications.socket: %w", err)
	}
	return l, nil
}

// Serve takes control sockets until ctx ends, and then ends them all.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var peers sync.WaitGroup
	defer peers.Wait()
	for {
		c, err := l.AcceptUnix()
		if ctx.Err() != nil {
			if err == nil {
				c.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("control sockets: %w", err)
		}
		peers.Go(func() { s.serve(ctx, app.NewSocket(c)) })
	}
}

// serve is the life of one control socket.
func (s *Server) serve(ctx context.Context, socket *app.Socket) {
	defer socket.Close()
	right, name, err := s.identify(socket)
	if err != nil {
		s.Log.Warn("application is not listened to", "error", err)
		turnAway(socket, err)
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { socket.Close() })
	p := newPeer(name, right, func(m app.Message, files []*os.File) error { return socket.Send(m, files...) }, cancel)
	var writer sync.WaitGroup
	writer.Go(func() { p.write(ctx) })
	s.Log.Info("application is here", "name", name, "uid", right.UID)
	s.Handler.Joined(p)
	s.read(p, socket)
	s.Handler.Left(p)
	s.Log.Info("application is gone", "name", name)
	cancel()
	stop()
	writer.Wait()
}

// turnAway says why, and waits a moment for the application to hang up: a socket that is closed with messages unread is
// reset, and the answer with it (unix(7)).
func turnAway(socket *app.Socket, why error) {
	_ = socket.Send(app.Message{Type: app.TypeError, Code: app.CodeNotAllowed, Detail: why.Error()})
	_ = socket.SetReadDeadline(time.Now().Add(time.Second))
	for err := error(nil); err == nil || errors.Is(err, app.ErrMalformed) || errors.Is(err, app.ErrTooLarge); {
		var files []*os.File
		_, files, err = socket.Receive()
		closeAll(files)
	}
}

func newPeer(name string, right Right, send func(app.Message, []*os.File) error, hangUp func()) *Peer {
	return &Peer{Name: name, since: time.Now(), right: right, send: send, out: make(chan outgoing, maxWaiting), close: hangUp}
}

// identify asks the kernel who the peer is, and looks whether it may speak.
func (s *Server) identify(socket *app.Socket) (Right, string, error) {
	cred, err := socket.Credentials()
	if err != nil {
		return Right{}, "", fmt.Errorf("credentials: %w", err)
	}
	name := processName(cred.Pid)
	i := slices.IndexFunc(s.Rights, func(r Right) bool { return r.UID == cred.Uid })
	if i < 0 {
		return Right{}, name, fmt.Errorf("user %d (process %d, %s) is not in applications.allow", cred.Uid, cred.Pid, name)
	}
	return s.Rights[i], name, nil
}

// processName is the job name of a process, or its number.
func processName(pid int32) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil || len(b) < 2 {
		return strconv.Itoa(int(pid))
	}
	return string(b[:len(b)-1])
}

// read brings messages to the handler until the socket ends.
func (s *Server) read(p *Peer, socket *app.Socket) {
	for {
		m, files, err := socket.Receive()
		switch {
		case err == nil:
			s.Handler.Said(p, m, files)
		case errors.Is(err, app.ErrMalformed):
			p.Error(0, app.CodeMalformed, err.Error())
		case errors.Is(err, app.ErrTooLarge):
			p.Error(0, app.CodeTooLarge, err.Error())
		case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
			return
		default:
			s.Log.Warn("control socket failed", "name", p.Name, "error", err)
			return
		}
	}
}

// Send gives the application a message, after all before. It does not block; the files are closed once they are sent. An
// application that does not read loses its control socket.
func (p *Peer) Send(m app.Message, files ...*os.File) {
	select {
	case p.out <- outgoing{m, files}:
	default:
		closeAll(files)
		p.once.Do(p.close)
	}
}

// Error answers a request that cannot be carried out.
func (p *Peer) Error(seq uint64, code, detail string) {
	p.Send(app.Message{Type: app.TypeError, Seq: seq, Code: code, Detail: detail})
}

// May reports whether the application may register for a service.
func (p *Peer) May(service string) bool {
	return len(p.right.Services) == 0 || slices.Contains(p.right.Services, service)
}

// write sends what waits.
func (p *Peer) write(ctx context.Context) {
	for {
		select {
		case o := <-p.out:
			err := p.send(o.message, o.files)
			closeAll(o.files)
			if err != nil {
				p.once.Do(p.close)
			}
		case <-ctx.Done():
			p.drop()
			return
		}
	}
}

// drop closes the files of what will not be sent.
func (p *Peer) drop() {
	for {
		select {
		case o := <-p.out:
			closeAll(o.files)
		default:
			return
		}
	}
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
