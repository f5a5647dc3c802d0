/* SPDX-License-Identifier: Apache-2.0
 *
 * The packet generator and sink: frames from templates, the pace, what is received, the small client that completes
 * handshakes, and the loop. A frame is a copy of its template in which the client, the numbers and the stamp are filled
 * in; checksums are the template's sum and that of these fields.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "gen.h"
#include "parse.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

enum {
	VLAN_LEN = 4,
	ETH_TYPE_VLAN = 0x8100,
	UDP_LEN = 8,
	ARP_LEN = 28,
	PROTO_UDP = 17,
	ECHO_REQUEST = 8,
	ECHO_REQUEST6 = 128,
	HOP_LIMIT = 64,
	STAMP_LEN = 8,
	TIME_SHIFT = 4,  /* a stamp's time has 32 bits of the cycles from here on: it wraps after 20 s or more */
	MAKE_BELOW = 64, /* frames waiting for the port: no more are made above, nothing is received above the next */
	RECEIVE_BELOW = BATON_TX_STAGE - BATON_BURST,
	FLOWS_TRIED = 64, /* HANDSHAKE: flows that one frame may pass over as they are busy */
	NAP_LEAST_NS = 10000,
	NAP_MOST_NS = 50000,
	CALIBRATE_NS = 50000000,
	RESOLVE_NS = 100000000,
};

/* template is a frame in which client, numbers and stamp are zero, and checksums too. */
struct template
{
	uint8_t data[BATON_GEN_FRAME_MAX];
	uint16_t len;
	uint16_t stamp_at; /* 0: none, or in the numbers */
	uint64_t ip_sum, l4_sum;
};

enum life_state {
	LIFE_NONE,
	LIFE_SYN,     /* SYN sent */
	LIFE_REQUEST, /* request sent */
	LIFE_HELD,    /* response seen, not reset */
};

/* life is what a client of HANDSHAKE knows of its flow. */
struct life {
	uint32_t iss; /* time32 of the SYN */
	uint8_t state;
};

struct baton_gen {
	struct baton_forwarder *forwarder; /* has the ports */
	struct baton_port *out;
	struct baton_gen_config c;
	bool ip6;
	uint8_t proto;
	uint16_t l3, l4, port_at, check_at; /* offsets in frames that we make */
	uint32_t clients_shift;
	struct template paced[BATON_GEN_SIZES], request, reset;
	struct life *lives; /* HANDSHAKE: by flow */
	uint64_t cursor;    /* next flow in turn */
	uint64_t random;    /* state of the generator; not 0 */
	uint16_t turn;
	struct baton_buf stage[BATON_TX_STAGE];
	uint16_t staged;

	double hz, gap, next; /* gap: cycles between two frames; next: when one is due, cycles since `began` */
	uint64_t began, left; /* left: frames of the count */
	bool sending, endless;
	uint32_t serial_seen;
	uint64_t resolve_at;

	baton_word counters[BATON_GEN_COUNTER_COUNT];
	baton_word places[BATON_GEN_PLACES];

	_Alignas(BATON_CACHE_LINE) baton_word order_pps; /* the bits of a double; these are written by others */
	baton_word order_count;
	_Atomic uint32_t order_serial; /* even: send, odd: stop */
	_Atomic uint32_t finished;     /* the serial whose count is sent; written by the poll thread */
	_Atomic bool end;
	baton_word resolve;  /* own << 32 | target; 0: nothing to resolve */
	baton_word resolved; /* MAC, with bit 48 set; written by the poll thread */
	pthread_t thread;
};

static inline void add(struct baton_gen *g, enum baton_gen_counter c, uint64_t n)
{
	uint64_t v = atomic_load_explicit(&g->counters[c], memory_order_relaxed); /* single writer */

	atomic_store_explicit(&g->counters[c], v + n, memory_order_relaxed);
}

static inline uint32_t time32(uint64_t now)
{
	return (uint32_t)(now >> TIME_SHIFT);
}

/* gen_random is xorshift64* (Vigna 2016). */
static inline uint64_t gen_random(struct baton_gen *g)
{
	g->random ^= g->random >> 12;
	g->random ^= g->random << 25;
	g->random ^= g->random >> 27;
	return g->random * 0x2545f4914f6cdd1dull;
}

/* ---- frames */

