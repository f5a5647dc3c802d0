/* SPDX-License-Identifier: Apache-2.0
 *
 * Flows in the router's hands: a bounded table of slots, on a list by the time of their last segment, each with a queue
 * of frames that are held while it is frozen. And entries of targets that ended and linger.
 */
#include "forwarder.h"

#include <errno.h>
#include <stdlib.h>

enum {
	EXPIRE_PER_RUN = 64,
	REPEAT_PER_RUN = 16,
	SWEEP_MS = 60000,     /* once round a table */
	SWEEP_PER_RUN = 4096, /* buckets at most, some 30 us */
};

/* idle_ask asks the control plane whether a target still has an idle flow: RESTORE is the answer that it has. */
static void idle_ask(void *arg, const struct baton_key *k, uint64_t value)
{
	struct baton_forwarder *f = arg;
	struct baton_tuple tuple;

	if (baton_value_state(value) != BATON_TARGET || !key_tuple(f, k, &tuple) ||
	    is_conventional(f, k, !baton_ip_is4(tuple.client)) || /* no target can say */
	    !token_take(&f->idles, f->now_ms, IDLES_PER_SECOND))
		return;
	struct baton_punt *punt = punt_begin(f, BATON_IDLE, NULL, 0);

	if (!punt)
		return;
	punt->tuple = tuple;
	punt->owner = (uint16_t)(value & BATON_VALUE_INDEX);
	punt_end(f, punt);
}

int flows_init(struct baton_forwarder *f, const struct baton_config *c)
{
	f->flow_count = c->router_flows;
	f->held_packets = c->held_packets;
	f->router_idle_ms = c->router_idle_ms;
	f->linger_ms = c->linger_ms;
	f->ages = (struct baton_ages){c->target_idle_s, c->ended_idle_s, idle_ask, f};
	f->evict_idle_s = c->evict_idle_s;
	limit_init(&f->limit, c->source_punts, c->punts, c->source_flows, c->seed);
	f->flows = calloc(f->flow_count, sizeof(*f->flows));
	f->held = calloc(HELD_TOTAL, sizeof(*f->held));
	f->lingering = calloc(LINGER_PLACES, sizeof(*f->lingering));
	if (!f->flows || !f->held || !f->lingering)
		return -ENOMEM;
	for (uint32_t i = 0; i < f->flow_count; i++)
		f->flows[i].newer = i + 1 < f->flow_count ? i + 1 : NO_SLOT;
	for (uint32_t i = 0; i < HELD_TOTAL; i++)
		f->held[i].next = i + 1 < HELD_TOTAL ? i + 1 : NO_SLOT;
	f->flow_oldest = f->flow_newest = NO_SLOT;
	return half_init(&f->half, c->half_open, c->seed);
}

void flows_free(struct baton_forwarder *f)
{
	free(f->flows);
	free(f->held);
	free(f->lingering);
	half_free(&f->half);
}

static uint32_t slot_of(const struct baton_forwarder *f, const struct flow *w)
{
	return (uint32_t)(w - f->flows);
}

static void list_remove(struct baton_forwarder *f, struct flow *w)
{
	if (w->older == NO_SLOT)
		f->flow_oldest = w->newer;
	else
		f->flows[w->older].newer = w->newer;
	if (w->newer == NO_SLOT)
		f->flow_newest = w->older;
	else
		f->flows[w->newer].older = w->older;
}

static void list_append(struct baton_forwarder *f, struct flow *w)
{
	uint32_t slot = slot_of(f, w);

	w->older = f->flow_newest;
	w->newer = NO_SLOT;
	if (f->flow_newest == NO_SLOT)
		f->flow_oldest = slot;
	else
		f->flows[f->flow_newest].newer = slot;
	f->flow_newest = slot;
	w->touched_ms = f->now_ms;
}

static void flows_used_add(struct baton_forwarder *f, int n)
{
	uint32_t used = atomic_load_explicit(&f->flows_used, memory_order_relaxed);

	atomic_store_explicit(&f->flows_used, used + (uint32_t)n, memory_order_relaxed);
}

struct flow *flow_alloc(struct baton_forwarder *f)
{
	if (f->flow_free == NO_SLOT)
		return NULL;
	struct flow *w = &f->flows[f->flow_free];
	uint32_t generation = w->generation + 1;

	f->flow_free = w->newer;
	*w = (struct flow){.generation = generation ? generation : 1, .state = FLOW_OPEN};
	w->held_first = w->held_last = NO_SLOT;
	list_append(f, w);
	flows_used_add(f, 1);
	return w;
}

void flow_release(struct baton_forwarder *f, struct flow *w)
{
	struct held *h;

	while ((h = flow_held_first(f, w))) {
		frame_drop(f, w->port, &h->buf, BATON_DROP_HOLD_ENDED);
		flow_held_pop(f, w);
	}
	if (w->counted)
		limit_flow_end(&f->limit, w->tuple.client);
	list_remove(f, w);
	w->state = FLOW_FREE;
	w->newer = f->flow_free;
	f->flow_free = slot_of(f, w);
	flows_used_add(f, -1);
}

void flow_touch(struct baton_forwarder *f, struct flow *w)
{
	if (w->touched_ms == f->now_ms)
		return;
	list_remove(f, w);
	list_append(f, w);
}

uint64_t flow_id(const struct baton_forwarder *f, const struct flow *w)
{
	return (uint64_t)w->generation << 32 | (uint64_t)f->shard << BATON_ID_SHARD_SHIFT | slot_of(f, w);
}

