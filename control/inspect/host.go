package inspect

import (
	"bytes"
	"net/netip"
)

// setHost notes the host of an authority (uri-host [":" port], RFC 9110 §7.2) in its normal form, unless a better
// source gave one. It returns false if the authority is malformed.
func (r *request) setHost(authority []byte, from hostSource) bool {
	host, ok := cutPort(authority)
	if !ok || len(host) > maxHost {
		return false
	}
	if len(host) > 0 && host[0] == '[' {
		a, ok := literalAddr(string(host))
		if ok && from > r.hostFrom {
			r.hostFrom, r.hostLen = from, len(append(a.AppendTo(append(r.host[:0], '[')), ']'))
		}
		return ok
	}
	host = bytes.TrimSuffix(host, []byte{'.'})
	if !isRegName(host) || len(host) == 0 && len(authority) > 0 {
		return false
	}
	if from > r.hostFrom {
		r.hostFrom, r.hostLen = from, copyLower(r.host[:], host)
	}
	return true
}

func copyLower(dst, src []byte) int {
	for i, c := range src {
		if c-'A' < 26 {
			c |= 0x20
		}
		dst[i] = c
	}
	return len(src)
}

// cutPort removes the port of an authority, and reports whether that is one.
func cutPort(authority []byte) (host []byte, ok bool) {
	end := bytes.IndexByte(authority, ':')
	if len(authority) > 0 && authority[0] == '[' {
		end = bytes.IndexByte(authority, ']') + 1
		if end == len(authority) {
			return authority, true
		}
		if end == 0 || authority[end] != ':' {
			return nil, false
		}
	}
	if end < 0 {
		return authority, true
	}
	port := authority[end+1:]
	_, ok = number(port)
	return authority[:end], len(port) == 0 || ok && len(port) <= len("65535")
}

// isRegName reports whether the host is a name or an IPv4 address without empty labels, or empty.
func isRegName(host []byte) bool {
	if len(host) == 0 {
		return true
	}
	emptyLabel := host[0] == '.' || host[len(host)-1] == '.' || bytes.Contains(host, []byte(".."))
	return !emptyLabel && consistsOf(host, nameOctet)
}

// literalAddr reads an IPv6 address in brackets. Its String is the canonical text (RFC 5952).
func literalAddr(s string) (netip.Addr, bool) {
	if len(s) < 2 || s[0] != '[' || s[len(s)-1] != ']' {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(s[1 : len(s)-1])
	return a, err == nil && a.Is6() && a.Zone() == ""
}
