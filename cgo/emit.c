/* SPDX-License-Identifier: Apache-2.0
 *
 * Frames on their way out, and tunnels: IPv4 and IPv6 in IPv4 (RFC 2003, RFC 4213) and in IPv6 (RFC 2473), and both in
 * UDP (GUE, draft-ietf-intarea-gue, version 0, as Linux's FOU receives it). Whatever is equal for all packets of a
 * tunnel is made once; a packet needs a copy of that, its lengths, its checksum, and what tells its flow from others.
 */
#include "emit.h"

enum {
	PROTO_IPIP = 4,
	PROTO_UDP = 17,
	PROTO_IPV6 = 41,
	UDP_LEN = 8,
	GUE_LEN = 4,
	GUE_UDP_PORT = 6080,
	SOURCE_PORT_FIRST = 0xc000, /* the dynamic ports: RFC 6335 6 */
	SOURCE_PORT_MASK = 0x3fff,
	OUTER_HOP_LIMIT = 64,
	IP4_MTU_MIN = BATON_TUNNEL_MTU_MIN,
	IP6_MTU_MIN = 1280,         /* RFC 8200 5 */
	NARROW_MS = 10 * 60 * 1000, /* RFC 1191 6.3: after 10 minutes a larger packet may be tried */
	NARROWS_PER_SECOND = 100,
	ICMP_UNREACHABLE = 3,
	ICMP_FRAG_NEEDED = 4,
	ICMP6_TOO_BIG = 2,
};

/* Headers are copied in as much as the longest of an IP version takes, which has a length that the compiler knows. */
enum {
	COPY4 = 48,
	COPY6 = TUNNEL_HEADER,
};
static_assert(ETH_LEN + IP4_LEN + UDP_LEN + GUE_LEN <= COPY4, "the longest header");
static_assert(ETH_LEN + IP6_LEN + UDP_LEN + GUE_LEN <= COPY6, "the longest header");

/* ---- send */

uint16_t port_send(struct baton_port *port, struct baton_buf *bufs, uint16_t n, uint32_t octets)
{
	uint16_t sent = port->ops->tx_burst(port, bufs, n);

	octets -= frames_octets(bufs + sent, n - sent);
	value_store(&port->tx_packets, value_load(&port->tx_packets) + sent);
	value_store(&port->tx_bytes, value_load(&port->tx_bytes) + octets);
	return sent;
}

void tx_flush(struct baton_port *port)
{
	if (port->tx_count == 0)
		return;
	uint16_t sent = port_send(port, port->tx, port->tx_count, frames_octets(port->tx, port->tx_count));

	port->tx_count = (uint16_t)(port->tx_count - sent);
	for (uint16_t i = 0; i < port->tx_count; i++) /* tried again next time, in order */
		port->tx[i] = port->tx[sent + i];
}

void frame_refuse(struct baton_forwarder *f, uint16_t port, uint16_t owner, struct baton_buf *buf,
		  enum baton_counter reason)
{
	const struct tunnel *t = &f->tunnels[owner];

	if (reason == BATON_DROP_TOO_BIG && answer_too_big(f, port, buf, (uint16_t)(t->mtu - t->overhead)))
		return;
	frame_drop(f, port, buf, reason);
}

/* ---- tunnels */

/* inner is a packet that enters a tunnel. */
struct inner {
	uint8_t *ip;
	uint32_t len;
	uint32_t flow; /* 24 bits, equal for all packets of a connection */
	uint8_t traffic_class;
	uint8_t proto; /* of an outer header */
};

/* mix spreads what tells flows apart over 24 bits. */
static inline uint32_t mix(uint64_t addresses, uint32_t ports)
{
	uint64_t h = (addresses ^ ports) * 0x9e3779b97f4a7c15ull;

	h = (h ^ h >> 32) * 0xd6e8feb86659fd93ull;
	return (uint32_t)(h >> 40);
}

static inline struct inner inner_ip4(uint8_t *ip)
{
	const uint8_t *l4 = ip + (ip[0] & 15) * 4;
	bool ports = ip[9] == PROTO_TCP && !(load16(ip + 6) & 0x3fff); /* no fragment */

	return (struct inner){
	    .ip = ip,
	    .len = load16(ip + 2),
	    .flow = mix(load64(ip + 12), ports ? load32(l4) : 0),
	    .traffic_class = ip[1],
	    .proto = PROTO_IPIP,
	};
}

