/* SPDX-License-Identifier: Apache-2.0
 *
 * One burst, stage by stage: fetch, classify (parse, find the service, prefetch the CRT), act (answer, forward, hold,
 * punt or drop), send. Read from baton_poll at the end.
 */
#include "emit.h"
#include "forwarder.h"
#include "plain.h"
#include "vlan.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define INLINE static inline __attribute__((always_inline))

/* ---- buffers */

static void freed_flush(struct baton_forwarder *f, struct baton_port *port)
{
	if (f->freed_count)
		port->ops->free(port, f->freed, f->freed_count);
	f->freed_count = 0;
}

static inline void frame_free(struct baton_forwarder *f, uint16_t port, const struct baton_buf *buf)
{
	if (f->freed_count == BATON_BURST)
		freed_flush(f, &f->ports[port]);
	f->freed[f->freed_count++] = *buf;
}

void frame_drop(struct baton_forwarder *f, uint16_t port, struct baton_buf *buf, enum baton_counter reason)
{
	count(f, reason);
	frame_free(f, port, buf);
}

static inline void drop(struct baton_forwarder *f, struct packet *p, enum baton_counter reason)
{
	frame_drop(f, p->port, &p->buf, reason);
}

/* ---- classify */

/* service_place finds where a service is or would be. Open addressing; at most half of the places are used. */
static inline struct service_place *service_place(const struct baton_forwarder *f, struct baton_ip addr, uint16_t port)
{
	uint64_t h = ((addr.hi * 31 + addr.lo) ^ (uint64_t)port << 32) * 0x9e3779b97f4a7c15ull;

	for (uint32_t i = (uint32_t)(h >> 40);; i++) {
		struct service_place *place = &f->services_by_addr[i & f->services_mask];

		if (place->index == 0 || (place->port == port && baton_ip_equal(place->addr, addr)))
			return place;
	}
}

/* service_find returns the index of the service, or -1. */
static inline int service_find(const struct baton_forwarder *f, struct baton_ip addr, uint16_t port)
{
	return service_place(f, addr, port)->index - 1;
}

/* plain_places are those of IPv4 services. */
struct plain_places {
	struct plain_place *place;
	uint32_t mask;
};

/* plain_place finds where an IPv4 service is or would be, in the same way. */
static inline struct plain_place *plain_place(const struct plain_places *all, uint64_t where)
{
	for (uint32_t i = (uint32_t)(where * 0x9e3779b97f4a7c15ull >> 40);; i++) {
		struct plain_place *place = &all->place[i & all->mask];

		if (likely(place->where == where) || place->where == PLAIN_FREE)
			return place;
	}
}

static void plain_index(struct baton_forwarder *f, const struct baton_service *s, uint16_t index)
{
	const struct plain_places all = {f->services_plain, f->services_mask};
	uint64_t where = raw_where((uint32_t)s->addr.lo, s->port);

	*plain_place(&all, where) = (struct plain_place){where, packet_look(index), s->id};
}

int services_index(struct baton_forwarder *f, const struct baton_service *services, uint32_t n)
{
	uint32_t places = 16;

	while (places < 2 * n)
		places *= 2;
	f->services_mask = places - 1;
	f->services_by_addr = calloc(places, sizeof(*f->services_by_addr));
	f->services_plain = aligned_alloc(sizeof(*f->services_plain), places * sizeof(*f->services_plain));
	f->services = calloc(n + 1, sizeof(*f->services));
	f->locals = calloc(n + BATON_MAX_PORTS, sizeof(*f->locals));
	if (!f->services_by_addr || !f->services_plain || !f->services || !f->locals)
		return -ENOMEM;
	memset(f->services_plain, 0xff, places * sizeof(*f->services_plain)); /* PLAIN_FREE */
	for (uint32_t i = 0; i < n; i++) {
		struct service_place *place = service_place(f, services[i].addr, services[i].port);

		if (place->index)
			return -EEXIST;
		*place = (struct service_place){services[i].addr, services[i].port, (uint16_t)(i + 1), services[i].id};
		f->services[i] = services[i];
		if (baton_ip_is4(services[i].addr))
			plain_index(f, &services[i], (uint16_t)i);
		if (!services[i].adopts && !local_find(f, services[i].addr, ANY_PORT))
			f->locals[f->local_count++] = (struct local){services[i].addr, ANY_PORT};
	}
	f->service_count = n;
	return 0;
}

static inline void key_make(struct baton_key *k, struct baton_ip client, uint16_t port, uint16_t service_id, bool ip6)
{
	if (ip6) {
		k->w[0] = client.hi;
		k->w[1] = client.lo;
		k->w[2] = (uint64_t)port << 32 | (uint64_t)service_id << 16 | 1;
	} else {
		k->w[0] = client.lo << 32 | (uint32_t)port << 16 | service_id;
	}
}

bool service_key(const struct baton_forwarder *f, const struct baton_tuple *t, struct baton_key *k)
{
	int s = service_find(f, t->service, t->service_port);

	if (s < 0)
		return false;
	key_make(k, t->client, t->client_port, f->services[s].id, !baton_ip_is4(t->client));
	return true;
}

