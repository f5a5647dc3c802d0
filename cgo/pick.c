/* SPDX-License-Identifier: Apache-2.0
 *
 * Conventional services: the target is picked at the SYN, which is forwarded, and answered by the target. A flow's entry
 * keeps it with its target from then on, whatever becomes of the set: a target that is not in the set may be draining, or
 * have lost its agent only. Without an entry, a Maglev table still names the target (Eisenbud et al., "Maglev", NSDI 2016,
 * section 3.3); the other ways of distribution cannot know it.
 */
#include "emit.h"

#include <errno.h>
#include <stdlib.h>

/* ---- connections per target */

static void connections_add(struct picker *k, uint16_t owner, int n)
{
	uint32_t v = atomic_load_explicit(&k->connections[owner], memory_order_relaxed);

	atomic_store_explicit(&k->connections[owner], v + (uint32_t)n, memory_order_relaxed);
}

static uint32_t connections(const struct picker *k, uint16_t owner)
{
	return atomic_load_explicit(&k->connections[owner], memory_order_relaxed);
}

/* uncounted is the value without its part in the count. */
static uint64_t uncounted(struct picker *k, uint64_t value)
{
	if (value & BATON_VALUE_COUNTED)
		connections_add(k, (uint16_t)(value & BATON_VALUE_OWNER), -1);
	return value & ~BATON_VALUE_COUNTED;
}

/* entry_removed is told by the tables of each entry that goes. */
static void entry_removed(void *arg, uint16_t service_id, uint64_t value)
{
	struct baton_forwarder *f = arg;
	struct picker *k = f->pickers[service_id];

	if (k && baton_value_state(value) >= BATON_TARGET)
		uncounted(k, value);
}

bool is_conventional(const struct baton_forwarder *f, const struct baton_key *k, bool ip6)
{
	return f->pickers[(uint16_t)(ip6 ? k->w[2] >> 16 : k->w[0])];
}

/* ---- pick: each returns an owner. The set is not empty. */

/* after returns the number of the first candidate behind the owner that was picked last. */
static uint32_t after_last(const struct picker *k)
{
	const struct baton_targets *s = k->set;
	uint32_t i = 0;

	while (i < s->count && s->candidates[i].owner <= k->last)
		i++;
	return i < s->count ? i : 0;
}

static uint16_t pick_next(const struct picker *k)
{
	return k->set->candidates[after_last(k)].owner;
}

/* pick_weighted is smooth weighted round robin: each gains its weight, the richest pays what all have gained. So a heavy
 * target's turns lie between those of the others. */
static uint16_t pick_weighted(struct picker *k)
{
	const struct baton_targets *s = k->set;
	uint32_t best = 0;
	int32_t gained = 0;

	for (uint32_t i = 0; i < s->count; i++) {
		k->credit[i] += s->candidates[i].weight;
		gained += s->candidates[i].weight;
		if (k->credit[i] > k->credit[best])
			best = i;
	}
	k->credit[best] -= gained;
	return s->candidates[best].owner;
}

/* pick_least finds the target that would have the fewest connections for its weight with one more; of equals, the next in
 * turn. */
static uint16_t pick_least(const struct picker *k)
{
	const struct baton_targets *s = k->set;
	const struct baton_candidate *best = NULL;
	uint32_t first = after_last(k);

	for (uint32_t i = 0; i < s->count; i++) {
		const struct baton_candidate *c = &s->candidates[(first + i) % s->count];

		if (!best ||
		    (connections(k, c->owner) + 1ull) * best->weight < (connections(k, best->owner) + 1ull) * c->weight)
			best = c;
	}
	return best->owner;
}

/* tuple_hash is the same at every start and on every host: a table names the same target wherever it is asked. */
static uint64_t tuple_hash(const struct baton_tuple *t)
{
	const uint64_t words[] = {t->client.hi, t->client.lo, t->service.hi, t->service.lo,
				  (uint64_t)t->client_port << 16 | t->service_port};
	uint64_t h = 0x243f6a8885a308d3ull;

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		h = (h ^ words[i]) * 0x9e3779b97f4a7c15ull;
		h ^= h >> 32;
	}
	h *= 0xd6e8feb86659fd93ull;
	return h ^ h >> 32;
}

static uint16_t pick_maglev(const struct picker *k, const struct baton_tuple *t)
{
	return k->set->table[tuple_hash(t) % k->set->table_size];
}

/* pick returns the target of a new connection, or 0: nobody takes it. */
static uint16_t pick(struct picker *k, enum baton_distribution d, const struct baton_tuple *t)
{
	if (!k->set || k->set->count == 0)
		return 0;
	switch (d) {
	case BATON_WEIGHTED:
		return k->last = pick_weighted(k);
	case BATON_LEASTCONN:
		return k->last = pick_least(k);
	case BATON_MAGLEV:
		return pick_maglev(k, t);
	default:
		return k->last = pick_next(k);
	}
}

static bool takes_connections(const struct picker *k, uint16_t owner)
{
	for (uint32_t i = 0; k->set && i < k->set->count; i++)
		if (k->set->candidates[i].owner == owner)
			return true;
	return false;
}