/* frame_fill makes the frame of a flow and returns its length. seq and ack are for TCP. */
static inline uint32_t frame_fill(const struct baton_gen *g, const struct template *t, uint64_t flow, uint32_t seq,
				  uint32_t ack, uint64_t now, uint8_t *data)
{
	uint64_t addr = g->c.client.lo + (flow & (g->c.clients - 1)), addr_sum, sum = t->l4_sum;

	memcpy(data, t->data, t->len);
	if (g->ip6) {
		store64(data + g->l3 + 16, addr);
		addr_sum = sum_add(0, data + g->l3 + 16, 8);
	} else {
		store32(data + g->l3 + 12, (uint32_t)addr);
		addr_sum = sum_add(0, data + g->l3 + 12, 4);
		store_checksum(data + g->l3 + 10, t->ip_sum + addr_sum);
	}
	if (g->proto != PROTO_ICMP) /* alone, it has no pseudo header */
		sum += addr_sum;
	store16(data + g->port_at, (uint16_t)(g->c.first_port + (flow >> g->clients_shift)));
	sum = sum_add(sum, data + g->port_at, 2);
	if (g->proto == PROTO_TCP) {
		store32(data + g->l4 + 4, seq);
		store32(data + g->l4 + 8, ack);
		sum = sum_add(sum, data + g->l4 + 4, STAMP_LEN);
	}
	if (t->stamp_at) {
		store32(data + t->stamp_at, g->c.run);
		store32(data + t->stamp_at + 4, time32(now));
		sum = sum_add(sum, data + t->stamp_at, STAMP_LEN);
	}
	store_checksum(data + g->check_at, sum);
	if (g->proto == PROTO_UDP && data[g->check_at] == 0 && data[g->check_at + 1] == 0)
		store16(data + g->check_at, 0xffff); /* 0 says that there is none (RFC 768) */
	return t->len;
}

/* frame_paced fills in the numbers that the kind has. */
static inline uint32_t frame_paced(struct baton_gen *g, uint64_t flow, uint16_t turn, uint64_t now, uint8_t *data)
{
	const struct template *t = &g->paced[turn];

	switch (g->c.kind) {
	case BATON_GEN_SYN:
	case BATON_GEN_HANDSHAKE: /* the SYN-ACK acknowledges the time */
		return frame_fill(g, t, flow, time32(now), 0, now, data);
	case BATON_GEN_ACK:
		return frame_fill(g, t, flow, time32(now), (uint32_t)gen_random(g), now, data);
	default: /* the numbers of TCP segments without room for a stamp are one */
		return frame_fill(g, t, flow, g->c.run, time32(now), now, data);
	}
}

uint32_t baton_gen_frame(struct baton_gen *g, uint64_t flow, uint16_t turn, uint64_t now, uint8_t *data)
{
	return frame_paced(g, flow, turn, now, data);
}

/* ---- templates */

static void template_eth(const struct baton_gen *g, uint8_t *data)
{
	uint8_t *type = data + 12;

	memcpy(data, g->c.dst_mac, BATON_MAC_LEN);
	memcpy(data + BATON_MAC_LEN, g->c.src_mac, BATON_MAC_LEN);
	if (g->c.vlan) {
		store16(type, ETH_TYPE_VLAN);
		store16(type + 2, g->c.vlan);
		type += VLAN_LEN;
	}
	store16(type, g->ip6 ? ETH_TYPE_IP6 : ETH_TYPE_IP4);
}

static void template_ip(const struct baton_gen *g, struct template *t, uint16_t l4_len)
{
	uint8_t *ip = t->data + g->l3;

	if (g->ip6) {
		store32(ip, 6u << 28);
		store16(ip + 4, l4_len);
		ip[6] = g->proto;
		ip[7] = HOP_LIMIT;
		store64(ip + 8, g->c.client.hi);
		store_ip6(ip + 24, g->c.service);
		return;
	}
	store16(ip, 0x4500);
	store16(ip + 2, (uint16_t)(IP4_LEN + l4_len));
	store32(ip + 4, 0x4000); /* identification 0, don't fragment */
	ip[8] = HOP_LIMIT;
	ip[9] = g->proto;
	store32(ip + 16, (uint32_t)g->c.service.lo);
	t->ip_sum = sum_fold(sum_add(0, ip, IP4_LEN));
}

/* template_sum is the sum of the L4 part and its pseudo header, without the client's address. */
static uint64_t template_sum(const struct baton_gen *g, const struct template *t, uint16_t l4_len)
{
	struct baton_ip src = g->ip6 ? (struct baton_ip){g->c.client.hi, 0} : baton_ip_from4(0);
	uint64_t pseudo = g->proto == PROTO_ICMP ? 0 : sum_pseudo(src, g->c.service, g->proto, l4_len);

	return sum_fold(sum_add(pseudo, t->data + g->l4, l4_len));
}

/* template_make makes a frame of at least `size` octets with FCS around an L4 header and payload. */
static void template_make(const struct baton_gen *g, struct template *t, const uint8_t *header, uint16_t header_len,
			  const uint8_t *payload, uint16_t payload_len, uint16_t size, bool stamped)
{
	uint16_t len = (uint16_t)(g->l4 + header_len + payload_len);

	if (size > BATON_GEN_FRAME_MAX)
		size = BATON_GEN_FRAME_MAX;
	if (len + BATON_GEN_FCS < size) {
		len = size - BATON_GEN_FCS;
		payload_len = (uint16_t)(len - g->l4 - header_len);
	}
	memcpy(t->data + g->l4, header, header_len);
	if (payload)
		memcpy(t->data + g->l4 + header_len, payload, payload_len);
	if (stamped && payload_len >= STAMP_LEN)
		t->stamp_at = (uint16_t)(g->l4 + header_len);
	if (g->proto == PROTO_UDP)
		store16(t->data + g->l4 + 4, (uint16_t)(len - g->l4));
	template_eth(g, t->data);
	template_ip(g, t, (uint16_t)(len - g->l4));
	t->len = len;
	t->l4_sum = template_sum(g, t, (uint16_t)(len - g->l4));
}

