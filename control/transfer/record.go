package transfer

import (
	"time"

	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// Record is the state of one live connection, as it is handed from one owner to the next. It is a value: whoever
// receives it needs nothing else to continue the connection, and two encodings of equal records are equal.
//
// Field names are those of RFC 9293 §3.3.1 where it has one. Sequence numbers are the client's for the receive side and
// ours for the send side; nothing is ever rewritten. The zero value of whatever a maker does not know is safe: the
// connection then goes on as if nothing were under way.
type Record struct {
	Epoch     uint64 // of the DVIPA's owner that gives the connection away
	Inc       wire.Incarnation
	Handshake wire.Handshake
	Job       string // job name that should serve it, at most 255 octets
	// Hops is how many owners in a row have had the connection without a word to or from the client. At most MaxHops.
	Hops uint8

	// Receive side. Data is what the next owner has to read: the octets from RcvNxt-len(Data) (-1 more if FIN) on.
	ReadFrom  seq.Value  // S: sequence number of Data[0]
	RcvNxt    seq.Value  // next one expected: ReadFrom + len(Data), + 1 if FIN
	RcvAcked  seq.Value  // highest ACK sent to the client; <= RcvNxt
	RcvEdge   seq.Value  // highest right window edge ever announced; never goes back
	FIN       bool       // the client's FIN was seen, right after Data
	Data      []byte     // at most MaxData, Early included
	Early     []Range    // what came out of order, the newest first; disjoint, after RcvNxt, up to RcvEdge
	EarlyFIN  bool       // the client's FIN was seen out of order, at FINAt
	FINAt     seq.Value  // 0 without EarlyFIN
	Unopened  uint32     // octets that were consumed without moving the window yet
	Duplicate wire.Block // what arrived twice and is to be told with the next ACK (RFC 2883); empty: nothing
	Waiting   uint8      // segments not acknowledged
	Reader    Reader     // who reads what arrives

	// Send side.
	SndUna      seq.Value // oldest octet not acknowledged
	SndNxt      seq.Value // next octet to send
	SndWnd      uint32    // the client's window in octets, scaled
	SndMaxWnd   uint32    // the largest SndWnd ever
	SndWL1      seq.Value // SEG.SEQ of the last window update
	SndWL2      seq.Value // SEG.ACK of the last window update
	SendData    []byte    // octets from SndUna on, sent or not; empty for an import into a kernel
	SndFIN      bool      // our FIN follows SendData, sent or not
	SndFINAcked bool      // and was acknowledged
	SndFINFirst bool      // and was queued before the client's FIN arrived: CLOSING, not LAST-ACK
	ToRepeat    uint32    // octets before SndNxt that are still to be sent again after a timeout
	PathMSS     uint16    // what the path takes, octets, by ICMP; 0: nothing known
	Recovery    Recovery

	// Timestamps (RFC 7323), when Handshake.Timestamps.
	TSOffset uint32 // our TSval = wall clock in ms + TSOffset, mod 2^32
	TSLast   uint32 // highest TSval that the client has been sent
	TSRecent uint32 // the client's newest TSval, to echo

	Clock    Clock
	Settings Settings

	AppState []byte // application state, at most 1 MiB; opaque
}

// MaxHops bounds Record.Hops. A connection that more owners pass on, and none of them talks with the client, goes round
// in a loop.
const MaxHops = 16

// Range is data that came out of order.
type Range struct {
	At   seq.Value // of Data[0]
	Data []byte    // at least one octet
}

// Reader says what is done with data that arrives.
type Reader uint8

// The readers.
const (
	Reads    Reader = iota // the application reads it
	Discards               // it is acknowledged and dropped: a lingering close
	Refuses                // it resets the connection: closed for good
)

// Recovery is the state of loss recovery and of the round-trip estimate. With Cwnd 0 the next owner begins anew.
type Recovery struct {
	Cwnd, Ssthresh    uint32 // octets (RFC 5681)
	Phase             uint8  // as control/tcp numbers them: open, NewReno, SACK, after a timeout
	Recover           seq.Value
	Duplicates        uint8        // duplicate ACKs in a row
	Held              []wire.Block // what the client holds beyond SndUna by SACK; in order, disjoint, up to SndNxt
	High              seq.Value    // HighRxt of RFC 6675
	SRTT, RTTVar, RTO time.Duration
	Backoff           uint8     // how often RTO was doubled
	Timing            bool      // a segment is being timed that ends at TimedEnd
	TimedEnd          seq.Value // its end
	Probes            uint8     // keepalive probes that were not answered
}

// Clock is what the timers show at the export. The clocks of two hosts need not agree, so a record has distances: 0 means
// that there is no such time, and any other value is one nanosecond more than the distance.
type Clock struct {
	ACK, Retransmit, End, Linger time.Duration // until the delayed ACK, the retransmission, the ends of waiting
	Silent                       time.Duration // since the wait for an acknowledgment began
	Timed                        time.Duration // since the segment being timed was sent
	Sent                         time.Duration // since data was last sent
	Challenged                   time.Duration // since the last challenge ACK (RFC 5961)
	Recent                       time.Duration // since TSRecent arrived
	Heard                        time.Duration // since anything arrived
}

// Settings are what the user of a connection may choose.
type Settings struct {
	Nagle       bool          // hold small segments back while something is under way (RFC 9293 §3.7.4)
	UserTimeout time.Duration // give up when nothing was acknowledged for so long; 0: 100 s
	// KeepIdle turns keepalive on (RFC 9293 §3.8.4): after so much silence KeepProbes probes, KeepInterval apart.
	KeepIdle, KeepInterval time.Duration
	KeepProbes             uint8
}
