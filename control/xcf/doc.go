// Package xcf carries messages between a routing host and its target hosts.
//
// Its central type is Peer: the authenticated host at the other end of a stream. There is one persistent stream per
// pair of hosts. A Server (routing host) accepts them, a Dialer (target host) keeps one to each configured routing
// host; both tell a Handler when a peer comes up, what it says and when it is gone, and send to peers by name.
//
// # Stream
//
// TCP with TCP_NODELAY, TLS 1.3 with certificates at both ends, and then messages, each way:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|              length, octets, big-endian, <= 1.5 MiB           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|               Envelope (xcf.proto), that many octets          |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//
// The first message each way is Hello, the Server's first, so that a refusal by TLS meets no data; both have 5 s
// together with the TLS handshake. Ping goes out every second, and a stream whose peer did not answer for 3 s is dead:
// the Server forgets it, the Dialer dials again with a backoff of 0.1 to 5 s with jitter. gRPC is not used here because
// its echo costs about twice a bare TLS stream's, and a client is kept waiting for two of them.
//
// # Identity
//
// A host is who its certificate says: the URI SAN baton://router/NAME or baton://target/NAME, signed by the cluster's
// CA. A Server takes only targets, a Dialer only the router of the name that it was configured with, so a target host
// that was broken into cannot hand connections to others. Certificate files are read again for every stream, which is
// how renewed ones come into use; running streams stay up when their certificate expires.
//
// # Concurrency
//
// Handler is called by the peer's reading goroutine and must not block for long: while it does, nothing more is read
// and no ping is answered. Send may be called from any goroutine and never blocks on the network. A message that is
// sent while nothing waits is written by the caller itself, which saves a wake-up (5-50 us) on the way of a transfer;
// otherwise one writing goroutine per peer takes all that has queued up at once.
//
// Notes, the messages of applications to each other, have a queue of their own (1 MiB), which is written when nothing else
// waits, and the socket takes little ahead of time (TCP_NOTSENT_LOWAT): transfers do not wait for them.
//
// A message that Send took is delivered in order or not at all, and whoever needs to know asks again after Up: the
// transfer's machines do (package transfer).
package xcf
