/* SPDX-License-Identifier: Apache-2.0
 *
 * A libFuzzer target for the whole data path on in-memory ports, in virtual time. An input is a script: one octet that
 * chooses the number of shards, then steps, each an octet that chooses what to do and octets that say how (see steps).
 * Scripts make frames of their own, bend frames of well-behaved clients, give commands and let time pass.
 *
 * Whatever the script: sanitizers find nothing, every frame that is sent and every segment that is punted is
 * well-formed, and when all flows have ended no buffer is held.
 */
#include "baton.h"
#include "parse.h"
#include "vlan.h"

#include <stdio.h>
#include <stdlib.h>

enum {
	PORTS = 2, /* the second one is in a VLAN */
	VLAN = 42,
	SHARDS_MAX = 2,
	CLIENTS = 8, /* half of them IPv6 */
	SERVICES = 5,
	IDS = 64,
	FRAME_ROOM = 4096,
	PAYLOAD_MAX = 1400,
	PIECE = 128, /* octets of payload in a fragment */
};

#define EPOCH_MS 1800000000000ull

static const uint8_t port_mac[PORTS][BATON_MAC_LEN] = {{2, 0xba, 0x70, 0, 0, 0}, {2, 0xba, 0x70, 0, 0, 1}};
static const uint8_t client_mac[BATON_MAC_LEN] = {2, 0xc1, 0, 0, 0, 1};

/* must ends the run: the property does not hold. */
#define must(holds)                                                                                                    \
	do {                                                                                                           \
		if (!(holds)) {                                                                                        \
			fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #holds);                      \
			abort();                                                                                       \
		}                                                                                                      \
	} while (0)

/* ---- the script */

struct script {
	const uint8_t *at, *end;
};

static uint8_t octet(struct script *s)
{
	return s->at < s->end ? *s->at++ : 0;
}

static uint32_t octets(struct script *s, uint8_t *to, uint32_t n)
{
	uint32_t left = (uint32_t)(s->end - s->at);

	n = n < left ? n : left;
	if (n)
		memcpy(to, s->at, n);
	s->at += n;
	return n;
}

/* ---- the world */

struct client {
	struct baton_tuple tuple;
	uint32_t irs, iss, ts_val, ts_ecr;
};

struct frame {
	uint32_t len;
	uint8_t data[FRAME_ROOM];
};

struct world {
	struct baton_shards *shards;
	uint32_t count;
	uint64_t now_ms;
	struct client clients[CLIENTS];
	uint64_t ids[IDS]; /* of flows, the last ones */
	uint32_t id_count;
	uint32_t fragment_id;
	struct frame orphan; /* the last one */
};

static struct baton_ip ip4(uint8_t last)
{
	return baton_ip_from4(10u << 24 | 77u << 16 | last);
}

static struct baton_ip ip6(uint8_t last)
{
	return (struct baton_ip){0x20010db800770000ull, last};
}

static const struct baton_service *services(void)
{
	static struct baton_service all[SERVICES];

	for (int i = 0; i < SERVICES; i++)
		all[i] = (struct baton_service){
		    .addr = ip4((uint8_t)(10 + i)),
		    .port = 80,
		    .id = (uint16_t)(i + 1),
		    .own_mss = 1440,
		    .scale = 7,
		    .window = 32768,
		};
	all[1].addr = ip6(10);
	all[2].speaks_first = true;
	all[3].distribution = BATON_LEASTCONN;
	all[4].adopts = 1;
	return all;
}

static void send_all(struct world *w, const struct baton_command *c, const uint8_t *frame)
{
	for (uint32_t i = 0; i < w->count; i++)
		must(baton_command_send(baton_shard(w->shards, i), c, frame) == 0);
}

