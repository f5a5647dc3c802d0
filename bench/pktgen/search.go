package main

import (
	"fmt"

	"github.com/spf13/pflag"
)

// search finds the highest rate at which no more than a tolerated part of the frames is lost (RFC 2544 26.1).
type search struct {
	most       float64 // frames per second: the highest rate tried, and the first
	tolerance  float64 // percent of the frames
	resolution float64 // percent of most
	least      float64 // percent of most: the search gives up below
}

func (s *search) flags(f *pflag.FlagSet) {
	f.Float64Var(&s.tolerance, "tolerance", 0, "percent of frames that may be lost; RFC 2544: 0")
	f.Float64Var(&s.resolution, "resolution", 1, "percent of --rate: how near the result is")
	f.Float64Var(&s.least, "least", 0.1, "percent of --rate: give up below")
}

// passes says whether a trial counts as without loss: nothing was given up, and what was sent came back.
func (s *search) passes(t Trial) bool { return t.Skipped == 0 && t.LossPercent <= s.tolerance }

// run bisects. It returns the best trial that passed, or an error if none did.
func (s *search) run(trial func(pps float64) (Trial, error)) (best *Trial, err error) {
	if s.most <= 0 || s.resolution <= 0 || s.tolerance < 0 {
		return nil, fmt.Errorf("search up to %g per second, in steps of %g %%: both must be positive", s.most, s.resolution)
	}
	low, high := 0.0, s.most
	for pps := s.most; ; pps = (low + high) / 2 {
		t, err := trial(pps)
		if err != nil {
			return best, err
		}
		if s.passes(t) {
			low, best = pps, &t
		} else {
			high = pps
		}
		switch {
		case low == s.most, best != nil && high-low <= s.most*s.resolution/100:
			return best, nil
		case best == nil && high < s.most*s.least/100:
			return nil, fmt.Errorf("at %.0f per second still %.4g %% are lost and %d given up", pps, t.LossPercent, t.Skipped)
		}
	}
}

// lossSteps tries 100 %, 100 - step %, ... of a rate until two trials in a row lost nothing (RFC 2544 26.3).
func lossSteps(most, step float64, trial func(pps float64) (Trial, error)) error {
	if step <= 0 || step > 50 {
		return fmt.Errorf("step %g %%: more than 0 and at most 50", step)
	}
	good := 0
	for i := 0; good < 2 && 100-float64(i)*step > 0; i++ {
		t, err := trial(most * (100 - float64(i)*step) / 100)
		if err != nil {
			return err
		}
		good++
		if t.Lost > 0 || t.Skipped > 0 {
			good = 0
		}
	}
	return nil
}
