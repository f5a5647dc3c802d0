package inspect

import (
	"bufio"
	"encoding/binary"
	"io"
	"net/http"
	"strings"
	"testing"
)

// moments are conversations during which a client may have to be refused, and whether that is right for what it has said.
var moments = []struct {
	name  string
	app   func(testing.TB) Application
	said  string
	right func(said, refusal string) bool
}{
	{"http", func(t testing.TB) Application { return made(t)(NewHTTP(HTTPConfig{Default: "j"})) },
		"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n", rightHTTP},
	{"pop3", func(t testing.TB) Application { return newPOP3(t, "j") }, "CAPA\r\nAUTH PLAIN\r\nAGFubgB4\r\nSTAT\r\n",
		func(_, refusal string) bool { return oneLine(refusal, "-ERR ") }},
	{"imap", func(t testing.TB) Application { return newIMAP(t, "j") },
		"a NOOP\r\nb AUTHENTICATE PLAIN\r\n*\r\nc LOGIN {3}\r\nann x\r\nd SELECT x\r\n", rightIMAP},
	{"smtp", func(t testing.TB) Application { return newSMTP(t, SMTPConfig{Default: "j"}) },
		"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a>\r\nDATA\r\n",
		func(_, refusal string) bool { return oneLine(refusal, "421 4.") }},
	{"postgres", func(t testing.TB) Application { return made(t)(NewPostgres(PostgresConfig{Default: "j"})) },
		"\x00\x00\x00\x08\x04\xd2\x16\x2f\x00\x00\x00\x13\x00\x03\x00\x00user\x00ann\x00\x00Q", rightPostgres},
	{"redis", func(t testing.TB) Application { return made(t)(NewRedis(RedisConfig{Default: "j"})) },
		"*2\r\n$3\r\nGET\r\n$1\r\nx\r\nPING\r\n",
		func(_, refusal string) bool { return oneLine(refusal, "-") }},
	{"tls", func(t testing.TB) Application { return made(t)(NewTLS(TLSConfig{Default: "j"})) },
		"\x16\x03\x01\x00\x05\x01\x00\x00\x30\x03",
		func(_, refusal string) bool {
			return len(refusal) == 7 && strings.HasPrefix(refusal, "\x15\x03\x03\x00\x02\x02")
		}},
}

// made returns what makes an application of a constructor's results.
func made(t testing.TB) func(Application, error) Application {
	return func(a Application, err error) Application {
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
}

func oneLine(text, prefix string) bool {
	return strings.HasPrefix(text, prefix) && strings.Index(text, "\r\n") == len(text)-2
}

// rightHTTP wants a whole response, whose head is all if the request is known to be a HEAD.
func rightHTTP(said, refusal string) bool {
	method := http.MethodGet
	if strings.Contains(said, "\n") {
		method = http.MethodHead
	}
	rest := bufio.NewReader(strings.NewReader(refusal))
	r, err := http.ReadResponse(rest, &http.Request{Method: method})
	if err != nil {
		return false
	}
	body, err := io.ReadAll(r.Body)
	left, _ := io.ReadAll(rest)
	return err == nil && r.Close && len(left) == 0 && (method == http.MethodHead) == (len(body) == 0)
}

// rightIMAP wants BYE, and then the answer to the command that waits for one.
func rightIMAP(said, refusal string) bool {
	first, second, _ := strings.Cut(refusal, "\r\n")
	waits := ""
	switch lines := strings.Split(said, "\r\n"); {
	case len(lines) == 3:
		waits = "b NO "
	case len(lines) >= 6:
		waits = "c NO "
	}
	if waits == "" {
		return oneLine(first+"\r\n", "* BYE ") && second == ""
	}
	return oneLine(first+"\r\n", "* BYE ") && oneLine(second, waits)
}

// rightPostgres wants one ErrorResponse with severity, code and message (PostgreSQL documentation, Message Formats).
func rightPostgres(_, refusal string) bool {
	if len(refusal) < 6 || refusal[0] != 'E' || int(binary.BigEndian.Uint32([]byte(refusal[1:]))) != len(refusal)-1 {
		return false
	}
	fields := strings.Split(refusal[5:], "\x00")
	kinds := ""
	for _, f := range fields {
		kinds += f[:min(len(f), 1)]
	}
	return kinds == "SVCM" && len(fields) == 6 && fields[4] == "" && fields[5] == "" && len(fields[2]) == 6
}

// TestRefusalsFitEveryMoment cuts conversations after every octet. What was answered is consumed, as by the router.
func TestRefusalsFitEveryMoment(t *testing.T) {
	for _, m := range moments {
		for n := range len(m.said) + 1 {
			s := m.app(t).Session(window)
			data := []byte(m.said[:n])
			for more := true; more; {
				d := s.Inspect(data)
				data = data[d.Consumed:]
				more = d.Consumed > 0
			}
			for _, c := range []Cause{Unavailable, Timeout} {
				if refusal := s.Refusal(c); !m.right(m.said[:n], string(refusal)) {
					t.Errorf("%s after %q: %v is %q", m.name, m.said[:n], c, refusal)
				}
			}
		}
	}
}
