package transfer

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"baton/fastpath/wire"
)

// record7 is what transfer 7 commits.
func record7() Record {
	r := bareRecord()
	r.Job, r.Epoch = "web-a", 3
	return r
}

// Messages of the routing host rh about transfer 7, and results at the target.
var (
	offer7    = Offer{Transfer: 7, Inc: incA, Epoch: 3, Job: "web-a", RecordVersion: RecordVersion, Reserve: time.Second}
	offered   = Received{"rh", offer7}
	committed = Received{"rh", Commit{7, encoded(record7())}}
	assigned  = Received{"rh", Assign{offer7, encoded(record7())}}
	released  = Received{"rh", Release{7}}
	queried   = Received{"rh", Query{7, incA}}
	well      = Checked{Host: "rh", Transfer: 7}
	unwell    = Checked{Host: "rh", Transfer: 7, Reason: ReasonWindow, Detail: "window 100"}
	made      = Imported{Host: "rh", Transfer: 7, RcvNxt: 1001, Took: time.Millisecond}
	notMade   = NotImported{Host: "rh", Transfer: 7, Reason: ReasonImport, Detail: "EINVAL"}
	over      = Ended{incA}
)

func encoded(r Record) []byte {
	b, err := r.Encode()
	if err != nil {
		panic(err)
	}
	return b
}

// takerAfter makes a Taker with a stream to rh and lets the events happen at once, but Timeouts at their deadline.
func takerAfter(events ...Event) (*Taker, time.Time) {
	taker, now := NewTaker(DefaultLimits(), nil, nil, t0), t0
	taker.Step(PeerUp{"rh"}, now)
	for _, e := range events {
		if _, ok := e.(Timeout); ok {
			now = taker.Deadline()
		}
		taker.Step(e, now)
	}
	return taker, now
}

// stateOf is the state of transfer 7, gone if there is none.
func stateOf(t *Taker) takerState {
	if e := t.byKey[key{"rh", 7}]; e != nil {
		return e.state
	}
	return takerGone
}

// reachTaker lists how each state of transfer 7 is reached.
var reachTaker = map[takerState][]Event{
	takerGone:      nil,
	takerChecking:  {offered},
	takerReserved:  {offered, well},
	takerImporting: {offered, well, committed},
	takerLive:      {offered, well, committed, made},
	takerEnded:     {offered, well, committed, made, over},
	takerRefused:   {committed},
}

