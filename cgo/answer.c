/* SPDX-License-Identifier: Apache-2.0
 *
 * Frames that the forwarder makes itself: SYN-ACK, the answer to a keep-alive probe, ARP (RFC 826) and neighbour
 * discovery (RFC 4861), ICMP echo (RFC 792, RFC 4443), and the ICMP error for what does not fit a tunnel (RFC 1191,
 * RFC 8201). Each is built in the buffer of the frame that it answers and leaves by the port where that came in.
 */
#include "emit.h"
#include "forwarder.h"

enum {
	HOP_LIMIT = 64,
	ARP_LEN = 28,
	ARP_REQUEST = 1,
	ARP_REPLY = 2,
	ICMP_ECHO = 8,
	ICMP_FRAG_NEEDED = 3 << 8 | 4, /* type and code: destination unreachable, fragmentation needed */
	ICMP6_TOO_BIG = 2 << 8,
	ICMP_ERROR_MAX = 576,   /* octets of a whole error: RFC 1812 4.3.2.3 */
	ICMP6_ERROR_MAX = 1280, /* RFC 4443 2.4 (c) */
	ICMP_ECHO_REPLY = 0,
	ICMP6_ECHO = 128,
	ICMP6_ECHO_REPLY = 129,
	ICMP6_SOLICIT = 135,
	ICMP6_ADVERT = 136,
	ND_LEN = 24,       /* solicitation or advertisement without options */
	ND_OPTION_LEN = 8, /* link-layer address */
	ND_SOURCE = 1,
	ND_TARGET = 2,
	ND_HOP_LIMIT = 255, /* proof that it was not routed */
};

const struct local *local_find(const struct baton_forwarder *f, struct baton_ip addr, uint16_t port)
{
	for (uint32_t i = 0; i < f->local_count; i++) {
		const struct local *l = &f->locals[i];

		if (baton_ip_equal(l->addr, addr) && (l->port == ANY_PORT || l->port == port))
			return l;
	}
	return NULL;
}

static void drop(struct baton_forwarder *f, struct packet *p, enum baton_counter reason)
{
	frame_drop(f, p->port, &p->buf, reason);
}

/* room_make makes sure that len octets can be written at p->buf.data. Its old content is lost if it had to move. */
static bool room_make(struct baton_forwarder *f, struct packet *p, uint32_t len)
{
	struct baton_port *port = &f->ports[p->port];
	struct baton_buf larger;

	if (p->buf.room >= len)
		return true;
	if (port->ops->alloc(port, &larger))
		return false;
	port->ops->free(port, &p->buf, 1);
	p->buf = larger;
	return larger.room >= len;
}

static void send(struct baton_forwarder *f, struct packet *p, uint32_t len, enum baton_counter counter)
{
	p->buf.len = len;
	if (frame_stage(f, p->port, &p->buf))
		count(f, counter);
	else
		drop(f, p, BATON_DROP_TX_FULL);
}

static void write_eth(struct baton_forwarder *f, const struct packet *p, const uint8_t dst[BATON_MAC_LEN],
		      uint16_t type)
{
	memcpy(p->buf.data, dst, BATON_MAC_LEN);
	memcpy(p->buf.data + BATON_MAC_LEN, f->ports[p->port].mac, BATON_MAC_LEN);
	store16(p->buf.data + 12, type);
}

/* write_ip writes the header of a packet from p's destination to p's source and returns where its payload begins. */
static uint8_t *write_ip(const struct packet *p, uint8_t proto, uint16_t payload_len)
{
	uint8_t *ip = p->buf.data + ETH_LEN;

	if (p->ip6) {
		store32(ip, 6u << 28);
		store16(ip + 4, payload_len);
		ip[6] = proto;
		ip[7] = HOP_LIMIT;
		store_ip6(ip + 8, p->dst);
		store_ip6(ip + 24, p->src);
		return ip + IP6_LEN;
	}
	uint32_t src = (uint32_t)p->dst.lo, dst = (uint32_t)p->src.lo;
	uint16_t total = (uint16_t)(IP4_LEN + payload_len), ttl_proto = (uint16_t)(HOP_LIMIT << 8 | proto);

	store32(ip, 0x45000000u | total);
	store32(ip + 4, 0x4000); /* identification 0, don't fragment (RFC 6864 4.1) */
	store32(ip + 8,
		(uint32_t)ttl_proto << 16 | (uint16_t)~sum_fold(0x4500ull + total + 0x4000 + ttl_proto + src + dst));
	store32(ip + 12, src);
	store32(ip + 16, dst);
	return ip + IP4_LEN;
}

