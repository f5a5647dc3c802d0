package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)

// MaxDatagram is the longest datagram of a control socket over UDP, octets: one that the loopback interface takes in one
// piece, over IPv4 and IPv6.
const MaxDatagram = 65000

// Bounds of what names and opens a session.
const (
	maxSession = 64 // octets
	minToken   = 16
	maxToken   = 256
)

// The types of datagrams that are about messages and the session. They are not repeated.
const (
	TypeAck   Type = "ack"   // A, D: Number, of the message that has come
	TypePing  Type = "ping"  // A, answered by TypePong; both renew the lease
	TypePong  Type = "pong"  // D
	TypeLeave Type = "leave" // A, D: Detail; the session is over
)

// Errors of control sockets over UDP.
var (
	ErrToken = errors.New("token file")
	ErrLease = errors.New("nothing was heard for the time of a lease")
)

// Datagram is a message, or one of the types of this file, on a control socket over UDP. The zero Token is a daemon's.
type Datagram struct {
	Token   string `json:"token,omitempty"`  // says who sends it
	Session string `json:"session"`          // chosen by the application, 1 to 64 octets
	Number  uint64 `json:"number,omitempty"` // of the message among those of its sender, from 1
	Message
}

// numbered reports whether datagrams of a type have a number.
func (t Type) numbered() bool { return t != TypePing && t != TypePong && t != TypeLeave }

// controls reports whether datagrams of a type are about messages and the session, and no messages themselves.
func (t Type) controls() bool { return !t.numbered() || t == TypeAck }

// IsMessage reports whether it has a message, which is acknowledged.
func (d *Datagram) IsMessage() bool { return !d.Type.controls() }

// ParseDatagram reads a datagram. Errors: ErrMalformed, ErrTooLarge.
func ParseDatagram(b []byte) (d Datagram, err error) {
	if len(b) > MaxDatagram {
		return Datagram{}, fmt.Errorf("%w: more than %d octets", ErrTooLarge, MaxDatagram)
	}
	if err := json.Unmarshal(b, &d); err != nil {
		return Datagram{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	switch {
	case d.Type == "":
		err = fmt.Errorf("%w: no type", ErrMalformed)
	case d.Session == "" || len(d.Session) > maxSession:
		err = fmt.Errorf("%w: session of %d octets, want 1 to %d", ErrMalformed, len(d.Session), maxSession)
	case d.Type.numbered() != (d.Number > 0):
		err = fmt.Errorf("%w: %s with number %d", ErrMalformed, d.Type, d.Number)
	}
	if err != nil {
		return Datagram{}, err
	}
	return d, nil
}

// Pack makes a datagram's octets. Errors: ErrMalformed for what has files, ErrTooLarge.
func (d *Datagram) Pack() ([]byte, error) {
	if len(d.Files) > 0 {
		return nil, fmt.Errorf("%w: no %s can be passed over UDP", ErrMalformed, strings.Join(d.Files, ", "))
	}
	if len(d.State) > MaxInline {
		return nil, fmt.Errorf("%w: %d octets of state, at most %d over UDP", ErrTooLarge, len(d.State), MaxInline)
	}
	b, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if len(b) > MaxDatagram {
		return nil, fmt.Errorf("%w: datagram of %d octets, at most %d", ErrTooLarge, len(b), MaxDatagram)
	}
	return b, nil
}

// ReadToken reads the file of a token, without the space around it. Errors are ErrToken, for a file that others may read,
// or whose token is too short or too long, and those of the system.
func ReadToken(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrToken, err)
	}
	if info.Mode().Perm()&0o027 != 0 {
		return "", fmt.Errorf("%w %s: others may read it, or its group may change it: chmod 640", ErrToken, path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrToken, err)
	}
	token := strings.TrimSpace(string(text))
	if len(token) < minToken || len(token) > maxToken {
		return "", fmt.Errorf("%w %s: token of %d octets, want %d to %d, as of openssl rand -hex 16", ErrToken, path,
			len(token), minToken, maxToken)
	}
	return token, nil
}
