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
#include <rte_interrupts.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <signal.h>
#include <stdio.h>

enum {
	RING_DESCRIPTORS = 1024,
	POOL_CACHE = 256,
	/* Everything that may hold buffers at once: descriptors both ways, the held frames, what is staged and passed. */
	POOL_PER_QUEUE = 2 * RING_DESCRIPTORS + 2 * BATON_TX_STAGE,
	POOL_PER_SHARD = HELD_TOTAL + FRAGMENT_WHOLES + 2 * POOL_CACHE,
	POOL_PASSED = 2 * 1365,  /* per shard but the first, to it and back */
	AF_XDP_RINGS = 4 * 2048, /* umem fill and completion rings, larger than the descriptors asked for */
};

/* device is a shard's access to an ethdev. */
struct device {
	struct rte_mempool *pool;
	uint16_t port_id;
	uint16_t queue; /* of both directions */
};

int baton_dpdk_init(int argc, char **argv)
{
	int n = rte_eal_init(argc, argv);

	return n < 0 ? -rte_errno : 0;
}

/* socket_of is the NUMA node of an ethdev, or the main lcore's where a device has none. */
static unsigned int socket_of(uint16_t port_id)
{
	int socket = rte_eth_dev_socket_id(port_id);

	return socket < 0 || socket >= RTE_MAX_NUMA_NODES ? rte_socket_id() : (unsigned int)socket;
}

/* pool_on has the buffers of all ports of one NUMA node. */
static struct rte_mempool *pool_on(unsigned int socket, uint32_t ports, uint32_t shards)
{
	static struct rte_mempool *pools[RTE_MAX_NUMA_NODES];
	uint32_t n =
	    shards * POOL_PER_SHARD + (shards - 1) * POOL_PASSED + ports * (shards * POOL_PER_QUEUE + AF_XDP_RINGS);
	char name[RTE_MEMPOOL_NAMESIZE];

	snprintf(name, sizeof(name), "baton%u", socket);
	if (!pools[socket])
		pools[socket] = rte_pktmbuf_pool_create(name, n, POOL_CACHE, 0, RTE_MBUF_DEFAULT_BUF_SIZE, (int)socket);
	return pools[socket];
}

static uint16_t dpdk_rx_burst(struct baton_port *p, struct baton_buf *bufs, uint16_t n)
{
	const struct device *d = p->device;
	struct rte_mbuf *mbufs[BATON_BURST];
	uint16_t got = rte_eth_rx_burst(d->port_id, d->queue, mbufs, RTE_MIN(n, (uint16_t)BATON_BURST));

	for (uint16_t i = 0; i < got; i++) {
		mbuf_retag(&mbufs[i]);
		mbuf_view(&bufs[i], mbufs[i]);
	}
	return got;
}