// TestTakerRows is the table of the package comment, row by row.
func TestTakerRows(t *testing.T) {
	offer := func(change func(*Offer)) Event {
		o := offer7
		change(&o)
		return Received{"rh", o}
	}
	commit := func(change func(*Record)) Event {
		r := record7()
		change(&r)
		return Received{"rh", Commit{7, encoded(r)}}
	}
	rows := []struct {
		state takerState
		name  string
		event Event
		next  takerState
		want  []string
	}{
		{takerGone, "offer", offered, takerChecking, []string{"check 7 rh"}},
		{takerGone, "record version", offer(func(o *Offer) { o.RecordVersion = 2 }), takerGone,
			[]string{"reject 7 version rh"}},
		{takerGone, "transfer 0", offer(func(o *Offer) { o.Transfer = 0 }), takerGone, []string{"reject 0 reservation rh"}},
		{takerGone, "commit", committed, takerRefused, []string{"not-imported 7 reservation rh"}},
		{takerGone, "commit of transfer 0", Received{"rh", Commit{}}, takerGone, []string{"not-imported 0 reservation rh"}},
		{takerGone, "assign", assigned, takerChecking, []string{"check 7 rh assigned"}},
		{takerGone, "assign of transfer 0", Received{"rh", Assign{}}, takerGone, []string{"not-imported 0 reservation rh"}},
		{takerGone, "assign, record version", Received{"rh", Assign{Offer: Offer{Transfer: 7, Inc: incA}}}, takerRefused,
			[]string{"not-imported 7 version rh"}},
		{takerGone, "query", queried, takerRefused, []string{"state 7 unknown rh"}},
		{takerGone, "query without transfer", Received{"rh", Query{0, incA}}, takerGone, []string{"state 0 unknown rh"}},
		{takerGone, "release", released, takerGone, nil},
		{takerGone, "late check", well, takerGone, nil},
		{takerGone, "end", over, takerGone, nil},
		{takerGone, "message of a target", Received{"rh", Confirm{Transfer: 7}}, takerGone, nil},

		{takerChecking, "well", well, takerReserved, []string{"accept 7 rh"}},
		{takerChecking, "unwell", unwell, takerGone, []string{"reject 7 window rh"}},
		{takerChecking, "timeout", Timeout{}, takerGone, []string{"reject 7 host rh"}},
		{takerChecking, "offer again", offered, takerChecking, nil},
		{takerChecking, "release", released, takerGone, nil},
		{takerChecking, "commit", committed, takerRefused, []string{"not-imported 7 reservation rh"}},
		{takerChecking, "query", queried, takerRefused, []string{"state 7 unknown rh"}},
		{takerChecking, "query without transfer", Received{"rh", Query{0, incA}}, takerChecking,
			[]string{"state 0 reserved rh"}},

		{takerReserved, "offer again", offered, takerReserved, []string{"accept 7 rh"}},
		{takerReserved, "check again", well, takerReserved, nil},
		{takerReserved, "commit", committed, takerImporting, []string{"import 7 rh"}},
		{takerReserved, "another version", Received{"rh", Commit{7, []byte{0, 9}}}, takerRefused,
			[]string{"not-imported 7 version rh"}},
		{takerReserved, "garbage", Received{"rh", Commit{7, []byte{0, 1, 2}}}, takerRefused,
			[]string{"not-imported 7 import rh"}},
		{takerReserved, "another flow", commit(func(r *Record) { r.Inc.IRS++ }), takerRefused,
			[]string{"not-imported 7 import rh"}},
		{takerReserved, "another job", commit(func(r *Record) { r.Job = "web-b" }), takerRefused,
			[]string{"not-imported 7 import rh"}},
		{takerReserved, "another epoch", commit(func(r *Record) { r.Epoch++ }), takerRefused,
			[]string{"not-imported 7 import rh"}},
		{takerReserved, "release", released, takerGone, nil},
		{takerReserved, "timeout", Timeout{}, takerGone, nil},
		{takerReserved, "query", queried, takerRefused, []string{"state 7 unknown rh"}},
		{takerReserved, "query without transfer", Received{"rh", Query{0, incA}}, takerReserved,
			[]string{"state 0 reserved rh"}},
		{takerReserved, "end", over, takerReserved, nil},

		{takerImporting, "made", made, takerLive, []string{"imported 7 rh"}},
		{takerImporting, "not made", notMade, takerRefused, []string{"not-imported 7 import rh"}},
		{takerImporting, "commit again", committed, takerImporting, nil},
		{takerImporting, "offer again", offered, takerImporting, nil},
		{takerImporting, "release", released, takerImporting, nil},
		{takerImporting, "query", queried, takerImporting, []string{"state 7 reserved rh"}},
		{takerImporting, "timeout", Timeout{}, takerImporting, []string{"stop 7 rh"}},

		{takerImporting, "assign again", assigned, takerImporting, nil},
		{takerLive, "assign again", assigned, takerLive, []string{"imported 7 rh"}},
		{takerLive, "commit again", committed, takerLive, []string{"imported 7 rh"}},
		{takerLive, "offer again", offered, takerLive, nil},
		{takerLive, "release", released, takerLive, nil},
		{takerLive, "query", queried, takerLive, []string{"state 7 live rh"}},
		{takerLive, "query of the tuple", Received{"rh", Query{0, wire.Incarnation{Tuple: incA.Tuple}}}, takerLive,
			[]string{"state 0 live rh"}},
		{takerLive, "query of another life", Received{"rh", Query{0, incB}}, takerLive, []string{"state 0 unknown rh"}},
		{takerLive, "offer by another transfer", offer(func(o *Offer) { o.Transfer = 8 }), takerLive,
			[]string{"reject 8 leftover rh"}},
		{takerLive, "end", over, takerEnded, []string{"end rh"}},
		{takerLive, "end of another life", Ended{incB}, takerLive, nil},

		{takerEnded, "commit again", committed, takerEnded, []string{"imported 7 rh"}},
		{takerEnded, "query", queried, takerEnded, []string{"state 7 ended rh"}},
		{takerEnded, "end again", over, takerEnded, nil},
		{takerEnded, "stream again", PeerUp{"rh"}, takerEnded, []string{"end rh"}},
		{takerEnded, "stream of another", PeerUp{"rh2"}, takerEnded, nil},
		{takerEnded, "timeout", Timeout{}, takerGone, []string{"forget"}},
		{takerEnded, "offer by another transfer", offer(func(o *Offer) { o.Transfer = 8 }), takerEnded,
			[]string{"reject 8 leftover rh"}},

		{takerRefused, "offer", offered, takerRefused, []string{"reject 7 reservation rh"}},
		{takerRefused, "commit again", committed, takerRefused, []string{"not-imported 7 reservation rh"}},
		{takerRefused, "query", queried, takerRefused, []string{"state 7 unknown rh"}},
		{takerRefused, "release", released, takerRefused, nil},
		{takerRefused, "timeout", Timeout{}, takerGone, nil},
	}
	for _, row := range rows {
		t.Run(row.state.String()+"/"+row.name, func(t *testing.T) {
			taker, now := takerAfter(reachTaker[row.state]...)
			if got := stateOf(taker); got != row.state {
				t.Fatalf("reached %s", got)
			}
			if _, ok := row.event.(Timeout); ok {
				now = taker.Deadline()
			}
			if got := describeAll(taker.Step(row.event, now)); !slices.Equal(got, row.want) {
				t.Errorf("actions %q, want %q", got, row.want)
			}
			if got := stateOf(taker); got != row.next {
				t.Errorf("next state %s, want %s", got, row.next)
			}
			checkTaker(t, taker)
		})
	}
}

