package transfer

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// t0 is when the tests begin.
var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// describe is an action in a word or two, for tables: "offer 7 t1" is an Offer with transfer 7 sent to t1.
func describe(a Action) string {
	switch a := a.(type) {
	case Send:
		return describeMessage(a.Message) + " " + a.Host
	case Switch:
		return "switch " + a.Host
	case Failed:
		return fmt.Sprintf("failed %s %s", a.Host, a.Cause)
	case Refuse:
		return "refuse " + a.Cause.String()
	case Abort:
		if a.Reset {
			return "reset " + a.Cause.String()
		}
		return "abort " + a.Cause.String()
	case Fault:
		return "fault " + a.Host
	case Lapsed:
		return fmt.Sprintf("lapsed %d %s", a.Transfer, a.Host)
	case Check:
		if a.Assigned {
			return fmt.Sprintf("check %d %s assigned", a.Offer.Transfer, a.Host)
		}
		return fmt.Sprintf("check %d %s", a.Offer.Transfer, a.Host)
	case Import:
		return fmt.Sprintf("import %d %s", a.Transfer, a.Host)
	case StopImport:
		return fmt.Sprintf("stop %d %s", a.Transfer, a.Host)
	}
	return strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", a), "transfer."))
}

func describeMessage(m Message) string {
	switch m := m.(type) {
	case Offer:
		return fmt.Sprintf("offer %d", m.Transfer)
	case OfferReply:
		if m.Accepted {
			return fmt.Sprintf("accept %d", m.Transfer)
		}
		return fmt.Sprintf("reject %d %s", m.Transfer, m.Reason)
	case Release:
		return fmt.Sprintf("release %d", m.Transfer)
	case Commit:
		return fmt.Sprintf("commit %d", m.Transfer)
	case Assign:
		return fmt.Sprintf("assign %d", m.Offer.Transfer)
	case Confirm:
		if m.Imported {
			return fmt.Sprintf("imported %d", m.Transfer)
		}
		return fmt.Sprintf("not-imported %d %s", m.Transfer, m.Reason)
	case Query:
		return fmt.Sprintf("query %d", m.Transfer)
	case QueryReply:
		return fmt.Sprintf("state %d %s", m.Transfer, m.State)
	case EndReport:
		return "end"
	}
	return fmt.Sprintf("%T", m)
}

func describeAll(actions []Action) []string {
	var all []string
	for _, a := range actions {
		all = append(all, describe(a))
	}
	return all
}

// give is a transfer with the candidates t1 and t2: transfers 7 and 8.
func give() Give {
	return Give{
		Offer:      Offer{Inc: incA, Epoch: 3, Job: "web-a", Bytes: 4, MSS: 1460, Window: 32768},
		Candidates: []string{"t1", "t2"},
		First:      7,
		Timeouts:   DefaultTimeouts(),
	}
}

// Messages of t1 about the first attempt.
var (
	accepted    = Received{"t1", OfferReply{Transfer: 7, Accepted: true}}
	rejected    = Received{"t1", OfferReply{Transfer: 7, Reason: ReasonCapacity, Detail: "full"}}
	imported    = Received{"t1", Confirm{Transfer: 7, Imported: true, RcvNxt: 1006}}
	notImported = Received{"t1", Confirm{Transfer: 7, Reason: ReasonImport}}
	ended       = Received{"t1", EndReport{Inc: incA}}
	frozen      = Frozen{Record: []byte("record"), RcvNxt: 1006}
)

func state(s FlowState) Received { return Received{"t1", QueryReply{Transfer: 7, Inc: incA, State: s}} }

// giverAfter makes a Giver and lets the events happen at once, but Timeouts at their deadline. It returns the time
// then.
func giverAfter(g Give, events ...Event) (*Giver, time.Time) {
	giver, now := NewGiver(g), t0
	for _, e := range events {
		if _, ok := e.(Timeout); ok {
			now = giver.Deadline()
		}
		giver.Step(e, now)
	}
	return giver, now
}

