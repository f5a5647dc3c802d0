/* SPDX-License-Identifier: Apache-2.0
 *
 * The measuring rig: frames from numbers, a source in memory, and the loops that are measured.
 */
#include "source.h"
#include "forwarder.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

enum {
	SOURCE_BUFFERS = 4 * (BATON_BURST + BATON_TX_STAGE),
	SOURCE_HEAD = 128, /* RTE_PKTMBUF_HEADROOM */
	SOURCE_ROOM = 2048 - SOURCE_HEAD,
	POLLS = 64, /* between two looks at the clock, and at the punt ring */
};

/* ---- frames */

/* source_random is xorshift64* (Vigna 2016). */
static inline uint64_t source_random(struct baton_source *s)
{
	s->random ^= s->random >> 12;
	s->random ^= s->random << 25;
	s->random ^= s->random >> 27;
	return s->random * 0x2545f4914f6cdd1dull;
}

struct client {
	uint32_t addr;
	uint16_t port;
};

/* source_client makes a client from a number: different numbers below 2^28 are different addresses. Flows of a HIT,
 * new connections and random clients have networks of their own. */
static inline struct client source_client(uint32_t network, uint64_t n)
{
	return (struct client){network << 28 | (uint32_t)(n & 0xfffffff), (uint16_t)(1024 + (n * 0x9e37 & 0x7fff))};
}

enum { NET_FLOWS = 1, NET_NEW = 2, NET_RANDOM = 3 };

static inline struct client next_client(struct baton_source *s)
{
	switch (s->kind) {
	case BATON_SOURCE_HIT:
		return source_client(NET_FLOWS, (uint64_t)((unsigned __int128)source_random(s) * s->flows >> 64));
	case BATON_SOURCE_INSERT:
		return source_client(NET_NEW, s->inserted++);
	default:
		return source_client(NET_RANDOM, source_random(s) >> 32);
	}
}

static inline struct baton_tuple client_tuple(const struct baton_service *service, struct client c)
{
	return (struct baton_tuple){baton_ip_from4(c.addr), service->addr, c.port, service->port, 0};
}

/* Where a frame differs from the template, whose IPv4 header has no options. */
enum { SRC_AT = ETH_LEN + 12, SPORT_AT = ETH_LEN + IP4_LEN, SEQ_AT = SPORT_AT + 4, ACK_AT = SPORT_AT + 8 };

uint32_t baton_source_frame(struct baton_source *s, uint8_t *data)
{
	const struct baton_forwarder *f = s->forwarder;
	struct client c = next_client(s);
	uint64_t sum = 0;

	memcpy(data, s->frame, sizeof(s->frame));
	store32(data + SRC_AT, c.addr);
	store16(data + SPORT_AT, c.port);
	if (s->kind == BATON_SOURCE_INSERT) {
		const struct baton_tuple t = client_tuple(&f->services[s->service], c);
		const struct baton_options o = {1460, 7, true};
		uint32_t ts_offset;

		store32(data + ACK_AT,
			baton_cookie_make(&f->cookies, &t, load32(data + SEQ_AT) - 1, &o, &ts_offset) + 1);
		sum = sum_add(0, data + ACK_AT, 4);
	}
	store_checksum(data + ETH_LEN + 10, s->ip_sum + sum_add(0, data + SRC_AT, 4));
	store_checksum(data + SPORT_AT + 16,
		       s->tcp_sum + sum_add(0, data + SRC_AT, 4) + sum_add(sum, data + SPORT_AT, 2));
	return s->len;
}

static void template_ip(struct baton_source *s, const struct baton_service *service, uint16_t tcp_len)
{
	uint8_t *ip = s->frame + ETH_LEN;
	bool ours = s->kind != BATON_SOURCE_NOT_OURS;

	store16(ip, 0x4500);
	store16(ip + 2, (uint16_t)(IP4_LEN + tcp_len));
	store32(ip + 4, 0x4000);
	ip[8] = 63;
	ip[9] = PROTO_TCP;
	store32(ip + 16, ours ? (uint32_t)service->addr.lo : 0xcb007101); /* 203.0.113.1 (RFC 5737) */
	s->ip_sum = sum_fold(sum_add(0, ip, IP4_LEN));
}

