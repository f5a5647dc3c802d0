package transfer

import (
	"time"

	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// ID names one attempt to hand a connection to one target host. It is unique per routing host, over its restarts too
// within the time that a target remembers (Limits.Remember); 0 names none.
type ID uint64

// Message is what a Giver and a Taker tell each other: Offer, Release, Commit, Assign and Query one way; OfferReply,
// Confirm, QueryReply and EndReport the other. Package xcf carries them. A Message must arrive unchanged or not at all; it may
// be late, repeated or overtaken by others.
type Message interface{ message() }

// Offer asks for a reservation. Nothing visible happens at the target.
type Offer struct {
	Transfer      ID
	Inc           wire.Incarnation
	Epoch         uint64
	Job           string
	RecordVersion uint32
	Bytes         int           // length of the data that the commit will carry, octets
	MSS           uint16        // the client's, octets
	Window        uint32        // W: the first window that the target's listener must have at least, octets
	Timestamps    bool          // RFC 7323 timestamps are on
	Reserve       time.Duration // how long the reservation should stand
	Hops          uint8         // as in the record
	// From is the application that gives the connection, "": a routing application that is built in. FromHost is the host
	// of a target application that does; "": it is one of the routing host itself.
	From, FromHost string
	// Host is where a connection that is handed back is to go on; "": at any host of Job. Without Job the routing
	// application shall have it. Only in offers to routing hosts.
	Host string
	// State is what the target application gets before it decides: what the routing application knows of the client. At
	// most MaxAppState octets; nobody changes them.
	State []byte
	// Dialogue is what has been said so far where the server speaks first. A target whose server would say it again has
	// it played before it accepts.
	Dialogue Dialogue
}

// OfferReply answers an Offer. An accepted one is a reservation.
type OfferReply struct {
	Transfer ID
	Accepted bool
	Reason   Reason // why not
	Detail   string // for the operator
}

// Release gives a reservation back. It is never sent after a Commit.
type Release struct{ Transfer ID }

// Commit is the point of no return: from here only the target's word makes the routing host the owner again.
type Commit struct {
	Transfer ID
	Record   []byte // Record.Encode
}

// Assign is Offer and Commit in one: the target takes the connection if it can, and its application is not asked. The
// answer is a Confirm.
type Assign struct {
	Offer  Offer
	Record []byte // Record.Encode
}

// Confirm answers a Commit or an Assign: the connection exists at the target, or it does not and never will by this transfer.
type Confirm struct {
	Transfer ID
	Imported bool
	RcvNxt   seq.Value     // of the connection at the target, when Imported
	Reason   Reason        // why not
	Detail   string        // for the operator
	Took     time.Duration // the import
}

// Query asks who an incarnation is to the target. IRS = ISS = 0 means any incarnation of the tuple. With a Transfer
// (which is ID 0 otherwise) it also fences that transfer, unless the target owns the flow or is importing it.
type Query struct {
	Transfer ID
	Inc      wire.Incarnation
}

// QueryReply answers a Query. Inc is the flow's where one was found, the query's otherwise.
type QueryReply struct {
	Transfer ID
	Inc      wire.Incarnation
	State    FlowState
	RcvNxt   seq.Value // after the import, when FlowLive; not moved on with the connection
}

// EndReport says that a flow is over at the target that owned it.
type EndReport struct {
	Inc   wire.Incarnation
	Epoch uint64
	Job   string
}

func (Offer) message()      {}
func (OfferReply) message() {}
func (Release) message()    {}
func (Commit) message()     {}
func (Assign) message()     {}
func (Confirm) message()    {}
func (Query) message()      {}
func (QueryReply) message() {}
func (EndReport) message()  {}

// FlowState is what a flow is to a target. Its numbers are those of xcf.proto.
type FlowState uint8

// The flow states.
const (
	FlowUnknown  FlowState = iota // never seen, or forgotten; the queried transfer will not import it any more
	FlowReserved                  // offered, or being imported: not decided yet
	FlowLive                      // the target owns it
	FlowEnded                     // the target owned it, and it is over
)

var flowStates = [...]string{"unknown", "reserved", "live", "ended"}

// String is the state's word in logs.
func (s FlowState) String() string {
	if int(s) < len(flowStates) {
		return flowStates[s]
	}
	return "invalid"
}

// Reason says why a target did not take a connection. Its numbers are those of xcf.proto.
type Reason uint8

// The reasons.
const (
	ReasonNone         Reason = iota
	ReasonUnknownJob          // the target does not serve this job
	ReasonNotListening        // nobody listens
	ReasonCapacity            // too many reservations, or the listener's backlog is full
	ReasonEpoch               // older than one already seen for this DVIPA
	ReasonVersion             // record version
	ReasonWindow              // first window < W
	ReasonMSS                 // the client's MSS is below what the kernel takes
	ReasonHost                // the host is not set up; the detail says what to set
	ReasonReservation         // commit without a standing reservation
	ReasonImport              // the kernel refused the connection
	ReasonApplication         // the target application said no
	ReasonDraining            // the target is being emptied
	ReasonLeftover            // a leftover of the tuple could not be removed
	ReasonDialogue            // the server answers otherwise than the routing host has
	ReasonHops                // the connection goes round: too many owners, none of whom talked with the client
)

var reasons = [...]string{"none", "unknown job", "not listening", "capacity", "epoch", "version", "window", "mss",
	"host", "reservation", "import", "application", "draining", "leftover", "dialogue", "hops"}

// String is the reason's word in logs and metrics.
func (r Reason) String() string {
	if int(r) < len(reasons) {
		return reasons[r]
	}
	return "unknown reason"
}
