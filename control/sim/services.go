package sim

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"

	"baton/control/inspect"
	"baton/control/transfer"
)

// service is a DVIPA and port that all routing hosts of the simulation have.
type service struct {
	addr  netip.AddrPort
	talks bool // its protocol is a dialogue, not HTTP
	first bool // of which the server says the first word
	scale uint8
}

var services = []service{
	{addr: netip.MustParseAddrPort("10.77.0.10:80"), scale: 7},
	{addr: netip.MustParseAddrPort("10.77.0.10:25"), talks: true, scale: 3},
	{addr: netip.MustParseAddrPort("[2001:db8::10]:80"), scale: 0},
	{addr: netip.MustParseAddrPort("10.77.0.10:110"), talks: true, first: true, scale: 5},
}

// v6 is 1 for IPv6, else 0.
func (s *service) v6() int {
	if s.addr.Addr().Is6() {
		return 1
	}
	return 0
}

// jobs are who serves what. The targets announce web and solo only.
func jobs(targets int) map[string][]string {
	var all []string
	for i := range targets {
		all = append(all, targetName(i))
	}
	return map[string][]string{"web": all, "solo": all[:1], "void": all}
}

// newHTTP is the routing application of the HTTP services.
func newHTTP() *inspect.HTTP {
	h, err := inspect.NewHTTP(inspect.HTTPConfig{Rules: []inspect.Rule{
		{Host: "web.example", Choice: inspect.Choice{Job: "web"}}, {Host: "solo.example", Choice: inspect.Choice{Job: "solo"}}, {Host: "void.example", Choice: inspect.Choice{Job: "void"}},
	}})
	if err != nil {
		panic(err)
	}
	return h
}

// The dialogue: each line of the client is greeted, until one names a job.
const (
	hello     = "220 hello\n"
	greeting  = "250 go on\n"
	goAway    = "550 go away\n"
	notInTime = "421 too late\n"
	tryLater  = "450 try later\n"
)

// talk makes a client's side of a dialogue with so many lines before the job's, each of which waits for the greeting of
// the one before, and the first one for the server's first word, if there is one.
func talk(first bool, job string, lines int) (request string, pieces []Piece) {
	wait := 0
	if first {
		wait = len(hello)
	}
	for i := range lines {
		line := fmt.Sprintf("HELO %d\n", i)
		pieces = append(pieces, Piece{Size: len(line), Wait: wait})
		request += line
		wait += len(greeting)
	}
	line := "JOB " + job + "\n"
	return request + line, append(pieces, Piece{Size: len(line), Wait: wait})
}

// talker is the routing application of the dialogue.
type talker struct{ greeted int }

// greeter is the one whose first word is the server's. What it has answered, nobody needs any more.
type greeter struct {
	talker
	said bool
}

// Inspect implements inspect.Session.
func (t *greeter) Inspect(data []byte) inspect.Decision {
	if !t.said {
		t.said = true
		return inspect.Decision{Reply: []byte(hello)}
	}
	if line, _, ok := bytes.Cut(data, []byte("\n")); ok && !bytes.HasPrefix(line, []byte("JOB ")) {
		return inspect.Decision{Reply: []byte(greeting), Consumed: len(line) + 1}
	}
	return t.talker.Inspect(data)
}

// Inspect implements inspect.Session.
func (t *talker) Inspect(data []byte) inspect.Decision {
	var reply []byte
	for n := 0; ; n++ {
		line, rest, ok := bytes.Cut(data, []byte("\n"))
		if !ok {
			return inspect.Decision{Reply: reply}
		}
		data = rest
		if job, ok := strings.CutPrefix(string(line), "JOB "); ok {
			if job == "nowhere" {
				return inspect.Decision{Verdict: inspect.Refuse, Cause: inspect.NoMatch, Reply: []byte(goAway)}
			}
			return inspect.Decision{Verdict: inspect.Route, Job: job}
		}
		if n >= t.greeted {
			t.greeted++
			reply = append(reply, greeting...)
		}
	}
}

// Refusal implements inspect.Session.
func (t *talker) Refusal(cause inspect.Cause) []byte {
	if cause == inspect.Timeout {
		return []byte(notInTime)
	}
	return []byte(tryLater)
}

// watched is a routing application whose words are noted by the judge, and whose input is compared with what the client
// wrote.
type watched struct {
	inspect.Session
	life     *life
	consumed int // octets that the application is not shown again
	refused  bool
}

// Inspect implements inspect.Session.
func (s *watched) Inspect(data []byte) inspect.Decision {
	s.life.routerReads(s.consumed, data)
	d := s.Session.Inspect(data)
	s.consumed += d.Consumed
	switch {
	case d.Verdict == inspect.NeedMore:
		s.life.writes(d.Reply)
	case d.Verdict == inspect.Refuse && !s.refused:
		s.refused = true
		s.life.refuses(d.Reply, d.Cause)
	}
	return d
}

// Refusal implements inspect.Session.
func (s *watched) Refusal(cause inspect.Cause) []byte {
	reply := s.Session.Refusal(cause)
	if !s.refused {
		s.refused = true
		s.life.refuses(reply, cause)
	}
	return reply
}

// Outcomes.
const switched = "switched"

// allOutcomes are those that must happen often enough.
var allOutcomes = []string{
	"transfer " + switched,
	"transfer " + transfer.CauseNoCandidate.String(), "transfer " + transfer.CauseCanceled.String(),
	"transfer " + transfer.CauseFreeze.String(),
	"transfer " + transfer.CauseRejected.String(), "transfer " + transfer.CauseNoAnswer.String(),
	"transfer " + transfer.CausePeerLost.String(), "transfer " + transfer.CauseNotImported.String(),
	"transfer " + transfer.CauseFenced.String(), "transfer abandoned",
	"connection " + served, "connection " + resetByClient,
	"connection " + refused + " " + inspect.Unavailable.String(), "connection " + refused + " " + inspect.NoMatch.String(),
	"connection " + refused + " " + inspect.Timeout.String(), "connection " + refused + " " + inspect.Malformed.String(),
	"connection " + cutShort, "connection " + lost, "connection " + movedOn,
	"connection " + gaveBack, "transfer back " + transfer.CauseNotImported.String(),
}
