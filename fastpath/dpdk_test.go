//go:build dpdk

package fastpath

import (
	"os"
	"strings"
	"testing"
	"time"

	"baton/fastpath/flow"
	"baton/fastpath/wire"
)

// TestDPDKPort runs the loop on an EAL lcore over a ring that gives back what was sent. DPDK starts once per process,
// so this is one test.
func TestDPDKPort(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("DPDK needs root")
	}
	f, err := Open(Config{
		Ports:     []PortConfig{{Device: "net_ring0", Address: portAddr}},
		Services:  []Service{{ID: 7, Addr: service4, OwnMSS: 1460, Window: window, Scale: 7}},
		Hugepages: HugepagesNever,
		MemoryMB:  96,
		// The ring has none, which must not matter.
		Interrupts: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.NoInterrupts() != "net_ring0" {
		t.Errorf("without interrupts: %q", f.NoInterrupts())
	}
	if err := f.Start(); err != nil {
		t.Fatal(err)
	}
	mac, _ := f.Port(0)
	r := &rig{Forwarder: f, t: t, mac: mac}
	target := portAddr.Addr().Next()
	r.must(f.Transmit(0, wire.AppendARP(nil, wire.ARP{Op: wire.ARPReply, SenderMAC: targetMACs[1], SenderIP: target,
		TargetMAC: mac, TargetIP: portAddr.Addr()})))
	if p := receiveOne(t, f); p.Kind != flow.Neighbour || p.Addr != target || p.MAC != targetMACs[1] {
		t.Errorf("punt %+v", p)
	}
	r.must(f.Transmit(0, echo4(r, "10.77.0.10", nil, "abc")))
	waitFor(t, func() bool { return r.count("packets", "echo_replies") == 1 })
	waitFor(t, func() bool { return r.count("drops", "not_ours") == 1 }) // the reply comes round
	r.must(f.Transmit(0, r.peer(client4, 5).syn()))
	waitFor(t, func() bool { return r.count("handshakes", "answered") == 1 })
	checkDriver(t, f.Ports()[0])

	if _, err := Open(f.config); err == nil || !strings.Contains(err.Error(), "once") {
		t.Errorf("a second DPDK forwarder: %v", err)
	}
}

func checkDriver(t *testing.T, p PortInfo) {
	t.Helper()
	if p.Driver != "net_ring" || !p.Up || p.FrameMax < 1514 {
		t.Errorf("port %+v", p)
	}
	if p.Stats["rx_packets"] < 4 || p.TxPackets < 4 {
		t.Errorf("counted %d received by the driver, %d sent", p.Stats["rx_packets"], p.TxPackets)
	}
}

func receiveOne(t *testing.T, f *Forwarder) flow.Punt {
	t.Helper()
	var punts [1]flow.Punt
	waitFor(t, func() bool {
		f.Wait(10 * time.Millisecond)
		return f.Receive(punts[:]) == 1
	})
	return punts[0]
}
