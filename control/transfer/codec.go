package transfer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// RecordVersion is the version of the record's format that this package writes and reads.
const RecordVersion = 1

// Limits of a record, octets.
const (
	MaxJob      = 255       // job name
	MaxData     = 1<<16 - 1 // what the next owner has to read
	MaxSendData = 1 << 18   // what the client has not acknowledged
	MaxAppState = 1 << 20   // application state
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
	fixedLen    = 92
)

// Encode returns the record's octets, newly allocated. Equal records, and only those, have equal octets; an empty slice
// is equal to nil. The error is ErrRecord if the record contradicts itself.
func (r *Record) Encode() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	client, service := r.Inc.Client.Addr(), r.Inc.Service.Addr()
	addresses := (client.BitLen() + service.BitLen()) / 8
	size := fixedLen + addresses + len(r.Job) + len(r.Data) + len(r.SendData) + len(r.AppState)
	b := make([]byte, fixedLen, size)
	r.encodeFixed(b)
	b = append(b, client.AsSlice()...)
	b = append(b, service.AsSlice()...)
	b = append(b, r.Job...)
	b = append(b, r.Data...)
	b = append(b, r.SendData...)
	return append(b, r.AppState...), nil
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
}

// numbers are the fields that hold sequence numbers, and where they are.
func (r *Record) numbers() [10]struct {
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
	}
}

// counts are the other fields of 32 bits, and where they are.
func (r *Record) counts() [4]struct {
	offset int
	count  *uint32
} {
	return [...]struct {
		offset int
		count  *uint32
	}{{offSndWnd, &r.SndWnd}, {offTSOffset, &r.TSOffset}, {offTSLast, &r.TSLast}, {offTSRecent, &r.TSRecent}}
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
	if b[offFlags]&^flagsKnown != 0 || b[offZero] != 0 {
		return Record{}, fmt.Errorf("decode: %w: unknown flags", ErrRecord)
	}
	var r Record
	r.decodeFixed(b)
	if err := r.decodeRest(b); err != nil {
		return Record{}, fmt.Errorf("decode: %w", err)
	}
	if err := r.check(); err != nil {
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
}

// decodeRest cuts the variable part into its pieces, which must fill it exactly.
func (r *Record) decodeRest(b []byte) error {
	be := binary.BigEndian
	addrLen := 4
	if b[offFlags]&flagIPv6 != 0 {
		addrLen = 16
	}
	jobLen := int(b[offJobLen])
	dataLen, sendLen, stateLen := be.Uint32(b[offDataLen:]), be.Uint32(b[offSendLen:]), be.Uint32(b[offStateLen:])
	if dataLen > MaxData || sendLen > MaxSendData || stateLen > MaxAppState {
		return fmt.Errorf("%w: lengths %d, %d, %d", ErrRecord, dataLen, sendLen, stateLen)
	}
	if want := fixedLen + 2*addrLen + jobLen + int(dataLen) + int(sendLen) + int(stateLen); len(b) != want {
		return fmt.Errorf("%w: %d octets instead of %d", ErrRecord, len(b), want)
	}
	rest := b[fixedLen:]
	cut := func(n int) []byte {
		piece := rest[:n:n]
		rest = rest[n:]
		if n == 0 {
			return nil
		}
		return piece
	}
	client, _ := netip.AddrFromSlice(cut(addrLen))
	service, _ := netip.AddrFromSlice(cut(addrLen))
	r.Inc.Client = netip.AddrPortFrom(client, be.Uint16(b[offCPort:]))
	r.Inc.Service = netip.AddrPortFrom(service, be.Uint16(b[offSPort:]))
	r.Job = string(cut(jobLen))
	r.Data, r.SendData, r.AppState = cut(int(dataLen)), cut(int(sendLen)), cut(int(stateLen))
	return nil
}

// check returns ErrRecord, and what it is, for a record that no connection can have.
func (r *Record) check() error {
	end := r.ReadFrom.Add(len(r.Data))
	next := end
	if r.FIN {
		next = end.Add(1)
	}
	h := r.Handshake
	for _, rule := range []struct {
		ok   bool
		what string
	}{
		{plain(r.Inc.Client.Addr()) && plain(r.Inc.Service.Addr()), "an address is missing, mapped or has a zone"},
		{r.Inc.Client.Addr().BitLen() == r.Inc.Service.Addr().BitLen(), "addresses of two families"},
		{len(r.Job) <= MaxJob, "job name is too long"},
		{len(r.Data) <= MaxData, "too much data"},
		{len(r.SendData) <= MaxSendData, "too much data to send"},
		{len(r.AppState) <= MaxAppState, "application state is too long"},
		{h.SndScale <= maxScale && h.RcvScale <= maxScale, "window scale above 14"},
		{h.Scaling || h.SndScale|h.RcvScale == 0, "window scale without the option"},
		{r.RcvNxt == next, "RCV.NXT is not the end of the data"},
		{!r.RcvAcked.After(r.RcvNxt), "more was acknowledged than received"},
		{!r.RcvEdge.Before(end), "data beyond the window"},
		{!r.SndUna.After(r.SndNxt), "SND.UNA is after SND.NXT"},
	} {
		if !rule.ok {
			return fmt.Errorf("%w: %s", ErrRecord, rule.what)
		}
	}
	return nil
}

// plain reports whether an address has the one form that wire.Tuple allows.
func plain(a netip.Addr) bool { return a.IsValid() && !a.Is4In6() && a.Zone() == "" }
