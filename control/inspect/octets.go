package inspect

// class says where an octet may stand.
type class uint8

const (
	tokenOctet  class = 1 << iota // token (RFC 9110 §5.6.2): methods, field names
	fieldOctet                    // field value (RFC 9110 §5.5), with obs-text and HTAB, without other controls
	targetOctet                   // request-target: visible, obs-text as stock clients and servers pass it, no fragment
	nameOctet                     // reg-name (RFC 3986 §3.2.2) without percent-encoding
)

var classOf = func() (of [256]class) {
	for c := range of {
		b := byte(c)
		visible := b > ' ' && b != 0x7f
		if isAlphanumeric(b) || oneOf(b, "!#$%&'*+-.^_`|~") {
			of[c] |= tokenOctet
		}
		if visible || b == ' ' || b == '\t' {
			of[c] |= fieldOctet
		}
		if visible && b != '#' {
			of[c] |= targetOctet
		}
		if isUnreserved(b) || oneOf(b, "!$&'()*+,;=") {
			of[c] |= nameOctet
		}
	}
	return of
}()

// consistsOf reports whether all octets of p are of the class.
func consistsOf(p []byte, c class) bool {
	for _, b := range p {
		if classOf[b]&c == 0 {
			return false
		}
	}
	return true
}

func oneOf(c byte, set string) bool {
	for i := range len(set) {
		if set[i] == c {
			return true
		}
	}
	return false
}

// isUnreserved reports whether c is an unreserved character (RFC 3986 §2.3).
func isUnreserved(c byte) bool {
	return isAlphanumeric(c) || c == '-' || c == '.' || c == '_' || c == '~'
}

func isAlphanumeric(c byte) bool {
	return c-'0' < 10 || c|0x20-'a' < 26
}

// unhex returns the value of a hexadecimal digit, or -1.
func unhex(c byte) int {
	switch {
	case c-'0' < 10:
		return int(c - '0')
	case c|0x20-'a' < 6:
		return int(c|0x20-'a') + 10
	}
	return -1
}

// number reads p as decimal digits. Anything else, or more than 18 of them, is not one.
func number(p []byte) (n int64, ok bool) {
	if len(p) == 0 || len(p) > 18 {
		return 0, false
	}
	for _, c := range p {
		if c-'0' >= 10 {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}
