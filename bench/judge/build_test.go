package judge

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// The network of the built captures.
var (
	clientMAC = wire.MAC{2, 0, 0, 0, 0, 100}
	routerMAC = wire.MAC{2, 0, 0, 0, 0, 1}
	targetMAC = wire.MAC{2, 0, 0, 0, 0, 21}
	otherMAC  = wire.MAC{2, 0, 0, 0, 0, 22}

	client = netip.MustParseAddrPort("10.77.0.100:40000")
	dvipa  = netip.MustParseAddrPort("10.77.0.10:80")
)

// Initial sequence numbers close to the wrap, so every comparison crosses it.
const (
	irs seq.Value = 0xffffffff - 20
	iss seq.Value = 0xffffffff - 30
)

// item is one frame to build: a segment, or ARP when arp is set.
type item struct {
	at       time.Duration
	mac      wire.MAC
	toServer bool
	seg      wire.Segment
	arp      *arp
	fragment bool
	corrupt  bool
}

// arp is an ARP packet as far as it matters here.
type arp struct {
	op     uint16
	sender netip.Addr
	mac    wire.MAC
	target netip.Addr
}

// first and second are the request in two segments; answer is the response in two.
var (
	first  = []byte("GET / HTTP/1.1\r\n")
	second = []byte("Host: a.example\r\n\r\n")
	answer = []byte("HTTP/1.1 200 OK\r\n\r\nhello world, this is target one")
)

// The places of the frames in clean().
const (
	arpRequest = iota
	arpReply
	syn
	synAck
	handshakeAck
	firstData
	routerAck
	secondData
	targetData1
	targetData2
	clientAck
	clientFin
	targetFin
	lastAck
)

// clean is a connection that was handed over and closed as it should be.
func clean() []*item {
	offer := wire.Options{MSS: 1460, HasScale: true, Scale: 7, SACKPermitted: true, HasTimestamps: true}
	cut := 20
	a, c := irs.Add(1), iss.Add(1)
	b, d := a.Add(len(first)), c.Add(cut)
	e, f := b.Add(len(second)), c.Add(len(answer))
	fromClient := func(flags wire.Flags, seq, ack seq.Value, p []byte) *item {
		return &item{mac: clientMAC, toServer: true,
			seg: wire.Segment{Seq: seq, Ack: ack, Flags: flags | wire.ACK, Window: 500, Payload: p}}
	}
	fromServer := func(mac wire.MAC, flags wire.Flags, seq, ack seq.Value, p []byte) *item {
		return &item{mac: mac,
			seg: wire.Segment{Seq: seq, Ack: ack, Flags: flags | wire.ACK, Window: 256, Payload: p}}
	}
	items := []*item{
		{mac: clientMAC, arp: &arp{1, client.Addr(), clientMAC, dvipa.Addr()}},
		{mac: routerMAC, arp: &arp{2, dvipa.Addr(), routerMAC, client.Addr()}},
		{mac: clientMAC, toServer: true, seg: wire.Segment{Seq: irs, Flags: wire.SYN, Window: 64240, Options: offer}},
		fromServer(routerMAC, wire.SYN, iss, a, nil),
		fromClient(0, a, c, nil),
		fromClient(wire.PSH, a, c, first),
		fromServer(routerMAC, 0, c, b, nil),
		fromClient(wire.PSH, b, c, second),
		fromServer(targetMAC, 0, c, e, answer[:cut]),
		fromServer(targetMAC, wire.PSH, d, e, answer[cut:]),
		fromClient(0, e, f, nil),
		fromClient(wire.FIN, e, f, nil),
		fromServer(targetMAC, wire.FIN, f, e.Add(1), nil),
		fromClient(0, e.Add(1), f.Add(1), nil),
	}
	items[synAck].seg.Options = offer
	items[synAck].seg.Window = 32768
	stamp(items)
	return items
}

// stamp gives each item its time and, from the client's and the service's clock, its timestamps.
func stamp(items []*item) {
	var last [2]uint32 // TSval last sent by service, client
	for i, it := range items {
		it.at = time.Duration(i) * time.Millisecond
		if it.arp != nil {
			continue
		}
		me, peer := 0, 1
		if it.toServer {
			me, peer = 1, 0
		}
		o := &it.seg.Options
		o.HasTimestamps, o.TSVal, o.TSEcr = true, uint32(1000*me+1000+i), last[peer]
		last[me] = o.TSVal
	}
}

// again returns a copy of item i that comes 1 ms after item j, to be inserted there.
func again(items []*item, i, j int) *item {
	c := *items[i]
	c.at = items[j].at + time.Millisecond/2
	c.seg.Options.TSVal, c.seg.Options.TSEcr = newest(items, j, c.toServer)
	return &c
}