bool key_tuple(const struct baton_forwarder *f, const struct baton_key *k, struct baton_tuple *t)
{
	bool ip6 = k->w[2] != 0; /* as key_make makes it */
	uint16_t id = (uint16_t)(ip6 ? k->w[2] >> 16 : k->w[0]);

	*t = (struct baton_tuple){
	    .client = ip6 ? (struct baton_ip){k->w[0], k->w[1]} : baton_ip_from4((uint32_t)(k->w[0] >> 32)),
	    .client_port = (uint16_t)(ip6 ? k->w[2] >> 32 : k->w[0] >> 16),
	};
	for (uint32_t i = 0; i < f->service_count; i++) {
		if (f->services[i].id != id)
			continue;
		t->service = f->services[i].addr;
		t->service_port = f->services[i].port;
		return true;
	}
	return false;
}

static inline bool classify_tcp(struct baton_forwarder *f, struct packet *p)
{
	if (!parse_tcp(p))
		return false;
	if (!source_possible(p->src))
		return packet_drop(p, BATON_DROP_SOURCE);
	int s = service_find(f, p->dst, p->dport);

	if (s < 0)
		return packet_drop(p, local_find(f, p->dst, p->port) ? BATON_DROP_NO_PORT : BATON_DROP_NOT_OURS);
	p->class = CLASS_TCP;
	p->service = (uint16_t)s;
	key_make(&p->lookup.key, p->src, p->sport, f->services[s].id, p->ip6);
	return true;
}

static bool classify_ip(struct baton_forwarder *f, struct packet *p, bool to_us, bool ip6)
{
	uint8_t proto = 0; /* a frame that does not parse may leave it so */

	if (!(ip6 ? parse_ip6(p, &proto) : parse_ip4(p, &proto)))
		return p->class == CLASS_FRAGMENT && (!to_us || proto != PROTO_TCP)
			   ? packet_drop(p, to_us ? BATON_DROP_FRAGMENT : BATON_DROP_NOT_OURS)
			   : false;
	if (proto == (ip6 ? PROTO_ICMP6 : PROTO_ICMP)) { /* neighbour solicitations come by multicast */
		p->class = CLASS_ICMP;
		return to_us || (ip6 && p->buf.data[0] == 0x33) || packet_drop(p, BATON_DROP_NOT_OURS);
	}
	if (!to_us)
		return packet_drop(p, BATON_DROP_NOT_OURS);
	if (proto != PROTO_TCP)
		return packet_drop(p, local_find(f, p->dst, p->port) ? BATON_DROP_PROTOCOL : BATON_DROP_NOT_OURS);
	return classify_tcp(f, p);
}

/* classify_any takes a closer look at what is not plain. */
static void classify_any(struct baton_forwarder *f, struct packet *p)
{
	const uint8_t *d = p->buf.data;

	if (!d) {
		packet_drop(p, BATON_DROP_SEGMENTED);
		return;
	}
	if (p->buf.len < ETH_LEN) {
		packet_drop(p, BATON_DROP_TRUNCATED);
		return;
	}
	bool to_us = memcmp(d, f->ports[p->port].mac, BATON_MAC_LEN) == 0;

	switch (load16(d + 12)) {
	case ETH_TYPE_IP4:
		classify_ip(f, p, to_us, false);
		return;
	case ETH_TYPE_IP6:
		classify_ip(f, p, to_us, true);
		return;
	case ETH_TYPE_ARP:
		p->class = CLASS_ARP;
		if (!to_us && !(d[0] & 1))
			packet_drop(p, BATON_DROP_NOT_OURS);
		return;
	case ETH_TYPE_VLAN: /* the tag of the port's VLAN was taken off already */
		if (f->ports[p->port].vlan || !vlan_pop(&p->buf, 0) || load16(p->buf.data + 12) == ETH_TYPE_VLAN)
			packet_drop(p, BATON_DROP_VLAN);
		else
			classify_any(f, p);
		return;
	default:
		packet_drop(p, BATON_DROP_ETHERTYPE);
	}
}

/* classify_plain is classify_any for a plain packet to a service: of what the first look found. False: it is none. */
static inline bool classify_plain(const struct plain_places *all, const struct plain *plain, struct packet *p)
{
	const struct plain_place *s = plain_place(all, plain->where);

	if (unlikely(s->where != plain->where))
		return false;
	p->lookup.key.w[0] = plain->client | s->id;
	p->look = s->look | plain->flags;
	return true;
}

#ifdef __SANITIZE_ADDRESS__
/* plain_check makes sure that a plain packet is what a closer look would find. */
static void plain_check(struct baton_forwarder *f, const struct baton_port *port, uint16_t i)
{
	struct packet filled = f->burst[i], any = {.buf = f->frames[i], .port = port->index};

	packet_fill(&filled, &f->frames[i], port->index);
	classify_any(f, &any);
	assert(any.class == CLASS_TCP && !any.ip6 && any.flags == filled.flags && any.service == filled.service);
	assert(baton_ip_equal(any.src, filled.src) && baton_ip_equal(any.dst, filled.dst) && any.end == filled.end);
	assert(any.l4 == filled.l4 && any.payload == filled.payload && any.seq == filled.seq && any.ack == filled.ack);
	assert(any.sport == filled.sport && any.dport == filled.dport && any.lookup.key.w[0] == filled.lookup.key.w[0]);
}