/* ---- segments */

static void forward_to(struct baton_forwarder *f, struct packet *p, uint16_t owner)
{
	enum baton_counter outcome = frame_to_owner(f, owner, &p->buf);

	if (outcome == BATON_FORWARDED)
		count(f, outcome);
	else
		frame_refuse(f, p->port, owner, &p->buf, outcome);
}

static void keep(struct baton_forwarder *f, baton_word *v, uint64_t value)
{
	value_store(v, (value & ((1ull << BATON_VALUE_AGE_SHIFT) - 1)) | f->now_ms / 1000 << BATON_VALUE_AGE_SHIFT);
}

/* enter makes an entry of owner and forwards the segment. v: the entry of the tuple's older incarnation, or NULL. marks: of
 * the value, END and SYN. Of a full table only Maglev can do without. */
static void enter(struct baton_forwarder *f, struct packet *p, uint16_t owner, baton_word *v, uint64_t marks)
{
	const struct baton_service *s = &f->services[p->service];
	struct picker *k = f->pickers[s->id];
	uint64_t value = marks | baton_value(BATON_TARGET, owner | BATON_VALUE_COUNTED,
					     baton_incarnation_hash(p->seq, 0), f->now_ms);

	if (v) {
		uncounted(k, value_load(v));
		value_store(v, value);
	} else if (!entry_add(f, crt_of(f, p->ip6), &p->lookup.key, p->lookup.hash, value)) {
		if (s->distribution != BATON_MAGLEV) {
			frame_drop(f, p->port, &p->buf, BATON_DROP_CRT_FULL);
			return;
		}
		count(f, BATON_UNTRACKED);
		forward_to(f, p, owner);
		return;
	}
	connections_add(k, owner, 1);
	forward_to(f, p, owner);
}

/* begins says that a SYN of a known tuple begins a connection that may go elsewhere. While the client has not ended the old
 * one, only its target can tell a new connection from a forged SYN (RFC 5961 4). And one whose SYN is all that was seen may
 * leave a target that takes no more. */
static bool begins(const struct picker *k, uint64_t value, uint32_t seq)
{
	if (!(value & BATON_VALUE_END))
		return false;
	if (baton_value_inc(value) != baton_incarnation_hash(seq, 0))
		return true;
	return (value & BATON_VALUE_SYN) && !takes_connections(k, (uint16_t)(value & BATON_VALUE_OWNER));
}

static void conventional_syn(struct baton_forwarder *f, struct packet *p, struct picker *k)
{
	baton_word *v = p->lookup.entry;

	if (p->flags & (TCP_FIN | TCP_RST | TCP_ACK)) {
		frame_drop(f, p->port, &p->buf, BATON_DROP_FLAGS);
		return;
	}
	if (v && !begins(k, value_load(v), p->seq)) {
		keep(f, v, value_load(v));
		forward_to(f, p, (uint16_t)(value_load(v) & BATON_VALUE_OWNER));
		return;
	}
	uint16_t owner = pick(k, (enum baton_distribution)f->services[p->service].distribution, &p->tuple);

	if (owner == 0) {
		frame_drop(f, p->port, &p->buf, BATON_DROP_NO_TARGET);
		return;
	}
	count(f, BATON_PICKED);
	enter(f, p, owner, v, BATON_VALUE_END | 1ull << BATON_VALUE_SYN_SHIFT);
}

/* conventional_known follows what the client's segments tell of its connection; those of the target are not seen. */
static void conventional_known(struct baton_forwarder *f, struct packet *p, struct picker *k, baton_word *v)
{
	uint64_t value = value_load(v);

	if (p->flags & (TCP_FIN | TCP_RST))
		value = uncounted(k, value) | BATON_VALUE_END;
	else if (value & BATON_VALUE_SYN)
		value &= ~BATON_VALUE_END;
	keep(f, v, value & ~BATON_VALUE_SYN);
	forward_to(f, p, (uint16_t)(value & BATON_VALUE_OWNER));
}

/* conventional_unknown goes by the table, where there is one: the entry may have been lost with a former process. The last
 * segments of a connection make no new one. */
static void conventional_unknown(struct baton_forwarder *f, struct packet *p, struct picker *k)
{
	bool recovers = f->services[p->service].distribution == BATON_MAGLEV && k->set && k->set->recovers;
	uint16_t owner = recovers ? pick(k, BATON_MAGLEV, &p->tuple) : 0;

	if (owner == 0) {
		frame_drop(f, p->port, &p->buf, recovers ? BATON_DROP_NO_TARGET : BATON_DROP_NO_FLOW);
		return;
	}
	count(f, BATON_RECOVERED);
	if (p->flags & (TCP_FIN | TCP_RST))
		forward_to(f, p, owner);
	else
		enter(f, p, owner, NULL, 0);
}

void conventional(struct baton_forwarder *f, struct packet *p)
{
	struct picker *k = f->pickers[f->services[p->service].id];

	if (!packet_checksum_ok(p, PROTO_TCP))
		frame_drop(f, p->port, &p->buf, BATON_DROP_L4_CHECKSUM);
	else if (p->flags & TCP_SYN)
		conventional_syn(f, p, k);
	else if (p->lookup.entry)
		conventional_known(f, p, k, p->lookup.entry);
	else
		conventional_unknown(f, p, k);
}

