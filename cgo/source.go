package cgo

/*
#include "source.h"
*/
import "C"

import "fmt"

// SourceKind says what frames a source makes: enum baton_source_kind.
type SourceKind uint32

// The kinds of frames.
const (
	SourceHit     SourceKind = C.BATON_SOURCE_HIT
	SourceInsert  SourceKind = C.BATON_SOURCE_INSERT
	SourceSYN     SourceKind = C.BATON_SOURCE_SYN
	SourceForged  SourceKind = C.BATON_SOURCE_FORGED
	SourceNotOurs SourceKind = C.BATON_SOURCE_NOT_OURS
)

// Measurement says what is measured: enum baton_measure.
type Measurement uint32

// What can be measured.
const (
	MeasureIO   Measurement = C.BATON_MEASURE_IO
	MeasurePoll Measurement = C.BATON_MEASURE_POLL
)

// OpenMemorySource makes port 0 a source without DPDK.
func (f *Forwarder) OpenMemorySource() error { return errno(C.baton_source_memory_open(f.c)) }

// SetSource says what comes next from port 0, which must be a source: frames of so many flows to a service.
func (f *Forwarder) SetSource(kind SourceKind, service uint32, flows uint64) {
	C.baton_source_set(f.c, C.enum_baton_source_kind(kind), C.uint32_t(service), C.uint64_t(flows))
}

// FillTable puts the flows from <= i < to of a source into the CRT, owned by a target.
func (f *Forwarder) FillTable(service uint32, from, to uint64, owner uint16) error {
	if err := errno(C.baton_source_fill(f.c, C.uint32_t(service), C.uint64_t(from), C.uint64_t(to), C.uint16_t(owner))); err != nil {
		return fmt.Errorf("fill the table: %w", err)
	}
	return nil
}

// Measure handles at least so many frames of the source and returns the CPU time that a frame takes, in ns, on the
// calling thread.
func (f *Forwarder) Measure(what Measurement, packets uint64) float64 {
	var done C.uint64_t
	ns := C.baton_measure(f.c, C.enum_baton_measure(what), C.uint64_t(packets), &done)
	return float64(ns) / float64(done)
}
