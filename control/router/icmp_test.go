package router

import (
	"testing"

	"baton/fastpath/flow"
	"baton/fastpath/seq"
	"baton/fastpath/wire"
)

// tooBig is an error about the segment at that sequence number of the service's stream: packets may have 68 octets.
func (c *client) tooBig(at seq.Value) []byte {
	e := wire.ICMPError{Tuple: c.inc.Tuple, Type: 3, Code: 4, MTU: 68}
	quoted := wire.AppendTCP(nil, wire.Link{}, service, c.addr, wire.Segment{Seq: at, Flags: wire.ACK})[14:]
	return wire.AppendICMPError(nil, wire.Link{Dst: portMAC, Src: clientMAC}, hostAddr["t1"], e, quoted[:28])
}

func (w *world) icmp(id flow.ID, frame []byte) {
	w.plane.punts = append(w.plane.punts, flow.Punt{Kind: flow.ICMP, Flow: id, Frame: frame})
	w.run()
}

// TestPacketTooBigMakesTheAnswersSegmentsSmaller has a path that takes less than the answer's first segment.
func TestPacketTooBigMakesTheAnswersSegmentsSmaller(t *testing.T) {
	w := newWorld(t)
	c := w.ask("nobody.example") // 404, not acknowledged
	first, before := c.inc.ISS.Add(1), c.frames
	w.icmp(c.flow, c.tooBig(first.Add(len(c.got)+1000)))
	if c.frames != before {
		t.Fatal("an error about nothing under way changed something")
	}
	w.icmp(c.flow, c.tooBig(first)) // 28 octets of data
	if got, want := c.frames-before, (len(c.got)+27)/28; got < want {
		t.Errorf("sent %d segments, want %d or more of at most 28 octets", got, want)
	}
	if got := w.router.count.ICMPErrors; got != 2 {
		t.Errorf("counted %d errors, want 2", got)
	}
}

func TestICMPErrorsOfNoConnectionChangeNothing(t *testing.T) {
	w := newWorld(t)
	c := w.ask("nobody.example")
	before := c.frames
	w.icmp(c.flow+7, c.tooBig(c.inc.ISS.Add(1))) // a flow that has ended
	w.icmp(c.flow, []byte("nonsense"))
	other := w.connect(4001)
	w.icmp(c.flow, other.tooBig(c.inc.ISS.Add(1)))
	if c.frames != before || w.router.count.ICMPErrors != 0 || w.router.count.BadFrames != 2 {
		t.Errorf("%d segments, counts %+v", c.frames-before, w.router.count)
	}
}