/* ---- TCP */

struct reply {
	uint32_t seq, ack;
	uint16_t window;
	uint8_t flags;
	uint8_t option_words;
	uint32_t options[10]; /* RFC 9293 3.1: whole words */
};

/* Options as the first words of a list: kind and length, what they share their word with, their value. */
enum {
	OPTION_MSS = 2 << 24 | 4 << 16,
	OPTION_SCALE = 1 << 24 | 3 << 16 | 3 << 8,
	OPTION_SACK = 4 << 24 | 2 << 16 | 1 << 8 | 1,
	OPTION_TIMESTAMPS = 1 << 24 | 1 << 16 | 8 << 8 | 10,
	OPTION_SACK_TIMESTAMPS = 4 << 24 | 2 << 16 | 8 << 8 | 10,
};

static inline void add_word(struct reply *r, uint32_t word)
{
	r->options[r->option_words++] = word;
}

/* sum_tcp is the sum of the reply's segment, without its checksum. It does not read what was just written: wide loads
 * would have to wait until the narrow stores before them are done. */
static inline uint64_t sum_tcp(const struct packet *p, const struct reply *r, uint16_t tcp_len)
{
	/* Sums of words in host order, turned in the end: RFC 1071 2 (B). */
	uint64_t sum = ((uint32_t)p->dport << 16 | p->sport) + (uint64_t)r->seq + r->ack +
		       ((uint32_t)(tcp_len / 4) << 28 | (uint32_t)r->flags << 16 | r->window);

	for (uint8_t i = 0; i < r->option_words; i++)
		sum += r->options[i];
	return (uint64_t)sum_fold(sum_pseudo(p->dst, p->src, PROTO_TCP, tcp_len)) + __builtin_bswap16(sum_fold(sum));
}

static inline void send_tcp(struct baton_forwarder *f, struct packet *p, const struct reply *r,
			    enum baton_counter counter)
{
	uint16_t tcp_len = (uint16_t)(TCP_LEN + 4 * r->option_words);
	uint32_t len = ETH_LEN + (p->ip6 ? IP6_LEN : IP4_LEN) + tcp_len;
	uint8_t peer[BATON_MAC_LEN];

	memcpy(peer, p->buf.data + BATON_MAC_LEN, sizeof(peer));
	if (!room_make(f, p, len)) {
		drop(f, p, BATON_DROP_NO_BUFFER);
		return;
	}
	write_eth(f, p, peer, p->ip6 ? ETH_TYPE_IP6 : ETH_TYPE_IP4);
	uint8_t *tcp = write_ip(p, PROTO_TCP, tcp_len);

	store16(tcp, p->dport);
	store16(tcp + 2, p->sport);
	store32(tcp + 4, r->seq);
	store32(tcp + 8, r->ack);
	store16(tcp + 12, (uint16_t)((tcp_len / 4) << 12 | r->flags));
	store16(tcp + 14, r->window);
	store32(tcp + 16, 0); /* checksum, urgent pointer */
	for (uint8_t i = 0; i < r->option_words; i++)
		store32(tcp + TCP_LEN + 4 * i, r->options[i]);
	store_checksum(tcp + 16, sum_tcp(p, r, tcp_len));
	send(f, p, len, counter);
}

/* synack_options writes them in the order and with the padding that Linux uses. */
static inline void synack_options(const struct baton_service *s, const struct tcp_options *offered, uint32_t ts_val,
				  struct reply *r)
{
	add_word(r, OPTION_MSS | s->own_mss);
	if (offered->timestamps) {
		add_word(r, offered->sack ? OPTION_SACK_TIMESTAMPS : OPTION_TIMESTAMPS);
		add_word(r, ts_val);
		add_word(r, offered->ts_val);
	} else if (offered->sack) {
		add_word(r, OPTION_SACK);
	}
	if (offered->scale != BATON_COOKIE_NO_SCALE)
		add_word(r, OPTION_SCALE | s->scale);
}

