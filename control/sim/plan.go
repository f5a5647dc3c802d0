package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"baton/fastpath/flow"
	"baton/fastpath/seq"
)

// Plan is all that is decided before a schedule begins. What happens then follows from it and from Seed alone.
type Plan struct {
	Seed   uint64
	Net    Faults        // of the clients' network, both ways
	LAN    Faults        // between routing host and targets
	NetRTT time.Duration // of the clients' network
	Heal   time.Duration // when all faults end
	Hold   flow.HoldMode
	// Unconditional transfers are one message.
	Unconditional bool
	Window        uint32 // W
	Targets       int
	Clients       []ClientPlan
	Acts          []Act // at their times
	Triggers      []Trigger

	RingFull float64       // probability that a command finds the forwarder's ring full
	Stall    float64       // probability that the router is late for a turn
	Reject   float64       // probability that a target rejects an offer
	NoImport float64       // probability that an import comes to nothing
	Check    time.Duration // longest check of an offer
	Import   time.Duration // longest import
	Repeat   float64       // probability that a message between hosts is repeated
	Move     float64       // probability that a socket moves on, at a segment or a deadline
	Give     float64       // probability that an application gives its connection away, at a segment or a deadline
	AutoACK  bool          // of the targets' sockets
	Announce bool          // an imported connection begins with an ACK
	Skew     time.Duration // of the targets' clocks, at most, either way

	bug bug
}

// ClientPlan is one client and what it wants; and what the application that serves it will do.
type ClientPlan struct {
	Service    int // index into services
	Port       uint16
	Start      time.Duration
	ISN        seq.Value
	MSS        uint16
	Path       int // MTU of its network, octets of IP
	Timestamps bool
	SACK       bool
	Scale      int           // -1: no scaling
	Buffer     int           // receive buffer, octets
	ReadEvery  time.Duration // 0: at once
	ReadChunk  int           // octets a read
	DelayedACK bool

	Request   string
	Pieces    []Piece       // how Request is written
	HalfClose bool          // shut down writing after the request
	HangUp    bool          // close as soon as the response is complete, before the server does
	ResetAt   time.Duration // after Start; 0: never
	ResetSoon bool          // RST right after the request
	Again     bool          // when it is over, the same port connects again

	Response  int           // octets
	Early     bool          // the application answers before it has read everything
	AppEvery  time.Duration // between two reads of the application; 0: at once
	AppChunk  int           // octets that it writes at a time
	AppCloses bool          // after the response; else it waits for the client
	AppHalf   bool          // and goes on reading then
}

// Piece is a part of the request that is written at once.
type Piece struct {
	Size  int
	After time.Duration // the piece before
	Wait  int           // octets that must have been received first
}

// ActKind is a disturbance.
type ActKind uint8

// The disturbances.
const (
	BreakStream    ActKind = iota // the stream to a target ends; both sides notice soon
	CutStream                     // nothing passes on the stream; both sides notice late
	CutClient                     // a client's network is gone for a while
	CutTarget                     // a target's data network is gone for a while
	ShrinkPath                    // large frames do not pass for a while
	PauseHost                     // the routing host stands still
	StallRouter                   // its router does, the forwarder goes on
	StallForwarder                // its forwarder does, the router goes on
	PauseTarget                   // a target host stands still
	CrashAgent                    // a target's agent restarts; its kernel goes on
	CrashTarget                   // a target host restarts
	ResetClient                   // a client sends RST
	FinishClient                  // a client sends FIN
	SynClient                     // a blind SYN for a client's tuple
	ProbeClient                   // a client's keep-alive probe
	RestartClient                 // a client forgets its connection and begins anew, if its plan has another
	ForgeReset                    // somebody guesses a RST that lies in the window, but is not the next octet
	ForgeOld                      // octets of nobody come with a timestamp of long ago
	ForgeACK                      // somebody acknowledges what was never sent
	actKinds
)

var actNames = [actKinds]string{"break stream", "cut stream", "cut client", "cut target", "shrink path", "pause host",
	"stall router", "stall forwarder", "pause target", "crash agent", "crash target", "reset client", "finish client",
	"blind SYN", "keep-alive probe", "restart client", "forged RST", "old octets", "forged ACK"}

// Subject stands for the client or the target that a trigger is about.
const Subject = -1

// Act is one disturbance. At is meaningful in Plan.Acts only.
type Act struct {
	Kind           ActKind
	At, For        time.Duration
	Client, Target int // index, or Subject
}

// Point is a moment of a transfer.
type Point uint8

