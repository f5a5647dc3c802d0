package inspect

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Choice is where a rule sends who it matches. Exactly one of Job, Map and Hash is given.
type Choice struct {
	Job  string            // this one
	Map  map[string]string // the job of the key; who has another key goes on to the next rule
	Hash []string          // one of these by the key: the same on every host, as long as the list has it
}

// Errors of choices.
var (
	// ErrJob is returned for a rule without a job.
	ErrJob = errors.New("rule without a job: want a job, a map or a hash")
	// ErrMap is returned for a map that has a key or a job that cannot be.
	ErrMap = errors.New("bad map")
)

// check returns why the choice cannot be used.
func (c Choice) check() error {
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
	}
	for _, key := range slices.Sorted(maps.Keys(c.Map)) {
		if job := c.Map[key]; key == "" || job == "" {
			return fmt.Errorf("%w: %q has the job %q", ErrMap, key, job)
		}
	}
	return nil
}

// goesBy returns which of some values, by their names, the choice goes by: the first one without a By.
func (c Choice) goesBy(by string, names ...string) (int, error) {
	i := slices.Index(names, by)
	switch {
	case by == "":
		return 0, nil
	case i < 0:
		return 0, fmt.Errorf("%w: %q: want %s", ErrBy, by, strings.Join(names, " or "))
	case c.Job != "":
		return 0, fmt.Errorf("%w: %q is for a map or a hash, the rule has a job", ErrBy, by)
	}
	return i, nil
}

// ofValue is of for a client that may have no such value, and then no job by it.
func (c *Choice) ofValue(value string) string {
	if c.Job == "" && value == "" {
		return ""
	}
	return c.of(value)
}

// normal is the choice with a map whose keys a parser has brought into the form that is compared.
func (c Choice) normal(parse func(string) (string, error)) (Choice, error) {
	if c.Map == nil {
		return c, nil
	}
	normal, first := make(map[string]string, len(c.Map)), make(map[string]string, len(c.Map))
	for _, key := range slices.Sorted(maps.Keys(c.Map)) {
		n, err := parse(key)
		switch other, twice := first[n]; {
		case err != nil:
			return c, fmt.Errorf("%w: %w", ErrMap, err)
		case n == "":
			return c, fmt.Errorf("%w: %q: a regular expression cannot be looked up", ErrMap, key)
		case twice:
			return c, fmt.Errorf("%w: %q and %q are the same", ErrMap, other, key)
		}
		first[n], normal[n] = key, c.Map[key]
	}
	c.Map = normal
	return c, nil
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
