package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// Errors of a whole file.
var (
	// ErrTooLarge is returned for a file above MaxSize, or a map above MaxMap.
	ErrTooLarge = errors.New("configuration file too large")
	// ErrInvalid is what every Problem of a load is, for errors.Is.
	ErrInvalid = errors.New("invalid configuration")
)

// MaxSize bounds a configuration file, octets.
const MaxSize = 1 << 20

// Problem is one thing wrong with a configuration file, or as a warning: probably wrong.
type Problem struct {
	File    string
	Line    int    // from 1; 0: of the whole file
	Column  int    // from 1, in characters
	Key     string // as in "dvipas[0].ports[0].window"; "" for the file's syntax
	Message string // what is wrong, and what would be right
}

// Error prints the problem as compilers do, file:line:column first.
func (p *Problem) Error() string {
	at := p.File
	if p.Line > 0 {
		at = fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
	}
	if p.Key == "" {
		return at + ": " + p.Message
	}
	return at + ": " + p.Key + ": " + p.Message
}

// Is makes errors.Is(err, ErrInvalid) hold for what a load returns.
func (p *Problem) Is(target error) bool { return target == ErrInvalid }

// place is where in the file something stands.
type place struct{ line, column int }

// report collects the problems of one file.
type report struct {
	file     string
	places   map[string]place // by key; of the value where there is one
	problems []*Problem
	warnings []*Problem
}

// failf reports a problem of the value of key. If the file does not have the key, the place is that of what contains
// it.
func (r *report) failf(key, format string, args ...any) {
	r.problems = append(r.problems, r.problem(key, format, args...))
}

// warnf reports what is legal and probably not meant.
func (r *report) warnf(key, format string, args ...any) {
	r.warnings = append(r.warnings, r.problem(key, format, args...))
}

func (r *report) problem(key, format string, args ...any) *Problem {
	at := r.locate(key)
	return &Problem{File: r.file, Line: at.line, Column: at.column, Key: key, Message: fmt.Sprintf(format, args...)}
}

// locate returns the place of key, or of the nearest part of the file that contains it.
func (r *report) locate(key string) place {
	for ; key != ""; key = container(key) {
		if at, ok := r.places[key]; ok {
			return at
		}
	}
	return place{1, 1}
}

// maxProblems bounds what is reported of one file.
const maxProblems = 50

// err joins the problems in the order of the file, or returns nil.
func (r *report) err() error {
	sortProblems(r.problems)
	var all []error
	for _, p := range r.problems[:min(len(r.problems), maxProblems)] {
		all = append(all, p)
	}
	if more := len(r.problems) - maxProblems; more > 0 {
		all = append(all, fmt.Errorf("%s: and %d more problems", r.file, more))
	}
	return errors.Join(all...)
}

func sortProblems(all []*Problem) {
	slices.SortStableFunc(all, func(a, b *Problem) int {
		return cmp.Or(a.Line-b.Line, a.Column-b.Column)
	})
}
