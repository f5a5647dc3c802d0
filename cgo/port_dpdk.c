//go:build dpdk

/* SPDX-License-Identifier: Apache-2.0
 *
 * Ports over DPDK 22.11: EAL, ethdev, mempool, and the lcore that polls. The only file that knows DPDK.
 */
#include "port_dpdk.h"
#include "forwarder.h"
#include "mbuf.h"

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <signal.h>
#include <stdio.h>

enum {
	RING_DESCRIPTORS = 1024,
	POOL_CACHE = 256,
	/* Everything that may hold buffers at once: descriptors both ways, the held frames, what is staged. */
	POOL_PER_PORT = 2 * RING_DESCRIPTORS + 2 * BATON_TX_STAGE,
	POOL_COMMON = HELD_TOTAL + 2 * POOL_CACHE,
	AF_XDP_RINGS = 4 * 2048, /* umem fill and completion rings, larger than the descriptors asked for */
};

struct device {
	struct rte_mempool *pool;
	uint16_t port_id;
};

int baton_dpdk_init(int argc, char **argv)
{
	int n = rte_eal_init(argc, argv);

	return n < 0 ? -rte_errno : 0;
}

static struct rte_mempool *shared_pool(uint32_t ports)
{
	static struct rte_mempool *pool;

	if (!pool)
		pool = rte_pktmbuf_pool_create("baton", POOL_COMMON + ports * (POOL_PER_PORT + AF_XDP_RINGS),
					       POOL_CACHE, 0, RTE_MBUF_DEFAULT_BUF_SIZE, (int)rte_socket_id());
	return pool;
}

static uint16_t dpdk_rx_burst(struct baton_port *p, struct baton_buf *bufs, uint16_t n)
{
	const struct device *d = p->device;
	struct rte_mbuf *mbufs[BATON_BURST];
	uint16_t got = rte_eth_rx_burst(d->port_id, 0, mbufs, RTE_MIN(n, (uint16_t)BATON_BURST));

	for (uint16_t i = 0; i < got; i++)
		mbuf_view(&bufs[i], mbufs[i]);
	return got;
}

static uint16_t dpdk_tx_burst(struct baton_port *p, struct baton_buf *bufs, uint16_t n)
{
	const struct device *d = p->device;
	struct rte_mbuf *mbufs[BATON_TX_STAGE];

	for (uint16_t i = 0; i < n; i++)
		mbufs[i] = mbuf_ready(&bufs[i]);
	return rte_eth_tx_burst(d->port_id, 0, mbufs, n);
}

static int dpdk_alloc(struct baton_port *p, struct baton_buf *buf)
{
	const struct device *d = p->device;
	struct rte_mbuf *m = rte_pktmbuf_alloc(d->pool);

	if (!m)
		return -ENOMEM;
	mbuf_view(buf, m);
	return 0;
}

static void dpdk_free(struct baton_port *p, struct baton_buf *bufs, uint16_t n)
{
	(void)p;
	mbuf_free_all(bufs, n);
}

static void dpdk_close(struct baton_port *p)
{
	struct device *d = p->device;

	rte_eth_dev_stop(d->port_id);
	rte_eth_dev_close(d->port_id);
	free(d);
	p->ops = NULL;
}

static const struct baton_port_ops dpdk_ops = {
    .rx_burst = dpdk_rx_burst,
    .tx_burst = dpdk_tx_burst,
    .alloc = dpdk_alloc,
    .free = dpdk_free,
    .close = dpdk_close,
};

static int device_start(const struct device *d)
{
	const struct rte_eth_conf conf = {0};
	uint16_t rx = RING_DESCRIPTORS, tx = RING_DESCRIPTORS;
	int err, socket = rte_eth_dev_socket_id(d->port_id);

	if ((err = rte_eth_dev_configure(d->port_id, 1, 1, &conf)) ||
	    (err = rte_eth_dev_adjust_nb_rx_tx_desc(d->port_id, &rx, &tx)) ||
	    (err = rte_eth_rx_queue_setup(d->port_id, 0, rx, (unsigned int)socket, NULL, d->pool)) ||
	    (err = rte_eth_tx_queue_setup(d->port_id, 0, tx, (unsigned int)socket, NULL)) ||
	    (err = rte_eth_dev_start(d->port_id)))
		return err;
	/* Neighbour solicitations come by multicast. Not every device can choose, and those that cannot deliver all. */
	(void)rte_eth_allmulticast_enable(d->port_id);
	return 0;
}

static uint32_t frame_max(uint16_t port_id)
{
	uint32_t room = RTE_MBUF_DEFAULT_BUF_SIZE - RTE_PKTMBUF_HEADROOM;
	uint16_t mtu;

	if (rte_eth_dev_get_mtu(port_id, &mtu))
		mtu = 1500;
	return RTE_MIN((uint32_t)mtu + ETH_LEN, room);
}

int baton_port_dpdk_open(struct baton_forwarder *f, uint16_t index, const char *name)
{
	struct baton_port *p = baton_port(f, index);
	struct rte_ether_addr mac;
	struct device *d;
	int err;

	if (!p || p->ops)
		return -EINVAL;
	d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	d->pool = shared_pool(f->port_count);
	if (!d->pool)
		err = -rte_errno;
	else if (!(err = rte_eth_dev_get_port_by_name(name, &d->port_id)))
		err = device_start(d);
	if (!err)
		err = rte_eth_macaddr_get(d->port_id, &mac);
	if (err) {
		free(d);
		return err;
	}
	memcpy(p->mac, mac.addr_bytes, BATON_MAC_LEN);
	p->frame_max = frame_max(d->port_id);
	p->device = d;
	p->ops = &dpdk_ops;
	return 0;
}

static int lcore_main(void *arg)
{
	sigset_t all;

	sigfillset(&all); /* handlers of the Go runtime must not run here */
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	return baton_run(arg);
}

int baton_dpdk_launch(struct baton_forwarder *f)
{
	unsigned int lcore = rte_get_next_lcore(-1, 1, 0);

	return lcore == RTE_MAX_LCORE ? -ENODEV : rte_eal_remote_launch(lcore_main, f, lcore);
}

void baton_dpdk_halt(struct baton_forwarder *f)
{
	baton_stop(f);
	rte_eal_mp_wait_lcore();
}

int baton_dpdk_driver(struct baton_forwarder *f, uint16_t index, char *name, size_t room)
{
	const struct device *d = f->ports[index].device;
	struct rte_eth_dev_info info;
	struct rte_eth_link link = {0};
	int err = rte_eth_dev_info_get(d->port_id, &info);

	if (err)
		return err;
	snprintf(name, room, "%s", info.driver_name);
	err = rte_eth_link_get_nowait(d->port_id, &link);
	return err ? err : link.link_status == RTE_ETH_LINK_UP;
}

int baton_dpdk_stats(struct baton_forwarder *f, uint16_t index, uint64_t out[BATON_DPDK_STATS])
{
	const struct device *d = f->ports[index].device;
	struct rte_eth_stats s;
	int err = rte_eth_stats_get(d->port_id, &s);

	if (err)
		return err;
	const uint64_t all[BATON_DPDK_STATS] = {s.ipackets, s.opackets,  s.ibytes,
						s.obytes,   s.imissed,   s.ierrors,
						s.oerrors,  s.rx_nombuf, rte_mempool_avail_count(d->pool)};

	memcpy(out, all, sizeof(all));
	return 0;
}