/* ---- sets of targets: poll thread */

void targets_replace(struct baton_forwarder *f, uint16_t service, struct baton_targets *set)
{
	struct picker *k = f->pickers[f->services[service].id];

	if (k->set)
		atomic_fetch_sub_explicit(&k->set->holders, 1, memory_order_release);
	k->set = set;
	memset(k->credit, 0, sizeof(k->credit[0]) * set->count);
}

/* ---- sets of targets: the thread that publishes */

static bool set_valid(const struct baton_forwarder *f, uint16_t service, const struct baton_candidate *c,
		      uint32_t count, const uint16_t *table, uint32_t table_size)
{
	if (service >= f->service_count || !f->pickers[f->services[service].id])
		return false;
	bool maglev = f->services[service].distribution == BATON_MAGLEV;

	if (count >= BATON_MAX_OWNERS || (table_size > 0) != (maglev && count > 0))
		return false;
	for (uint32_t i = 0; i < count; i++)
		if (c[i].weight == 0 || c[i].owner == 0 || c[i].owner >= BATON_MAX_OWNERS ||
		    (i && c[i].owner <= c[i - 1].owner))
			return false;
	for (uint32_t i = 0; i < table_size; i++)
		if (table[i] == 0 || table[i] >= BATON_MAX_OWNERS)
			return false;
	return true;
}

static struct baton_targets *set_make(const struct baton_candidate *candidates, uint32_t count, const uint16_t *table,
				      uint32_t table_size, bool recovers)
{
	size_t head = sizeof(struct baton_targets) + count * sizeof(candidates[0]);
	struct baton_targets *s = malloc(head + table_size * sizeof(table[0]));
	uint16_t *copy = (uint16_t *)((uint8_t *)s + head);

	if (!s)
		return NULL;
	*s = (struct baton_targets){.holders = 1, .count = count, .table_size = table_size, .recovers = recovers};
	s->table = copy;
	if (count)
		memcpy(s->candidates, candidates, count * sizeof(candidates[0]));
	if (table_size)
		memcpy(copy, table, table_size * sizeof(table[0]));
	return s;
}

/* sets_free frees the sets that no poll thread holds any more. */
static void sets_free(struct baton_forwarder *f)
{
	for (struct baton_targets **at = &f->published; *at;) {
		struct baton_targets *s = *at;

		if (atomic_load_explicit(&s->holders, memory_order_acquire)) {
			at = &s->next;
			continue;
		}
		*at = s->next;
		free(s);
	}
}

int baton_targets_publish(struct baton_forwarder *f, uint16_t service, const struct baton_candidate *candidates,
			  uint32_t count, const uint16_t *table, uint32_t table_size, bool recovers)
{
	sets_free(f);
	if (!set_valid(f, service, candidates, count, table, table_size))
		return -EINVAL;
	struct baton_targets *set = set_make(candidates, count, table, table_size, recovers);
	struct baton_command *c = set ? baton_ring_reserve(&f->commands, sizeof(*c)) : NULL;

	if (!c) {
		free(set);
		return set ? -EBUSY : -ENOMEM;
	}
	*c = (struct baton_command){.kind = BATON_SET_TARGETS, .flow = (uintptr_t)set, .port = service};
	set->next = f->published;
	f->published = set;
	baton_ring_publish(&f->commands);
	loop_wake(f);
	return 0;
}

/* ---- life, and what others may read */

int pickers_init(struct baton_forwarder *f)
{
	f->pickers = calloc(SERVICE_IDS, sizeof(struct picker *));
	if (!f->pickers)
		return -ENOMEM;
	for (uint32_t i = 0; i < f->service_count; i++) {
		const struct baton_service *s = &f->services[i];

		if (s->distribution == BATON_CONTENTROUTED)
			continue;
		if (s->adopts || s->distribution > BATON_MAGLEV || f->pickers[s->id])
			return -EINVAL;
		f->pickers[s->id] = calloc(1, sizeof(struct picker));
		if (!f->pickers[s->id])
			return -ENOMEM;
	}
	f->crt4.removing = f->crt6.removing = entry_removed;
	f->crt4.removing_arg = f->crt6.removing_arg = f;
	return 0;
}

void pickers_free(struct baton_forwarder *f)
{
	for (uint32_t i = 0; f->pickers && i < SERVICE_IDS; i++)
		if (f->pickers[i]) /* hardly any: a sanitizer's free is slow */
			free(f->pickers[i]);
	free(f->pickers);
	while (f->published) {
		struct baton_targets *s = f->published;

		f->published = s->next;
		free(s);
	}
}

void baton_connections_read(struct baton_forwarder *f, uint16_t service, uint32_t out[BATON_MAX_OWNERS])
{
	const struct picker *k = service < f->service_count ? f->pickers[f->services[service].id] : NULL;

	for (uint16_t i = 0; i < BATON_MAX_OWNERS; i++)
		out[i] = k ? connections(k, i) : 0;
}