/* classify_check checks the plain packets of a group, and that each way to read finds the same ones. */
static void classify_check(struct baton_forwarder *f, const struct baton_port *port, uint16_t from, uint16_t to,
			   uint32_t odd)
{
	const struct plain_places places = {f->services_plain, f->services_mask};

	for (uint16_t i = from; i < to; i++) {
		struct packet packet;
		struct plain plain;
		bool found =
		    plain_read(&f->frames[i], raw_mac(port->mac), &plain) && classify_plain(&places, &plain, &packet);

		assert(found == !(odd >> i & 1));
		if (found)
			plain_check(f, port, i);
	}
}
#else
static inline void classify_check(struct baton_forwarder *f, const struct baton_port *port, uint16_t from, uint16_t to,
				  uint32_t odd)
{
	(void)f;
	(void)port;
	(void)from;
	(void)to;
	(void)odd;
}
#endif

/* elsewhere passes a packet of another shard to it. */
static bool elsewhere(struct baton_forwarder *f, const struct baton_port *port, uint16_t i)
{
	struct packet *p = &f->burst[i];

	p->lookup.entry = NULL;
	if (p->class == CLASS_PLAIN)
		packet_fill(p, &f->frames[i], port->index);
	return shard_elsewhere(f, p, &p->tuple);
}

/* key_add has the key of frame i looked up. */
static inline void key_add(struct lookups *l, struct packet *p)
{
	if (p->class == CLASS_TCP && p->ip6)
		l->six[l->sixes++] = &p->lookup;
	else
		l->four[l->fours++] = &p->lookup;
}

/* classify_closely takes what is not plain. It may find the packet further behind in its buffer. */
static void classify_closely(struct baton_forwarder *f, const struct baton_port *port, uint16_t i)
{
	struct packet *p = &f->burst[i];

	p->buf = f->frames[i];
	p->port = port->index;
	p->lookup.entry = NULL;
	classify_any(f, p);
	f->octets -= f->frames[i].len - p->buf.len; /* it may have lost a tag */
	f->frames[i] = p->buf;
}

/* classify_apart takes the frames of a group one by one: odd ones are not plain, and any may be of another shard. */
static __attribute__((noinline)) void classify_apart(struct baton_forwarder *f, const struct baton_port *port,
						     uint16_t from, uint16_t to, uint32_t odd)
{
	for (uint16_t i = from; i < to; i++) {
		bool plain = !(odd >> i & 1);

		if (!plain)
			classify_closely(f, port, i);
		if (f->burst[i].class >= CLASS_TCP && ((plain && !f->mixed) || !f->shards || !elsewhere(f, port, i)))
			key_add(&f->lookups, &f->burst[i]);
	}
}

/* first_look is what frames are compared with, by a way to read plain packets. */
struct first_look {
	union {
		uint64_t mac; /* raw_mac */
#ifdef BATON_PLAIN_AVX2
		struct plain_range range;
#endif
	};
};
typedef bool plain_reader(const struct baton_buf *buf, const struct first_look *look, struct plain *out);

/* plain_group reads plain packets to services, and says in which places of the burst are other ones. It calls nothing, so
 * that all that it compares with stays in registers. */
INLINE uint32_t plain_group(struct baton_forwarder *f, uint16_t from, uint16_t to, const struct first_look *look,
			    plain_reader *const read)
{
	const struct plain_places places = {f->services_plain, f->services_mask};
	uint32_t odd = 0;

	for (uint32_t i = from; i < to; i++) {
		struct plain plain;

		if (unlikely(!read(&f->frames[i], look, &plain) || !classify_plain(&places, &plain, &f->burst[i])))
			odd |= 1u << i;
	}
	return odd;
}

/* Buckets are fetched while the next packets of a burst are read, but not one by one. */
enum { FETCH_GROUP = 8 };

/* classify takes a group of the burst's frames. */
INLINE void classify(struct baton_forwarder *f, const struct baton_port *port, uint16_t from, uint16_t to,
		     const struct first_look *look, plain_reader *const read)
{
	uint32_t odd = plain_group(f, from, to, look, read);
	struct lookups *l = &f->lookups;
	uint32_t fours = l->fours, sixes = l->sixes;

	classify_check(f, port, from, to, odd);
	if (unlikely(odd || f->mixed)) {
		classify_apart(f, port, from, to, odd);
	} else {
		memcpy(&l->four[fours], &f->every[from], FETCH_GROUP * sizeof(*l->four));
		l->fours = fours + to - from;
	}
	f->finder4->fetch(&f->crt4, l->four + fours, l->fours - fours);
	if (l->sixes > sixes)
		f->finder6->fetch(&f->crt6, l->six + sixes, l->sixes - sixes);
}

INLINE void classify_all(struct baton_forwarder *f, const struct baton_port *port, uint16_t n,
			 const struct first_look *look, plain_reader *const read)
{
	f->lookups.fours = f->lookups.sixes = 0;
	for (uint16_t i = 0; i < n; i += FETCH_GROUP)
		classify(f, port, i, n - i < FETCH_GROUP ? n : i + FETCH_GROUP, look, read);
}

