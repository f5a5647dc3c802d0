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
	MeasureIO    Measurement = C.BATON_MEASURE_IO    // source and sink
	MeasureStub  Measurement = C.BATON_MEASURE_STUB  // the pipeline, but each lookup finds the same entry at once
	MeasurePoll  Measurement = C.BATON_MEASURE_POLL  // the pipeline
	MeasureRival Measurement = C.BATON_MEASURE_RIVAL // the pipeline with the table of OpenRival
)

// OpenMemorySource makes port 0 a source without DPDK.
func (f *Forwarder) OpenMemorySource() error { return errno(C.baton_source_memory_open(f.c)) }

// SetSource says what comes next from port 0, which must be a source: frames of so many flows to a service.
func (f *Forwarder) SetSource(kind SourceKind, service uint32, flows uint64) {
	C.baton_source_set(f.c, C.enum_baton_source_kind(kind), C.uint32_t(service), C.uint64_t(flows))
}

// FillTable puts the flows from <= i < to of a source into the CRT, owned by a target.
func (f *Forwarder) FillTable(service uint32, from, to uint64, owner uint16) error {
	err := errno(C.baton_source_fill(f.c, C.uint32_t(service), C.uint64_t(from), C.uint64_t(to), C.uint16_t(owner)))
	if err != nil {
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

// MeasureInsert adds the flows from <= i < to of a source to the CRT, or to the rival, and takes them out again. It
// returns the CPU time of one insertion, in ns, on the calling thread; 0 if the table is full.
func (f *Forwarder) MeasureInsert(service uint32, from, to uint64, rival bool) float64 {
	ns := C.baton_measure_insert(f.c, C.uint32_t(service), C.uint64_t(from), C.uint64_t(to), C.bool(rival))
	return float64(ns) / float64(to-from)
}

// MeasureLines reads so many random cache lines of the CRT in bursts and returns the CPU time of one, in ns.
func (f *Forwarder) MeasureLines(n uint64) float64 {
	return float64(C.baton_measure_lines(f.c, C.uint64_t(n))) / float64(n)
}