/* owners: two on the data network, by one port each, and two behind tunnels. */
static void owners_set(struct world *w)
{
	const struct baton_candidate candidates[] = {{1, 1}, {2, 3}};

	for (uint16_t owner = 1; owner <= 4; owner++) {
		struct baton_command c = {.kind = BATON_SET_OWNER, .owner = owner, .port = owner % PORTS};

		c.mac[0] = 2;
		c.mac[5] = (uint8_t)owner;
		if (owner > 2) {
			c.tunnel = owner == 3 ? BATON_TUNNEL_IPIP : BATON_TUNNEL_GUE;
			c.mtu = 1500;
			c.tuple.client = owner == 3 ? ip4(200) : ip6(200);
			c.tuple.service = owner == 3 ? ip4(1) : ip6(1);
		}
		send_all(w, &c, NULL);
	}
	for (uint32_t i = 0; i < w->count; i++)
		must(baton_targets_publish(baton_shard(w->shards, i), 3, candidates, 2, NULL, 0, false) == 0);
}

static void world_open(struct world *w, uint8_t choice)
{
	static const struct baton_config config = {
	    .secret = {1, 2, 3},
	    .ipv4_entries = 16,
	    .ipv6_entries = 8,
	    .router_flows = 6,
	    .held_packets = 3,
	    .router_idle_ms = 5000,
	    .linger_ms = 1000,
	    .service_count = SERVICES,
	    .port_count = PORTS,
	    .seed = 7,
	    .source_flows = 5,
	    .source_punts = 1000,
	    .punts = 2000,
	    .half_open = 4,
	    .target_idle_s = 600,
	    .ended_idle_s = 60,
	    .evict_idle_s = 300,
	};
	int err;

	memset(w, 0, sizeof(*w));
	w->count = 1 + choice % SHARDS_MAX;
	w->now_ms = EPOCH_MS;
	must((w->shards = baton_shards_open(&config, services(), w->count, &err)));
	for (uint32_t i = 0; i < w->count; i++) {
		struct baton_forwarder *f = baton_shard(w->shards, i);

		for (uint16_t port = 0; port < PORTS; port++)
			must(baton_port_mem_open(f, port, port_mac[port],
						 w->count > 1 ? BATON_MEM_MIXED : BATON_MEM_TIGHT) == 0);
		baton_port_address(f, 0, ip4(1));
		baton_port_address(f, 1, ip6(1));
		baton_port_vlan(f, 1, VLAN);
		baton_port_exception(f, 0, true);
		baton_clock_set(f, w->now_ms);
	}
	owners_set(w);
	for (uint8_t i = 0; i < CLIENTS; i++) {
		struct client *c = &w->clients[i];

		c->tuple.client = i % 2 ? ip6(100 + i) : ip4(100 + i);
		c->tuple.client_port = (uint16_t)(40000 + i);
		c->irs = 0xfffffff0u + i;
	}
}

/* ---- what comes out */

/* sent_check: whatever leaves a port is addressed, tagged and framed as it should be. */
static void sent_check(uint16_t port, const uint8_t *d, uint32_t len)
{
	must(len >= ETH_LEN && memcmp(d + BATON_MAC_LEN, port_mac[port], BATON_MAC_LEN) == 0);
	if (port == 1) {
		must(len >= ETH_LEN + VLAN_LEN && load16(d + 12) == ETH_TYPE_VLAN && load16(d + 14) == VLAN);
		d += VLAN_LEN;
		len -= VLAN_LEN;
	}
	const uint8_t *ip = d + ETH_LEN;

	switch (load16(d + 12)) {
	case ETH_TYPE_IP4:
		must(len >= ETH_LEN + IP4_LEN && ip[0] >> 4 == 4 && len >= ETH_LEN + (uint32_t)load16(ip + 2));
		must(sum_fold(sum_add(0, ip, (ip[0] & 15) * 4u)) == 0xffff);
		return;
	case ETH_TYPE_IP6:
		must(len >= ETH_LEN + IP6_LEN && ip[0] >> 4 == 6 &&
		     len >= ETH_LEN + IP6_LEN + (uint32_t)load16(ip + 4));
		return;
	default:
		must(load16(d + 12) == ETH_TYPE_ARP);
	}
}

