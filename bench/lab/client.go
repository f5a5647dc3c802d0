package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os/exec"
	"strings"
	"time"

	"baton/bench/judge"
)

// Request returns a GET request as octets.
func Request(host, path string, headers ...string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\n", path, host)
	for _, h := range headers {
		fmt.Fprintf(&b, "%s\r\n", h)
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// Response is an HTTP response with its whole body.
type Response struct {
	*http.Response
	Data []byte
}

// Target names the host that served it; "" when none did.
func (r *Response) Target() string { return r.Header.Get("X-Target") }

// Responses reads responses of one connection, in order.
type Responses struct{ r *bufio.Reader }

// NewResponses begins to read responses.
func NewResponses(c io.Reader) *Responses { return &Responses{bufio.NewReader(c)} }

// Next reads one response to a GET.
func (r *Responses) Next() (*Response, error) {
	response, err := http.ReadResponse(r.r, nil)
	if err != nil {
		return nil, fmt.Errorf("read response: %w", err)
	}
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("read body: %w", err)
	}
	return &Response{response, data}, nil
}

// End reads until the service closes, and fails on any further octet.
func (r *Responses) End() error {
	rest, err := io.ReadAll(r.r)
	if err != nil {
		return fmt.Errorf("read the end: %w", err)
	}
	if len(rest) > 0 {
		return fmt.Errorf("%d octets after the response: %.60q", len(rest), rest)
	}
	return nil
}

// RoundTrip sends a request and reads its response; ctx's deadline applies.
func RoundTrip(ctx context.Context, c *Conn, request []byte) (*Response, error) {
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	if _, err := c.Write(request); err != nil {
		return nil, fmt.Errorf("send request: %w", err)
	}
	return NewResponses(c).Next()
}

// Curled is the outcome of a curl command that fetched one URL over one connection.
type Curled struct {
	Local    netip.AddrPort // the client's end
	Response *Response
	Stream   judge.Stream // what curl received; what it sent is not known
	Total    time.Duration
}

// curlReport is what curl writes to standard error at the end: local end, number of connections, seconds.
const curlReport = `%{stderr}baton-lab %{local_ip} %{local_port} %{num_connects} %{time_total}` + "\n"

// Curl fetches a URL with stock curl on the host, args being its further options. An exit status other than 0 is an
// error.
func (h *Host) Curl(ctx context.Context, url string, args ...string) (*Curled, error) {
	argv := append([]string{"curl", "--silent", "--show-error", "--include", "--raw", "--noproxy", "*",
		"--write-out", curlReport}, args...)
	cmd := h.command(ctx, append(argv, url))
	var out, report bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &report
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("curl %s: %w: %s", url, err, curlError(&report, err))
	}
	c := &Curled{Stream: judge.Stream{Received: judge.DigestOf(out.Bytes())}}
	if err := c.parse(report.String()); err != nil {
		return nil, err
	}
	var err error
	c.Response, err = NewResponses(&out).Next()
	return c, err
}

func (c *Curled) parse(report string) error {
	_, line, _ := strings.Cut(report, "baton-lab ")
	var local string
	var port uint16
	var conns int
	var seconds float64
	if _, err := fmt.Sscanf(line, "%s %d %d %g", &local, &port, &conns, &seconds); err != nil {
		return fmt.Errorf("read curl's report %q: %w", report, err)
	}
	if conns != 1 {
		return fmt.Errorf("curl made %d connections", conns)
	}
	c.Total = time.Duration(seconds * float64(time.Second))
	addr, err := netip.ParseAddr(local)
	c.Local = netip.AddrPortFrom(addr, port)
	return err
}

// curlError is what curl said, without the report.
func curlError(report *bytes.Buffer, err error) string {
	said, _, _ := strings.Cut(report.String(), "baton-lab ")
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err.Error()
	}
	return strings.TrimSpace(said)
}
