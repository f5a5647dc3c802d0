/* SPDX-License-Identifier: Apache-2.0
 *
 * fragment.h: packets that come in fragments (RFC 791 3.2, RFC 8200 4.5). Only the first one has ports. It finds the
 * flow, and the others follow it by the packet's identification:
 *
 *   first fragment --> flow of a target ----------------> it goes there, and so do the others
 *                  +-> flow of the router, good cookie --> the packet is put together, and goes on as one
 *                  +-> anything else --> dropped, and the others with it
 *
 * Senders send fragments in order. One that comes before the first, or after a gap, is dropped: TCP sends all again. A
 * packet with fragments that overlap is dropped as a whole (RFC 5722, RFC 8200 4.5).
 *
 * The table is bounded: where it is full the oldest of four packets gives way. Only clients whose tuple has a flow or a
 * valid cookie get into it, but for those whose packets are passed to another shard, which then looks. The identification
 * of IPv4 wraps within seconds on a fast link (RFC 4963), so a packet is remembered for less than the 15 seconds of
 * RFC 791.
 */
#ifndef BATON_FRAGMENT_H
#define BATON_FRAGMENT_H

#include "baton.h"

enum {
	FRAGMENT_SETS = 64,
	FRAGMENT_WAYS = 4,
	FRAGMENT_MS = 5000,
	FRAGMENT_WHOLES = 64, /* packets that are put together at a time: part of the ports' buffers */
};

/* fragmented is a packet whose first fragment was seen. */
struct fragmented {
	struct baton_ip src, dst;
	uint64_t until_ms;      /* 0: free */
	struct baton_buf whole; /* of one that is put together: what is there so far; else its handle is NULL */
	uint32_t id;
	uint16_t owner; /* target; 0: it is put together */
	uint16_t sport, dport;
	bool elsewhere; /* it is of another shard, which gets all of its fragments from here */
	uint16_t port;  /* where the first fragment came in */
	uint16_t l4;    /* of whole: where the payload begins */
};

struct fragments {
	uint64_t seed;
	uint32_t wholes; /* in use */
	struct fragmented sets[FRAGMENT_SETS][FRAGMENT_WAYS];
};

#endif
