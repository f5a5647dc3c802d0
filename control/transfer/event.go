package transfer

import (
	"time"

	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// Event is something that happened: what Giver.Step and Taker.Step take. Which machine knows which is in the tables of
// the package comment; a Giver and a Taker ignore each other's.
type Event interface{ event() }

// Events of both machines.
type (
	// Received is a message from a host, by the identity of its stream.
	Received struct {
		Host    string
		Message Message
	}
	// PeerUp says that a stream to the host stands, again or for the first time.
	PeerUp struct{ Host string }
	// PeerLost says that the stream to the host is gone, or that a message could not be sent to it.
	PeerLost struct{ Host string }
	// Timeout says that Deadline has passed. It is ignored before that.
	Timeout struct{}
)

// Events of a Giver.
type (
	// Start begins.
	Start struct{}
	// Frozen says that the forwarder punts nothing of the flow any more, and carries the record made after that.
	Frozen struct {
		Record []byte    // Record.Encode; the Giver keeps it
		RcvNxt seq.Value // of the record
	}
	// Cancel gives the transfer up for a reason of this host: no record can be made, the client is gone, shutting down.
	// It is ignored after the commit.
	Cancel struct{ Detail string }
	// Switched says that the forwarder has made the target the flow's owner.
	Switched struct{}
)

// Events of a Taker.
type (
	// Asked says that an application is asked, or told, about the transfer of a Check, and wants to know if it comes to
	// nothing: Lapsed.
	Asked struct {
		Host     string
		Transfer ID
	}
	// Checked is the result of Check: ReasonNone if the target can take the connection.
	Checked struct {
		Host     string
		Transfer ID
		Reason   Reason
		Detail   string // for the operator
	}
	// Imported is the result of Import: the connection exists, and the application has it.
	Imported struct {
		Host     string
		Transfer ID
		RcvNxt   seq.Value
		Took     time.Duration
	}
	// NotImported is the other result: nothing exists, and nothing will.
	NotImported struct {
		Host     string
		Transfer ID
		Reason   Reason
		Detail   string // for the operator
	}
	// Ended says that a flow that was imported or seeded is over.
	Ended struct{ Inc wire.Incarnation }
	// Left says that a flow that was imported or seeded has another owner: this host gave it away. It is not reported as
	// ended, and may come again.
	Left struct{ Inc wire.Incarnation }
)

func (Received) event()    {}
func (PeerUp) event()      {}
func (PeerLost) event()    {}
func (Timeout) event()     {}
func (Start) event()       {}
func (Frozen) event()      {}
func (Cancel) event()      {}
func (Switched) event()    {}
func (Asked) event()       {}
func (Checked) event()     {}
func (Imported) event()    {}
func (NotImported) event() {}
func (Ended) event()       {}
func (Left) event()        {}

// Action is what the caller has to do, in the order given, before the next Step.
type Action interface{ action() }

// Send is an action of both machines: send the message to the host. If it certainly or possibly did not leave, the
// caller answers with PeerLost.
type Send struct {
	Host    string
	Message Message
}

// Fault is an action of both machines: log it loudly. The peer said what it never may, such as that it imported a
// connection after it had been refused there.
type Fault struct {
	Host   string
	Detail string
}

// Actions of a Giver.
type (
	// Freeze stops the flow: the endpoint sends nothing any more, and the forwarder punts nothing. Answered by Frozen.
	Freeze struct{}
	// Thaw lets both go on: this host is the owner.
	Thaw struct{}
	// Switch makes the host the flow's owner in the forwarder, the held packets first. Answered by Switched.
	Switch struct{ Host string }
	// Remove forgets the flow after the Switch: it has ended at the target already.
	Remove struct{}
	// Refuse tells the client that nobody serves it. It comes after Thaw.
	Refuse struct{ Failure }
	// Abort forgets the flow. Reset: no target has said that it has the connection, and nobody can be asked, so the
	// client is told by a RST from where the record ends. A target that has it after all and has said anything is not
	// harmed: the RST is older than what the client has of it (RFC 9293 §3.10.7.4), and its flow is found again. Otherwise
	// the target is the owner, and the client gets nothing from this host.
	Abort struct {
		Failure
		Reset bool
	}
	// Failed reports an attempt that came to nothing, for log and metrics.
	Failed struct{ Failure }
)

// Failure says why an attempt came to nothing.
type Failure struct {
	Host   string // "" for a local cause
	Cause  Cause
	Reason Reason // the target's
	Detail string // for the operator
}

// Actions of a Taker.
type (
	// Check asks whether the host can take the connection: listener, first window, MSS, set-up; and whether its
	// application will, unless the connection is assigned. Answered by Checked.
	Check struct {
		Host     string
		Offer    Offer
		Assigned bool
	}
	// Import makes the connection. Answered by Imported or NotImported.
	Import struct {
		Host     string
		Transfer ID
		Record   Record
	}
	// StopImport ends an Import that takes too long: try no longer, see that nothing exists, and answer NotImported; or
	// Imported, if it has come to be after all.
	StopImport struct {
		Host     string
		Transfer ID
		Inc      wire.Incarnation
	}
	// Lapsed says that a transfer of which an application was Asked will never import anything.
	Lapsed struct {
		Host     string
		Transfer ID
	}
	// Forget says that an ended flow is remembered no more: what the host keeps of it for a restart may go.
	Forget struct{ Inc wire.Incarnation }
)

func (Send) action()       {}
func (Fault) action()      {}
func (Freeze) action()     {}
func (Thaw) action()       {}
func (Switch) action()     {}
func (Remove) action()     {}
func (Refuse) action()     {}
func (Abort) action()      {}
func (Failed) action()     {}
func (Check) action()      {}
func (Import) action()     {}
func (StopImport) action() {}
func (Lapsed) action()     {}
func (Forget) action()     {}

// Cause is the kind of a Failure.
type Cause uint8

// The causes.
const (
	CauseNone        Cause = iota
	CauseNoCandidate       // there is no host to try
	CauseCanceled          // by this host
	CauseFreeze            // the forwarder did not say that the flow is frozen
	CauseRejected          // the target rejected the offer
	CauseNoAnswer          // the target did not answer in time
	CausePeerLost          // the stream to the target is gone
	CauseNotImported       // the target could not make the connection
	CauseFenced            // the target never saw the commit, and will refuse it
)

var causes = [...]string{"none", "no_candidate", "canceled", "freeze", "rejected", "no_answer", "peer_lost", "not_imported",
	"fenced"}

// String is the cause's word in logs and metrics.
func (c Cause) String() string {
	if int(c) < len(causes) {
		return causes[c]
	}
	return "invalid"
}
