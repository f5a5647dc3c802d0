/* SPDX-License-Identifier: Apache-2.0
 *
 * Shards: forwarders with a polling thread each, that share ports. What decides about a connection - its entry, its
 * flow, its commands and punts - is in one shard only, which the tuple's hash names, so nothing needs a lock.
 *
 * The hash is the Toeplitz hash of receive-side scaling (Microsoft, "RSS hashing types"). A NIC that takes our key puts
 * each frame into the queue of its shard. Where there is no such NIC, whoever receives a frame passes it on through a
 * ring; buffers of one port may be freed by any shard.
 *
 *    ports --> shard 0 --+--> its own pipeline
 *                        +--> ring 0->1 --> pipeline of shard 1 --+--> its own transmit queue
 *                                                                 +--> ring 1->0 --> shard 0 sends
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "emit.h"
#include "forwarder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { PASSING_RING = 1 << 16 }; /* octets: some 1300 frames */

struct passed {
	struct baton_buf buf;
	uint16_t port;
	bool tx; /* to be sent, else it was received */
};

/* ---- the hash */

/* key_window is what one bit of the input adds: 32 bits of the key, from that bit's place on. */
static uint32_t key_window(const uint8_t key[BATON_STEER_KEY], uint32_t bit)
{
	uint64_t five = 0;

	for (uint32_t i = 0; i < 5; i++)
		five = five << 8 | (bit / 8 + i < BATON_STEER_KEY ? key[bit / 8 + i] : 0);
	return (uint32_t)(five >> (8 - bit % 8));
}

void baton_toeplitz_key(struct baton_shards *s, const uint8_t key[BATON_STEER_KEY])
{
	memcpy(s->key, key, BATON_STEER_KEY);
	for (uint32_t place = 0; place < 36; place++)
		for (uint32_t octet = 0; octet < 256; octet++) {
			uint32_t hash = 0;

			for (uint32_t b = 0; b < 8; b++)
				hash ^= octet & (0x80 >> b) ? key_window(key, place * 8 + b) : 0;
			s->toeplitz[place][octet] = hash;
		}
}

static void key_from_seed(struct baton_shards *s, uint64_t seed)
{
	const uint64_t words[2] = {seed, ~seed};
	uint8_t key[BATON_STEER_KEY];

	for (uint8_t i = 0; i < BATON_STEER_KEY / 8; i++)
		store64(key + i * 8, baton_siphash(words, &i, 1));
	baton_toeplitz_key(s, key);
}

uint32_t baton_toeplitz(const struct baton_shards *s, const struct baton_tuple *t)
{
	uint8_t input[36], *p = input;
	uint32_t hash = 0;

	if (baton_ip_is4(t->client)) {
		store32(p, (uint32_t)t->client.lo);
		store32(p + 4, (uint32_t)t->service.lo);
		p += 8;
	} else {
		store_ip6(p, t->client);
		store_ip6(p + 16, t->service);
		p += 32;
	}
	store16(p, t->client_port);
	store16(p + 2, t->service_port);
	for (int i = 0, len = (int)(p + 4 - input); i < len; i++)
		hash ^= s->toeplitz[i][input[i]];
	return hash;
}

uint32_t baton_shard_of(const struct baton_shards *s, const struct baton_tuple *t)
{
	return s->count == 1 ? 0 : baton_toeplitz(s, t) % BATON_STEER_BUCKETS % s->count;
}

/* frame_tuple reads source and destination of a TCP segment as if it came from a client. */
static bool frame_tuple(const uint8_t *frame, uint32_t len, struct baton_tuple *t)
{
	const uint8_t *ip = frame + ETH_LEN;

	memset(t, 0, sizeof(*t));
	if (len >= ETH_LEN + IP4_LEN + TCP_LEN && load16(frame + 12) == ETH_TYPE_IP4 && ip[0] == 0x45 &&
	    ip[9] == PROTO_TCP && (load16(ip + 6) & 0x3fff) == 0) {
		t->client = baton_ip_from4(load32(ip + 12));
		t->service = baton_ip_from4(load32(ip + 16));
		ip += IP4_LEN;
	} else if (len >= ETH_LEN + IP6_LEN + TCP_LEN && load16(frame + 12) == ETH_TYPE_IP6 && ip[6] == PROTO_TCP) {
		t->client = load_ip6(ip + 8);
		t->service = load_ip6(ip + 24);
		ip += IP6_LEN;
	} else {
		return false;
	}
	t->client_port = load16(ip);
	t->service_port = load16(ip + 2);
	return true;
}

