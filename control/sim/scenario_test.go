package sim

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"baton/fastpath/flow"
	"baton/fastpath/seq"
)

var update = flag.Bool("update", false, "write the transcripts of the scenarios anew")

// scenario is a schedule with a name, whose transcript is kept for people to read.
type scenario struct {
	name string
	why  string // what it shows, the first line of the transcript
	plan func(p *Plan, c *ClientPlan)
	want string   // outcome of the client's connection
	has  []string // lines that the transcript must have, in this order
	not  []string // what no line may have
}

// calm is a plan in which nothing goes wrong: one client, one request, one response.
func calm() *Plan {
	c := ClientPlan{Port: 40000, Start: 100 * time.Millisecond, ISN: 1000, MSS: 1460, Path: 1500, Timestamps: true, SACK: true,
		Scale: 7, Buffer: 65536, ReadChunk: 1 << 20, Response: 12_000, AppChunk: 4000, AppCloses: true}
	c.asks("GET / HTTP/1.1\r\nHost: web.example\r\n\r\n")
	return &Plan{Seed: 1, NetRTT: 10 * time.Millisecond, Heal: 30 * time.Second, Window: 16384, Targets: 2, AutoACK: true,
		Check: 100 * time.Microsecond, Import: 100 * time.Microsecond, Clients: []ClientPlan{c}}
}

// asks sets what the client writes, at once.
func (c *ClientPlan) asks(request string) {
	c.Request, c.Pieces = request, []Piece{{Size: len(request)}}
}

// uploads makes the request a POST whose body comes in two parts, the second after d.
func (c *ClientPlan) uploads(n int, d time.Duration) {
	head := fmt.Sprintf("POST / HTTP/1.1\r\nHost: web.example\r\nContent-Length: %d\r\n\r\n", n)
	c.Request = head + upload(n)
	c.Pieces = []Piece{{Size: len(head)}, {Size: n, After: d}}
}

// at does something to the subject when a transfer comes to a point.
func (p *Plan) at(point Point, after time.Duration, kind ActKind, d time.Duration) {
	p.Triggers = append(p.Triggers, Trigger{Point: point, After: after,
		Act: Act{Kind: kind, For: d, Client: Subject, Target: Subject}})
}

// slowly makes transfers take some milliseconds, so that much can happen meanwhile.
func (p *Plan) slowly() { p.Check, p.Import = 40*time.Millisecond, 40*time.Millisecond }