// The points.
const (
	AtFreeze  Point = iota // the router freezes the flow
	AtOffer                // it sends an offer
	AtAccept               // a target accepts it
	AtCommit               // the router sends the commit
	AtImport               // the target begins to import
	AtConfirm              // it confirms
	AtSwitch               // the router switches the flow
	points
)

// Trigger does something at the nth time (from 0) that a point is passed.
type Trigger struct {
	Point Point
	Nth   int
	After time.Duration // 0: before the point's own message leaves
	Act   Act
}

// PlanFor makes the plan of a seed.
func PlanFor(seed uint64) *Plan {
	g := planner{rand.New(rand.NewPCG(seed, 0x706c616e))}
	p := &Plan{
		Seed: seed, Net: g.faults(), LAN: g.lan(), NetRTT: g.between(time.Millisecond, 60*time.Millisecond),
		Heal: g.between(4*time.Second, 12*time.Second), Window: []uint32{8192, 16384, 32768, 65536}[g.r.IntN(4)],
		Targets: 1 + g.r.IntN(3),
		Check:   g.between(0, 5*time.Millisecond), Import: g.between(0, 5*time.Millisecond),
	}
	if g.one(2) {
		p.Hold = flow.HoldDiscard
	}
	p.Unconditional = g.one(4)
	for i := range 3 + g.r.IntN(4) {
		p.Clients = append(p.Clients, g.client(i, p))
	}
	g.trouble(p)
	return p
}

// planner makes choices.
type planner struct{ r *rand.Rand }

// one is true in one of n cases.
func (g planner) one(n int) bool { return g.r.IntN(n) == 0 }

func (g planner) between(low, high time.Duration) time.Duration {
	return low + time.Duration(g.r.Int64N(int64(high-low)))
}

// faults picks what a client's network does wrong: often nothing, sometimes much.
func (g planner) faults() Faults {
	rate := func() float64 {
		if !g.one(3) {
			return 0
		}
		return []float64{0.002, 0.01, 0.03, 0.1}[g.r.IntN(4)]
	}
	return Faults{Loss: rate(), Duplicate: rate(), Reorder: rate(), Corrupt: rate() / 2, Spike: rate() / 4}
}

func (g planner) lan() Faults {
	if !g.one(4) {
		return Faults{}
	}
	return Faults{Loss: 0.01, Duplicate: 0.005, Reorder: 0.01, Corrupt: 0.002}
}

// trouble adds disturbances, by the clock and at the points of transfers.
func (g planner) trouble(p *Plan) {
	for range g.r.IntN(3) {
		a := g.disturbance()
		a.At = g.between(0, p.Heal)
		a.Client, a.Target = g.r.IntN(len(p.Clients)), g.r.IntN(p.Targets)
		p.Acts = append(p.Acts, a)
	}
	for range g.r.IntN(3) {
		t := Trigger{Point: Point(g.r.IntN(int(points))), Nth: g.r.IntN(3), Act: g.disturbance()}
		t.Act.Client, t.Act.Target = Subject, Subject
		if g.one(2) {
			t.After = g.between(0, 20*time.Millisecond)
		}
		p.Triggers = append(p.Triggers, t)
	}
	if g.one(16) {
		p.Triggers = append(p.Triggers, Trigger{Point: AtFreeze, Nth: g.r.IntN(2), Act: Act{Kind: StallForwarder,
			For: g.between(200*time.Millisecond, 3*time.Second), Client: Subject, Target: Subject}})
	}
	rare := func(n int, v *float64, p float64) {
		if g.one(n) {
			*v = p
		}
	}
	rare(6, &p.RingFull, 0.05)
	rare(4, &p.Stall, 0.05)
	rare(4, &p.Reject, 0.3)
	rare(5, &p.NoImport, 0.3)
	rare(6, &p.Repeat, 0.3)
	rare(3, &p.Move, 0.1)
	p.AutoACK, p.Announce = g.one(2), g.one(2)
	if g.one(8) {
		p.Check = g.between(0, 400*time.Millisecond)
	}
	if g.one(6) {
		p.Import = g.between(0, 4*time.Second)
		if g.one(2) { // clients that come again meanwhile
			p.Triggers = append(p.Triggers, Trigger{Point: AtCommit, Nth: g.r.IntN(2), After: g.between(0, 20*time.Millisecond),
				Act: Act{Kind: RestartClient, Client: Subject, Target: Subject}})
		}
	}
	if g.one(3) {
		p.Skew = g.between(0, 3*time.Second)
	}
	rare(3, &p.Give, 0.1)
}

