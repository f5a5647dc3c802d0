/* SPDX-License-Identifier: Apache-2.0
 *
 * source.h: the contract of the measuring rig. A source is a port that makes the frames which it receives, and throws
 * away what it is to send, so that one thread measures the whole path from reception to transmission:
 *
 *    own time of a path = CPU time of (source + path + sink) - CPU time of (source + sink)
 *
 * With DPDK the buffers are mbufs of a mempool and the sink is an ethdev (net_null); without it, memory of its own.
 * Nothing here is used by a forwarder at work.
 */
#ifndef BATON_SOURCE_H
#define BATON_SOURCE_H

#include "baton.h"

/* What the frames are. Client addresses and ports are made from numbers; see source_client in source.c. */
enum baton_source_kind {
	BATON_SOURCE_HIT,      /* segments of flows 0 .. flows - 1, uniformly at random */
	BATON_SOURCE_INSERT,   /* first data of a new connection each time, with a valid cookie */
	BATON_SOURCE_SYN,      /* SYNs of random clients, with the options that Linux sends */
	BATON_SOURCE_FORGED,   /* ACKs of random clients whose number is no cookie */
	BATON_SOURCE_NOT_OURS, /* for an address that is not served */
};

/* baton_source is the first member of the port's device. */
struct baton_source {
	struct baton_forwarder *forwarder;
	uint32_t kind;
	uint32_t service; /* index; its address tells the family */
	bool ip6;
	bool paused; /* nothing is received */
	uint64_t flows;
	uint64_t random;   /* state of the generator; not 0 */
	uint64_t inserted; /* INSERT: connections made so far */
	uint8_t frame[128];
	uint32_t len;
	uint32_t src_at, l4;      /* offsets of the last 4 octets of the client's address, and of the TCP header */
	uint64_t ip_sum, tcp_sum; /* of the frame without what differs between clients */
};

/* baton_source_memory_open makes port 0 a source without DPDK. */
int baton_source_memory_open(struct baton_forwarder *f);
/* baton_source_dpdk_open makes port 0 a source of mbufs. sink: the ethdev to send to, each shard to a queue of its own; it
 * stays open for the next one. */
int baton_source_dpdk_open(struct baton_forwarder *f, const char *sink);

/* baton_source_set says what comes next from port 0. */
void baton_source_set(struct baton_forwarder *f, enum baton_source_kind kind, uint32_t service, uint64_t flows);

/* baton_source_fill puts flows from .. to - 1 of a HIT into the CRT, and into the rival if there is one, owned by a
 * target. -ENOSPC: full. */
int baton_source_fill(struct baton_forwarder *f, uint32_t service, uint64_t from, uint64_t to, uint16_t owner);

enum baton_measure {
	BATON_MEASURE_IO,    /* source and sink only */
	BATON_MEASURE_STUB,  /* baton_poll, but each lookup finds the same entry at once */
	BATON_MEASURE_POLL,  /* baton_poll */
	BATON_MEASURE_RIVAL, /* baton_poll with another table for the rival's family: baton_rival_open */
};

/* baton_measure runs until at least `packets` frames have come and returns the calling thread's CPU time, in ns; *done
 * is how many there were. What the control plane would do (take punts, end flows) is done in between, unmeasured. */
uint64_t baton_measure(struct baton_forwarder *f, enum baton_measure what, uint64_t packets, uint64_t *done);

/* baton_measure_insert adds flows from .. to - 1 of a HIT to the CRT, or to the rival, and takes them out again. It
 * returns the CPU time of adding them, in ns; 0: full. As in the pipeline, a burst is looked up first, and its lookup
 * counts. to - from: a multiple of BATON_BURST. */
uint64_t baton_measure_insert(struct baton_forwarder *f, uint32_t service, uint64_t from, uint64_t to, bool rival);

/* baton_measure_lines reads n random cache lines of the CRT for the source's family, fetching a burst of them ahead, and returns the CPU
 * time in ns: what memory alone costs where each packet needs one line. */
uint64_t baton_measure_lines(struct baton_forwarder *f, uint64_t n);

/* baton_rival is another table for the same keys. */
struct baton_rival {
	uint32_t key_words; /* 1: IPv4, 3: IPv6 */
	void (*find)(const struct baton_crt *t, struct baton_lookup *const *l, uint32_t n);
	/* insert adds k, or gives it another value. */
	int (*insert)(const struct baton_key *k, uint64_t value);
	void (*remove)(const struct baton_key *k);
	/* next returns the entries one by one: *at is 0 at first. False: that was the last. */
	bool (*next)(uint32_t *at, struct baton_entry *e);
};

/* ---- for the two kinds of source */

/* baton_rival_set makes r, which stays, the rival; NULL: none. */
void baton_rival_set(const struct baton_rival *r);
const struct baton_rival *baton_rival_get(void);

/* baton_source_attach makes port 0 a source with this device. */
void baton_source_attach(struct baton_forwarder *f, struct baton_source *device, const struct baton_port_ops *ops);
/* baton_source_frame writes the next frame to `data` and returns its length. */
uint32_t baton_source_frame(struct baton_source *s, uint8_t *data);

#endif