var scenarios = []scenario{
	{
		name: "lossy", why: "one frame in ten is lost, both ways; everything arrives in the end", want: served,
		plan: func(p *Plan, _ *ClientPlan) { p.Net.Loss = 0.1 },
		has:  []string{"lost", "switches to t1", "through: served"},
	},
	{
		name: "reorder", why: "one frame in five is overtaken by others; no octet is out of place", want: served,
		plan: func(p *Plan, c *ClientPlan) { p.Net.Reorder = 0.2; c.uploads(6000, 0) },
		has:  []string{"others overtake", "through: served"},
	},
	{
		name: "duplicate", why: "one frame in three arrives twice; nothing is delivered twice", want: served,
		plan: func(p *Plan, c *ClientPlan) { p.Net.Duplicate = 0.3; c.uploads(6000, 0) },
		has:  []string{"duplicated", "through: served"},
	},
	{
		name: "corrupt", why: "one frame in ten has a wrong bit; checksums find it, and it is sent again", want: served,
		plan: func(p *Plan, c *ClientPlan) { p.Net.Corrupt = 0.1; c.uploads(6000, 0) },
		has:  []string{"corrupted", "through: served"},
	},
	{
		name: "freeze-discard", why: "what the client sends during the freeze is dropped; it repeats it", want: served,
		plan: func(p *Plan, c *ClientPlan) {
			p.Hold = flow.HoldDiscard
			p.slowly()
			c.uploads(3000, 2*time.Millisecond)
		},
		has: []string{"freezes", "switches to t1", "through: served"},
	},
	{
		name: "freeze-buffer", why: "what the client sends during the freeze is held, and follows to the target: nobody repeats",
		want: served,
		plan: func(p *Plan, c *ClientPlan) {
			p.slowly()
			c.uploads(3000, 2*time.Millisecond)
		},
		has: []string{"freezes", "switches to t1", "through: served"},
	},
	{
		name: "client-rst-during-freeze", why: "the held RST reaches the target, which ends the connection", want: resetByClient,
		plan: func(p *Plan, _ *ClientPlan) { p.slowly(); p.at(AtFreeze, time.Millisecond, ResetClient, 0) },
		has:  []string{"freezes", "[R.]", "switches to t1", "end report", "removes the entry"},
	},
	{
		name: "client-fin-during-freeze", why: "the held FIN reaches the target; the response still comes", want: served,
		plan: func(p *Plan, _ *ClientPlan) { p.slowly(); p.at(AtFreeze, time.Millisecond, FinishClient, 0) },
		has:  []string{"freezes", "[F.]", "switches to t1", "through: served"},
	},
	{
		name: "confirm-lost", why: "the stream breaks with the confirmation on it; the router asks, and learns who is the owner",
		want: served,
		plan: func(p *Plan, _ *ClientPlan) { p.at(AtConfirm, 0, BreakStream, 0) },
		has:  []string{"imports", "stream is lost", "confirmed is lost", "query", "query answered: live", "switches to t1"},
		not:  []string{"thaws"},
	},
	{
		name: "target-pauses-after-commit", want: served,
		why:  "the target stands still with the commit in hand: the router keeps asking, and never takes the connection back",
		plan: func(p *Plan, _ *ClientPlan) { p.at(AtCommit, 0, PauseTarget, 3*time.Second) },
		has:  []string{"commit", "query", "imports", "switches to t1", "through: served"},
		not:  []string{"thaws", "imports 37 octets at 2"},
	},
	{
		name: "seq-wrap", why: "the client's sequence numbers wrap within the request", want: served,
		plan: func(_ *Plan, c *ClientPlan) {
			c.ISN = seq.Value(0).Add(-40)
			c.uploads(3000, 20*time.Millisecond)
		},
		has: []string{"switches to t1", "through: served"},
	},
	{
		name: "zero-window-client", why: "the client stops reading for a while: the target probes its window", want: served,
		plan: func(_ *Plan, c *ClientPlan) {
			c.Scale, c.Buffer, c.ReadEvery, c.ReadChunk = -1, 4344, 3*time.Second, 4344
		},
		has: []string{"switches to t1", "win 0", "through: served"},
	},
	{
		name: "half-close-upload", why: "the client closes its side after the upload; the whole response comes", want: served,
		plan: func(_ *Plan, c *ClientPlan) {
			c.HalfClose = true
			c.uploads(9000, 0)
		},
		has: []string{"[FP.]", "imports", "through: served"},
	},
	{
		name: "slow-reader", want: served,
		why: "the client reads in small steps; its window opens in large ones, and is never passed",
		plan: func(_ *Plan, c *ClientPlan) {
			c.Buffer, c.ReadEvery, c.ReadChunk = 8192, 20*time.Millisecond, 500
		},
		has: []string{"switches to t1", "through: served"},
		not: []string{"win 0 "},
	},
	{
		name: "mss-536", why: "the client takes 536 octets a segment, options included", want: served,
		plan: func(_ *Plan, c *ClientPlan) { c.MSS = 536 },
		has:  []string{"switches to t1", "+524", "through: served"},
		not:  []string{"+525"},
	},
	{
		name: "keepalive-probe", why: "a probe of the silent client is answered, whoever owns the connection", want: served,
		plan: func(p *Plan, c *ClientPlan) {
			c.AppEvery = 2 * time.Second
			p.Acts = []Act{{Kind: ProbeClient, At: time.Second}}
		},
		has: []string{"switches to t1", "keep-alive probe", "[.] seq 37 ack 1 win", ">c1    [.] seq 1 ack 38", "through: served"},
	},
	{
		name: "forged", want: served,
		why: "in the client's name come a RST in the window, old octets and an impossible ACK: nobody believes them",
		plan: func(p *Plan, c *ClientPlan) {
			c.AppEvery = 2 * time.Second
			for i, kind := range []ActKind{ForgeReset, ForgeOld, ForgeACK} {
				p.Acts = append(p.Acts, Act{Kind: kind, At: time.Duration(i+1) * time.Second})
			}
		},
		has: []string{"switches to t1", "forged RST", "[R]", "ack 38", "old octets", "+6", "ack 38", "forged ACK", "+6",
			"through: served"},
	},
	{
		name: "multi-hop", want: served,
		why: "the connection moves on at every segment and deadline; the client sees one connection",
		plan: func(p *Plan, c *ClientPlan) {
			p.Move, p.Skew = 1, time.Minute
			c.uploads(6000, 20*time.Millisecond)
		},
		has: []string{"switches to t1", "moves on in ESTABLISHED", "moves on in ESTABLISHED", "through: served"},
	},
	{
		name: "given-on", want: served,
		why: "the application gives the connection on in the middle of its response: the router takes it back, delivers what " +
			"is under way, and hands it to the other target",
		plan: func(p *Plan, c *ClientPlan) {
			p.Give, p.Seed = 0.5, 5
			c.AppEvery = 50 * time.Millisecond
		},
		has: []string{"switches to t1", "t1     c1: gives the connection to web", "assigns", "takes the connection back",
			"confirmed", "freezes", "switches to t2", "through: served"},
		not: []string{"[R"},
	},
	{
		name: "offers-rejected", want: refused + " unavailable",
		why:  "no target takes the connection: the router thaws, and tells the client",
		plan: func(p *Plan, _ *ClientPlan) { p.Reject = 1 },
		has: []string{"freezes", "to t1: offer", "rejected: capacity", "to t2: offer", "rejected: capacity", "thaws",
			"refused"},
		not: []string{"imports"},
	},
	{
		name: "offer-unanswered", why: "the first target stands still: the second one is asked in time", want: served,
		plan: func(p *Plan, _ *ClientPlan) { p.at(AtOffer, 0, PauseTarget, 2*time.Second) },
		has:  []string{"transfer to t1 ended: no_answer", "to t2: offer", "switches to t2", "through: served"},
		not:  []string{"t1     c1: imports"},
	},
	{
		name: "commit-lost", want: served,
		why:  "the stream breaks with the commit on it: the target says that it never will import, another one does",
		plan: func(p *Plan, _ *ClientPlan) { p.at(AtCommit, 0, BreakStream, 0) },
		has: []string{"commit is lost", "query", "query answered: unknown", "transfer to t1 ended: fenced",
			"switches to t2", "served"},
		not: []string{"t1     c1: imports"},
	},
	{
		name: "agent-crashes-after-confirm", want: served,
		why:  "the agent restarts with the confirmation lost: the new one knows the connection",
		plan: func(p *Plan, _ *ClientPlan) { p.at(AtConfirm, 0, CrashAgent, time.Second) },
		has:  []string{"imports", "agent crashes", "agent starts", "query", "query answered: live", "switches to t1", "served"},
		not:  []string{"thaws", "t2     c1: imports"},
	},
	{
		name: "target-crashes-after-commit", want: resetByServer,
		why:  "nobody can say who has the connection: it is reset in the end rather than owned twice",
		plan: func(p *Plan, _ *ClientPlan) { p.slowly(); p.at(AtCommit, time.Millisecond, CrashTarget, 0) },
		has:  []string{"commit", "host crashes", "forgets the flow", "[R.]", "through: reset by server"},
		not:  []string{"thaws", "t2     c1: imports"},
	},
	{
		name: "third-ack-lost-server-first", want: served,
		why: "the last ACK of the handshake is lost, and the client waits for the server's first word: the SYN-ACK is repeated",
		plan: func(p *Plan, c *ClientPlan) {
			c.Service = 3
			c.Request, c.Pieces = talk(true, "web", 1)
			p.Acts = []Act{{Kind: CutClient, At: 108 * time.Millisecond, For: 10 * time.Millisecond}}
		},
		has: []string{"[S.]", "lost, cut off", "[S.]", ">c1    [P.] seq 1+10", "switches to t1", "through: served"},
	},
	{
		name: "unconditional", why: "the connection and its record are one message, and nobody is asked", want: served,
		plan: func(p *Plan, _ *ClientPlan) { p.Unconditional = true },
		has:  []string{"freezes", "to t1: assigns 37 octets", "imports", "confirmed", "switches to t1", "through: served"},
		not:  []string{"offer"},
	},
	{
		name: "partition", why: "the client's network is gone for two seconds in the middle of the response", want: served,
		plan: func(p *Plan, _ *ClientPlan) { p.at(AtSwitch, 2*time.Millisecond, CutClient, 2*time.Second) },
		has:  []string{"switches to t1", "lost, cut off", "through: served"},
	},
	{
		name: "client-comes-again", want: served,
		why: "the client forgets the connection during its transfer and connects anew from its port: the import is stopped",
		plan: func(p *Plan, c *ClientPlan) {
			p.Import, c.Again = time.Second, true
			p.at(AtImport, 10*time.Millisecond, RestartClient, 0)
		},
		has: []string{"commit", "restart client", "connects", "ended: abandoned", "opens", "import stopped", "imports",
			"served"},
	},
}