uint32_t baton_shard_of_request(const struct baton_shards *s, const uint8_t *frame, uint32_t len)
{
	struct baton_tuple t;

	return s->count > 1 && frame_tuple(frame, len, &t) ? baton_shard_of(s, &t) : 0;
}

uint32_t baton_shard_of_reply(const struct baton_shards *s, const uint8_t *frame, uint32_t len)
{
	struct baton_tuple t;

	if (s->count == 1 || !frame_tuple(frame, len, &t))
		return 0;
	const struct baton_tuple back = {t.service, t.client, t.service_port, t.client_port, 0};

	return baton_shard_of(s, &back);
}

/* ---- passing */

static struct baton_ring *passing(const struct baton_shards *s, uint32_t from, uint32_t to)
{
	return &s->passing[from * s->count + to];
}

static bool pass(struct baton_forwarder *f, uint32_t to, const struct passed *frame)
{
	struct baton_ring *r = passing(f->shards, f->shard, to);
	struct passed *place = baton_ring_reserve(r, sizeof(*place));

	if (!place)
		return false;
	*place = *frame;
	baton_ring_publish(r);
	f->passed_to |= 1u << to;
	return true;
}

static void packet_pass(struct baton_forwarder *f, struct packet *p, uint32_t to)
{
	if (pass(f, to, &(struct passed){p->buf, p->port, false})) {
		p->class = CLASS_PASSED;
		count(f, BATON_PASSED);
	} else {
		packet_drop(p, BATON_DROP_SHARD_FULL);
	}
}

bool shard_elsewhere(struct baton_forwarder *f, struct packet *p, const struct baton_tuple *t)
{
	uint32_t to;

	if (!f->shards || (to = baton_shard_of(f->shards, t)) == f->shard)
		return false;
	packet_pass(f, p, to);
	return true;
}

bool shard_handed(struct baton_forwarder *f, struct packet *p, const struct baton_tuple *t)
{
	if (!shard_elsewhere(f, p, t))
		return false;
	if (p->class == CLASS_DROP)
		frame_drop(f, p->port, &p->buf, p->reason);
	return true;
}

bool shard_next(struct baton_forwarder *f, struct packet *p)
{
	uint32_t to = f->mixed && f->shard > 0 ? 0 : f->shard + 1;

	if (!f->shards || to == f->shards->count)
		return false;
	packet_pass(f, p, to);
	if (p->class == CLASS_DROP)
		frame_drop(f, p->port, &p->buf, p->reason);
	return true;
}

uint16_t shard_take(struct baton_forwarder *f, uint32_t from, uint16_t most, uint16_t *port)
{
	struct baton_ring *r = passing(f->shards, from, f->shard);
	const struct passed *frame;
	uint16_t n = 0;
	uint32_t len;

	for (uint64_t at = r->read; n < most && (frame = baton_ring_take(r, &len)); at = r->read) {
		bool stays = frame->tx ? !frame_stage(f, frame->port, &frame->buf) : n > 0 && frame->port != *port;

		if (stays) { /* a busy port stops its senders, as a port of their own would */
			r->read = at;
			break;
		}
		if (!frame->tx) {
			__builtin_prefetch(frame->buf.data);
			f->frames[n++] = frame->buf;
			*port = frame->port;
		}
	}
	baton_ring_release(r);
	return n;
}

void shard_bell(struct baton_forwarder *f)
{
	for (; f->passed_to; f->passed_to &= f->passed_to - 1)
		loop_wake(f->shards->shard[__builtin_ctz(f->passed_to)]);
}

bool shard_waiting(const struct baton_forwarder *f)
{
	for (uint32_t from = 0; from < f->shards->count; from++) {
		const struct baton_ring *r = passing(f->shards, from, f->shard);

		if (atomic_load_explicit(&r->head, memory_order_acquire) != r->read)
			return true;
	}
	return false;
}