static void template_tcp(const struct baton_gen *g, struct template *t, uint8_t flags, uint16_t size)
{
	static const uint8_t options[] = {2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7},
			     plain[] = {2, 4, 5, 180, 1, 3, 3, 7, 1, 1, 4, 2}; /* no timestamps to remember */
	uint8_t header[TCP_LEN + sizeof(options)] = {0};
	uint16_t header_len = TCP_LEN;
	bool padded =
	    !(flags & (TCP_SYN | TCP_RST)); /* octets behind them would be data, or padding that is not ours */

	if (flags == TCP_SYN) {
		bool remembers = g->c.kind == BATON_GEN_HANDSHAKE;
		uint16_t n = remembers ? sizeof(plain) : sizeof(options);

		memcpy(header + TCP_LEN, remembers ? plain : options, n);
		header_len += n;
	}
	store16(header + 2, g->c.service_port);
	header[12] = (uint8_t)(header_len / 4 << 4);
	header[13] = flags;
	store16(header + 14, 0xffff);
	if (t == &g->request)
		template_make(g, t, header, header_len, g->c.request, g->c.request_len, 0, false);
	else
		template_make(g, t, header, header_len, NULL, 0, padded ? size : 0, g->c.kind == BATON_GEN_DATA);
}

static void template_udp(const struct baton_gen *g, struct template *t, uint16_t size)
{
	uint8_t header[UDP_LEN] = {0};

	store16(header + 2, g->c.service_port);
	template_make(g, t, header, sizeof(header), NULL, STAMP_LEN, size, true);
}

static void template_echo(const struct baton_gen *g, struct template *t, uint16_t size)
{
	const uint8_t header[ICMP_LEN] = {g->ip6 ? ECHO_REQUEST6 : ECHO_REQUEST};

	template_make(g, t, header, sizeof(header), NULL, STAMP_LEN, size, true);
}

static void template_paced(const struct baton_gen *g, struct template *t, uint16_t size)
{
	switch (g->c.kind) {
	case BATON_GEN_UDP:
		template_udp(g, t, size);
		return;
	case BATON_GEN_ECHO:
		template_echo(g, t, size);
		return;
	case BATON_GEN_SYN:
	case BATON_GEN_HANDSHAKE:
		template_tcp(g, t, TCP_SYN, size);
		return;
	default:
		template_tcp(g, t, TCP_ACK | TCP_PSH, size);
	}
}

/* ---- what is sent */

static void flush(struct baton_gen *g)
{
	uint64_t octets = 0;

	if (g->staged == 0)
		return;
	for (uint16_t i = 0; i < g->staged; i++)
		octets += g->stage[i].len;
	uint16_t sent = g->out->ops->tx_burst(g->out, g->stage, g->staged);
	uint16_t left = (uint16_t)(g->staged - sent);

	for (uint16_t i = 0; i < left; i++) { /* tried again next time, in order */
		g->stage[i] = g->stage[sent + i];
		octets -= g->stage[i].len;
	}
	g->staged = left;
	add(g, BATON_GEN_TX, sent);
	add(g, BATON_GEN_TX_OCTETS, octets);
}

static uint64_t flow_in_turn(struct baton_gen *g)
{
	uint64_t flow = g->cursor++;

	if (g->cursor == g->c.flows)
		g->cursor = 0;
	return flow;
}

static uint64_t flow_next(struct baton_gen *g)
{
	if (g->c.random)
		return (uint64_t)((unsigned __int128)gen_random(g) * g->c.flows >> 64);
	return flow_in_turn(g);
}

/* life_begin finds a flow that may begin, or returns false. */
static bool life_begin(struct baton_gen *g, uint64_t now, uint64_t *flow)
{
	for (int i = 0; i < FLOWS_TRIED; i++) {
		*flow = flow_next(g);
		struct life *l = &g->lives[*flow];

		if (l->state == LIFE_HELD)
			continue;
		if (l->state != LIFE_NONE) {
			if ((uint32_t)(time32(now) - l->iss) < (uint32_t)(g->c.timeout >> TIME_SHIFT))
				continue;
			add(g, BATON_GEN_TIMEOUT, 1);
		}
		*l = (struct life){time32(now), LIFE_SYN};
		return true;
	}
	return false;
}

static bool make(struct baton_gen *g, uint64_t now)
{
	struct baton_buf *buf = &g->stage[g->staged];
	uint64_t flow;

	if (g->out->ops->alloc(g->out, buf)) {
		add(g, BATON_GEN_NO_BUFFER, 1);
		return false;
	}
	if (!g->lives) {
		flow = flow_next(g);
	} else if (!life_begin(g, now, &flow)) {
		g->out->ops->free(g->out, buf, 1);
		return false;
	}
	buf->len = frame_paced(g, flow, g->turn, now, buf->data);
	g->turn = (uint16_t)(g->turn + 1 == g->c.size_count ? 0 : g->turn + 1);
	g->staged++;
	return true;
}