static inline bool read_plainly(const struct baton_buf *buf, const struct first_look *look, struct plain *out)
{
	return plain_read(buf, look->mac, out);
}

static void classify_plainly(struct baton_forwarder *f, const struct baton_port *port, uint16_t n)
{
	const struct first_look look = {.mac = raw_mac(port->mac)};

	classify_all(f, port, n, &look, read_plainly);
}

#ifdef BATON_PLAIN_AVX2
PLAIN_AVX2 static inline bool read_avx2(const struct baton_buf *buf, const struct first_look *look, struct plain *out)
{
	return plain_read_avx2(buf, &look->range, out);
}

PLAIN_AVX2 static void classify_avx2(struct baton_forwarder *f, const struct baton_port *port, uint16_t n)
{
	const struct first_look look = {.range = plain_range_to(port->mac)};

	classify_all(f, port, n, &look, read_avx2);
}
#endif

classifier *classifier_for(bool simd)
{
#ifdef BATON_PLAIN_AVX2
	if (simd && __builtin_cpu_supports("avx2"))
		return classify_avx2;
#endif
	(void)simd;
	return classify_plainly;
}

/* ---- act: segments of flows that the router owns */

/* half_done ends the repetition of a SYN-ACK, if there is one. */
static void half_done(struct baton_forwarder *f, const struct packet *p, uint16_t service)
{
	struct half_open *o = f->services[service].speaks_first ? half_find(&f->half, &p->tuple) : NULL;

	if (o)
		half_end(&f->half, o);
}

/* flow_punt gives a segment to the control plane: as First when it is the first that matters, else as Segment. */
static void flow_punt(struct baton_forwarder *f, struct packet *p, struct flow *w)
{
	w->port = p->port;
	/* The first one was paid by its flow; an adopted flow's client has been under its first host's limits. */
	if (w->known && w->counted && !limit_punt(&f->limit, w->tuple.client, f->now_ms)) {
		drop(f, p, BATON_DROP_PUNT_LIMITED);
		return;
	}
	if (!punt_flow(f, w, w->known ? BATON_SEGMENT : BATON_FIRST, p->buf.data, p->end)) {
		drop(f, p, BATON_DROP_RING_FULL);
		return;
	}
	if (!w->known)
		half_done(f, p, w->service);
	w->known = true;
	frame_free(f, p->port, &p->buf);
}

/* flow_reset ends a flow that the control plane does not know when its client resets it (RFC 5961 3.2: exactly at
 * RCV.NXT). */
static void flow_reset(struct baton_forwarder *f, struct packet *p, struct flow *w)
{
	if (p->seq == w->irs + 1) {
		half_done(f, p, w->service);
		baton_crt_remove(crt_of(f, w->ip6), flow_entry(f, w));
		flow_release(f, w);
	}
	drop(f, p, BATON_BARE_ACK);
}

/* flow_before_data handles a flow that has sent nothing yet. Where the client speaks first, its bare ACKs matter to nobody,
 * and keep-alive probes (RFC 9293 3.8.4: at most one octet just before RCV.NXT) are answered here. */
static void flow_before_data(struct baton_forwarder *f, struct packet *p, struct flow *w)
{
	uint32_t len = packet_payload_len(p);
	int32_t news = (int32_t)(p->seq + len - (w->irs + 1)); /* octets that we have not seen */

	if (p->flags & TCP_RST)
		flow_reset(f, p, w);
	else if ((p->flags & TCP_FIN) || (len > 0 && news > 0) || f->services[w->service].speaks_first)
		flow_punt(f, p, w);
	else if (news < 0 || len > 0)
		answer_probe(f, p, w);
	else
		drop(f, p, BATON_BARE_ACK);
}

void flow_segment(struct baton_forwarder *f, struct packet *p, struct flow *w)
{
	flow_touch(f, w);
	switch (w->state) {
	case FLOW_HOLD:
		p->buf.len = p->end;
		if (flow_hold(f, w, &p->buf, p->flags))
			count(f, BATON_HELD);
		else
			drop(f, p, BATON_DROP_HOLD_FULL);
		return;
	case FLOW_DISCARD:
		drop(f, p, BATON_DROP_DISCARDED);
		return;
	default:
		if (w->known)
			flow_punt(f, p, w);
		else
			flow_before_data(f, p, w);
	}
}

/* ---- act: new flows */

/* cookie_valid checks the acknowledgement of a segment that may start a flow, and its timestamp if it has one. */
static bool cookie_valid(struct baton_forwarder *f, const struct packet *p, struct baton_options *o,
			 struct tcp_options *tcp, uint32_t *ts_offset)
{
	const struct baton_cookie_keys *keys = baton_cookie_check(&f->cookies, &p->tuple, p->seq - 1, p->ack - 1, o);

	if (!keys)
		return false;
	*tcp = parse_tcp_options(p);
	*ts_offset = 0;
	if (!tcp->timestamps)
		return true;
	*ts_offset = baton_cookie_ts_offset(keys, &p->tuple);
	/* What it echoes was sent at most two ticks ago, and not in the future. */
	return (uint32_t)f->now_ms - (tcp->ts_ecr - *ts_offset) <= 2 * BATON_COOKIE_TICK_MS;
}

