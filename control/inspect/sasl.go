package inspect

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"
)

// saslPlain reads the message of the mechanism PLAIN (RFC 4616 §2) in base64. The user whom the connection is for is the
// authorization identity, or if that is empty the one whose password it is.
func saslPlain(text string) (user string, ok bool) {
	message, ok := unbase64(text)
	parts := strings.Split(message, "\x00")
	if !ok || len(parts) != 3 || parts[1] == "" || parts[2] == "" {
		return "", false
	}
	if parts[0] != "" {
		return parts[0], true
	}
	return parts[1], true
}

// unbase64 reads text in base64 that clients send.
func unbase64(text string) (string, bool) {
	b, err := base64.StdEncoding.DecodeString(text)
	return string(b), err == nil && utf8.Valid(b)
}
