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

/* client is an IPv4 address, or the last 4 octets of an IPv6 address in CLIENTS6, and a port. */
struct client {
	uint32_t addr;
	uint16_t port;
};

static const uint64_t CLIENTS6 = 0x20010db800000000; /* upper half of the addresses (RFC 3849) */

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
	const struct baton_ip ip =
	    baton_ip_is4(service->addr) ? baton_ip_from4(c.addr) : (struct baton_ip){CLIENTS6, c.addr};

	return (struct baton_tuple){ip, service->addr, c.port, service->port, 0};
}

uint32_t baton_source_frame(struct baton_source *s, uint8_t *data)
{
	const struct baton_forwarder *f = s->forwarder;
	struct client c = next_client(s);
	uint8_t *tcp = data + s->l4;
	uint64_t sum = 0;

	memcpy(data, s->frame, sizeof(s->frame));
	store32(data + s->src_at, c.addr);
	store16(tcp, c.port);
	if (s->kind == BATON_SOURCE_INSERT) {
		const struct baton_tuple t = client_tuple(&f->services[s->service], c);
		const struct baton_options o = {1460, 7, true};
		uint32_t ts_offset;

		store32(tcp + 8, baton_cookie_make(&f->cookies, &t, load32(tcp + 4) - 1, &o, &ts_offset) + 1);
		sum = sum_add(0, tcp + 8, 4);
	}
	sum += sum_add(0, data + s->src_at, 4);
	if (!s->ip6)
		store_checksum(data + ETH_LEN + 10, s->ip_sum + sum_add(0, data + s->src_at, 4));
	store_checksum(tcp + 16, s->tcp_sum + sum_add(sum, tcp, 2));
	return s->len;
}

static void template_ip4(struct baton_source *s, const struct baton_service *service, uint16_t tcp_len)
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

static void template_ip6(struct baton_source *s, const struct baton_service *service, uint16_t tcp_len)
{
	static const struct baton_ip elsewhere = {0x20010db8ffff0000, 1};
	uint8_t *ip = s->frame + ETH_LEN;

	store32(ip, 0x60000000);
	store16(ip + 4, tcp_len);
	ip[6] = PROTO_TCP;
	ip[7] = 63;
	store64(ip + 8, CLIENTS6);
	store_ip6(ip + 24, s->kind == BATON_SOURCE_NOT_OURS ? elsewhere : service->addr);
}

/* template_tcp writes the header behind the ports and returns the length of the segment. */
static uint16_t template_tcp(struct baton_source *s, const struct baton_service *service)
{
	static const uint8_t syn_options[] = {2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7};
	bool syn = s->kind == BATON_SOURCE_SYN;
	uint8_t *tcp = s->frame + s->l4;
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
	uint64_t addresses;
	uint16_t tcp_len;

	memset(s->frame, 0, sizeof(s->frame));
	s->kind = kind;
	s->service = index;
	s->ip6 = !baton_ip_is4(service->addr);
	s->flows = flows;
	s->l4 = ETH_LEN + (s->ip6 ? IP6_LEN : IP4_LEN);
	s->src_at = ETH_LEN + (s->ip6 ? 20 : 12);
	memcpy(s->frame, f->ports[0].mac, BATON_MAC_LEN);
	s->frame[BATON_MAC_LEN] = 2;
	store16(s->frame + 12, s->ip6 ? ETH_TYPE_IP6 : ETH_TYPE_IP4);
	tcp_len = template_tcp(s, service);
	(s->ip6 ? template_ip6 : template_ip4)(s, service, tcp_len);
	s->len = s->l4 + tcp_len;
	addresses = s->ip6 ? sum_add(0, s->frame + ETH_LEN + 8, 32) : sum_add(0, s->frame + ETH_LEN + 12, 8);
	addresses += sum_pseudo(baton_ip_from4(0), baton_ip_from4(0), PROTO_TCP, tcp_len);
	s->tcp_sum = sum_fold(sum_add(addresses, s->frame + s->l4, tcp_len));
}

