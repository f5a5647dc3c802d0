package inspect

import "bytes"

// request is what is known of the request whose head is being read. The zero value is a new one.
type request struct {
	http11    bool
	isConnect bool
	upgrade   bool // has an Upgrade field: what follows need not be HTTP

	hostFrom hostSource
	hasField bool // a Host field came
	host     [maxHost]byte
	hostLen  int

	path       pathForm
	pathStart  int // pathOctets: offsets into the data
	pathEnd    int
	queryStart int // the same; equal where there is none
	queryEnd   int

	method string  // if rules have conditions
	noted  []noted // fields that these are about

	hasLength bool // Content-Length
	length    int64
	hasCoding bool // Transfer-Encoding
	chunked   bool // its last coding
}

type hostSource uint8

const (
	noHost hostSource = iota
	hostField
	hostTarget
)

// pathForm is how the target gives the path.
type pathForm uint8

const (
	noPath     pathForm = iota // OPTIONS *, CONNECT
	rootPath                   // left out of an absolute-form target
	pathOctets                 // given
)

// requestLine reads the line that begins at offset start of the data (RFC 9112 §3).
func (s *httpSession) requestLine(line []byte, start int) bool {
	if len(line) == 0 {
		s.state = inRequestLine
		return true
	}
	method, rest, ok := bytes.Cut(line, []byte{' '})
	target, version, ok2 := bytes.Cut(rest, []byte{' '})
	if !ok || !ok2 || len(target) == 0 || !consistsOf(target, targetOctet) {
		return s.refuse(Malformed, "request line is not METHOD TARGET HTTP/1.x")
	}
	s.request = request{isConnect: string(method) == "CONNECT"}
	if len(s.http.further) > 0 {
		s.request.method = string(method)
	}
	if !s.version(version) {
		return false
	}
	if !s.routed {
		s.isHead = string(method) == "HEAD"
	}
	s.state = inFields
	return s.target(method, target, start+len(method)+1)
}

// version reads HTTP-version (RFC 9112 §2.3). A higher minor version is read as 1.1 (RFC 9110 §2.5).
func (s *httpSession) version(v []byte) bool {
	if len(v) != len("HTTP/1.1") || string(v[:5]) != "HTTP/" || v[5]-'0' > 9 || v[6] != '.' || v[7]-'0' > 9 {
		return s.refuse(Malformed, "request line does not end in an HTTP version")
	}
	if v[5] != '1' {
		return s.refuse(Version, "not HTTP/1.x")
	}
	s.request.http11 = v[7] != '0'
	return true
}

// target reads the request-target, which begins at offset start of the data, in its four forms (RFC 9112 §3.2).
func (s *httpSession) target(method, target []byte, start int) bool {
	r := &s.request
	switch {
	case r.isConnect:
		if host, _ := cutPort(target); len(host)+1 >= len(target) || !r.setHost(target, hostTarget) {
			return s.refuse(Malformed, "target of CONNECT is not HOST:PORT")
		}
	case target[0] == '/':
		r.setPath(target, start)
	case string(target) == "*" && string(method) == "OPTIONS":
	default:
		return s.absoluteForm(method, target, start)
	}
	return true
}

// absoluteForm reads a target as in http://a.example:80/path (RFC 9112 §3.2.2).
func (s *httpSession) absoluteForm(method, target []byte, start int) bool {
	r := &s.request
	rest := trimScheme(target)
	if rest == nil {
		return s.refuse(Malformed, "request target is neither a path nor http://HOST/PATH")
	}
	end := bytes.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	if end == 0 || !r.setHost(rest[:end], hostTarget) {
		return s.refuse(Malformed, "request target has a malformed host")
	}
	switch path := rest[end:]; {
	case len(path) > 0 && path[0] == '/':
		r.setPath(path, start+len(target)-len(path))
	case len(path) > 0:
		r.setPath(path, start+len(target)-len(path))
		r.path = rootPath
	case string(method) != "OPTIONS": // OPTIONS http://a.example is OPTIONS * (RFC 9112 §3.2.4)
		r.path = rootPath
	}
	return true
}

// trimScheme returns what follows http:// or https://, or nil.
func trimScheme(target []byte) []byte {
	scheme, rest, ok := bytes.Cut(target, []byte("://"))
	if !ok || !bytes.EqualFold(scheme, []byte("http")) && !bytes.EqualFold(scheme, []byte("https")) {
		return nil
	}
	return rest
}

// setPath notes where the path is, which begins at offset start of the data and may be followed by a query.
func (r *request) setPath(path []byte, start int) {
	if i := bytes.IndexByte(path, '?'); i >= 0 {
		r.queryStart, r.queryEnd = start+i+1, start+len(path)
		path = path[:i]
	}
	r.path, r.pathStart, r.pathEnd = pathOctets, start, start+len(path)
}