/* synack_take lets the client that it is for know of its connection. */
static void synack_take(struct world *w, const uint8_t *d, uint32_t len)
{
	struct packet p = {.buf = {.data = (uint8_t *)d, .len = len}};
	uint8_t proto;

	if (load16(d + 12) == ETH_TYPE_ARP ||
	    !(load16(d + 12) == ETH_TYPE_IP6 ? parse_ip6(&p, &proto) : parse_ip4(&p, &proto)) || proto != PROTO_TCP ||
	    !parse_tcp(&p) || !(p.flags & TCP_SYN))
		return;
	must(packet_checksum_ok(&p, PROTO_TCP));
	for (int i = 0; i < CLIENTS; i++) {
		struct client *c = &w->clients[i];

		if (!baton_ip_equal(c->tuple.client, p.dst) || c->tuple.client_port != p.dport ||
		    !baton_ip_equal(c->tuple.service, p.src) || c->tuple.service_port != p.sport || p.ack != c->irs + 1)
			continue;
		c->iss = p.seq;
		c->ts_ecr = parse_tcp_options(&p).ts_val;
	}
}

static void collect(struct world *w)
{
	struct frame f;

	for (uint16_t port = 0; port < PORTS; port++)
		while ((f.len = baton_port_mem_collect(baton_shard(w->shards, 0), port, f.data, FRAME_ROOM))) {
			struct baton_buf buf = {.data = f.data, .len = f.len, .room = FRAME_ROOM};

			sent_check(port, f.data, f.len);
			if (port == 1)
				must(vlan_pop(&buf, VLAN));
			synack_take(w, buf.data, buf.len);
		}
}

/* punt_check: the control plane gets whole, untagged TCP segments whose checksums are right. */
static void punt_check(const uint8_t *frame, uint32_t len)
{
	struct packet p = {.buf = {.data = (uint8_t *)frame, .len = len}};
	uint8_t proto;

	must(len > ETH_LEN);
	must(load16(frame + 12) == ETH_TYPE_IP6 ? parse_ip6(&p, &proto)
						: load16(frame + 12) == ETH_TYPE_IP4 && parse_ip4(&p, &proto));
	must(p.end == len && proto == PROTO_TCP && parse_tcp(&p) && packet_checksum_ok(&p, PROTO_TCP));
}

/* exception_check: the kernel gets nothing that is addressed to a service. */
static void exception_check(const uint8_t *frame, uint32_t len)
{
	bool six = load16(frame + 12) == ETH_TYPE_IP6;
	struct baton_ip dst;

	if (len < ETH_LEN + IP6_LEN || (!six && load16(frame + 12) != ETH_TYPE_IP4))
		return;
	dst = six ? load_ip6(frame + ETH_LEN + 24) : baton_ip_from4(load32(frame + ETH_LEN + 16));
	for (uint32_t i = 0; i < SERVICES; i++)
		must(services()[i].adopts || !baton_ip_equal(services()[i].addr, dst));
}

static void punt_take(struct world *w, const struct baton_punt *p)
{
	const uint8_t *frame = (const uint8_t *)(p + 1);

	must(p->kind >= BATON_FIRST && p->port < PORTS);
	if ((p->kind == BATON_FIRST || p->kind == BATON_ADOPTED) && p->flow)
		w->ids[w->id_count++ % IDS] = p->flow;
	if (p->kind == BATON_EXCEPTION)
		exception_check(frame, p->frame_len);
	if (p->kind != BATON_FIRST && p->kind != BATON_SEGMENT && p->kind != BATON_ORPHAN)
		return;
	punt_check(frame, p->frame_len);
	if (p->kind == BATON_ORPHAN && p->frame_len <= FRAME_ROOM) {
		w->orphan.len = p->frame_len;
		memcpy(w->orphan.data, frame, p->frame_len);
	}
}

static void run(struct world *w)
{
	struct baton_punt *punts[16];
	int n, work;

	do {
		work = 0;
		for (uint32_t i = 0; i < w->count; i++) {
			struct baton_forwarder *f = baton_shard(w->shards, i);

			work += baton_poll(f);
			while ((n = baton_receive(f, punts, 16)) > 0)
				for (int k = 0; k < n; k++)
					punt_take(w, punts[k]);
		}
		collect(w);
	} while (work);
}

