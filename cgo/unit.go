package cgo

/*
#include <stdlib.h>
#include "baton.h"
#include "plain.h"
#include "forwarder.h"

#cgo noescape baton_crt_init
#cgo nocallback baton_crt_init
#cgo noescape baton_crt_hash
#cgo nocallback baton_crt_hash
#cgo noescape baton_crt_find
#cgo nocallback baton_crt_find
#cgo noescape baton_crt_insert
#cgo nocallback baton_crt_insert
static inline void baton_unit_find(const struct baton_crt *t, struct baton_lookup **l, uint32_t n, bool simd)
{
	const struct baton_finder *f = baton_crt_finder(t->key_words, simd);

	f->fetch(t, l, n);
	f->find(t, l, n);
}

static void baton_unit_ask(void *arg, const struct baton_key *k, uint64_t value)
{
	(void)k;
	(void)value;
	++*(uint32_t *)arg;
}

static inline uint32_t baton_unit_sweep(struct baton_crt *t, uint32_t n, uint32_t target_s, uint32_t ended_s,
					uint64_t now_ms, uint32_t *asked)
{
	const struct baton_ages ages = {target_s, ended_s, baton_unit_ask, asked};

	return baton_crt_sweep(t, n, &ages, now_ms);
}

#cgo noescape baton_siphash
#cgo nocallback baton_siphash

#ifdef BATON_PLAIN_AVX2
PLAIN_AVX2 static inline bool baton_unit_plain_avx2(const struct baton_buf *buf, const uint8_t *mac, struct plain *out)
{
	const struct plain_range range = plain_range_to(mac);

	return plain_read_avx2(buf, &range, out);
}
#endif

static inline bool baton_unit_plain(uint8_t *frame, uint32_t len, const uint8_t *mac, bool simd, struct plain *out)
{
	const struct baton_buf buf = {.data = frame, .len = len};

#ifdef BATON_PLAIN_AVX2
	if (simd)
		return baton_unit_plain_avx2(&buf, mac, out);
#endif
	(void)simd;
	return plain_read(&buf, raw_mac(mac), out);
}

static inline bool baton_unit_has_simd(void)
{
	return classifier_for(true) != classifier_for(false);
}
*/
import "C"

import "unsafe"

// The parts of the data path by themselves, for tests and benchmarks: a test file cannot import "C".

// SumWhole and SumFold are the two ways to look at an Internet checksum's sum: whether it is whole, and what it folds to.
func SumWhole(sum uint64) bool { return bool(C.sum_is_whole(C.uint64_t(sum))) }

// SumFold is the slow twin of SumWhole.
func SumFold(sum uint64) uint16 { return uint16(C.sum_fold(C.uint64_t(sum))) }

// TablePercent is what part of its places a forwarder's table uses.
const TablePercent = C.BATON_CRT_PERCENT

// NewTable makes a table of a test's own, whose entries are so many percent of its places; keyWords is 1 (IPv4) or 3
// (IPv6). One goroutine writes; see Table.Read.
func NewTable(entries uint64, percent, keyWords int, seed uint64) (Table, error) {
	t := Table{(*C.struct_baton_crt)(C.calloc(1, C.sizeof_struct_baton_crt))}
	err := errno(C.baton_crt_init(t.c, C.uint64_t(entries), C.uint32_t(percent), C.uint32_t(keyWords), C.uint64_t(seed)))
	if err != nil {
		C.free(unsafe.Pointer(t.c))
	}
	return t, err
}

// Free frees what NewTable made.
func (t Table) Free() {
	C.baton_crt_free(t.c)
	C.free(unsafe.Pointer(t.c))
}

func (t Table) find(key *[3]uint64) (*C.baton_word, C.uint64_t) {
	k := (*C.struct_baton_key)(unsafe.Pointer(key))
	hash := C.baton_crt_hash(t.c, k)
	return C.baton_crt_find(t.c, k, hash), hash
}

// Find returns the value of a key.
func (t Table) Find(key [3]uint64) (value uint64, ok bool) {
	v, _ := t.find(&key)
	if v == nil {
		return 0, false
	}
	return loadWord(unsafe.Pointer(v)), true
}

// Insert adds a key that is not there; false: the table is full.
func (t Table) Insert(key [3]uint64, value uint64) bool {
	_, hash := t.find(&key)
	return C.baton_crt_insert(t.c, (*C.struct_baton_key)(unsafe.Pointer(&key)), hash, C.uint64_t(value)) != nil
}

// Remove takes a key out; false: it is not there.
func (t Table) Remove(key [3]uint64) bool {
	v, _ := t.find(&key)
	if v != nil {
		C.baton_crt_remove(t.c, v)
	}
	return v != nil
}

