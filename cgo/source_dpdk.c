//go:build dpdk

/* SPDX-License-Identifier: Apache-2.0
 *
 * The measuring rig with DPDK: a source of mbufs, an ethdev as the sink, and a worker lcore to measure on.
 */
#include "source_dpdk.h"
#include "forwarder.h"
#include "mbuf.h"

#include <errno.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_hash.h>
#include <rte_hash_crc.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <stdlib.h>
#include <unistd.h>

enum { POOL_BUFFERS = 8191, POOL_CACHE = 256, DESCRIPTORS = 512, QUEUES = 2 };

struct mbuf_source {
	struct baton_source source;
	struct rte_mempool *pool;
	uint16_t sink, queue;
};

static uint16_t mbuf_rx_burst(struct baton_port *p, struct baton_buf *bufs, uint16_t n)
{
	struct mbuf_source *d = p->device;
	struct rte_mbuf *mbufs[BATON_BURST];

	n = RTE_MIN(n, (uint16_t)BATON_BURST);
	if (d->source.paused || rte_pktmbuf_alloc_bulk(d->pool, mbufs, n))
		return 0;
	for (uint16_t i = 0; i < n; i++) {
		uint32_t len = baton_source_frame(&d->source, rte_pktmbuf_mtod(mbufs[i], uint8_t *));

		mbufs[i]->data_len = (uint16_t)len;
		mbufs[i]->pkt_len = len;
		mbuf_view(&bufs[i], mbufs[i]);
	}
	return n;
}

static uint16_t mbuf_tx_burst(struct baton_port *p, struct baton_buf *bufs, uint16_t n)
{
	const struct mbuf_source *d = p->device;
	struct rte_mbuf *mbufs[BATON_TX_STAGE];

	for (uint16_t i = 0; i < n; i++)
		mbufs[i] = mbuf_ready(&bufs[i]);
	return rte_eth_tx_burst(d->sink, d->queue, mbufs, n);
}

static int mbuf_alloc(struct baton_port *p, struct baton_buf *buf)
{
	const struct mbuf_source *d = p->device;
	struct rte_mbuf *m = rte_pktmbuf_alloc(d->pool);

	if (!m)
		return -ENOMEM;
	mbuf_view(buf, m);
	return 0;
}

static void mbuf_free(struct baton_port *p, struct baton_buf *bufs, uint16_t n)
{
	(void)p;
	mbuf_free_all(bufs, n);
}

static void mbuf_close(struct baton_port *p)
{
	free(p->device);
	p->ops = NULL;
}

static const struct baton_port_ops mbuf_ops = {
    .rx_burst = mbuf_rx_burst,
    .tx_burst = mbuf_tx_burst,
    .alloc = mbuf_alloc,
    .free = mbuf_free,
    .close = mbuf_close,
};

static int sink_start(uint16_t id, struct rte_mempool *pool)
{
	const struct rte_eth_conf conf = {0};
	unsigned int socket = rte_socket_id();
	int err;

	if ((err = rte_eth_dev_configure(id, QUEUES, QUEUES, &conf)))
		return err;
	for (uint16_t q = 0; q < QUEUES; q++)
		if ((err = rte_eth_rx_queue_setup(id, q, DESCRIPTORS, socket, NULL, pool)) ||
		    (err = rte_eth_tx_queue_setup(id, q, DESCRIPTORS, socket, NULL)))
			return err;
	return rte_eth_dev_start(id);
}

int baton_source_dpdk_open(struct baton_forwarder *f, const char *sink)
{
	static struct rte_mempool *pool; /* these two stay for the next source */
	static bool started;
	struct mbuf_source *d = calloc(1, sizeof(*d));
	int err;

	if (!d)
		return -ENOMEM;
	if (!pool)
		pool = rte_pktmbuf_pool_create("source", POOL_BUFFERS, POOL_CACHE, 0, RTE_MBUF_DEFAULT_BUF_SIZE,
					       (int)rte_socket_id());
	d->pool = pool;
	d->queue = (uint16_t)(f->shard % QUEUES);
	err = pool ? rte_eth_dev_get_port_by_name(sink, &d->sink) : -rte_errno;
	if (!err && !started)
		err = sink_start(d->sink, pool);
	if (err) {
		free(d);
		return err;
	}
	started = true;
	baton_source_attach(f, &d->source, &mbuf_ops);
	return 0;
}

