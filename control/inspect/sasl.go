package inspect

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"
)

// plain reads the message of the mechanism PLAIN (RFC 4616 §2) in base64. The user whom the connection is for is the
// authorization identity, or if that is empty the one whose password it is. Where passwords are checked both are the same:
// nobody here knows who may act for whom.
func (u *users) plain(text string) (user string, password Secret, ok bool) {
	message, ok := unbase64(text)
	parts := strings.Split(message, "\x00")
	if !ok || len(parts) != 3 || parts[1] == "" || parts[2] == "" {
		return "", "", false
	}
	user = parts[0]
	if user == "" {
		user = parts[1]
	}
	return user, Secret(parts[2]), user == parts[1] || !u.asks()
}

// unbase64 reads text in base64 that clients send.
func unbase64(text string) (string, bool) {
	b, err := base64.StdEncoding.DecodeString(text)
	return string(b), err == nil && utf8.Valid(b)
}
