package appsock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
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
	Token    string   // stands for the user where the kernel does not say who speaks; "": nothing does
	Services []string // they may register for, as "10.77.0.10:80"; empty: for all
}

// Server takes control sockets at a path.
type Server struct {
	Rights  []Right // of the users that may speak; nobody else is listened to
	Handler Handler
	Log     *slog.Logger
	Counts  *Counts // of datagrams
}

// Sockets says where a Server is reached, and by whom.
type Sockets struct {
	Path   string         // of the Unix socket
	UDP    netip.AddrPort // not valid: only there
	Lease  time.Duration  // after which an application that was not heard over UDP has left
	Rights []Right
}

// Run takes control sockets until ctx ends.
func (s *Server) Run(ctx context.Context, at Sockets) error {
	l, err := Listen(at.Path)
	if err != nil {
		return err
	}
	if !at.UDP.IsValid() {
		return s.Serve(ctx, l)
	}
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at.UDP))
	if err != nil {
		return errors.Join(fmt.Errorf("applications.udp: %w", err), l.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		defer cancel()
		failed <- s.ServeDatagrams(ctx, conn, at.Lease)
	}()
	err = s.Serve(ctx, l)
	cancel()
	return errors.Join(err, <-failed)
}

// Peer is an application with its control socket.
type Peer struct {
	Name  string // of its process, or as it calls itself
	since time.Time
	taken uint64 // connections that it handed over; Routing's
	right Right
	link  link
	udp   bool   // no files can be passed, and only small state
	meets string // Unix socket at which it takes connections; "": they are passed. Routing's
	out   chan outgoing
}

// link is how an application's messages come and go. Close ends Receive.
type link interface {
	Send(m app.Message, files ...*os.File) error
	Receive() (m app.Message, files []*os.File, err error)
	Close() error
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
	s.attend(ctx, socket, newPeer(name, right, socket, false))
}

// attend serves an application until its link or ctx ends.
func (s *Server) attend(ctx context.Context, l link, p *Peer) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { l.Close() })
	name := p.Name
	var writer sync.WaitGroup
	writer.Go(func() { p.write(ctx) })
	s.Log.Info("application is here", "name", name, "uid", p.right.UID, "udp", p.udp)
	s.Handler.Joined(p)
	s.read(p)
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

func newPeer(name string, right Right, l link, udp bool) *Peer {
	return &Peer{Name: name, since: time.Now(), right: right, link: l, udp: udp, out: make(chan outgoing, maxWaiting)}
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

// read brings messages to the handler until the link ends.
func (s *Server) read(p *Peer) {
	for {
		m, files, err := p.link.Receive()
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
		p.hangUp()
	}
}

// hangUp ends what the application has registered.
func (p *Peer) hangUp() { p.link.Close() }

// Error answers a request that cannot be carried out.
func (p *Peer) Error(seq uint64, code, detail string) {
	p.Send(app.Message{Type: app.TypeError, Seq: seq, Code: code, Detail: detail})
}

// May reports whether the application may register for a service.
func (p *Peer) May(service string) bool {
	return len(p.right.Services) == 0 || slices.Contains(p.right.Services, service)
}

// Carries reports whether a message to the application can have so many octets of state.
func (p *Peer) Carries(state int) bool { return !p.udp || state <= app.MaxInline }

// write sends what waits.
func (p *Peer) write(ctx context.Context) {
	for {
		select {
		case o := <-p.out:
			err := p.link.Send(o.message, o.files...)
			closeAll(o.files)
			if err != nil {
				p.hangUp()
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
