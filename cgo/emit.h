/* SPDX-License-Identifier: Apache-2.0
 *
 * emit.h: frames on their way out. Each leaves through frame_stage, and each that is for a target through
 * frame_to_owner, which is the only place that knows how a target is reached: by its MAC address on the data network,
 * or through a tunnel.
 */
#ifndef BATON_EMIT_H
#define BATON_EMIT_H

#include "forwarder.h"
#include "vlan.h"

/* frames_octets is how long frames are together. */
static inline uint32_t frames_octets(const struct baton_buf *bufs, uint16_t n)
{
	uint32_t octets = 0;

	for (uint16_t i = 0; i < n; i++)
		octets += bufs[i].len;
	return octets;
}

/* port_send hands frames, of so many octets together, to the port and returns how many of the first it took. */
uint16_t port_send(struct baton_port *port, struct baton_buf *bufs, uint16_t n, uint32_t octets);

/* tx_flush hands what is staged to the port; what it does not take stays staged. */
void tx_flush(struct baton_port *port);

/* tx_room makes sure that one more frame can be staged. False: the port is full. */
static inline bool tx_room(struct baton_port *port)
{
	if (__builtin_expect(port->tx_count == BATON_TX_STAGE, 0))
		tx_flush(port);
	return port->tx_count < BATON_TX_STAGE;
}

/* frame_stage queues a frame on a port, with the tag of its VLAN. False: the port is full, the frame is still the
 * caller's. */
static inline bool frame_stage(struct baton_forwarder *f, uint16_t index, const struct baton_buf *buf)
{
	struct baton_port *port = &f->ports[index];

	if (__builtin_expect(!tx_room(port), 0))
		return false;
	struct baton_buf *to = &port->tx[port->tx_count];

	*to = *buf;
	if (__builtin_expect(port->tag, 0) && !vlan_push(to, port->tag))
		return false;
	port->tx_count++;
	return true;
}

/* frame_through_tunnel is frame_to_owner for an owner with a tunnel. */
enum baton_counter frame_through_tunnel(struct baton_forwarder *f, uint16_t owner, const struct baton_buf *buf);

/* frame_to_owner addresses a frame with a checked IPv4 or IPv6 packet to a target and stages it. Returns
 * BATON_FORWARDED, or why it did not; the frame is then still the caller's, for frame_refuse, or for another try. Ethernet
 * padding does not enter a tunnel. */
static inline enum baton_counter frame_to_owner(struct baton_forwarder *f, uint16_t index, const struct baton_buf *buf)
{
	const struct owner *owner = &f->owners[index];

	if (__builtin_expect(!owner->known, 0))
		return BATON_DROP_NO_NEXTHOP;
	if (__builtin_expect(owner->tunnel != BATON_TUNNEL_NONE, 0))
		return frame_through_tunnel(f, index, buf);
	memcpy(buf->data, &owner->macs, sizeof(owner->macs));
	return frame_stage(f, owner->port, buf) ? BATON_FORWARDED : BATON_DROP_TX_FULL;
}

/* frame_refuse ends a frame that frame_to_owner did not take, for the reason that it gave: drops and counts it, or tells
 * its sender what would fit. port: where it came in. */
void frame_refuse(struct baton_forwarder *f, uint16_t port, uint16_t owner, struct baton_buf *buf,
		  enum baton_counter reason);

/* tunnel_set makes the tunnel of an owner from a SET_OWNER, whose addresses are of one family. */
void tunnel_set(struct baton_forwarder *f, const struct baton_command *c);

/* tunnel_narrow takes an ICMP error to one of our addresses. True: it was about a packet of a tunnel that was too big,
 * and the tunnel carries no more than it says until the report expires (RFC 2003 5.1, RFC 2473 7.1). */
bool tunnel_narrow(struct baton_forwarder *f, const struct packet *p);

#endif
