package wire

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// icmpCase is an ICMP error about a segment of ours, built with gopacket.
type icmpCase struct {
	v6          bool
	typ, code   uint8
	mtu         int
	quoted      int // octets of the quoted TCP header
	ipOptions   bool
	quotedProto layers.IPProtocol
}

var (
	quote4 = Tuple{Client: netip.MustParseAddrPort("192.0.2.1:40000"), Service: netip.MustParseAddrPort("192.0.2.10:80")}
	quote6 = Tuple{Client: netip.MustParseAddrPort("[2001:db8::1]:40000"), Service: netip.MustParseAddrPort("[2001:db8::10]:80")}
)

func serialized(t testing.TB, l ...gopacket.SerializableLayer) []byte {
	t.Helper()
	b := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(b, opts, l...); err != nil {
		t.Fatal(err)
	}
	return append([]byte(nil), b.Bytes()...)
}

// frame is the error's frame: a router tells Service about a packet to Client.
func (c icmpCase) frame(t testing.TB) []byte {
	header := make([]byte, 20)
	binary.BigEndian.PutUint16(header, 80)
	binary.BigEndian.PutUint16(header[2:], 40000)
	binary.BigEndian.PutUint32(header[4:], 0xfffffffe)
	quoted := gopacket.Payload(header[:c.quoted])
	eth := &layers.Ethernet{SrcMAC: make([]byte, 6), DstMAC: make([]byte, 6), EthernetType: layers.EthernetTypeIPv4}
	if c.v6 {
		eth.EthernetType = layers.EthernetTypeIPv6
		ip := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolICMPv6,
			SrcIP: netip.MustParseAddr("2001:db8::99").AsSlice(), DstIP: quote6.Service.Addr().AsSlice()}
		icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(c.typ, c.code)}
		if err := icmp.SetNetworkLayerForChecksum(ip); err != nil {
			t.Fatal(err)
		}
		inner := serialized(t, &layers.IPv6{Version: 6, NextHeader: c.quotedProto, HopLimit: 1,
			SrcIP: quote6.Service.Addr().AsSlice(), DstIP: quote6.Client.Addr().AsSlice()}, quoted)
		body := binary.BigEndian.AppendUint32(nil, uint32(c.mtu))
		return serialized(t, eth, ip, icmp, gopacket.Payload(append(body, inner...)))
	}
	inner := &layers.IPv4{Version: 4, TTL: 1, Protocol: c.quotedProto, SrcIP: quote4.Service.Addr().AsSlice(),
		DstIP: quote4.Client.Addr().AsSlice()}
	if c.ipOptions {
		inner.Options = []layers.IPv4Option{{OptionType: 7, OptionLength: 7, OptionData: []byte{4, 0, 0, 0, 0}}}
	}
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolICMPv4, SrcIP: []byte{192, 0, 2, 99},
		DstIP: quote4.Service.Addr().AsSlice()}
	icmp := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(c.typ, c.code), Seq: uint16(c.mtu)}
	return serialized(t, eth, ip, icmp, gopacket.Payload(serialized(t, inner, quoted)))
}