static uint16_t dpdk_tx_burst(struct baton_port *p, struct baton_buf *bufs, uint16_t n)
{
	const struct device *d = p->device;
	struct rte_mbuf *mbufs[BATON_TX_STAGE];

	for (uint16_t i = 0; i < n; i++)
		mbufs[i] = mbuf_ready(&bufs[i]);
	return rte_eth_tx_burst(d->port_id, d->queue, mbufs, n);
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

static int dpdk_watch(struct baton_port *p, int epoll)
{
	const struct device *d = p->device;

	return rte_eth_dev_rx_intr_ctl_q(d->port_id, d->queue, epoll, RTE_INTR_EVENT_ADD, NULL);
}

static int dpdk_arm(struct baton_port *p, bool on)
{
	const struct device *d = p->device;

	return on ? rte_eth_dev_rx_intr_enable(d->port_id, d->queue)
		  : rte_eth_dev_rx_intr_disable(d->port_id, d->queue);
}

static void dpdk_wait(int epoll, int ms)
{
	struct rte_epoll_event events[BATON_MAX_PORTS];

	(void)rte_epoll_wait(epoll, events, BATON_MAX_PORTS, ms);
}

/* dpdk_close: the device is the first shard's; the others only used it. */
static void dpdk_close(struct baton_port *p)
{
	struct device *d = p->device;

	if (p->forwarder->shard == 0) {
		rte_eth_dev_stop(d->port_id);
		rte_eth_dev_close(d->port_id);
	}
	free(d);
	p->ops = NULL;
}

static const struct baton_port_ops dpdk_ops = {
    .rx_burst = dpdk_rx_burst,
    .tx_burst = dpdk_tx_burst,
    .alloc = dpdk_alloc,
    .free = dpdk_free,
    .close = dpdk_close,
    .watch = dpdk_watch,
    .arm = dpdk_arm,
    .wait = dpdk_wait,
};

/* dpdk_elsewhere_ops are of a port whose frames come and go by the first shard. */
static const struct baton_port_ops dpdk_elsewhere_ops = {
    .rx_burst = shard_no_rx,
    .tx_burst = shard_tx,
    .alloc = dpdk_alloc,
    .free = dpdk_free,
    .close = dpdk_close,
    .wait = dpdk_wait,
};

enum { RSS_KEY_MAX = 64 };
#define RSS_TYPES (RTE_ETH_RSS_NONFRAG_IPV4_TCP | RTE_ETH_RSS_NONFRAG_IPV6_TCP)

/* plan is how the shards share a device. */
struct plan {
	bool interrupts; /* of reception */
	uint16_t queues; /* the first so many shards have one */
	bool rss;        /* the device puts each frame into the queue of its shard */
	uint8_t key_len;
	uint16_t reta_size;
};

/* plan_make: a device that takes our hash gets a queue for each shard. One that was made with just some queues, such as
 * net_af_packet with qpairs, spreads frames over all of them by itself, so all are polled. Of others one is used, as a
 * peer (net_memif) may know of no more. */
static struct plan plan_make(const struct rte_eth_dev_info *info, uint32_t shards)
{
	uint16_t most = RTE_MIN(info->max_rx_queues, info->max_tx_queues);
	struct plan plan = {.queues = 1, .key_len = info->hash_key_size, .reta_size = info->reta_size};

	plan.rss = shards > 1 && most >= shards && (info->flow_type_rss_offloads & RSS_TYPES) == RSS_TYPES &&
		   info->hash_key_size >= BATON_STEER_KEY && info->hash_key_size <= RSS_KEY_MAX &&
		   info->reta_size >= BATON_STEER_BUCKETS && info->reta_size <= RTE_ETH_RSS_RETA_SIZE_512 &&
		   info->reta_size % BATON_STEER_BUCKETS == 0;
	if (plan.rss)
		plan.queues = (uint16_t)shards;
	else if (most <= shards)
		plan.queues = most;
	return plan;
}

/* reta_set makes the device take queue bucket % shards for each bucket. */
static int reta_set(uint16_t port_id, const struct plan *plan)
{
	struct rte_eth_rss_reta_entry64 reta[RTE_ETH_RSS_RETA_SIZE_512 / RTE_ETH_RETA_GROUP_SIZE];

	for (uint16_t i = 0; i < plan->reta_size; i++) {
		reta[i / RTE_ETH_RETA_GROUP_SIZE].mask = UINT64_MAX;
		reta[i / RTE_ETH_RETA_GROUP_SIZE].reta[i % RTE_ETH_RETA_GROUP_SIZE] =
		    (uint16_t)(i % BATON_STEER_BUCKETS % plan->queues);
	}
	return rte_eth_dev_rss_reta_update(port_id, reta, plan->reta_size);
}

static int queues_setup(const struct device *d, const struct plan *plan)
{
	uint16_t rx = RING_DESCRIPTORS, tx = RING_DESCRIPTORS;
	unsigned int socket = socket_of(d->port_id);
	int err = rte_eth_dev_adjust_nb_rx_tx_desc(d->port_id, &rx, &tx);

	for (uint16_t q = 0; q < plan->queues && !err; q++) {
		err = rte_eth_rx_queue_setup(d->port_id, q, rx, socket, NULL, d->pool);
		if (!err)
			err = rte_eth_tx_queue_setup(d->port_id, q, tx, socket, NULL);
	}
	return err;
}

static int device_start(const struct device *d, const struct plan *plan, const struct baton_shards *shards)
{
	uint8_t key[RSS_KEY_MAX] = {0};
	struct rte_eth_conf conf = {.intr_conf.rxq = plan->interrupts};
	int err;

	if (plan->rss) {
		memcpy(key, shards->key, BATON_STEER_KEY); /* a longer key is only looked at for longer tuples */
		conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
		conf.rx_adv_conf.rss_conf = (struct rte_eth_rss_conf){key, plan->key_len, RSS_TYPES};
	}
	if ((err = rte_eth_dev_configure(d->port_id, plan->queues, plan->queues, &conf)) ||
	    (err = queues_setup(d, plan)) || (err = rte_eth_dev_start(d->port_id)))
		return err;
	if (plan->rss && (err = reta_set(d->port_id, plan)))
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

/* shard_attach gives a forwarder its access to a device that was started. */
static int shard_attach(struct baton_forwarder *f, uint16_t index, const struct device *first, const struct plan *plan)
{
	struct baton_port *p = &f->ports[index];
	struct rte_ether_addr mac;
	struct device *d = malloc(sizeof(*d));
	int err;

	if (!d)
		return -ENOMEM;
	*d = *first;
	d->queue = (uint16_t)f->shard;
	err = rte_eth_macaddr_get(d->port_id, &mac);
	if (err) {
		free(d);
		return err;
	}
	memcpy(p->mac, mac.addr_bytes, BATON_MAC_LEN);
	p->frame_max = frame_max(d->port_id);
	p->device = d;
	p->elsewhere = f->shard >= plan->queues;
	p->mixed = f->shards && !p->elsewhere && !plan->rss;
	p->ops = p->elsewhere ? &dpdk_elsewhere_ops : &dpdk_ops;
	return 0;
}

int baton_port_dpdk_open(struct baton_forwarder *f, uint16_t index, const char *name)
{
	uint32_t shards = f->shards ? f->shards->count : 1;
	struct rte_eth_dev_info info;
	struct device d = {0};
	struct plan plan;
	int err;

	if (f->shard != 0 || !baton_port(f, index) || f->ports[index].ops)
		return -EINVAL;
	if ((err = rte_eth_dev_get_port_by_name(name, &d.port_id)) || (err = rte_eth_dev_info_get(d.port_id, &info)))
		return err;
	d.pool = pool_on(socket_of(d.port_id), f->port_count, shards);
	if (!d.pool)
		return -rte_errno;
	plan = plan_make(&info, shards);
	plan.interrupts = f->interrupts;
	err = device_start(&d, &plan, f->shards);
	if (err && plan.interrupts) { /* it has none; baton_watch will say so */
		(void)rte_eth_dev_stop(d.port_id);
		plan.interrupts = false;
		err = device_start(&d, &plan, f->shards);
	}
	if (err && plan.rss) { /* it does not take the hash after all */
		(void)rte_eth_dev_stop(d.port_id);
		plan = (struct plan){.queues = 1, .interrupts = plan.interrupts};
		err = device_start(&d, &plan, f->shards);
	}
	for (uint32_t i = 0; i < shards && !err; i++)
		err = shard_attach(f->shards ? f->shards->shard[i] : f, index, &d, &plan);
	return err;
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
	unsigned int lcore = -1;

	for (uint32_t i = 0; i <= f->shard && lcore != RTE_MAX_LCORE; i++)
		lcore = rte_get_next_lcore(lcore, 1, 0);
	return lcore == RTE_MAX_LCORE ? -ENODEV : rte_eal_remote_launch(lcore_main, f, lcore);
}

void baton_dpdk_halt(struct baton_forwarder *f)
{
	unsigned int lcore = -1;

	baton_stop(f);
	for (uint32_t i = 0; i <= f->shard; i++)
		lcore = rte_get_next_lcore(lcore, 1, 0);
	rte_eal_wait_lcore(lcore);
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