// reach lists how each state is reached, at the first candidate.
var reach = map[GiverState][]Event{
	GiverIdle:      nil,
	GiverOffering:  {Start{}},
	GiverAccepted:  {Start{}, accepted},
	GiverCommitted: {Start{}, frozen, accepted},
	GiverQuerying:  {Start{}, frozen, accepted, Timeout{}},
	GiverConfirmed: {Start{}, frozen, accepted, imported},
	GiverSwitched:  {Start{}, frozen, accepted, imported, Switched{}},
	GiverRefused:   {Start{}, Cancel{}},
}

// TestGiverRows is the table of the package comment, row by row, at the first of two candidates.
func TestGiverRows(t *testing.T) {
	next := func(cause string) []string { return []string{"failed t1 " + cause, "offer 8 t2"} }
	rows := []struct {
		state GiverState
		event Event
		next  GiverState
		want  []string
	}{
		{GiverIdle, Start{}, GiverOffering, []string{"freeze", "offer 7 t1"}},
		{GiverIdle, Cancel{}, GiverRefused, []string{"failed  canceled", "refuse canceled"}},
		{GiverIdle, accepted, GiverIdle, []string{"release 7 t1"}},
		{GiverIdle, PeerLost{"t1"}, GiverIdle, nil},

		{GiverOffering, accepted, GiverAccepted, nil},
		{GiverOffering, rejected, GiverOffering, next("rejected")},
		{GiverOffering, frozen, GiverOffering, nil},
		{GiverOffering, PeerLost{"t1"}, GiverOffering, next("peer_lost")},
		{GiverOffering, PeerLost{"t2"}, GiverOffering, nil},
		{GiverOffering, Timeout{}, GiverOffering, append([]string{"release 7 t1"}, next("no_answer")...)},
		{GiverOffering, Cancel{"client is gone"}, GiverRefused,
			[]string{"release 7 t1", "failed  canceled", "thaw", "refuse canceled"}},
		{GiverOffering, imported, GiverOffering, []string{"fault t1"}},
		{GiverOffering, notImported, GiverOffering, nil},
		{GiverOffering, PeerUp{"t1"}, GiverOffering, nil},
		{GiverOffering, Start{}, GiverOffering, nil},
		{GiverOffering, Switched{}, GiverOffering, nil},

		{GiverAccepted, frozen, GiverCommitted, []string{"commit 7 t1"}},
		{GiverAccepted, accepted, GiverAccepted, nil},
		{GiverAccepted, rejected, GiverAccepted, nil},
		{GiverAccepted, imported, GiverAccepted, []string{"fault t1"}},
		{GiverAccepted, PeerLost{"t1"}, GiverOffering, next("peer_lost")},
		{GiverAccepted, PeerLost{"t2"}, GiverAccepted, nil},
		{GiverAccepted, Timeout{}, GiverRefused, []string{"release 7 t1", "failed  freeze", "thaw", "refuse freeze"}},
		{GiverAccepted, Cancel{}, GiverRefused, []string{"release 7 t1", "failed  canceled", "thaw", "refuse canceled"}},

		{GiverCommitted, imported, GiverConfirmed, []string{"switch t1"}},
		{GiverCommitted, Received{"t1", Confirm{Transfer: 7, Imported: true, RcvNxt: 1}}, GiverConfirmed,
			[]string{"fault t1", "switch t1"}},
		{GiverCommitted, notImported, GiverOffering, next("not_imported")},
		{GiverCommitted, ended, GiverConfirmed, []string{"switch t1", "remove"}},
		{GiverCommitted, PeerLost{"t1"}, GiverQuerying, nil},
		{GiverCommitted, PeerLost{"t2"}, GiverCommitted, nil},
		{GiverCommitted, Timeout{}, GiverQuerying, []string{"query 7 t1"}},
		{GiverCommitted, Cancel{}, GiverCommitted, nil}, // past the point of no return
		{GiverCommitted, accepted, GiverCommitted, nil},
		{GiverCommitted, rejected, GiverCommitted, nil}, // a repeated message cannot undo it
		{GiverCommitted, frozen, GiverCommitted, nil},
		{GiverCommitted, Received{"t2", Confirm{Transfer: 7}}, GiverCommitted, nil}, // t2 cannot speak for t1
		{GiverCommitted, Received{"t1", EndReport{Inc: incB}}, GiverCommitted, nil},

		{GiverQuerying, imported, GiverConfirmed, []string{"switch t1"}},
		{GiverQuerying, notImported, GiverOffering, next("not_imported")},
		{GiverQuerying, ended, GiverConfirmed, []string{"switch t1", "remove"}},
		{GiverQuerying, state(FlowLive), GiverConfirmed, []string{"switch t1"}},
		{GiverQuerying, state(FlowEnded), GiverConfirmed, []string{"switch t1", "remove"}},
		{GiverQuerying, state(FlowUnknown), GiverOffering, next("fenced")},
		{GiverQuerying, state(FlowReserved), GiverQuerying, nil},
		{GiverQuerying, PeerUp{"t1"}, GiverQuerying, []string{"query 7 t1"}},
		{GiverQuerying, PeerUp{"t2"}, GiverQuerying, nil},
		{GiverQuerying, PeerLost{"t1"}, GiverQuerying, nil},
		{GiverQuerying, Timeout{}, GiverQuerying, []string{"query 7 t1"}},
		{GiverQuerying, Cancel{}, GiverQuerying, nil},

		{GiverConfirmed, Switched{}, GiverSwitched, nil},
		{GiverConfirmed, ended, GiverConfirmed, []string{"remove"}},
		{GiverConfirmed, Timeout{}, GiverConfirmed, []string{"switch t1"}},
		{GiverConfirmed, imported, GiverConfirmed, nil},
		{GiverConfirmed, notImported, GiverConfirmed, []string{"fault t1"}},
		{GiverConfirmed, PeerLost{"t1"}, GiverConfirmed, nil},
		{GiverConfirmed, Cancel{}, GiverConfirmed, nil},

		{GiverSwitched, imported, GiverSwitched, nil},
		{GiverSwitched, notImported, GiverSwitched, []string{"fault t1"}},
		{GiverSwitched, PeerLost{"t1"}, GiverSwitched, nil},
		{GiverRefused, accepted, GiverRefused, []string{"release 7 t1"}},
		{GiverRefused, imported, GiverRefused, []string{"fault t1"}},
		{GiverRefused, frozen, GiverRefused, nil},
	}
	for _, row := range rows {
		t.Run(fmt.Sprintf("%s/%T", row.state, row.event), func(t *testing.T) {
			g, now := giverAfter(give(), reach[row.state]...)
			if g.State() != row.state {
				t.Fatalf("reached %s", g.State())
			}
			if _, ok := row.event.(Timeout); ok {
				now = g.Deadline()
			}
			if got := describeAll(g.Step(row.event, now)); !slices.Equal(got, row.want) {
				t.Errorf("actions %q, want %q", got, row.want)
			}
			if g.State() != row.next {
				t.Errorf("next state %s, want %s", g.State(), row.next)
			}
			if g.Deadline().IsZero() != (g.State().Final() || g.State() == GiverIdle) {
				t.Errorf("deadline %s in %s", g.Deadline(), g.State())
			}
		})
	}
}

