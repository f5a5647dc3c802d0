/* SPDX-License-Identifier: Apache-2.0
 *
 * parse.h: from a frame to a packet view. Nothing here reads outside [data, data + len); every length that a header
 * claims is checked before it is used. Ethernet, IPv4 (RFC 791), IPv6 with extension headers (RFC 8200), TCP
 * (RFC 9293).
 */
#ifndef BATON_PARSE_H
#define BATON_PARSE_H

#include "baton.h"

#include <string.h>

enum {
	ETH_LEN = 14,
	ETH_TYPE_IP4 = 0x0800,
	ETH_TYPE_ARP = 0x0806,
	ETH_TYPE_IP6 = 0x86dd,
	IP4_LEN = 20,
	IP6_LEN = 40,
	TCP_LEN = 20,
	ICMP_LEN = 8,
	FRAGMENT6_LEN = 8,
	PROTO_HOP_BY_HOP = 0,
	PROTO_ICMP = 1,
	PROTO_TCP = 6,
	PROTO_ROUTING = 43,
	PROTO_FRAGMENT6 = 44,
	PROTO_ICMP6 = 58,
	PROTO_OPTIONS = 60,    /* for the destination */
	EXTENSION_UNIT = 8,    /* octets */
	EXTENSIONS_MAX = 4,    /* that are followed, as many as the guard of a target follows */
	IP4_FRAGMENT = 0x3fff, /* more fragments, or an offset */
	IP4_OFFSET = 0x1fff,
	IP6_FRAGMENT = 0xfff9, /* the same of a fragment header */
};

enum {
	TCP_FIN = 1,
	TCP_SYN = 2,
	TCP_RST = 4,
	TCP_PSH = 8,
	TCP_ACK = 16,
};

enum packet_class {
	CLASS_DROP, /* reason says why */
	CLASS_ARP,
	CLASS_ICMP,     /* of either family */
	CLASS_PASSED,   /* it is with another shard now */
	CLASS_FRAGMENT, /* of an IP packet: l4 is what is behind its IP header, which ends in a fragment header in IPv6 */
	CLASS_TCP,      /* from here on: segments for a service */
	CLASS_PLAIN,    /* not filled yet */
};

/* packet is a received frame and what was read from it. Offsets count from the frame's first octet. Of a plain packet only
 * lookup, flags and service are there until more is needed (packet_fill). */
struct packet {
	_Alignas(BATON_CACHE_LINE) struct baton_lookup lookup; /* CLASS_TCP, CLASS_PLAIN */
	union {
		struct {
			uint8_t flags;  /* TCP_* */
			uint8_t class;  /* enum packet_class */
			uint8_t reason; /* CLASS_DROP: enum baton_counter */
			bool ip6;
			uint16_t port;    /* where it came in */
			uint16_t service; /* index; CLASS_TCP, CLASS_PLAIN */
		};
		uint64_t look; /* all of it at once: packet_look */
	};
	uint32_t end;     /* offset behind the IP packet: the frame without Ethernet padding */
	uint16_t l4;      /* offset of the TCP or ICMP header */
	uint16_t payload; /* offset of the TCP payload */
	uint32_t seq, ack;

	union {
		struct {
			struct baton_ip src, dst;
			uint16_t sport, dport;
		};
		struct baton_tuple tuple;
	};
	struct baton_buf buf;
};
static_assert(sizeof(struct packet) == 2 * BATON_CACHE_LINE, "of a plain packet only the first line is touched");

/* packet_look is look of a plain packet to a service, without flags. */
static inline uint64_t packet_look(uint16_t service)
{
	return (uint64_t)service << 48 | CLASS_PLAIN << 8;
}

static inline uint16_t load16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t load32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return __builtin_bswap32(v);
}

static inline uint64_t load64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return __builtin_bswap64(v);
}

static inline void store16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static inline void store32(uint8_t *p, uint32_t v)
{
	v = __builtin_bswap32(v);
	memcpy(p, &v, sizeof(v));
}