static inline struct inner inner_ip6(uint8_t *ip)
{
	uint64_t addresses = 0;

	for (int i = 8; i < IP6_LEN; i += 8)
		addresses = addresses * 31 + load64(ip + i);
	return (struct inner){
	    .ip = ip,
	    .len = IP6_LEN + load16(ip + 4),
	    .flow = mix(addresses, ip[6] == PROTO_TCP ? load32(ip + IP6_LEN) : 0),
	    .traffic_class = (uint8_t)(load16(ip) >> 4),
	    .proto = PROTO_IPV6,
	};
}

/* write_gue completes the UDP and GUE headers. The flow chooses the source port, so that routers and receivers that
 * spread flows by ports keep this one in order. */
static inline void write_gue(uint8_t *udp, const struct inner *in)
{
	store16(udp, (uint16_t)(SOURCE_PORT_FIRST | (in->flow & SOURCE_PORT_MASK)));
	store16(udp + 4, (uint16_t)(UDP_LEN + GUE_LEN + in->len));
	udp[UDP_LEN + 1] = in->proto;
}

/* write_ip4 completes a header with identification 0 and DF (RFC 6864 4.1); a UDP checksum of 0 is none (RFC 768). */
static inline void write_ip4(const struct tunnel *t, const struct inner *in)
{
	uint8_t *ip = in->ip - t->overhead;
	uint16_t total = (uint16_t)(t->overhead + in->len);
	uint8_t proto = t->gue ? PROTO_UDP : in->proto;

	memcpy(in->ip - COPY4, t->header + TUNNEL_HEADER - COPY4, COPY4);
	ip[1] = in->traffic_class;
	store16(ip + 2, total);
	ip[9] = proto;
	store16(ip + 10, (uint16_t)~sum_fold(t->sum + in->traffic_class + total + proto));
	if (t->gue)
		write_gue(ip + IP4_LEN, in);
}

/* write_ip6 completes a header. The flow is in its label as well (RFC 6438). UDP needs a checksum here (RFC 8200 8.1). */
static inline void write_ip6(const struct tunnel *t, const struct inner *in)
{
	uint8_t *ip = in->ip - t->overhead, *udp = ip + IP6_LEN;
	uint16_t payload = (uint16_t)(t->overhead - IP6_LEN + in->len), sum;

	memcpy(in->ip - COPY6, t->header + TUNNEL_HEADER - COPY6, COPY6);
	store32(ip, 6u << 28 | (uint32_t)in->traffic_class << 20 | (in->flow & 0xfffff));
	store16(ip + 4, payload);
	ip[6] = t->gue ? PROTO_UDP : in->proto;
	if (!t->gue)
		return;
	write_gue(udp, in);
	sum = (uint16_t)~sum_fold(sum_add(t->sum + __builtin_bswap32(payload), udp, payload));
	sum = sum ? sum : 0xffff;
	memcpy(udp + 6, &sum, sizeof(sum));
}

/* fits says whether an outer packet may be so long. A report that has expired is forgotten. */
static inline bool fits(const struct baton_forwarder *f, struct tunnel *t, uint32_t len)
{
	if (__builtin_expect(len <= t->mtu, 1))
		return true;
	if (t->mtu < t->mtu_max && f->now_ms >= t->narrow_until_ms)
		t->mtu = t->mtu_max;
	return len <= t->mtu;
}

/* The outer traffic class is the inner one: DSCP as in RFC 2983 4.1, ECN as in RFC 6040 4.1 (normal mode). */
enum baton_counter frame_through_tunnel(struct baton_forwarder *f, uint16_t index, const struct baton_buf *buf)
{
	const struct owner *owner = &f->owners[index];
	struct tunnel *t = &f->tunnels[index];
	uint8_t *ip = buf->data + ETH_LEN;
	const struct inner in = ip[0] >> 4 == 4 ? inner_ip4(ip) : inner_ip6(ip);
	struct baton_buf out = *buf;

	if (!fits(f, t, t->overhead + in.len))
		return BATON_DROP_TOO_BIG;
	if (buf->head < (t->ip6 ? COPY6 : COPY4) - ETH_LEN)
		return BATON_DROP_NO_HEADROOM;
	if (!tx_room(&f->ports[owner->port])) /* before anything is written: it will be tried again */
		return BATON_DROP_TX_FULL;
	if (t->ip6)
		write_ip6(t, &in);
	else
		write_ip4(t, &in);
	out.data -= t->overhead;
	out.head -= t->overhead;
	out.room += t->overhead;
	out.len = ETH_LEN + t->overhead + in.len;
	count(f, BATON_ENCAPSULATED);
	return frame_stage(f, owner->port, &out) ? BATON_FORWARDED : BATON_DROP_TX_FULL;
}

