package cgo

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

var plainMAC = [6]byte{2, 0xba, 0x70, 0, 0, 1}

// plainFrame is a segment from 10.1.2.3:4660 to 10.77.0.10:80, with 12 octets of TCP options and some of data.
func plainFrame(data int) []byte {
	f := make([]byte, 14+20+32+data)
	copy(f, plainMAC[:])
	copy(f[12:], []byte{8, 0, 0x45, 0})
	binary.BigEndian.PutUint16(f[16:], uint16(len(f)-14))
	copy(f[20:], []byte{0x40, 0, 64, 6, 0, 0, 10, 1, 2, 3, 10, 77, 0, 10, 0x12, 0x34, 0, 80})
	f[46], f[47] = 8<<4, 0x18
	plainSum(f)
	return f
}

// plainSum makes the IP header's checksum right.
func plainSum(f []byte) {
	f[24], f[25] = 0, 0
	var sum uint32
	for i := 14; i < 34; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(f[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(f[24:], ^uint16(sum))
}

// samePlain fails if the two ways do not agree about a frame, and says whether it is plain.
func samePlain(t *testing.T, f []byte) bool {
	t.Helper()
	want, wantOK := ReadPlain(f, plainMAC, false)
	if got, ok := ReadPlain(f, plainMAC, true); ok != wantOK || got != want {
		t.Fatalf("frame %x: %+v, %v; without SIMD %+v, %v", f, got, ok, want, wantOK)
	}
	return wantOK
}

func needPlainSIMD(t *testing.T) {
	if !HasPlainSIMD() {
		t.Skip("this CPU has no AVX2: there is one way to read plain packets")
	}
}

// TestFirstLookFindsTheKey reads a frame that is known.
func TestFirstLookFindsTheKey(t *testing.T) {
	want := Plain{Where: 0x5000_0000_0a00_4d0a, Client: 0x0a01_0203_1234_0000, Flags: 0x18}
	if got, ok := ReadPlain(plainFrame(6), plainMAC, false); !ok || got != want {
		t.Errorf("%+x, %v, want %+x", got, ok, want)
	}
}

// TestFirstLookIsTheSameWithEachOctet sets each octet of the headers to each value, with a right and a wrong checksum.
func TestFirstLookIsTheSameWithEachOctet(t *testing.T) {
	needPlainSIMD(t)
	plain, other := 0, 0
	for at := range 54 {
		for value := range 256 {
			f := plainFrame(6)
			f[at] = byte(value)
			samePlain(t, f)
			if at != 24 && at != 25 {
				plainSum(f)
			}
			if samePlain(t, f) {
				plain++
			} else {
				other++
			}
		}
	}
	if plain < 8000 || other < 2000 {
		t.Errorf("%d plain and %d other frames: too few of one of them", plain, other)
	}
}

// TestFirstLookIsTheSameAtRandom draws lengths, header lengths and a few octets, and cuts frames off.
func TestFirstLookIsTheSameAtRandom(t *testing.T) {
	needPlainSIMD(t)
	r := rand.New(rand.NewPCG(1, 2))
	plain := 0
	for range 50_000 {
		f := plainFrame(r.IntN(40))
		binary.BigEndian.PutUint16(f[16:], uint16(len(f)-14+r.IntN(9)-6))
		f[46] = byte(r.IntN(12) << 4)
		for range r.IntN(3) {
			f[12+r.IntN(len(f)-12)] = byte(r.Uint32())
		}
		if r.IntN(8) > 0 {
			plainSum(f)
		}
		if r.IntN(8) == 0 {
			f = f[:r.IntN(len(f))]
		}
		if samePlain(t, f) {
			plain++
		}
	}
	if plain < 5000 || plain > 45_000 {
		t.Errorf("%d of 50000 frames were plain: the draw is one-sided", plain)
	}
}
