package xcf

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	reflect "reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"baton/control/transfer"
	"baton/fastpath/wire"
)

var (
	inc4 = wire.Incarnation{Tuple: wire.Tuple{Client: netip.MustParseAddrPort("10.77.0.100:40000"),
		Service: netip.MustParseAddrPort("10.77.0.10:80")}, IRS: 1, ISS: 0xfffffff0}
	inc6 = wire.Incarnation{Tuple: wire.Tuple{Client: netip.MustParseAddrPort("[fd00::64]:40000"),
		Service: netip.MustParseAddrPort("[fd00::a]:80")}, IRS: 2, ISS: 3}
)

func TestTransferMessagesSurviveTheStream(t *testing.T) {
	rows := []transfer.Message{
		transfer.Offer{Transfer: 1, Inc: inc4, Epoch: 2, Job: "web-a", RecordVersion: 1, Bytes: 700, MSS: 1460, Window: 32768,
			Timestamps: true, Reserve: 200 * time.Millisecond},
		transfer.Offer{Transfer: 2, Inc: inc6, From: "mail-router", State: []byte("user=alice")},
		transfer.Offer{Transfer: 3, Inc: inc4, Dialogue: transfer.Dialogue{Record: []byte{1, 2}, Turns: []transfer.Turn{
			{Last: "220 ", More: "220-"}, {Say: []byte("EHLO c.example\r\n"), More: "250-", Last: "250 "}}}},
		transfer.OfferReply{Transfer: 1, Accepted: true},
		transfer.OfferReply{Transfer: 1, Reason: transfer.ReasonHost, Detail: "set arp_ignore=1"},
		transfer.Release{Transfer: 1},
		transfer.Commit{Transfer: 1, Record: []byte{1, 2, 3}},
		transfer.Assign{Offer: transfer.Offer{Transfer: 4, Inc: inc4, Job: "web-a", State: []byte{0}}, Record: []byte{1}},
		transfer.Confirm{Transfer: 1, Imported: true, RcvNxt: 4_000_000_000, Took: 18 * time.Microsecond},
		transfer.Confirm{Transfer: 1, Reason: transfer.ReasonImport, Detail: "EINVAL"},
		transfer.Query{Transfer: 1, Inc: inc4},
		transfer.Query{Inc: inc6},
		transfer.QueryReply{Transfer: 1, Inc: inc4, State: transfer.FlowLive, RcvNxt: 5},
		transfer.QueryReply{Inc: inc6, State: transfer.FlowEnded},
		transfer.EndReport{Inc: inc4, Epoch: 9, Job: "web-a"},
	}
	for _, row := range rows {
		frame, err := appendFrame(nil, Pack(row))
		if err != nil {
			t.Fatal(err)
		}
		e, n, err := newFrameReader(bytes.NewReader(frame)).next()
		if err != nil || n != len(frame) {
			t.Fatalf("%T: read %d of %d: %v", row, n, len(frame), err)
		}
		got, err := Unpack(e)
		if err != nil {
			t.Fatalf("%T: %v", row, err)
		}
		if !reflect.DeepEqual(got, row) {
			t.Errorf("got %+v, want %+v", got, row)
		}
	}
}

func TestUnpackLeavesOtherMessagesAlone(t *testing.T) {
	for _, e := range []*Envelope{{}, {Message: &Envelope_Jobs{Jobs: &Jobs{}}}, {Message: &Envelope_Ping{}}} {
		if m, err := Unpack(e); m != nil || err != nil {
			t.Errorf("%v: %v, %v", e, m, err)
		}
	}
}