// FindBulk finds up to 32 keys at once, as the pipeline does; values of keys that are not there are 0. simd: by the
// fastest code for this CPU, else by the plain one.
func (t Table) FindBulk(keys [][3]uint64, simd bool) []uint64 {
	return findBulk(keys, func(l **C.struct_baton_lookup, n C.uint32_t) {
		C.baton_unit_find(t.c, l, n, C.bool(simd))
	})
}

// findBulk lets find look keys up, in C's memory.
func findBulk(keys [][3]uint64, find func(l **C.struct_baton_lookup, n C.uint32_t)) []uint64 {
	lookups := (*[C.BATON_BURST]C.struct_baton_lookup)(C.calloc(C.BATON_BURST, C.sizeof_struct_baton_lookup))
	defer C.free(unsafe.Pointer(lookups))
	list := (*[C.BATON_BURST]*C.struct_baton_lookup)(C.calloc(C.BATON_BURST, C.size_t(unsafe.Sizeof(uintptr(0)))))
	defer C.free(unsafe.Pointer(list))
	for i, key := range keys {
		lookups[i].key = *(*C.struct_baton_key)(unsafe.Pointer(&key))
		list[i] = &lookups[i]
	}
	find(&list[0], C.uint32_t(len(keys)))
	values := make([]uint64, len(keys))
	for i := range keys {
		if v := lookups[i].entry; v != nil {
			values[i] = loadWord(unsafe.Pointer(v))
		}
	}
	return values
}

// Bytes is the memory that the table takes.
func (t Table) Bytes() uint64 { return uint64(t.c.bytes) }

// Elsewhere is how many entries the table believes in the third bucket of their key, and in another than the first.
func (t Table) Elsewhere() (thirds, spilled uint64) {
	for _, n := range unsafe.Slice((*uint8)(t.c.spilled), t.c.bucket_count) {
		spilled += uint64(n)
	}
	return uint64(t.c.thirds), spilled
}

// Update gives a key another value; false: it is not there.
func (t Table) Update(key [3]uint64, value uint64) bool {
	v, _ := t.find(&key)
	if v != nil {
		storeWord(unsafe.Pointer(v), value)
	}
	return v != nil
}

// BurstMax is how many keys FindBulk takes at most.
const BurstMax = C.BATON_BURST

// IdleGrace is how much longer than idle an entry is kept, s.
const IdleGrace = C.BATON_IDLE_GRACE

// Sweep looks at the next n buckets, and returns how many idle entries it asked about and how many it removed.
func (t Table) Sweep(n, targetIdle, endedIdle uint32, nowMS uint64) (asked, removed int) {
	var count C.uint32_t
	removed = int(C.baton_unit_sweep(t.c, C.uint32_t(n), C.uint32_t(targetIdle), C.uint32_t(endedIdle), C.uint64_t(nowMS),
		&count))
	return int(count), removed
}

// Value makes the value of an entry; ended: its client has ended the flow.
func Value(state int, index, inc uint32, nowMS uint64, ended bool) uint64 {
	v := uint64(C.baton_value(C.enum_baton_state(state), C.uint32_t(index), C.uint32_t(inc), C.uint64_t(nowMS)))
	if ended {
		v |= C.BATON_VALUE_END
	}
	return v
}

// SipHash is SipHash-2-4.
func SipHash(key [2]uint64, data []byte) uint64 {
	return uint64(C.baton_siphash((*C.uint64_t)(unsafe.Pointer(&key)), (*C.uint8_t)(unsafe.Pointer(unsafe.SliceData(data))),
		C.size_t(len(data))))
}

// Plain is what the first look at a plain packet finds.
type Plain struct {
	Where, Client uint64
	Flags         uint8
}

// HasPlainSIMD says whether ReadPlain has two ways here.
func HasPlainSIMD() bool { return bool(C.baton_unit_has_simd()) }

// ReadPlain takes the first look at a frame; false: it is no plain packet to mac. simd: by the fastest code, which
// HasPlainSIMD has to allow, else by the plain one.
func ReadPlain(frame []byte, mac [6]byte, simd bool) (Plain, bool) {
	var out C.struct_plain
	c := C.CBytes(frame) // its memory ends with it, so that sanitizers see every octet that is read beyond
	defer C.free(c)
	ok := C.baton_unit_plain((*C.uint8_t)(c), C.uint32_t(len(frame)), (*C.uint8_t)(unsafe.Pointer(&mac)), C.bool(simd), &out)
	if !ok {
		return Plain{}, false
	}
	return Plain{uint64(out.where), uint64(out.client), uint8(out.flags)}, true
}
