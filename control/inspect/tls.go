package inspect

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
)

// TLSConfig is the configuration of TLS.
type TLSConfig struct {
	Rules   []TLSRule // the first that matches decides
	Default string    // job of clients that no rule matches; "": they are refused
}

// TLSRule sends clients to a job. Empty fields match every ClientHello, one without the extension included.
type TLSRule struct {
	SNI     string // as the host of a Rule
	ALPN    string // a protocol that the client offers, as in "h2"
	Version string // "1.2" or "1.3": the highest version that the client offers
	Choice         // by the server name, as a Rule's by the host
}

// Errors of TLS rules.
var (
	ErrALPN    = errors.New("bad ALPN protocol")
	ErrVersion = errors.New("bad TLS version")
)

// tlsVersions are the versions that a rule can name, as they are on the wire (RFC 8446 §4.2.1).
var tlsVersions = map[string]uint16{"": 0, "1.0": 0x0301, "1.1": 0x0302, "1.2": 0x0303, "1.3": 0x0304}

// Check returns why the rule cannot be used, as ErrHost, ErrALPN, ErrVersion or an error of choices, or nil.
func (r TLSRule) Check() error {
	if _, err := parseHost(r.SNI); err != nil {
		return err
	}
	if len(r.ALPN) > 255 {
		return fmt.Errorf("%w: %d octets, at most 255", ErrALPN, len(r.ALPN))
	}
	if _, ok := tlsVersions[r.Version]; !ok {
		return fmt.Errorf("%w: %q: want 1.0, 1.1, 1.2 or 1.3", ErrVersion, r.Version)
	}
	if err := r.check(); err != nil {
		return err
	}
	_, err := r.normal(parseHost)
	return err
}

// TLS routes TLS connections by their ClientHello (RFC 8446 §4.1.2), of which nothing is changed or answered: the target
// completes the handshake.
type TLS struct {
	rules    []TLSRule // normal
	fallback string
}

// NewTLS compiles the rules. It returns the error of the first one that Check refuses.
func NewTLS(c TLSConfig) (*TLS, error) {
	t := &TLS{fallback: c.Default, rules: slices.Clone(c.Rules)}
	for i, r := range c.Rules {
		if err := r.Check(); err != nil {
			return nil, fmt.Errorf("compile rule %d: %w", i+1, err)
		}
		t.rules[i].SNI, _ = parseHost(r.SNI)
		t.rules[i].Choice, _ = r.normal(parseHost)
	}
	return t, nil
}

// Session implements Application.
func (t *TLS) Session(window int) Session { return &tlsSession{tls: t, limit: window} }

// SpeaksFirst implements Application.
func (t *TLS) SpeaksFirst() bool { return false }

// job returns who serves a client, or "", and the number of the rule.
func (t *TLS) job(h *clientHello) (job string, rule int) {
	for i := range t.rules {
		r := &t.rules[i]
		if !matchesHost(r.SNI, h.sni) || r.ALPN != "" && !slices.Contains(h.alpn, r.ALPN) ||
			r.Version != "" && tlsVersions[r.Version] != h.version {
			continue
		}
		if job := r.ofHost(h.sni); job != "" {
			return job, i + 1
		}
	}
	return t.fallback, 0
}

// matchesHost compares a normalised host with a pattern of parseHost.
func matchesHost(pattern, host string) bool {
	switch {
	case pattern == "":
		return true
	case pattern[0] == '.':
		return len(host) > len(pattern) && strings.HasSuffix(host, pattern)
	}
	return host == pattern
}

// Records and messages of TLS (RFC 8446 §5.1, §4).
const (
	tlsRecordHeader  = 5
	tlsMessageHeader = 4
	tlsMaxRecord     = 1 << 14
	tlsAlert         = 21
	tlsHandshake     = 22
	tlsClientHello   = 1
)

// tlsSession collects the ClientHello, which may be spread over several records.
type tlsSession struct {
	tls     *TLS
	limit   int
	read    int    // octets of data in records that are in message
	message []byte // of the handshake, as far as it is there
	decided Decision
}

// Inspect implements Session.
func (s *tlsSession) Inspect(data []byte) Decision {
	if s.decided.Verdict != NeedMore {
		return s.decided
	}
	for {
		more, d := s.record(data[s.read:])
		if d.Verdict != NeedMore || !more {
			if d.Verdict == NeedMore && len(data) >= s.limit {
				d = s.refuse(TooLarge, "the ClientHello does not fit into the window")
			}
			s.decided = d
			return d
		}
	}
}

// record takes in the next record, and decides once the message is whole. more: there was one.
func (s *tlsSession) record(data []byte) (more bool, d Decision) {
	if len(data) > 0 && data[0] != tlsHandshake || len(data) > 1 && data[1] != 3 {
		return false, s.refuse(Malformed, "not a TLS handshake")
	}
	if len(data) < tlsRecordHeader {
		return false, Decision{}
	}
	length := int(data[3])<<8 | int(data[4])
	if length == 0 || length > tlsMaxRecord {
		return false, s.refuse(Malformed, "not a TLS record")
	}
	if len(data) < tlsRecordHeader+length {
		return false, Decision{}
	}
	s.message = append(s.message, data[tlsRecordHeader:tlsRecordHeader+length]...)
	s.read += tlsRecordHeader + length
	return true, s.decide()
}

