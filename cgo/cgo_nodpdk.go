//go:build !dpdk

package cgo

import (
	"errors"
	"math"
)

// HasDPDK says whether this build can open DPDK ports.
const HasDPDK = false

var errNoDPDK = errors.New("built without DPDK")

// StartEAL is not possible without DPDK.
func StartEAL([]string) error { return errNoDPDK }

// OpenDPDK is not possible without DPDK.
func (f *Forwarder) OpenDPDK(uint16, string) error { return errNoDPDK }

// StartLcore is not possible without DPDK.
func (f *Forwarder) StartLcore() error { return errNoDPDK }

// StopLcore does nothing without DPDK.
func (f *Forwarder) StopLcore() {}

// Driver knows nothing without DPDK.
func (f *Forwarder) Driver(uint16) (name string, up bool, stats map[string]uint64) {
	return "", false, nil
}

// OpenDPDKSource is not possible without DPDK.
func (f *Forwarder) OpenDPDKSource(string) error { return errNoDPDK }

// MeasureOnLcores is not possible without DPDK.
func MeasureOnLcores([]*Forwarder, Measurement, uint64) float64 { return math.NaN() }
