package main

import (
	"os"
	"strings"
	"testing"

	"baton/bench/judge"
	"baton/bench/lab"
)

func TestMain(m *testing.M) {
	lab.RunWatcher()
	os.Exit(m.Run())
}

func TestScenariosAreNamedOnceAndSayWhatTheyClaim(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range scenarios {
		if s.Name == "" || s.Doc == "" || s.Run == nil {
			t.Errorf("scenario %q lacks a name, a doc or a run", s.Name)
		}
		if seen[s.Name] {
			t.Errorf("scenario %s is there twice", s.Name)
		}
		seen[s.Name] = true
	}
}

func TestChooseRefusesWhatMatchesNothing(t *testing.T) {
	if _, err := choose("no-such-scenario"); err == nil {
		t.Error("a name that matches nothing passes")
	}
	if _, err := choose("["); err == nil {
		t.Error("a broken expression passes")
	}
	if got, err := choose("^http-host$"); err != nil || len(got) != 1 {
		t.Errorf("chose %d scenarios, %v", len(got), err)
	}
}

func TestScenariosOfOneShapeStandTogether(t *testing.T) {
	one, other, private := Shape{}, Shape{Targets: 3}, Shape{Private: true}
	list := []Scenario{{Name: "a", Shape: one}, {Name: "b", Shape: private}, {Name: "c", Shape: other},
		{Name: "d", Shape: one}, {Name: "e", Shape: private}, {Name: "f", Shape: other}}
	var order string
	for _, s := range grouped(list) {
		order += s.Name
	}
	if order != "adbcfe" {
		t.Errorf("order %s, want adbcfe", order)
	}
}

func TestExpectNamesWhatIsWrong(t *testing.T) {
	transferred := judge.Conn{Transferred: true}
	late := judge.Conn{Transferred: true, Handover: 1, Retransmissions: 1}
	for name, row := range map[string]struct {
		expect Expect
		report judge.Report
		wrong  string // part of the error; "" for none
	}{
		"nothing asked":            {Expect{}, judge.Report{Conns: []judge.Conn{transferred}}, ""},
		"broken rule":              {Expect{}, judge.Report{Violations: []judge.Violation{{Rule: judge.Checksum}}}, "checksum"},
		"reset":                    {Expect{}, judge.Report{Resets: 1}, "1 resets, want 0"},
		"reset expected":           {Expect{Resets: 1}, judge.Report{Resets: 1}, ""},
		"reset missing":            {Expect{Resets: 1}, judge.Report{}, "0 resets, want 1"},
		"retransmission":           {Expect{}, judge.Report{Conns: []judge.Conn{late}}, "retransmissions"},
		"retransmission reported":  {Expect{Retransmissions: true}, judge.Report{Conns: []judge.Conn{late}}, ""},
		"connection too many":      {Expect{Connections: 1}, judge.Report{Conns: []judge.Conn{late, late}}, "2 connections"},
		"transferred and should":   {Expect{Transferred: 1}, judge.Report{Conns: []judge.Conn{transferred}}, ""},
		"transferred and must not": {Expect{Transferred: None}, judge.Report{Conns: []judge.Conn{transferred}}, "want 0"},
		"not transferred":          {Expect{Transferred: 1}, judge.Report{Conns: []judge.Conn{{}}}, "0 transferred"},
	} {
		t.Run(name, func(t *testing.T) {
			err := row.expect.check(row.report)
			if (err == nil) != (row.wrong == "") || err != nil && !strings.Contains(err.Error(), row.wrong) {
				t.Errorf("error %v, want one with %q", err, row.wrong)
			}
		})
	}
}

func TestLaboratoryIsSharedByEqualShapes(t *testing.T) {
	for name, row := range map[string]struct {
		a, b Shape
		want bool
	}{
		"equal":         {Shape{}, Shape{}, true},
		"private":       {Shape{}, Shape{Private: true}, false},
		"other cluster": {Shape{}, Shape{Cluster: impatient()}, false},
		"same cluster":  {Shape{Cluster: impatient()}, Shape{Cluster: impatient()}, true},
		"other server":  {Shape{}, Shape{Server: nginx}, false},
	} {
		if got := row.a.sharedBy(row.b); got != row.want {
			t.Errorf("%s: shared %v, want %v", name, got, row.want)
		}
	}
}