// disturbance picks one; crashes are rare, because little can be asked of a schedule after one.
func (g planner) disturbance() Act {
	kind := ActKind(g.r.IntN(int(actKinds)))
	if kind == CrashTarget && !g.one(3) {
		kind = CrashAgent
	}
	return Act{Kind: kind, For: g.between(time.Millisecond, []time.Duration{50 * time.Millisecond, time.Second,
		4 * time.Second}[g.r.IntN(3)])}
}

// client makes one client.
func (g planner) client(i int, p *Plan) ClientPlan {
	c := ClientPlan{
		Service: []int{0, 0, 1, 2, 3}[g.r.IntN(5)], Port: uint16(20000 + 100*i + g.r.IntN(100)),
		Start: g.between(0, 2*time.Second), ISN: seq.Value(g.r.Uint32()),
		Path: []int{1500, 1500, 1400, 1280}[g.r.IntN(4)], Timestamps: !g.one(4), SACK: !g.one(4),
		Scale: g.r.IntN(10) - 1, Buffer: 4096 << g.r.IntN(5), DelayedACK: g.one(2), ReadChunk: 1 << 20,
		HalfClose: g.one(5), HangUp: g.one(4), Again: g.one(2),
		Response: g.r.IntN(40 << 10), Early: g.one(6), AppChunk: 200 + g.r.IntN(8000), AppCloses: !g.one(3), AppHalf: g.one(3),
	}
	if g.one(4) {
		c.ISN = seq.Value(0).Add(-g.r.IntN(3000)) // soon wraps
	}
	if g.one(4) {
		c.Response += g.r.IntN(100 << 10)
	}
	c.MSS = uint16(c.Path - 40 - 20*services[c.Service].v6())
	switch {
	case g.one(8):
		c.MSS = max(536, c.MSS/2)
	case g.one(16):
		c.MSS = uint16(88 + g.r.IntN(448))
		c.Response /= 10
	}
	if g.one(4) {
		c.ReadEvery, c.ReadChunk = g.between(time.Millisecond, 100*time.Millisecond), 1500+g.r.IntN(6000)
	}
	if g.one(4) {
		c.AppEvery = g.between(time.Millisecond, 200*time.Millisecond)
	}
	if g.one(12) {
		c.ResetAt = g.between(time.Millisecond, time.Second)
	}
	if g.one(10) {
		c.ResetSoon, c.Again = true, c.Again || g.one(2)
	}
	g.request(&c, p)
	return c
}

// request makes what the client says and how.
func (g planner) request(c *ClientPlan, p *Plan) {
	job := []string{"web", "web", "web", "web", "solo", "void", "nowhere"}[g.r.IntN(7)]
	if s := services[c.Service]; s.talks {
		c.Request, c.Pieces = talk(s.first, job, g.r.IntN(4))
		if g.one(4) { // does not wait for the greetings
			for i := range c.Pieces {
				c.Pieces[i].Wait = 0
			}
		}
		g.body(c, "")
		return
	}
	head := "GET / HTTP/1.1\r\nHost: " + job + ".example\r\n"
	if g.one(25) {
		head = "GET  / HTTP/1.1\r\nHost: bad\r\n"
	}
	if g.one(3) {
		head += "X-Pad: " + strings.Repeat("p", g.r.IntN(int(p.Window)/4)) + "\r\n"
	}
	g.body(c, head)
	if g.one(25) {
		c.Request = c.Request[:1+g.r.IntN(len(c.Request)-1)] // never finishes: 408, or it hangs up
		c.Pieces = []Piece{{Size: len(c.Request)}}
	}
}

// body adds an upload to some requests, and cuts the request into pieces.
func (g planner) body(c *ClientPlan, head string) {
	n := 0
	if g.one(3) {
		n = g.r.IntN(40 << 10)
	}
	if head != "" {
		if n > 0 {
			head += fmt.Sprintf("Content-Length: %d\r\n", n)
			head = strings.Replace(head, "GET", "POST", 1)
		}
		head += "\r\n"
	}
	from := len(c.Request)
	c.Request += head + upload(n)
	left := len(c.Request) - from
	if g.one(3) {
		for left > 1 && len(c.Pieces) < 12 {
			n := 1 + g.r.IntN(left)
			c.Pieces = append(c.Pieces, Piece{Size: n, After: g.between(0, 300*time.Millisecond)})
			left -= n
		}
	}
	if left > 0 {
		c.Pieces = append(c.Pieces, Piece{Size: left})
	}
}

// upload is n octets of which no two neighbourhoods look alike.
func upload(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('a' + (i^i>>8^i>>3)%26)
	}
	return string(b)
}