// newest returns the TSval that an end sent last, up to item j, and the one that it saw last.
func newest(items []*item, j int, toServer bool) (val, ecr uint32) {
	for _, it := range items[:j+1] {
		switch {
		case it.arp != nil:
		case it.toServer == toServer:
			val = it.seg.Options.TSVal
		default:
			ecr = it.seg.Options.TSVal
		}
	}
	return val, ecr
}

// after inserts a changed copy of item i behind item j.
func after(items []*item, i, j int, change func(*item)) []*item {
	c := again(items, i, j)
	change(c)
	return slices.Insert(items, j+1, c)
}

func capture(t *testing.T, items []*item) Capture {
	t.Helper()
	var c Capture
	for _, it := range items {
		c.Frames = append(c.Frames, Frame{Time: time.Unix(1700000000, 0).Add(it.at), Data: it.build(t)})
	}
	return c
}

func (it *item) build(t *testing.T) []byte {
	t.Helper()
	var stack []gopacket.SerializableLayer
	if it.arp != nil {
		stack = it.arp.layers(it.mac)
	} else {
		stack = it.layers()
	}
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, stack...); err != nil {
		t.Fatalf("build frame: %v", err)
	}
	frame := slices.Clone(buf.Bytes())
	if it.corrupt {
		frame[len(frame)-1] ^= 0x55
	}
	return frame
}

func (a *arp) layers(mac wire.MAC) []gopacket.SerializableLayer {
	return []gopacket.SerializableLayer{
		&layers.Ethernet{SrcMAC: mac[:], DstMAC: []byte{255, 255, 255, 255, 255, 255}, EthernetType: layers.EthernetTypeARP},
		&layers.ARP{
			AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
			Operation: a.op, SourceHwAddress: a.mac[:], SourceProtAddress: a.sender.AsSlice(),
			DstHwAddress: make([]byte, 6), DstProtAddress: a.target.AsSlice(),
		},
	}
}

func (it *item) layers() []gopacket.SerializableLayer {
	src, dst, to := dvipa, client, clientMAC
	if it.toServer {
		src, dst, to = client, dvipa, routerMAC
	}
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP,
		SrcIP: src.Addr().AsSlice(), DstIP: dst.Addr().AsSlice()}
	if it.fragment {
		ip.Flags = layers.IPv4MoreFragments
	}
	s := it.seg
	tcp := &layers.TCP{
		SrcPort: layers.TCPPort(src.Port()), DstPort: layers.TCPPort(dst.Port()),
		Seq: uint32(s.Seq), Ack: uint32(s.Ack), Window: s.Window, Options: tcpOptions(s.Options),
		FIN: s.Flags.Has(wire.FIN), SYN: s.Flags.Has(wire.SYN), RST: s.Flags.Has(wire.RST),
		PSH: s.Flags.Has(wire.PSH), ACK: s.Flags.Has(wire.ACK),
	}
	_ = tcp.SetNetworkLayerForChecksum(ip) // cannot fail for IPv4
	return []gopacket.SerializableLayer{
		&layers.Ethernet{SrcMAC: it.mac[:], DstMAC: to[:], EthernetType: layers.EthernetTypeIPv4},
		ip, tcp, gopacket.Payload(s.Payload),
	}
}

func tcpOptions(o wire.Options) (list []layers.TCPOption) {
	add := func(kind layers.TCPOptionKind, data []byte) {
		list = append(list, layers.TCPOption{OptionType: kind, OptionLength: uint8(len(data) + 2), OptionData: data})
	}
	if o.MSS != 0 {
		add(layers.TCPOptionKindMSS, binary.BigEndian.AppendUint16(nil, o.MSS))
	}
	if o.HasScale {
		add(layers.TCPOptionKindWindowScale, []byte{o.Scale})
	}
	if o.SACKPermitted {
		add(layers.TCPOptionKindSACKPermitted, nil)
	}
	if o.HasTimestamps {
		add(layers.TCPOptionKindTimestamps, binary.BigEndian.AppendUint32(
			binary.BigEndian.AppendUint32(nil, o.TSVal), o.TSEcr))
	}
	if o.NSACK > 0 {
		var data []byte
		for _, b := range o.SACK[:o.NSACK] {
			data = binary.BigEndian.AppendUint32(data, uint32(b.Left))
			data = binary.BigEndian.AppendUint32(data, uint32(b.Right))
		}
		add(layers.TCPOptionKindSACK, data)
	}
	return list
}
