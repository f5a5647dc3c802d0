/* SPDX-License-Identifier: Apache-2.0
 *
 * gen_dpdk.h: the generator on an EAL lcore. Compiled only with the build tag dpdk; main lcore only.
 */
#ifndef BATON_GEN_DPDK_H
#define BATON_GEN_DPDK_H

#include "gen.h"

/* baton_gen_dpdk_launch runs baton_gen_run on the worker lcore; -ENODEV: there is none. */
int baton_gen_dpdk_launch(struct baton_gen *g);
/* baton_gen_dpdk_join ends it and waits for its end. */
void baton_gen_dpdk_join(struct baton_gen *g);
/* baton_gen_dpdk_speed is the link speed of the ethdev of that name in Mbit/s; 0: unknown or down. */
uint32_t baton_gen_dpdk_speed(const char *name);

#endif
