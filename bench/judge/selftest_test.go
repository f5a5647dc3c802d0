package judge

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// expectation is what holds for every built capture.
func expectation() Expectation {
	return Expectation{
		DVIPA: dvipa.Addr(), Owner: routerMAC, Targets: []wire.MAC{targetMAC, otherMAC},
		Streams: map[netip.AddrPort][]Stream{client: {{
			Sent: DigestOf(slices.Concat(first, second)), Received: DigestOf(answer),
		}}},
	}
}

// broken is a capture that breaks exactly one rule.
type broken struct {
	rule   Rule
	how    string
	items  func([]*item) []*item
	expect func(*Expectation)
	lost   int
}

// edit changes items of the clean capture in place.
func edit(change func([]*item)) func([]*item) []*item {
	return func(items []*item) []*item { change(items); return items }
}

// insert puts a changed copy of item i behind item j.
func insert(i, j int, change func(*item)) func([]*item) []*item {
	return func(items []*item) []*item { return after(items, i, j, change) }
}

var selftests = []broken{
	{rule: CaptureLost, how: "one frame was not stored", lost: 1},
	{rule: WellFormed, how: "a fragment", items: insert(lastAck, lastAck, func(it *item) { it.fragment = true })},
	{rule: Checksum, how: "a damaged octet", items: insert(firstData, firstData, func(it *item) { it.corrupt = true })},

	{rule: OneHandshake, how: "a second SYN-ACK with another ISS",
		items: insert(synAck, synAck, func(it *item) { it.seg.Seq++ })},
	{rule: OneHandshake, how: "a segment of the service without a handshake",
		items: func([]*item) []*item {
			return []*item{{mac: routerMAC, seg: wire.Segment{Seq: 1, Ack: 1, Flags: wire.ACK}}}
		}, expect: func(e *Expectation) { e.Streams = nil }},
	{rule: OneHandshake, how: "a connection that only the application knows", expect: func(e *Expectation) {
		e.Streams[netip.MustParseAddrPort("10.77.0.100:40001")] = []Stream{{}}
	}},

	{rule: NoRST, how: "RST from the target",
		items: insert(lastAck, lastAck, func(it *item) {
			it.toServer, it.mac, it.seg.Flags, it.seg.Options = false, targetMAC, wire.RST, wire.Options{}
		})},
	{rule: NoRST, how: "RST from the client",
		items: insert(lastAck, lastAck, func(it *item) { it.seg.Flags = wire.RST | wire.ACK })},

	{rule: StreamToServer, how: "repeated octets differ",
		items: insert(firstData, firstData, func(it *item) { it.seg.Payload = []byte("PUT / HTTP/1.1\r\n") })},
	{rule: StreamToServer, how: "the application sent something else",
		expect: func(e *Expectation) { e.Streams[client][0].Sent = DigestOf([]byte("GET")) }},
	{rule: StreamToServer, how: "octets after the FIN", items: insert(clientFin, clientFin, func(it *item) {
		it.seg.Flags, it.seg.Payload = wire.ACK, second
	})},
	{rule: StreamToClient, how: "repeated octets differ", items: insert(targetData1, targetData1, func(it *item) {
		it.seg.Payload = slices.Clone(it.seg.Payload)
		it.seg.Payload[3] ^= 1
	})},
	{rule: StreamToClient, how: "octets missing in the middle", items: func(items []*item) []*item {
		return slices.Delete(items, targetData1, targetData1+1)
	}},
	{rule: StreamToClient, how: "the application received something else",
		expect: func(e *Expectation) { e.Streams[client][0].Received = DigestOf(answer[1:]) }},

	{rule: RightEdgeMonotone, how: "the target announces less than the router",
		items: edit(func(items []*item) {
			for _, it := range items[targetData1:] {
				if !it.toServer {
					it.seg.Window = 200
				}
			}
		})},
	{rule: AckMonotone, how: "the target acknowledges less than the router",
		items: insert(targetData1, targetData1, func(it *item) {
			it.seg.Ack, it.seg.Payload = irs.Add(1), nil
		})},
	{rule: AckOfSent, how: "the router acknowledges octets to come",
		items: insert(routerAck, routerAck, func(it *item) { it.seg.Ack++ })},
	{rule: TSvalMonotone, how: "the target's clock is behind the router's",
		items: insert(targetData2, targetData2, func(it *item) { it.seg.Options.TSVal = 1001 })},
	{rule: TSecrSeen, how: "the target echoes what it was never sent",
		items: insert(targetData2, targetData2, func(it *item) { it.seg.Options.TSEcr++ })},

	{rule: WindowRespected, how: "the client sends beyond the right edge", items: edit(func(items []*item) {
		items[synAck].seg.Window, items[routerAck].seg.Window = uint16(len(first)), 0
	})},
	{rule: WindowRespected, how: "a window is scaled although the client did not offer it",
		items: edit(func(items []*item) {
			items[syn].seg.Options.HasScale, items[synAck].seg.Options.HasScale = false, false
			items[synAck].seg.Window = 10
			items[routerAck].seg.Window = 30
		})},
	{rule: MSSRespected, how: "payload and options exceed the MSS",
		items: edit(func(items []*item) { items[synAck].seg.Options.MSS = uint16(len(second) + 11) })},

	{rule: OptionsNegotiated, how: "timestamps left out",
		items: insert(targetData2, targetData2, func(it *item) { it.seg.Options.HasTimestamps = false })},
	{rule: OptionsNegotiated, how: "timestamps not negotiated",
		items: edit(func(items []*item) {
			items[syn].seg.Options.HasTimestamps, items[synAck].seg.Options.HasTimestamps = false, false
		})},
	{rule: OptionsNegotiated, how: "SYN-ACK offers SACK unasked",
		items: edit(func(items []*item) { items[syn].seg.Options.SACKPermitted = false })},
	{rule: OptionsNegotiated, how: "SACK blocks not negotiated", items: func(items []*item) []*item {
		items[synAck].seg.Options.SACKPermitted = false
		return after(items, clientAck, clientAck, sackBlock(iss.Add(1), iss.Add(2)))
	}},
	{rule: OptionsNegotiated, how: "window scale on a segment without SYN",
		items: insert(routerAck, routerAck, func(it *item) { it.seg.Options.HasScale = true })},

	{rule: SACKBlocksValid, how: "octets that were never sent",
		items: insert(clientAck, clientAck, sackBlock(iss.Add(1+len(answer)), iss.Add(5+len(answer))))},
	{rule: SACKBlocksValid, how: "left edge after the right one",
		items: insert(clientAck, clientAck, sackBlock(iss.Add(9), iss.Add(3)))},
	{rule: SACKBlocksValid, how: "second block below the ACK", items: insert(clientAck, clientAck, func(it *item) {
		sackBlock(iss.Add(1), iss.Add(2))(it)
		it.seg.Options.SACK[1], it.seg.Options.NSACK = it.seg.Options.SACK[0], 2
	})},

	{rule: OneOwner, how: "the router sends after the target",
		items: insert(targetData2, targetData2, func(it *item) { it.mac = routerMAC })},
	{rule: OneOwner, how: "two targets", items: insert(targetData2, targetData2, func(it *item) { it.mac = otherMAC })},
	{rule: OneOwner, how: "a target answers the SYN",
		items: insert(synAck, syn, func(it *item) { it.mac = targetMAC }), expect: nil},
	{rule: OneOwner, how: "taken over by a stranger",
		expect: func(e *Expectation) { e.Targets = []wire.MAC{otherMAC} }},

	{rule: ARPOwner, how: "a target answers who-has DVIPA", items: insert(arpReply, arpReply, func(it *item) {
		it.mac, it.arp = targetMAC, &arp{2, dvipa.Addr(), targetMAC, client.Addr()}
	})},
	{rule: ARPOwner, how: "a target asks in the DVIPA's name", items: insert(arpReply, arpReply, func(it *item) {
		it.mac, it.arp = targetMAC, &arp{1, dvipa.Addr(), targetMAC, client.Addr()}
	})},
}

