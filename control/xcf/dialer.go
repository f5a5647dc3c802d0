package xcf

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Backoff between two attempts to connect.
const (
	backoffFirst = 100 * time.Millisecond
	backoffLast  = 5 * time.Second
)

// Router is a routing host that a target host serves.
type Router struct {
	Host    string // its name, the one in its certificate
	Address string // host:port of its XCF
}

// Dialer is the target host's side: it keeps a stream to each routing host. Its methods are safe for concurrent use.
type Dialer struct {
	hosts
	config  Config
	routers []Router
	handler Handler
	log     *slog.Logger
}

// NewDialer checks the host's certificate. Run connects.
func NewDialer(c Config, routers []Router, h Handler, log *slog.Logger) (*Dialer, error) {
	if _, err := c.Files.Check(RoleTarget, c.Name); err != nil {
		return nil, fmt.Errorf("dial routing hosts: %w", err)
	}
	d := &Dialer{config: c, routers: routers, handler: h, log: log}
	for _, r := range routers {
		d.of(r.Host) // Stats shows those that never came up
	}
	return d, nil
}

// Run keeps the streams up until ctx is done, and returns when all are closed and their Down was called. Different
// routing hosts are independent of each other.
func (d *Dialer) Run(ctx context.Context) {
	var routers sync.WaitGroup
	for _, r := range d.routers {
		routers.Go(func() { d.keep(ctx, r) })
	}
	routers.Wait()
}

// keep connects to one routing host, again and again. The backoff begins anew after a stream that was up.
func (d *Dialer) keep(ctx context.Context, r Router) {
	backoff := backoffFirst
	for ctx.Err() == nil {
		wasUp, err := d.session(ctx, r)
		if ctx.Err() != nil {
			return
		}
		if wasUp {
			backoff = backoffFirst
			d.log.Warn("xcf: routing host down", "host", r.Host, "err", err)
		} else if d.of(r.Host).failed(err) { // said once, not at each attempt
			d.log.Error("xcf: connect", "host", r.Host, "address", r.Address, "err", err)
		}
		sleep(ctx, jitter(backoff))
		backoff = min(2*backoff, backoffLast)
	}
}

// session is one attempt to connect and, if it succeeds, the stream's life.
func (d *Dialer) session(ctx context.Context, r Router) (wasUp bool, err error) {
	raw, err := dialTCP(ctx, r.Address)
	if err != nil {
		return false, err
	}
	st, err := d.config.connect(ctx, raw, r.Host)
	if err != nil {
		return false, err
	}
	count := d.of(r.Host)
	p, err := newPeer(st, count)
	if err != nil {
		_ = raw.Close()
		return false, err
	}
	count.reserve(p)
	defer context.AfterFunc(ctx, p.Close)()
	d.log.Info("xcf: routing host up", "host", p.Name(), "at", p.Addr(), "software", p.Software())
	return true, p.run(st.frames, d.handler)
}

// dialTCP opens a TCP connection within handshakeTime.
func dialTCP(ctx context.Context, address string) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err // names the address
	}
	raw, ok := conn.(*net.TCPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("dial %s: %T is no TCP connection", address, conn), conn.Close())
	}
	return raw, nil
}

// jitter returns d give or take half, so that the targets of a restarted routing host do not come all at once.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d) }

// sleep waits for d or until ctx is done.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
