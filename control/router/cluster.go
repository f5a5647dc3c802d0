package router

import (
	"net/netip"

	"baton/control/transfer"
)

// Cluster sends to target hosts (over package xcf). What comes from them enters by Router.HostUp, HostJobs, HostSays
// and HostDown.
type Cluster interface {
	// Send hands a message to the stream of a host, after all messages before. It does not block; an error means that
	// the message is surely not delivered. That it is, only an answer tells.
	Send(host string, m transfer.Message) error
}

// Job is a row of a target's part of the destination port table (DPT).
type Job struct {
	Name    string
	Service netip.AddrPort // DVIPA and port
	Ready   bool           // a listener is there and can take connections
	Reason  string         // why not ready: one line that says what to set
	Window  uint32         // the listener's first window, octets; 0 unknown
	Direct  bool           // the listener takes clients' SYNs, and nothing is handed over to it
}

// event is something from another goroutine.
type event struct {
	kind    eventKind
	host    string
	jobs    []Job            // hostJobs
	message transfer.Message // hostSays
	call    func()           // call
}

type eventKind uint8

const (
	hostUp eventKind = iota
	hostJobs
	hostSays
	hostDown
	call
)