// TestUnconditionalGiverRows are the rows of the table that are about unconditional transfers, and what else differs.
func TestUnconditionalGiverRows(t *testing.T) {
	g := give()
	g.Unconditional = true
	freezing, committed := []Event{Start{}}, []Event{Start{}, frozen}
	for _, row := range []struct {
		name   string
		before []Event
		event  Event
		next   GiverState
		want   []string
	}{
		{"start", nil, Start{}, GiverFreezing, []string{"freeze"}},
		{"frozen", freezing, frozen, GiverCommitted, []string{"assign 7 t1"}},
		{"not frozen in time", freezing, Timeout{}, GiverRefused, []string{"failed  freeze", "thaw", "refuse freeze"}},
		{"cancel", freezing, Cancel{}, GiverRefused, []string{"failed  canceled", "thaw", "refuse canceled"}},
		{"answer to no question", freezing, accepted, GiverFreezing, []string{"release 7 t1"}},
		{"stream lost before", freezing, PeerLost{"t1"}, GiverFreezing, nil},
		{"imported", committed, imported, GiverConfirmed, []string{"switch t1"}},
		{"not imported", committed, notImported, GiverCommitted, []string{"failed t1 not_imported", "assign 8 t2"}},
		{"stream lost", committed, PeerLost{"t1"}, GiverQuerying, nil},
		{"did not arrive", append(slices.Clip(committed), Timeout{}), state(FlowUnknown), GiverCommitted,
			[]string{"failed t1 fenced", "assign 8 t2"}},
		{"late cancel", committed, Cancel{}, GiverCommitted, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			giver, now := giverAfter(g, row.before...)
			if _, ok := row.event.(Timeout); ok {
				now = giver.Deadline()
			}
			if got := describeAll(giver.Step(row.event, now)); !slices.Equal(got, row.want) || giver.State() != row.next {
				t.Errorf("%q and %s, want %q and %s", got, giver.State(), row.want, row.next)
			}
		})
	}
}

