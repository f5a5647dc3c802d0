package transfer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// RecordVersion is the version of the record's format that this package writes and reads.
const RecordVersion = 1

// Limits of a record, octets.
const (
	MaxJob      = 255     // job name
	MaxData     = 1 << 18 // what the next owner has to read, and what came out of order
	MaxSendData = 1 << 18 // what the client has not acknowledged
	MaxAppState = 1 << 20 // application state
	MaxEarly    = 33      // ranges out of order
	MaxHeld     = 32      // ranges that the client holds by SACK
	MaxRecord   = 3<<19 - 1<<12
)

// maxScale is the largest shift of window scaling (RFC 7323 §2.3).
const maxScale = 14

// Errors of records.
var (
	// ErrVersion is returned for a record of another version.
	ErrVersion = errors.New("unknown record version")
	// ErrRecord is returned for octets that are no record, and for a Record that contradicts itself.
	ErrRecord = errors.New("malformed record")
)

// Bits of the flags octet. The others are zero.
const (
	flagFIN = 1 << iota
	flagScaling
	flagSACK
	flagTimestamps
	flagIPv6
	flagsKnown = flagFIN | flagScaling | flagSACK | flagTimestamps | flagIPv6
)

// Bits of the second flags octet. The others are zero.
const (
	flagEarlyFIN = 1 << iota
	flagSndFIN
	flagSndFINAcked
	flagSndFINFirst
	flagTiming
	flagNagle
	flags2Known = 1<<iota - 1
)

// Offsets of the fixed part (see the package comment) and its size, octets.
const (
	offVersion  = 0
	offFlags    = 2
	offHops     = 3
	offEpoch    = 4
	offIRS      = 12
	offISS      = 16
	offCPort    = 20
	offSPort    = 22
	offMSS      = 24
	offOwnMSS   = 26
	offSndScale = 28
	offRcvScale = 29
	offJobLen   = 30
	offZero     = 31
	offReadFrom = 32
	offRcvNxt   = 36
	offRcvAcked = 40
	offRcvEdge  = 44
	offSndUna   = 48
	offSndNxt   = 52
	offSndWnd   = 56
	offSndWL1   = 60
	offSndWL2   = 64
	offTSOffset = 68
	offTSLast   = 72
	offTSRecent = 76
	offDataLen  = 80
	offSendLen  = 84
	offStateLen = 88
	offEarly    = 92
	offHeld     = 93
	offFlags2   = 94
	offPhase    = 95
	offFINAt    = 96
	offUnopened = 100
	offDupLeft  = 104
	offDupRight = 108
	offRepeat   = 112
	offMaxWnd   = 116
	offPathMSS  = 120
	offDups     = 122
	offBackoff  = 123
	offCwnd     = 124
	offSsthresh = 128
	offRecover  = 132
	offHigh     = 136
	offTimedEnd = 140
	offProbes   = 144
	offKeepMax  = 145
	offWaiting  = 146
	offReader   = 147
	offTimes    = 148
	fixedLen    = offTimes + 16*8

	rangeLen = 8 // place and length of a range out of order, or both ends of one that the client holds
)

// Encode returns the record's octets, newly allocated. Equal records, and only those, have equal octets; an empty slice
// is equal to nil. The error is ErrRecord if the record contradicts itself.
func (r *Record) Encode() ([]byte, error) {
	if err := r.Check(); err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	b := make([]byte, fixedLen, r.size())
	r.encodeFixed(b)
	b = append(b, r.Inc.Client.Addr().AsSlice()...)
	b = append(b, r.Inc.Service.Addr().AsSlice()...)
	b = append(b, r.Job...)
	b = append(b, r.Data...)
	b = append(b, r.SendData...)
	b = append(b, r.AppState...)
	for _, h := range r.Recovery.Held {
		b = binary.BigEndian.AppendUint32(b, uint32(h.Left))
		b = binary.BigEndian.AppendUint32(b, uint32(h.Right))
	}
	for _, e := range r.Early {
		b = binary.BigEndian.AppendUint32(b, uint32(e.At))
		b = binary.BigEndian.AppendUint32(b, uint32(len(e.Data)))
		b = append(b, e.Data...)
	}
	return b, nil
}