func sackBlock(left, right seq.Value) func(*item) {
	return func(it *item) { it.seg.Options.SACK[0], it.seg.Options.NSACK = wire.Block{Left: left, Right: right}, 1 }
}

// TestSelftest shows for each rule captures that break it and nothing else, and one that breaks none. Run with -v it
// prints a line per capture.
func TestSelftest(t *testing.T) {
	t.Run("clean", func(t *testing.T) {
		r := Judge(capture(t, clean()), expectation())
		for _, v := range r.Violations {
			t.Errorf("clean capture: %v", v)
		}
		show("clean", r.Summary())
	})
	tested := map[Rule]bool{}
	for _, b := range selftests {
		tested[b.rule] = true
		t.Run(string(b.rule)+"/"+b.how, func(t *testing.T) { b.run(t) })
	}
	for _, r := range Rules {
		if !tested[r] {
			t.Errorf("no capture breaks %s", r)
		}
	}
}

func (b broken) run(t *testing.T) {
	items, expect := clean(), expectation()
	if b.items != nil {
		items = b.items(items)
	}
	if b.expect != nil {
		b.expect(&expect)
	}
	c := capture(t, items)
	c.Lost = b.lost
	r := Judge(c, expect)
	if r.Pass() {
		t.Fatalf("passed, want %s", b.rule)
	}
	for _, v := range r.Violations {
		if v.Rule != b.rule {
			t.Errorf("breaks %v, want only %s", v, b.rule)
		}
	}
	if !t.Failed() {
		show(b.rule, b.how+": "+r.Violations[0].Detail)
	}
}

// show prints what one built capture showed, for people who run the selftest with -v.
func show(rule Rule, shown string) {
	if testing.Verbose() {
		fmt.Printf("ok    %-20s %s\n", rule, shown)
	}
}