static inline void store64(uint8_t *p, uint64_t v)
{
	v = __builtin_bswap64(v);
	memcpy(p, &v, sizeof(v));
}

static inline struct baton_ip load_ip6(const uint8_t *p)
{
	return (struct baton_ip){load64(p), load64(p + 8)};
}

static inline void store_ip6(uint8_t *p, struct baton_ip ip)
{
	store64(p, ip.hi);
	store64(p + 8, ip.lo);
}

/* ---- Internet checksum (RFC 1071). Sums are of 16-bit words in memory order, kept in 64 bits with end-around carry
 * until they are folded. */

static inline uint64_t sum_add(uint64_t sum, const uint8_t *p, uint32_t len)
{
	uint64_t w;
	uint32_t half;
	uint16_t h;

	for (; len >= 8; p += 8, len -= 8) {
		memcpy(&w, p, sizeof(w));
		sum += w;
		sum += sum < w; /* the carry: 2^64 is 1 modulo 2^16 - 1 */
	}
	if (len >= 4) {
		memcpy(&half, p, sizeof(half));
		sum += half;
		sum += sum < half;
		p += 4;
		len -= 4;
	}
	if (len >= 2) {
		memcpy(&h, p, sizeof(h));
		sum += h;
		sum += sum < h;
		p += 2;
	}
	if (len & 1) {
		uint8_t last[2] = {*p, 0};

		memcpy(&h, last, sizeof(h));
		sum += h;
		sum += sum < h;
	}
	return sum;
}

/* sum_fold adds the halves, twice: a number and itself with swapped halves have the sum of the halves, end-around carry
 * included, in their sum's upper half. */
static inline uint16_t sum_fold(uint64_t sum)
{
	sum += sum << 32 | sum >> 32;
	uint32_t half = (uint32_t)(sum >> 32);

	half += half << 16 | half >> 16;
	return (uint16_t)(half >> 16);
}

/* sum_is_whole says whether a sum, which is not 0, folds to 0xffff: with its checksum in it, every right one does. It is a
 * multiple of 2^16 - 1 then, so that its product with the inverse of that number modulo 2^64 is its quotient; all other
 * products are larger than any quotient (Granlund, Montgomery: Division by Invariant Integers, 1994, section 9). */
static inline bool sum_is_whole(uint64_t sum)
{
	return sum * 0xfffefffefffeffffull <= UINT64_MAX / 0xffff;
}

static inline void store_checksum(uint8_t *p, uint64_t sum)
{
	uint16_t c = (uint16_t)~sum_fold(sum);

	memcpy(p, &c, sizeof(c));
}

/* sum_pseudo is the sum of the pseudo header (RFC 9293 3.1, RFC 8200 8.1). */
static inline uint64_t sum_pseudo(struct baton_ip src, struct baton_ip dst, uint8_t proto, uint32_t len)
{
	uint8_t h[32];
	/* In memory order, len and proto are the second halves of their words. */
	uint64_t sum = (uint64_t)__builtin_bswap32(len) + __builtin_bswap32(proto);

	if (baton_ip_is4(src))
		return sum + __builtin_bswap32((uint32_t)src.lo) + __builtin_bswap32((uint32_t)dst.lo);
	store_ip6(h, src);
	store_ip6(h + 16, dst);
	return sum_add(sum, h, sizeof(h));
}

/* packet_checksum_ok verifies the TCP or ICMPv6 checksum, payload included. */
static inline bool packet_checksum_ok(const struct packet *p, uint8_t proto)
{
	uint32_t len = p->end - p->l4;

	return sum_is_whole(sum_add(sum_pseudo(p->src, p->dst, proto, len), p->buf.data + p->l4, len));
}

/* ---- headers */

static inline bool packet_drop(struct packet *p, enum baton_counter reason)
{
	p->class = CLASS_DROP;
	p->reason = (uint8_t)reason;
	return false;
}