static struct baton_handshake handshake_make(const struct baton_service *s, const struct baton_options *o,
					     bool timestamps)
{
	bool scaling = o->scale != BATON_COOKIE_NO_SCALE;

	return (struct baton_handshake){
	    .mss = o->mss,
	    .own_mss = s->own_mss,
	    .snd_scale = scaling ? o->scale : 0,
	    .rcv_scale = scaling ? s->scale : 0,
	    .has = (uint8_t)((scaling ? BATON_HAS_SCALING : 0) | (o->sack ? BATON_HAS_SACK : 0) |
			     (timestamps ? BATON_HAS_TIMESTAMPS : 0)),
	};
}

void entry_vacate(struct baton_forwarder *f, uint64_t value)
{
	if (baton_value_state(value) >= BATON_TARGET)
		return;
	struct flow *w = &f->flows[value & BATON_VALUE_INDEX];

	if (w->known)
		punt_flow(f, w, BATON_GONE, NULL, 0);
	flow_release(f, w);
}

static void flow_fill(const struct packet *p, struct flow *w)
{
	w->tuple = p->tuple;
	w->key = p->lookup.key;
	w->irs = p->seq - 1;
	w->iss = p->ack - 1;
	w->service = p->service;
	w->port = p->port;
	w->ip6 = p->ip6;
}

/* flow_start makes an entry that the router owns from a first segment with a valid cookie. v: the entry of the tuple's
 * older incarnation, or NULL. */
static void flow_start(struct baton_forwarder *f, struct packet *p, baton_word *v, struct baton_handshake hs,
		       uint32_t ts_offset)
{
	struct baton_crt *crt = crt_of(f, p->ip6);

	if (!limit_flow(&f->limit, p->tuple.client, f->now_ms)) {
		drop(f, p, BATON_DROP_PUNT_LIMITED);
		return;
	}
	if (!punt_room(f, p->end, 2)) {
		drop(f, p, BATON_DROP_RING_FULL);
		return;
	}
	if (v)
		entry_vacate(f, value_load(v));
	struct flow *w = flow_alloc(f); /* succeeds where a slot was just vacated */

	if (!w) {
		drop(f, p, BATON_DROP_FLOWS_FULL);
		return;
	}
	uint64_t value = baton_value(BATON_ROUTER, (uint32_t)(w - f->flows),
				     baton_incarnation_hash(p->seq - 1, p->ack - 1), f->now_ms);

	if (v)
		value_store(v, value);
	else if (!entry_add(f, crt, &p->lookup.key, p->lookup.hash, value)) {
		flow_release(f, w);
		drop(f, p, BATON_DROP_CRT_FULL);
		return;
	}
	flow_fill(p, w);
	limit_flow_begin(&f->limit, w->tuple.client);
	w->counted = true;
	w->handshake = hs;
	w->ts_offset = ts_offset;
	count(f, BATON_ACCEPTED);
	if (v)
		count(f, BATON_REINCARNATED);
	flow_segment(f, p, w);
}

/* orphan_report gives the control plane a copy of a segment of no flow, within the limits. */
static void orphan_report(struct baton_forwarder *f, const struct packet *p)
{
	if (!token_take(&f->orphan_sources[source_place(p->src)], f->now_ms, ORPHANS_PER_SOURCE) ||
	    !token_take(&f->orphans, f->now_ms, ORPHANS_PER_SECOND))
		return;
	struct baton_punt *punt = punt_begin(f, BATON_ORPHAN, p->buf.data, p->end);

	if (!punt)
		return;
	punt->tuple = p->tuple;
	punt->port = p->port;
	punt_end(f, punt);
}

/* half_reset: the client wants no connection (RFC 9293 3.10.7.4, SYN-RECEIVED; RFC 5961 3.2: exactly at RCV.NXT). */
static void half_reset(struct baton_forwarder *f, const struct packet *p)
{
	struct half_open *o = half_find(&f->half, &p->tuple);

	if (o && p->seq == o->irs + 1)
		half_end(&f->half, o);
}

/* unknown handles a segment of no flow: the first one of a new flow, or an orphan. */
static void unknown(struct baton_forwarder *f, struct packet *p)
{
	struct baton_options o;
	struct tcp_options tcp;
	uint32_t ts_offset;
	bool may_start = (p->flags & (TCP_ACK | TCP_RST)) == TCP_ACK;

	if (!packet_checksum_ok(p, PROTO_TCP)) {
		drop(f, p, BATON_DROP_L4_CHECKSUM);
	} else if (may_start && cookie_valid(f, p, &o, &tcp, &ts_offset)) {
		flow_start(f, p, NULL, handshake_make(&f->services[p->service], &o, tcp.timestamps), ts_offset);
	} else {
		if (may_start)
			count(f, BATON_FORGED);
		if (p->flags & TCP_RST)
			half_reset(f, p);
		orphan_report(f, p);
		drop(f, p, may_start ? BATON_DROP_FORGED : BATON_DROP_NO_FLOW);
	}
}

/* syn_fresh says whether the cookie of an answered SYN may still come back, and else forgets that SYN: each segment that
 * is looked at could pass for a cookie by chance. */
