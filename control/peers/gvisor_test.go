package peers

import (
	"context"
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"baton/fastpath/wire"
)

// netstack is gVisor's TCP with one interface, which has no Ethernet header.
type netstack struct {
	stack *stack.Stack
	link  *channel.Endpoint
}

const nic = 1

func startNetstack(t *testing.T, j job, out func([]byte)) peer {
	mtu := 1500
	if j.mtu > 0 {
		mtu = j.mtu
	}
	if j.mss > 0 {
		mtu = j.mss + 40
	}
	n := &netstack{
		stack: stack.New(stack.Options{
			NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol},
			TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
		}),
		link: channel.New(4096, uint32(mtu), ""),
	}
	sack := tcpip.TCPSACKEnabled(true)
	must(t, n.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &sack))
	must(t, n.stack.CreateNIC(nic, n.link))
	addr := tcpip.AddrFrom4(clientAddr.As4())
	must(t, n.stack.AddProtocolAddress(nic, tcpip.ProtocolAddress{
		Protocol: ipv4.ProtocolNumber, AddressWithPrefix: addr.WithPrefix(),
	}, stack.AddressProperties{}))
	n.stack.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nic}})
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		n.pump(ctx, out)
	}()
	t.Cleanup(func() {
		cancel()
		<-stopped
		n.stack.Destroy()
	})
	return n
}

func must(t *testing.T, err tcpip.Error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pump carries what netstack sends, with the Ethernet header that it does without.
func (n *netstack) pump(ctx context.Context, out func([]byte)) {
	header := append(append(append([]byte(nil), serverMAC[:]...), clientMAC[:]...), 0x08, 0x00)
	for {
		p := n.link.ReadContext(ctx)
		if p == nil {
			return
		}
		out(append(header[:14:14], p.ToView().AsSlice()...))
		p.DecRef()
	}
}

func (n *netstack) frame(f []byte) {
	_, _, payload, err := wire.ParseEthernet(f)
	if err != nil {
		return
	}
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(payload)})
	n.link.InjectInbound(ipv4.ProtocolNumber, p)
	p.DecRef()
}

func (n *netstack) dial() (client, error) {
	to := tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom4(serverAddr.Addr().As4()), Port: serverAddr.Port()}
	return gonet.DialTCP(n.stack, to, ipv4.ProtocolNumber)
}

func TestNetstack(t *testing.T) {
	for _, j := range jobs {
		t.Run(j.name, func(t *testing.T) {
			t.Parallel()
			converse(t, j, startNetstack)
		})
	}
}
