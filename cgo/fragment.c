/* SPDX-License-Identifier: Apache-2.0
 *
 * Fragments of TCP segments: see fragment.h.
 */
#include "emit.h"
#include "forwarder.h"

/* part is what a fragment says of itself. */
struct part {
	uint32_t id;
	uint32_t offset, len; /* octets of the packet's payload */
	bool more;            /* it is not the last one */
};

static struct part part_of(const struct packet *p)
{
	const uint8_t *ip = p->buf.data + ETH_LEN, *extension = p->buf.data + p->l4 - FRAGMENT6_LEN;
	uint32_t len = p->end - p->l4;

	if (p->ip6)
		return (struct part){load32(extension + 4), load16(extension + 2) & ~7u, len, extension[3] & 1};
	return (struct part){load16(ip + 4), (load16(ip + 6) & IP4_OFFSET) * 8u, len, ip[6] & 0x20};
}

/* ---- the table */

static struct fragmented *set_of(struct baton_forwarder *f, const struct packet *p, uint32_t id)
{
	uint64_t h = ((p->src.hi ^ p->src.lo) * 31 + (p->dst.hi ^ p->dst.lo)) ^ f->fragments.seed;

	h = (h ^ id) * 0x9e3779b97f4a7c15ull;
	return f->fragments.sets[(h >> 32) % FRAGMENT_SETS];
}

/* place_free forgets a packet. What was put together of it so far is dropped. */
static void place_free(struct baton_forwarder *f, struct fragmented *m)
{
	if (m->until_ms && m->whole.handle) {
		f->fragments.wholes--;
		frame_drop(f, m->port, &m->whole, BATON_DROP_FRAGMENT);
	}
	m->until_ms = 0;
}

static struct fragmented *place_find(struct baton_forwarder *f, const struct packet *p, uint32_t id)
{
	struct fragmented *set = set_of(f, p, id);

	for (int i = 0; i < FRAGMENT_WAYS; i++)
		if (set[i].until_ms > f->now_ms && set[i].id == id && baton_ip_equal(set[i].src, p->src) &&
		    baton_ip_equal(set[i].dst, p->dst))
			return &set[i];
	return NULL;
}

/* place_make finds a place for a packet: the one that it has, a free one, or the one that will be free first. */
static struct fragmented *place_make(struct baton_forwarder *f, const struct packet *p, uint32_t id)
{
	struct fragmented *set = set_of(f, p, id), *m = place_find(f, p, id);

	for (int i = 0; !m && i < FRAGMENT_WAYS; i++)
		m = set[i].until_ms <= f->now_ms ? &set[i] : NULL;
	for (int i = 0; !m && i < FRAGMENT_WAYS; i++)
		m = set[i].until_ms <= set[(i + 1) % FRAGMENT_WAYS].until_ms ? &set[i] : NULL;
	place_free(f, m);
	*m = (struct fragmented){
	    .src = p->src, .dst = p->dst, .id = id, .until_ms = f->now_ms + FRAGMENT_MS, .port = p->port};
	return m;
}

void fragments_expire(struct baton_forwarder *f)
{
	for (uint32_t i = 0; f->fragments.wholes && i < FRAGMENT_SETS; i++)
		for (uint32_t j = 0; j < FRAGMENT_WAYS; j++)
			if (f->fragments.sets[i][j].until_ms <= f->now_ms)
				place_free(f, &f->fragments.sets[i][j]);
}

void fragments_free(struct baton_forwarder *f)
{
	for (uint32_t i = 0; i < FRAGMENT_SETS; i++)
		for (uint32_t j = 0; j < FRAGMENT_WAYS; j++)
			place_free(f, &f->fragments.sets[i][j]);
}

/* ---- putting together */

/* next_header returns where a packet names the header behind its IPv6 headers of so many octets. */
static uint8_t *next_header(uint8_t *ip, uint32_t headers)
{
	uint8_t *at = ip + 6;

	for (uint32_t offset = IP6_LEN; offset < headers;) {
		uint8_t proto = *at;

		at = ip + offset;
		offset += EXTENSION_UNIT + (proto == PROTO_FRAGMENT6 ? 0 : at[1] * EXTENSION_UNIT);
	}
	return at;
}

/* whole_begin copies a first fragment, without its fragment header. Lengths and checksum are left to whole_end. */
static bool whole_begin(struct baton_forwarder *f, const struct packet *p, struct fragmented *m)
{
	struct baton_port *port = &f->ports[p->port];
	uint32_t headers = p->l4 - (p->ip6 ? FRAGMENT6_LEN : 0), len = p->end - p->l4;
	uint8_t *d;

	if (f->fragments.wholes == FRAGMENT_WHOLES || port->ops->alloc(port, &m->whole)) {
		m->whole.handle = NULL;
		return false;
	}
	f->fragments.wholes++;
	m->l4 = (uint16_t)headers;
	m->whole.len = headers + len;
	if (m->whole.len > m->whole.room)
		return false;
	d = m->whole.data;
	memcpy(d, p->buf.data, headers);
	memcpy(d + headers, p->buf.data + p->l4, len);
	if (p->ip6)
		*next_header(d + ETH_LEN, headers - ETH_LEN) = p->buf.data[headers];
	return true;
}

