/* SPDX-License-Identifier: Apache-2.0
 *
 * port_dpdk.h: the contract of port_dpdk.c. Compiled only with the build tag dpdk.
 */
#ifndef BATON_PORT_DPDK_H
#define BATON_PORT_DPDK_H

#include "baton.h"

enum { BATON_DPDK_STATS = 9 };

/* baton_dpdk_init is rte_eal_init: once per process, on a thread that stays (it becomes the main lcore). argv must live
 * as long as the process. */
int baton_dpdk_init(int argc, char **argv);
/* baton_port_dpdk_open makes the ethdev of that name port `index` and starts it. f is alone, or the first shard: then the
 * port is opened for all. */
int baton_port_dpdk_open(struct baton_forwarder *f, uint16_t index, const char *name);
/* baton_dpdk_launch runs baton_run on the worker lcore of f's shard; baton_dpdk_halt stops it and waits. Main lcore
 * only. */
int baton_dpdk_launch(struct baton_forwarder *f);
void baton_dpdk_halt(struct baton_forwarder *f);
/* baton_dpdk_driver copies the driver's name and returns 1 when the link is up, 0 when it is down. */
int baton_dpdk_driver(struct baton_forwarder *f, uint16_t index, char *name, size_t room);
/* baton_dpdk_stats reads rte_eth_stats: ipackets, opackets, ibytes, obytes, imissed, ierrors, oerrors, rx_nombuf; and
 * how many buffers of the ports' common pool are free. */
int baton_dpdk_stats(struct baton_forwarder *f, uint16_t index, uint64_t out[BATON_DPDK_STATS]);

#endif