static bool syn_fresh(struct baton_forwarder *f, baton_word *v)
{
	uint64_t value = value_load(v), syn = value & BATON_VALUE_SYN, tick = f->cookies.tick;

	if (syn == baton_value_syn(tick) || syn == baton_value_syn(tick - 1))
		return true;
	value_store(v, value & ~BATON_VALUE_SYN);
	return false;
}

/* may_reincarnate says whether a cookie may come back that is not the entry's: a SYN was answered lately; or the entry may
 * have been made after it, by a late bare ACK of an older incarnation. */
static bool may_reincarnate(struct baton_forwarder *f, baton_word *v)
{
	uint64_t value = value_load(v);

	if (value & BATON_VALUE_SYN)
		return syn_fresh(f, v);
	return baton_value_state(value) == BATON_ROUTER && !f->flows[value & BATON_VALUE_INDEX].known;
}

/* reincarnates starts a new incarnation if p, a segment of a known tuple whose SYN was answered meanwhile, begins one.
 * False: p belongs to the entry. */
static bool reincarnates(struct baton_forwarder *f, struct packet *p, baton_word *v)
{
	struct baton_options o;
	struct tcp_options tcp;
	uint32_t ts_offset;

	if ((p->flags & (TCP_ACK | TCP_RST)) != TCP_ACK ||
	    baton_incarnation_hash(p->seq - 1, p->ack - 1) == baton_value_inc(value_load(v)) ||
	    !cookie_valid(f, p, &o, &tcp, &ts_offset) || !packet_checksum_ok(p, PROTO_TCP))
		return false;
	flow_start(f, p, v, handshake_make(&f->services[p->service], &o, tcp.timestamps), ts_offset);
	return true;
}

/* ---- act: flows of targets */

/* end_report hints once that the client ended a flow of a target. */
static void end_report(struct baton_forwarder *f, const struct packet *p, baton_word *v)
{
	if (!token_take(&f->ends, f->now_ms, ENDS_PER_SECOND))
		return;
	struct baton_punt *punt = punt_begin(f, BATON_END, NULL, 0);

	if (!punt)
		return;
	punt->tuple = p->tuple;
	punt->owner = (uint16_t)(value_load(v) & BATON_VALUE_INDEX);
	punt->port = p->port;
	punt_end(f, punt);
	value_store(v, value_load(v) | BATON_VALUE_END);
}

static void target_segment(struct baton_forwarder *f, struct packet *p, baton_word *v)
{
	uint64_t value = value_load(v);

	if (unlikely(p->flags & (TCP_FIN | TCP_RST)) && !(value & BATON_VALUE_END) &&
	    baton_value_state(value) == BATON_TARGET)
		end_report(f, p, v);
	uint16_t owner = (uint16_t)(value & BATON_VALUE_INDEX);
	enum baton_counter outcome = frame_to_owner(f, owner, &p->buf);

	if (outcome == BATON_FORWARDED)
		count(f, outcome);
	else
		frame_refuse(f, p->port, owner, &p->buf, outcome);
}

/* ---- act */

/* entry_touch keeps the age. */
static inline void entry_touch(const struct baton_forwarder *f, baton_word *v)
{
	uint64_t value = value_load(v);

	if (unlikely((value ^ f->calm) & AGED_MASK))
		value_store(v, ((value ^ f->calm) & ((1ull << BATON_VALUE_AGE_SHIFT) - 1)) ^ f->calm);
}

void target_packet(struct baton_forwarder *f, struct packet *p, baton_word *v)
{
	entry_touch(f, v);
	target_segment(f, p, v);
}

static void known(struct baton_forwarder *f, struct packet *p, baton_word *v)
{
	uint64_t value = value_load(v);

	if (unlikely(value & BATON_VALUE_SYN || baton_value_state(value) < BATON_TARGET) && may_reincarnate(f, v) &&
	    reincarnates(f, p, v))
		return;
	entry_touch(f, v);
	if (likely(baton_value_state(value) >= BATON_TARGET))
		target_segment(f, p, v);
	else if (packet_checksum_ok(p, PROTO_TCP))
		flow_segment(f, p, &f->flows[value & BATON_VALUE_INDEX]);
	else
		drop(f, p, BATON_DROP_L4_CHECKSUM);
}

static void syn(struct baton_forwarder *f, struct packet *p, baton_word *v)
{
	if (p->flags & (TCP_FIN | TCP_RST | TCP_ACK)) {
		drop(f, p, BATON_DROP_FLAGS);
	} else if (!packet_checksum_ok(p, PROTO_TCP)) {
		drop(f, p, BATON_DROP_L4_CHECKSUM);
	} else if (unlikely(f->services[p->service].closed)) {
		drop(f, p, BATON_DROP_SERVICE_CLOSED);
	} else {
		if (v)
			value_store(v, (value_load(v) & ~BATON_VALUE_SYN) | baton_value_syn(f->cookies.tick));
		answer_synack(f, p);
	}
}

static void act_tcp(struct baton_forwarder *f, struct packet *p)
{
	if (unlikely(f->services[p->service].adopts) && (!p->lookup.entry || (p->flags & TCP_SYN)))
		drop(f, p, BATON_DROP_NO_FLOW); /* strangers; SYNs are answered by whoever owns the address */
	else if (f->services[p->service].distribution != BATON_CONTENTROUTED)
		conventional(f, p);
	else if (p->flags & TCP_SYN)
		syn(f, p, p->lookup.entry);
	else if (p->lookup.entry)
		known(f, p, p->lookup.entry);
	else
		unknown(f, p);
}