static uint16_t default_mss(const struct packet *p)
{
	return p->ip6 ? 1220 : 536; /* RFC 9293 MUST-15 */
}

/* synack_send makes p a SYN-ACK. The window in it is never scaled (RFC 7323 2.2). Data in the SYN is not acknowledged: it
 * comes again. */
static void synack_send(struct baton_forwarder *f, struct packet *p, const struct tcp_options *offered, uint32_t iss,
			uint32_t ts_offset, enum baton_counter counter)
{
	const struct baton_service *s = &f->services[p->service];
	struct reply r;

	r.seq = iss;
	r.ack = p->seq + 1;
	r.window = (uint16_t)(s->window < 65535 ? s->window : 65535);
	r.flags = TCP_SYN | TCP_ACK;
	r.option_words = 0;
	synack_options(s, offered, (uint32_t)f->now_ms + ts_offset, &r);
	send_tcp(f, p, &r, counter);
}

/* half_repeats says whether a SYN is that of a handshake, once more. */
static bool half_repeats(const struct half_open *o, uint32_t irs, const struct tcp_options *offered)
{
	return o->irs == irs && o->offered.mss == offered->mss && o->offered.scale == offered->scale &&
	       o->offered.sack == offered->sack && o->offered.timestamps == offered->timestamps;
}

/* half_remember has the SYN-ACK of p repeated until the client answers, if there is room. It returns the ISS of the
 * handshake: a SYN that comes again gets the same. */
static uint32_t half_remember(struct baton_forwarder *f, const struct packet *p, const struct tcp_options *offered,
			      uint32_t iss, uint32_t ts_offset)
{
	struct half_open *o = half_find(&f->half, &p->tuple);

	if (o && half_repeats(o, p->seq, offered)) {
		o->offered.ts_val = offered->ts_val;
		return o->iss;
	}
	if (o)
		half_end(&f->half, o);
	o = half_begin(&f->half, &p->tuple, f->now_ms);
	if (!o) {
		count(f, BATON_HALF_OPEN_FULL);
		return iss;
	}
	o->irs = p->seq;
	o->iss = iss;
	o->ts_offset = ts_offset;
	o->offered = *offered;
	o->service = p->service;
	o->port = p->port;
	o->ip6 = p->ip6;
	memcpy(o->mac, p->buf.data + BATON_MAC_LEN, BATON_MAC_LEN);
	return iss;
}

void answer_synack(struct baton_forwarder *f, struct packet *p)
{
	const struct tcp_options offered = parse_tcp_options(p);
	const struct baton_options o = {offered.mss ? offered.mss : default_mss(p), offered.scale, offered.sack};
	uint32_t ts_offset, iss = baton_cookie_make(&f->cookies, &p->tuple, p->seq, &o, &ts_offset);

	if (f->services[p->service].speaks_first)
		iss = half_remember(f, p, &offered, iss, ts_offset);
	synack_send(f, p, &offered, iss, ts_offset, BATON_SYNACK);
}

void answer_synack_again(struct baton_forwarder *f, const struct half_open *o)
{
	struct baton_port *port = &f->ports[o->port];
	struct packet p = {.port = o->port, .service = o->service, .ip6 = o->ip6, .tuple = o->tuple, .seq = o->irs};

	if (port->ops->alloc(port, &p.buf)) {
		count(f, BATON_DROP_NO_BUFFER);
		return;
	}
	memcpy(p.buf.data + BATON_MAC_LEN, o->mac, BATON_MAC_LEN);
	synack_send(f, &p, &o->offered, o->iss, o->ts_offset, BATON_SYNACK_AGAIN);
}

