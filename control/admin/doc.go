// Package admin is the operator's view of a daemon: HTTP with JSON over a Unix socket.
//
// Its central type is Source, the functions from which a daemon (cmd/baton, cmd/baton-target) answers; Client asks them
// for batonctl. The structs in this package are the interface: the daemons fill them, batonctl prints them, and their
// JSON names are what scripts may rely on. Durations are in seconds and their names end in _seconds, sizes are octets,
// times are RFC 3339 in UTC.
//
// Paths: GET /v1/{version,crt,targets,services,transfers,counters,ports,lcores,keys,flows,doctor}, and
// POST /v1/targets/NAME/{drain,undrain} and /v1/keys/rotate. An error is {"error": "..."} with a status of 4xx or 5xx; 404
// is a path that this daemon does not have. The socket has mode 0600: whoever may open it may see everything but secrets,
// drain targets and rotate keys, and nothing else can be changed through it.
package admin
