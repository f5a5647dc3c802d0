package keys

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Secret is one line of a ring.
type Secret struct {
	From   time.Time
	Octets [32]byte
}

// Ring is the secrets of a cluster, oldest first, at least one. Their times are Life or more apart.
type Ring []Secret

// Bounds of a ring.
const (
	// Life is how long a handshake may take: two ticks of the cookies.
	Life = 128 * time.Second
	// Most is how many secrets a ring may have.
	Most = 4
)

// Errors that callers tell apart.
var (
	// ErrTooSoon says that the newest secret has to be in use for Life before another one is.
	ErrTooSoon = errors.New("too soon after the last rotation")
	// ErrMalformed says that octets are no ring.
	ErrMalformed = errors.New("no key ring")
)

// New makes a ring of one secret. As there is none before it, it may be followed by another one at once.
func New(octets [32]byte, now time.Time) Ring {
	return Ring{{From: now.Add(-Life).UTC().Truncate(time.Millisecond), Octets: octets}}
}

// Rotated returns the ring with one more secret that is used from a time on, and without those that no handshake needs
// any more.
func (r Ring) Rotated(octets [32]byte, from, now time.Time) (Ring, error) {
	from = from.UTC().Truncate(time.Millisecond)
	if earliest := r[len(r)-1].From.Add(Life); from.Before(earliest) {
		return nil, fmt.Errorf("%w: the next one is possible from %s on", ErrTooSoon, earliest.Format(time.RFC3339))
	}
	var kept Ring
	for i, s := range r {
		if i+1 == len(r) || now.Sub(r[i+1].From) < Life {
			kept = append(kept, s)
		}
	}
	return append(kept, Secret{From: from, Octets: octets}), nil
}

// Current is the number of the secret in use.
func (r Ring) Current(now time.Time) int {
	n := 0
	for i, s := range r {
		if !s.From.After(now) {
			n = i
		}
	}
	return n
}

// Parse reads a ring's file.
func Parse(text []byte) (Ring, error) {
	var r Ring
	number := 0
	for line := range bytes.Lines(text) {
		number++
		words, _, _ := strings.Cut(string(line), "#")
		fields := strings.Fields(words)
		if len(fields) == 0 {
			continue
		}
		s, err := parseLine(fields)
		if err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", ErrMalformed, number, err)
		}
		if n := len(r); n > 0 && s.From.Sub(r[n-1].From) < Life {
			return nil, fmt.Errorf("%w: line %d: want a time %v or more after that of the secret before", ErrMalformed, number, Life)
		}
		r = append(r, s)
	}
	if len(r) < 1 || len(r) > Most {
		return nil, fmt.Errorf("%w: %d secrets: want 1 to %d", ErrMalformed, len(r), Most)
	}
	return r, nil
}

var errFields = errors.New("want a time and a secret")

// parseLine reads a time and a secret. Its errors do not quote the secret.
func parseLine(fields []string) (s Secret, err error) {
	if len(fields) != 2 {
		return s, errFields
	}
	if s.From, err = time.Parse(time.RFC3339, fields[0]); err != nil {
		return s, fmt.Errorf("%q is no time as in 2026-11-24T13:00:00Z", fields[0])
	}
	s.From = s.From.UTC().Truncate(time.Millisecond)
	if n, err := hex.Decode(s.Octets[:], []byte(first(fields[1], 2*len(s.Octets)))); err != nil ||
		n != len(s.Octets) || len(fields[1]) != 2*len(s.Octets) {
		return s, fmt.Errorf("a secret of %d characters: want %d hexadecimal digits", len(fields[1]), 2*len(s.Octets))
	}
	return s, nil
}

// first is the first n octets of s, or all of them.
func first(s string, n int) string { return s[:min(n, len(s))] }

// Text is the ring's file.
func (r Ring) Text() []byte {
	b := []byte("# Secrets of SYN cookies. Every routing host of the cluster has this file; nobody else may read it.\n")
	for _, s := range r {
		b = fmt.Appendf(b, "%s %x\n", s.From.Format("2006-01-02T15:04:05.000Z07:00"), s.Octets)
	}
	return b
}