void shard_discard(struct baton_forwarder *f)
{
	struct passed *frame;
	uint32_t len;

	for (uint32_t from = 0; from < f->shards->count; from++)
		while ((frame = baton_ring_take(passing(f->shards, from, f->shard), &len)))
			f->ports[frame->port].ops->free(&f->ports[frame->port], &frame->buf, 1);
}

uint16_t shard_no_rx(struct baton_port *p, struct baton_buf *bufs, uint16_t n)
{
	(void)p;
	(void)bufs;
	(void)n;
	return 0;
}

uint16_t shard_tx(struct baton_port *p, struct baton_buf *bufs, uint16_t n)
{
	uint16_t i = 0;

	while (i < n && pass(p->forwarder, 0, &(struct passed){bufs[i], p->index, true}))
		i++;
	return i;
}

/* ---- open and close */

/* part is a shard's part of what all may have, with some room because they never share it evenly. */
static uint64_t part(uint64_t all, uint32_t count)
{
	return count == 1 ? all : (all + count - 1) / count + all / count / 8;
}

static struct baton_config config_part(const struct baton_config *all, uint32_t count)
{
	struct baton_config c = *all;

	c.ipv4_entries = part(all->ipv4_entries, count);
	c.ipv6_entries = part(all->ipv6_entries, count);
	c.router_flows = (uint32_t)part(all->router_flows, count);
	c.source_flows = (uint32_t)part(all->source_flows, count);
	c.source_punts = (uint32_t)part(all->source_punts, count);
	c.punts = (uint32_t)part(all->punts, count);
	c.half_open = (uint32_t)part(all->half_open, count);
	return c;
}

static int shard_open(struct baton_shards *s, uint32_t index, const struct baton_config *c,
		      const struct baton_service *services)
{
	struct baton_forwarder *f;
	int err = 0;

	f = s->shard[index] = baton_open(c, services, &err);
	if (!f)
		return err;
	f->shards = s->count > 1 ? s : NULL;
	f->shard = index;
	if (index > 0 && dup3(s->shard[0]->punt_fd, f->punt_fd, O_CLOEXEC) < 0) /* one bell for all */
		return -errno;
	return 0;
}

static int shards_init(struct baton_shards *s, const struct baton_config *c, const struct baton_service *services)
{
	const struct baton_config each = config_part(c, s->count);
	int err = 0;

	key_from_seed(s, c->seed);
	s->passing = aligned_alloc(BATON_CACHE_LINE, s->count * s->count * sizeof(*s->passing));
	if (!s->passing)
		return -ENOMEM;
	memset(s->passing, 0, s->count * s->count * sizeof(*s->passing));
	for (uint32_t i = 0; i < s->count * s->count && !err; i++)
		if (i / s->count != i % s->count)
			err = baton_ring_init(&s->passing[i], PASSING_RING);
	for (uint32_t i = 0; i < s->count && !err; i++)
		err = shard_open(s, i, &each, services);
	return err;
}

struct baton_shards *baton_shards_open(const struct baton_config *c, const struct baton_service *services,
				       uint32_t count, int *err)
{
	struct baton_shards *s = count < 1 || count > BATON_MAX_SHARDS ? NULL : calloc(1, sizeof(*s));

	if (!s) {
		*err = count < 1 || count > BATON_MAX_SHARDS ? -EINVAL : -ENOMEM;
		return NULL;
	}
	s->count = count;
	*err = shards_init(s, c, services);
	if (*err == 0)
		return s;
	baton_shards_close(s);
	return NULL;
}

void baton_shards_close(struct baton_shards *s)
{
	for (uint32_t i = 0; i < s->count; i++)
		if (s->shard[i])
			frames_release(s->shard[i]); /* into memory of any shard's ports */
	for (uint32_t i = 0; i < s->count; i++)
		if (s->shard[i])
			baton_close(s->shard[i]);
	for (uint32_t i = 0; s->passing && i < s->count * s->count; i++)
		baton_ring_free(&s->passing[i]);
	free(s->passing);
	free(s);
}

struct baton_forwarder *baton_shard(const struct baton_shards *s, uint32_t index)
{
	return s->shard[index];
}