func TestUnpackRefusesNonsense(t *testing.T) {
	broken := func(change func(*Incarnation)) *Incarnation {
		x := NewIncarnation(inc4)
		change(x)
		return x
	}
	bad := map[string]*Incarnation{
		"none":          nil,
		"5 octets":      broken(func(x *Incarnation) { x.ClientAddress = make([]byte, 5) }),
		"no service":    broken(func(x *Incarnation) { x.ServiceAddress = nil }),
		"port":          broken(func(x *Incarnation) { x.ServicePort = 1 << 16 }),
		"two families":  broken(func(x *Incarnation) { x.ServiceAddress = inc6.Service.Addr().AsSlice() }),
		"mapped client": broken(func(x *Incarnation) { x.ClientAddress = append(make([]byte, 10), 0xff, 0xff, 1, 2, 3, 4) }),
	}
	for name, inc := range bad {
		for _, e := range []*Envelope{
			{Message: &Envelope_Offer{Offer: &Offer{Incarnation: inc}}},
			{Message: &Envelope_Query{Query: &Query{Incarnation: inc}}},
			{Message: &Envelope_QueryReply{QueryReply: &QueryReply{Incarnation: inc}}},
			{Message: &Envelope_EndReport{EndReport: &EndReport{Incarnation: inc}}},
		} {
			if m, err := Unpack(e); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s in %T: %v, %v, want ErrMalformed", name, e.Message, m, err)
			}
		}
	}
	for _, e := range []*Envelope{
		{Message: &Envelope_Offer{Offer: &Offer{Incarnation: NewIncarnation(inc4), Mss: 1 << 16}}},
		{Message: &Envelope_Offer{Offer: &Offer{Incarnation: NewIncarnation(inc4), Dialogue: &Dialogue{Record: []byte{1}}}}},
		{Message: &Envelope_Offer{Offer: &Offer{Incarnation: NewIncarnation(inc4), Bytes: 1<<18 + 1}}},
		{Message: &Envelope_QueryReply{QueryReply: &QueryReply{Incarnation: NewIncarnation(inc4), State: 77}}},
	} {
		if _, err := Unpack(e); !errors.Is(err, ErrMalformed) {
			t.Errorf("%v: %v, want ErrMalformed", e, err)
		}
	}
}

func TestNumbersAreThoseOfTheSchema(t *testing.T) {
	for n, name := range Reason_name {
		if transfer.Reason(n).String() == "unknown reason" {
			t.Errorf("%s has no transfer.Reason", name)
		}
	}
	if Reason_REASON_LEFTOVER != Reason(transfer.ReasonLeftover) ||
		Reason_REASON_RESERVATION != Reason(transfer.ReasonReservation) {
		t.Error("reasons differ")
	}
	for n, name := range FlowState_name {
		if want := "FLOW_" + map[transfer.FlowState]string{transfer.FlowUnknown: "UNKNOWN", transfer.FlowReserved: "RESERVED",
			transfer.FlowLive: "LIVE", transfer.FlowEnded: "ENDED"}[transfer.FlowState(n)]; name != want {
			t.Errorf("%s is %s", name, want)
		}
	}
}

// FuzzFrames: whatever comes over the stream, reading ends without a panic, and what is read is read the same again.
func FuzzFrames(f *testing.F) {
	frame, err := appendFrame(nil, Pack(transfer.Offer{Transfer: 1, Inc: inc4, Job: "web-a"}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(frame)
	talk, err := appendFrame(nil, Pack(transfer.Offer{Transfer: 1, Inc: inc4, Job: "mail", Dialogue: transfer.Dialogue{
		Record: []byte{1}, Turns: []transfer.Turn{{Last: "+OK"}, {Say: []byte("x\r\n"), More: "+", Last: "."}}}}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(talk)
	f.Add(append(frame, 0, 0, 0, 0))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 0, 0, 9, 1})
	f.Fuzz(func(t *testing.T, stream []byte) {
		frames := newFrameReader(bytes.NewReader(stream))
		for read := 0; ; {
			e, n, err := frames.next()
			if err != nil {
				if errors.Is(err, io.EOF) && read != len(stream) {
					t.Fatalf("end after %d of %d octets", read, len(stream))
				}
				return
			}
			read += n
			checkReread(t, e)
		}
	})
}

func checkReread(t *testing.T, e *Envelope) {
	t.Helper()
	frame, err := appendFrame(nil, e)
	if err != nil {
		t.Fatal(err)
	}
	again, _, err := newFrameReader(bytes.NewReader(frame)).next()
	if err != nil || !proto.Equal(e, again) {
		t.Fatalf("%v was read as %v: %v", e, again, err)
	}
	if m, err := Unpack(e); err == nil && m != nil {
		Pack(m)
	}
}

func TestLengthAloneDoesNotAllocate(t *testing.T) {
	claim := []byte{0, 0x17, 0xff, 0xff, 1, 2, 3} // 1.5 MiB claimed, 3 octets sent
	frames := newFrameReader(bytes.NewReader(claim))
	if _, _, err := frames.next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("next: %v, want ErrUnexpectedEOF", err)
	}
	if cap(frames.buf) > keptBuffer {
		t.Errorf("buffer of %d octets for 3", cap(frames.buf))
	}
}
