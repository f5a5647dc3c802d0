/* SPDX-License-Identifier: Apache-2.0
 *
 * ICMP errors (RFC 792, RFC 4443) about segments of flows. Each goes to the flow's owner: it sent the segment, so it
 * alone can tell whether the error is about something under way (RFC 5927 4.1), and it has to act. The flow is found by
 * the quoted packet, of which 8 octets behind its IP header suffice (RFC 792): the ports, and the sequence number for
 * the owner.
 */
#include "emit.h"

enum {
	ICMP_UNREACHABLE = 3,
	ICMP_EXCEEDED = 11,
	ICMP_PARAMETER = 12,
	ICMP6_PARAMETER = 4, /* errors are 1 to 4: unreachable, too big, exceeded, parameter */
	QUOTED_TCP = 8,
};

bool icmp_is_error(const struct packet *p)
{
	uint8_t type = p->buf.data[p->l4];

	if (p->ip6)
		return type >= 1 && type <= ICMP6_PARAMETER;
	return type == ICMP_UNREACHABLE || type == ICMP_EXCEEDED || type == ICMP_PARAMETER;
}

/* The quoted packet is cut, so its lengths are not checked; and a router has changed its TTL, so its checksum neither.
 * It went from the service to the client. These return where its TCP header is, or NULL if it is none that we or a
 * target could have sent. */

static const uint8_t *quoted4(const uint8_t *ip, const uint8_t *end, struct baton_tuple *t)
{
	if (end - ip < IP4_LEN || ip[0] >> 4 != 4)
		return NULL;
	uint32_t header = (ip[0] & 15) * 4u;

	if (header < IP4_LEN || ip[9] != PROTO_TCP || (load16(ip + 6) & 0x1fff)) /* a later fragment has no ports */
		return NULL;
	t->service = baton_ip_from4(load32(ip + 12));
	t->client = baton_ip_from4(load32(ip + 16));
	return ip + header;
}

static const uint8_t *quoted6(const uint8_t *ip, const uint8_t *end, struct baton_tuple *t)
{
	if (end - ip < IP6_LEN || ip[0] >> 4 != 6 || ip[6] != PROTO_TCP) /* nobody here sends extension headers */
		return NULL;
	t->service = load_ip6(ip + 8);
	t->client = load_ip6(ip + 24);
	return baton_ip_is4(t->client) ? NULL : ip + IP6_LEN;
}

/* quoted_tuple finds out which connection an error is about. False: none of those that p's destination can have. */
static bool quoted_tuple(const struct packet *p, struct baton_tuple *t)
{
	const uint8_t *ip = p->buf.data + p->l4 + ICMP_LEN, *end = p->buf.data + p->end;
	const uint8_t *tcp = p->ip6 ? quoted6(ip, end, t) : quoted4(ip, end, t);

	if (!tcp || end - tcp < QUOTED_TCP || !baton_ip_equal(t->service, p->dst))
		return false;
	t->service_port = load16(tcp);
	t->client_port = load16(tcp + 2);
	return true;
}

/* error_forward gives an error to the target that owns its flow, as it is. */
static void error_forward(struct baton_forwarder *f, struct packet *p, uint16_t owner)
{
	p->buf.len = p->end;
	enum baton_counter outcome = frame_to_owner(f, owner, &p->buf);

	if (outcome == BATON_FORWARDED)
		count(f, BATON_ICMP_FORWARDED);
	else
		frame_drop(f, p->port, &p->buf, outcome);
}

/* error_punt gives an error to the router. One about a flow that the router does not know yet is about our SYN-ACK: the
 * client was reached after all. While a transfer is under way nobody may act; the error will come again. */
static enum baton_counter error_punt(struct baton_forwarder *f, const struct packet *p, const struct flow *w)
{
	if (!w->known || w->state != FLOW_OPEN)
		return BATON_DROP_ICMP_FLOW;
	if (!token_take(&f->errors, f->now_ms, ERRORS_PER_SECOND))
		return BATON_DROP_PUNT_LIMITED;
	return punt_flow(f, w, BATON_ICMP, p->buf.data, p->end) ? BATON_PUNT_ICMP : BATON_DROP_RING_FULL;
}

void icmp_error(struct baton_forwarder *f, struct packet *p)
{
	struct baton_tuple t = {.pad = 0};
	struct baton_crt *crt = crt_of(f, p->ip6);
	baton_word *v = NULL;
	struct baton_key k;

	bool ours = quoted_tuple(p, &t) && service_key(f, &t, &k);

	if (ours && shard_handed(f, p, &t))
		return;
	if (ours)
		v = baton_crt_find(crt, &k, baton_crt_hash(crt, &k));
	if (!v) {
		frame_leave(f, p, BATON_DROP_ICMP_FLOW);
		return;
	}
	uint64_t value = value_load(v);

	if (baton_value_state(value) >= BATON_TARGET) {
		error_forward(f, p, (uint16_t)(value & BATON_VALUE_INDEX));
		return;
	}
	enum baton_counter outcome = error_punt(f, p, &f->flows[value & BATON_VALUE_INDEX]);

	if (outcome == BATON_PUNT_ICMP)
		f->ports[p->port].ops->free(&f->ports[p->port], &p->buf, 1);
	else
		frame_drop(f, p->port, &p->buf, outcome);
}