/* flow_key is the key of flow n of a HIT. */
static inline struct baton_key flow_key(const struct baton_service *service, uint64_t n)
{
	struct client c = source_client(NET_FLOWS, n);

	if (baton_ip_is4(service->addr))
		return (struct baton_key){{(uint64_t)c.addr << 32 | (uint32_t)c.port << 16 | service->id}};
	return (struct baton_key){{CLIENTS6, c.addr, (uint64_t)c.port << 32 | (uint64_t)service->id << 16 | 1}};
}

static struct baton_crt *crt_of_service(struct baton_forwarder *f, uint32_t index)
{
	return crt_of(f, !baton_ip_is4(f->services[index].addr));
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
	struct baton_crt *t = crt_of_service(f, index);

	for (uint64_t i = from; i < to; i++) {
		const struct baton_key k = flow_key(&f->services[index], i);
		uint64_t value = baton_value(BATON_TARGET, owner, (uint32_t)i, f->now_ms);

		if (!baton_crt_insert(t, &k, baton_crt_hash(t, &k), value) ||
		    (rival && rival->key_words == t->key_words && rival->insert(&k, value)))
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
	const struct baton_source *s = f->ports[0].device;
	const struct baton_finder **finder = s->ip6 ? &f->finder6 : &f->finder4, *own = *finder;
	const struct baton_finder rival_finder = {no_fetch, rival ? rival->find : NULL};
	uint64_t took;

	*done = 0;
	if (what == BATON_MEASURE_RIVAL && (!rival || rival->key_words != crt_of(f, s->ip6)->key_words))
		return 0;
	if (what == BATON_MEASURE_STUB)
		*finder = &stub;
	if (what == BATON_MEASURE_RIVAL)
		*finder = &rival_finder;
	value_store(&stub_value, baton_value(BATON_TARGET, 1, 0, f->now_ms));
	took = polls_measure(f, what == BATON_MEASURE_IO ? io : baton_poll, packets, done);
	*finder = own;
	return took;
}

static void flow_remove(struct baton_crt *t, const struct baton_key *k, bool from_rival)
{
	if (from_rival)
		rival->remove(k);
	else
		baton_crt_remove(t, baton_crt_find(t, k, baton_crt_hash(t, k)));
}

/* burst_insert looks n flows up, as the pipeline does, and adds them. */
static bool burst_insert(struct baton_forwarder *f, struct baton_crt *t, struct baton_lookup *const *l, uint32_t n,
			 uint64_t value, bool into_rival)
{
	const struct baton_finder *finder = t == &f->crt4 ? f->finder4 : f->finder6;
	bool ok = true;

	if (!into_rival)
		finder->fetch(t, l, n);
	(into_rival ? rival->find : finder->find)(t, l, n);
	for (uint32_t i = 0; i < n && ok; i++)
		ok = into_rival ? rival->insert(&l[i]->key, value) == 0
				: baton_crt_insert(t, &l[i]->key, l[i]->hash, value) != NULL;
	return ok;
}

uint64_t baton_measure_insert(struct baton_forwarder *f, uint32_t index, uint64_t from, uint64_t to, bool into_rival)
{
	const struct baton_service *service = &f->services[index];
	struct baton_crt *t = crt_of_service(f, index);
	uint64_t value = baton_value(BATON_TARGET, 1, 0, f->now_ms), start, took;
	struct baton_lookup lookups[BATON_BURST], *l[BATON_BURST];
	bool ok = true;

	start = thread_ns();
	for (uint64_t i = from; i + BATON_BURST <= to && ok; i += BATON_BURST) {
		for (uint32_t n = 0; n < BATON_BURST; n++) {
			lookups[n].key = flow_key(service, i + n);
			l[n] = &lookups[n];
		}
		ok = burst_insert(f, t, l, BATON_BURST, value, into_rival);
	}
	took = thread_ns() - start;
	for (uint64_t i = from; i < to && ok; i++) {
		const struct baton_key k = flow_key(service, i);

		flow_remove(t, &k, into_rival);
	}
	return ok ? took : 0;
}

uint64_t baton_measure_lines(struct baton_forwarder *f, uint64_t n)
{
	struct baton_source *s = f->ports[0].device;
	const struct baton_crt *t = crt_of(f, s->ip6);
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