/* source_possible refuses "this network", loopback, multicast and reserved addresses (RFC 6890). */
static inline bool source4_possible(uint8_t first_octet)
{
	return first_octet != 0 && first_octet != 127 && first_octet < 224;
}

static inline bool source_possible(struct baton_ip ip)
{
	if (baton_ip_is4(ip))
		return source4_possible((uint8_t)(ip.lo >> 24));
	return ip.hi >> 56 != 0xff && (ip.hi != 0 || ip.lo > 1);
}

static inline bool packet_fragment(struct packet *p)
{
	p->class = CLASS_FRAGMENT;
	return false;
}

/* parse_ip4 and parse_ip6 return the protocol of the payload in *proto. False: the class is decided. */
static inline bool parse_ip4(struct packet *p, uint8_t *proto)
{
	const uint8_t *ip = p->buf.data + ETH_LEN;

	if (p->buf.len < ETH_LEN + IP4_LEN)
		return packet_drop(p, BATON_DROP_TRUNCATED);
	if (ip[0] >> 4 != 4)
		return packet_drop(p, BATON_DROP_VERSION);
	uint32_t header = (ip[0] & 15) * 4u, total = load16(ip + 2);

	if (header < IP4_LEN || total < header)
		return packet_drop(p, BATON_DROP_LENGTH);
	if (p->buf.len < ETH_LEN + total)
		return packet_drop(p, BATON_DROP_TRUNCATED);
	uint64_t sum = sum_add(0, ip, IP4_LEN); /* apart: of a length that the compiler knows */

	if (__builtin_expect(header > IP4_LEN, 0))
		sum = sum_add(sum, ip + IP4_LEN, header - IP4_LEN);
	if (!sum_is_whole(sum))
		return packet_drop(p, BATON_DROP_IP_CHECKSUM);
	if (ip[8] == 0)
		return packet_drop(p, BATON_DROP_TTL);
	p->end = ETH_LEN + total;
	p->l4 = (uint16_t)(ETH_LEN + header);
	p->src = baton_ip_from4(load32(ip + 12));
	p->dst = baton_ip_from4(load32(ip + 16));
	p->ip6 = false;
	*proto = ip[9];
	return load16(ip + 6) & IP4_FRAGMENT ? packet_fragment(p) : true;
}

/* parse_extension takes one extension header at p->l4, and moves p->l4 and *proto on. A fragment header that makes no
 * fragment is skipped (RFC 6946). */
static inline bool parse_extension(struct packet *p, uint8_t *proto)
{
	const uint8_t *header = p->buf.data + p->l4;
	uint32_t len = EXTENSION_UNIT;

	if (p->end - p->l4 < EXTENSION_UNIT)
		return packet_drop(p, BATON_DROP_TRUNCATED);
	if (*proto != PROTO_FRAGMENT6)
		len += header[1] * EXTENSION_UNIT;
	if (p->end - p->l4 < len)
		return packet_drop(p, BATON_DROP_TRUNCATED);
	if (*proto == PROTO_ROUTING && header[3] != 0) /* still on its way to somebody else */
		return packet_drop(p, BATON_DROP_EXTENSION);
	bool fragment = *proto == PROTO_FRAGMENT6 && (load16(header + 2) & IP6_FRAGMENT);

	p->l4 = (uint16_t)(p->l4 + len);
	*proto = header[0];
	return fragment ? packet_fragment(p) : true;
}

/* parse_extensions follows the extension headers (RFC 8200 4). Hop-by-hop options come first (4.1). */
static inline bool parse_extensions(struct packet *p, uint8_t *proto)
{
	for (int i = 0; i <= EXTENSIONS_MAX; i++) {
		if (*proto != PROTO_OPTIONS && *proto != PROTO_ROUTING && *proto != PROTO_FRAGMENT6 &&
		    (*proto != PROTO_HOP_BY_HOP || i > 0))
			return *proto != PROTO_HOP_BY_HOP || packet_drop(p, BATON_DROP_EXTENSION);
		if (i < EXTENSIONS_MAX && !parse_extension(p, proto))
			return false;
	}
	return packet_drop(p, BATON_DROP_EXTENSION);
}