// TestAssignedTransferRows: what becomes of an Assign that is being checked.
func TestAssignedTransferRows(t *testing.T) {
	for _, row := range []struct {
		name  string
		event Event
		next  takerState
		want  []string
	}{
		{"well", well, takerImporting, []string{"import 7 rh"}},
		{"unwell", unwell, takerRefused, []string{"not-imported 7 window rh"}},
		{"timeout", Timeout{}, takerRefused, []string{"not-imported 7 host rh"}},
		{"query", queried, takerRefused, []string{"state 7 unknown rh"}},
		{"again", assigned, takerChecking, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			taker, now := takerAfter(assigned)
			if _, ok := row.event.(Timeout); ok {
				now = taker.Deadline()
			}
			if got := describeAll(taker.Step(row.event, now)); !slices.Equal(got, row.want) || stateOf(taker) != row.next {
				t.Errorf("%q and %s, want %q and %s", got, stateOf(taker), row.want, row.next)
			}
			checkTaker(t, taker)
		})
	}
}

// TestTakerTellsWhatLapses has an application that was asked hear of it once when its connection will not come.
func TestTakerTellsWhatLapses(t *testing.T) {
	const lapsed = "lapsed 7 rh"
	asked := Asked{"rh", 7}
	later := offer7
	later.Transfer = 8
	for name, events := range map[string][]Event{
		"rejected":               {offered, asked, unwell},
		"no answer":              {offered, asked, Timeout{}},
		"released while checked": {offered, asked, released},
		"released":               {offered, asked, well, released},
		"reservation over":       {offered, asked, well, Timeout{}},
		"fenced":                 {offered, asked, well, queried},
		"later offer":            {offered, asked, well, Received{"rh", later}},
		"not imported":           {offered, asked, well, committed, notMade},
		"assigned, not imported": {assigned, asked, well, notMade},
		"asked too late":         {offered, released, asked},
	} {
		t.Run(name, func(t *testing.T) {
			taker, now := takerAfter(events[:len(events)-1]...)
			last := events[len(events)-1]
			if _, ok := last.(Timeout); ok {
				now = taker.Deadline()
			}
			if got := describeAll(taker.Step(last, now)); !slices.Contains(got, lapsed) {
				t.Errorf("%q, want %q among them", got, lapsed)
			}
			for range 3 { // everything is over and forgotten in the end
				if d := taker.Deadline(); !d.IsZero() {
					now = d
				}
				if got := describeAll(taker.Step(Timeout{}, now)); slices.Contains(got, lapsed) {
					t.Errorf("again: %q", got)
				}
			}
		})
	}
	taker, now := takerAfter(offered, asked, well, committed, made)
	for _, e := range []Event{over, queried, Timeout{}} {
		if got := describeAll(taker.Step(e, now)); slices.Contains(got, lapsed) {
			t.Errorf("a connection that came has lapsed: %q", got)
		}
		now = taker.Deadline()
	}
}

