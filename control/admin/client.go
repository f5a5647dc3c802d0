package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"syscall"
	"time"
)

// ErrNotRunning means that no daemon answers on the socket.
var ErrNotRunning = errors.New("the daemon is not running")

// ErrNotServed means that the daemon on the socket does not have what was asked for.
var ErrNotServed = errors.New("not served by this daemon")

// maxAnswer bounds an answer: MaxPage entries of a few hundred octets each.
const maxAnswer = 16 << 20

// Client asks the daemon on one socket. It is safe for use by several goroutines.
type Client struct {
	path string
	http *http.Client
}

// NewClient returns a client of the socket at path. It does not connect yet.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
	transport := &http.Transport{DialContext: dial, DisableKeepAlives: true}
	return &Client{path: path, http: &http.Client{Transport: transport, Timeout: 10 * time.Second}}
}

// Version asks what runs.
func (c *Client) Version(ctx context.Context) (Version, error) {
	return get[Version](ctx, c, "version", nil)
}

// CRT asks for a page of the connection routing table.
func (c *Client) CRT(ctx context.Context, q CRTQuery) (CRTPage, error) {
	v := url.Values{}
	for key, s := range map[string]string{"client": q.Client, "service": q.Service, "owner": q.Owner} {
		if s != "" {
			v.Set(key, s)
		}
	}
	for key, n := range map[string]int{"offset": q.Offset, "limit": q.Limit} {
		if n != 0 {
			v.Set(key, strconv.Itoa(n))
		}
	}
	return get[CRTPage](ctx, c, "crt", v)
}

// Targets asks for the destination port table.
func (c *Client) Targets(ctx context.Context) ([]Target, error) {
	return get[[]Target](ctx, c, "targets", nil)
}

// Services asks for the services and who gets their connections.
func (c *Client) Services(ctx context.Context) ([]Service, error) {
	return get[[]Service](ctx, c, "services", nil)
}

// Drain lets a target have no new connections, or have them again.
func (c *Client) Drain(ctx context.Context, target string, drain bool) (Drained, error) {
	action := "undrain"
	if drain {
		action = "drain"
	}
	return ask[Drained](ctx, c, http.MethodPost, "targets/"+target+"/"+action, nil)
}

// Transfers asks for recent transfers, newest first.
func (c *Client) Transfers(ctx context.Context) ([]Transfer, error) {
	return get[[]Transfer](ctx, c, "transfers", nil)
}

// Counters asks for all counters.
func (c *Client) Counters(ctx context.Context) ([]Counter, error) {
	return get[[]Counter](ctx, c, "counters", nil)
}

// Lcores asks for the poll loops.
func (c *Client) Lcores(ctx context.Context) ([]Lcore, error) {
	return get[[]Lcore](ctx, c, "lcores", nil)
}

// Keys asks for the secrets of SYN cookies, without the secrets themselves.
func (c *Client) Keys(ctx context.Context) ([]Key, error) { return get[[]Key](ctx, c, "keys", nil) }

// Rotate adds a secret of SYN cookies, and returns all.
func (c *Client) Rotate(ctx context.Context) ([]Key, error) {
	return ask[[]Key](ctx, c, http.MethodPost, "keys/rotate", nil)
}

// Ports asks for the data ports.
func (c *Client) Ports(ctx context.Context) ([]Port, error) { return get[[]Port](ctx, c, "ports", nil) }

// Flows asks a target host for the connections it has taken.
func (c *Client) Flows(ctx context.Context) ([]Flow, error) { return get[[]Flow](ctx, c, "flows", nil) }

// Applications asks which applications are registered at the daemon's control socket.
func (c *Client) Applications(ctx context.Context) ([]Application, error) {
	return get[[]Application](ctx, c, "applications", nil)
}

// Doctor asks the daemon to check its host.
func (c *Client) Doctor(ctx context.Context) ([]Finding, error) {
	return get[[]Finding](ctx, c, "doctor", nil)
}

func get[T any](ctx context.Context, c *Client, name string, query url.Values) (T, error) {
	return ask[T](ctx, c, http.MethodGet, name, query)
}

func ask[T any](ctx context.Context, c *Client, method, name string, query url.Values) (T, error) {
	var v T
	u := url.URL{Scheme: "http", Host: "baton", Path: "/v1/" + name, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return v, fmt.Errorf("ask for %s: %w", name, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return v, c.explain(name, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer))
	if resp.StatusCode != http.StatusOK {
		return v, refusal(name, resp.StatusCode, body)
	}
	if err := body.Decode(&v); err != nil {
		return v, fmt.Errorf("read answer to %s: %w", name, err)
	}
	return v, nil
}

// explain turns what a missing daemon looks like (no socket, or one that nobody listens on) into words.
func (c *Client) explain(name string, err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w (no socket %s; another path: --socket)", ErrNotRunning, c.path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w (nobody listens on %s)", ErrNotRunning, c.path)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("open %s: permission denied (only the daemon's user may)", c.path)
	}
	return fmt.Errorf("ask for %s: %w", name, err)
}

func refusal(name string, status int, body *json.Decoder) error {
	var f failure
	if err := body.Decode(&f); err != nil || f.Error == "" {
		f.Error = http.StatusText(status)
	}
	switch status {
	case http.StatusNotFound:
		return fmt.Errorf("%s: %w", name, ErrNotServed)
	case http.StatusBadRequest:
		return fmt.Errorf("%s: %s", name, f.Error)
	}
	return fmt.Errorf("daemon could not answer %s: %s", name, f.Error)
}
