//go:build dpdk

/* SPDX-License-Identifier: Apache-2.0
 *
 * The generator's lcore, whose mempool cache makes buffers cheap.
 */
#include "gen_dpdk.h"

#include <errno.h>
#include <pthread.h>
#include <rte_ethdev.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <signal.h>

static int lcore_main(void *arg)
{
	sigset_t all;

	sigfillset(&all); /* handlers of the Go runtime must not run here */
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	return baton_gen_run(arg);
}

int baton_gen_dpdk_launch(struct baton_gen *g)
{
	unsigned int lcore = rte_get_next_lcore(-1, 1, 0);

	return lcore == RTE_MAX_LCORE ? -ENODEV : rte_eal_remote_launch(lcore_main, g, lcore);
}

void baton_gen_dpdk_join(struct baton_gen *g)
{
	baton_gen_end(g);
	rte_eal_mp_wait_lcore();
}

uint32_t baton_gen_dpdk_speed(const char *name)
{
	struct rte_eth_link link = {0};
	uint16_t port;

	if (rte_eth_dev_get_port_by_name(name, &port) || rte_eth_link_get_nowait(port, &link) || !link.link_status ||
	    link.link_speed == RTE_ETH_SPEED_NUM_UNKNOWN)
		return 0;
	return link.link_speed;
}