func TestCheckMayTakeAsLongAsTheGiverWaits(t *testing.T) {
	o := offer7
	o.Reserve = time.Second
	taker, now := takerAfter(Received{"rh", o})
	if got := taker.Deadline().Sub(now); got != time.Second {
		t.Errorf("%s", got)
	}
}

// checkTaker checks that a Taker's parts agree with each other.
func checkTaker(t *testing.T, taker *Taker) {
	t.Helper()
	var count [takerGone]int
	held := map[*entry]bool{}
	for tuple, entries := range taker.byTuple {
		if len(entries) == 0 {
			t.Errorf("empty list of %s", tuple)
		}
		for _, e := range entries {
			held[e] = true
			count[e.state]++
			if !e.holds() || e.flow.Inc.Tuple != tuple {
				t.Errorf("%s is listed under %s", e.state, tuple)
			}
		}
	}
	for _, e := range taker.byKey {
		if held[e] != e.holds() {
			t.Errorf("%s: holds %v, listed %v", e.state, e.holds(), held[e])
		}
		if e.state == takerRefused {
			count[takerRefused]++
		}
	}
	if count != taker.count {
		t.Errorf("counts %v, found %v", taker.count, count)
	}
	if n := count[takerChecking] + count[takerReserved] + count[takerImporting]; n != len(taker.waiting) {
		t.Errorf("%d wait, want %d", len(taker.waiting), n)
	}
	if n := count[takerEnded] + count[takerRefused]; n != len(taker.past) {
		t.Errorf("%d past, want %d", len(taker.past), n)
	}
	for i, e := range taker.waiting {
		if e.place != i {
			t.Errorf("entry %d thinks that it is %d", i, e.place)
		}
	}
}

func TestRepeatedCommitImportsOnceAndGetsTheSameAnswer(t *testing.T) {
	taker, now := takerAfter(offered, well)
	imports := 0
	var answers []Message
	for _, e := range []Event{committed, committed, made, committed, over, committed} {
		for _, a := range taker.Step(e, now) {
			switch a := a.(type) {
			case Import:
				imports++
				if a.Record.Inc != incA || a.Record.Job != "web-a" {
					t.Errorf("record %+v", a.Record)
				}
			case Send:
				if c, ok := a.Message.(Confirm); ok {
					answers = append(answers, c)
				}
			}
		}
	}
	want := Confirm{Transfer: 7, Imported: true, RcvNxt: 1001, Took: time.Millisecond}
	if imports != 1 || !slices.Equal(answers, []Message{want, want, want}) {
		t.Errorf("%d imports, answers %+v", imports, answers)
	}
}

