package password

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"baton/control/inspect"
)

var question = Question{Login: inspect.Login{User: "ann b", Password: "100% \xff\r\nX: y", Attempt: 2}, Protocol: "imap",
	Client: netip.MustParseAddrPort("192.0.2.1:4000")}

func TestServiceIsAskedAsNginxDoes(t *testing.T) {
	var got http.Header
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.Header
		w.Header().Set("Auth-Status", "OK")
	}))
	defer s.Close()
	if o, err := NewHTTP(s.URL, 1).Check(t.Context(), question); o != inspect.Right || err != nil {
		t.Fatalf("%d, %v", o, err)
	}
	for name, want := range map[string]string{"Auth-Method": "plain", "Auth-Protocol": "imap", "Auth-Login-Attempt": "2",
		"Client-IP": "192.0.2.1", "Auth-User": "ann%20b", "Auth-Pass": "100%25%20%FF%0D%0AX:%20y"} {
		if got.Get(name) != want {
			t.Errorf("%s: %q, want %q", name, got.Get(name), want)
		}
	}
	if text, err := url.PathUnescape(got.Get("Auth-Pass")); err != nil || text != string(question.Password) {
		t.Errorf("password %q, %v", text, err)
	}
}

func TestAnswersOfServices(t *testing.T) {
	for _, row := range []struct {
		name    string
		status  int
		answer  http.Header
		outcome inspect.Outcome
		err     string
	}{
		{"ok", 200, http.Header{"Auth-Status": {"OK"}, "Auth-Server": {"192.0.2.9"}, "Auth-Port": {"143"}}, inspect.Right, ""},
		{"wrong", 200, http.Header{"Auth-Status": {"Invalid login or password"}, "Auth-Wait": {"3"}}, inspect.Wrong, ""},
		{"wrong by SMTP's code", 200, http.Header{"Auth-Status": {"no"}, "Auth-Error-Code": {"535 5.7.8"}}, inspect.Wrong, ""},
		{"later", 200, http.Header{"Auth-Status": {"later"}, "Auth-Error-Code": {"451 4.3.0"}}, inspect.Failed, "451 4.3.0, later"},
		{"no status", 200, nil, inspect.Failed, "no Auth-Status"},
		{"error", 500, http.Header{"Auth-Status": {"OK"}}, inspect.Failed, "500 Internal Server Error"},
		{"not found", 404, nil, inspect.Failed, "404 Not Found"},
		{"redirected", 302, http.Header{"Location": {"/"}, "Auth-Status": {"OK"}}, inspect.Failed, "302 Found"},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for name, values := range row.answer {
				w.Header()[name] = values
			}
			w.WriteHeader(row.status)
		}))
		o, err := NewHTTP(s.URL, 1).Check(t.Context(), question)
		s.Close()
		if o != row.outcome || (err == nil) != (row.err == "") || err != nil && !strings.Contains(err.Error(), row.err) {
			t.Errorf("%s: %d, %v, want %d and %q", row.name, o, err, row.outcome, row.err)
		}
		if err != nil && (!errors.Is(err, ErrService) || strings.Contains(err.Error(), "100%")) {
			t.Errorf("%s: error %v", row.name, err)
		}
	}
}

func TestServiceThatDoesNotAnswer(t *testing.T) {
	release := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	h := NewHTTP(s.URL, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if o, err := h.Check(ctx, question); o != inspect.Failed || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("silent: %d, %v", o, err)
	}
	close(release)
	s.Close()
	if o, err := h.Check(t.Context(), question); o != inspect.Failed || !errors.Is(err, ErrService) {
		t.Errorf("gone: %d, %v", o, err)
	}
}

func TestConnectionsToServicesAreUsedAgain(t *testing.T) {
	addresses := map[string]bool{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		addresses[r.RemoteAddr] = true
		w.Header().Set("Auth-Status", "OK")
		_, _ = w.Write([]byte("hello\n"))
	}))
	defer s.Close()
	h := NewHTTP(s.URL, 1)
	for range 5 {
		if o, err := h.Check(t.Context(), question); o != inspect.Right {
			t.Fatalf("%d, %v", o, err)
		}
	}
	if len(addresses) != 1 {
		t.Errorf("%d connections for 5 questions in turn", len(addresses))
	}
}

func TestURLs(t *testing.T) {
	for text, good := range map[string]bool{
		"http://127.0.0.1:9000/auth": true, "https://auth.example/": true, "http://[::1]/?a=b": true,
		"": false, "/auth": false, "ftp://a/": false, "http://": false, "http://u:p@a/": false, "http://a/#b": false, "http://a b/": false,
	} {
		if err := CheckURL(text); good != (err == nil) || err != nil && !errors.Is(err, ErrURL) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