void answer_probe(struct baton_forwarder *f, struct packet *p, const struct flow *w)
{
	const struct tcp_options o = parse_tcp_options(p);
	uint32_t window = f->services[w->service].window >> w->handshake.rcv_scale;
	struct reply r = {
	    .seq = w->iss + 1,
	    .ack = w->irs + 1,
	    .window = (uint16_t)(window < 65535 ? window : 65535),
	    .flags = TCP_ACK,
	};

	if ((w->handshake.has & BATON_HAS_TIMESTAMPS) && o.timestamps) {
		add_word(&r, OPTION_TIMESTAMPS);
		add_word(&r, (uint32_t)f->now_ms + w->ts_offset);
		add_word(&r, o.ts_val);
	}
	send_tcp(f, p, &r, BATON_PROBE_REPLY);
}

/* ---- neighbours */

/* neighbour_report consumes p. */
static void neighbour_report(struct baton_forwarder *f, struct packet *p, struct baton_ip addr, const uint8_t *mac)
{
	struct baton_punt *punt;

	frame_copy(f, p); /* the kernel may have asked as well */
	if (!token_take(&f->neighbours, f->now_ms, NEIGHBOURS_PER_SECOND)) {
		drop(f, p, BATON_DROP_ARP);
		return;
	}
	punt = punt_begin(f, BATON_NEIGHBOUR, NULL, 0);
	if (!punt) {
		drop(f, p, BATON_DROP_RING_FULL);
		return;
	}
	punt->tuple.client = addr;
	punt->port = p->port;
	memcpy(punt->mac, mac, BATON_MAC_LEN);
	punt_end(f, punt);
	f->ports[p->port].ops->free(&f->ports[p->port], &p->buf, 1);
}

static void arp_reply(struct baton_forwarder *f, struct packet *p)
{
	uint8_t *arp = p->buf.data + ETH_LEN;
	uint8_t sender[10], target[4]; /* MAC and IP; IP */

	memcpy(sender, arp + 8, sizeof(sender));
	memcpy(target, arp + 24, sizeof(target));
	write_eth(f, p, sender, ETH_TYPE_ARP);
	store16(arp + 6, ARP_REPLY);
	memcpy(arp + 8, f->ports[p->port].mac, BATON_MAC_LEN);
	memcpy(arp + 14, target, sizeof(target));
	memcpy(arp + 18, sender, sizeof(sender));
	send(f, p, ETH_LEN + ARP_LEN, BATON_ARP_REPLY);
}

void answer_arp(struct baton_forwarder *f, struct packet *p)
{
	const uint8_t *arp = p->buf.data + ETH_LEN;

	if (p->buf.len < ETH_LEN + ARP_LEN) {
		drop(f, p, BATON_DROP_TRUNCATED);
		return;
	}
	/* Ethernet, IPv4, address lengths 6 and 4 */
	bool sane = load32(arp) == 0x00010800 && load16(arp + 4) == 0x0604 && !(arp[8] & 1);
	uint16_t op = load16(arp + 6);

	if (sane && op == ARP_REQUEST && local_find(f, baton_ip_from4(load32(arp + 24)), p->port))
		arp_reply(f, p);
	else if (sane && op == ARP_REPLY)
		neighbour_report(f, p, baton_ip_from4(load32(arp + 14)), arp + 8);
	else
		frame_leave(f, p, BATON_DROP_ARP);
}

/* nd_option finds the link-layer address option of that type, or returns NULL. */
static const uint8_t *nd_option(const struct packet *p, uint8_t type)
{
	uint32_t at = p->l4 + ND_LEN;

	while (at + ND_OPTION_LEN <= p->end) {
		const uint8_t *o = p->buf.data + at;

		if (o[0] == type && o[1] == 1)
			return o + 2;
		if (o[1] == 0)
			return NULL;
		at += o[1] * 8u;
	}
	return NULL;
}

/* nd_advertise answers a solicitation for target; one without a source address (duplicate address detection) is
 * answered to all nodes (RFC 4861 7.2.4). */
