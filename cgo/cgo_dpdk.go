//go:build dpdk

package cgo

/*
#cgo pkg-config: libdpdk
#include <stdlib.h>
#include "port_dpdk.h"
#include "source_dpdk.h"
*/
import "C"

import (
	"errors"
	"runtime"
	"unsafe"
)

// HasDPDK says whether this build can open DPDK ports.
const HasDPDK = true

var errEALTwice = errors.New("DPDK can be started once per process")

// onMain runs functions on the EAL's main thread; nil until StartEAL.
var onMain chan func()

// mainThread serves onMain for the rest of the process's life: the thread is the EAL's main lcore.
func mainThread() {
	runtime.LockOSThread()
	for f := range onMain {
		f()
	}
}

// mainDo runs f on the EAL's main thread and waits for it.
func mainDo(f func()) {
	done := make(chan struct{})
	onMain <- func() {
		f()
		close(done)
	}
	<-done
}

// StartEAL is rte_eal_init with these arguments. Not concurrent with itself.
func StartEAL(args []string) error {
	if onMain != nil {
		return errEALTwice
	}
	onMain = make(chan func())
	go mainThread()
	argv := (**C.char)(C.calloc(C.size_t(len(args)+1), C.size_t(unsafe.Sizeof(uintptr(0))))) // the EAL keeps it
	for i, arg := range args {
		unsafe.Slice(argv, len(args))[i] = C.CString(arg)
	}
	var err error
	mainDo(func() { err = errno(C.baton_dpdk_init(C.int(len(args)), argv)) })
	return err
}

// OpenDPDK makes the ethdev of that name port i. f is alone, or the first shard: then the port is opened for all.
func (f *Forwarder) OpenDPDK(i uint16, name string) error {
	c := C.CString(name)
	defer C.free(unsafe.Pointer(c))
	var err error
	mainDo(func() { err = errno(C.baton_port_dpdk_open(f.c, C.uint16_t(i), c)) })
	return err
}

// StartLcore runs the loop on the EAL's worker lcore of its shard.
func (f *Forwarder) StartLcore() error {
	var err error
	mainDo(func() { err = errno(C.baton_dpdk_launch(f.c)) })
	return err
}

// StopLcore ends the loop that StartLcore began and waits for it.
func (f *Forwarder) StopLcore() {
	mainDo(func() { C.baton_dpdk_halt(f.c) })
}

var statNames = [C.BATON_DPDK_STATS]string{
	"rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "rx_missed", "rx_errors", "tx_errors", "rx_no_buffer",
	"free_buffers",
}

// Driver reads the driver's name, the link state and rte_eth_stats of DPDK port i. stats is nil when it has none.
func (f *Forwarder) Driver(i uint16) (name string, up bool, stats map[string]uint64) {
	var text [64]C.char
	var values [C.BATON_DPDK_STATS]C.uint64_t
	up = C.baton_dpdk_driver(f.c, C.uint16_t(i), &text[0], C.size_t(len(text))) == 1
	if C.baton_dpdk_stats(f.c, C.uint16_t(i), &values[0]) == 0 {
		stats = map[string]uint64{}
		for k, v := range values {
			stats[statNames[k]] = uint64(v)
		}
	}
	return C.GoString(&text[0]), up, stats
}

// OpenDPDKSource makes port 0 a source of mbufs that sends to the ethdev of that name.
func (f *Forwarder) OpenDPDKSource(sink string) error {
	c := C.CString(sink)
	defer C.free(unsafe.Pointer(c))
	var err error
	mainDo(func() { err = errno(C.baton_source_dpdk_open(f.c, c)) })
	return err
}

// MeasureOnLcores is Measure on as many worker lcores as there are forwarders, 1 or 2, all at the same time: the mean of
// their times. NaN if there are not as many lcores.
func MeasureOnLcores(all []*Forwarder, what Measurement, packets uint64) float64 {
	var ns, done C.uint64_t
	list := (**C.struct_baton_forwarder)(C.calloc(C.size_t(len(all)), C.size_t(unsafe.Sizeof(uintptr(0)))))
	defer C.free(unsafe.Pointer(list))
	for i, f := range all {
		unsafe.Slice(list, len(all))[i] = f.c
	}
	mainDo(func() {
		ns = C.baton_measure_lcores(list, C.uint32_t(len(all)), C.enum_baton_measure(what), C.uint64_t(packets), &done)
	})
	return float64(ns) / float64(done)
}