// TestLastCandidateEndsInRefusal: each way to "next" with nobody left.
func TestLastCandidateEndsInRefusal(t *testing.T) {
	one := give()
	one.Candidates = one.Candidates[:1]
	rows := []struct {
		state GiverState
		event Event
		want  []string
	}{
		{GiverOffering, rejected, []string{"failed t1 rejected", "thaw", "refuse rejected"}},
		{GiverOffering, PeerLost{"t1"}, []string{"failed t1 peer_lost", "thaw", "refuse peer_lost"}},
		{GiverOffering, Timeout{}, []string{"release 7 t1", "failed t1 no_answer", "thaw", "refuse no_answer"}},
		{GiverAccepted, PeerLost{"t1"}, []string{"failed t1 peer_lost", "thaw", "refuse peer_lost"}},
		{GiverCommitted, notImported, []string{"failed t1 not_imported", "thaw", "refuse not_imported"}},
		{GiverQuerying, state(FlowUnknown), []string{"failed t1 fenced", "thaw", "refuse fenced"}},
	}
	for _, row := range rows {
		g, now := giverAfter(one, reach[row.state]...)
		if _, ok := row.event.(Timeout); ok {
			now = g.Deadline()
		}
		if got := describeAll(g.Step(row.event, now)); !slices.Equal(got, row.want) || g.State() != GiverRefused {
			t.Errorf("%s, %v: %q and %s, want %q and refused", row.state, row.event, got, g.State(), row.want)
		}
	}
}

func TestWithoutCandidateNothingIsFrozen(t *testing.T) {
	none := give()
	none.Candidates = nil
	g := NewGiver(none)
	want := []string{"failed  no_candidate", "refuse no_candidate"}
	if got := describeAll(g.Step(Start{}, t0)); !slices.Equal(got, want) {
		t.Errorf("actions %q", got)
	}
	if g.State() != GiverRefused || g.Host() != "" {
		t.Errorf("state %s, host %q", g.State(), g.Host())
	}
}

func TestOfferAsksForMoreTimeThanItWaits(t *testing.T) {
	g := NewGiver(give())
	offer := g.Step(Start{}, t0)[1].(Send).Message.(Offer)
	if limit := g.give.Timeouts.Offer + g.give.Timeouts.Freeze; offer.Reserve <= limit {
		t.Errorf("reservation of %s, the commit may take %s", offer.Reserve, limit)
	}
	if offer.RecordVersion != RecordVersion || offer.Inc != g.Inc() || offer.Job != "web-a" {
		t.Errorf("offer %+v", offer)
	}
}

func TestSecondCandidateGetsTheSameRecord(t *testing.T) {
	g, now := giverAfter(give(), Start{}, frozen, rejected)
	actions := g.Step(Received{"t2", OfferReply{Transfer: 8, Accepted: true}}, now)
	commit, ok := actions[0].(Send).Message.(Commit)
	if len(actions) != 1 || !ok || commit.Transfer != 8 || string(commit.Record) != "record" {
		t.Errorf("actions %+v", actions)
	}
	if g.Host() != "t2" || g.Transfer() != 8 {
		t.Errorf("host %s, transfer %d", g.Host(), g.Transfer())
	}
}