static void act(struct baton_forwarder *f, struct packet *p)
{
	switch ((enum packet_class)p->class) {
	case CLASS_PLAIN: /* filled by now */
	case CLASS_TCP:
		act_tcp(f, p);
		return;
	case CLASS_ARP:
		answer_arp(f, p);
		return;
	case CLASS_ICMP:
		answer_icmp(f, p);
		return;
	case CLASS_FRAGMENT:
		fragment(f, p);
		return;
	case CLASS_DROP:
		if (unlikely(f->ports[p->port].exception))
			frame_leave(f, p, p->reason);
		else
			drop(f, p, p->reason);
		return;
	case CLASS_PASSED:
		return;
	}
}

/* calm says that a segment only has to be forwarded: nothing about its flow changes but its age, which is kept. value: of
 * its entry. */
INLINE bool calm(const struct baton_forwarder *f, const struct packet *p, uint64_t *value)
{
	if (unlikely((p->flags & (TCP_SYN | TCP_FIN | TCP_RST)) || !p->lookup.entry))
		return false;
	*value = value_load(p->lookup.entry);
	uint64_t differs = *value ^ f->calm;

	if (likely(!(differs & (CALM_MASK | AGED_MASK))))
		return true;
	if (differs & CALM_MASK)
		return false;
	entry_touch(f, p->lookup.entry);
	return true;
}

static bool forward(struct baton_forwarder *f, uint16_t port, uint16_t owner, struct baton_buf *buf)
{
	enum baton_counter outcome = frame_to_owner(f, owner, buf);

	if (likely(outcome == BATON_FORWARDED))
		return true;
	frame_refuse(f, port, owner, buf, outcome);
	return false;
}

/* ---- look up */

/* lookup_again follows the entry of a packet that was looked up before the table changed. */
static void lookup_again(struct baton_forwarder *f, struct packet *p)
{
	if (p->class >= CLASS_TCP)
		p->lookup.entry =
		    baton_crt_find(crt_of(f, p->class == CLASS_TCP && p->ip6), &p->lookup.key, p->lookup.hash);
}

void packet_again(struct baton_forwarder *f, struct packet *p)
{
	classify_any(f, p);
	if (p->class == CLASS_TCP) {
		p->lookup.hash = baton_crt_hash(crt_of(f, p->ip6), &p->lookup.key);
		lookup_again(f, p);
	}
	act(f, p);
}

/* ---- fetch */

static inline uint16_t fetch(struct baton_forwarder *f, struct baton_port *port)
{
	uint16_t n = port->ops->rx_burst(port, f->frames, BATON_BURST);
	uint32_t octets = 0;

#pragma GCC unroll 4
	for (uint32_t i = 0; i < n; i++) {
		octets += f->frames[i].len;
		__builtin_prefetch(f->frames[i].data);
	}
	f->octets = octets;
	if (n) {
		value_store(&port->rx_packets, value_load(&port->rx_packets) + n);
		value_store(&port->rx_bytes, value_load(&port->rx_bytes) + octets);
	}
	return n;
}

/* untag keeps the frames of the port's VLAN and returns how many they are. */
static uint16_t untag(struct baton_forwarder *f, const struct baton_port *port, uint16_t n)
{
	uint16_t kept = 0;

	for (uint16_t i = 0; i < n; i++) {
		struct baton_buf *buf = &f->frames[i];

		if (!buf->data)
			frame_drop(f, port->index, buf, BATON_DROP_SEGMENTED);
		else if (!vlan_pop(buf, port->vlan))
			frame_drop(f, port->index, buf, BATON_DROP_VLAN);
		else
			f->frames[kept++] = *buf;
	}
	f->octets = frames_octets(f->frames, kept);
	return kept;
}

/* ---- send: frames that are forwarded one after the other, from the first of a burst on, and all by one port without a
 * tunnel, are together. If all frames of the burst are, as is usual, they are sent from where they are. */

/* together_stage gives those n up: other frames do not go with them. It returns how many there was room for. */
static uint16_t together_stage(struct baton_forwarder *f, const struct baton_port *from, uint16_t n)
{
	const struct owner way = {.way = f->usual_way};
	uint16_t i = 0;

	while (i < n && frame_stage(f, way.port, &f->frames[i]))
		i++;
	for (uint16_t refused = i; refused < n; refused++)
		frame_drop(f, from->index, &f->frames[refused], BATON_DROP_TX_FULL);
	return i;
}

static inline uint16_t together_send(struct baton_forwarder *f, const struct baton_port *from, uint16_t n)
{
	const struct owner way = {.way = f->usual_way};
	struct baton_port *port = &f->ports[way.port];

	if (unlikely(port->tx_count || port->tag))
		return together_stage(f, from, n);
	for (uint16_t i = port_send(port, f->frames, n, f->octets); i < n; i++)
		frame_stage(f, way.port, &f->frames[i]); /* there is room for a burst */
	return n;
}