/* template_tcp writes the header behind the ports and returns the length of the segment. */
static uint16_t template_tcp(struct baton_source *s, const struct baton_service *service)
{
	static const uint8_t syn_options[] = {2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7};
	bool syn = s->kind == BATON_SOURCE_SYN;
	uint8_t *tcp = s->frame + SPORT_AT;
	uint16_t header = TCP_LEN + (syn ? sizeof(syn_options) : 0), payload = syn ? 0 : 6;

	store16(tcp + 2, service->port);
	store32(tcp + 4, 0x12345678);
	store32(tcp + 8, s->kind == BATON_SOURCE_HIT || s->kind == BATON_SOURCE_FORGED ? 0x9abcdef0 : 0);
	tcp[12] = (uint8_t)(header / 4 << 4);
	tcp[13] = syn ? TCP_SYN : TCP_ACK | TCP_PSH;
	store16(tcp + 14, 0xffff);
	memcpy(tcp + TCP_LEN, syn_options, syn ? sizeof(syn_options) : 0);
	return header + payload;
}

void baton_source_set(struct baton_forwarder *f, enum baton_source_kind kind, uint32_t index, uint64_t flows)
{
	struct baton_source *s = f->ports[0].device;
	const struct baton_service *service = &f->services[index];
	uint16_t tcp_len;

	memset(s->frame, 0, sizeof(s->frame));
	s->kind = kind;
	s->service = index;
	s->flows = flows;
	memcpy(s->frame, f->ports[0].mac, BATON_MAC_LEN);
	s->frame[BATON_MAC_LEN] = 2;
	store16(s->frame + 12, ETH_TYPE_IP4);
	tcp_len = template_tcp(s, service);
	template_ip(s, service, tcp_len);
	s->len = ETH_LEN + IP4_LEN + tcp_len;
	s->tcp_sum = sum_fold(
	    sum_add(sum_pseudo(baton_ip_from4(0), baton_ip_from4(load32(s->frame + ETH_LEN + 16)), PROTO_TCP, tcp_len),
		    s->frame + SPORT_AT, tcp_len));
}

/* flow_key is the key of flow n of a HIT. */
static inline struct baton_key flow_key(const struct baton_service *service, uint64_t n)
{
	struct client c = source_client(NET_FLOWS, n);

	return (struct baton_key){{(uint64_t)c.addr << 32 | (uint32_t)c.port << 16 | service->id}};
}

static bool crt_add(struct baton_forwarder *f, const struct baton_key *k, uint64_t value)
{
	return baton_crt_insert(&f->crt4, k, baton_crt_hash(&f->crt4, k), value);
}

static const struct baton_rival *rival;

void baton_rival_set(const struct baton_rival *r)
{
	rival = r;
}

const struct baton_rival *baton_rival_get(void)
{
	return rival;
}

int baton_source_fill(struct baton_forwarder *f, uint32_t index, uint64_t from, uint64_t to, uint16_t owner)
{
	for (uint64_t i = from; i < to; i++) {
		const struct baton_key k = flow_key(&f->services[index], i);
		uint64_t value = baton_value(BATON_TARGET, owner, (uint32_t)i, f->now_ms);

		if (!crt_add(f, &k, value) || (rival && rival->insert(&k, value)))
			return -ENOSPC;
	}
	return 0;
}

/* ---- the source in memory */

struct memory_source {
	struct baton_source source;
	uint32_t free;
	uint8_t *stack[SOURCE_BUFFERS];
	uint8_t memory[SOURCE_BUFFERS][SOURCE_HEAD + SOURCE_ROOM];
};