// TestFencedTransferNeverImports: after the answer "unknown" the giver acts as the owner, so nothing may revive the
// transfer while it is remembered.
func TestFencedTransferNeverImports(t *testing.T) {
	for _, before := range [][]Event{
		nil, {offered}, {offered, well}, {offered, unwell}, {offered, well, Timeout{}}, {offered, well, released},
	} {
		taker, now := takerAfter(append(slices.Clone(before), queried)...)
		for _, e := range []Event{offered, well, committed, released, offered, well, committed} {
			for _, a := range taker.Step(e, now) {
				if _, ok := a.(Import); ok {
					t.Fatalf("after %v and a query: imported", before)
				}
			}
		}
	}
}

func TestReservationStandsAsLongAsAskedButNotLonger(t *testing.T) {
	for _, row := range []struct{ asked, want time.Duration }{
		{time.Second, time.Second}, {time.Hour, DefaultLimits().Reserve},
	} {
		o := offer7
		o.Reserve = row.asked
		taker, now := takerAfter(Received{"rh", o}, well)
		if got := taker.Deadline().Sub(now); got != row.want {
			t.Errorf("asked for %s: stands %s, want %s", row.asked, got, row.want)
		}
	}
}

func TestLowerEpochIsRefused(t *testing.T) {
	taker, now := takerAfter(offered, well) // epoch 3
	newer := Offer{Transfer: 1, Inc: incB, Epoch: 4, Job: "web-a", RecordVersion: RecordVersion, Reserve: time.Second}
	taker.Step(Received{"rh2", newer}, now)
	if got := taker.Epoch(incA.Service.Addr()); got != 4 {
		t.Errorf("epoch %d, want 4", got)
	}
	older := offer7
	older.Transfer = 9
	if got := describeAll(taker.Step(Received{"rh", older}, now)); !slices.Equal(got, []string{"reject 9 epoch rh"}) {
		t.Errorf("offer of epoch 3: %q", got)
	}
	if got := describeAll(taker.Step(committed, now)); !slices.Equal(got, []string{"not-imported 7 epoch rh"}) {
		t.Errorf("commit of epoch 3: %q", got)
	}
	other := offer7
	other.Transfer, other.Inc.Service, other.Inc.Client = 10, ap("10.77.0.11:80"), ap("10.77.0.100:1")
	if got := describeAll(taker.Step(Received{"rh", other}, now)); !slices.Equal(got, []string{"check 10 rh"}) {
		t.Errorf("epoch 3 of another DVIPA: %q", got)
	}
}

func TestLaterOfferTakesTheReservationsPlace(t *testing.T) {
	taker, now := takerAfter(offered, well)
	later := offer7
	later.Transfer = 8
	taker.Step(Received{"rh", later}, now)
	if stateOf(taker) != takerRefused {
		t.Errorf("the older transfer is %s", stateOf(taker))
	}
	if got := describeAll(taker.Step(committed, now)); !slices.Equal(got, []string{"not-imported 7 reservation rh"}) {
		t.Errorf("its commit: %q", got)
	}
	checkTaker(t, taker)
}

func TestReservationsAreBounded(t *testing.T) {
	limits := DefaultLimits()
	limits.Reservations = 2
	taker := NewTaker(limits, nil, nil, t0)
	for i := range 3 {
		o := offer7
		o.Transfer = ID(i + 1)
		o.Inc.IRS += 10 // another life
		o.Inc.IRS = o.Inc.IRS.Add(i)
		want := fmt.Sprintf("check %d rh", i+1)
		if i == 2 {
			want = "reject 3 capacity rh"
		}
		if got := describeAll(taker.Step(Received{"rh", o}, t0)); !slices.Equal(got, []string{want}) {
			t.Errorf("offer %d: %q, want %q", i+1, got, want)
		}
	}
}

func TestMemoryIsBoundedAndForgetsTheOldest(t *testing.T) {
	limits := DefaultLimits()
	limits.Remembered = 2
	taker := NewTaker(limits, nil, nil, t0)
	for id := ID(1); id <= 3; id++ {
		taker.Step(Received{"rh", Commit{Transfer: id}}, t0.Add(time.Duration(id)))
	}
	if _, _, _, past := taker.Counts(); past != 2 || taker.byKey[key{"rh", 1}] != nil || taker.byKey[key{"rh", 3}] == nil {
		t.Errorf("%d remembered, first %v, last %v", past, taker.byKey[key{"rh", 1}], taker.byKey[key{"rh", 3}])
	}
	checkTaker(t, taker)
}

