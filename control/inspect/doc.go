// Package inspect has the routing applications that are built in: they read what a client sends until they know who
// should serve it. Its central type is Session, one connection's Application; HTTP is the one for HTTP/1.x, by Host and
// path (RFC 9110, RFC 9112), POP3 and IMAP those for mailboxes, by user (RFC 1939, RFC 9051), SMTP goes by recipient or
// user (RFC 5321), TLS reads the ClientHello (RFC 8446), Postgres the startup message, Redis the first command, and Raw
// the first octets.
//
// The package is pure: no I/O, clock, goroutine or lock. The router owns the octets and calls Inspect whenever there
// are more of them; the same octets give the same decision however they were split, and all calls together cost no
// more than linear time, because a session remembers how far it has read.
//
// A protocol in which the server answers before it is clear who serves (POP3, SMTP, PostgreSQL) fits Session as well:
// each call gives the next answer as a Reply with NeedMore, and may consume what was answered. Where the server even
// speaks first, Inspect(nil) gives its greeting. Where only the first octets matter (the SNI of TLS), NeedMore and Route
// are all there is, and a Refusal is an alert.
//
// # What of a request decides
//
// The first rule that matches in the order of the configuration, else the default job, else the request is refused
// with 404. Requests are compared in a normal form; the target reads the octets as the client sent them.
//
//   - The host is that of an absolute-form target ("GET http://a.example/ HTTP/1.1"), which wins over the Host field
//     (RFC 9112 §3.2.2), of an authority-form target (CONNECT), else of the Host field. Case, port and one trailing dot
//     do not count; an IPv6 address is compared in its canonical text. A request of HTTP/1.0 may be without Host, and
//     one of HTTP/1.1 have an empty one: both match rules for any host only.
//   - The path ends before "?". Percent-encoded unreserved characters are decoded and dot segments removed (RFC 3986
//     §6.2.2), so "/static/%2e%2e/private" is "/private". As Envoy and HAProxy do by default, "%2F" is no separator,
//     "//" is not "/", and case counts. "OPTIONS *" and CONNECT have no path: they match rules for any path only.
//   - The method, header fields, cookies and parameters of the query are compared as they come, parameters decoded.
//
// Routing is per connection: the first request decides, and later ones go to the same target. Therefore all requests
// that are in hand are read, past their bodies, and if the complete ones among them belong to different jobs the
// connection is refused with 400. After CONNECT or Upgrade the octets need not be HTTP and are not read.
//
// # What is refused
//
// What another reader could take for another request (RFC 9112 §11.2), with 400: Content-Length together with
// Transfer-Encoding, differing or malformed Content-Lengths, a Transfer-Encoding whose last coding is not chunked or
// in HTTP/1.0, malformed chunks, several Host fields or none in HTTP/1.1, white space before a colon, folded lines,
// line ends that are not CRLF, NUL and other control characters. What cannot be HTTP (a TLS ClientHello) is refused
// at its first such octet. HTTP/2's preface and other versions get 505; Baton does not speak HTTP/2, and the client
// must not take a silence for an answer. Heads that do not end in time for the target to take over all octets get
// 431.
//
// Expect: 100-continue needs nothing: the head alone decides, and the target sends the 100.
package inspect