static void advance(struct world *w, uint64_t ms)
{
	w->now_ms += ms;
	for (uint32_t i = 0; i < w->count; i++)
		baton_clock_set(baton_shard(w->shards, i), w->now_ms);
}

/* ---- frames of clients */

/* write_segment makes a client's segment; flags choose its options. */
static void write_segment(struct client *c, struct frame *f, uint32_t seq, uint8_t flags, uint32_t payload)
{
	static const uint8_t syn_options[] = {2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 3, 9};
	static const uint8_t options[] = {1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0};
	bool six = !baton_ip_is4(c->tuple.client), syn = flags & TCP_SYN;
	uint32_t header = TCP_LEN + (syn ? sizeof(syn_options) : sizeof(options)),
		 at = ETH_LEN + (six ? IP6_LEN : IP4_LEN);
	uint8_t *ip = f->data + ETH_LEN, *tcp = f->data + at;

	memset(f->data, 0, at + header);
	memcpy(f->data + BATON_MAC_LEN, client_mac, BATON_MAC_LEN);
	store16(f->data + 12, six ? ETH_TYPE_IP6 : ETH_TYPE_IP4);
	f->len = at + header + payload;
	if (six) {
		store32(ip, 6u << 28);
		store16(ip + 4, (uint16_t)(header + payload));
		ip[6] = PROTO_TCP;
		ip[7] = 64;
		store_ip6(ip + 8, c->tuple.client);
		store_ip6(ip + 24, c->tuple.service);
	} else {
		store32(ip, 0x45000000u | (IP4_LEN + header + payload));
		ip[8] = 64;
		ip[9] = PROTO_TCP;
		store32(ip + 12, (uint32_t)c->tuple.client.lo);
		store32(ip + 16, (uint32_t)c->tuple.service.lo);
		store_checksum(ip + 10, sum_add(0, ip, IP4_LEN));
	}
	store16(tcp, c->tuple.client_port);
	store16(tcp + 2, c->tuple.service_port);
	store32(tcp + 4, seq);
	store32(tcp + 8, flags & TCP_ACK ? c->iss + 1 : 0);
	tcp[12] = (uint8_t)(header / 4 << 4);
	tcp[13] = flags;
	store16(tcp + 14, 1000);
	memcpy(tcp + TCP_LEN, syn ? syn_options : options, header - TCP_LEN);
	store32(tcp + TCP_LEN + (syn ? 8 : 4), ++c->ts_val);
	store32(tcp + TCP_LEN + (syn ? 12 : 8), syn ? 0 : c->ts_ecr);
	store_checksum(tcp + 16, sum_add(sum_pseudo(c->tuple.client, c->tuple.service, PROTO_TCP, header + payload),
					 tcp, header + payload));
}

/* frame_put gives a frame to a port; in a VLAN it gets the tag unless the script says otherwise. */
static void frame_put(struct world *w, const struct frame *f, uint16_t port, bool other)
{
	static uint8_t copy[FRAME_ROOM + VLAN_LEN];
	struct baton_buf buf = {.data = copy + VLAN_LEN, .len = f->len, .room = FRAME_ROOM, .head = VLAN_LEN};

	memcpy(buf.data, f->data, f->len);
	if (f->len >= BATON_MAC_LEN && memcmp(buf.data, (uint8_t[BATON_MAC_LEN]){0}, BATON_MAC_LEN) == 0)
		memcpy(buf.data, port_mac[port], BATON_MAC_LEN); /* 0: to the port */
	if ((port == 1) != other && f->len >= ETH_LEN)
		must(vlan_push(&buf, VLAN));
	must(baton_port_mem_inject(baton_shard(w->shards, 0), port, buf.data, buf.len) == 0);
}