// size is how many octets the encoding has.
func (r *Record) size() int {
	n := fixedLen + len(r.Job) + len(r.Data) + len(r.SendData) + len(r.AppState) + rangeLen*len(r.Recovery.Held)
	for _, e := range r.Early {
		n += rangeLen + len(e.Data)
	}
	return n + (r.Inc.Client.Addr().BitLen()+r.Inc.Service.Addr().BitLen())/8
}

// encodeFixed writes the fixed part.
func (r *Record) encodeFixed(b []byte) {
	be := binary.BigEndian
	be.PutUint16(b[offVersion:], RecordVersion)
	b[offFlags] = r.flags()
	b[offHops] = r.Hops
	be.PutUint64(b[offEpoch:], r.Epoch)
	be.PutUint16(b[offCPort:], r.Inc.Client.Port())
	be.PutUint16(b[offSPort:], r.Inc.Service.Port())
	be.PutUint16(b[offMSS:], r.Handshake.MSS)
	be.PutUint16(b[offOwnMSS:], r.Handshake.OwnMSS)
	b[offSndScale] = r.Handshake.SndScale
	b[offRcvScale] = r.Handshake.RcvScale
	b[offJobLen] = uint8(len(r.Job))
	be.PutUint32(b[offDataLen:], uint32(len(r.Data)))
	be.PutUint32(b[offSendLen:], uint32(len(r.SendData)))
	be.PutUint32(b[offStateLen:], uint32(len(r.AppState)))
	for _, f := range r.numbers() {
		be.PutUint32(b[f.offset:], uint32(*f.number))
	}
	for _, f := range r.counts() {
		be.PutUint32(b[f.offset:], *f.count)
	}
	b[offEarly], b[offHeld] = uint8(len(r.Early)), uint8(len(r.Recovery.Held))
	for _, f := range r.octets() {
		b[f.offset] = *f.octet
	}
	for _, f := range r.bits() {
		if *f.set {
			b[offFlags2] |= f.flag
		}
	}
	be.PutUint16(b[offPathMSS:], r.PathMSS)
	for i, d := range r.times() {
		be.PutUint64(b[offTimes+8*i:], uint64(*d))
	}
}

// numbers are the fields that hold sequence numbers, and where they are.
func (r *Record) numbers() [16]struct {
	offset int
	number *seq.Value
} {
	return [...]struct {
		offset int
		number *seq.Value
	}{
		{offIRS, &r.Inc.IRS}, {offISS, &r.Inc.ISS},
		{offReadFrom, &r.ReadFrom}, {offRcvNxt, &r.RcvNxt}, {offRcvAcked, &r.RcvAcked}, {offRcvEdge, &r.RcvEdge},
		{offSndUna, &r.SndUna}, {offSndNxt, &r.SndNxt}, {offSndWL1, &r.SndWL1}, {offSndWL2, &r.SndWL2},
		{offFINAt, &r.FINAt}, {offDupLeft, &r.Duplicate.Left}, {offDupRight, &r.Duplicate.Right},
		{offRecover, &r.Recovery.Recover}, {offHigh, &r.Recovery.High}, {offTimedEnd, &r.Recovery.TimedEnd},
	}
}

// counts are the other fields of 32 bits, and where they are.
func (r *Record) counts() [9]struct {
	offset int
	count  *uint32
} {
	return [...]struct {
		offset int
		count  *uint32
	}{
		{offSndWnd, &r.SndWnd}, {offTSOffset, &r.TSOffset}, {offTSLast, &r.TSLast}, {offTSRecent, &r.TSRecent},
		{offUnopened, &r.Unopened}, {offRepeat, &r.ToRepeat}, {offMaxWnd, &r.SndMaxWnd},
		{offCwnd, &r.Recovery.Cwnd}, {offSsthresh, &r.Recovery.Ssthresh},
	}
}

