package seq

// Value is a sequence number, taken modulo 2^32.
type Value uint32

// Add returns v advanced by n octets. n may be negative.
func (v Value) Add(n int) Value { return v + Value(uint32(n)) }

// Sub returns the signed distance from w to v: positive when v is after w. It is exact within 2^31.
func (v Value) Sub(w Value) int { return int(int32(v - w)) }

// Before reports whether v is strictly before w (SEG.SEQ < w in the RFC's notation).
func (v Value) Before(w Value) bool { return int32(v-w) < 0 }

// After reports whether v is strictly after w.
func (v Value) After(w Value) bool { return int32(v-w) > 0 }

// InWindow reports whether v is one of the size numbers that begin at first: first <= v < first+size.
func (v Value) InWindow(first Value, size uint32) bool { return uint32(v-first) < size }

// Between reports whether low <= v <= high.
func (v Value) Between(low, high Value) bool { return uint32(v-low) <= uint32(high-low) }

// Max returns the later of v and w.
func Max(v, w Value) Value {
	if v.Before(w) {
		return w
	}
	return v
}

// Min returns the earlier of v and w.
func Min(v, w Value) Value {
	if v.After(w) {
		return w
	}
	return v
}
