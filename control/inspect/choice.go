package inspect

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Choice is where a rule sends who it matches. Exactly one of Job, Map and Hash is given.
type Choice struct {
	Job  string            // this one
	Map  map[string]string // the job of the key; who has another key goes on to the next rule
	Hash []string          // one of these by the key: the same on every host, as long as the list has it
	By   string            // the key of Map and Hash, of those that the protocol has; "": the first of them
}

// Errors of choices.
var (
	// ErrJob is returned for a rule without a job.
	ErrJob = errors.New("rule without a job: want a job, a map or a hash")
	// ErrMap is returned for a map that has a key or a job that cannot be.
	ErrMap = errors.New("bad map")
	// ErrBy is returned for a key that the protocol does not have.
	ErrBy = errors.New("bad key")
)

// check returns why the choice cannot be used with a protocol's keys, of which the first is the usual one.
func (c Choice) check(keys ...string) error {
	given := 0
	for _, is := range []bool{c.Job != "", c.Map != nil, c.Hash != nil} {
		if is {
			given++
		}
	}
	switch {
	case given == 0:
		return ErrJob
	case given > 1:
		return fmt.Errorf("%w: it has a job, a map or a hash, and only one of them", ErrMap)
	case slices.Contains(c.Hash, ""):
		return ErrJob
	case c.By != "" && c.Job != "":
		return fmt.Errorf("%w: %q is for a map or a hash", ErrBy, c.By)
	case c.By != "" && !slices.Contains(keys, c.By):
		return fmt.Errorf("%w: %q: want one of %q", ErrBy, c.By, keys)
	}
	for key, job := range c.Map {
		if key == "" || job == "" {
			return fmt.Errorf("%w: %q has the job %q", ErrMap, key, job)
		}
	}
	return nil
}

// of returns the job for a key, "" if the map does not have it.
func (c *Choice) of(key string) string {
	switch {
	case c.Job != "":
		return c.Job
	case c.Map != nil:
		return c.Map[key]
	}
	return rendezvous(c.Hash, key)
}

// rendezvous returns the job whose hash with the key is the highest. When a job is added or taken away, no key moves but
// those that it gets or had (Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998).
func rendezvous(jobs []string, key string) (best string) {
	var highest uint64
	for _, job := range jobs {
		sum := sha256.Sum256([]byte(job + "\x00" + key))
		if h := binary.BigEndian.Uint64(sum[:]); best == "" || h > highest {
			best, highest = job, h
		}
	}
	return best
}
