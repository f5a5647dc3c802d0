package inspect

import "bytes"

// isNormalPath reports whether normalizePath would leave p as it is, for the common paths that make it quick to see.
// It may say false for a path that is normal.
func isNormalPath(p []byte) bool {
	return bytes.IndexByte(p, '%') < 0 && !bytes.Contains(p, []byte("/."))
}

// normalizePath returns the form of an absolute path in which paths are compared (RFC 3986 §6.2.2): percent-encoded
// unreserved characters decoded, other percent-encodings in upper case, dot segments removed. "%2F" does not become a
// separator, "//" stays, and a malformed percent-encoding is left alone, as HAProxy and Envoy do it. The result is a
// new slice, never longer than p, and keeps the leading slash.
func normalizePath(p []byte) []byte {
	dst := make([]byte, 0, len(p))
	for i := 0; i < len(p); {
		c, n := decodeUnreserved(p[i:])
		dst = append(dst, p[i:i+n]...)
		if c != 0 {
			dst = append(dst[:len(dst)-n], c)
		} else if n == 3 {
			upperHex(dst[len(dst)-2:])
		}
		i += n
		if i == len(p) || p[i] == '/' {
			dst = foldDotSegment(dst, i == len(p))
		}
	}
	return dst
}

// decodeUnreserved looks at the first octet or percent-encoding of p. It returns how many octets that is, and the
// decoded character if that is an unreserved one.
func decodeUnreserved(p []byte) (c byte, n int) {
	if p[0] != '%' || len(p) < 3 {
		return 0, 1
	}
	hi, lo := unhex(p[1]), unhex(p[2])
	if hi < 0 || lo < 0 {
		return 0, 1
	}
	if c := byte(hi<<4 | lo); isUnreserved(c) {
		return c, 3
	}
	return 0, 3
}

// foldDotSegment removes the last segment of dst if it is "." and the one before as well if it is ".." (RFC 3986
// §5.2.4). A path that ends in either keeps its slash; above the root there is the root.
func foldDotSegment(dst []byte, last bool) []byte {
	slash := bytes.LastIndexByte(dst, '/')
	switch string(dst[slash+1:]) {
	case ".":
	case "..":
		slash = max(bytes.LastIndexByte(dst[:slash], '/'), 0)
	default:
		return dst
	}
	if last {
		return dst[:slash+1]
	}
	return dst[:slash]
}

func upperHex(p []byte) {
	for i, c := range p {
		if c >= 'a' {
			p[i] = c - 0x20
		}
	}
}
