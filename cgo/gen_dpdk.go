//go:build dpdk

package cgo

/*
#include <stdlib.h>
#include "gen_dpdk.h"
*/
import "C"

import "unsafe"

// LaunchOnLcore runs the loop on the EAL's worker lcore; JoinLcore ends it.
func (g *Generator) LaunchOnLcore() error {
	var err error
	mainDo(func() { err = errno(C.baton_gen_dpdk_launch(g.c)) })
	return err
}

// JoinLcore ends the loop and waits for its end.
func (g *Generator) JoinLcore() {
	mainDo(func() { C.baton_gen_dpdk_join(g.c) })
}

// LinkSpeed is the speed of a DPDK port's link in Mbit/s; 0: unknown or down.
func LinkSpeed(name string) uint32 {
	c := C.CString(name)
	defer C.free(unsafe.Pointer(c))
	var speed C.uint32_t
	mainDo(func() { speed = C.baton_gen_dpdk_speed(c) })
	return uint32(speed)
}
