/* SPDX-License-Identifier: Apache-2.0
 *
 * SYN cookies. Our initial sequence number is
 *
 *    31                              8 7             0
 *   +---------------------------------+---------------+
 *   | MAC of tuple, irs, opt          | opt XOR pad   |     opt = | MSS index 3 | window scale 4 | SACK 1 |
 *   +---------------------------------+---------------+
 *
 * Both come from H, the SipHash of tuple and irs under a key that changes every tick of 64 s, so that clients without
 * timestamps keep all their options. The pad, 8 bits of H, hides the options, which would make initial sequence numbers
 * of one client predictable in part. The MAC mixes H with opt. Who does not know H, which is everybody but the tuple's
 * own client, guesses a number with probability 2 * 2^-24. That client knows 32 bits about H and could choose other
 * options for itself, as it could in its SYN; that numbers near a good one are refused needs no secret.
 *
 * A secret that follows another one is used at once for new cookies, while those of the former stay good for as long as
 * they would have been. Only then a wrong number costs twice the hashes.
 */
#include "baton.h"

#include <string.h>

static const uint16_t mss_table[8] = {64, 536, 1220, 1360, 1440, 1452, 1460, 8940};

struct sip {
	uint64_t v0, v1, v2, v3;
};

static inline uint64_t rotl(uint64_t x, int n)
{
	return x << n | x >> (64 - n);
}

static inline void sip_round(struct sip *s)
{
	s->v0 += s->v1;
	s->v1 = rotl(s->v1, 13) ^ s->v0;
	s->v0 = rotl(s->v0, 32);
	s->v2 += s->v3;
	s->v3 = rotl(s->v3, 16) ^ s->v2;
	s->v0 += s->v3;
	s->v3 = rotl(s->v3, 21) ^ s->v0;
	s->v2 += s->v1;
	s->v1 = rotl(s->v1, 17) ^ s->v2;
	s->v2 = rotl(s->v2, 32);
}

static inline struct sip sip_init(const uint64_t key[2])
{
	return (struct sip){key[0] ^ 0x736f6d6570736575ull, key[1] ^ 0x646f72616e646f6dull,
			    key[0] ^ 0x6c7967656e657261ull, key[1] ^ 0x7465646279746573ull};
}

static inline void sip_word(struct sip *s, uint64_t m)
{
	s->v3 ^= m;
	sip_round(s);
	sip_round(s);
	s->v0 ^= m;
}