// TestOlderAttemptIsOver: whatever t1 says about transfer 7 once transfer 8 is under way.
func TestOlderAttemptIsOver(t *testing.T) {
	rows := []struct {
		event Event
		want  []string
	}{
		{accepted, []string{"release 7 t1"}},
		{rejected, nil},
		{notImported, nil},
		{imported, []string{"fault t1"}},
		{state(FlowUnknown), nil},
		{state(FlowLive), nil},
		{ended, nil},
		{PeerLost{"t1"}, nil},
		{PeerUp{"t1"}, nil},
	}
	for _, way := range []struct {
		name   string
		events []Event
	}{
		{"offering", []Event{Start{}, frozen, rejected}},
		{"committed", []Event{Start{}, frozen, rejected, Received{"t2", OfferReply{Transfer: 8, Accepted: true}}}},
	} {
		for _, row := range rows {
			g, now := giverAfter(give(), way.events...)
			before := g.State()
			if got := describeAll(g.Step(row.event, now)); !slices.Equal(got, row.want) || g.State() != before {
				t.Errorf("%s, %+v: %q and %s, want %q and no change", way.name, row.event, got, g.State(), row.want)
			}
		}
	}
}

func TestSilentTargetEndsInAbortAfterGiveUp(t *testing.T) {
	g, committed := giverAfter(give(), reach[GiverCommitted]...)
	queries := 0
	for steps := 0; !g.State().Final(); steps++ {
		if steps > 200 {
			t.Fatal("does not end")
		}
		now := g.Deadline()
		for _, a := range g.Step(Timeout{}, now) {
			switch a := a.(type) {
			case Send:
				queries++
			case Abort:
				if at := now.Sub(committed); at != g.give.Timeouts.GiveUp || !a.Reset {
					t.Errorf("aborted after %s, reset %t, want %s and a reset", at, a.Reset, g.give.Timeouts.GiveUp)
				}
			case Thaw, Refuse:
				t.Errorf("%T after the commit without a word of the target", a)
			}
		}
	}
	if g.State() != GiverAborted || queries == 0 {
		t.Errorf("%s after %d queries", g.State(), queries)
	}
}

func TestForwarderThatNeverSwitchesEndsInAbort(t *testing.T) {
	g, _ := giverAfter(give(), reach[GiverConfirmed]...)
	for steps := 0; !g.State().Final() && steps < 1000; steps++ {
		for _, a := range g.Step(Timeout{}, g.Deadline()) {
			if abort, ok := a.(Abort); ok && abort.Reset {
				t.Error("the client of a connection that the target owns is reset")
			}
		}
	}
	if g.State() != GiverAborted {
		t.Errorf("ended in %s", g.State())
	}
}

func TestTimeoutBeforeTheDeadlineIsIgnored(t *testing.T) {
	for s, events := range reach {
		g, _ := giverAfter(give(), events...)
		early := g.Deadline().Add(-time.Nanosecond)
		if actions := g.Step(Timeout{}, early); actions != nil || g.State() != s {
			t.Errorf("%s: %q and %s", s, describeAll(actions), g.State())
		}
	}
}

func TestStrayReservationIsReleased(t *testing.T) {
	for _, row := range []struct {
		message Message
		want    Message
	}{
		{OfferReply{Transfer: 9, Accepted: true}, Release{9}},
		{OfferReply{Transfer: 9}, nil},
		{Confirm{Transfer: 9, Imported: true}, nil},
	} {
		if got := Stray(row.message); got != row.want {
			t.Errorf("%+v: %+v, want %+v", row.message, got, row.want)
		}
	}
}

func TestBrokenTransitionPanics(t *testing.T) {
	rows := map[string]func(g *Giver){
		"idle to committed":      func(g *Giver) { g.become(GiverCommitted, t0) },
		"offering, no deadline":  func(g *Giver) { g.become(GiverOffering, time.Time{}) },
		"commit without freeze":  func(g *Giver) { g.becomeCommitted(t0) },
		"refused, with deadline": func(g *Giver) { g.become(GiverRefused, t0) },
	}
	for name, broken := range rows {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			broken(NewGiver(give()))
		}()
	}
}

func TestWordsForLogs(t *testing.T) {
	for got, want := range map[string]string{
		GiverQuerying.String(): "querying", GiverState(99).String(): "invalid",
		CauseFenced.String(): "fenced", Cause(99).String(): "invalid",
		ReasonLeftover.String(): "leftover", Reason(99).String(): "unknown reason",
		FlowEnded.String(): "ended", FlowState(99).String(): "invalid",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
