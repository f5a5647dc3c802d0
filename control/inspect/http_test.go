package inspect

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

const window = 512

// testRules is an order in which each kind of pattern comes before one that it overlaps.
var testRules = []Rule{
	{Host: "a.example", Path: "/static/", Choice: to("static")},
	{Host: "a.example", Path: "/exact", Choice: to("exact")},
	{Host: "A.Example.", Choice: to("a")},
	{Host: "deep.b.example", Choice: to("deep")},
	{Host: "*.b.example", Choice: to("b")},
	{Host: "[2001:DB8:0::1]", Choice: to("v6")},
	{Host: "192.0.2.1", Choice: to("v4")},
	{Path: "/any/*", Choice: to("any")},
}

func newHTTP(t testing.TB, fallback string, rules ...Rule) *HTTP {
	t.Helper()
	h, err := NewHTTP(HTTPConfig{Rules: rules, Default: fallback})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// get is a whole request for a path of a host.
func get(host, target string) string {
	return "GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: curl/8.14.1\r\nAccept: */*\r\n\r\n"
}

// verdicts in words, for tables.
func outcome(d Decision) string {
	switch d.Verdict {
	case Route:
		return d.Job
	case Refuse:
		return d.Cause.String()
	default:
		return d.Verdict.String()
	}
}

func decide(h Application, data string) string {
	return outcome(h.Session(window).Inspect([]byte(data)))
}

func TestFirstMatchingRuleDecides(t *testing.T) {
	h := newHTTP(t, "", testRules...)
	withDefault := newHTTP(t, "rest", testRules...)
	for _, row := range []struct{ name, host, target, job string }{
		{"prefix", "a.example", "/static/x.css", "static"},
		{"prefix itself", "a.example", "/static/", "static"},
		{"prefix without its slash", "a.example", "/static", "a"},
		{"prefix ends at a segment", "a.example", "/staticfoo", "a"},
		{"exact", "a.example", "/exact", "exact"},
		{"exact is not a prefix", "a.example", "/exact/x", "a"},
		{"exact before a query", "a.example", "/exact?x=/static/", "exact"},
		{"case of the path counts", "a.example", "/Exact", "a"},
		{"case of the host does not", "A.EXAMPLE", "/", "a"},
		{"port of the host does not", "a.example:8080", "/", "a"},
		{"empty port", "a.example:", "/", "a"},
		{"trailing dot", "a.example.", "/", "a"},
		{"trailing dot and port", "a.example.:80", "/", "a"},
		{"exact host before its wildcard", "deep.b.example", "/", "deep"},
		{"wildcard", "x.b.example", "/", "b"},
		{"wildcard at any depth", "x.deep.b.example", "/", "b"},
		{"wildcard is not the name itself", "b.example", "/", ""},
		{"wildcard ends at a label", "xb.example", "/", ""},
		{"IPv6 literal", "[2001:db8::1]:80", "/", "v6"},
		{"IPv6 literal written long", "[2001:0DB8:0:0:0:0:0:1]", "/", "v6"},
		{"IPv4 literal", "192.0.2.1:80", "/", "v4"},
		{"any host", "other.example", "/any/thing", "any"},
		{"no rule", "other.example", "/", ""},
		{"empty host, any", "", "/any/", "any"},
		{"empty host, no rule", "", "/", ""},
		{"absolute form", "other.example", "http://a.example/static/x", "static"},
		{"absolute form wins over Host", "a.example", "HTTP://x.b.example:80/static/x", "b"},
		{"absolute form without a path", "", "https://a.example", "a"},
		{"absolute form with a query only", "", "http://a.example?/static/", "a"},
		{"dot segments", "a.example", "/x/../static/./y", "static"},
		{"encoded dot segments", "a.example", "/static/%2e%2E/private", "a"},
		{"encoded letter", "a.example", "/%65xact", "exact"},
		{"encoded slash is none", "a.example", "/static%2Fx", "a"},
		{"double slash is not merged", "a.example", "//static/x", "a"},
		{"above the root", "a.example", "/../../static/", "static"},
		{"malformed encoding is itself", "a.example", "/static/%zz%", "static"},
	} {
		t.Run(row.name, func(t *testing.T) {
			want, rest := row.job, row.job
			if row.job == "" {
				want, rest = "no_match", "rest"
			}
			if got := decide(h, get(row.host, row.target)); got != want {
				t.Errorf("without default: %s, want %s", got, want)
			}
			if got := decide(withDefault, get(row.host, row.target)); got != rest {
				t.Errorf("with default: %s, want %s", got, rest)
			}
		})
	}
}

// put is a request line and a host.
const put = "PUT / HTTP/1.1\r\nHost: a.example\r\n"

// requests are first requests of a connection and what they come to with testRules and no default.
var requests = []struct{ name, data, want string }{
	{"HTTP/1.0 without Host", "GET /any/x HTTP/1.0\r\n\r\n", "any"},
	{"HTTP/1.0 without Host, no rule for any host", "GET / HTTP/1.0\r\n\r\n", "no_match"},
	{"HTTP/1.0 with Host", "GET / HTTP/1.0\r\nHost: a.example\r\n\r\n", "a"},
	{"higher minor version", "GET / HTTP/1.2\r\nHost: a.example\r\n\r\n", "a"},
	{"empty lines before", "\r\n\r\n" + get("a.example", "/"), "a"},
	{"spaces around a value", "GET / HTTP/1.1\r\nhOST:\t a.example \t\r\n\r\n", "a"},
	{"no space before a value", "GET / HTTP/1.1\r\nHost:a.example\r\n\r\n", "a"},
	{"obs-text in a value", "GET / HTTP/1.1\r\nHost: a.example\r\nX: \xff\xfe\r\n\r\n", "a"},
	{"obs-text in the target", "GET /\xc3\xa4 HTTP/1.1\r\nHost: a.example\r\n\r\n", "a"},
	{"OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n", "a"},
	{"OPTIONS * matches no path", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "no_match"},
	{"OPTIONS with an absolute form without path", "OPTIONS http://x HTTP/1.1\r\nHost: x\r\n\r\n", "no_match"},
	{"CONNECT", "CONNECT a.example:443 HTTP/1.1\r\nHost: x\r\n\r\nno HTTP", "a"},
	{"CONNECT to IPv6", "CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: x\r\n\r\n", "v6"},
	{"Upgrade, then no HTTP", "GET / HTTP/1.1\r\nHost: a.example\r\nUpgrade: x\r\n\r\n\x81\x05hello", "a"},
	{"Expect waits for no body", put + "Content-Length: 9\r\nExpect: 100-continue\r\n\r\n", "a"},
	{"part of a body", put + "Content-Length: 9\r\n\r\n1234", "a"},
	{"repeated Content-Length", put + "Content-Length: 0\r\nContent-Length: 0\r\n\r\n", "a"},
	{"codings before chunked", put + "Transfer-Encoding: gzip\r\nTransfer-Encoding: Chunked\r\n\r\n", "a"},

	{"nothing", "", "need more"},
	{"part of a method", "GE", "need more"},
	{"CR of an empty line", "\r", "need more"},
	{"head without its end", "GET / HTTP/1.1\r\nHost: a.example\r\n\r", "need more"},

	{"TLS ClientHello", "\x16\x03\x01", "malformed"},
	{"SSH", "SSH-2.0-OpenSSH_9.2p1\r\n", "malformed"},
	{"JSON", "{", "malformed"},
	{"space before the method", " GET", "malformed"},
	{"HTTP/0.9", "GET /\r\n", "malformed"},
	{"two spaces", "GET  / HTTP/1.1\r\n", "malformed"},
	{"space in the target", "GET /a b HTTP/1.1\r\n", "malformed"},
	{"tab for a space", "GET\t/ HTTP/1.1\r\n", "malformed"},
	{"control character in the target", "GET /\x01 HTTP/1.1\r\n", "malformed"},
	{"fragment in the target", "GET /#x HTTP/1.1\r\n", "malformed"},
	{"relative target", "GET x HTTP/1.1\r\n", "malformed"},
	{"asterisk of GET", "GET * HTTP/1.1\r\n", "malformed"},
	{"other scheme", "GET ftp://a.example/ HTTP/1.1\r\n", "malformed"},
	{"absolute form without host", "GET http:///x HTTP/1.1\r\n", "malformed"},
	{"absolute form with user", "GET http://u@a.example/ HTTP/1.1\r\n", "malformed"},
	{"CONNECT without port", "CONNECT 192.0.2.1 HTTP/1.1\r\n", "malformed"},
	{"CONNECT with empty port", "CONNECT a.example: HTTP/1.1\r\n", "malformed"},
	{"CONNECT to a path", "CONNECT / HTTP/1.1\r\n", "malformed"},
	{"lower-case version", "GET / http/1.1\r\n", "malformed"},
	{"long version", "GET / HTTP/1.10\r\n", "malformed"},
	{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "version"},
	{"HTTP/3.0", "GET / HTTP/3.0\r\n", "version"},

	{"LF alone ends the request line", "GET / HTTP/1.1\n", "malformed"},
	{"LF alone ends a field", "GET / HTTP/1.1\r\nHost: a.example\n", "malformed"},
	{"LF alone ends the head", "GET / HTTP/1.1\r\nHost: a.example\r\n\n", "malformed"},
	{"CR alone in the request line", "GET / HTTP/1.1\rX\r\n", "malformed"},
	{"CR alone before the method", "\rG", "malformed"},
	{"CR alone in a value", "GET / HTTP/1.1\r\nX: a\rb\r\n", "malformed"},
	{"NUL in a value", "GET / HTTP/1.1\r\nX: a\x00b\r\n", "malformed"},
	{"NUL in a name", "GET / HTTP/1.1\r\nX\x00: a\r\n", "malformed"},
	{"DEL in a value", "GET / HTTP/1.1\r\nX: \x7f\r\n", "malformed"},
	{"folded line", "GET / HTTP/1.1\r\nX: a\r\n b: c\r\n", "malformed"},
	{"folded with a tab", "GET / HTTP/1.1\r\nX: a\r\n\tb\r\n", "malformed"},
	{"space after the request line", "GET / HTTP/1.1\r\n Host: a.example\r\n", "malformed"},
	{"space before the colon", "GET / HTTP/1.1\r\nHost : a.example\r\n", "malformed"},
	{"no colon", "GET / HTTP/1.1\r\nHost\r\n", "malformed"},
	{"no name", "GET / HTTP/1.1\r\n: x\r\n", "malformed"},

	{"HTTP/1.1 without Host", "GET /any/x HTTP/1.1\r\n\r\n", "malformed"},
	{"absolute form without Host", "GET http://a.example/ HTTP/1.1\r\n\r\n", "malformed"},
	{"two Hosts", "GET / HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n", "malformed"},
	{"two Hosts in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a.example\r\nHost: b\r\n", "malformed"},
	{"two Hosts in one", "GET / HTTP/1.1\r\nHost: a.example, b.example\r\n", "malformed"},
	{"user in Host", "GET / HTTP/1.1\r\nHost: u@a.example\r\n", "malformed"},
	{"path in Host", "GET / HTTP/1.1\r\nHost: a.example/x\r\n", "malformed"},
	{"percent in Host", "GET / HTTP/1.1\r\nHost: %61.example\r\n", "malformed"},
	{"non-ASCII in Host", "GET / HTTP/1.1\r\nHost: \xe4.example\r\n", "malformed"},
	{"dot before Host", "GET / HTTP/1.1\r\nHost: .b.example\r\n", "malformed"},
	{"two dots in Host", "GET / HTTP/1.1\r\nHost: x..b.example\r\n", "malformed"},
	{"Host is a dot", "GET / HTTP/1.1\r\nHost: .\r\n", "malformed"},
	{"Host is two dots", "GET / HTTP/1.1\r\nHost: ..\r\n", "malformed"},
	{"Host is a port", "GET / HTTP/1.1\r\nHost: :80\r\n", "malformed"},
	{"port is a word", "GET / HTTP/1.1\r\nHost: a.example:http\r\n", "malformed"},
	{"port is long", "GET / HTTP/1.1\r\nHost: a.example:000080\r\n", "malformed"},
	{"IPv6 literal open", "GET / HTTP/1.1\r\nHost: [2001:db8::1\r\n", "malformed"},
	{"IPv6 literal and more", "GET / HTTP/1.1\r\nHost: [2001:db8::1]x\r\n", "malformed"},
	{"IPv6 literal with zone", "GET / HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n", "malformed"},
	{"IPv4 in brackets", "GET / HTTP/1.1\r\nHost: [192.0.2.1]\r\n", "malformed"},
	{"long Host", "GET / HTTP/1.1\r\nHost: " + strings.Repeat("a", 256) + "\r\n", "malformed"},
	{"Host malformed behind an absolute form", "GET http://a.example/ HTTP/1.1\r\nHost: [\r\n", "malformed"},

	{"TE and CL", put + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", "malformed"},
	{"CL and TE", put + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", "malformed"},
	{"differing CLs", "PUT / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n", "malformed"},
	{"list of CLs", "PUT / HTTP/1.1\r\nContent-Length: 3, 3\r\n", "malformed"},
	{"signed CL", "PUT / HTTP/1.1\r\nContent-Length: +3\r\n", "malformed"},
	{"hexadecimal CL", "PUT / HTTP/1.1\r\nContent-Length: 0x3\r\n", "malformed"},
	{"empty CL", "PUT / HTTP/1.1\r\nContent-Length:\r\n", "malformed"},
	{"CL that overflows", "PUT / HTTP/1.1\r\nContent-Length: 18446744073709551619\r\n", "malformed"},
	{"TE without chunked", put + "Transfer-Encoding: gzip\r\n\r\n", "malformed"},
	{"TE after chunked", "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n", "malformed"},
	{"TE chunked twice", "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "malformed"},
	{"TE disguised", "PUT / HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\r\n", "malformed"},
	{"TE quoted", put + "Transfer-Encoding: \"chunked\"\r\n\r\n", "malformed"},
	{"TE empty element", "PUT / HTTP/1.1\r\nTransfer-Encoding: ,chunked\r\n", "malformed"},
	{"TE in HTTP/1.0", "PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", "malformed"},

	{"head as large as allowed", fill(window - 1), "a"},
	{"head too large by one", fill(window), "too_large"},
	{"head without end", fill(window)[:window-1], "too_large"},
	{"method without end", strings.Repeat("A", window), "too_large"},
	{"empty lines without end", strings.Repeat("\r\n", window/2), "too_large"},
}

// fill is a request of n octets.
func fill(n int) string {
	const before, after = "GET / HTTP/1.1\r\nHost: a.example\r\nX: ", "\r\n\r\n"
	return before + strings.Repeat("x", n-len(before)-len(after)) + after
}

func TestFirstRequest(t *testing.T) {
	h := newHTTP(t, "", testRules...)
	for _, row := range requests {
		t.Run(row.name, func(t *testing.T) {
			if got := decide(h, row.data); got != row.want {
				t.Errorf("%s, want %s", got, row.want)
			}
		})
	}
}

// pipelines are several requests at once.
var pipelines = []struct{ name, data, want string }{
	{"same job", get("a.example", "/") + get("a.example", "/x"), "a"},
	{"other job", get("a.example", "/") + get("a.example", "/exact"), "mixed"},
	{"other job is third", get("a.example", "/") + get("a.example", "/x") + get("x.b.example", "/"), "mixed"},
	{"no job", get("a.example", "/") + get("other.example", "/"), "mixed"},
	{"first has no job", get("other.example", "/") + get("a.example", "/"), "no_match"},
	{"other job is incomplete", get("a.example", "/") + "GET / HTTP/1.1\r\nHost: x.b.example\r\n", "a"},
	{"empty line between", get("a.example", "/") + "\r\n" + get("a.example", "/x"), "a"},
	{"no HTTP after a request", get("a.example", "/") + "\x16\x03", "malformed"},
	{"other job after a body", body("Content-Length: 5\r\n", "12345") + get("x.b.example", "/"), "mixed"},
	{"body that looks like a request", body("Content-Length: 75\r\n", get("x.b.example", "/")), "a"},
	{"other job in an incomplete body", body("Content-Length: 999\r\n", get("x.b.example", "/")), "a"},
	{"chunks", body(chunked, "5\r\n12345\r\na;x=\"y\"\r\n1234567890\r\n0\r\n\r\n") + get("x.b.example", "/"), "mixed"},
	{"chunk that looks like a request", body(chunked, "4b\r\n"+get("x.b.example", "/")+"\r\n0\r\n\r\n"), "a"},
	{"incomplete chunk", body(chunked, "ff\r\n"+get("x.b.example", "/")), "a"},
	{"trailers", body(chunked, "0\r\nHost: x.b.example\r\n\r\n") + get("a.example", "/"), "a"},
	{"trailers are passed over", body(chunked, "0\r\nX: y\r\n\r\n") + get("x.b.example", "/"), "mixed"},
	{"malformed trailer", body(chunked, "0\r\nX : y\r\n"), "malformed"},
	{"chunk size is no number", body(chunked, "x\r\n"), "malformed"},
	{"chunk size is empty", body(chunked, "\r\n"), "malformed"},
	{"chunk size is signed", body(chunked, "-1\r\n"), "malformed"},
	{"chunk size has a prefix", body(chunked, "0x1\r\n"), "malformed"},
	{"chunk size overflows", body(chunked, "10000000000000000\r\n"), "malformed"},
	{"space after a chunk size", body(chunked, "5 \r\n"), "malformed"},
	{"LF alone ends a chunk size", body(chunked, "5\n12345"), "malformed"},
	{"LF in a chunk extension", body(chunked, "5;\nx\r\n"), "malformed"},
	{"NUL in a chunk extension", body(chunked, "5;\x00\r\n"), "malformed"},
	{"chunk longer than its size", body(chunked, "1\r\n12"), "malformed"},
	{"LF alone ends a chunk", body(chunked, "1\r\n1\n"), "malformed"},
	{"CR alone ends a chunk", body(chunked, "1\r\n1\rX"), "malformed"},
}

const chunked = "Transfer-Encoding: chunked\r\n"

// body is a POST for job a.
func body(framing, octets string) string {
	return "POST / HTTP/1.1\r\nHost: a.example\r\n" + framing + "\r\n" + octets
}

func TestPipelinedRequestsMustAgree(t *testing.T) {
	h := newHTTP(t, "", testRules...)
	for _, row := range pipelines {
		t.Run(row.name, func(t *testing.T) {
			if got := decide(h, row.data); got != row.want {
				t.Errorf("%s, want %s", got, row.want)
			}
		})
	}
}

// TestSplitsDecideAlike feeds every prefix to a session that has seen the shorter ones, at another address each time,
// and to one that has not.
func TestSplitsDecideAlike(t *testing.T) {
	h := newHTTP(t, "", testRules...)
	for _, row := range append(requests, pipelines...) {
		t.Run(row.name, func(t *testing.T) { checkSplits(t, h, []byte(row.data)) })
	}
}

// TestEverySplitPointDecidesAlike feeds each request in two pieces.
func TestEverySplitPointDecidesAlike(t *testing.T) {
	h := newHTTP(t, "", testRules...)
	for _, row := range append(requests, pipelines...) {
		for cut := range len(row.data) {
			s := h.Session(window)
			first := s.Inspect([]byte(row.data[:cut]))
			if got := outcome(s.Inspect([]byte(row.data))); got != row.want && first.Verdict != Refuse {
				t.Errorf("%s: split at %d: %s, want %s", row.name, cut, got, row.want)
			}
		}
	}
}

func checkSplits(t *testing.T, h *HTTP, data []byte) {
	t.Helper()
	dripped := h.Session(window).(*httpSession)
	final := Decision{}
	for n := range len(data) + 1 {
		part := bytes.Clone(data[:n])
		got, want := dripped.Inspect(part), h.Session(window).Inspect(part)
		if final.Verdict == Refuse {
			want = final // a refusal stands
		}
		if outcome(got) != outcome(want) || got.Detail != want.Detail {
			t.Fatalf("after %d octets one by one: %s (%s), at once: %s (%s)",
				n, outcome(got), got.Detail, outcome(want), want.Detail)
		}
		if got.Verdict == NeedMore && dripped.scanned != n {
			t.Fatalf("after %d octets the next call would read from %d on", n, dripped.scanned)
		}
		final = got
	}
}

func TestSameOctetsAgainDecideAlike(t *testing.T) {
	h := newHTTP(t, "", testRules...)
	for _, row := range append(requests, pipelines...) {
		s := h.Session(window)
		s.Inspect([]byte(row.data))
		if got := outcome(s.Inspect([]byte(row.data))); got != row.want {
			t.Errorf("%s: second call: %s, want %s", row.name, got, row.want)
		}
	}
}

// TestRefusalsAreResponses reads each refusal with net/http's client side.
func TestRefusalsAreResponses(t *testing.T) {
	statuses := map[Cause]int{
		Malformed: 400, Mixed: 400, NoMatch: 404, Timeout: 408, TooLarge: 431, Unavailable: 503, Version: 505,
	}
	for cause, status := range statuses {
		for _, method := range []string{"GET", "HEAD"} {
			t.Run(cause.String()+" "+method, func(t *testing.T) {
				s := newHTTP(t, "job").Session(window)
				s.Inspect([]byte(method + " / HTTP/1.1\r\nHost: a\r\n\r\n"))
				checkResponse(t, s.Refusal(cause), method, status)
			})
		}
	}
}

func checkResponse(t *testing.T, octets []byte, method string, status int) {
	t.Helper()
	in := bufio.NewReader(bytes.NewReader(octets))
	r, err := http.ReadResponse(in, &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r.Body)
	if err != nil || in.Buffered() > 0 {
		t.Errorf("read body: %v, %d octets too many", err, in.Buffered())
	}
	if r.StatusCode != status || !r.Close || r.ContentLength <= 0 {
		t.Errorf("status %d, close %v, length %d", r.StatusCode, r.Close, r.ContentLength)
	}
	if hasBody := len(text) > 0; hasBody != (method == "GET") {
		t.Errorf("%s has body %q", method, text)
	}
}

func TestRefuseCarriesItsReply(t *testing.T) {
	s := newHTTP(t, "").Session(window)
	d := s.Inspect([]byte("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"))
	if !bytes.Equal(d.Reply, s.Refusal(NoMatch)) || !bytes.HasSuffix(d.Reply, []byte("\r\n\r\n")) {
		t.Errorf("reply %q", d.Reply)
	}
}

func TestRefusalOfUnknownCauseIs503(t *testing.T) {
	s := newHTTP(t, "").Session(window)
	if got := s.Refusal(99); !bytes.HasPrefix(got, []byte("HTTP/1.1 503 ")) {
		t.Errorf("%q", got)
	}
}

func TestCommonRequestAllocatesNothing(t *testing.T) {
	h := newHTTP(t, "rest", testRules...)
	data := []byte(get("x.b.example", "/index.html?q=1"))
	var s httpSession
	if n := testing.AllocsPerRun(100, func() {
		s = httpSession{http: h, limit: window - 1}
		if d := s.Inspect(data); d.Job != "b" {
			t.Fatal(outcome(d))
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzHTTP(f *testing.F) {
	for _, row := range append(requests, pipelines...) {
		f.Add([]byte(row.data))
	}
	h := newHTTP(f, "", testRules...)
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) <= 2*window {
			checkSplits(t, h, data)
		}
	})
}