static void nd_advertise(struct baton_forwarder *f, struct packet *p, struct baton_ip target)
{
	static const uint8_t all_nodes[] = {0x33, 0x33, 0, 0, 0, 1};
	bool detection = p->src.hi == 0 && p->src.lo == 0;
	uint8_t peer[BATON_MAC_LEN];

	memcpy(peer, p->buf.data + BATON_MAC_LEN, sizeof(peer));
	if (!room_make(f, p, ETH_LEN + IP6_LEN + ND_LEN + ND_OPTION_LEN)) {
		drop(f, p, BATON_DROP_NO_BUFFER);
		return;
	}
	if (detection)
		p->src = (struct baton_ip){0xff02ull << 48, 1};
	p->dst = target;
	write_eth(f, p, detection ? all_nodes : peer, ETH_TYPE_IP6);
	uint8_t *nd = write_ip(p, PROTO_ICMP6, ND_LEN + ND_OPTION_LEN);

	p->buf.data[ETH_LEN + 7] = ND_HOP_LIMIT;
	store32(nd, (uint32_t)ICMP6_ADVERT << 24);
	nd[4] = detection ? 0x20 : 0x60; /* override; solicited */
	nd[5] = nd[6] = nd[7] = 0;
	store_ip6(nd + 8, target);
	nd[24] = ND_TARGET;
	nd[25] = 1;
	memcpy(nd + 26, f->ports[p->port].mac, BATON_MAC_LEN);
	store_checksum(nd + 2, sum_add(sum_pseudo(p->dst, p->src, PROTO_ICMP6, ND_LEN + ND_OPTION_LEN), nd,
				       ND_LEN + ND_OPTION_LEN));
	send(f, p, ETH_LEN + IP6_LEN + ND_LEN + ND_OPTION_LEN, BATON_ARP_REPLY);
}

static void answer_nd(struct baton_forwarder *f, struct packet *p, uint8_t type)
{
	const uint8_t *nd = p->buf.data + p->l4;

	if (p->end - p->l4 < ND_LEN || p->buf.data[ETH_LEN + 7] != ND_HOP_LIMIT || nd[1] != 0) {
		drop(f, p, BATON_DROP_ARP);
		return;
	}
	struct baton_ip target = load_ip6(nd + 8);
	const uint8_t *mac = nd_option(p, ND_TARGET);

	if (type == ICMP6_SOLICIT && local_find(f, target, p->port))
		nd_advertise(f, p, target);
	else if (type == ICMP6_ADVERT && mac && !(mac[0] & 1))
		neighbour_report(f, p, target, mac);
	else
		frame_leave(f, p, BATON_DROP_ARP);
}

/* ---- echo */

static void echo_reply(struct baton_forwarder *f, struct packet *p)
{
	uint8_t *d = p->buf.data, *icmp = d + p->l4;
	uint32_t len = p->end - p->l4;
	uint8_t peer[BATON_MAC_LEN];

	memcpy(peer, d + BATON_MAC_LEN, sizeof(peer));
	/* The reply is as long as the request; IPv4 options are not echoed, their room is given up. */
	write_eth(f, p, peer, p->ip6 ? ETH_TYPE_IP6 : ETH_TYPE_IP4);
	uint8_t *to = write_ip(p, p->ip6 ? PROTO_ICMP6 : PROTO_ICMP, (uint16_t)len);

	memmove(to, icmp, len);
	to[0] = p->ip6 ? ICMP6_ECHO_REPLY : ICMP_ECHO_REPLY;
	store16(to + 2, 0);
	store_checksum(to + 2, sum_add(p->ip6 ? sum_pseudo(p->dst, p->src, PROTO_ICMP6, len) : 0, to, len));
	send(f, p, (uint32_t)(to - d) + len, BATON_ECHO_REPLY);
}

static bool icmp_checksum_ok(const struct packet *p)
{
	if (p->ip6)
		return packet_checksum_ok(p, PROTO_ICMP6);
	return sum_fold(sum_add(0, p->buf.data + p->l4, p->end - p->l4)) == 0xffff;
}

