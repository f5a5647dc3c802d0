package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Duration is a length of time as the file writes it: 250us, 20ms, 1m30s. Never negative.
type Duration time.Duration

// UnmarshalText reads a duration in Go's syntax.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil || v < 0 {
		return fmt.Errorf("%q is no duration: want a number with its unit as in 250us, 20ms, 10s, 5m", text)
	}
	*d = Duration(v)
	return nil
}

// String prints the duration as a file would have it: 1m, not 1m0s; 50us, not 50µs.
func (d Duration) String() string {
	s := strings.Replace(time.Duration(d).String(), "µ", "u", 1)
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// CPUs are those of the poll loops, one each; none: the last ones of the process's affinity mask.
type CPUs []int

// maxCPU is a bound for typing errors, above any machine that DPDK runs on.
const maxCPU = 1023

// UnmarshalText reads "auto" or CPU numbers with commas between them.
func (c *CPUs) UnmarshalText(text []byte) error {
	*c = nil
	if string(text) == "auto" {
		return nil
	}
	for word := range strings.SplitSeq(string(text), ",") {
		n, err := strconv.Atoi(strings.TrimSpace(word))
		if err != nil || n < 0 || n > maxCPU {
			return fmt.Errorf("%q is no CPU: want auto, or numbers from 0 to %d as in 2,3", word, maxCPU)
		}
		if slices.Contains(*c, n) {
			return fmt.Errorf("CPU %d is there twice", n)
		}
		*c = append(*c, n)
	}
	return nil
}

// String prints the CPUs as the file would have them.
func (c CPUs) String() string {
	if len(c) == 0 {
		return "auto"
	}
	words := make([]string, len(c))
	for i, n := range c {
		words[i] = strconv.Itoa(n)
	}
	return strings.Join(words, ",")
}

// Switch is on or off.
type Switch bool

// UnmarshalText reads true or false.
func (s *Switch) UnmarshalText(text []byte) error {
	if string(text) != "true" && string(text) != "false" {
		return fmt.Errorf("%q: want true or false", text)
	}
	*s = string(text) == "true"
	return nil
}

// String prints the switch as the file would have it.
func (s Switch) String() string { return strconv.FormatBool(bool(s)) }