/* due returns how many frames the pace asks for now, and gives up those that are too late. */
static uint32_t due(struct baton_gen *g, uint64_t now)
{
	uint64_t most = g->endless || g->left > BATON_BURST ? BATON_BURST : g->left;

	if (g->gap == 0)
		return (uint32_t)most;
	double late = (double)(now - g->began) - g->next;

	if (late < 0)
		return 0;
	if (late > (double)g->c.late) {
		uint64_t skip = (uint64_t)((late - (double)g->c.late) / g->gap);

		add(g, BATON_GEN_SKIPPED, skip);
		g->next += (double)skip * g->gap;
		late -= (double)skip * g->gap;
	}
	double n = late / g->gap + 1;

	return n < (double)most ? (uint32_t)n : (uint32_t)most;
}

/* obey takes a new order of another thread. */
static void obey(struct baton_gen *g, uint64_t now)
{
	uint32_t serial = atomic_load_explicit(&g->order_serial, memory_order_acquire);
	uint64_t bits = atomic_load_explicit(&g->order_pps, memory_order_relaxed);
	double pps;

	if (serial == g->serial_seen)
		return;
	g->serial_seen = serial;
	g->sending = !(serial & 1);
	if (!g->sending)
		return;
	memcpy(&pps, &bits, sizeof(pps));
	g->gap = pps > 0 ? g->hz / pps : 0;
	g->next = 0;
	g->began = now;
	g->left = atomic_load_explicit(&g->order_count, memory_order_relaxed);
	g->endless = g->left == 0;
	atomic_store_explicit(&g->counters[BATON_GEN_LATENCY_MAX], 0, memory_order_relaxed);
}

static uint32_t transmit(struct baton_gen *g, uint64_t now)
{
	uint32_t n = 0, want;

	obey(g, now);
	if (!g->sending || g->staged >= MAKE_BELOW)
		return 0;
	for (want = due(g, now); n < want && make(g, now); n++)
		;
	g->next += g->gap * n;
	add(g, BATON_GEN_PACED, n);
	if (g->endless || (g->left -= n))
		return n;
	g->sending = false;
	atomic_store_explicit(&g->finished, g->serial_seen, memory_order_release);
	return n;
}

/* ---- what is received */

static void record(struct baton_gen *g, uint32_t sent, uint64_t now)
{
	uint64_t ns = (uint64_t)((double)((uint64_t)(uint32_t)(time32(now) - sent) << TIME_SHIFT) * 1e9 / g->hz);
	uint32_t octave = ns < 64 ? 0 : 58 - (uint32_t)__builtin_clzll(ns); /* 64-127: 1 */
	uint64_t place = octave == 0 ? ns : 64 + (octave - 1) * 32 + (ns >> octave & 31);
	baton_word *w = &g->places[place < BATON_GEN_PLACES ? place : BATON_GEN_PLACES - 1];

	atomic_store_explicit(w, atomic_load_explicit(w, memory_order_relaxed) + 1, memory_order_relaxed);
	if (ns > atomic_load_explicit(&g->counters[BATON_GEN_LATENCY_MAX], memory_order_relaxed))
		atomic_store_explicit(&g->counters[BATON_GEN_LATENCY_MAX], ns, memory_order_relaxed);
}

uint64_t baton_gen_place_ns(unsigned int place)
{
	if (place < 64)
		return place;
	uint32_t octave = (place - 64) / 32 + 1, i = (place - 64) % 32;

	return ((32ull + i + 1) << octave) - 1;
}

/* arrival is a received frame as far as the sink looks into it. */
struct arrival {
	struct baton_buf buf;
	struct baton_ip src, dst;
	uint32_t end, l4, payload;
	uint16_t sport, dport;
	uint8_t proto, flags;
};

static void release(struct baton_gen *g, struct arrival *a)
{
	g->out->ops->free(g->out, &a->buf, 1);
}

/* respond sends a frame in the received one's buffer if that has the room. */
static uint8_t *respond_begin(struct baton_gen *g, struct arrival *a, uint32_t len)
{
	struct baton_buf larger;

	if (a->buf.room >= len)
		return a->buf.data;
	if (g->out->ops->alloc(g->out, &larger)) {
		add(g, BATON_GEN_NO_BUFFER, 1);
		return NULL;
	}
	release(g, a);
	a->buf = larger;
	return larger.data;
}

static void respond_end(struct baton_gen *g, struct arrival *a, uint32_t len)
{
	a->buf.len = len;
	g->stage[g->staged++] = a->buf;
}

static bool respond(struct baton_gen *g, struct arrival *a, const struct template *t, uint64_t flow, uint32_t seq,
		    uint32_t ack)
{
	uint8_t *data = respond_begin(g, a, t->len);

	if (!data)
		return false;
	respond_end(g, a, frame_fill(g, t, flow, seq, ack, 0, data));
	return true;
}