func TestNewLifeOfATupleEndsTheOlder(t *testing.T) {
	taker, now := takerAfter(reachTaker[takerLive]...)
	next := Offer{Transfer: 8, Inc: incB, Epoch: 3, Job: "web-a", RecordVersion: RecordVersion, Reserve: time.Second}
	r := record7()
	r.Inc, r.ReadFrom, r.RcvNxt, r.RcvAcked, r.RcvEdge = incB, 700_001, 700_001, 700_001, 700_001
	r.SndUna, r.SndNxt = 900_001, 900_001
	taker.Step(Received{"rh", next}, now)
	taker.Step(Checked{Host: "rh", Transfer: 8}, now)
	taker.Step(Received{"rh", Commit{8, encoded(r)}}, now)
	got := describeAll(taker.Step(Imported{Host: "rh", Transfer: 8, RcvNxt: 700_001}, now))
	if !slices.Equal(got, []string{"end rh", "imported 8 rh"}) {
		t.Errorf("actions %q", got)
	}
	if _, _, live, past := taker.Counts(); live != 1 || past != 1 {
		t.Errorf("%d live, %d past", live, past)
	}
	tuple := Received{"rh", Query{0, wire.Incarnation{Tuple: incA.Tuple}}}
	reply := taker.Step(tuple, now)[0].(Send).Message.(QueryReply)
	if reply.Inc != incB || reply.State != FlowLive {
		t.Errorf("query of the tuple: %+v", reply)
	}
	checkTaker(t, taker)
}

func TestNewerLifeIsImportedAfterTheResultOfTheOlder(t *testing.T) {
	newer := incA
	newer.IRS++
	offer, rec := offer7, record7()
	offer.Transfer, offer.Inc, rec.Inc = 8, newer, newer
	commit := Received{"rh", Commit{8, encoded(rec)}}
	results := map[string]struct {
		first Event
		end   bool
	}{"made": {made, true}, "not made": {notMade, false}}
	for name, r := range results {
		t.Run(name, func(t *testing.T) {
			taker, now := takerAfter(offered, well, committed, Received{"rh", offer}, Checked{Host: "rh", Transfer: 8})
			actions := taker.Step(commit, now)
			if want := []Action{StopImport{"rh", 7, incA}}; !slices.Equal(actions, want) {
				t.Fatalf("a newer commit makes %v, want %v", actions, want)
			}
			actions = taker.Step(r.first, now)
			if last, ok := actions[len(actions)-1].(Import); !ok || last.Transfer != 8 {
				t.Fatalf("the older result makes %v, want the newer import last", actions)
			}
			actions = taker.Step(Imported{Host: "rh", Transfer: 8, RcvNxt: rec.RcvNxt}, now)
			report := slices.Contains(actions, Action(Send{"rh", EndReport{Inc: incA, Epoch: 3, Job: "web-a"}}))
			if _, _, live, _ := taker.Counts(); live != 1 || report != r.end {
				t.Errorf("%d live, the older one's end reported %t, want 1 and %t", live, report, r.end)
			}
		})
	}
}

// TestOlderLifeIsRefusedAfterTheNewer: the checks of two assigned transfers may end in another order than they began.
func TestOlderLifeIsRefusedAfterTheNewer(t *testing.T) {
	offer, rec := offer7, record7()
	offer.Transfer, offer.Inc, rec.Inc = 8, incB, incB
	newer := Received{"rh", Assign{offer, encoded(rec)}}
	newerWell := Checked{Host: "rh", Transfer: 8}
	newerMade := Imported{Host: "rh", Transfer: 8, RcvNxt: rec.RcvNxt}
	for name, before := range map[string][]Event{
		"importing": {newerWell}, "live": {newerWell, newerMade}, "ended": {newerWell, newerMade, Ended{incB}},
	} {
		t.Run(name, func(t *testing.T) {
			taker, now := takerAfter(append([]Event{assigned, newer}, before...)...)
			_, importing, live, _ := taker.Counts()
			if got := describeAll(taker.Step(well, now)); !slices.Equal(got, []string{"not-imported 7 leftover rh"}) {
				t.Errorf("%q", got)
			}
			if _, i, l, _ := taker.Counts(); i != importing || l != live {
				t.Errorf("%d imports and %d flows became %d and %d", importing, live, i, l)
			}
		})
	}
}