void answer_icmp(struct baton_forwarder *f, struct packet *p)
{
	const uint8_t *icmp = p->buf.data + p->l4;
	bool local = local_find(f, p->dst, p->port);

	if (p->end - p->l4 < ICMP_LEN) {
		drop(f, p, BATON_DROP_TRUNCATED);
	} else if (!icmp_checksum_ok(p)) {
		drop(f, p, BATON_DROP_L4_CHECKSUM);
	} else if (p->ip6 && (icmp[0] == ICMP6_SOLICIT || icmp[0] == ICMP6_ADVERT)) {
		answer_nd(f, p, icmp[0]);
	} else if (!source_possible(p->src)) {
		drop(f, p, BATON_DROP_SOURCE);
	} else if (local && tunnel_narrow(f, p)) {
		if (!shard_next(f, p))
			drop(f, p, BATON_PATH_MTU);
	} else if (icmp_is_error(p)) { /* also to an address that another host answers for: of adopted flows */
		icmp_error(f, p);
	} else if (!local) {
		frame_leave(f, p, BATON_DROP_NOT_OURS);
	} else if (icmp[0] != (p->ip6 ? ICMP6_ECHO : ICMP_ECHO) || icmp[1] != 0) {
		frame_leave(f, p, BATON_DROP_ICMP);
	} else {
		echo_reply(f, p);
	}
}

/* ---- too big */

/* too_big_begin makes of a frame a packet to its sender, with room for the headers of an error in front of what it will
 * quote: the frame's packet. */
static bool too_big_begin(struct baton_forwarder *f, uint16_t port, const struct baton_buf *buf, struct packet *p)
{
	const uint8_t *ip = buf->data + ETH_LEN;
	const struct baton_ip own = f->ports[port].addr;
	uint16_t shift;

	p->ip6 = ip[0] >> 4 == 6;
	if (ip[p->ip6 ? 6 : 9] != PROTO_TCP) /* no errors about errors: RFC 1122 3.2.2 */
		return false;
	shift = (uint16_t)((p->ip6 ? IP6_LEN : IP4_LEN) + ICMP_LEN);
	if (buf->head < shift)
		return false;
	p->src = p->ip6 ? load_ip6(ip + 8) : baton_ip_from4(load32(ip + 12));
	p->dst = p->ip6 ? load_ip6(ip + 24) : baton_ip_from4(load32(ip + 16));
	p->end = p->ip6 ? IP6_LEN + load16(ip + 4) : load16(ip + 2);
	if (own.lo && baton_ip_is4(own) != p->ip6)
		p->dst = own;
	p->port = port;
	p->buf = (struct baton_buf){buf->data - shift, buf->handle, buf->len + shift, (uint16_t)(buf->room + shift),
				    (uint16_t)(buf->head - shift)};
	return true;
}

bool answer_too_big(struct baton_forwarder *f, uint16_t port, const struct baton_buf *buf, uint16_t mtu)
{
	struct packet p;
	uint8_t peer[BATON_MAC_LEN], *icmp;
	uint32_t quoted, head, len;

	if (!too_big_begin(f, port, buf, &p) ||
	    !token_take(&f->too_big_sources[source_place(p.src)], f->now_ms, TOO_BIGS_PER_SOURCE) ||
	    !token_take(&f->too_bigs, f->now_ms, TOO_BIGS_PER_SECOND))
		return false;
	head = p.ip6 ? IP6_LEN : IP4_LEN;
	quoted = (p.ip6 ? ICMP6_ERROR_MAX : ICMP_ERROR_MAX) - head - ICMP_LEN;
	len = ICMP_LEN + (p.end < quoted ? p.end : quoted);
	memcpy(peer, buf->data + BATON_MAC_LEN, sizeof(peer));
	write_eth(f, &p, peer, p.ip6 ? ETH_TYPE_IP6 : ETH_TYPE_IP4);
	icmp = write_ip(&p, p.ip6 ? PROTO_ICMP6 : PROTO_ICMP, (uint16_t)len);
	store32(icmp, (uint32_t)(p.ip6 ? ICMP6_TOO_BIG : ICMP_FRAG_NEEDED) << 16);
	store32(icmp + 4, mtu);
	store_checksum(icmp + 2, sum_add(p.ip6 ? sum_pseudo(p.dst, p.src, PROTO_ICMP6, len) : 0, icmp, len));
	send(f, &p, ETH_LEN + head + len, BATON_TOO_BIG_REPLY);
	return true;
}
