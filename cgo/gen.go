package cgo

/*
#include "gen.h"

#cgo noescape baton_gen_open
#cgo nocallback baton_gen_open
#cgo noescape baton_gen_frame
#cgo nocallback baton_gen_frame
#cgo noescape baton_gen_resolved
#cgo nocallback baton_gen_resolved
*/
import "C"

import (
	"unsafe"
)

// GeneratorKind says what a generator sends: enum baton_gen_kind.
type GeneratorKind uint32

// The kinds of frames.
const (
	GenerateSYN       GeneratorKind = C.BATON_GEN_SYN
	GenerateACK       GeneratorKind = C.BATON_GEN_ACK
	GenerateData      GeneratorKind = C.BATON_GEN_DATA
	GenerateHandshake GeneratorKind = C.BATON_GEN_HANDSHAKE
	GenerateUDP       GeneratorKind = C.BATON_GEN_UDP
	GenerateEcho      GeneratorKind = C.BATON_GEN_ECHO
)

// Bounds of GeneratorConfig.
const (
	GeneratorSizes   = C.BATON_GEN_SIZES
	GeneratorRequest = C.BATON_GEN_REQUEST
	GeneratorFrame   = C.BATON_GEN_FRAME_MAX // octets of the largest frame, with FCS and tag
)

// GeneratorConfig is struct baton_gen_config.
type GeneratorConfig struct {
	Client, Service        IP
	Flows                  uint64
	Timeout, Late          uint64 // cycles
	Clients                uint32
	Kind                   GeneratorKind
	Run                    uint32
	FirstPort, ServicePort uint16
	Sizes                  [GeneratorSizes]uint16
	SizeCount              uint16
	VLAN                   uint16
	SrcMAC, DstMAC         [6]byte
	Random, Hold, Nap, _   uint8
	RequestLen             uint16
	Request                [GeneratorRequest]byte
	_                      [2]byte
}

// A difference in layout makes an index out of range, which stops the compiler.
var (
	_ = [1]struct{}{}[unsafe.Sizeof(GeneratorConfig{})-C.sizeof_struct_baton_gen_config]
	_ = [1]struct{}{}[unsafe.Offsetof(GeneratorConfig{}.SizeCount)-unsafe.Offsetof(C.struct_baton_gen_config{}.size_count)]
	_ = [1]struct{}{}[unsafe.Offsetof(GeneratorConfig{}.Request)-unsafe.Offsetof(C.struct_baton_gen_config{}.request)]
)

// Generator is struct baton_gen: a packet generator and sink on the ports of a forwarder that is not started. Its
// methods are as concurrent as gen.h says.
type Generator struct{ c *C.struct_baton_gen }

// Cycles is the generator's clock.
func Cycles() uint64 { return uint64(C.baton_gen_cycles()) }

// CyclesPerSecond measures the clock. It takes 50 ms.
func CyclesPerSecond() float64 { return float64(C.baton_gen_hz()) }

// OpenGenerator makes a generator that sends on port 0 of f and receives on all its ports.
func OpenGenerator(f *Forwarder, c *GeneratorConfig, hz float64) (*Generator, error) {
	var err C.int
	g := C.baton_gen_open(f.c, (*C.struct_baton_gen_config)(unsafe.Pointer(c)), C.double(hz), &err)
	if g == nil {
		return nil, errno(err)
	}
	return &Generator{g}, nil
}

// Close frees the generator; its loop must have ended, and its ports must still be open.
func (g *Generator) Close() {
	C.baton_gen_close(g.c)
	g.c = nil
}

// Frame makes the frame that the pace would send for a flow at a time, of the size of that turn.
func (g *Generator) Frame(flow uint64, turn uint16, now uint64) []byte {
	frame := make([]byte, GeneratorFrame)
	n := C.baton_gen_frame(g.c, C.uint64_t(flow), C.uint16_t(turn), C.uint64_t(now), (*C.uint8_t)(unsafe.Pointer(&frame[0])))
	return frame[:n]
}

// Start sends count frames (0: without end) at a rate, in frames per second (0: as fast as it goes).
func (g *Generator) Start(pps float64, count uint64) {
	C.baton_gen_start(g.c, C.double(pps), C.uint64_t(count))
}

// Stop ends the sending.
func (g *Generator) Stop() { C.baton_gen_stop(g.c) }

// Sending says whether frames of the last Start are still to be sent.
func (g *Generator) Sending() bool { return bool(C.baton_gen_sending(g.c)) }

// Poll does one burst each way at a time of the generator's clock.
func (g *Generator) Poll(now uint64) int { return int(C.baton_gen_poll(g.c, C.uint64_t(now))) }

// Launch runs the loop on a thread of its own; Join ends it.
func (g *Generator) Launch() error { return errno(C.baton_gen_launch(g.c)) }

// Join ends the loop and waits for its end.
func (g *Generator) Join() {
	C.baton_gen_end(g.c)
	C.baton_gen_join(g.c)
}

// Resolve asks for the MAC address of target (IPv4, host order) until it is known.
func (g *Generator) Resolve(own, target uint32) {
	C.baton_gen_resolve(g.c, C.uint32_t(own), C.uint32_t(target))
}

// Resolved returns the answer to Resolve.
func (g *Generator) Resolved() (mac [6]byte, ok bool) {
	ok = bool(C.baton_gen_resolved(g.c, (*C.uint8_t)(unsafe.Pointer(&mac))))
	return mac, ok
}

// Counters reads all counters by their names.
func (g *Generator) Counters() map[string]uint64 {
	out := map[string]uint64{}
	for i := C.uint(0); C.baton_gen_name(i) != nil; i++ {
		out[C.GoString(C.baton_gen_name(i))] = uint64(C.baton_gen_read(g.c, i))
	}
	return out
}

// Latencies appends the histogram to dst: how often each place was counted. See LatencyBound.
func (g *Generator) Latencies(dst []uint64) []uint64 {
	for i := range C.uint(C.BATON_GEN_PLACES) {
		dst = append(dst, uint64(C.baton_gen_place(g.c, i)))
	}
	return dst
}

// LatencyBound is the largest latency that a place of the histogram counts, in ns.
func LatencyBound(place int) uint64 { return uint64(C.baton_gen_place_ns(C.uint(place))) }