/* whole_end lets a packet that is complete go on as if it had come in one piece. */
static void whole_end(struct baton_forwarder *f, struct fragmented *m)
{
	struct packet whole = {.buf = m->whole, .port = m->port};
	uint8_t *ip = whole.buf.data + ETH_LEN;
	uint32_t total = whole.buf.len - ETH_LEN;

	if (baton_ip_is4(m->src)) {
		store16(ip + 2, (uint16_t)total);
		store32(ip + 4, 0); /* identification, flags, offset */
		store16(ip + 10, 0);
		store_checksum(ip + 10, sum_add(0, ip, m->l4 - ETH_LEN));
	} else {
		store16(ip + 4, (uint16_t)(total - IP6_LEN));
	}
	m->until_ms = 0;
	f->fragments.wholes--;
	count(f, BATON_REASSEMBLED);
	packet_again(f, &whole);
}

/* whole_add appends a fragment. The packet must not get larger than what the port could have received. */
static void whole_add(struct baton_forwarder *f, struct packet *p, struct fragmented *m, const struct part *part)
{
	uint32_t got = m->whole.len - m->l4, frame_max = f->ports[m->port].frame_max;
	uint32_t room = m->whole.room < frame_max ? m->whole.room : frame_max;

	if (part->offset > got) {
		frame_drop(f, p->port, &p->buf, BATON_DROP_FRAGMENT);
	} else if (part->offset < got || m->whole.len + part->len > room || (part->more && part->len % 8)) {
		place_free(f, m);
		frame_drop(f, p->port, &p->buf, BATON_DROP_FRAGMENT);
	} else {
		memcpy(m->whole.data + m->whole.len, p->buf.data + p->l4, part->len);
		m->whole.len += part->len;
		f->ports[p->port].ops->free(&f->ports[p->port], &p->buf, 1);
		if (!part->more)
			whole_end(f, m);
	}
}

/* ---- where fragments go */

/* plausible says whether a segment without an entry may begin a flow. */
static bool plausible(const struct baton_forwarder *f, const struct packet *p)
{
	struct baton_options o;

	return (p->flags & (TCP_ACK | TCP_RST)) == TCP_ACK &&
	       baton_cookie_check(&f->cookies, &p->tuple, p->seq - 1, p->ack - 1, &o);
}

/* first_elsewhere passes the first fragment of a packet of another shard to it. */
static bool first_elsewhere(struct baton_forwarder *f, struct packet *p, const struct part *part)
{
	if (!f->shards || baton_shard_of(f->shards, &p->tuple) == f->shard)
		return false;
	struct fragmented *m = place_make(f, p, part->id);

	m->sport = p->sport;
	m->dport = p->dport;
	m->elsewhere = true;
	return shard_handed(f, p, &p->tuple);
}

/* first_check checks a first fragment, which must have the whole TCP header. Returns why it has to be dropped, or
 * BATON_COUNTER_COUNT. */
static enum baton_counter first_check(struct baton_forwarder *f, struct packet *p, const struct part *part,
				      struct baton_key *k)
{
	if (!parse_tcp(p))
		return p->reason;
	if (!source_possible(p->src))
		return BATON_DROP_SOURCE;
	if (!service_key(f, &p->tuple, k))
		return local_find(f, p->dst, p->port) ? BATON_DROP_NO_PORT : BATON_DROP_NOT_OURS;
	return (p->flags & TCP_SYN) || part->len % 8 ? BATON_DROP_FRAGMENT : BATON_COUNTER_COUNT;
}

static void first(struct baton_forwarder *f, struct packet *p, const struct part *part)
{
	struct baton_crt *crt = crt_of(f, p->ip6);
	struct baton_key k;
	enum baton_counter reason = first_check(f, p, part, &k);

	if (reason != BATON_COUNTER_COUNT) {
		frame_leave(f, p, reason);
		return;
	}
	if (first_elsewhere(f, p, part))
		return;
	baton_word *v = baton_crt_find(crt, &k, baton_crt_hash(crt, &k));

	if (!v && !plausible(f, p)) {
		frame_drop(f, p->port, &p->buf, BATON_DROP_FRAGMENT);
		return;
	}
	struct fragmented *m = place_make(f, p, part->id);
	uint64_t value = v ? value_load(v) : 0;

	/* What may begin a new incarnation is put together. */
	if (v && baton_value_state(value) >= BATON_TARGET && !(value & BATON_VALUE_SYN)) {
		m->owner = (uint16_t)(value & BATON_VALUE_INDEX);
		target_packet(f, p, v);
	} else if (whole_begin(f, p, m)) {
		f->ports[p->port].ops->free(&f->ports[p->port], &p->buf, 1);
	} else {
		place_free(f, m);
		frame_drop(f, p->port, &p->buf, BATON_DROP_NO_BUFFER);
	}
}

static void later(struct baton_forwarder *f, struct packet *p, const struct part *part)
{
	struct fragmented *m = place_find(f, p, part->id);

	if (!m) {
		frame_leave(f, p, BATON_DROP_FRAGMENT);
		return;
	}
	if (m->elsewhere) {
		p->sport = m->sport;
		p->dport = m->dport;
		(void)shard_handed(f, p, &p->tuple);
		return;
	}
	if (m->owner == 0) {
		whole_add(f, p, m, part);
		return;
	}
	enum baton_counter outcome = frame_to_owner(f, m->owner, &p->buf);

	if (outcome == BATON_FORWARDED)
		count(f, outcome);
	else
		frame_refuse(f, p->port, m->owner, &p->buf, outcome);
}

void fragment(struct baton_forwarder *f, struct packet *p)
{
	const struct part part = part_of(p);

	if (part.offset == 0)
		first(f, p, &part);
	else
		later(f, p, &part);
}