func TestNewerLifeIsRefusedWhenTheOlderHasNoResult(t *testing.T) {
	newer := incA
	newer.IRS++
	offer, rec := offer7, record7()
	offer.Transfer, offer.Inc, rec.Inc = 8, newer, newer
	taker, now := takerAfter(offered, well, committed, Received{"rh", offer}, Checked{Host: "rh", Transfer: 8})
	taker.Step(Received{"rh", Commit{8, encoded(rec)}}, now)
	refusals := 0
	for _, a := range taker.Step(Timeout{}, now.Add(DefaultLimits().Import)) {
		if c, ok := a.(Send); ok && c.Message.(Confirm).Transfer == 8 && !c.Message.(Confirm).Imported {
			refusals++
		}
	}
	if refusals != 1 {
		t.Errorf("%d refusals of the newer, want 1", refusals)
	}
	for _, a := range taker.Step(notMade, now.Add(DefaultLimits().Import)) {
		if _, ok := a.(Import); ok {
			t.Error("a refused transfer is imported")
		}
	}
}

func TestEndIsReportedWhenItsRoutingHostComesBack(t *testing.T) {
	taker, now := takerAfter(reachTaker[takerLive]...)
	taker.Step(PeerLost{"rh"}, now)
	if got := taker.Step(over, now); len(got) != 0 {
		t.Errorf("report without a stream: %q", describeAll(got))
	}
	for range 3 { // nobody could be told: it stays
		taker.Step(Timeout{}, taker.Deadline())
	}
	actions := taker.Step(PeerUp{"rh"}, now)
	if want := (Send{"rh", EndReport{Inc: incA, Epoch: 3, Job: "web-a"}}); len(actions) != 1 || actions[0] != want {
		t.Errorf("actions %+v, want %+v", actions, want)
	}
	taker.Step(Timeout{}, taker.Deadline())
	if stateOf(taker) != takerGone {
		t.Errorf("it is %s after the report", stateOf(taker))
	}
	checkTaker(t, taker)
}

func TestRestartedTakerKnowsItsFlows(t *testing.T) {
	incOld := incA
	incOld.IRS++
	flows := []Flow{
		{Inc: incA, Epoch: 5, Job: "web-a"}, // routing host and transfer unknown
		{Inc: incB, Epoch: 4, Job: "web-b", Host: "rh", Transfer: 8, RcvNxt: 9},
	}
	taker := NewTaker(DefaultLimits(), flows, []Flow{{Inc: incOld, Epoch: 1, Job: "web-a"}}, t0)
	checkTaker(t, taker)
	for _, host := range []string{"rh", "rh2"} { // what ended before is reported to both
		if got := describeAll(taker.Step(PeerUp{host}, t0)); !slices.Equal(got, []string{"end " + host}) {
			t.Errorf("%s came up: %q", host, got)
		}
	}
	if got := slices.Collect(taker.Live()); len(got) != 2 {
		t.Errorf("live %+v", got)
	}
	for range taker.Live() {
		break // may stop early
	}
	rows := []struct {
		event Event
		want  []string
	}{
		{queried, []string{"state 7 live rh"}}, // of the transfer that made it, before the restart
		{queried, []string{"state 7 live rh"}}, // and again
		{Received{"rh", Query{8, incB}}, []string{"state 8 live rh"}},
		{Received{"rh", Query{9, incOld}}, []string{"state 9 ended rh"}},
		{offered, []string{"reject 7 reservation rh"}}, // the query fenced it
		{Received{"rh2", Offer{Transfer: 1, Inc: incA, Epoch: 4, RecordVersion: RecordVersion}},
			[]string{"reject 1 epoch rh2"}},
		{Ended{incA}, []string{"end rh", "end rh2"}}, // to all
		{Ended{incB}, []string{"end rh"}},
		{Received{"rh", Query{0, wire.Incarnation{Tuple: incA.Tuple}}}, []string{"state 0 ended rh"}},
	}
	for _, row := range rows {
		if got := describeAll(taker.Step(row.event, t0)); !slices.Equal(got, row.want) {
			t.Errorf("%+v: %q, want %q", row.event, got, row.want)
		}
	}
	checkTaker(t, taker)
}

