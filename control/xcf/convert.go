package xcf

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"

	"baton/control/transfer"
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// ErrMalformed is returned for a message whose fields make no sense, such as an address of 5 octets.
var ErrMalformed = errors.New("malformed message")

// NewIncarnation is inc as messages carry it.
func NewIncarnation(inc wire.Incarnation) *Incarnation {
	return &Incarnation{
		ClientAddress:  inc.Client.Addr().AsSlice(),
		ClientPort:     uint32(inc.Client.Port()),
		ServiceAddress: inc.Service.Addr().AsSlice(),
		ServicePort:    uint32(inc.Service.Port()),
		Irs:            uint32(inc.IRS),
		Iss:            uint32(inc.ISS),
	}
}

// Wire is the incarnation for the rest of the program; ErrMalformed if it is absent, or an address or port is none.
func (x *Incarnation) Wire() (wire.Incarnation, error) {
	client, err := addrPort(x.GetClientAddress(), x.GetClientPort())
	if err != nil {
		return wire.Incarnation{}, fmt.Errorf("client: %w", err)
	}
	service, err := addrPort(x.GetServiceAddress(), x.GetServicePort())
	if err != nil {
		return wire.Incarnation{}, fmt.Errorf("service: %w", err)
	}
	if client.Addr().Is4() != service.Addr().Is4() {
		return wire.Incarnation{}, fmt.Errorf("%w: %s and %s are of two families", ErrMalformed, client, service)
	}
	return wire.Incarnation{
		Tuple: wire.Tuple{Client: client, Service: service},
		IRS:   seq.Value(x.GetIrs()),
		ISS:   seq.Value(x.GetIss()),
	}, nil
}

// addrPort reads an address of 4 or 16 octets and a port. IPv4-mapped IPv6 is refused: wire.Tuple has one form of each.
func addrPort(octets []byte, port uint32) (netip.AddrPort, error) {
	addr, ok := netip.AddrFromSlice(octets)
	if !ok || addr.Is4In6() {
		return netip.AddrPort{}, fmt.Errorf("%w: address %x", ErrMalformed, octets)
	}
	if port > math.MaxUint16 {
		return netip.AddrPort{}, fmt.Errorf("%w: port %d", ErrMalformed, port)
	}
	return netip.AddrPortFrom(addr, uint16(port)), nil
}

// Pack is a transfer's message as the stream carries it.
func Pack(m transfer.Message) *Envelope {
	switch m := m.(type) {
	case transfer.Offer:
		return &Envelope{Message: &Envelope_Offer{Offer: packOffer(m)}}
	case transfer.Assign:
		return &Envelope{Message: &Envelope_Assign{Assign: &Assign{Offer: packOffer(m.Offer), Record: m.Record}}}
	case transfer.OfferReply:
		return &Envelope{Message: &Envelope_OfferReply{OfferReply: &OfferReply{
			Transfer: uint64(m.Transfer), Accepted: m.Accepted, Reason: Reason(m.Reason), Detail: m.Detail,
		}}}
	case transfer.Release:
		return &Envelope{Message: &Envelope_Release{Release: &Release{Transfer: uint64(m.Transfer)}}}
	case transfer.Commit:
		return &Envelope{Message: &Envelope_Commit{Commit: &Commit{Transfer: uint64(m.Transfer), Record: m.Record}}}
	case transfer.Confirm:
		return &Envelope{Message: &Envelope_Confirm{Confirm: &Confirm{
			Transfer: uint64(m.Transfer), Imported: m.Imported, RcvNxt: uint32(m.RcvNxt),
			Reason: Reason(m.Reason), Detail: m.Detail, ImportUs: uint32(m.Took.Microseconds()),
		}}}
	case transfer.Query:
		return &Envelope{Message: &Envelope_Query{Query: &Query{
			Transfer: uint64(m.Transfer), Incarnation: NewIncarnation(m.Inc),
		}}}
	case transfer.QueryReply:
		return &Envelope{Message: &Envelope_QueryReply{QueryReply: &QueryReply{
			Transfer: uint64(m.Transfer), Incarnation: NewIncarnation(m.Inc),
			State: FlowState(m.State), RcvNxt: uint32(m.RcvNxt),
		}}}
	case transfer.EndReport:
		return &Envelope{Message: &Envelope_EndReport{EndReport: &EndReport{
			Incarnation: NewIncarnation(m.Inc), Epoch: m.Epoch, Job: m.Job,
		}}}
	}
	panic(fmt.Sprintf("xcf: pack %T", m)) // a new message without a line here
}

func packOffer(m transfer.Offer) *Offer {
	return &Offer{
		Transfer: uint64(m.Transfer), Incarnation: NewIncarnation(m.Inc), Epoch: m.Epoch, Job: m.Job,
		RecordVersion: m.RecordVersion, Bytes: uint32(m.Bytes), Mss: uint32(m.MSS), Window: m.Window,
		Timestamps: m.Timestamps, ReserveMs: uint32(m.Reserve.Milliseconds()), Hops: uint32(m.Hops),
		From: m.From, FromHost: m.FromHost, Host: m.Host, State: m.State,
		Dialogue: packDialogue(m.Dialogue),
	}
}

