package wire_test

import (
	"fmt"
	"net/netip"

	"baton/fastpath/wire"
)

func ExampleParseTCP() {
	client, service := netip.MustParseAddrPort("192.0.2.1:40000"), netip.MustParseAddrPort("192.0.2.10:80")
	buf := wire.AppendTCP(nil, wire.Link{}, client, service, wire.Segment{
		Seq: 1001, Ack: 5001, Flags: wire.ACK | wire.PSH, Window: 502, Payload: []byte("GET / HTTP/1.1\r\n"),
	})
	frame, err := wire.ParseTCP(buf)
	fmt.Println(frame.Src, frame.Dst, frame.Segment.Flags, len(frame.Segment.Payload), err)
	// Output: 192.0.2.1:40000 192.0.2.10:80 P. 16 <nil>
}