/* sip_final finishes a copy of s with the last word: up to 7 octets, and the length in the top one. */
static inline uint64_t sip_final(struct sip s, uint64_t last)
{
	sip_word(&s, last);
	s.v2 ^= 0xff;
	for (int i = 0; i < 4; i++)
		sip_round(&s);
	return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

static inline uint64_t load_le(const uint8_t *p, size_t n)
{
	uint64_t w = 0;

	for (size_t i = 0; i < n; i++)
		w |= (uint64_t)p[i] << 8 * i;
	return w;
}

uint64_t baton_siphash(const uint64_t key[2], const uint8_t *data, size_t len)
{
	struct sip s = sip_init(key);
	size_t i = 0;

	for (; i + 8 <= len; i += 8)
		sip_word(&s, load_le(data + i, 8));
	return sip_final(s, load_le(data + i, len - i) | (uint64_t)len << 56);
}

/* Two SipHashes under way at once fill each other's waiting times. */
struct sip_pair {
	struct sip a, b;
};

static inline void pair_round(struct sip_pair *p)
{
	sip_round(&p->a);
	sip_round(&p->b);
}

static inline void pair_word(struct sip_pair *p, uint64_t m, uint64_t n)
{
	p->a.v3 ^= m;
	p->b.v3 ^= n;
	pair_round(p);
	pair_round(p);
	p->a.v0 ^= m;
	p->b.v0 ^= n;
}

/* tuple_hashes hashes a tuple and a number under two keys: 16 octets for IPv4, 40 for IPv6. */
static inline void tuple_hashes(const struct baton_tuple *t, const uint64_t key_a[2], uint32_t number_a,
				const uint64_t key_b[2], uint32_t number_b, uint64_t *hash_a, uint64_t *hash_b)
{
	struct sip_pair p = {sip_init(key_a), sip_init(key_b)};
	uint64_t ports = (uint64_t)t->client_port << 48 | (uint64_t)t->service_port << 32;
	uint64_t len = 16;

	if (baton_ip_is4(t->client)) {
		uint64_t addresses = t->client.lo << 32 | (uint32_t)t->service.lo;

		pair_word(&p, addresses, addresses);
	} else {
		pair_word(&p, t->client.hi, t->client.hi);
		pair_word(&p, t->client.lo, t->client.lo);
		pair_word(&p, t->service.hi, t->service.hi);
		pair_word(&p, t->service.lo, t->service.lo);
		len = 40;
	}
	pair_word(&p, ports | number_a, ports | number_b);
	pair_word(&p, len << 56, len << 56);
	p.a.v2 ^= 0xff;
	p.b.v2 ^= 0xff;
	for (int i = 0; i < 4; i++)
		pair_round(&p);
	*hash_a = p.a.v0 ^ p.a.v1 ^ p.a.v2 ^ p.a.v3;
	*hash_b = p.b.v0 ^ p.b.v1 ^ p.b.v2 ^ p.b.v3;
}

/* derive makes a key for one purpose: label's lower bits tell the two words apart. */
static void derive(const struct baton_secret *secret, uint64_t label, uint64_t out[2])
{
	uint64_t words[4];

	for (int i = 0; i < 4; i++)
		words[i] = load_le(secret->octets + 8 * i, 8);
	for (int i = 0; i < 2; i++) {
		struct sip s = sip_init(words);

		sip_word(&s, words[2]);
		sip_word(&s, words[3]);
		sip_word(&s, label * 2 + i);
		out[i] = sip_final(s, 24ull << 56);
	}
}

static struct baton_cookie_keys keys_of(const struct baton_secret *secret, uint64_t tick)
{
	struct baton_cookie_keys k;

	derive(secret, UINT64_MAX / 2, k.ts);
	derive(secret, tick, k.tick);
	derive(secret, tick - 1, k.previous_tick);
	return k;
}

static inline uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* keys_derive makes the keys that are good at now_ms, and finds out until when. */
static void keys_derive(struct baton_cookies *c, uint64_t now_ms)
{
	uint32_t n = 0; /* the secret in use */

	while (n + 1 < c->count && c->secrets[n + 1].from_ms <= now_ms)
		n++;
	c->tick = now_ms / BATON_COOKIE_TICK_MS;
	c->next_ms = (c->tick + 1) * BATON_COOKIE_TICK_MS;
	if (n + 1 < c->count)
		c->next_ms = earlier(c->next_ms, c->secrets[n + 1].from_ms);
	c->keys = keys_of(&c->secrets[n], c->tick);
	c->retiring = n > 0 && now_ms < c->secrets[n].from_ms + BATON_COOKIE_LIFE_MS;
	if (!c->retiring)
		return;
	c->retired = keys_of(&c->secrets[n - 1], c->tick);
	c->next_ms = earlier(c->next_ms, c->secrets[n].from_ms + BATON_COOKIE_LIFE_MS);
}

void baton_cookies_secrets(struct baton_cookies *c, const struct baton_secret *secrets, uint32_t count, uint64_t now_ms)
{
	memcpy(c->secrets, secrets, count * sizeof(*secrets));
	c->count = count;
	keys_derive(c, now_ms);
}

void baton_cookies_init(struct baton_cookies *c, const uint8_t secret[32], uint64_t now_ms)
{
	struct baton_secret first = {.from_ms = 0};

	memcpy(first.octets, secret, sizeof(first.octets));
	baton_cookies_secrets(c, &first, 1, now_ms);
}

void baton_cookies_advance(struct baton_cookies *c, uint64_t now_ms)
{
	if (now_ms >= c->next_ms)
		keys_derive(c, now_ms);
}

static uint8_t options_pack(const struct baton_options *o)
{
	uint8_t i = 7;

	while (i > 0 && mss_table[i] > o->mss)
		i--;
	return i << 5 | (o->scale & 15) << 1 | o->sack;
}

static void options_unpack(uint8_t packed, struct baton_options *o)
{
	o->mss = mss_table[packed >> 5];
	o->scale = packed >> 1 & 15;
	o->sack = packed & 1;
}

/* cookie_number makes the number from H. */
static inline uint32_t cookie_number(uint64_t hash, uint8_t packed)
{
	uint64_t mac = (hash ^ (uint64_t)packed << 32) * 0xff51afd7ed558ccdull;

	mac = (mac ^ mac >> 33) * 0xc4ceb9fe1a85ec53ull;
	return (uint32_t)(mac >> 40) << 8 | (packed ^ (uint8_t)hash);
}

uint32_t baton_cookie_make(const struct baton_cookies *c, const struct baton_tuple *t, uint32_t irs,
			   const struct baton_options *o, uint32_t *ts_offset)
{
	uint64_t hash, offset;

	tuple_hashes(t, c->keys.tick, irs, c->keys.ts, 0, &hash, &offset);
	*ts_offset = (uint32_t)offset;
	return cookie_number(hash, options_pack(o));
}

static bool made_with(const struct baton_cookie_keys *k, const struct baton_tuple *t, uint32_t irs, uint32_t iss,
		      struct baton_options *o)
{
	uint64_t hash, previous;

	tuple_hashes(t, k->tick, irs, k->previous_tick, irs, &hash, &previous);
	uint8_t packed = (uint8_t)(iss ^ hash);

	if (cookie_number(hash, packed) != iss) {
		packed = (uint8_t)(iss ^ previous);
		if (cookie_number(previous, packed) != iss)
			return false;
	}
	options_unpack(packed, o);
	return true;
}

const struct baton_cookie_keys *baton_cookie_check(const struct baton_cookies *c, const struct baton_tuple *t,
						   uint32_t irs, uint32_t iss, struct baton_options *o)
{
	if (made_with(&c->keys, t, irs, iss, o))
		return &c->keys;
	return c->retiring && made_with(&c->retired, t, irs, iss, o) ? &c->retired : NULL;
}

uint32_t baton_cookie_ts_offset(const struct baton_cookie_keys *k, const struct baton_tuple *t)
{
	uint64_t offset, unused;

	tuple_hashes(t, k->ts, 0, k->ts, 0, &offset, &unused);
	return (uint32_t)offset;
}