static int memory_alloc(struct baton_port *p, struct baton_buf *buf)
{
	struct memory_source *m = p->device;

	if (m->free == 0)
		return -ENOMEM;
	uint8_t *data = m->stack[--m->free];

	*buf = (struct baton_buf){data + SOURCE_HEAD, data, SOURCE_ROOM, SOURCE_ROOM, SOURCE_HEAD};
	return 0;
}

static void memory_free(struct baton_port *p, struct baton_buf *bufs, uint16_t n)
{
	struct memory_source *m = p->device;

	for (uint16_t i = 0; i < n; i++)
		m->stack[m->free++] = bufs[i].handle;
}

static uint16_t memory_rx_burst(struct baton_port *p, struct baton_buf *bufs, uint16_t n)
{
	struct memory_source *m = p->device;
	uint16_t i;

	if (m->source.paused)
		return 0;
	for (i = 0; i < n && memory_alloc(p, &bufs[i]) == 0; i++)
		bufs[i].len = baton_source_frame(&m->source, bufs[i].data);
	return i;
}

static uint16_t memory_tx_burst(struct baton_port *p, struct baton_buf *bufs, uint16_t n)
{
	memory_free(p, bufs, n);
	return n;
}

static void memory_close(struct baton_port *p)
{
	free(p->device);
	p->ops = NULL;
}

static const struct baton_port_ops memory_ops = {
    .rx_burst = memory_rx_burst,
    .tx_burst = memory_tx_burst,
    .alloc = memory_alloc,
    .free = memory_free,
    .close = memory_close,
};

void baton_source_attach(struct baton_forwarder *f, struct baton_source *device, const struct baton_port_ops *ops)
{
	static const uint8_t mac[BATON_MAC_LEN] = {2, 0xba, 0x70, 0, 0, 1};
	struct baton_port *p = &f->ports[0];

	device->forwarder = f;
	device->random = 0x9e3779b97f4a7c15ull;
	memcpy(p->mac, mac, sizeof(mac));
	p->frame_max = SOURCE_ROOM;
	p->device = device;
	p->ops = ops;
}

int baton_source_memory_open(struct baton_forwarder *f)
{
	struct memory_source *m = calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	for (; m->free < SOURCE_BUFFERS; m->free++)
		m->stack[m->free] = m->memory[m->free];
	baton_source_attach(f, &m->source, &memory_ops);
	return 0;
}

/* ---- what is measured */

static uint64_t thread_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

/* io is what every path has to do at least. */
static int io(struct baton_forwarder *f)
{
	struct baton_port *p = &f->ports[0];
	struct baton_buf bufs[BATON_BURST];
	uint16_t n = p->ops->rx_burst(p, bufs, BATON_BURST);

	p->ops->tx_burst(p, bufs, n);
	return n;
}

/* settle is the control plane: it takes all punts and ends the flows that it hears of. */
static void settle(struct baton_forwarder *f)
{
	struct baton_source *s = f->ports[0].device;
	struct baton_punt *punts[BATON_BURST];
	int n;

	s->paused = true;
	while ((n = baton_receive(f, punts, BATON_BURST)) > 0) {
		for (int i = 0; i < n; i++) {
			const struct baton_command c = {.kind = BATON_CLOSE, .flow = punts[i]->flow};

			if (punts[i]->kind == BATON_FIRST)
				baton_command_send(f, &c, NULL);
		}
		while (baton_poll(f) > 0)
			;
	}
	s->paused = false;
}

/* The stub is what looking up costs at least. */
static baton_word stub_value;

static void no_fetch(const struct baton_crt *t, struct baton_lookup *const *l, uint32_t n)
{
	(void)t;
	(void)l;
	(void)n;
}

static void stub_find(const struct baton_crt *t, struct baton_lookup *const *l, uint32_t n)
{
	(void)t;
	for (uint32_t i = 0; i < n; i++)
		l[i]->entry = &stub_value;
}

static const struct baton_finder stub = {no_fetch, stub_find};