static inline bool parse_ip6(struct packet *p, uint8_t *proto)
{
	const uint8_t *ip = p->buf.data + ETH_LEN;

	if (p->buf.len < ETH_LEN + IP6_LEN)
		return packet_drop(p, BATON_DROP_TRUNCATED);
	if (ip[0] >> 4 != 6)
		return packet_drop(p, BATON_DROP_VERSION);
	uint32_t total = IP6_LEN + load16(ip + 4);

	if (p->buf.len < ETH_LEN + total)
		return packet_drop(p, BATON_DROP_TRUNCATED);
	if (ip[7] == 0)
		return packet_drop(p, BATON_DROP_TTL);
	p->end = ETH_LEN + total;
	p->l4 = ETH_LEN + IP6_LEN;
	p->src = load_ip6(ip + 8);
	p->dst = load_ip6(ip + 24);
	p->ip6 = true;
	*proto = ip[6];
	/* An IPv4-mapped address on the wire would pass for IPv4 inside. */
	if (baton_ip_is4(p->src) || baton_ip_is4(p->dst))
		return packet_drop(p, BATON_DROP_SOURCE);
	return parse_extensions(p, proto);
}

static inline bool parse_tcp(struct packet *p)
{
	const uint8_t *tcp = p->buf.data + p->l4;

	if (p->end - p->l4 < TCP_LEN)
		return packet_drop(p, BATON_DROP_TRUNCATED);
	uint32_t header = (tcp[12] >> 4) * 4u;

	if (header < TCP_LEN || p->l4 + header > p->end)
		return packet_drop(p, BATON_DROP_LENGTH);
	p->sport = load16(tcp);
	p->dport = load16(tcp + 2);
	p->seq = load32(tcp + 4);
	p->ack = load32(tcp + 8);
	p->flags = tcp[13];
	p->payload = (uint16_t)(p->l4 + header);
	if (p->sport == 0)
		return packet_drop(p, BATON_DROP_SOURCE);
	return true;
}

/* ---- plain packets: TCP over IPv4 without IP options. Nearly all are, and next to nothing of them has to be read. */

enum { PLAIN_TCP = ETH_LEN + IP4_LEN, PLAIN_LEN = PLAIN_TCP + TCP_LEN };

/* raw loads keep the order of memory: the first octet is the lowest. */
static inline uint32_t raw32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline uint64_t raw64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

/* OCTETS has octets where a raw load puts them. */
#define OCTETS(a, b, c, d) ((uint64_t)(d) << 24 | (c) << 16 | (b) << 8 | (a))

/* raw_mac is an address where a raw load of 8 octets, shifted by the two that follow it, puts it. */
static inline uint64_t raw_mac(const uint8_t mac[BATON_MAC_LEN])
{
	return (uint64_t)raw32(mac) << 16 | (uint64_t)mac[4] << 48 | (uint64_t)mac[5] << 56;
}

/* plain is what the first look at a plain packet finds. */
struct plain {
	uint64_t where;  /* address and port of its destination, in raw order: raw_where */
	uint64_t client; /* address and port of its source, as in a key */
	uint8_t flags;   /* TCP_* */
};

/* raw_where: the address, two octets of 0, the port. */
static inline uint64_t raw_where(uint32_t addr, uint16_t port)
{
	return __builtin_bswap32(addr) | (uint64_t)__builtin_bswap16(port) << 48;
}

/* plain_sum_ok verifies the checksum of an IPv4 header without options. Only one of the additions can have a carry. */
static inline bool plain_sum_ok(const uint8_t *d)
{
	uint64_t sum = (raw64(d + 12) >> 16) + (raw64(d + 26) >> 16), at20 = raw64(d + 20);

	sum += at20;
	sum += sum < at20;
	return sum_is_whole(sum);
}

/* plain_read is true for plain packets to a MAC address (raw_mac) in which parse_ip4, parse_tcp and source_possible would
 * find no fault. */
