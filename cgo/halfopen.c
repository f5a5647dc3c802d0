/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of handshakes in SYN-RECEIVED: chains by hash, a list of free places, a queue per round.
 */
#include "halfopen.h"

#include <errno.h>
#include <stdlib.h>

#define NO_PLACE UINT32_MAX

enum { GIVEN_UP_PER_CALL = 64 };

int half_init(struct half_opens *h, uint32_t count, uint64_t seed)
{
	uint32_t heads = 16;

	while (heads < count)
		heads *= 2;
	h->places = calloc(count ? count : 1, sizeof(*h->places));
	h->heads = calloc(heads, sizeof(*h->heads));
	if (!h->places || !h->heads)
		return -ENOMEM;
	for (uint32_t i = 0; i < heads; i++)
		h->heads[i] = NO_PLACE;
	for (uint32_t i = 0; i < count; i++)
		h->places[i].newer = i + 1 < count ? i + 1 : NO_PLACE;
	for (int i = 0; i < HALF_ROUNDS; i++)
		h->queues[i] = (struct half_queue){NO_PLACE, NO_PLACE};
	h->heads_mask = heads - 1;
	h->free = count ? 0 : NO_PLACE;
	h->key[0] = seed;
	h->key[1] = ~seed;
	return 0;
}

void half_free(struct half_opens *h)
{
	free(h->places);
	free(h->heads);
}

/* head is where the chain of a tuple begins. The hash is keyed: clients choose their ports. */
static uint32_t *head(const struct half_opens *h, const struct baton_tuple *t)
{
	uint64_t words[5] = {t->client.hi, t->client.lo, t->service.hi, t->service.lo,
			     (uint64_t)t->client_port << 16 | t->service_port};

	return &h->heads[baton_siphash(h->key, (const uint8_t *)words, sizeof(words)) & h->heads_mask];
}

static bool tuple_equal(const struct baton_tuple *a, const struct baton_tuple *b)
{
	return baton_ip_equal(a->client, b->client) && baton_ip_equal(a->service, b->service) &&
	       a->client_port == b->client_port && a->service_port == b->service_port;
}

struct half_open *half_find(const struct half_opens *h, const struct baton_tuple *t)
{
	for (uint32_t i = *head(h, t); i != NO_PLACE; i = h->places[i].next)
		if (tuple_equal(&h->places[i].tuple, t))
			return &h->places[i];
	return NULL;
}

static uint32_t place_of(const struct half_opens *h, const struct half_open *o)
{
	return (uint32_t)(o - h->places);
}

static void queue_append(struct half_opens *h, struct half_open *o, uint64_t now_ms)
{
	struct half_queue *q = &h->queues[o->round];

	o->due_ms = now_ms + ((uint64_t)HALF_FIRST_MS << o->round);
	o->older = q->newest;
	o->newer = NO_PLACE;
	if (q->newest == NO_PLACE)
		q->oldest = place_of(h, o);
	else
		h->places[q->newest].newer = place_of(h, o);
	q->newest = place_of(h, o);
}

static void queue_remove(struct half_opens *h, const struct half_open *o)
{
	struct half_queue *q = &h->queues[o->round];

	if (o->older == NO_PLACE)
		q->oldest = o->newer;
	else
		h->places[o->older].newer = o->newer;
	if (o->newer == NO_PLACE)
		q->newest = o->older;
	else
		h->places[o->newer].older = o->older;
}

struct half_open *half_begin(struct half_opens *h, const struct baton_tuple *t, uint64_t now_ms)
{
	uint32_t *chain = head(h, t);

	if (h->free == NO_PLACE)
		return NULL;
	struct half_open *o = &h->places[h->free];

	h->free = o->newer;
	*o = (struct half_open){.tuple = *t, .next = *chain};
	*chain = place_of(h, o);
	queue_append(h, o, now_ms);
	return o;
}

void half_end(struct half_opens *h, struct half_open *o)
{
	uint32_t *link = head(h, &o->tuple);

	while (*link != place_of(h, o))
		link = &h->places[*link].next;
	*link = o->next;
	queue_remove(h, o);
	o->newer = h->free;
	h->free = place_of(h, o);
}

/* first_due returns the oldest of a round if its time has come. */
static struct half_open *first_due(const struct half_opens *h, int round, uint64_t now_ms)
{
	uint32_t i = h->queues[round].oldest;

	return i != NO_PLACE && h->places[i].due_ms <= now_ms ? &h->places[i] : NULL;
}

struct half_open *half_due(struct half_opens *h, uint64_t now_ms)
{
	struct half_open *o;

	for (int n = 0; n < GIVEN_UP_PER_CALL && (o = first_due(h, HALF_ROUNDS - 1, now_ms)); n++)
		half_end(h, o);
	for (int round = 0; round < HALF_ROUNDS - 1; round++) {
		o = first_due(h, round, now_ms);
		if (!o)
			continue;
		queue_remove(h, o);
		o->round++;
		queue_append(h, o, now_ms);
		return o;
	}
	return NULL;
}