static uint64_t polls_measure(struct baton_forwarder *f, int (*poll)(struct baton_forwarder *), uint64_t packets,
			      uint64_t *done)
{
	uint64_t took = 0;

	for (*done = 0; *done < packets; settle(f)) {
		uint64_t start = thread_ns();

		for (int i = 0; i < POLLS; i++)
			*done += (uint64_t)poll(f);
		took += thread_ns() - start;
	}
	return took;
}

uint64_t baton_measure(struct baton_forwarder *f, enum baton_measure what, uint64_t packets, uint64_t *done)
{
	const struct baton_finder *own = f->finder4, rival_finder = {no_fetch, rival ? rival->find : NULL};
	uint64_t took;

	*done = 0;
	if (what == BATON_MEASURE_RIVAL && !rival)
		return 0;
	if (what == BATON_MEASURE_STUB)
		f->finder4 = &stub;
	if (what == BATON_MEASURE_RIVAL)
		f->finder4 = &rival_finder;
	value_store(&stub_value, baton_value(BATON_TARGET, 1, 0, f->now_ms));
	took = polls_measure(f, what == BATON_MEASURE_IO ? io : baton_poll, packets, done);
	f->finder4 = own;
	return took;
}

static void flow_remove(struct baton_forwarder *f, const struct baton_key *k, bool from_rival)
{
	if (from_rival)
		rival->remove(k);
	else
		baton_crt_remove(&f->crt4, baton_crt_find(&f->crt4, k, baton_crt_hash(&f->crt4, k)));
}

/* burst_insert looks n flows up, as the pipeline does, and adds them. */
static bool burst_insert(struct baton_forwarder *f, struct baton_lookup *const *l, uint32_t n, uint64_t value,
			 bool into_rival)
{
	bool ok = true;

	if (!into_rival)
		f->finder4->fetch(&f->crt4, l, n);
	(into_rival ? rival->find : f->finder4->find)(&f->crt4, l, n);
	for (uint32_t i = 0; i < n && ok; i++)
		ok = into_rival ? rival->insert(&l[i]->key, value) == 0
				: baton_crt_insert(&f->crt4, &l[i]->key, l[i]->hash, value) != NULL;
	return ok;
}

uint64_t baton_measure_insert(struct baton_forwarder *f, uint32_t index, uint64_t from, uint64_t to, bool into_rival)
{
	const struct baton_service *service = &f->services[index];
	uint64_t value = baton_value(BATON_TARGET, 1, 0, f->now_ms), start, took;
	struct baton_lookup lookups[BATON_BURST], *l[BATON_BURST];
	bool ok = true;

	start = thread_ns();
	for (uint64_t i = from; i + BATON_BURST <= to && ok; i += BATON_BURST) {
		for (uint32_t n = 0; n < BATON_BURST; n++) {
			lookups[n].key = flow_key(service, i + n);
			l[n] = &lookups[n];
		}
		ok = burst_insert(f, l, BATON_BURST, value, into_rival);
	}
	took = thread_ns() - start;
	for (uint64_t i = from; i + BATON_BURST <= to && ok; i++) {
		const struct baton_key k = flow_key(service, i);

		flow_remove(f, &k, into_rival);
	}
	return ok ? took : 0;
}

uint64_t baton_measure_lines(struct baton_forwarder *f, uint64_t n)
{
	struct baton_source *s = f->ports[0].device;
	const struct baton_crt *t = &f->crt4;
	const baton_word *lines[BATON_BURST];
	uint64_t sum = 0, start = thread_ns();

	for (uint64_t done = 0; done < n; done += BATON_BURST) {
		for (int i = 0; i < BATON_BURST; i++) {
			lines[i] = t->buckets[(source_random(s) >> 32) * t->bucket_count >> 32].w;
			__builtin_prefetch(lines[i]);
		}
		for (int i = 0; i < BATON_BURST; i++)
			sum += value_load(lines[i]);
	}
	value_store(&stub_value, sum); /* so that the compiler cannot leave it out */
	return thread_ns() - start;
}