// octets are the fields of 8 bits after the first part, and where they are.
func (r *Record) octets() [7]struct {
	offset int
	octet  *uint8
} {
	return [...]struct {
		offset int
		octet  *uint8
	}{
		{offPhase, &r.Recovery.Phase}, {offDups, &r.Recovery.Duplicates}, {offBackoff, &r.Recovery.Backoff},
		{offProbes, &r.Recovery.Probes}, {offKeepMax, &r.Settings.KeepProbes}, {offWaiting, &r.Waiting},
		{offReader, (*uint8)(&r.Reader)},
	}
}

// bits are those of the second flags octet.
func (r *Record) bits() [6]struct {
	set  *bool
	flag uint8
} {
	return [...]struct {
		set  *bool
		flag uint8
	}{
		{&r.EarlyFIN, flagEarlyFIN}, {&r.SndFIN, flagSndFIN}, {&r.SndFINAcked, flagSndFINAcked},
		{&r.SndFINFirst, flagSndFINFirst}, {&r.Recovery.Timing, flagTiming}, {&r.Settings.Nagle, flagNagle},
	}
}

// times are the durations, in the order of the format.
func (r *Record) times() [16]*time.Duration {
	k, g, s := &r.Clock, &r.Recovery, &r.Settings
	return [...]*time.Duration{
		&k.ACK, &k.Retransmit, &k.End, &k.Linger, &k.Silent, &k.Timed, &k.Sent, &k.Challenged, &k.Recent, &k.Heard,
		&g.SRTT, &g.RTTVar, &g.RTO, &s.UserTimeout, &s.KeepIdle, &s.KeepInterval,
	}
}

// flags is the flags octet.
func (r *Record) flags() uint8 {
	var f uint8
	for _, bit := range []struct {
		set  bool
		flag uint8
	}{
		{r.FIN, flagFIN}, {r.Handshake.Scaling, flagScaling}, {r.Handshake.SACK, flagSACK},
		{r.Handshake.Timestamps, flagTimestamps}, {r.Inc.Client.Addr().Is6(), flagIPv6},
	} {
		if bit.set {
			f |= bit.flag
		}
	}
	return f
}

// Decode reads a record. Its slices alias b, which must not change while the record is in use. Any b is safe: the error
// is ErrVersion for another version of the format, and ErrRecord for everything that Encode does not make.
func Decode(b []byte) (Record, error) {
	if len(b) < offVersion+2 {
		return Record{}, fmt.Errorf("decode: %w: %d octets", ErrRecord, len(b))
	}
	if v := binary.BigEndian.Uint16(b[offVersion:]); v != RecordVersion {
		return Record{}, fmt.Errorf("decode: %w: %d, this host knows %d", ErrVersion, v, RecordVersion)
	}
	if len(b) < fixedLen {
		return Record{}, fmt.Errorf("decode: %w: %d octets, at least %d", ErrRecord, len(b), fixedLen)
	}
	if b[offFlags]&^flagsKnown != 0 || b[offZero] != 0 || b[offFlags2]&^flags2Known != 0 {
		return Record{}, fmt.Errorf("decode: %w: unknown flags", ErrRecord)
	}
	var r Record
	r.decodeFixed(b)
	if err := r.decodeRest(b); err != nil {
		return Record{}, fmt.Errorf("decode: %w", err)
	}
	if err := r.Check(); err != nil {
		return Record{}, fmt.Errorf("decode: %w", err)
	}
	return r, nil
}

