package inspect

// Application is a routing application: it begins a session for each connection of a service. It does not change and
// is safe for concurrent use.
type Application interface {
	// Session begins a connection. window is W less what cannot be read of it: the most octets that the next owner of
	// the connection can take over.
	Session(window int) Session
	// SpeaksFirst says that clients wait for a greeting: the first Inspect gets no octets, and replies it.
	SpeaksFirst() bool
}
