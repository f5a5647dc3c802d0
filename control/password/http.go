package password

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"baton/control/inspect"
)

// Errors of services.
var (
	// ErrURL is returned for a URL that is not one of HTTP.
	ErrURL = errors.New("bad URL of a password service")
	// ErrService is returned for an answer that says nothing of the password.
	ErrService = errors.New("password service")
)

// HTTP is a service that knows passwords.
type HTTP struct {
	url    string
	client *http.Client
}

// CheckURL returns why a service cannot be asked at a URL, as ErrURL, or nil.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "" {
		return fmt.Errorf("%w: want one as in \"http://127.0.0.1:9000/auth\"", ErrURL)
	}
	return nil
}

// NewHTTP makes a Checker of the service at a URL that CheckURL likes. It keeps so many connections.
func NewHTTP(url string, connections int) *HTTP {
	return &HTTP{url: url, client: &http.Client{
		// No proxy: what is asked is secret. For the same cause nobody else may be asked.
		Transport:     &http.Transport{MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// maxAnswer is how much of an answer's body is read, octets; more costs the connection.
const maxAnswer = 4096

// Check implements Checker.
func (h *HTTP) Check(ctx context.Context, q Question) (inspect.Outcome, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url, nil)
	if err != nil {
		return inspect.Failed, fmt.Errorf("%w: %w", ErrService, err)
	}
	for name, value := range map[string]string{
		"Auth-Method": "plain", "Auth-User": escape(q.User), "Auth-Pass": escape(string(q.Password)), "Auth-Protocol": q.Protocol,
		"Auth-Login-Attempt": strconv.Itoa(q.Attempt), "Client-IP": q.Client.Addr().String(),
	} {
		request.Header.Set(name, value)
	}
	answer, err := h.client.Do(request)
	if err != nil {
		return inspect.Failed, fmt.Errorf("%w: %w", ErrService, err)
	}
	defer func() { _ = answer.Body.Close() }()
	_, _ = io.CopyN(io.Discard, answer.Body, maxAnswer) // so that the connection can be used again
	return outcomeOf(answer)
}

func outcomeOf(answer *http.Response) (inspect.Outcome, error) {
	status, code := answer.Header.Get("Auth-Status"), answer.Header.Get("Auth-Error-Code")
	switch {
	case answer.StatusCode != http.StatusOK:
		return inspect.Failed, fmt.Errorf("%w: %s, want 200", ErrService, answer.Status)
	case status == "":
		return inspect.Failed, fmt.Errorf("%w: no Auth-Status", ErrService)
	case status == "OK":
		return inspect.Right, nil
	case strings.HasPrefix(code, "4"):
		return inspect.Failed, fmt.Errorf("%w: %s, %s", ErrService, code, status)
	}
	return inspect.Wrong, nil
}

// escape writes octets that a header field cannot have, and spaces, and "%", as "%" and two digits.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