/* flow_of finds the flow that a frame comes back to. */
static bool flow_of(const struct baton_gen *g, const struct arrival *a, uint64_t *flow)
{
	uint64_t addr = a->dst.lo - g->c.client.lo;

	*flow = ((uint64_t)(a->dport - g->c.first_port) << g->clients_shift) + addr;
	return a->dst.hi == g->c.client.hi && addr < g->c.clients && a->dport >= g->c.first_port &&
	       *flow < g->c.flows && a->sport == g->c.service_port && baton_ip_equal(a->src, g->c.service);
}

/* life_synack sends ACK and request in one segment. True: the buffer is used. */
static bool life_synack(struct baton_gen *g, struct arrival *a, uint64_t flow, uint64_t now)
{
	const uint8_t *tcp = a->buf.data + a->l4;
	struct life *l = &g->lives[flow];

	if (l->state != LIFE_SYN || load32(tcp + 8) != l->iss + 1) {
		add(g, BATON_GEN_OTHER, 1);
		return false;
	}
	add(g, BATON_GEN_SYNACK, 1);
	record(g, l->iss, now);
	l->state = LIFE_REQUEST;
	return respond(g, a, &g->request, flow, l->iss + 1, load32(tcp + 4) + 1);
}

/* life_segment takes the service's first data as the response. True: the buffer is used. */
static bool life_segment(struct baton_gen *g, struct arrival *a, uint64_t flow)
{
	const uint8_t *tcp = a->buf.data + a->l4;
	struct life *l = &g->lives[flow];
	uint32_t len = a->end - a->payload;

	if (a->flags & TCP_RST) {
		add(g, BATON_GEN_RESET, 1);
		l->state = LIFE_NONE;
		return false;
	}
	if (len == 0 || l->state != LIFE_REQUEST) {
		add(g, len == 0 ? BATON_GEN_ACKED : BATON_GEN_OTHER, 1);
		return false;
	}
	add(g, BATON_GEN_RESPONSE, 1);
	l->state = g->c.hold ? LIFE_HELD : LIFE_NONE;
	return !g->c.hold && respond(g, a, &g->reset, flow, l->iss + 1 + g->c.request_len, load32(tcp + 4) + len);
}

static bool take_reply(struct baton_gen *g, struct arrival *a, uint64_t flow, uint64_t now)
{
	bool synack = (a->flags & (TCP_SYN | TCP_ACK)) == (TCP_SYN | TCP_ACK);

	if (g->lives)
		return synack ? life_synack(g, a, flow, now) : life_segment(g, a, flow);
	if (synack) {
		add(g, BATON_GEN_SYNACK, 1);
		record(g, load32(a->buf.data + a->l4 + 8) - 1, now);
	} else {
		add(g, a->flags & TCP_RST ? BATON_GEN_RESET : BATON_GEN_OTHER, 1);
	}
	return false;
}

static void take_stamped(struct baton_gen *g, const struct arrival *a, uint64_t now)
{
	const uint8_t *stamp = a->buf.data + a->payload;

	if (a->proto == PROTO_TCP && a->end - a->payload < STAMP_LEN)
		stamp = a->buf.data + a->l4 + 4;
	else if (a->end - a->payload < STAMP_LEN)
		stamp = NULL;
	if (!stamp || load32(stamp) != g->c.run) {
		add(g, BATON_GEN_OTHER, 1);
		return;
	}
	add(g, BATON_GEN_MATCHED, 1);
	record(g, load32(stamp + 4), now);
}

static uint32_t l4_header(const struct arrival *a)
{
	if (a->proto == PROTO_TCP)
		return a->end - a->l4 < TCP_LEN ? TCP_LEN : (a->buf.data[a->l4 + 12] >> 4) * 4u;
	return UDP_LEN; /* ICMP's echo, too */
}

/* parse_l4 verifies the checksum; false: bad. */
static bool parse_l4(struct arrival *a)
{
	const uint8_t *l4 = a->buf.data + a->l4;
	uint32_t len = a->end - a->l4, header = l4_header(a);

	if (len < header || (a->proto == PROTO_TCP && header < TCP_LEN))
		return false;
	a->payload = a->l4 + header;
	a->sport = load16(l4);
	a->dport = load16(l4 + 2);
	a->flags = a->proto == PROTO_TCP ? l4[13] : 0;
	if (a->proto == PROTO_UDP && load16(l4 + 6) == 0)
		return true;
	uint64_t pseudo = a->proto == PROTO_ICMP ? 0 : sum_pseudo(a->src, a->dst, a->proto, len);

	return sum_fold(sum_add(pseudo, l4, len)) == 0xffff;
}

static bool parse_l3_ip4(struct arrival *a, uint32_t l3)
{
	const uint8_t *ip = a->buf.data + l3;
	uint32_t room = a->buf.len - l3;

	if (room < IP4_LEN || ip[0] >> 4 != 4)
		return false;
	uint32_t header = (ip[0] & 15) * 4u, total = load16(ip + 2);

	if (header < IP4_LEN || total < header || total > room || sum_fold(sum_add(0, ip, header)) != 0xffff)
		return false;
	a->src = baton_ip_from4(load32(ip + 12));
	a->dst = baton_ip_from4(load32(ip + 16));
	a->proto = ip[9];
	a->l4 = l3 + header;
	a->end = l3 + total;
	return true;
}

