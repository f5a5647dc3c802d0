package app

// Limits of the protocol.
const (
	MaxMessage = 64 << 10 // octets of one packet
	MaxInline  = 32 << 10 // octets of state, before base64, that go into the packet itself
	MaxState   = 1 << 20  // octets of application state
	MaxData    = MaxInline
	MaxText    = 255 // octets of an application's name, a message's tag, and each text of an address
	maxFiles   = 4
)

// Type says what a Message means.
type Type string

// The types. "A" marks those that applications send, "D" those of daemons.
const (
	TypeRegister   Type = "register"   // A: Role, Service, Job, Name, Stream
	TypeRegistered Type = "registered" // D: Host, Lease
	TypeError      Type = "error"      // D: Code, Detail
	TypeGetDPT     Type = "dpt?"       // A
	TypeDPT        Type = "dpt"        // D: Targets
	TypeConnection Type = "connection" // D: Conn, Client, Service, State, From; FileConnection
	TypeTransfer   Type = "transfer"   // A: Conn, Job, Host, State, When, Unconditional
	TypeAccepted   Type = "accepted"   // D: Conn, Host
	TypeRejected   Type = "rejected"   // D: Conn, By, Code, Detail
	TypeEnded      Type = "ended"      // D: Conn: the client is gone, or its time is up
	TypeOffer      Type = "offer"      // D: Transfer, Client, Service, Job, State, From
	TypeAccept     Type = "accept"     // A: Transfer
	TypeReject     Type = "reject"     // A: Transfer, Detail
	TypeArrived    Type = "arrived"    // D: Transfer, Client
	TypeCanceled   Type = "canceled"   // D: Transfer, Detail
	TypeGive       Type = "give"       // A: Job, Host, State; FileConnection. Answered by TypeGiven, TypeRejected, TypeEnded
	TypeGiven      Type = "given"      // D: Host
	TypeMessage    Type = "message"    // A: To, Tag, Data. D: From, Tag, Data. One that is not delivered: TypeError, To
)

// Role is what an application registers as. One program may do both, on two control sockets or on one.
type Role string

// The roles.
const (
	RoleRouter Role = "router"
	RoleTarget Role = "target"
)

// Moments at which a transfer may begin.
const (
	Now       = "now"       // at once; rejected while octets to the client are under way (the default)
	Quiescent = "quiescent" // once the client has acknowledged everything that was sent to it
)

// Names of what a packet's file descriptors are.
const (
	FileConnection = "connection"
	FileListener   = "listener"
	FileState      = "state"
)

// Codes of TypeError and TypeRejected.
const (
	CodeMalformed       = "malformed"    // not a message, or a field is wrong
	CodeNotAllowed      = "not allowed"  // the configuration does not allow this peer to do that
	CodeUnknownConn     = "unknown conn" // no such connection, or it has ended
	CodeUnknownJob      = "unknown job"
	CodeUnknownHost     = "unknown host"
	CodeDataQueued      = "data queued" // the client has not acknowledged all that was sent to it
	CodeBusy            = "busy"        // a transfer of this connection is under way
	CodeNoTarget        = "no target"   // no host of the job can take it now
	CodeApplication     = "application" // the target application said no
	CodeStack           = "stack"       // the target host said no; the detail says why
	CodeTimeout         = "timeout"
	CodeTooLarge        = "too large"
	CodeHops            = "hop limit"        // too many owners have passed it on without a word to or from the client
	CodeUnknownTransfer = "unknown transfer" // it was never offered to this application
	CodeUnknownApp      = "unknown application"
	CodeQueueFull       = "queue full" // too much waits for the receiver, or for its host
)

// Message is one packet of a control socket. Which fields a type has is written at the type; others are ignored.
type Message struct {
	Type Type   `json:"type"`
	Seq  uint64 `json:"seq,omitempty"` // of a request, repeated in its answer

	Role    Role   `json:"role,omitempty"`
	Name    string `json:"name,omitempty"`    // the application's, for operators; default: that of its process
	Service string `json:"service,omitempty"` // DVIPA and port
	Job     string `json:"job,omitempty"`
	Host    string `json:"host,omitempty"`
	Stream  string `json:"stream,omitempty"` // Unix socket at which a routing application takes its connections: a path, or "@" and an abstract name
	Lease   int64  `json:"lease,omitempty"`  // of a control socket over UDP, milliseconds

	Conn     uint64 `json:"conn,omitempty"`     // a connection in a routing application's hands
	Transfer uint64 `json:"transfer,omitempty"` // an offer to a target application
	Client   string `json:"client,omitempty"`   // address and port

	State         []byte `json:"state,omitempty"` // application state
	When          string `json:"when,omitempty"`
	Unconditional bool   `json:"unconditional,omitempty"` // do not ask the target

	By     string `json:"by,omitempty"` // who rejected: "router", "stack" or "application"
	Code   string `json:"code,omitempty"`
	Detail string `json:"detail,omitempty"`

	Targets []Target `json:"targets,omitempty"`
	From    *Party   `json:"from,omitempty"`

	To   *Party `json:"to,omitempty"`
	Tag  string `json:"tag,omitempty"`
	Data []byte `json:"data,omitempty"`

	Files []string `json:"files,omitempty"` // what the file descriptors are, in order
}

// Target is a row of the destination port table.
type Target struct {
	Host    string `json:"host"` // name of the target host
	Job     string `json:"job"`
	Service string `json:"service"`
	Ready   bool   `json:"ready"`
	Reason  string `json:"reason,omitempty"` // why not ready
}

// Party is an application somewhere in the cluster. As an address it names those for whom all that it says is true.
type Party struct {
	Host string `json:"host,omitempty"`
	Name string `json:"name,omitempty"` // of who gives a connection; "": one that is built in
	Role Role   `json:"role,omitempty"`
	Job  string `json:"job,omitempty"` // of a target application: one that it is registered for
	ID   uint64 `json:"id,omitempty"`  // of its control socket; below 2^53, and never given again by its host
}
