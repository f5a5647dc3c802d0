package inspect

import "bytes"

// field reads a line of the header section (RFC 9112 §5), or its end.
func (s *httpSession) field(data, line []byte) bool {
	if len(line) == 0 {
		return s.headEnd(data)
	}
	name, value, ok := s.cutField(line)
	if !ok {
		return false
	}
	s.note(name, value)
	switch len(name) {
	case len("Host"):
		if bytes.EqualFold(name, []byte("host")) {
			return s.hostField(value)
		}
	case len("Upgrade"):
		if bytes.EqualFold(name, []byte("upgrade")) {
			s.request.upgrade = true
		}
	case len("Content-Length"):
		if bytes.EqualFold(name, []byte("content-length")) {
			return s.contentLength(value)
		}
	case len("Transfer-Encoding"):
		if bytes.EqualFold(name, []byte("transfer-encoding")) {
			return s.transferEncoding(value)
		}
	}
	return true
}

// cutField splits a field line into its name and its value, or refuses it.
func (s *httpSession) cutField(line []byte) (name, value []byte, ok bool) {
	if line[0] == ' ' || line[0] == '\t' {
		return nil, nil, s.refuse(Malformed, "folded header line")
	}
	name, value, ok = bytes.Cut(line, []byte{':'})
	if !ok || len(name) == 0 {
		return nil, nil, s.refuse(Malformed, "header line without a name and a colon")
	}
	if !consistsOf(name, tokenOctet) {
		return nil, nil, s.refuse(Malformed, "white space or another octet in a header field's name")
	}
	if !consistsOf(value, fieldOctet) {
		return nil, nil, s.refuse(Malformed, "control character in a header field")
	}
	return name, trimSpace(value), true
}

// trimSpace removes optional white space around a value (RFC 9110 §5.6.3).
func trimSpace(p []byte) []byte {
	for len(p) > 0 && (p[0] == ' ' || p[0] == '\t') {
		p = p[1:]
	}
	for len(p) > 0 && (p[len(p)-1] == ' ' || p[len(p)-1] == '\t') {
		p = p[:len(p)-1]
	}
	return p
}

func (s *httpSession) hostField(value []byte) bool {
	r := &s.request
	if r.hasField {
		return s.refuse(Malformed, "several Host fields")
	}
	r.hasField = true
	if !r.setHost(value, hostField) {
		return s.refuse(Malformed, "malformed Host field")
	}
	return true
}

// contentLength takes a field of digits. One that repeats another is harmless (RFC 9112 §6.3).
func (s *httpSession) contentLength(value []byte) bool {
	r := &s.request
	n, ok := number(value)
	if !ok {
		return s.refuse(Malformed, "Content-Length is not a number")
	}
	if r.hasLength && n != r.length {
		return s.refuse(Malformed, "several Content-Lengths")
	}
	r.hasLength, r.length = true, n
	return true
}

// transferEncoding takes a list of codings, of which "chunked" may only be the last (RFC 9112 §6.1).
func (s *httpSession) transferEncoding(value []byte) bool {
	r := &s.request
	for more := true; more; {
		var coding []byte
		coding, value, more = bytes.Cut(value, []byte{','})
		coding = trimSpace(coding)
		if len(coding) == 0 || !consistsOf(coding, tokenOctet) || r.chunked {
			return s.refuse(Malformed, "Transfer-Encoding is no list that ends in chunked")
		}
		r.hasCoding, r.chunked = true, bytes.EqualFold(coding, []byte("chunked"))
	}
	return true
}

// headEnd decides on the request whose head is complete.
func (s *httpSession) headEnd(data []byte) bool {
	r := &s.request
	switch {
	case r.http11 && !r.hasField:
		return s.refuse(Malformed, "HTTP/1.1 request without Host")
	case r.hasCoding && r.hasLength:
		return s.refuse(Malformed, "both Content-Length and Transfer-Encoding")
	case r.hasCoding && !r.http11:
		return s.refuse(Malformed, "Transfer-Encoding in HTTP/1.0")
	case r.hasCoding && !r.chunked:
		return s.refuse(Malformed, "Transfer-Encoding does not end in chunked")
	}
	s.afterHead()
	job, rule := s.http.job(r, r.normalPath(data), data[r.queryStart:r.queryEnd])
	switch {
	case s.routed && job != s.job:
		return s.refuse(Mixed, "requests in hand are for different jobs")
	case job == "":
		return s.refuse(NoMatch, "no rule matches and there is no default job")
	}
	if !s.routed {
		s.routed, s.job, s.rule = true, job, rule
	}
	return true
}

// afterHead tells what the octets after the head are.
func (s *httpSession) afterHead() {
	r := &s.request
	switch {
	case r.isConnect || r.upgrade:
		s.state = inTunnel
	case r.chunked:
		s.state = inChunkSize
	case r.length > 0:
		s.state, s.left = inBody, r.length
	default:
		s.state = inRequestLine
	}
}

// normalPath returns the path as rules are compared with it; nil for none.
func (r *request) normalPath(data []byte) []byte {
	switch r.path {
	case noPath:
		return nil
	case rootPath:
		return []byte{'/'}
	default:
		path := data[r.pathStart:r.pathEnd]
		if isNormalPath(path) {
			return path
		}
		return normalizePath(path)
	}
}
