/* SPDX-License-Identifier: Apache-2.0
 *
 * source_dpdk.h: the measuring rig with DPDK. Compiled only with the build tag dpdk; main lcore only.
 */
#ifndef BATON_SOURCE_DPDK_H
#define BATON_SOURCE_DPDK_H

#include "source.h"

/* baton_measure_lcores is baton_measure of n forwarders, 1 or 2, on as many worker lcores at the same time, whose mempool
 * caches make buffers cheap. CPU times and frames are added up; *done is 0 when there are not as many workers. */
uint64_t baton_measure_lcores(struct baton_forwarder *const *f, uint32_t n, enum baton_measure what, uint64_t packets,
			      uint64_t *done);

/* baton_rival_open makes an rte_hash for so many entries the rival, with lock-free lookups, in the place of an older
 * one. 0: no rival any more. key_words: 1 or 3. */
int baton_rival_open(uint64_t entries, uint32_t key_words);

#endif
