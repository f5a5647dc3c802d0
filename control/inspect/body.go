package inspect

import "bytes"

// pass passes over the octets of a body or chunk that are in hand.
func (s *httpSession) pass(data []byte) bool {
	n := min(s.left, int64(len(data)-s.pos))
	s.left -= n
	s.pos += int(n)
	s.scanned = s.pos
	if s.left > 0 {
		return false
	}
	if s.state == inChunk {
		s.state = inChunkEnd
	} else {
		s.state = inRequestLine
	}
	return true
}

// chunkSize reads the first line of a chunk (RFC 9112 §7.1).
func (s *httpSession) chunkSize(line []byte) bool {
	digits, size := 0, int64(0)
	for digits < len(line) && unhex(line[digits]) >= 0 {
		size = size<<4 | int64(unhex(line[digits]))
		digits++
		if digits > 15 { // 2^60
			return s.refuse(Malformed, "chunk too large")
		}
	}
	extension := trimSpace(line[digits:])
	if digits == 0 || len(line) > digits && (len(extension) == 0 || extension[0] != ';') {
		return s.refuse(Malformed, "malformed chunk size")
	}
	if !consistsOf(extension, fieldOctet) {
		return s.refuse(Malformed, "control character in a chunk extension")
	}
	s.state, s.left = inChunk, size
	if size == 0 {
		s.state = inTrailer
	}
	return true
}

// chunkEnd reads the CRLF after a chunk's octets.
func (s *httpSession) chunkEnd(data []byte) bool {
	end := data[s.pos:min(len(data), s.pos+2)]
	if !bytes.HasPrefix([]byte("\r\n"), end) {
		return s.refuse(Malformed, "chunk is longer than its size")
	}
	if len(end) < 2 {
		return false
	}
	s.pos += 2
	s.scanned = s.pos
	s.state = inChunkSize
	return true
}

// trailer reads a line of the trailer section, or its end. Trailers are not for routing (RFC 9110 §6.5.1).
func (s *httpSession) trailer(line []byte) bool {
	if len(line) == 0 {
		s.state = inRequestLine
		return true
	}
	_, _, ok := s.cutField(line)
	return ok
}