static bool parse_l3_ip6(struct arrival *a, uint32_t l3)
{
	const uint8_t *ip = a->buf.data + l3;
	uint32_t room = a->buf.len - l3;

	if (room < IP6_LEN || ip[0] >> 4 != 6 || IP6_LEN + (uint32_t)load16(ip + 4) > room)
		return false;
	a->src = load_ip6(ip + 8);
	a->dst = load_ip6(ip + 24);
	a->proto = ip[6];
	a->l4 = l3 + IP6_LEN;
	a->end = a->l4 + load16(ip + 4);
	return true;
}

/* take_arp answers for the clients' addresses, so that a router in between finds them, and takes the answer that we
 * asked for. True: the buffer is used. */
static bool take_arp(struct baton_gen *g, struct arrival *a, uint32_t l3)
{
	uint8_t *arp = a->buf.data + l3;
	uint64_t asked = atomic_load_explicit(&g->resolve, memory_order_relaxed);

	if (a->buf.len < l3 + ARP_LEN || load32(arp) != 0x00010800 || load16(arp + 4) != 0x0604) {
		add(g, BATON_GEN_BAD, 1);
		return false;
	}
	if (load16(arp + 6) == 2 && load32(arp + 14) == (uint32_t)asked) {
		uint64_t mac = load64(arp + 8) >> 16;

		atomic_store_explicit(&g->resolved, mac | 1ull << 48, memory_order_release);
		atomic_store_explicit(&g->resolve, 0, memory_order_relaxed);
		memcpy(g->c.dst_mac, arp + 8, BATON_MAC_LEN);
		for (int i = 0; i < g->c.size_count; i++)
			memcpy(g->paced[i].data, arp + 8, BATON_MAC_LEN);
		memcpy(g->request.data, arp + 8, BATON_MAC_LEN);
		memcpy(g->reset.data, arp + 8, BATON_MAC_LEN);
		return false;
	}
	uint64_t ours = load32(arp + 24) - (uint32_t)g->c.client.lo;

	if (load16(arp + 6) != 1 || g->ip6 || ours >= g->c.clients)
		return false;
	uint8_t sender[10], target[4]; /* MAC and IP; IP */

	memcpy(sender, arp + 8, sizeof(sender));
	memcpy(target, arp + 24, sizeof(target));
	memcpy(a->buf.data, sender, BATON_MAC_LEN);
	memcpy(a->buf.data + BATON_MAC_LEN, g->c.src_mac, BATON_MAC_LEN);
	store16(arp + 6, 2);
	memcpy(arp + 8, g->c.src_mac, BATON_MAC_LEN);
	memcpy(arp + 14, target, sizeof(target));
	memcpy(arp + 18, sender, sizeof(sender));
	add(g, BATON_GEN_ARP, 1);
	respond_end(g, a, l3 + ARP_LEN);
	return true;
}

/* take handles a received frame. True: its buffer is used. */
static bool take(struct baton_gen *g, struct arrival *a, uint64_t now)
{
	uint32_t l3 = ETH_LEN;
	uint64_t flow;

	if (!a->buf.data || a->buf.len < ETH_LEN + VLAN_LEN) {
		add(g, BATON_GEN_BAD, 1);
		return false;
	}
	uint16_t type = load16(a->buf.data + 12);

	if (type == ETH_TYPE_VLAN) {
		type = load16(a->buf.data + 16);
		l3 += VLAN_LEN;
	}
	if (type == ETH_TYPE_ARP)
		return take_arp(g, a, l3);
	if (type != ETH_TYPE_IP4 && type != ETH_TYPE_IP6) {
		add(g, BATON_GEN_OTHER, 1);
		return false;
	}
	if (!(type == ETH_TYPE_IP6 ? parse_l3_ip6(a, l3) : parse_l3_ip4(a, l3)) ||
	    (a->proto == g->proto && !parse_l4(a))) {
		add(g, BATON_GEN_BAD, 1);
		return false;
	}
	if (a->proto != g->proto)
		add(g, BATON_GEN_OTHER, 1);
	else if (a->proto == PROTO_TCP && g->c.kind != BATON_GEN_DATA && flow_of(g, a, &flow))
		return take_reply(g, a, flow, now);
	else
		take_stamped(g, a, now);
	return false;
}

static uint32_t receive(struct baton_gen *g, struct baton_port *port, uint64_t now)
{
	struct baton_buf bufs[BATON_BURST], unused[BATON_BURST];
	uint16_t free = 0, n;
	uint64_t octets = 0;

	if (g->staged > RECEIVE_BELOW)
		return 0;
	n = port->ops->rx_burst(port, bufs, BATON_BURST);
	for (uint16_t i = 0; i < n; i++)
		__builtin_prefetch(bufs[i].data);
	for (uint16_t i = 0; i < n; i++) {
		struct arrival a = {.buf = bufs[i]};

		octets += bufs[i].len;
		if (!take(g, &a, now))
			unused[free++] = a.buf;
	}
	if (n == 0)
		return 0;
	if (free)
		port->ops->free(port, unused, free);
	add(g, BATON_GEN_RX, n);
	add(g, BATON_GEN_RX_OCTETS, octets);
	return n;
}