/* lengths_fix writes the IP header's length, and its checksum. */
static void lengths_fix(struct frame *f)
{
	uint8_t *ip = f->data + ETH_LEN;

	if (load16(f->data + 12) == ETH_TYPE_IP6) {
		store16(ip + 4, (uint16_t)(f->len - ETH_LEN - IP6_LEN));
		return;
	}
	store16(ip + 2, (uint16_t)(f->len - ETH_LEN));
	store16(ip + 10, 0);
	store_checksum(ip + 10, sum_add(0, ip, (ip[0] & 15) * 4u));
}

/* frame_insert makes room in a frame and fills it. */
static void frame_insert(struct frame *f, uint32_t at, const uint8_t *what, uint32_t n)
{
	if (f->len + n > FRAME_ROOM || at > f->len)
		return;
	memmove(f->data + at + n, f->data + at, f->len - at);
	memcpy(f->data + at, what, n);
	f->len += n;
}

/* extend puts options behind an IPv4 header, or an extension header behind an IPv6 one. */
static void extend(struct script *s, struct frame *f)
{
	static const uint8_t kinds[] = {PROTO_HOP_BY_HOP, PROTO_ROUTING, PROTO_FRAGMENT6, PROTO_OPTIONS};
	uint8_t *ip = f->data + ETH_LEN, header[EXTENSION_UNIT] = {1, 0, 1, 4};

	if (load16(f->data + 12) == ETH_TYPE_IP6) {
		header[0] = ip[6];
		ip[6] = kinds[octet(s) % sizeof(kinds)];
		frame_insert(f, ETH_LEN + IP6_LEN, header, sizeof(header));
	} else if ((ip[0] & 15) < 14) {
		frame_insert(f, ETH_LEN + IP4_LEN, header, sizeof(header));
		ip[0] += 2;
	}
	lengths_fix(f);
}

/* pieces_put sends a packet in fragments, in an order and with gaps that the script chooses. */
static void pieces_put(struct world *w, struct script *s, const struct frame *f, uint16_t port)
{
	bool six = load16(f->data + 12) == ETH_TYPE_IP6;
	uint32_t headers = ETH_LEN + (six ? IP6_LEN : (f->data[ETH_LEN] & 15) * 4u), id = ++w->fragment_id;
	uint8_t order = octet(s); /* bit i: the fragment at place i is left out; bit 7: backwards */
	uint32_t n = f->len > headers ? (f->len - headers + PIECE - 1) / PIECE : 0;

	for (uint32_t i = 0; i < n && i < 16; i++) {
		uint32_t k = order & 128 ? n - 1 - i : i, offset = k * PIECE, left = f->len - headers - offset;
		uint32_t len = left < PIECE ? left : PIECE;
		bool more = k + 1 < n;
		struct frame part = {.len = headers + len};
		uint8_t *ip = part.data + ETH_LEN;

		if (i < 7 && order >> i & 1)
			continue;
		memcpy(part.data, f->data, headers);
		memcpy(part.data + headers, f->data + headers + offset, len);
		if (six) {
			uint8_t header[FRAGMENT6_LEN] = {ip[6], 0};

			store16(header + 2, (uint16_t)(offset | more));
			store32(header + 4, id);
			ip[6] = PROTO_FRAGMENT6;
			frame_insert(&part, headers, header, sizeof(header));
		} else {
			store16(ip + 4, (uint16_t)id);
			store16(ip + 6, (uint16_t)(offset / 8 | (more ? 0x2000 : 0)));
		}
		lengths_fix(&part);
		frame_put(w, &part, port, false);
	}
}

/* bent_put sends a frame as the script's next octet says. */
static void bent_put(struct world *w, struct script *s, struct frame *f)
{
	uint8_t how = octet(s);
	uint16_t port = how & 1;

	if (how & 2)
		extend(s, f);
	if (how & 4) {
		uint32_t at = octet(s) | (how & 8 ? 256u : 0);

		if (at < f->len)
			f->data[at] ^= octet(s);
	}
	if (how & 16)
		f->len = f->len > octet(s) ? f->len - 1 : f->len;
	if (how & 32)
		pieces_put(w, s, f, port);
	else
		frame_put(w, f, port, how & 64);
}