// decodeFixed reads the fixed part, lengths and ports aside.
func (r *Record) decodeFixed(b []byte) {
	be := binary.BigEndian
	f := b[offFlags]
	r.FIN = f&flagFIN != 0
	r.Hops = b[offHops]
	r.Epoch = be.Uint64(b[offEpoch:])
	r.Handshake = wire.Handshake{
		MSS:        be.Uint16(b[offMSS:]),
		OwnMSS:     be.Uint16(b[offOwnMSS:]),
		SndScale:   b[offSndScale],
		RcvScale:   b[offRcvScale],
		Scaling:    f&flagScaling != 0,
		SACK:       f&flagSACK != 0,
		Timestamps: f&flagTimestamps != 0,
	}
	for _, f := range r.numbers() {
		*f.number = seq.Value(be.Uint32(b[f.offset:]))
	}
	for _, f := range r.counts() {
		*f.count = be.Uint32(b[f.offset:])
	}
	for _, f := range r.octets() {
		*f.octet = b[f.offset]
	}
	for _, f := range r.bits() {
		*f.set = b[offFlags2]&f.flag != 0
	}
	r.PathMSS = be.Uint16(b[offPathMSS:])
	for i, d := range r.times() {
		*d = time.Duration(be.Uint64(b[offTimes+8*i:]))
	}
}

// decodeRest cuts the variable part into its pieces, which must fill it exactly.
func (r *Record) decodeRest(b []byte) error {
	be := binary.BigEndian
	addrLen := 4
	if b[offFlags]&flagIPv6 != 0 {
		addrLen = 16
	}
	dataLen, sendLen, stateLen := be.Uint32(b[offDataLen:]), be.Uint32(b[offSendLen:]), be.Uint32(b[offStateLen:])
	if dataLen > MaxData || sendLen > MaxSendData || stateLen > MaxAppState {
		return fmt.Errorf("%w: lengths %d, %d, %d", ErrRecord, dataLen, sendLen, stateLen)
	}
	rest := cutter{rest: b[fixedLen:]}
	client, _ := netip.AddrFromSlice(rest.cut(addrLen))
	service, _ := netip.AddrFromSlice(rest.cut(addrLen))
	r.Inc.Client = netip.AddrPortFrom(client, be.Uint16(b[offCPort:]))
	r.Inc.Service = netip.AddrPortFrom(service, be.Uint16(b[offSPort:]))
	r.Job = string(rest.cut(int(b[offJobLen])))
	r.Data, r.SendData, r.AppState = rest.cut(int(dataLen)), rest.cut(int(sendLen)), rest.cut(int(stateLen))
	for range min(b[offHeld], MaxHeld+1) {
		left, right := rest.number(), rest.number()
		r.Recovery.Held = append(r.Recovery.Held, wire.Block{Left: seq.Value(left), Right: seq.Value(right)})
	}
	for range min(b[offEarly], MaxEarly+1) {
		at, n := rest.number(), rest.number()
		r.Early = append(r.Early, Range{At: seq.Value(at), Data: rest.cut(int(min(n, MaxData)))})
	}
	if rest.short || len(rest.rest) > 0 {
		return fmt.Errorf("%w: %d octets are not what they say", ErrRecord, len(b))
	}
	return nil
}

// cutter cuts octets into pieces, which alias them.
type cutter struct {
	rest  []byte
	short bool // there were not enough
}

// cut returns the next n octets, nil for none.
func (c *cutter) cut(n int) []byte {
	if n > len(c.rest) {
		c.short = true
	}
	if n == 0 || c.short {
		return nil
	}
	piece := c.rest[:n:n]
	c.rest = c.rest[n:]
	return piece
}

