/* SPDX-License-Identifier: Apache-2.0
 *
 * limit.h: how much of the control plane one client address may use, and all together: punts in a second, and flows at
 * a time. Valid cookies prove that an address is there, so a storm from few addresses must not crowd out the others.
 *
 * There is no entry per address, which could run out: an address stands for one cell in each of two rows, by a keyed
 * hash. A cell counts for all of its addresses, so it never counts too little, and an address is held to the better of
 * its two (a count-min sketch, Cormode and Muthukrishnan 2005). With n busy addresses, an innocent one shares both cells
 * with busy ones with a chance of about (n / LIMIT_CELLS)^2. An IPv6 client is its /64.
 *
 * Rates are kept as the time until which what was taken lasts (GCRA, ITU-T I.371): one word, no refill.
 */
#ifndef BATON_LIMIT_H
#define BATON_LIMIT_H

#include "baton.h"

enum {
	LIMIT_ROWS = 2,
	LIMIT_CELLS = 4096, /* of a row */
};

#define LIMIT_BURST_NS 500000000ull /* half a second's worth may come at once */

struct limit_cell {
	uint64_t until_ns;
	uint32_t flows;
};

struct limit {
	uint64_t seed;
	uint64_t source_ns, total_ns; /* what one punt takes; 0: no limit */
	uint64_t until_ns;            /* of all */
	uint32_t source_flows;        /* 0: no limit */
	struct limit_cell cells[LIMIT_ROWS][LIMIT_CELLS];
};

/* limit_init sets limits: punts of one source and of all in a second, flows of one source at a time; 0: no limit. */
static inline void limit_init(struct limit *l, uint32_t source_punts, uint32_t punts, uint32_t source_flows,
			      uint64_t seed)
{
	l->seed = seed;
	l->source_ns = source_punts ? 1000000000ull / source_punts : 0;
	l->total_ns = punts ? 1000000000ull / punts : 0;
	l->source_flows = source_flows;
}

/* limit_hash: the multiplications are of 128 bits, folded (wyhash's mixing function). */
static inline uint64_t limit_hash(const struct limit *l, struct baton_ip source)
{
	uint64_t low = baton_ip_is4(source) ? source.lo : 0;
	unsigned __int128 m = (unsigned __int128)(source.hi ^ l->seed ^ 0xa0761d6478bd642full) *
			      (low ^ (l->seed << 32 | l->seed >> 32) ^ 0xe7037ed1a0b428dbull);
	uint64_t h = (uint64_t)m ^ (uint64_t)(m >> 64);

	h = (h ^ h >> 32) * 0xd6e8feb86659fd93ull;
	return h ^ h >> 32;
}

static inline struct limit_cell *limit_cell(struct limit *l, uint64_t hash, int row)
{
	return &l->cells[row][(hash >> (row * 16)) % LIMIT_CELLS];
}

/* limit_room says whether one more fits; limit_charge takes it. */
static inline bool limit_room(uint64_t until_ns, uint64_t now_ns, uint64_t cost_ns)
{
	return cost_ns == 0 || until_ns <= now_ns || until_ns + cost_ns <= now_ns + LIMIT_BURST_NS;
}

static inline void limit_charge(uint64_t *until_ns, uint64_t now_ns, uint64_t cost_ns)
{
	if (*until_ns < now_ns)
		*until_ns = now_ns;
	if (limit_room(*until_ns, now_ns, cost_ns))
		*until_ns += cost_ns;
}

/* limit_punt takes one punt. False: the source has had its share, or all have. */
static inline bool limit_punt(struct limit *l, struct baton_ip source, uint64_t now_ms)
{
	uint64_t hash = limit_hash(l, source), now_ns = now_ms * 1000000;
	struct limit_cell *a = limit_cell(l, hash, 0), *b = limit_cell(l, hash, 1);

	if (!limit_room(a->until_ns, now_ns, l->source_ns) && !limit_room(b->until_ns, now_ns, l->source_ns))
		return false;
	if (!limit_room(l->until_ns, now_ns, l->total_ns))
		return false;
	limit_charge(&a->until_ns, now_ns, l->source_ns);
	limit_charge(&b->until_ns, now_ns, l->source_ns);
	limit_charge(&l->until_ns, now_ns, l->total_ns);
	return true;
}

/* limit_flow says whether the source may have one more flow, and takes a punt for it. */
static inline bool limit_flow(struct limit *l, struct baton_ip source, uint64_t now_ms)
{
	uint64_t hash = limit_hash(l, source);

	if (l->source_flows && limit_cell(l, hash, 0)->flows >= l->source_flows &&
	    limit_cell(l, hash, 1)->flows >= l->source_flows)
		return false;
	return limit_punt(l, source, now_ms);
}

static inline void limit_flow_begin(struct limit *l, struct baton_ip source)
{
	uint64_t hash = limit_hash(l, source);

	limit_cell(l, hash, 0)->flows++;
	limit_cell(l, hash, 1)->flows++;
}

static inline void limit_flow_end(struct limit *l, struct baton_ip source)
{
	uint64_t hash = limit_hash(l, source);

	limit_cell(l, hash, 0)->flows--;
	limit_cell(l, hash, 1)->flows--;
}

#endif
