package main

import (
	"encoding/json"
	"math"
	"slices"
	"time"

	"baton/control/admin"
)

// Series is one measured quantity: its samples in the order of the rounds.
type Series []time.Duration

// Quantile returns the q-th quantile (0 to 1): the smallest sample that at least that share of the samples does not
// exceed; 0 without samples.
func (s Series) Quantile(q float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	return sorted[min(max(int(math.Ceil(q*float64(len(s))))-1, 0), len(s)-1)]
}

// MarshalJSON writes quantiles and samples in microseconds.
func (s Series) MarshalJSON() ([]byte, error) {
	samples := make([]micros, len(s))
	for i, d := range s {
		samples[i] = inMicros(d)
	}
	return json.Marshal(struct {
		N       int      `json:"n"`
		P50     micros   `json:"p50_us"`
		P99     micros   `json:"p99_us"`
		Samples []micros `json:"samples_us"`
	}{len(s), inMicros(s.Quantile(0.5)), inMicros(s.Quantile(0.99)), samples})
}

// micros is a duration in microseconds, rounded to 0.1.
type micros float64

func inMicros(d time.Duration) micros { return micros(math.Round(float64(d)/100) / 10) }

// series are all quantities. Defined in bench/README.md.
type series struct {
	Confirmed  Series `json:"decision_to_confirmed"`
	Frozen     Series `json:"decision_to_frozen"`
	Accepted   Series `json:"decision_to_accepted"`
	Committed  Series `json:"commit_to_confirmed"`
	Switched   Series `json:"confirmed_to_switched"`
	FreezeByte Series `json:"freeze_to_first_byte"`
	AskedByte  Series `json:"request_to_first_byte"`
	Decided    Series `json:"request_to_decision"`
	Handshake  Series `json:"syn_to_syn_ack"`
	DirectSYN  Series `json:"syn_to_syn_ack_direct"`
	DirectByte Series `json:"request_to_first_byte_direct"`
	Baton      Series `json:"fetch_baton"`
	Direct     Series `json:"fetch_direct"`
	Trip       Series `json:"xcf_round_trip"`
}

// row is one series with its name for people.
type row struct {
	name string
	s    Series
}

func (s *series) rows() []row {
	return []row{
		{"decision -> confirmed", s.Confirmed},
		{"  decision -> frozen", s.Frozen},
		{"  decision -> accepted", s.Accepted},
		{"  commit -> confirmed", s.Committed},
		{"confirmed -> switched", s.Switched},
		{"freeze -> first byte", s.FreezeByte},
		{"request -> first byte", s.AskedByte},
		{"  request -> decision", s.Decided},
		{"SYN -> SYN-ACK", s.Handshake},
		{"fetch through Baton", s.Baton},
		{"fetch directly", s.Direct},
		{"  SYN -> SYN-ACK", s.DirectSYN},
		{"  request -> first byte", s.DirectByte},
		{"XCF round trip", s.Trip},
	}
}

// briefly are the rows of another way than the usual one in which that differs.
func (s *series) briefly(way string) []row {
	rows := []row{
		{way + ": decision -> confirmed", s.Confirmed},
		{"  decision -> accepted", s.Accepted},
		{"  commit -> confirmed", s.Committed},
		{"  fetch through Baton", s.Baton},
		{"  XCF round trip", s.Trip},
	}
	return slices.DeleteFunc(rows, func(r row) bool { return len(r.s) == 0 })
}

// add takes in one round and what the router says about its transfer. The router and the capture read the same clock.
func (s *series) add(r round, t admin.Transfer) {
	phase := func(name string) time.Duration { return seconds(t.Phases[name]) }
	put := func(to *Series, d time.Duration) { *to = append(*to, d) }
	put(&s.Confirmed, seconds(t.Total)-phase("switched"))
	put(&s.Frozen, phase("frozen"))
	if accepted := phase("accepted"); accepted > 0 { // not if it was never offered
		put(&s.Accepted, accepted)
	}
	put(&s.Committed, phase("confirmed"))
	put(&s.Switched, phase("switched"))
	put(&s.FreezeByte, r.baton.answered.Sub(t.Time))
	put(&s.AskedByte, r.baton.answered.Sub(r.baton.asked))
	put(&s.Decided, t.Time.Sub(r.baton.asked))
	put(&s.Handshake, r.baton.synAck.Sub(r.baton.syn))
	put(&s.DirectSYN, r.direct.synAck.Sub(r.direct.syn))
	put(&s.DirectByte, r.direct.answered.Sub(r.direct.asked))
	put(&s.Baton, r.baton.took)
	put(&s.Direct, r.direct.took)
	put(&s.Trip, r.trip)
}

func seconds(s float64) time.Duration { return time.Duration(math.Round(s * float64(time.Second))) }