/* ---- steps: each takes what it needs of the script */

/* a frame of the script's octets */
static void step_raw(struct world *w, struct script *s)
{
	struct frame f;
	uint16_t port = octet(s) % PORTS;

	f.len = octets(s, f.data, octet(s));
	frame_put(w, &f, port, false);
}

/* the same with right lengths and checksums */
static void step_fixed(struct world *w, struct script *s)
{
	struct frame f;
	uint16_t port = octet(s) % PORTS;
	uint32_t l4;
	uint8_t *ip = f.data + ETH_LEN;

	f.len = octets(s, f.data, octet(s));
	bool six = f.len > ETH_LEN && load16(f.data + 12) == ETH_TYPE_IP6;

	if (f.len < ETH_LEN + IP6_LEN + TCP_LEN)
		return;
	lengths_fix(&f);
	l4 = ETH_LEN + (six ? IP6_LEN : (ip[0] & 15) * 4u);
	uint8_t proto = six ? ip[6] : ip[9], *sum = f.data + l4 + (proto == PROTO_TCP ? 16 : 2);
	struct packet p = {.buf = {.data = f.data, .len = f.len}, .l4 = (uint16_t)l4, .end = f.len};

	if (l4 + TCP_LEN > f.len)
		return;
	p.src = six ? load_ip6(ip + 8) : baton_ip_from4(load32(ip + 12));
	p.dst = six ? load_ip6(ip + 24) : baton_ip_from4(load32(ip + 16));
	store16(sum, 0);
	store_checksum(sum, sum_add(proto == PROTO_ICMP ? 0 : sum_pseudo(p.src, p.dst, proto, f.len - l4), f.data + l4,
				    f.len - l4));
	frame_put(w, &f, port, false);
}

static struct client *client(struct world *w, struct script *s)
{
	return &w->clients[octet(s) % CLIENTS];
}

/* a SYN, which begins the client anew, at a service */
static void step_syn(struct world *w, struct script *s)
{
	struct client *c = client(w, s);
	uint8_t service = octet(s) % SERVICES;
	struct frame f;

	if (!baton_ip_is4(c->tuple.client))
		service = 1;
	else if (service == 1)
		service = 0;
	c->tuple.service = services()[service].addr;
	c->tuple.service_port = services()[service].port;
	c->irs += 1000;
	write_segment(c, &f, c->irs, TCP_SYN, 0);
	bent_put(w, s, &f);
}

/* a later segment */
static void step_segment(struct world *w, struct script *s)
{
	struct client *c = client(w, s);
	int8_t offset = (int8_t)octet(s);
	uint8_t flags = octet(s);
	uint32_t payload = octet(s) * 6u;
	struct frame f;

	memset(f.data, 'x', sizeof(f.data));
	write_segment(c, &f, c->irs + 1 + (uint32_t)offset, flags, payload < PAYLOAD_MAX ? payload : PAYLOAD_MAX);
	bent_put(w, s, &f);
}

/* an ICMP error about the service's next segment to a client */
static void step_error(struct world *w, struct script *s)
{
	struct client *c = client(w, s);
	const struct client back = {
	    {c->tuple.service, c->tuple.client, c->tuple.service_port, c->tuple.client_port, 0}, 0, c->irs, 0, 0};
	struct client quoted = back;
	struct frame q, f;
	bool six = !baton_ip_is4(c->tuple.client);
	uint32_t at = ETH_LEN + (six ? IP6_LEN : IP4_LEN);
	uint8_t *icmp = f.data + at;

	write_segment(&quoted, &q, c->iss + 1, TCP_ACK, 0);
	uint32_t cut = octet(s), len = q.len - ETH_LEN < cut ? q.len - ETH_LEN : cut;

	write_segment(c, &f, 0, 0, 0);
	f.data[ETH_LEN + (six ? 6 : 9)] = six ? PROTO_ICMP6 : PROTO_ICMP;
	memset(icmp, 0, ICMP_LEN);
	icmp[0] = octet(s);
	icmp[1] = octet(s);
	store16(icmp + 6, (uint16_t)(octet(s) << 4));
	memcpy(icmp + ICMP_LEN, q.data + ETH_LEN, len);
	f.len = at + ICMP_LEN + len;
	lengths_fix(&f);
	store_checksum(icmp + 2,
		       sum_add(six ? sum_pseudo(c->tuple.client, c->tuple.service, PROTO_ICMP6, ICMP_LEN + len) : 0,
			       icmp, ICMP_LEN + len));
	bent_put(w, s, &f);
}