func packDialogue(d transfer.Dialogue) *Dialogue {
	if d.None() {
		return nil
	}
	packed := &Dialogue{Record: d.Record}
	for _, t := range d.Turns {
		packed.Turns = append(packed.Turns, &Turn{Say: t.Say, More: []byte(t.More), Last: []byte(t.Last)})
	}
	return packed
}

// Unpack is the reverse of Pack: nil without an error for a message that is not a transfer's, ErrMalformed for one that
// makes no sense. A peer that sends those is broken; its stream is best closed.
func Unpack(e *Envelope) (transfer.Message, error) {
	switch m := e.GetMessage().(type) {
	case *Envelope_Offer:
		o, err := unpackOffer(m.Offer)
		if err != nil {
			return nil, fmt.Errorf("offer: %w", err)
		}
		return o, nil
	case *Envelope_Assign:
		o, err := unpackOffer(m.Assign.GetOffer())
		if err != nil {
			return nil, fmt.Errorf("assign: %w", err)
		}
		return transfer.Assign{Offer: o, Record: m.Assign.GetRecord()}, nil
	case *Envelope_OfferReply:
		r := m.OfferReply
		return transfer.OfferReply{Transfer: transfer.ID(r.GetTransfer()), Accepted: r.GetAccepted(),
			Reason: unpackReason(r.GetReason()), Detail: r.GetDetail()}, nil
	case *Envelope_Release:
		return transfer.Release{Transfer: transfer.ID(m.Release.GetTransfer())}, nil
	case *Envelope_Commit:
		return transfer.Commit{Transfer: transfer.ID(m.Commit.GetTransfer()), Record: m.Commit.GetRecord()}, nil
	case *Envelope_Confirm:
		r := m.Confirm
		return transfer.Confirm{Transfer: transfer.ID(r.GetTransfer()), Imported: r.GetImported(),
			RcvNxt: seq.Value(r.GetRcvNxt()), Reason: unpackReason(r.GetReason()), Detail: r.GetDetail(),
			Took: time.Duration(r.GetImportUs()) * time.Microsecond}, nil
	case *Envelope_Query:
		inc, err := m.Query.GetIncarnation().Wire()
		if err != nil {
			return nil, fmt.Errorf("query: %w", err)
		}
		return transfer.Query{Transfer: transfer.ID(m.Query.GetTransfer()), Inc: inc}, nil
	case *Envelope_QueryReply:
		return unpackQueryReply(m.QueryReply)
	case *Envelope_EndReport:
		inc, err := m.EndReport.GetIncarnation().Wire()
		if err != nil {
			return nil, fmt.Errorf("end report: %w", err)
		}
		return transfer.EndReport{Inc: inc, Epoch: m.EndReport.GetEpoch(), Job: m.EndReport.GetJob()}, nil
	}
	return nil, nil
}

func unpackOffer(m *Offer) (transfer.Offer, error) {
	inc, err := m.GetIncarnation().Wire()
	if err != nil {
		return transfer.Offer{}, err
	}
	if m.GetMss() > math.MaxUint16 || m.GetHops() > math.MaxUint8 || m.GetBytes() > transfer.MaxData || len(m.GetState()) > transfer.MaxAppState {
		return transfer.Offer{}, fmt.Errorf("%w: MSS %d, %d octets of data, %d of application state", ErrMalformed, m.GetMss(),
			m.GetBytes(), len(m.GetState()))
	}
	dialogue, err := unpackDialogue(m.GetDialogue())
	if err != nil {
		return transfer.Offer{}, err
	}
	return transfer.Offer{
		Transfer: transfer.ID(m.GetTransfer()), Inc: inc, Epoch: m.GetEpoch(), Job: m.GetJob(),
		RecordVersion: m.GetRecordVersion(), Bytes: int(m.GetBytes()), MSS: uint16(m.GetMss()), Window: m.GetWindow(),
		Timestamps: m.GetTimestamps(), Reserve: time.Duration(m.GetReserveMs()) * time.Millisecond,
		Hops: uint8(m.GetHops()), From: m.GetFrom(), FromHost: m.GetFromHost(), Host: m.GetHost(), State: m.GetState(),
		Dialogue: dialogue,
	}, nil
}

func unpackDialogue(m *Dialogue) (transfer.Dialogue, error) {
	d := transfer.Dialogue{Record: m.GetRecord()}
	for _, t := range m.GetTurns() {
		d.Turns = append(d.Turns, transfer.Turn{Say: t.GetSay(), More: string(t.GetMore()), Last: string(t.GetLast())})
	}
	if err := d.Check(); err != nil {
		return d, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return d, nil
}

// unpackQueryReply refuses a state that it does not know: to guess one would decide who owns a connection.
func unpackQueryReply(m *QueryReply) (transfer.Message, error) {
	inc, err := m.GetIncarnation().Wire()
	if err != nil {
		return nil, fmt.Errorf("query reply: %w", err)
	}
	if _, known := FlowState_name[int32(m.GetState())]; !known {
		return nil, fmt.Errorf("query reply: %w: state %d", ErrMalformed, m.GetState())
	}
	return transfer.QueryReply{Transfer: transfer.ID(m.GetTransfer()), Inc: inc,
		State: transfer.FlowState(m.GetState()), RcvNxt: seq.Value(m.GetRcvNxt())}, nil
}

// unpackReason keeps a newer peer's reason printable.
func unpackReason(r Reason) transfer.Reason { return transfer.Reason(min(max(r, 0), math.MaxUint8)) }
