package config

import (
	"fmt"
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

// Lcore is the CPU of a poll loop, or AutoLcore.
type Lcore int

// AutoLcore takes the last CPU of the process's affinity mask.
const AutoLcore Lcore = -1

// maxLcore is a bound for typing errors, above any machine that DPDK runs on.
const maxLcore = 1023

// UnmarshalText reads "auto" or a CPU number.
func (l *Lcore) UnmarshalText(text []byte) error {
	if string(text) == "auto" {
		*l = AutoLcore
		return nil
	}
	n, err := strconv.Atoi(string(text))
	if err != nil || n < 0 || n > maxLcore {
		return fmt.Errorf("%q is no CPU: want auto or a number from 0 to %d", text, maxLcore)
	}
	*l = Lcore(n)
	return nil
}

// String prints the CPU as the file would have it.
func (l Lcore) String() string {
	if l == AutoLcore {
		return "auto"
	}
	return strconv.Itoa(int(l))
}
