package main

import (
	"strings"
	"testing"

	"baton/control/target"
)

func TestWhoContinuesConnections(t *testing.T) {
	able := func() target.Check { return target.Check{Name: "kernel", OK: true} }
	unable := func() target.Check { return target.Check{Name: "kernel", Detail: "use another kernel"} }
	for name, row := range map[string]struct {
		how    string
		kernel func() target.Check
		want   bool
		why    string
	}{
		"able kernel":         {"auto", able, false, "kernels continue"},
		"unable kernel":       {"auto", unable, true, "use another kernel"},
		"forced to userspace": {"userspace", able, true, "in userspace"},
		"forced to kernel":    {"kernel", unable, false, "kernels continue"},
	} {
		got, why, err := inUserspace(row.how, row.kernel)
		if err != nil || got != row.want || !strings.Contains(why, row.why) {
			t.Errorf("%s: userspace %v (%s), %v", name, got, why, err)
		}
	}
	if _, _, err := inUserspace("kernal", able); err == nil {
		t.Error("a mistyped word passes")
	}
}
