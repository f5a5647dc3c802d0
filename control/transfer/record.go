package transfer

import (
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// Record is the state of one live connection, as it is handed from one owner to the next. It is a value: whoever
// receives it needs nothing else to continue the connection, and two encodings of equal records are equal.
//
// Field names are those of RFC 9293 §3.3.1 where it has one. Sequence numbers are the client's for the receive side and
// ours for the send side; nothing is ever rewritten.
type Record struct {
	Epoch     uint64 // of the DVIPA's owner that gives the connection away
	Inc       wire.Incarnation
	Handshake wire.Handshake
	Job       string // job name that should serve it, at most 255 octets
	Hops      uint8  // how many owners it has had after the first

	// Receive side. Data is what the next owner has to read: the octets from RcvNxt-len(Data) (-1 more if FIN) on.
	ReadFrom seq.Value // S: sequence number of Data[0]
	RcvNxt   seq.Value // next one expected: ReadFrom + len(Data), + 1 if FIN
	RcvAcked seq.Value // highest ACK sent to the client; <= RcvNxt
	RcvEdge  seq.Value // highest right window edge ever announced; never goes back
	FIN      bool      // the client's FIN was seen, right after Data
	Data     []byte    // at most 64 KiB - 1

	// Send side.
	SndUna   seq.Value // oldest octet not acknowledged
	SndNxt   seq.Value // next octet to send
	SndWnd   uint32    // the client's window in octets, scaled
	SndWL1   seq.Value // SEG.SEQ of the last window update
	SndWL2   seq.Value // SEG.ACK of the last window update
	SendData []byte    // octets from SndUna on, sent or not; empty for an import into a kernel

	// Timestamps (RFC 7323), when Handshake.Timestamps.
	TSOffset uint32 // our TSval = wall clock in ms + TSOffset, mod 2^32
	TSLast   uint32 // highest TSval that the client has been sent
	TSRecent uint32 // the client's newest TSval, to echo

	AppState []byte // application state, at most 1 MiB; opaque
}
