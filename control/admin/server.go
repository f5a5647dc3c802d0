package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Errors of Listen.
var (
	ErrInUse     = errors.New("a daemon answers on the socket")
	ErrNotSocket = errors.New("path exists and is no socket")
)

// ErrBadQuery marks a query that cannot be answered as asked; the client gets status 400.
var ErrBadQuery = errors.New("bad query")

// Source is what a daemon answers from. Every function may be called from several goroutines at once; a nil one is a
// path that the daemon does not have. The context ends when the client goes away.
type Source struct {
	Version   func(context.Context) (Version, error)
	CRT       func(context.Context, CRTQuery) (CRTPage, error)
	Targets   func(context.Context) ([]Target, error)
	Transfers func(context.Context) ([]Transfer, error) // newest first
	Counters  func(context.Context) ([]Counter, error)
	Ports     func(context.Context) ([]Port, error)
	Lcores    func(context.Context) ([]Lcore, error)
	Keys      func(context.Context) ([]Key, error)
	Rotate    func(context.Context) ([]Key, error) // adds a secret
	Flows     func(context.Context) ([]Flow, error)
	Doctor    func(context.Context) ([]Finding, error)
	Services  func(context.Context) ([]Service, error)
	// Drain lets a target have no new connections, or have them again. An error for one that is not there is ErrBadQuery.
	Drain func(ctx context.Context, target string, drain bool) error

	Applications func(context.Context) ([]Application, error)
}

// Handler answers the paths that s has.
func (s Source) Handler() http.Handler {
	mux := http.NewServeMux()
	handle(mux, "version", s.Version)
	handle(mux, "targets", s.Targets)
	handle(mux, "transfers", s.Transfers)
	handle(mux, "counters", s.Counters)
	handle(mux, "ports", s.Ports)
	handle(mux, "lcores", s.Lcores)
	handle(mux, "keys", s.Keys)
	handleMethod(mux, http.MethodPost, "keys/rotate", s.Rotate)
	handle(mux, "flows", s.Flows)
	handle(mux, "doctor", s.Doctor)
	handle(mux, "services", s.Services)
	if s.Drain != nil {
		mux.HandleFunc("POST /v1/targets/{target}/{action}", s.serveDrain)
	}
	handle(mux, "applications", s.Applications)
	if s.CRT != nil {
		mux.HandleFunc("GET /v1/crt", s.serveCRT)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusNotFound, failure{fmt.Sprintf("this daemon has no %s", r.URL.Path)})
	})
	return mux
}

type failure struct {
	Error string `json:"error"`
}

func handle[T any](mux *http.ServeMux, name string, read func(context.Context) (T, error)) {
	handleMethod(mux, http.MethodGet, name, read)
}

func handleMethod[T any](mux *http.ServeMux, method, name string, do func(context.Context) (T, error)) {
	if do == nil {
		return
	}
	mux.HandleFunc(method+" /v1/"+name, func(w http.ResponseWriter, r *http.Request) {
		v, err := do(r.Context())
		reply(w, v, err)
	})
}

func (s Source) serveCRT(w http.ResponseWriter, r *http.Request) {
	q, err := parseCRTQuery(r.URL.Query())
	if err != nil {
		reply(w, nil, err)
		return
	}
	page, err := s.CRT(r.Context(), q)
	reply(w, page, err)
}

// serveDrain answers with the target's name and whether it drains now.
func (s Source) serveDrain(w http.ResponseWriter, r *http.Request) {
	action := r.PathValue("action")
	d := Drained{Target: r.PathValue("target"), Draining: action == "drain"}
	if !d.Draining && action != "undrain" {
		reply(w, nil, fmt.Errorf("%w: a target can drain and undrain, not %s", ErrBadQuery, action))
		return
	}
	reply(w, d, s.Drain(r.Context(), d.Target, d.Draining))
}

func reply(w http.ResponseWriter, v any, err error) {
	switch {
	case errors.Is(err, ErrBadQuery):
		answer(w, http.StatusBadRequest, failure{err.Error()})
	case err != nil:
		answer(w, http.StatusInternalServerError, failure{err.Error()})
	default:
		answer(w, http.StatusOK, v)
	}
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // an error here is a client that went away
}

func parseCRTQuery(v url.Values) (CRTQuery, error) {
	q := CRTQuery{Client: v.Get("client"), Service: v.Get("service"), Owner: v.Get("owner"), Limit: DefaultPage}
	for key, bound := range map[string]struct {
		dst       *int
		low, high int
	}{
		"offset": {&q.Offset, 0, 1 << 31},
		"limit":  {&q.Limit, 1, MaxPage},
	} {
		if !v.Has(key) {
			continue
		}
		n, err := strconv.Atoi(v.Get(key))
		if err != nil || n < bound.low || n > bound.high {
			return q, fmt.Errorf("%w: %s must be a number from %d to %d", ErrBadQuery, key, bound.low, bound.high)
		}
		*bound.dst = n
	}
	return q, nil
}

// Listen makes the socket at path, mode 0600, and its directory when that is missing. A socket that a dead daemon left
// behind is replaced; one that somebody answers on is ErrInUse. A lock on path + ".lock" keeps two starting daemons
// from replacing each other's socket; it is held until the listener is closed. Closing removes the socket.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make admin socket: %w", err)
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("make admin socket %s: %w", path, err)
	}
	l, err := listenLocked(path)
	if err != nil {
		_ = os.Remove(lock.Name())
		_ = lock.Close()
		return nil, fmt.Errorf("make admin socket %s: %w", path, err)
	}
	return &lockedListener{Listener: l, lock: lock}, nil
}

// lockFile locks path. The holder removes the file when it closes, so a lock counts only if the path still names the
// file that was locked; otherwise the next daemon would lock another one.
func lockFile(path string) (*os.File, error) {
	for range 10 {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			_ = f.Close()
			return nil, ErrInUse
		}
		if names(path, f) {
			return f, nil
		}
		_ = f.Close()
	}
	return nil, ErrInUse
}

func names(path string, f *os.File) bool {
	mine, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(mine, there)
}

func listenLocked(path string) (net.Listener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// The socket is born with mode 0600: between bind and a chmod anybody could connect.
	old := unix.Umask(0o177)
	defer unix.Umask(old)
	return net.Listen("unix", path)
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != os.ModeSocket {
		return ErrNotSocket
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		_ = c.Close()
		return ErrInUse
	}
	return os.Remove(path)
}

type lockedListener struct {
	net.Listener
	lock *os.File
}

// Close removes the socket and then lets the next daemon have the path.
func (l *lockedListener) Close() error {
	err := l.Listener.Close()
	_ = os.Remove(l.lock.Name()) // while it is locked: see lockFile
	_ = l.lock.Close()
	return err
}

// Serve answers on l until ctx ends, and closes l.
func Serve(ctx context.Context, l net.Listener, s Source) error {
	server := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve admin socket: %w", err)
	}
	return nil
}
