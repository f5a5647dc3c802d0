package router

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"baton/fastpath/flow"
)

// direct is a conventional service of job web-a, on t1 and t2.
var direct = netip.MustParseAddrPort("10.77.0.11:80")

func conventional(d flow.Distribution, weights map[string]uint16) func(*Config) {
	return func(c *Config) {
		c.Services = append(c.Services, Service{Address: direct, Distribution: d, Job: "web-a", Weights: weights})
	}
}

// directJob is what a target announces of its job for the conventional service.
func directJob() Job { return Job{Name: "web-a", Service: direct, Ready: true, Direct: true} }

// targetsNow is what was published last, and how often something was.
func (w *world) targetsNow() (flow.Targets, int) {
	all := w.plane.targets[direct]
	if len(all) == 0 {
		return flow.Targets{}, 0
	}
	return all[len(all)-1], len(all)
}

func (w *world) wantTargets(when string, recovers bool, want ...flow.Candidate) {
	w.t.Helper()
	got, _ := w.targetsNow()
	if !slices.Equal(got.Candidates, want) || got.Recovers != recovers {
		w.t.Errorf("%s: targets %+v, recovers %t; want %+v, %t", when, got.Candidates, got.Recovers, want, recovers)
	}
}

func (w *world) announce(host string, jobs ...Job) {
	w.router.HostUp(host)
	w.router.HostJobs(host, jobs)
	w.run()
}

func (w *world) drain(host string, drain bool) (err error) {
	done := make(chan struct{})
	go func() {
		err = w.router.Drain(context.Background(), host, drain)
		close(done)
	}()
	for {
		select {
		case <-done:
			return err
		default:
			w.run()
		}
	}
}

func TestTargetsOfAConventionalServiceComeAndGo(t *testing.T) {
	w := bareWorld(t, conventional(flow.Weighted, map[string]uint16{"t1": 3}))
	t1, t2 := flow.Candidate{Owner: 1, Weight: 3}, flow.Candidate{Owner: 2, Weight: 1}
	w.announce("t1", directJob())
	w.wantTargets("one of two is up", false, t1)
	w.announce("t2", directJob())
	w.wantTargets("both are up", true, t1, t2)
	down := directJob()
	down.Ready = false
	w.router.HostJobs("t1", []Job{down})
	w.run()
	w.wantTargets("one has no listener", true, t2)
	w.router.HostDown("t2")
	w.run()
	w.wantTargets("the other has no stream", true)
	w.announce("t2", directJob())
	w.wantTargets("it is back", true, t2)
	w.plane.answerARP = false
	w.advance(time.Minute)
	w.wantTargets("it does not answer on the data network", true)
	w.plane.answerARP = true
	w.advance(2 * time.Second)
	w.wantTargets("it answers again", true, t2)
}

func TestNothingIsPublishedTwice(t *testing.T) {
	w := bareWorld(t, conventional(flow.Maglev, nil))
	for range 5 {
		w.announce("t1", directJob())
		w.announce("t2", directJob())
	}
	_, before := w.targetsNow()
	for range 5 {
		w.router.HostJobs("t1", []Job{directJob()})
		w.advance(time.Minute)
	}
	if _, n := w.targetsNow(); n != before {
		t.Errorf("published %d times more, although nothing changed", n-before)
	}
}

// TestSettling has a target that never comes: the tables decide about unknown flows when it had its time.
func TestSettling(t *testing.T) {
	w := bareWorld(t, conventional(flow.Maglev, nil))
	t1 := flow.Candidate{Owner: 1, Weight: 1}
	w.announce("t1", directJob())
	w.advance(settleTime - time.Second)
	w.wantTargets("before", false, t1)
	w.advance(time.Second)
	w.wantTargets("after", true, t1)
}

func TestMaglevTableIsOfTheTargets(t *testing.T) {
	w := bareWorld(t, conventional(flow.Maglev, map[string]uint16{"t1": 3}))
	w.announce("t1", directJob())
	w.announce("t2", directJob())
	got, _ := w.targetsNow()
	share := map[flow.OwnerID]int{}
	for _, owner := range got.Table {
		share[owner]++
	}
	if len(got.Table) != 65537 || len(share) != 2 || share[1] < 49100 || share[1] > 49200 {
		t.Errorf("of %d places the targets have %v, want 3 to 1 of 65537", len(got.Table), share)
	}
}

func TestDrain(t *testing.T) {
	t1, t2 := flow.Candidate{Owner: 1, Weight: 1}, flow.Candidate{Owner: 2, Weight: 1}
	w := bareWorld(t, conventional(flow.RoundRobin, nil))
	for _, host := range []string{"t1", "t2"} {
		w.announce(host, append(ready("web-a", "web-b"), directJob())...)
	}
	if err := w.drain("t1", true); err != nil {
		t.Fatal(err)
	}
	w.wantTargets("drained", true, t2)
	if fit, why := w.router.candidates("web-a", w.router.services[service]); !slices.Equal(fit, []string{"t2"}) {
		t.Errorf("content-routed candidates %v: %s", fit, why)
	}
	w.announce("t1", append(ready("web-a", "web-b"), directJob())...)
	w.wantTargets("drained, and connected anew", true, t2)
	if err := w.drain("t1", false); err != nil {
		t.Fatal(err)
	}
	w.wantTargets("not drained any more", true, t1, t2)
	if fit, why := w.router.candidates("web-a", w.router.services[service]); !slices.Equal(fit, []string{"t1", "t2"}) {
		t.Errorf("content-routed candidates %v: %s", fit, why)
	}
	if err := w.drain("t9", true); !errors.Is(err, ErrNoTarget) {
		t.Errorf("drain of a stranger: %v", err)
	}
}

func TestWeightZeroIsForNobody(t *testing.T) {
	w := bareWorld(t, conventional(flow.LeastConn, map[string]uint16{"t1": 0}))
	w.announce("t2", directJob())
	w.wantTargets("without t1", true, flow.Candidate{Owner: 2, Weight: 1})
	w.announce("t1", directJob())
	w.wantTargets("with t1", true, flow.Candidate{Owner: 2, Weight: 1})
}

// TestJobsAreForTheirDistribution gives no connection to a target that would drop it.
func TestJobsAreForTheirDistribution(t *testing.T) {
	w := bareWorld(t, conventional(flow.RoundRobin, nil))
	handed, straight := ready("web-a")[0], directJob()
	handed.Service, straight.Service = direct, service
	w.announce("t1", handed, straight)
	w.announce("t2")
	w.advance(settleTime)
	w.wantTargets("handed-over connections only", true)
	if fit, _ := w.router.candidates("web-a", w.router.services[service]); len(fit) != 0 {
		t.Errorf("content-routed candidates %v although the job is direct", fit)
	}
}

func TestServicesTellWhoGetsConnections(t *testing.T) {
	w := bareWorld(t, conventional(flow.Weighted, map[string]uint16{"t1": 0}))
	w.announce("t1", directJob())
	rows := w.router.serviceStatus(w.router.services[direct])
	if len(rows) != 2 || rows[0].Host != "t1" || rows[0].Unfit != "weight 0" || rows[1].Weight != 1 || rows[1].Unfit != "not connected" {
		t.Errorf("rows %+v", rows)
	}
}