/* ---- asking for the next hop (RFC 826) */

static void ask(struct baton_gen *g, uint64_t now)
{
	uint64_t asked = atomic_load_explicit(&g->resolve, memory_order_relaxed);
	struct baton_buf *buf = &g->stage[g->staged];
	uint8_t *arp;

	if (asked == 0 || now < g->resolve_at || g->staged >= MAKE_BELOW || g->out->ops->alloc(g->out, buf))
		return;
	g->resolve_at = now + (uint64_t)(g->hz * RESOLVE_NS / 1e9);
	memset(buf->data, 0, 60);
	template_eth(g, buf->data);
	memset(buf->data, 0xff, BATON_MAC_LEN);
	store16(buf->data + g->l3 - 2, ETH_TYPE_ARP);
	arp = buf->data + g->l3;
	store32(arp, 0x00010800);
	store32(arp + 4, 0x06040001);
	memcpy(arp + 8, g->c.src_mac, BATON_MAC_LEN);
	store32(arp + 14, (uint32_t)(asked >> 32));
	store32(arp + 24, (uint32_t)asked);
	buf->len = 60;
	g->staged++;
}

void baton_gen_resolve(struct baton_gen *g, uint32_t own, uint32_t target)
{
	atomic_store_explicit(&g->resolved, 0, memory_order_relaxed);
	atomic_store_explicit(&g->resolve, (uint64_t)own << 32 | target, memory_order_relaxed);
}

bool baton_gen_resolved(struct baton_gen *g, uint8_t mac[BATON_MAC_LEN])
{
	uint64_t v = atomic_load_explicit(&g->resolved, memory_order_acquire);

	store16(mac, (uint16_t)(v >> 32));
	store32(mac + 2, (uint32_t)v);
	return v != 0;
}

/* ---- the loop */

uint64_t baton_gen_cycles(void)
{
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#else
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
#endif
}

static uint64_t monotonic_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

/* clocks_read reads both clocks as closely together as a few attempts can. */
static uint64_t clocks_read(uint64_t *ns)
{
	uint64_t best = UINT64_MAX, cycles = 0;

	*ns = 0;
	for (int i = 0; i < 16; i++) {
		uint64_t before = baton_gen_cycles(), at = monotonic_ns(), after = baton_gen_cycles();

		if (after - before >= best)
			continue;
		best = after - before;
		cycles = before + best / 2;
		*ns = at;
	}
	return cycles;
}

double baton_gen_hz(void)
{
	const struct timespec wait = {.tv_nsec = CALIBRATE_NS};
	uint64_t from_ns, to_ns, from = clocks_read(&from_ns);

	nanosleep(&wait, NULL);
	uint64_t to = clocks_read(&to_ns);

	return (double)(to - from) * 1e9 / (double)(to_ns - from_ns);
}

int baton_gen_poll(struct baton_gen *g, uint64_t now)
{
	uint32_t work = 0, n = 1;

	for (uint16_t i = 0; i < 2 && n; i++) { /* a forwarder has 16 ports; a generator needs two */
		struct baton_port *port = baton_port(g->forwarder, i);

		n = port && port->ops;
		if (n)
			work += receive(g, port, now);
	}
	work += transmit(g, now);
	ask(g, now);
	flush(g);
	return (int)work;
}

/* nap sleeps until the next frame is due, but not for long: something may come. */
static void nap(const struct baton_gen *g)
{
	double ns = NAP_MOST_NS;

	if (g->sending && g->gap > 0) {
		double until = (g->next - (double)(baton_gen_cycles() - g->began)) * 1e9 / g->hz;

		ns = until < ns ? until : ns;
	}
	if (ns < NAP_LEAST_NS)
		return;
	const struct timespec t = {.tv_nsec = (long)ns};

	nanosleep(&t, NULL);
}

int baton_gen_run(struct baton_gen *g)
{
	uint64_t last = baton_gen_cycles();

	prctl(PR_SET_NAME, "pktgen-poll");
	prctl(PR_SET_TIMERSLACK, 1);
	while (!atomic_load_explicit(&g->end, memory_order_relaxed)) {
		bool worked = baton_gen_poll(g, last) > 0;
		uint64_t now = baton_gen_cycles();

		if (worked)
			add(g, BATON_GEN_BUSY, now - last);
		else if (g->c.nap) {
			nap(g);
			now = baton_gen_cycles();
		}
		last = now;
	}
	return 0;
}

void baton_gen_end(struct baton_gen *g)
{
	atomic_store_explicit(&g->end, true, memory_order_relaxed);
}

static void *thread_main(void *arg)
{
	baton_gen_run(arg);
	return NULL;
}

int baton_gen_launch(struct baton_gen *g)
{
	sigset_t all, old;
	int err;

	sigfillset(&all); /* the thread inherits it: handlers of the Go runtime must not run there */
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&g->thread, NULL, thread_main, g);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -err;
}