/* ---- the lcore */

struct job {
	struct baton_forwarder *f;
	enum baton_measure what;
	uint64_t packets, done, took;
};

static int job_main(void *arg)
{
	struct job *j = arg;

	j->took = baton_measure(j->f, j->what, j->packets, &j->done);
	return 0;
}

/* wait_lcore does not spin as rte_eal_wait_lcore does. */
static void wait_lcore(unsigned int lcore)
{
	while (rte_eal_get_lcore_state(lcore) == RUNNING)
		usleep(1000);
	rte_eal_wait_lcore(lcore);
}

uint64_t baton_measure_lcores(struct baton_forwarder *const *f, uint32_t n, enum baton_measure what, uint64_t packets,
			      uint64_t *done)
{
	struct job jobs[QUEUES];
	unsigned int lcores[QUEUES], lcore = rte_get_next_lcore(-1, 1, 0);
	uint32_t launched = 0;
	uint64_t took = 0;

	for (; launched < n && launched < QUEUES && lcore != RTE_MAX_LCORE; lcore = rte_get_next_lcore(lcore, 1, 0)) {
		jobs[launched] = (struct job){.f = f[launched], .what = what, .packets = packets};
		if (rte_eal_remote_launch(job_main, &jobs[launched], lcore))
			break;
		lcores[launched++] = lcore;
	}
	*done = 0;
	for (uint32_t i = 0; i < launched; i++) {
		wait_lcore(lcores[i]);
		took += jobs[i].took;
		*done += jobs[i].done;
	}
	if (launched < n)
		*done = 0;
	return took;
}

/* ---- rte_hash with lock-free lookups, bulk */

static struct rte_hash *hash;
static baton_word found_values[BATON_BURST]; /* stand for the entries, which rte_hash keeps by value */

static void hash_find(const struct baton_crt *t, struct baton_lookup *const *l, uint32_t n)
{
	const void *keys[BATON_BURST];
	void *data[BATON_BURST];
	uint64_t hits = 0;

	(void)t;
	if (n == 0)
		return;
	for (uint32_t i = 0; i < n; i++)
		keys[i] = &l[i]->key.w[0];
	rte_hash_lookup_bulk_data(hash, keys, n, &hits, data);
	for (uint32_t i = 0; i < n; i++) {
		atomic_store_explicit(&found_values[i], (uintptr_t)data[i], memory_order_relaxed);
		l[i]->entry = hits >> i & 1 ? &found_values[i] : NULL;
	}
}

static int hash_insert(const struct baton_key *k, uint64_t value)
{
	return rte_hash_add_key_data(hash, &k->w[0], (void *)(uintptr_t)value);
}

static void hash_remove(const struct baton_key *k)
{
	int32_t position = rte_hash_del_key(hash, &k->w[0]);

	if (position >= 0)
		rte_hash_free_key_with_position(hash, position);
}

static bool hash_next(uint32_t *at, struct baton_entry *e)
{
	const void *key;
	void *data;

	if (rte_hash_iterate(hash, &key, &data, at) < 0)
		return false;
	*e = (struct baton_entry){.value = (uintptr_t)data};
	memcpy(&e->key, key, baton_rival_get()->key_words * sizeof(uint64_t));
	return true;
}

int baton_rival_open(uint64_t entries, uint32_t key_words)
{
	static struct baton_rival hash_rival = {0, hash_find, hash_insert, hash_remove, hash_next};
	const struct rte_hash_parameters p = {
	    .name = "rival",
	    .entries = (uint32_t)entries,
	    .key_len = key_words * sizeof(uint64_t),
	    .hash_func = rte_hash_crc,
	    .socket_id = (int)rte_socket_id(),
	    .extra_flag = RTE_HASH_EXTRA_FLAGS_RW_CONCURRENCY_LF,
	};

	baton_rival_set(NULL);
	rte_hash_free(hash);
	hash = NULL;
	if (entries == 0)
		return 0;
	hash = rte_hash_create(&p);
	if (!hash)
		return -rte_errno;
	hash_rival.key_words = key_words;
	baton_rival_set(&hash_rival);
	return 0;
}
