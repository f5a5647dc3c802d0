/* SPDX-License-Identifier: Apache-2.0
 *
 * halfopen.h: handshakes in SYN-RECEIVED, of services that speak first. A client that waits for a greeting does not
 * repeat its ACK if that got lost, so the SYN-ACK is repeated until the client answers (RFC 9293 3.8.1), with the
 * timeouts of RFC 6298: 1 s at first, doubled each time. The table is bounded; what finds no place has its cookie, which
 * is as good unless a segment is lost.
 *
 * Waiting times are the same for all handshakes in a round, so one queue per round is in order of time by itself.
 */
#ifndef BATON_HALFOPEN_H
#define BATON_HALFOPEN_H

#include "baton.h"
#include "parse.h"

enum {
	HALF_FIRST_MS = 1000,
	HALF_ROUNDS = 6, /* 5 repetitions within 31 s, as Linux; the end after 63 s, while the cookie is good */
};

/* half_open is one handshake: all that its SYN-ACK is made of. */
struct half_open {
	struct baton_tuple tuple;
	uint64_t due_ms;
	uint32_t irs, iss, ts_offset;
	uint32_t newer, older; /* in the queue of its round; free places are linked by newer */
	uint32_t next;         /* with the same hash */
	struct tcp_options offered;
	uint16_t service, port; /* indices */
	uint8_t mac[BATON_MAC_LEN];
	uint8_t round;
	bool ip6;
};

struct half_queue {
	uint32_t oldest, newest;
};

struct half_opens {
	struct half_open *places;
	uint32_t *heads; /* of chains, by hash */
	uint32_t heads_mask, free;
	uint64_t key[2];
	struct half_queue queues[HALF_ROUNDS];
};

/* half_init makes a table of count places, 0 to 1 << 20. Returns 0 or -ENOMEM. */
int half_init(struct half_opens *h, uint32_t count, uint64_t seed);
void half_free(struct half_opens *h);
/* half_find returns the tuple's handshake, or NULL. */
struct half_open *half_find(const struct half_opens *h, const struct baton_tuple *t);
/* half_begin makes a handshake in its first round, and fills in nothing but tuple and time. The tuple must have none.
 * NULL: the table is full. */
struct half_open *half_begin(struct half_opens *h, const struct baton_tuple *t, uint64_t now_ms);
/* half_end forgets a handshake. */
void half_end(struct half_opens *h, struct half_open *o);
/* half_due returns a handshake whose SYN-ACK is to be repeated now and puts it into its next round; NULL: none. Those
 * that had all their repetitions are forgotten, at most 64 in a call. */
struct half_open *half_due(struct half_opens *h, uint64_t now_ms);

#endif