func TestScenarios(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			p := calm()
			s.plan(p, &p.Clients[0])
			var out bytes.Buffer
			fmt.Fprintf(&out, "# %s: %s.\n# Milliseconds, who, what; c1 is what the client sends, >c1 what is sent to it.\n\n",
				s.name, s.why)
			r := Run(p, &out)
			if r.Violation != nil {
				t.Fatalf("%v\n%s", r.Violation, out.Bytes())
			}
			if r.Tally.Conns[s.want] != 1 {
				t.Errorf("outcomes %v, want %s", r.Tally.Conns, s.want)
			}
			s.check(t, out.String())
			golden(t, s.name, out.Bytes())
		})
	}
}

// check looks for what the scenario is about.
func (s *scenario) check(t *testing.T, transcript string) {
	t.Helper()
	rest := transcript[strings.Index(transcript, "\n\n"):]
	for _, not := range s.not {
		if strings.Contains(rest, not) {
			t.Errorf("transcript has %q", not)
		}
	}
	for _, has := range s.has {
		_, after, ok := strings.Cut(rest, has)
		if !ok {
			t.Errorf("transcript lacks %q in its place", has)
			return
		}
		rest = after
	}
}

// golden compares a transcript with the one that is kept.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, got, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the transcript differs from %s; if it should, run: go test ./control/sim -run Scenarios -update\n%s",
			file, firstDifference(got, want))
	}
}

// firstDifference shows the first lines that differ.
func firstDifference(got, want []byte) string {
	g, w := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d\ngot  %s\nwant %s", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}

func TestBufferedFreezeCostsTheClientNoRetransmission(t *testing.T) {
	for _, mode := range []struct {
		hold flow.HoldMode
		want bool
	}{{flow.HoldBuffer, false}, {flow.HoldDiscard, true}} {
		p := calm()
		p.Hold = mode.hold
		p.slowly()
		p.Clients[0].uploads(3000, 2*time.Millisecond)
		r := Run(p, nil)
		if r.Violation != nil {
			t.Fatal(r.Violation)
		}
		if (r.Tally.Retransmitted > 0) != mode.want {
			t.Errorf("hold mode %d: %d retransmissions of the client, want some: %v", mode.hold, r.Tally.Retransmitted, mode.want)
		}
	}
}