// decide looks at the message.
func (s *tlsSession) decide() Decision {
	m := cryptobyte.String(s.message)
	var kind uint8
	var body cryptobyte.String
	if len(m) > 0 && m[0] != tlsClientHello {
		return s.refuse(Malformed, "not a ClientHello")
	}
	if !m.ReadUint8(&kind) || !m.ReadUint24LengthPrefixed(&body) {
		return Decision{}
	}
	h, ok := parseClientHello(body)
	if !ok {
		return s.refuse(Malformed, "malformed ClientHello")
	}
	if job, rule := s.tls.job(h); job != "" {
		return Decision{Verdict: Route, Job: job, Rule: rule}
	}
	return s.refuse(NoMatch, "no rule for the client's SNI, ALPN and version")
}

// clientHello is what of a ClientHello decides.
type clientHello struct {
	sni     string   // normalised; "": none
	alpn    []string // in the client's order
	version uint16   // the highest offered
}

// Extensions (RFC 6066 §3, RFC 7301 §3.1, RFC 8446 §4.2.1).
const (
	extServerName        = 0
	extALPN              = 16
	extSupportedVersions = 43
)

// parseClientHello reads the body of a ClientHello. Unknown extensions are passed over.
func parseClientHello(b cryptobyte.String) (*clientHello, bool) {
	h := &clientHello{}
	var session, suites, compression, extensions cryptobyte.String
	ok := b.ReadUint16(&h.version) && b.Skip(32) && b.ReadUint8LengthPrefixed(&session) &&
		b.ReadUint16LengthPrefixed(&suites) && b.ReadUint8LengthPrefixed(&compression)
	if !ok || b.Empty() {
		return h, ok
	}
	if !b.ReadUint16LengthPrefixed(&extensions) {
		return nil, false
	}
	for !extensions.Empty() {
		var kind uint16
		var value cryptobyte.String
		if !extensions.ReadUint16(&kind) || !extensions.ReadUint16LengthPrefixed(&value) || !h.extension(kind, value) {
			return nil, false
		}
	}
	return h, true
}

func (h *clientHello) extension(kind uint16, value cryptobyte.String) bool {
	switch kind {
	case extServerName:
		return h.readSNI(value)
	case extALPN:
		return h.readALPN(value)
	case extSupportedVersions:
		return h.readVersions(value)
	}
	return true
}

// readSNI reads the name of type host_name (0), the only one there is.
func (h *clientHello) readSNI(value cryptobyte.String) bool {
	var names cryptobyte.String
	if !value.ReadUint16LengthPrefixed(&names) || names.Empty() {
		return false
	}
	for !names.Empty() {
		var kind uint8
		var name cryptobyte.String
		if !names.ReadUint8(&kind) || !names.ReadUint16LengthPrefixed(&name) {
			return false
		}
		if kind != 0 {
			continue
		}
		host := bytes.ToLower(bytes.TrimSuffix(name, []byte{'.'}))
		if len(host) > maxHost || len(host) == 0 || !isRegName(host) {
			return false
		}
		h.sni = string(host)
	}
	return true
}

func (h *clientHello) readALPN(value cryptobyte.String) bool {
	var list cryptobyte.String
	if !value.ReadUint16LengthPrefixed(&list) {
		return false
	}
	for !list.Empty() {
		var name cryptobyte.String
		if !list.ReadUint8LengthPrefixed(&name) || name.Empty() {
			return false
		}
		h.alpn = append(h.alpn, string(name))
	}
	return true
}

// readVersions replaces the version of old by the highest of the list. GREASE (RFC 8701) is no version.
func (h *clientHello) readVersions(value cryptobyte.String) bool {
	var list cryptobyte.String
	if !value.ReadUint8LengthPrefixed(&list) {
		return false
	}
	h.version = 0
	for !list.Empty() {
		var v uint16
		if !list.ReadUint16(&v) {
			return false
		}
		if v>>8 == 3 {
			h.version = max(h.version, v)
		}
	}
	return true
}

// tlsAlerts are what a client is told (RFC 8446 §6).
var tlsAlerts = [...]byte{
	Malformed:   50,  // decode_error
	NoMatch:     112, // unrecognized_name
	Timeout:     90,  // user_canceled
	TooLarge:    50,
	Unavailable: 80, // internal_error
}

func (s *tlsSession) refuse(c Cause, detail string) Decision {
	return Decision{Verdict: Refuse, Cause: c, Detail: detail, Reply: s.Refusal(c)}
}

// Refusal implements Session: a fatal alert.
func (s *tlsSession) Refusal(c Cause) []byte {
	if int(c) >= len(tlsAlerts) || tlsAlerts[c] == 0 {
		c = Unavailable
	}
	return []byte{tlsAlert, 3, 3, 0, 2, 2, tlsAlerts[c]}
}
