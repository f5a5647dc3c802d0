/* SPDX-License-Identifier: Apache-2.0
 *
 * Single-producer single-consumer ring of variable-length records.
 *
 *   | len 4 | kind 4 | octets, padded to 8 | len 4 | ...
 *
 * A record never wraps: one that would is preceded by a filler up to the end. head and tail count octets and never wrap
 * themselves.
 */
#include "baton.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { RECORD = 0, FILLER = 1, HEADER = 8 };

struct header {
	uint32_t len, kind;
};
static_assert(sizeof(struct header) == HEADER, "keeps records 8-aligned");

int baton_ring_init(struct baton_ring *r, uint64_t size)
{
	assert(size >= 64 && (size & (size - 1)) == 0);
	memset(r, 0, sizeof(*r));
	r->data = aligned_alloc(BATON_CACHE_LINE, size);
	if (!r->data)
		return -ENOMEM;
	r->size = size;
	return 0;
}

void baton_ring_free(struct baton_ring *r)
{
	free(r->data);
	r->data = NULL;
}

static inline uint64_t padded(uint64_t len)
{
	return HEADER + ((len + 7) & ~7ull);
}

static inline struct header *header_at(struct baton_ring *r, uint64_t position)
{
	return (struct header *)(r->data + (position & (r->size - 1)));
}

/* free_space looks at the consumer's tail only when the last look is not enough. */
static inline bool fits(struct baton_ring *r, uint64_t head, uint64_t need)
{
	if (head + need - r->tail_seen <= r->size)
		return true;
	r->tail_seen = atomic_load_explicit(&r->tail, memory_order_acquire);
	return head + need - r->tail_seen <= r->size;
}

bool baton_ring_room(struct baton_ring *r, uint64_t len, unsigned int count)
{
	/* Each record may need its padding, and one of them a filler as long as the longest. */
	uint64_t need = 2 * (len + (uint64_t)count * (HEADER + 7));

	return fits(r, atomic_load_explicit(&r->head, memory_order_relaxed), need);
}

void *baton_ring_reserve(struct baton_ring *r, uint32_t len)
{
	uint64_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
	uint64_t need = padded(len), to_end = r->size - (head & (r->size - 1));
	uint64_t filler = need > to_end ? to_end : 0;

	if (need > r->size / 2 || !fits(r, head, filler + need))
		return NULL;
	if (filler)
		*header_at(r, head) = (struct header){(uint32_t)(filler - HEADER), FILLER};
	struct header *h = header_at(r, head + filler);
	*h = (struct header){len, RECORD};
	r->reserved = head + filler + need;
	return h + 1;
}

void baton_ring_publish(struct baton_ring *r)
{
	/* Pairs with the acquire in baton_ring_take. */
	atomic_store_explicit(&r->head, r->reserved, memory_order_release);
}

void *baton_ring_take(struct baton_ring *r, uint32_t *len)
{
	uint64_t head = atomic_load_explicit(&r->head, memory_order_acquire);

	while (r->read != head) {
		struct header *h = header_at(r, r->read);

		r->read += padded(h->len);
		if (h->kind == RECORD) {
			*len = h->len;
			return h + 1;
		}
	}
	return NULL;
}

void baton_ring_release(struct baton_ring *r)
{
	/* Pairs with the acquire in fits(). */
	atomic_store_explicit(&r->tail, r->read, memory_order_release);
}

bool baton_ring_holds(struct baton_ring *r)
{
	return atomic_load_explicit(&r->head, memory_order_acquire) != r->read;
}

bool baton_ring_announce(struct baton_ring *r)
{
	/* Either we see the producer's record or it sees that we sleep: both sides store, fence, then load. */
	atomic_store_explicit(&r->sleeping, 1, memory_order_seq_cst);
	atomic_thread_fence(memory_order_seq_cst);
	if (!baton_ring_holds(r))
		return true;
	atomic_store_explicit(&r->sleeping, 0, memory_order_relaxed);
	return false;
}

bool baton_ring_wake(struct baton_ring *r)
{
	atomic_thread_fence(memory_order_seq_cst);
	return atomic_load_explicit(&r->sleeping, memory_order_relaxed) &&
	       atomic_exchange_explicit(&r->sleeping, 0, memory_order_seq_cst);
}
