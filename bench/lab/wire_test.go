package lab

import (
	"fmt"
	"testing"
	"time"

	"baton/bench/faults"
	"baton/bench/judge"
	"baton/fastpath/wire"
)

// fetch gets a page from a host's own address.
func fetch(t *testing.T, l *Lab, h *Host) {
	t.Helper()
	if _, err := l.Client.Curl(deadline(t), fmt.Sprintf("http://%v/", h.Data.Addr())); err != nil {
		t.Fatal(err)
	}
}

func TestBadWireFaultsRecordsAndIsPutBack(t *testing.T) {
	l := newLab(t, Options{})
	h := l.Targets[0]
	if _, err := h.Nginx(deadline(t), ServerOptions{}); err != nil {
		t.Fatal(err)
	}
	censored := 0
	b, err := l.Client.Spoil(DataInterface, Wire{
		Down: faults.Rates{Repeat: 100},
		Censor: func(up bool, f wire.Frame) bool { // the first SYN
			lost := up && f.Segment.Flags.Has(wire.SYN) && censored == 0
			if lost {
				censored++
			}
			return lost
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	fetch(t, l, h)
	if up, down := b.Count(); censored != 1 || down.Repeated == 0 || down.Repeated != down.Carried || up.Faults() != 0 {
		t.Errorf("%d censored, up %+v, down %+v", censored, up, down)
	}
	b.Mend()
	_, before := b.Count()
	fetch(t, l, h)
	if _, after := b.Count(); after != before {
		t.Errorf("mended, and still %+v, then %+v", before, after)
	}
	if err := b.Quiet(deadline(t), 100*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	capture, err := b.Stop(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	e := direct(t, h)
	e.Allow = []judge.Rule{judge.NoRST} // a server's answer to what is repeated after the end
	r := judge.Judge(capture, e)
	if !r.Pass() || len(r.Conns) != 2 || r.Retransmissions() != 1 {
		t.Errorf("%v, %s; want two connections and one SYN repeated", r.Violations, r.Summary())
	}
	fetch(t, l, h) // by the old cable
	if b, err = l.Client.Spoil(DataInterface, Wire{}); err != nil {
		t.Fatalf("a second time: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

func TestWireNeedsItsInterface(t *testing.T) {
	l := newLab(t, Options{})
	if b, err := l.Client.Spoil(XCFInterface, Wire{}); err == nil { // it has none
		t.Error(b.Close(), "a wire where there is no interface")
	}
}