func TestParseICMPError(t *testing.T) {
	tcp := layers.IPProtocolTCP
	for _, row := range []struct {
		name string
		in   icmpCase
		kind ICMPKind
		mtu  int
		err  error
	}{
		{"network unreachable", icmpCase{typ: 3, code: 0, quoted: 8, quotedProto: tcp}, Soft, 0, nil},
		{"port unreachable", icmpCase{typ: 3, code: 3, quoted: 8, quotedProto: tcp}, Hard, 0, nil},
		{"protocol unreachable, all quoted", icmpCase{typ: 3, code: 2, quoted: 20, quotedProto: tcp}, Hard, 0, nil},
		{"fragmentation needed", icmpCase{typ: 3, code: 4, mtu: 1280, quoted: 8, quotedProto: tcp}, TooBig, 1280, nil},
		{"of an old router", icmpCase{typ: 3, code: 4, quoted: 8, quotedProto: tcp}, TooBig, 0, nil},
		{"IP options", icmpCase{typ: 3, code: 4, mtu: 600, quoted: 8, ipOptions: true, quotedProto: tcp}, TooBig, 600, nil},
		{"time exceeded", icmpCase{typ: 11, quoted: 8, mtu: 9, quotedProto: tcp}, Soft, 0, nil},
		{"parameter problem", icmpCase{typ: 12, quoted: 8, quotedProto: tcp}, Soft, 0, nil},
		{"source quench", icmpCase{typ: 4, quoted: 8, quotedProto: tcp}, 0, 0, ErrNotICMP},
		{"echo", icmpCase{typ: 8, quoted: 8, quotedProto: tcp}, 0, 0, ErrNotICMP},
		{"unknown code", icmpCase{typ: 3, code: 99, quoted: 8, quotedProto: tcp}, 0, 0, ErrNotICMP},
		{"too little quoted", icmpCase{typ: 3, quoted: 7, quotedProto: tcp}, 0, 0, ErrTruncated},
		{"about UDP", icmpCase{typ: 3, code: 3, quoted: 8, quotedProto: layers.IPProtocolUDP}, 0, 0, ErrNotTCP},
		{"v6 packet too big", icmpCase{v6: true, typ: 2, mtu: 1300, quoted: 8, quotedProto: tcp}, TooBig, 1300, nil},
		{"v6 no route", icmpCase{v6: true, typ: 1, quoted: 8, quotedProto: tcp}, Soft, 0, nil},
		{"v6 prohibited", icmpCase{v6: true, typ: 1, code: 1, quoted: 8, quotedProto: tcp}, Hard, 0, nil},
		{"v6 port", icmpCase{v6: true, typ: 1, code: 4, quoted: 20, quotedProto: tcp}, Hard, 0, nil},
		{"v6 time exceeded", icmpCase{v6: true, typ: 3, quoted: 8, quotedProto: tcp}, Soft, 0, nil},
		{"v6 too little", icmpCase{v6: true, typ: 2, quoted: 7, quotedProto: tcp}, 0, 0, ErrTruncated},
		{"v6 echo", icmpCase{v6: true, typ: 128, quoted: 8, quotedProto: tcp}, 0, 0, ErrNotICMP},
	} {
		frame := row.in.frame(t)
		e, err := ParseICMPError(frame)
		if !errors.Is(err, row.err) {
			t.Errorf("%s: %v, want %v", row.name, err, row.err)
		}
		if err != nil || row.err != nil {
			continue
		}
		want := ICMPError{Tuple: quote4, Seq: 0xfffffffe, Kind: row.kind, Type: row.in.typ, Code: row.in.code, MTU: row.mtu}
		if row.in.v6 {
			want.Tuple = quote6
		}
		if e != want || e.Detail() == "" {
			t.Errorf("%s: got %+v, want %+v", row.name, e, want)
		}
		frame[len(frame)-1] ^= 1
		if _, err := ParseICMPError(frame); !errors.Is(err, ErrChecksum) {
			t.Errorf("%s: damaged: %v", row.name, err)
		}
	}
}

func TestAppendICMPError(t *testing.T) {
	link := Link{Dst: MAC{2, 0, 0, 0, 0, 1}, Src: MAC{2, 0, 0, 0, 0, 2}}
	for _, row := range []struct {
		from string
		e    ICMPError
	}{
		{"192.0.2.99", ICMPError{Tuple: quote4, Seq: 7, Kind: TooBig, Type: 3, Code: 4, MTU: 1000}},
		{"192.0.2.99", ICMPError{Tuple: quote4, Seq: 7, Kind: Soft, Type: 11}},
		{"2001:db8::99", ICMPError{Tuple: quote6, Seq: 7, Kind: TooBig, Type: 2, MTU: 1280}},
	} {
		quoted := AppendTCP(nil, Link{}, row.e.Tuple.Service, row.e.Tuple.Client, Segment{Seq: row.e.Seq, Flags: ACK})
		quoted = quoted[EthernetLen : len(quoted)-tcpMinLen+icmpQuoteTCP]
		b := AppendICMPError([]byte("before"), link, netip.MustParseAddr(row.from), row.e, quoted)
		if got, err := ParseICMPError(b[len("before"):]); err != nil || got != row.e {
			t.Errorf("%+v is parsed as %+v, %v", row.e, got, err)
		}
		if l, _, _, _ := ParseEthernet(b[len("before"):]); l != link {
			t.Errorf("link %v, want %v", l, link)
		}
	}
}

// FuzzParseICMPError: any octets are refused or make an error about two addresses of one family.
func FuzzParseICMPError(f *testing.F) {
	f.Add(icmpCase{typ: 3, code: 4, mtu: 1280, quoted: 8, quotedProto: layers.IPProtocolTCP}.frame(f))
	f.Add(icmpCase{v6: true, typ: 2, mtu: 1280, quoted: 8, quotedProto: layers.IPProtocolTCP}.frame(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseICMPError(b)
		if err == nil && (e.Tuple.Client.Addr().Is4() != e.Tuple.Service.Addr().Is4() || e.MTU != 0 && e.Kind != TooBig) {
			t.Fatalf("%+v", e)
		}
	})
}