/* shard_of is where the control plane sends a command. */
static uint32_t shard_of(const struct world *w, const struct baton_command *c)
{
	if (c->kind == BATON_TRANSMIT)
		return 0;
	if (c->kind == BATON_REMOVE || c->kind == BATON_ADOPT || c->kind == BATON_RESTORE)
		return baton_shard_of(w->shards, &c->tuple);
	return (uint32_t)(c->flow >> BATON_ID_SHARD_SHIFT) % (1 << 8) % w->count;
}

/* a command */
static void step_command(struct world *w, struct script *s)
{
	struct baton_command c = {.kind = octet(s) % BATON_SERVE + 1};
	const struct client *about = client(w, s);
	const uint8_t *frame = NULL;
	uint8_t idle[ETH_LEN + IP4_LEN] = {2};

	c.flow = w->ids[octet(s) % (w->id_count == 0 ? 1 : w->id_count < IDS ? w->id_count : IDS)];
	c.owner = 1 + octet(s) % 5; /* the last one is not known */
	c.discard = octet(s) & 1;
	c.tuple = about->tuple;
	c.irs = about->irs;
	c.iss = about->iss;
	if (c.kind == BATON_SERVE)
		c.owner %= SERVICES;
	if (c.kind == BATON_SET_OWNER) {
		owners_set(w);
		return;
	}
	if (c.kind == BATON_TRANSMIT) {
		frame = idle;
		memcpy(idle + BATON_MAC_LEN, port_mac[0], BATON_MAC_LEN);
		store16(idle + 12, ETH_TYPE_ARP);
		c.frame_len = sizeof(idle);
	}
	if (c.kind == BATON_RESTORE) {
		frame = w->orphan.data;
		c.frame_len = w->orphan.len;
	}
	must(baton_command_send(baton_shard(w->shards, shard_of(w, &c)), &c, frame) == 0);
}

static void step_time(struct world *w, struct script *s)
{
	uint8_t n = octet(s);

	advance(w, n & 128 ? (n & 127u) * 2000u : n * 50u);
}

static void (*const steps[])(struct world *, struct script *) = {
    step_raw, step_fixed, step_syn, step_segment, step_error, step_command, step_time,
};

/* ---- the end */

/* world_settle ends all flows and lets everything run out. */
static void world_settle(struct world *w)
{
	run(w);
	for (uint32_t i = 0; i < IDS && i < w->id_count; i++) {
		send_all(w, &(struct baton_command){.kind = BATON_CLOSE, .flow = w->ids[i]}, NULL);
		run(w);
	}
	for (int i = 0; i < 20; i++) {
		advance(w, 10000);
		run(w);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct script s = {data, data + size};
	static struct world w;

	world_open(&w, octet(&s));
	run(&w);
	while (s.at < s.end) {
		uint8_t step = octet(&s);

		steps[(step & 0x7f) % (sizeof(steps) / sizeof(steps[0]))](&w, &s);
		if (!(step & 0x80)) /* else with the next one, in one burst */
			run(&w);
	}
	world_settle(&w);
	if (w.id_count <= IDS)
		for (uint32_t i = 0; i < w.count; i++)
			must(baton_flows_used(baton_shard(w.shards, i)) == 0);
	for (uint16_t port = 0; port < PORTS && w.id_count <= IDS; port++)
		must(baton_port_mem_in_use(baton_shard(w.shards, 0), port) == 0);
	baton_shards_close(w.shards);
	return 0;
}