void baton_gen_join(struct baton_gen *g)
{
	pthread_join(g->thread, NULL);
}

/* ---- open and close, orders, counters */

static uint8_t proto_of(const struct baton_gen_config *c, bool ip6)
{
	if (c->kind == BATON_GEN_UDP)
		return PROTO_UDP;
	if (c->kind == BATON_GEN_ECHO)
		return ip6 ? PROTO_ICMP6 : PROTO_ICMP;
	return PROTO_TCP;
}

static bool config_possible(const struct baton_gen_config *c)
{
	uint64_t ports = 65536 - (uint64_t)c->first_port;

	return c->kind <= BATON_GEN_ECHO && c->clients && (c->clients & (c->clients - 1)) == 0 && c->first_port &&
	       c->flows && c->flows <= ports * c->clients && c->size_count && c->size_count <= BATON_GEN_SIZES &&
	       c->request_len <= BATON_GEN_REQUEST && baton_ip_is4(c->client) == baton_ip_is4(c->service);
}

static void gen_layout(struct baton_gen *g)
{
	g->ip6 = !baton_ip_is4(g->c.service);
	g->proto = proto_of(&g->c, g->ip6);
	g->l3 = ETH_LEN + (g->c.vlan ? VLAN_LEN : 0);
	g->l4 = (uint16_t)(g->l3 + (g->ip6 ? IP6_LEN : IP4_LEN));
	g->port_at = (uint16_t)(g->l4 + (g->c.kind == BATON_GEN_ECHO ? 4 : 0));
	g->check_at = (uint16_t)(g->l4 + (g->proto == PROTO_TCP ? 16 : g->proto == PROTO_UDP ? 6 : 2));
	g->clients_shift = (uint32_t)__builtin_ctz(g->c.clients);
	for (uint16_t i = 0; i < g->c.size_count; i++)
		template_paced(g, &g->paced[i], g->c.sizes[i]);
	if (g->c.kind != BATON_GEN_HANDSHAKE)
		return;
	template_tcp(g, &g->request, TCP_ACK | TCP_PSH, 0);
	template_tcp(g, &g->reset, TCP_RST | TCP_ACK, 0);
}

struct baton_gen *baton_gen_open(struct baton_forwarder *f, const struct baton_gen_config *c, double hz, int *err)
{
	struct baton_gen *g = aligned_alloc(BATON_CACHE_LINE, sizeof(*g));

	*err = config_possible(c) ? -ENOMEM : -EINVAL;
	if (!g || *err == -EINVAL) {
		free(g);
		return NULL;
	}
	memset(g, 0, sizeof(*g));
	g->forwarder = f;
	g->out = baton_port(f, 0);
	g->c = *c;
	g->hz = hz;
	g->random = 0x9e3779b97f4a7c15ull ^ c->run;
	g->order_serial = g->serial_seen = g->finished = 1;
	if (c->kind == BATON_GEN_HANDSHAKE && !(g->lives = calloc(c->flows, sizeof(*g->lives)))) {
		free(g);
		return NULL;
	}
	gen_layout(g);
	*err = 0;
	return g;
}

void baton_gen_close(struct baton_gen *g)
{
	if (g->staged)
		g->out->ops->free(g->out, g->stage, g->staged);
	free(g->lives);
	free(g);
}

void baton_gen_start(struct baton_gen *g, double pps, uint64_t count)
{
	uint32_t serial = atomic_load_explicit(&g->order_serial, memory_order_relaxed);
	uint64_t bits;

	memcpy(&bits, &pps, sizeof(bits));
	atomic_store_explicit(&g->order_pps, bits, memory_order_relaxed);
	atomic_store_explicit(&g->order_count, count, memory_order_relaxed);
	atomic_store_explicit(&g->order_serial, serial + (serial & 1 ? 1 : 2), memory_order_release);
}

void baton_gen_stop(struct baton_gen *g)
{
	uint32_t serial = atomic_load_explicit(&g->order_serial, memory_order_relaxed);

	if (!(serial & 1))
		atomic_store_explicit(&g->order_serial, serial + 1, memory_order_release);
}

bool baton_gen_sending(struct baton_gen *g)
{
	uint32_t serial = atomic_load_explicit(&g->order_serial, memory_order_relaxed);

	return !(serial & 1) && atomic_load_explicit(&g->finished, memory_order_acquire) != serial;
}

uint64_t baton_gen_read(struct baton_gen *g, unsigned int counter)
{
	return counter < BATON_GEN_COUNTER_COUNT ? atomic_load_explicit(&g->counters[counter], memory_order_relaxed)
						 : 0;
}

const char *baton_gen_name(unsigned int counter)
{
	static const char *const names[] = {
#define X(symbol, name) name,
	    BATON_GEN_COUNTERS(X)
#undef X
	};

	return counter < BATON_GEN_COUNTER_COUNT ? names[counter] : NULL;
}

uint64_t baton_gen_place(struct baton_gen *g, unsigned int place)
{
	return place < BATON_GEN_PLACES ? atomic_load_explicit(&g->places[place], memory_order_relaxed) : 0;
}