func TestQueryOfOneTransferIgnoresAnothersReservation(t *testing.T) {
	taker, now := takerAfter(offered, well)
	got := describeAll(taker.Step(Received{"rh2", Query{7, incA}}, now))
	if !slices.Equal(got, []string{"state 7 unknown rh2"}) {
		t.Errorf("query by another routing host: %q", got)
	}
	if stateOf(taker) != takerReserved {
		t.Errorf("the reservation is %s", stateOf(taker))
	}
}

func TestResultOutOfPlacePanics(t *testing.T) {
	for _, e := range []Event{made, notMade} {
		for _, s := range []takerState{takerGone, takerReserved, takerLive, takerRefused} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%T in %s: no panic", e, s)
					}
				}()
				taker, now := takerAfter(reachTaker[s]...)
				taker.Step(e, now)
			}()
		}
	}
}

func TestNothingWaitsWithoutADeadline(t *testing.T) {
	for s, events := range reachTaker {
		taker, _ := takerAfter(events...)
		waits := s != takerGone && s != takerLive
		if taker.Deadline().IsZero() == waits {
			t.Errorf("%s: deadline %s", s, taker.Deadline())
		}
	}
}

// FuzzTaker: any order of messages and results leaves the Taker's parts in agreement.
func FuzzTaker(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4})
	f.Add([]byte{0, 5, 1, 6, 2, 7, 3, 8, 4, 9})
	f.Fuzz(func(t *testing.T, script []byte) {
		limits := DefaultLimits()
		limits.Reservations, limits.Remembered = 2, 3
		taker, now := NewTaker(limits, nil, nil, t0), t0
		for _, b := range script {
			id := ID(b>>4&3) + 1
			inc := incA
			inc.IRS = inc.IRS.Add(int(b >> 6))
			taker.Step(fuzzEvent(taker, b&15, id, inc), now)
			now = now.Add(time.Duration(b) * time.Millisecond)
			checkTaker(t, taker)
		}
	})
}

// fuzzEvent is event number n about a transfer or an incarnation; a result only where one is due.
func fuzzEvent(taker *Taker, n byte, id ID, inc wire.Incarnation) Event {
	due := func() bool { e := taker.byKey[key{"rh", id}]; return e != nil && e.state == takerImporting }
	switch n {
	case 0:
		return Received{"rh", Offer{Transfer: id, Inc: inc, RecordVersion: RecordVersion, Reserve: time.Second}}
	case 1:
		return Checked{Host: "rh", Transfer: id}
	case 2:
		r := bareRecord()
		r.Inc = inc
		return Received{"rh", Commit{id, encoded(r)}}
	case 3, 4:
		if due() {
			return Imported{Host: "rh", Transfer: id}
		}
	case 5:
		if due() {
			return NotImported{Host: "rh", Transfer: id}
		}
	case 6:
		return Ended{inc}
	case 7:
		return Received{"rh", Query{id, inc}}
	case 8:
		return Received{"rh", Release{id}}
	case 9:
		return PeerLost{"rh"}
	case 10:
		return PeerUp{"rh"}
	case 11:
		return Checked{Host: "rh", Transfer: id, Reason: ReasonHost}
	}
	return Timeout{}
}