static inline bool plain_read(const struct baton_buf *buf, uint64_t mac, struct plain *out)
{
	const uint8_t *d = buf->data;

	if (!d || buf->len < PLAIN_LEN)
		return false;
	/* From these octets on: the destination; type, version and header length, total length; fragment, TTL, protocol; the
	 * addresses; the ports. */
	uint64_t at0 = raw64(d), at12 = raw64(d + 12), at20 = raw64(d + 20), at26 = raw64(d + 26), at34 = raw64(d + 34);

	if (((at0 << 16) ^ mac) | ((at12 ^ OCTETS(8, 0, 0x45, 0)) & OCTETS(255, 255, 255, 0)) |
	    ((at20 ^ OCTETS(0, 0, 0, PROTO_TCP)) & OCTETS(0x3f, 255, 0, 255)))
		return false;
	uint32_t total = load16(d + 16), offset = d[PLAIN_TCP + 12];

	if (buf->len < ETH_LEN + total || offset < TCP_LEN << 2 || IP4_LEN + (offset >> 4) * 4 > total ||
	    !(at20 & OCTETS(0, 0, 255, 0)) || !(at34 & 0xffff) || !source4_possible((uint8_t)at26))
		return false;
	out->where = raw64(d + 30) & ~(0xffffull << 32);
	out->client = (__builtin_bswap64(at26) & ~0xffffffffull) | (__builtin_bswap32((uint32_t)at34) & 0xffff0000);
	out->flags = d[PLAIN_TCP + 13];
	return plain_sum_ok(d);
}

/* packet_fill reads what the first look at a plain packet left out. */
static inline void packet_fill(struct packet *p, const struct baton_buf *buf, uint16_t port)
{
	const uint8_t *ip = buf->data + ETH_LEN, *tcp = buf->data + PLAIN_TCP;

	p->buf = *buf;
	p->port = port;
	p->class = CLASS_TCP;
	p->ip6 = false;
	p->src = baton_ip_from4(load32(ip + 12));
	p->dst = baton_ip_from4(load32(ip + 16));
	p->end = ETH_LEN + load16(ip + 2);
	p->l4 = PLAIN_TCP;
	p->payload = (uint16_t)(PLAIN_TCP + (tcp[12] >> 4) * 4u);
	p->sport = load16(tcp);
	p->dport = load16(tcp + 2);
	p->seq = load32(tcp + 4);
	p->ack = load32(tcp + 8);
}

/* tcp_options is what a segment's option field says. */
struct tcp_options {
	uint16_t mss;  /* 0: absent */
	uint8_t scale; /* BATON_COOKIE_NO_SCALE: absent */
	bool sack, timestamps;
	uint32_t ts_val, ts_ecr;
};

/* parse_tcp_options reads RFC 9293 3.2 options; a malformed length ends the list (RFC 9293 MUST-7: no crash). */
static inline struct tcp_options parse_tcp_options(const struct packet *p)
{
	struct tcp_options o = {.scale = BATON_COOKIE_NO_SCALE};
	const uint8_t *at = p->buf.data + p->l4 + TCP_LEN, *end = p->buf.data + p->payload;

	while (at < end && *at != 0) { /* 0: end of list */
		if (*at == 1) {        /* no-operation */
			at++;
			continue;
		}
		if (end - at < 2 || at[1] < 2 || at[1] > end - at)
			break;
		if (at[0] == 2 && at[1] == 4)
			o.mss = load16(at + 2);
		else if (at[0] == 3 && at[1] == 3)
			o.scale = at[2] > 14 ? 14 : at[2]; /* RFC 7323 2.3 */
		else if (at[0] == 4 && at[1] == 2)
			o.sack = true;
		else if (at[0] == 8 && at[1] == 10)
			o.timestamps = true, o.ts_val = load32(at + 2), o.ts_ecr = load32(at + 6);
		at += at[1];
	}
	return o;
}

static inline uint32_t packet_payload_len(const struct packet *p)
{
	return p->end - p->payload;
}

#endif
