package inspect

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// HTTPConfig is the configuration of HTTP.
type HTTPConfig struct {
	Rules   []Rule // the first that matches decides
	Default string // job of requests that no rule matches; "": they are refused
}

// HTTP routes HTTP/1.x connections by their requests. It does not change after NewHTTP, and is
// safe for concurrent use.
type HTTP struct {
	rules    table
	further  []conditional // rules that ask for more than host and path, which are not in the table
	wanted   []string      // header fields that they are about, in lower case
	jobs     []string      // by index of the rule, of those in the table
	fallback string
}

// NewHTTP compiles the rules. It returns the error of the first one that Check refuses.
func NewHTTP(c HTTPConfig) (*HTTP, error) {
	h := &HTTP{rules: table{}, jobs: make([]string, len(c.Rules)), fallback: c.Default}
	for i, r := range c.Rules {
		rule, err := r.parse()
		if err != nil {
			return nil, fmt.Errorf("compile rule %d: %w", i+1, err)
		}
		h.jobs[i] = rule.choice.Job
		if !rule.asks() {
			h.rules.add(rule.host, rule.path, i)
			continue
		}
		h.further = append(h.further, conditional{i, rule})
		for _, field := range rule.fields() {
			h.want(strings.ToLower(field))
		}
	}
	return h, nil
}

func (h *HTTP) want(field string) {
	if !slices.Contains(h.wanted, field) {
		h.wanted = append(h.wanted, field)
	}
}

// Session implements Application. The first head must end below the window.
func (h *HTTP) Session(window int) Session {
	return &httpSession{http: h, limit: window - 1}
}

// SpeaksFirst implements Application.
func (h *HTTP) SpeaksFirst() bool { return false }

// job returns who serves a request with a normalised path and a query, or "", and the number of the rule.
func (h *HTTP) job(r *request, path, query []byte) (job string, rule int) {
	host := r.host[:r.hostLen]
	first := h.rules.find(host, path)
	if job, rule := h.furtherJob(r, path, query, first); job != "" {
		return job, rule
	}
	if first != none {
		return h.jobs[first], first + 1
	}
	return h.fallback, 0
}

// furtherJob is that of the first rule that is not in the table, matches and comes before a rule, and its number; "" if
// there is none.
func (h *HTTP) furtherJob(r *request, path, query []byte, before int) (job string, rule int) {
	if len(h.further) == 0 || h.further[0].index >= before {
		return "", 0
	}
	of := subject{r, string(r.host[:r.hostLen]), string(path), string(query)}
	for i := 0; i < len(h.further) && h.further[i].index < before; i++ {
		if job := h.further[i].job(&of); job != "" {
			return job, h.further[i].index + 1
		}
	}
	return "", 0
}

// httpSession reads requests line by line. All positions are offsets into the data of Inspect, which may move.
type httpSession struct {
	http  *HTTP
	limit int // octets in which the first head must end

	state   httpState
	pos     int   // everything before is read
	scanned int   // everything between pos and here was searched for a line's end
	left    int64 // inBody, inChunk: octets to pass over

	request request  // the one being read
	job     string   // of all complete requests, once there is one
	rule    int      // that the first one matched
	routed  bool     // there is one
	isHead  bool     // the first request is HEAD: its response has no body
	refused Decision // once it is a refusal
}

// httpState is what the next octets are.
type httpState uint8

const (
	inRequestLine httpState = iota // and the method goes on
	inTarget                       // of the request line: the method is over
	inFields
	inBody
	inChunkSize
	inChunk
	inChunkEnd
	inTrailer
	inTunnel // not HTTP
)

// Inspect decides on the requests in data.
func (s *httpSession) Inspect(data []byte) Decision {
	for more := s.refused.Verdict != Refuse; more; {
		more = s.step(s.inHand(data))
	}
	switch {
	case s.refused.Verdict == Refuse:
		return s.refused
	case s.routed:
		return Decision{Verdict: Route, Job: s.job, Rule: s.rule}
	case len(data) >= s.limit:
		s.refuse(TooLarge, "request head does not end within the window")
		return s.refused
	}
	return Decision{Verdict: NeedMore}
}

// inHand cuts off what is too much for the first head.
func (s *httpSession) inHand(data []byte) []byte {
	if !s.routed && len(data) > s.limit {
		return data[:max(s.limit, 0)]
	}
	return data
}

// Refusal returns the response for a cause, without its body if the first request is a HEAD.
func (s *httpSession) Refusal(c Cause) []byte {
	if c == 0 || int(c) >= len(httpRefusals) {
		c = Unavailable
	}
	return httpRefusals[c].to(s.isHead)
}

// refuse ends the session. It returns false, for step.
func (s *httpSession) refuse(c Cause, detail string) bool {
	s.refused = Decision{Verdict: Refuse, Cause: c, Detail: detail, Reply: s.Refusal(c)}
	return false
}

// step reads one line or one piece of a body. It reports whether there may be more to read in data.
func (s *httpSession) step(data []byte) bool {
	switch s.state {
	case inBody, inChunk:
		return s.pass(data)
	case inChunkEnd:
		return s.chunkEnd(data)
	case inTunnel:
		return false
	default:
		start := s.pos
		line, ok := s.line(data)
		return ok && s.readLine(data, line, start)
	}
}

// readLine reads a line that begins at offset start of the data.
func (s *httpSession) readLine(data, line []byte, start int) bool {
	switch s.state {
	case inFields:
		return s.field(data, line)
	case inChunkSize:
		return s.chunkSize(line)
	case inTrailer:
		return s.trailer(line)
	default:
		return s.requestLine(line, start)
	}
}

// line returns the line at pos without its end, and passes over it. ok is false if its end is not there yet or the line
// is refused.
func (s *httpSession) line(data []byte) (line []byte, ok bool) {
	end := s.scanned + bytes.IndexByte(data[s.scanned:], '\n')
	found := end >= s.scanned
	if !found {
		end = len(data)
	}
	if s.state == inRequestLine && !s.methodSoFar(data[:end]) {
		return nil, s.refuse(Malformed, "not an HTTP method")
	}
	if !found {
		s.scanned = end
		return nil, false
	}
	line = data[s.pos:end]
	s.pos, s.scanned = end+1, end+1
	if len(line) == 0 || line[len(line)-1] != '\r' {
		return nil, s.refuse(Malformed, "line ends without CR")
	}
	return line[:len(line)-1], true
}

// methodSoFar checks what is new of a method, so that what is not HTTP is not waited for. An empty line may come before
// (RFC 9112 §2.2).
func (s *httpSession) methodSoFar(data []byte) bool {
	for i := s.scanned; i < len(data); i++ {
		afterCR := i > s.pos && data[i-1] == '\r'
		switch c := data[i]; {
		case c == ' ' && i > s.pos && !afterCR:
			s.state = inTarget
			return true
		case afterCR || c != '\r' && classOf[c]&tokenOctet == 0:
			return false
		}
	}
	return true
}