struct flow *flow_by_id(struct baton_forwarder *f, uint64_t id)
{
	uint32_t slot =
	    (uint32_t)id - (f->shard << BATON_ID_SHARD_SHIFT); /* beyond the table if it is of another shard */

	if (slot >= f->flow_count)
		return NULL;
	struct flow *w = &f->flows[slot];

	return w->state != FLOW_FREE && w->generation == id >> 32 ? w : NULL;
}

baton_word *flow_entry(struct baton_forwarder *f, const struct flow *w)
{
	struct baton_crt *t = crt_of(f, w->ip6);
	baton_word *v = baton_crt_find(t, &w->key, baton_crt_hash(t, &w->key));

	assert(v && (value_load(v) & BATON_VALUE_INDEX) == slot_of(f, w));
	return v;
}

bool flow_hold(struct baton_forwarder *f, struct flow *w, const struct baton_buf *buf, uint8_t flags)
{
	uint32_t n = f->held_free;

	if (w->held_count >= f->held_packets || n == NO_SLOT)
		return false;
	f->held_free = f->held[n].next;
	f->held[n] = (struct held){*buf, NO_SLOT, flags};
	if (w->held_count++ == 0)
		w->held_first = n;
	else
		f->held[w->held_last].next = n;
	w->held_last = n;
	return true;
}

struct held *flow_held_first(struct baton_forwarder *f, const struct flow *w)
{
	return w->held_count ? &f->held[w->held_first] : NULL;
}

void flow_held_pop(struct baton_forwarder *f, struct flow *w)
{
	uint32_t n = w->held_first;

	w->held_first = f->held[n].next;
	w->held_count--;
	f->held[n].next = f->held_free;
	f->held_free = n;
}

/* ---- what time does */

/* flow_expire ends one idle flow. False: the punt ring has no room for the news. */
static bool flow_expire(struct baton_forwarder *f, struct flow *w)
{
	if (w->known && !punt_flow(f, w, BATON_GONE, NULL, 0))
		return false;
	baton_crt_remove(crt_of(f, w->ip6), flow_entry(f, w));
	flow_release(f, w);
	return true;
}

static void flows_expire(struct baton_forwarder *f)
{
	if (f->router_idle_ms == 0)
		return;
	for (int n = 0; n < EXPIRE_PER_RUN && f->flow_oldest != NO_SLOT; n++) {
		struct flow *w = &f->flows[f->flow_oldest];

		if (f->now_ms - w->touched_ms < f->router_idle_ms)
			return;
		if (w->state != FLOW_OPEN)
			flow_touch(f, w); /* a transfer is under way; it has its own timeouts */
		else if (!flow_expire(f, w))
			return;
	}
}

static void linger_end(struct baton_forwarder *f, const struct lingering *l)
{
	struct baton_crt *t = crt_of(f, l->ip6);
	baton_word *v = baton_crt_find(t, &l->key, baton_crt_hash(t, &l->key));

	if (v && baton_value_state(value_load(v)) == BATON_LINGER && baton_value_inc(value_load(v)) == l->inc)
		baton_crt_remove(t, v);
}

void linger_add(struct baton_forwarder *f, const struct baton_key *k, bool ip6, uint32_t inc)
{
	if (f->linger_tail - f->linger_head == LINGER_PLACES) /* the oldest goes early: better than never */
		linger_end(f, &f->lingering[f->linger_head++ % LINGER_PLACES]);
	f->lingering[f->linger_tail++ % LINGER_PLACES] = (struct lingering){*k, f->now_ms + f->linger_ms, inc, ip6};
}

static void lingering_end(struct baton_forwarder *f)
{
	for (int n = 0; n < EXPIRE_PER_RUN && f->linger_head != f->linger_tail; n++) {
		const struct lingering *l = &f->lingering[f->linger_head % LINGER_PLACES];

		if (l->due_ms > f->now_ms)
			return;
		linger_end(f, l);
		f->linger_head++;
	}
}

static void half_repeat(struct baton_forwarder *f)
{
	struct half_open *o;

	for (int n = 0; n < REPEAT_PER_RUN && (o = half_due(&f->half, f->now_ms)); n++)
		answer_synack_again(f, o);
}

baton_word *entry_add(struct baton_forwarder *f, struct baton_crt *t, const struct baton_key *k, uint64_t hash,
		      uint64_t value)
{
	baton_word *v = baton_crt_insert(t, k, hash, value);

	if (v || f->evict_idle_s == 0)
		return v;
	baton_word *oldest = baton_crt_oldest(t, hash, f->now_ms);

	if (!oldest || baton_value_idle(value_load(oldest), f->now_ms) < f->evict_idle_s)
		return NULL;
	baton_crt_remove(t, oldest);
	count(f, BATON_EVICTED);
	return baton_crt_insert(t, k, hash, value);
}

/* table_age sweeps up to where the clock's hand is: once round in each SWEEP_MS. */
static void table_age(struct baton_forwarder *f, struct baton_crt *t)
{
	uint32_t hand = (uint32_t)(f->now_ms % SWEEP_MS * t->bucket_count / SWEEP_MS);
	uint32_t due = hand >= t->hand ? hand - t->hand : hand + t->bucket_count - t->hand;

	count_n(f, BATON_AGED, baton_crt_sweep(t, due < SWEEP_PER_RUN ? due : SWEEP_PER_RUN, &f->ages, f->now_ms));
}

void timers_run(struct baton_forwarder *f)
{
	if (f->timers_ms == f->now_ms)
		return;
	f->timers_ms = f->now_ms;
	table_age(f, &f->crt4);
	table_age(f, &f->crt6);
	flows_expire(f);
	lingering_end(f);
	half_repeat(f);
	fragments_expire(f);
}
