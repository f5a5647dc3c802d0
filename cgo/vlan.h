/* SPDX-License-Identifier: Apache-2.0
 *
 * vlan.h: IEEE 802.1Q tags. A port is in one VLAN, or in none. Its frames lose their tag where they come in and get it
 * where they leave, so nothing between knows of it; a frame of another VLAN is not for us.
 *
 *   | destination 6 | source 6 | 0x8100 | priority 3, drop eligible 1, VLAN 12 | type | ...
 */
#ifndef BATON_VLAN_H
#define BATON_VLAN_H

#include "parse.h"

enum {
	ETH_TYPE_VLAN = 0x8100,
	VLAN_LEN = 4,
	VLAN_MASK = 0xfff,
};

/* vlan_pop takes the tag off a frame. False: it has none, or another VLAN's. VLAN 0 is a priority alone (802.1Q 6.9). */
static inline bool vlan_pop(struct baton_buf *buf, uint16_t vlan)
{
	if (buf->len < ETH_LEN + VLAN_LEN || load16(buf->data + 12) != ETH_TYPE_VLAN ||
	    (load16(buf->data + 14) & VLAN_MASK) != vlan)
		return false;
	memmove(buf->data + VLAN_LEN, buf->data, 2 * BATON_MAC_LEN);
	buf->data += VLAN_LEN;
	buf->len -= VLAN_LEN;
	buf->room = (uint16_t)(buf->room - VLAN_LEN);
	buf->head = (uint16_t)(buf->head + VLAN_LEN);
	return true;
}

/* vlan_push puts a tag on. False: the buffer has no room for it. */
static inline bool vlan_push(struct baton_buf *buf, uint16_t vlan)
{
	if (buf->head < VLAN_LEN)
		return false;
	buf->data -= VLAN_LEN;
	buf->len += VLAN_LEN;
	buf->room = (uint16_t)(buf->room + VLAN_LEN);
	buf->head = (uint16_t)(buf->head - VLAN_LEN);
	memmove(buf->data, buf->data + VLAN_LEN, 2 * BATON_MAC_LEN);
	store16(buf->data + 12, ETH_TYPE_VLAN);
	store16(buf->data + 14, vlan);
	return true;
}

#endif