/* ---- the burst */

/* handle does what has to be done about a frame that does not only go with those before it. True: it was forwarded. */
static __attribute__((noinline)) bool handle(struct baton_forwarder *f, const struct baton_port *port, uint16_t i)
{
	struct packet *p = &f->burst[i];
	uint64_t value;

	if (calm(f, p, &value)) {
		uint16_t owner = (uint16_t)(value & BATON_VALUE_OWNER);

		if (i == 0 && f->owners[owner].known && f->owners[owner].tunnel == BATON_TUNNEL_NONE)
			f->usual_way = f->owners[owner].way;
		return forward(f, port->index, owner, &f->frames[i]);
	}
	if (p->class == CLASS_PLAIN)
		packet_fill(p, &f->frames[i], port->index);
	act(f, p);
	return false;
}

/* goes_along says whether a frame is together with those before it, and addresses it. */
static inline bool goes_along(struct baton_forwarder *f, uint16_t i)
{
	uint64_t value;

	if (unlikely(!calm(f, &f->burst[i], &value)))
		return false;
	const struct owner *owner = &f->owners[value & BATON_VALUE_OWNER];

	if (unlikely(owner->way != f->usual_way))
		return false;
	memcpy(f->frames[i].data, &owner->macs, sizeof(owner->macs));
	return true;
}

/* act_all handles the n frames of the burst, whose entries were looked up, one after the other. */
static inline void act_all(struct baton_forwarder *f, const struct baton_port *port, uint16_t n)
{
	uint64_t changes = f->crt4.changes + f->crt6.changes;
	uint16_t together = 0, forwarded;

	while (together < n && goes_along(f, together))
		together++;
	forwarded = likely(together == n) ? together_send(f, port, n) : together_stage(f, port, together);
	for (uint16_t i = together; i < n; i++) {
		if (unlikely(f->crt4.changes + f->crt6.changes != changes))
			lookup_again(f, &f->burst[i]);
		forwarded = (uint16_t)(forwarded + handle(f, port, i));
	}
	count_n(f, BATON_FORWARDED, forwarded);
}

/* burst handles the n frames in f->frames, which came in by that port. */
static inline int burst(struct baton_forwarder *f, const struct baton_port *port, uint16_t n)
{
	struct lookups *l = &f->lookups;

	if (n == 0)
		return 0;
	f->classify(f, port, n);
	f->finder4->find(&f->crt4, l->four, l->fours);
	if (l->sixes)
		f->finder6->find(&f->crt6, l->six, l->sixes);
	act_all(f, port, n);
	return n;
}

static inline int received(struct baton_forwarder *f, struct baton_port *port)
{
	uint16_t n = fetch(f, port);

	f->mixed = port->mixed;
	burst(f, port, unlikely(port->vlan) ? untag(f, port, n) : n);
	return n;
}

/* passed handles what other shards received for this one. */
static int passed(struct baton_forwarder *f)
{
	int work = 0;

	f->mixed = false;
	for (uint32_t from = 0; from < f->shards->count; from++)
		for (uint16_t left = from == f->shard ? 0 : BATON_BURST, n, port; left; left = (uint16_t)(left - n)) {
			if ((n = shard_take(f, from, left, &port)) == 0)
				break;
			f->octets = frames_octets(f->frames, n);
			work += burst(f, &f->ports[port], n);
		}
	return work;
}

static uint64_t wall_clock_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void clock_update(struct baton_forwarder *f)
{
	uint64_t now = value_load(&f->clock_ms);

	secrets_take(f);
	if (now == 0)
		now = wall_clock_ms();
	if (now <= f->now_ms)
		return;
	f->now_ms = now;
	f->calm = 2ull << BATON_VALUE_STATE_SHIFT | now / 1000 << BATON_VALUE_AGE_SHIFT;
	value_store(&f->now_shared, now);
	baton_cookies_advance(&f->cookies, now);
}

/* Reading the clock takes as long as a few frames, so a busy loop reads it once in so many polls: some microseconds. */
enum { BUSY_POLLS = 8 };

int baton_poll(struct baton_forwarder *f)
{
	if (f->busy_polls % BUSY_POLLS == 0 || value_load(&f->clock_ms))
		clock_update(f);
	int work = commands_run(f);

	for (uint32_t i = 0; i < f->port_count; i++)
		work += received(f, &f->ports[i]);
	if (f->shards)
		work += passed(f);
	timers_run(f);
	for (uint32_t i = 0; i < f->port_count; i++)
		tx_flush(&f->ports[i]);
	freed_flush(f, &f->ports[0]);
	if (f->shards)
		shard_bell(f);
	punt_bell(f);
	f->busy_polls = work ? f->busy_polls + 1 : 0;
	return work;
}

bool poll_drain(struct baton_forwarder *f)
{
	bool more;

	clock_update(f);
	more = commands_run(f) > 0;
	if (f->shards)
		more |= passed(f) > 0;
	for (uint32_t i = 0; i < f->port_count; i++) {
		tx_flush(&f->ports[i]);
		more |= f->ports[i].tx_count > 0;
	}
	freed_flush(f, &f->ports[0]);
	if (f->shards)
		shard_bell(f);
	punt_bell(f);
	return more;
}
