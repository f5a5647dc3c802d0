package main

// mutant is a bug.
type mutant struct {
	name  string
	edits []edit
}

// edit replaces text that occurs once in a file.
type edit struct{ file, old, new string }

const (
	arrive     = "control/tcp/arrive.go"
	conn       = "control/tcp/conn.go"
	congestion = "control/tcp/congestion.go"
	receive    = "control/tcp/receive.go"
	retransmit = "control/tcp/retransmit.go"
	sack       = "control/tcp/sack.go"
	send       = "control/tcp/send.go"
	timestamps = "control/tcp/timestamps.go"
	export     = "control/tcp/transfer.go"
	codec      = "control/transfer/codec.go"
	giver      = "control/transfer/giver.go"
	taker      = "control/transfer/taker.go"
)

// mutants are the bugs, in the order in which a segment meets them.
var mutants = []mutant{
	{"accept-empty-zero-window", []edit{{arrive, "return seg.Seq == c.rcv.nxt", "return true"}}},
	{"accept-empty", []edit{{arrive, "		return seg.Seq.InWindow(c.rcv.nxt, window)\n",
		"		return seg.Seq.InWindow(c.rcv.nxt, window+1)\n"}}},
	{"accept-text-zero-window", []edit{{arrive, "	case window == 0:\n		return false",
		"	case window == 0:\n		return seg.Seq == c.rcv.nxt"}}},
	{"accept-text-begin", []edit{{arrive, "return seg.Seq.InWindow(c.rcv.nxt, window) ||",
		"return seg.Seq.InWindow(c.rcv.nxt, window+1) ||"}}},
	{"accept-text-end", []edit{{arrive, "seg.Seq.Add(n-1).InWindow", "seg.Seq.Add(n).InWindow"}}},
	{"zero-window-ignores-ack", []edit{{arrive, "case c.rcv.window() == 0 && seg.Seq == c.rcv.nxt:", "case false:"}}},
	{"paws-off", []edit{{timestamps, "case c.recentValid() && beforeTS", "case false && beforeTS"}}},
	{"ts-recent-from-gap", []edit{{timestamps, "o.HasTimestamps && !seg.Seq.After(c.rcv.acked) &&", "o.HasTimestamps &&"}}},
	{"rst-in-window", []edit{{arrive, "	case seg.Seq != c.rcv.nxt:",
		"	case !seg.Seq.InWindow(c.rcv.nxt, c.rcv.window()):"}}},
	{"syn-kills", []edit{{arrive, "	default:\n		c.challenge()\n	}\n	return false\n}\n\n// reopens",
		"	default:\n		c.becomeClosed(ErrReset)\n	}\n	return false\n}\n\n// reopens"}}},
	{"challenge-unlimited", []edit{{arrive, "if !c.challenged.IsZero() && c.now", "if false && c.now"}}},
	{"ack-of-unsent", []edit{{arrive, "-int(c.snd.maxWnd)), c.snd.nxt)", "-int(c.snd.maxWnd)), c.snd.nxt.Add(1))"}}},
	{"window-of-old-segment", []edit{{send, "s.wl1.After(seg.Seq) ||", "false ||"}}},
	{"window-unscaled", []edit{{send, "s.wnd = uint32(seg.Window) << c.sndScale()", "s.wnd = uint32(seg.Window)"}}},
	{"probe-octet-lost", []edit{{send, "		s.rtx = s.una // a probe's octet was dropped\n", ""}}},
	{"early-fin-lost", []edit{{receive, "!end.Before(r.nxt) && r.nothingAfter(end)", "end == r.nxt && r.nothingAfter(end)"}}},
	{"overlap-delivered-twice", []edit{{receive, "text = text[min(old, len(text)):]", "text = text[min(old-1, len(text)):]"}}},
	{"range-not-joined", []edit{{receive, "g.Left == r.nxt", "g.Left == r.nxt && len(r.gaps) == 1"}}},
	{"edge-shrinks", []edit{{receive, "edge := seq.Max(r.edge, r.limit.Add(-int(c.cfg.Window/4)))",
		"edge := r.limit.Add(-int(c.cfg.Window / 4))"}}},
	{"edge-beyond-limit", []edit{{receive, "w := min(up, max(0, r.limit.Sub(r.nxt))>>scale, 0xffff)", "w := min(up, 0xffff)"}}},
	{"tsval-goes-back", []edit{{timestamps, "return laterTS(c.ts.last, c.clock())", "return c.clock()"}}},
	{"karn-forgotten", []edit{{send, "s.stopTiming() // Karn", "// Karn"}}},
	{"no-backoff", []edit{{retransmit, "	s.backoff++\n	s.rtx", "	s.rtx"}}},
	{"two-duplicates-are-a-loss", []edit{{congestion, "const duplicates = 3", "const duplicates = 2"}}},
	{"beyond-clients-window", []edit{{send, "window := int(s.wnd) - offset", "window := int(s.wnd) + 1 - offset"}}},
	{"sacked-sent-again", []edit{{sack, "left = s.held[i-1].Right", "left = s.held[i-1].Left"}}},
	{"fin-acked-too-early", []edit{{send, "s.finAcked = n > text", "s.finAcked = s.closing && n >= text"}}},
	{"sends-while-frozen", []edit{
		{conn, "	case c.frozen: // what is missing", "	case false: // what is missing"},
		{conn, "	if c.frozen {\n		panic(", "	if false {\n		panic("},
	}},
	{"export-stays-owner", []edit{{export, "	c.exported = true\n", ""}}},
	{"export-loses-ranges", []edit{{export, "Early: c.early(),", ""}}},
	{"export-loses-unsent", []edit{{export, "SendData: clone(s.buf),",
		"SendData: clone(s.buf[:min(len(s.buf), s.nxt.Sub(s.una))]),"}}},
	{"export-loses-fin", []edit{{export, "SndFIN: s.closing,", "SndFIN: s.closing && s.nxt != s.una.Add(len(s.buf)),"}}},
	{"export-loses-repetition", []edit{{export, "uint32(s.nxt.Sub(s.rtx))", "0"}}},
	{"export-loses-edge", []edit{{export, "RcvEdge: r.edge,", "RcvEdge: seq.Max(r.nxt, r.edge.Add(-100)),"}}},
	{"export-loses-tsval", []edit{{export, "TSLast: c.ts.last,", "TSLast: c.ts.last - 1000,"}}},
	{"export-loses-timer", []edit{{export, "Retransmit: left(t.retransmit, c.now),", ""}}},
	{"giver-takes-back", []edit{{giver,
		"			g.becomeAborted(Abort{Reset: true,\n				Failure: Failure{Host: g.Host(), Cause: CauseNoAnswer, " +
			"Detail: \"no answer to the commit and the queries\"}})",
		"			g.next(Failure{Host: g.Host(), Cause: CauseNoAnswer, Detail: \"no answer\"}, now)"}}},
	{"giver-believes-silence", []edit{{giver, "		if e.Host == g.Host() {\n			g.becomeQuerying(now)",
		"		if e.Host == g.Host() {\n			g.next(Failure{}, now)"}}},
	{"giver-stays-frozen", []edit{{giver, "	if g.state != GiverIdle {\n		g.do(Thaw{})\n	}\n", ""}}},
	{"query-does-not-fence", []edit{{taker,
		"	if m.Transfer != 0 {\n		t.fence(key{host, m.Transfer}, now)\n	}\n", ""}}},
	{"unknown-while-importing", []edit{{taker, "	return FlowReserved\n", "	return FlowUnknown\n"}}},
	{"commit-without-reservation", []edit{{taker,
		"		t.refuse(e, ReasonReservation, \"commit before the offer was accepted\", now)\n	case takerReserved:",
		"		t.become(e, takerReserved, now.Add(e.reserve))\n		t.begin(e, m, now)\n	case takerReserved:"}}},
	{"restart-forgets-flows", []edit{{taker, "	for _, f := range ended {\n		t.seen(f.Inc, f.Epoch)",
		"	for _, f := range ended[:0] {\n		t.seen(f.Inc, f.Epoch)"}}},
	{"codec-swaps-fins", []edit{{codec, "{&r.SndFINFirst, flagSndFINFirst}", "{&r.SndFINFirst, flagSndFIN}"}}},
}
