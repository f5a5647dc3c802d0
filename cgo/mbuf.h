/* SPDX-License-Identifier: Apache-2.0
 *
 * mbuf.h: a DPDK mbuf as the data path sees it. Compiled only with the build tag dpdk.
 */
#ifndef BATON_MBUF_H
#define BATON_MBUF_H

#include "baton.h"

#include <rte_ether.h>
#include <rte_mbuf.h>

/* mbuf_retag puts a VLAN tag that the device took off (vlan_tci) back into the frame: what follows looks at one place.
 * A frame without room for it is made a truncated one. */
static inline void mbuf_retag(struct rte_mbuf **m)
{
	if (unlikely((*m)->ol_flags & RTE_MBUF_F_RX_VLAN_STRIPPED) && rte_vlan_insert(m))
		rte_pktmbuf_data_len(*m) = 0;
}

/* mbuf_view shows a received mbuf; one that came in several segments has data NULL. */
static inline void mbuf_view(struct baton_buf *buf, struct rte_mbuf *m)
{
	*buf = (struct baton_buf){
	    .data = likely(m->nb_segs == 1) ? rte_pktmbuf_mtod(m, uint8_t *) : NULL,
	    .handle = m,
	    .len = m->data_len,
	    .room = (uint16_t)(m->data_len + rte_pktmbuf_tailroom(m)),
	    .head = rte_pktmbuf_headroom(m),
	};
}

/* mbuf_ready prepares a frame for transmission: its begin and its length are the view's. */
static inline struct rte_mbuf *mbuf_ready(const struct baton_buf *buf)
{
	struct rte_mbuf *m = buf->handle;

	m->data_off = (uint16_t)(buf->data - (uint8_t *)m->buf_addr);
	m->data_len = (uint16_t)buf->len;
	m->pkt_len = buf->len;
	m->ol_flags = 0; /* what reception said of it is no order to the transmitter */
	return m;
}

/* mbuf_free_all gives up to BATON_TX_STAGE frames back to their pools. */
static inline void mbuf_free_all(const struct baton_buf *bufs, uint16_t n)
{
	struct rte_mbuf *mbufs[BATON_TX_STAGE];

	for (uint16_t i = 0; i < n; i++)
		mbufs[i] = bufs[i].handle;
	rte_pktmbuf_free_bulk(mbufs, n);
}

#endif
