/* SPDX-License-Identifier: Apache-2.0
 *
 * The exception path: frames that came in by a port and are not for Baton, but for the host's kernel. They are punted,
 * for somebody who gives them to a TAP. No frame to a DVIPA is among them: the kernel does not have that address.
 */
#include "forwarder.h"

/* to_port says whether a frame is for the port's MAC address or for a group. */
static bool to_port(const struct baton_forwarder *f, const struct packet *p)
{
	const uint8_t *d = p->buf.data;

	return d && p->buf.len >= ETH_LEN && ((d[0] & 1) || memcmp(d, f->ports[p->port].mac, BATON_MAC_LEN) == 0);
}

/* to_dvipa says whether a packet whose IP header has been read is addressed to a DVIPA. */
static bool to_dvipa(const struct baton_forwarder *f, const struct packet *p)
{
	const struct local *l = local_find(f, p->dst, p->port);

	return l && l->port == ANY_PORT;
}

/* for_kernel says whether what is wrong with a packet is that it is none of Baton's. */
static bool for_kernel(const struct baton_forwarder *f, const struct packet *p, enum baton_counter reason)
{
	switch (reason) {
	case BATON_DROP_ETHERTYPE:
		return to_port(f, p);
	case BATON_DROP_ARP:
		return to_port(f, p) && (p->class == CLASS_ARP || !to_dvipa(f, p));
	case BATON_DROP_NOT_OURS: /* may be to a DVIPA, in a frame to a group */
	case BATON_DROP_PROTOCOL:
	case BATON_DROP_NO_PORT:
	case BATON_DROP_ICMP:
	case BATON_DROP_ICMP_FLOW:
	case BATON_DROP_FRAGMENT:
		return to_port(f, p) && !to_dvipa(f, p);
	default:
		return false;
	}
}

static enum baton_counter kernel_punt(struct baton_forwarder *f, const struct packet *p)
{
	struct baton_punt *punt;

	if (!token_take(&f->exceptions, f->now_ms, EXCEPTIONS_PER_SECOND))
		return BATON_DROP_PUNT_LIMITED;
	punt = punt_begin(f, BATON_EXCEPTION, p->buf.data, p->buf.len);
	if (!punt)
		return BATON_DROP_RING_FULL;
	punt->port = p->port;
	punt_end(f, punt);
	return BATON_PUNT_EXCEPTION;
}

void frame_leave(struct baton_forwarder *f, struct packet *p, enum baton_counter reason)
{
	if (f->ports[p->port].exception && for_kernel(f, p, reason))
		reason = kernel_punt(f, p);
	if (reason == BATON_PUNT_EXCEPTION)
		f->ports[p->port].ops->free(&f->ports[p->port], &p->buf, 1);
	else
		frame_drop(f, p->port, &p->buf, reason);
}

void frame_copy(struct baton_forwarder *f, const struct packet *p)
{
	if (f->ports[p->port].exception && for_kernel(f, p, BATON_DROP_ARP))
		(void)kernel_punt(f, p);
}
