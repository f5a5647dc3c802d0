package target

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"baton/control/transfer"
	"baton/fastpath/wire"
)

// A restarted agent finds the flows as they were written.
func TestFlowsOutliveTheirProcess(t *testing.T) {
	needRoot(t)
	dir := newPinDir(t)
	live := Flow{
		Flow: transfer.Flow{
			Inc:   wire.Incarnation{Tuple: wire.Tuple{Client: client4, Service: service4}, IRS: 1, ISS: 0xffffffff},
			Epoch: 7, Job: "web", Host: "rh1", Transfer: 5, RcvNxt: 99,
		},
		Since: time.Unix(1, 2),
	}
	forgotten := Flow{
		Flow:  transfer.Flow{Inc: wire.Incarnation{Tuple: wire.Tuple{Client: client6, Service: service6}, IRS: 3, ISS: 4}},
		Since: time.Unix(5, 6),
	}
	f, err := openFlows(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, flow := range []Flow{live, forgotten} {
		if err := f.put(flow); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	if f, err = openFlows(dir); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 2 { // forgetting twice is no error
		if err := f.forget(forgotten.Inc); err != nil {
			t.Fatal(err)
		}
	}
	got, err := f.all()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Flow{live}, got, cmp.Comparer(func(a, b wire.Incarnation) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}
