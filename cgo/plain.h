/* SPDX-License-Identifier: Apache-2.0
 *
 * plain.h: the first look at a plain packet with AVX2. It finds what plain_read (parse.h) finds, which is its reference and
 * what other CPUs use, in half as many instructions: all octets that have to have a value, or one of a range, are compared
 * at once, and the key is shuffled into its place.
 */
#ifndef BATON_PLAIN_H
#define BATON_PLAIN_H

#include "parse.h"

#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
#define BATON_PLAIN_AVX2

#include <immintrin.h>

#define PLAIN_AVX2 __attribute__((target("avx2")))

/* plain_range is what the first 32 octets of a plain packet may be: of each one these bits, from least to most. */
struct plain_range {
	__m256i bits, least, most;
};

enum {
	RANGE = 32,     /* octets */
	PLAIN_KEY = 22, /* where the 16 octets begin that have the addresses and ports */
};

/* The destination; type, version and header length; fragment, TTL, protocol; the first octet of the source. */
static const uint8_t plain_bits[RANGE] = {
    [0 ... BATON_MAC_LEN - 1] = 0xff,     [12 ... ETH_LEN] = 0xff, [ETH_LEN + 6] = 0x3f,
    [ETH_LEN + 7 ... ETH_LEN + 9] = 0xff, [ETH_LEN + 12] = 0xff,
};
static const uint8_t plain_least[RANGE] = {
    [12] = ETH_TYPE_IP4 >> 8, [ETH_LEN] = 0x45, [ETH_LEN + 8] = 1, PROTO_TCP, [ETH_LEN + 12] = 1};
static const uint8_t plain_most[RANGE] = {
    [12] = ETH_TYPE_IP4 >> 8, [ETH_LEN] = 0x45, [ETH_LEN + 8] = 255, PROTO_TCP, [ETH_LEN + 12] = 223};

/* From PLAIN_KEY on, these bits of each word may not be this: loopback is in the middle of the possible sources, and a port
 * of 0 has two octets. */
static const uint16_t plain_words[RANGE / 2] = {[2] = 0xff, [6] = 0xffff};
static const uint16_t plain_wrong[RANGE / 2] = {1, 1, 127, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1};

PLAIN_AVX2 static inline struct plain_range plain_range_to(const uint8_t mac[BATON_MAC_LEN])
{
	const __m256i to = _mm256_zextsi128_si256(_mm_cvtsi64_si128((long long)(raw_mac(mac) >> 16)));

	return (struct plain_range){
	    .bits = _mm256_loadu_si256((const __m256i *)plain_bits),
	    .least = _mm256_or_si256(_mm256_loadu_si256((const __m256i *)plain_least), to),
	    .most = _mm256_or_si256(_mm256_loadu_si256((const __m256i *)plain_most), to),
	};
}

/* plain_octets says whether the octets of a frame are those of a plain packet, whatever its lengths and checksum. key: the
 * octets from PLAIN_KEY on. */
PLAIN_AVX2 static inline bool plain_octets(const uint8_t *d, const struct plain_range *range, __m256i key)
{
	const __m256i words = _mm256_and_si256(key, _mm256_loadu_si256((const __m256i *)plain_words));
	const __m256i wrong = _mm256_cmpeq_epi16(words, _mm256_loadu_si256((const __m256i *)plain_wrong));
	const __m256i octets = _mm256_and_si256(_mm256_lddqu_si256((const __m256i *)d), range->bits);
	const __m256i near = _mm256_min_epu8(_mm256_max_epu8(octets, range->least), range->most);
	const __m256i right = _mm256_cmpeq_epi8(octets, near);

	return _mm256_movemask_epi8(_mm256_andnot_si256(wrong, right)) == -1;
}

/* plain_read_avx2 is plain_read for packets to the address of the range. */
PLAIN_AVX2 static inline bool plain_read_avx2(const struct baton_buf *buf, const struct plain_range *range,
					      struct plain *out)
{
	const uint8_t *d = buf->data;
	int32_t behind = (int32_t)buf->len - PLAIN_LEN; /* octets of the frame behind its shortest headers */

	if (__builtin_expect(!d || behind < 0, 0))
		return false;
	const __m256i key = _mm256_lddqu_si256((const __m256i *)(d + PLAIN_KEY));
	int32_t total = load16(d + 16) - (IP4_LEN + TCP_LEN); /* the same of the IP packet */
	int32_t options = (d[PLAIN_TCP + 12] >> 4) * 4 - TCP_LEN;

	/* None may be negative, which is larger than all as an unsigned number. */
	if (__builtin_expect(!plain_octets(d, range, key) || (uint32_t)total > (uint32_t)behind ||
				 (uint32_t)options > (uint32_t)total,
			     0))
		return false;
	const __m128i found = _mm_shuffle_epi8(_mm256_castsi256_si128(key),
					       _mm_setr_epi8(8, 9, 10, 11, -1, -1, 14, 15, -1, -1, 13, 12, 7, 6, 5, 4));

	out->where = (uint64_t)_mm_cvtsi128_si64(found);
	out->client = (uint64_t)_mm_extract_epi64(found, 1);
	out->flags = d[PLAIN_TCP + 13];
	return plain_sum_ok(d);
}

#endif
#endif
