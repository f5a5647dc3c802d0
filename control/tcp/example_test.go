package tcp_test

import (
	"fmt"
	"net/netip"
	"time"

	"baton/control/tcp"
	"baton/fastpath/wire"
)

// A request arrives, decides where the connection belongs, and is handed over before it was acknowledged.
func Example() {
	now := time.Unix(1_800_000_000, 0)
	inc := wire.Incarnation{IRS: 1000, ISS: 5000}
	inc.Client = netip.MustParseAddrPort("192.0.2.1:40000")
	inc.Service = netip.MustParseAddrPort("192.0.2.10:80")
	conn := tcp.Accept(tcp.Config{
		Inc:       inc,
		Handshake: wire.Handshake{MSS: 1460, OwnMSS: 1460, Scaling: true, SndScale: 7, RcvScale: 7, SACK: true},
		Window:    32768, Announced: tcp.FirstWindow(32768, 7),
	}, now)

	actions := conn.Segment(wire.Segment{
		Seq: 1001, Ack: 5001, Flags: wire.ACK | wire.PSH, Window: 502, Payload: []byte("GET / HTTP/1.1\r\n\r\n"),
	}, now)
	fmt.Printf("%d segments to send, holding %q\n", len(actions.Segments), conn.Peek())

	conn.Freeze()
	rec, err := conn.ExportPlain("web", 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("for %s: %d octets, %d of them acknowledged\n", rec.Job, len(rec.Data), rec.RcvAcked.Sub(rec.ReadFrom))
	// Output:
	// 0 segments to send, holding "GET / HTTP/1.1\r\n\r\n"
	// for web: 18 octets, 0 of them acknowledged
}