// number returns the next 32 bits.
func (c *cutter) number() uint32 {
	if b := c.cut(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// Check returns ErrRecord, and what it is, for a record that no connection can have.
func (r *Record) Check() error {
	end := r.ReadFrom.Add(len(r.Data))
	next := end
	if r.FIN {
		next = end.Add(1)
	}
	h, flight := r.Handshake, r.SndNxt.Sub(r.SndUna)
	for _, rule := range []struct {
		ok   bool
		what string
	}{
		{plain(r.Inc.Client.Addr()) && plain(r.Inc.Service.Addr()), "an address is missing, mapped or has a zone"},
		{r.Inc.Client.Addr().BitLen() == r.Inc.Service.Addr().BitLen(), "addresses of two families"},
		{len(r.Job) <= MaxJob, "job name is too long"},
		{len(r.Data)+r.earlyLen() <= MaxData, "too much data"},
		{len(r.SendData) <= MaxSendData, "too much data to send"},
		{len(r.AppState) <= MaxAppState, "application state is too long"},
		{h.SndScale <= maxScale && h.RcvScale <= maxScale, "window scale above 14"},
		{h.Scaling || h.SndScale|h.RcvScale == 0, "window scale without the option"},
		{r.RcvNxt == next, "RCV.NXT is not the end of the data"},
		{!r.RcvAcked.After(r.RcvNxt), "more was acknowledged than received"},
		{!r.RcvEdge.Before(end), "data beyond the window"},
		{len(r.Early) <= MaxEarly && len(r.Recovery.Held) <= MaxHeld, "too many ranges"},
		{r.size() <= MaxRecord, "too much of everything"},
		{r.earlyFits(end), "data out of order is not disjoint and in the window"},
		{r.FINAt == 0 || r.EarlyFIN, "place of a FIN without the FIN"},
		{!r.EarlyFIN || !r.FIN && r.FINAt.After(r.RcvNxt), "FIN out of order is in order"},
		{r.Reader <= Refuses, "unknown reader"},
		{flight >= 0 && flight <= len(r.SendData)+r.sndFIN(), "more is under way than there is to send"},
		{int(r.ToRepeat) <= max(flight, 0), "more is to be repeated than is under way"},
		{r.heldFits(), "what the client holds is not disjoint and under way"},
		{r.finsFit(), "FINs contradict each other"},
		{r.timesFit(), "negative duration"},
	} {
		if !rule.ok {
			return fmt.Errorf("%w: %s", ErrRecord, rule.what)
		}
	}
	return nil
}

// earlyLen is how much data came out of order.
func (r *Record) earlyLen() (n int) {
	for _, e := range r.Early {
		n += len(e.Data)
	}
	return n
}

// earlyFits reports whether the ranges out of order are disjoint, lie after the data with a gap, and within the window.
func (r *Record) earlyFits(end seq.Value) bool {
	for i, e := range r.Early {
		last := e.At.Add(len(e.Data))
		if len(e.Data) == 0 || r.FIN || !e.At.After(end) || !e.At.Before(last) || last.After(r.RcvEdge) ||
			r.EarlyFIN && last.After(r.FINAt) {
			return false
		}
		for _, other := range r.Early[:i] { // those that meet would be one
			if !e.At.After(other.At.Add(len(other.Data))) && !other.At.After(last) {
				return false
			}
		}
	}
	return true
}

// heldFits reports whether the client's SACKs are in order, disjoint and under way.
func (r *Record) heldFits() bool {
	at := r.SndUna
	for _, h := range r.Recovery.Held {
		if !h.Left.After(at) || !h.Right.After(h.Left) || h.Right.After(r.SndNxt) {
			return false
		}
		at = h.Right
	}
	return true
}

// sndFIN is the sequence space of our FIN while it is not acknowledged.
func (r *Record) sndFIN() int {
	if r.SndFIN && !r.SndFINAcked {
		return 1
	}
	return 0
}

// finsFit reports whether the flags of our FIN belong to a state (see SndFINFirst).
func (r *Record) finsFit() bool {
	switch {
	case r.SndFINAcked:
		return r.SndFIN && r.SndFINFirst && len(r.SendData) == 0
	case r.SndFIN:
		return r.SndFINFirst || r.FIN
	}
	return !r.SndFINFirst
}

// timesFit reports whether no duration is negative.
func (r *Record) timesFit() bool {
	for _, d := range r.times() {
		if *d < 0 {
			return false
		}
	}
	return true
}

// plain reports whether an address has the one form that wire.Tuple allows.
func plain(a netip.Addr) bool { return a.IsValid() && !a.Is4In6() && a.Zone() == "" }
