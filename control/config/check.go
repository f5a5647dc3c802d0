package config

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// Bounds of names, octets.
const (
	maxHostName   = 63  // it goes into certificates and labels
	maxJobName    = 255 // it is one length-prefixed field of a transfer record
	maxSocketPath = 107 // sun_path of unix(7), with its NUL
	maxInterface  = 15  // IFNAMSIZ, with its NUL
)

// hostName checks a host's name: it is part of the URI in its certificate.
func (r *report) hostName(key, name string) {
	bad := func(c rune) bool {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		return !letter && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.'
	}
	if name == "" || len(name) > maxHostName || name[0] == '.' || strings.ContainsFunc(name, bad) {
		r.failf(key, "%q is no host name: want 1 to %d of a-z, A-Z, 0-9, '-', '_' and '.', no dot in front",
			name, maxHostName)
	}
}

// jobName checks a job's name.
func (r *report) jobName(key, name string) {
	if name == "" {
		r.failf(key, "empty: want a job name")
	}
	if len(name) > maxJobName {
		r.failf(key, "job name of %d octets: want at most %d", len(name), maxJobName)
	}
	if strings.ContainsFunc(name, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		r.failf(key, "job name %q has a control character", name)
	}
}

// hostPort checks host:port. Without needHost the host may be empty: every address of this machine.
func (r *report) hostPort(key, s string, needHost bool) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		r.failf(key, "%q is no host:port: want one as in 10.78.0.1:7600 or [2001:db8::1]:7600", s)
		return
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		r.failf(key, "%q: %q is no port: want a number from 1 to 65535", s, port)
	}
	if host == "" && needHost {
		r.failf(key, "%q has no host: want one as in 10.78.0.1%s", s, s)
	}
	if _, err := netip.ParseAddr(host); err == nil || host == "" {
		return
	}
	if looksNumeric(host) || strings.ContainsAny(host, " /@:") {
		r.failf(key, "%q: %q is neither an address nor a name", s, host)
	}
}

// looksNumeric reports whether s was meant to be an IPv4 address.
func looksNumeric(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c != '.' && (c < '0' || c > '9') })
}

// socketPath checks the path of a Unix socket.
func (r *report) socketPath(key, path string) {
	if path == "" {
		r.failf(key, "empty: want the path of a Unix socket")
	}
	if len(path) > maxSocketPath {
		r.failf(key, "path of %d octets: a Unix socket's has at most %d", len(path), maxSocketPath)
	}
}

func (r *report) applications(key string, a Applications) {
	r.socketPath(key+".socket", a.Socket)
	for i, user := range a.Allow {
		r.notEmpty(at(key+".allow", i)+".user", user.User, "the name or number of a user")
	}
	r.overUDP(key, a)
}

// overUDP checks that the control socket over UDP is for this host only, and for whom a token stands.
func (r *report) overUDP(key string, a Applications) {
	tokens := map[string]string{}
	for i, user := range a.Allow {
		field := at(key+".allow", i) + ".token_file"
		switch {
		case user.Token == "":
			continue
		case !a.UDP.IsValid():
			r.warnf(field, "of no use: %s.udp is not set", key)
		default:
			r.absolutePath(field, user.Token)
		}
		r.once(tokens, field, user.Token)
	}
	switch {
	case !a.UDP.IsValid():
	case !a.UDP.Addr().IsLoopback() || a.UDP.Port() == 0:
		r.failf(key+".udp", "%s: want a loopback address and port as in 127.0.0.1:790", a.UDP)
	case len(tokens) == 0:
		r.warnf(key+".udp", "of no use: no user of %s.allow has a token_file", key)
	}
}

func (r *report) notEmpty(key, value, want string) {
	if value == "" {
		r.failf(key, "empty: want %s", want)
	}
}

func (r *report) absolutePath(key, path string) {
	if !filepath.IsAbs(path) {
		r.failf(key, "%q is not an absolute path", path)
	}
}

// unicast checks an address that a connection can have, and reports whether it is one.
func (r *report) unicast(key string, a netip.Addr) bool {
	switch {
	case a.Zone() != "":
		r.failf(key, "%s has a zone: want the address without %%%s", a, a.Zone())
	case a.Is4In6():
		r.failf(key, "%s is an IPv4 address written as IPv6: write %s", a, a.Unmap())
	case a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		r.failf(key, "%s is no address of one host on the data network", a)
	default:
		return true
	}
	return false
}

// once reports when value was used before. seen maps what was used to its key.
func (r *report) once(seen map[string]string, key, value string) {
	if first, ok := seen[value]; ok {
		r.failf(key, "%s is in line %d already (%s)", value, r.locate(first).line, first)
		return
	}
	seen[value] = key
}

// at builds the key of a list's element.
func at(list string, i int) string { return fmt.Sprintf("%s[%d]", list, i) }
