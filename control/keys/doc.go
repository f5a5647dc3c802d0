// Package keys keeps the secrets that the routing hosts of a cluster share, from which SYN cookies and timestamp offsets
// are derived. Its central type is Ring: the secret in use, the one before, whose handshakes may still be under way, and
// perhaps one that is to follow. A host with the same ring can complete what another one, or the same one before a
// restart, has answered.
//
// A ring is a file of lines, oldest first, readable by its owner only:
//
//	2026-11-24T13:00:00.000Z 6f2e...   the time from which on it is used, and 32 octets in hexadecimal
//
// Empty lines and what follows a # is ignored. Ring is pure; Load and Save are not. cmd/baton calls this package. Times are
// UTC and count in milliseconds, as the forwarder's clock does.
package keys