/* ---- set up */

static void template_ip4(struct tunnel *t, uint8_t *ip, uint32_t near, uint32_t far)
{
	store16(ip, 0x4500);
	store16(ip + 6, 0x4000);
	ip[8] = OUTER_HOP_LIMIT;
	store32(ip + 12, near);
	store32(ip + 16, far);
	t->sum = 0x4500ull + 0x4000 + (OUTER_HOP_LIMIT << 8) + near + far;
}

static void template_ip6(struct tunnel *t, uint8_t *ip, struct baton_ip near, struct baton_ip far)
{
	ip[7] = OUTER_HOP_LIMIT;
	store_ip6(ip + 8, near);
	store_ip6(ip + 24, far);
	t->sum = sum_fold(sum_pseudo(near, far, PROTO_UDP, 0));
}

void tunnel_set(struct baton_forwarder *f, const struct baton_command *c)
{
	const struct owner *owner = &f->owners[c->owner];
	uint32_t port_mtu = f->ports[c->port].frame_max - ETH_LEN;
	struct tunnel *t = &f->tunnels[c->owner];
	uint8_t *ip;

	memset(t, 0, sizeof(*t));
	t->far = c->tuple.client;
	t->ip6 = !baton_ip_is4(t->far);
	t->gue = c->tunnel == BATON_TUNNEL_GUE;
	t->overhead = (uint16_t)((t->ip6 ? IP6_LEN : IP4_LEN) + (t->gue ? UDP_LEN + GUE_LEN : 0));
	t->mtu = t->mtu_max = (uint16_t)(c->mtu < port_mtu ? c->mtu : port_mtu);
	ip = t->header + TUNNEL_HEADER - t->overhead;
	memcpy(ip - ETH_LEN, &owner->macs, sizeof(owner->macs));
	store16(ip - 2, t->ip6 ? ETH_TYPE_IP6 : ETH_TYPE_IP4);
	if (t->ip6)
		template_ip6(t, ip, c->tuple.service, t->far);
	else
		template_ip4(t, ip, (uint32_t)c->tuple.service.lo, (uint32_t)t->far.lo);
	if (t->gue)
		store16(t->header + TUNNEL_HEADER - GUE_LEN - UDP_LEN + 2, GUE_UDP_PORT);
}

/* ---- path MTU */

/* too_big reads what an ICMP error says of a packet from p's destination: the largest size that would have passed, or 0
 * if it says something else, and where the packet was going. */
static uint32_t too_big(const struct packet *p, struct baton_ip *far)
{
	const uint8_t *icmp = p->buf.data + p->l4, *quoted = icmp + ICMP_LEN;
	bool is = p->ip6 ? icmp[0] == ICMP6_TOO_BIG : icmp[0] == ICMP_UNREACHABLE && icmp[1] == ICMP_FRAG_NEEDED;
	struct baton_ip near;

	if (!is || p->end - p->l4 < ICMP_LEN + (p->ip6 ? IP6_LEN : IP4_LEN) || quoted[0] >> 4 != (p->ip6 ? 6 : 4))
		return 0;
	near = p->ip6 ? load_ip6(quoted + 8) : baton_ip_from4(load32(quoted + 12));
	*far = p->ip6 ? load_ip6(quoted + 24) : baton_ip_from4(load32(quoted + 16));
	return baton_ip_equal(near, p->dst) ? (p->ip6 ? load32(icmp + 4) : load16(icmp + 6)) : 0;
}

bool tunnel_narrow(struct baton_forwarder *f, const struct packet *p)
{
	uint32_t least = p->ip6 ? IP6_MTU_MIN : IP4_MTU_MIN;
	struct baton_ip far;
	uint32_t mtu = too_big(p, &far);
	bool ours = false;

	if (mtu == 0 || !token_take(&f->narrows, f->now_ms, NARROWS_PER_SECOND))
		return false;
	for (uint32_t i = 0; i < BATON_MAX_OWNERS; i++) {
		struct tunnel *t = &f->tunnels[i];

		if (f->owners[i].tunnel == BATON_TUNNEL_NONE || !baton_ip_equal(t->far, far) || mtu >= t->mtu)
			continue;
		t->mtu = (uint16_t)(mtu > least ? mtu : least);
		t->narrow_until_ms = f->now_ms + NARROW_MS;
		ours = true;
	}
	return ours;
}
