/* SPDX-License-Identifier: Apache-2.0
 *
 * gen.h: the contract of the packet generator and sink. One generator = one polling thread on the ports of a forwarder
 * that is never polled itself: port 0 sends, all ports receive.
 *
 *     Go --- start (rate, count), stop --> poll loop --> frames of N flows, paced --> port 0
 *     Go <-- counters, histogram --------- poll loop <-- what comes back: matched, timed, answered <-- ports
 *
 * A flow is a number 0 .. flows - 1, and its client's address and port follow from it, so that what comes back is found
 * without a table. The frames of the sink's own kinds carry a stamp of 8 octets, | run 32 | time 32 |, in the first
 * octets of the payload, or, in TCP segments with less payload, in the sequence and acknowledgement numbers.
 *
 * Times are cycles of baton_gen_cycles unless the name says otherwise; frame sizes are as RFC 2544 counts them, with the
 * 4 octets of the frame check sequence that no buffer has.
 */
#ifndef BATON_GEN_H
#define BATON_GEN_H

#include "baton.h"

enum {
	BATON_GEN_FCS = 4,
	BATON_GEN_SIZES = 16,       /* sizes of one mix */
	BATON_GEN_FRAME_MAX = 1522, /* with FCS and a VLAN tag */
	BATON_GEN_REQUEST = 1024,   /* octets of a request */
};

enum baton_gen_kind {
	BATON_GEN_SYN,       /* TCP SYNs with the options that Linux sends */
	BATON_GEN_ACK,       /* TCP first segments whose acknowledgement is no cookie */
	BATON_GEN_DATA,      /* segments of established TCP flows, stamped */
	BATON_GEN_HANDSHAKE, /* SYN; its SYN-ACK is answered by ACK and request, the response by RST */
	BATON_GEN_UDP,       /* stamped */
	BATON_GEN_ECHO,      /* ICMP or ICMPv6 echo requests, stamped; the replies are timed */
};

/* baton_gen_config says what to send. Both addresses are of one family. */
struct baton_gen_config {
	struct baton_ip client; /* flow i has the address client + i % clients */
	struct baton_ip service;
	uint64_t flows;   /* 1 to clients * (65536 - first_port) */
	uint64_t timeout; /* HANDSHAKE: until an unanswered flow may begin again */
	uint64_t late;    /* frames that are later than this are given up */
	uint32_t clients; /* addresses; a power of two */
	uint32_t kind;
	uint32_t run; /* stamps of other runs are not ours */
	uint16_t first_port, service_port;
	uint16_t sizes[BATON_GEN_SIZES]; /* sent in turn; a smaller one than the headers need is raised to that */
	uint16_t size_count;
	uint16_t vlan; /* 1-4094; 0: no tag */
	uint8_t src_mac[BATON_MAC_LEN], dst_mac[BATON_MAC_LEN];
	uint8_t random; /* flows in random order, else in turn */
	uint8_t hold;   /* HANDSHAKE: stay after the response, do not reset */
	uint8_t nap;    /* sleep between bursts: for machines where others need the CPU */
	uint8_t pad;
	uint16_t request_len;
	uint8_t request[BATON_GEN_REQUEST];
};
static_assert(sizeof(struct baton_gen_config) == 1152, "shared with Go");

#define BATON_GEN_COUNTERS(X)                                                                                          \
	X(TX, "tx")                   /* frames that the port took, answers included */                                \
	X(TX_OCTETS, "tx_octets")     /* of these, without FCS */                                                      \
	X(PACED, "paced")             /* frames that the rate asked for, of these */                                   \
	X(SKIPPED, "skipped")         /* frames that the rate asked for and that were given up: thread or port late */ \
	X(NO_BUFFER, "no_buffer")     /* bursts put off because no buffer was free */                                  \
	X(RX, "rx")                   /* frames received */                                                            \
	X(RX_OCTETS, "rx_octets")     /* of these */                                                                   \
	X(MATCHED, "matched")         /* with a stamp of this run */                                                   \
	X(BAD, "bad")                 /* truncated, or with a wrong checksum */                                        \
	X(OTHER, "other")             /* anything else */                                                              \
	X(ARP, "arp")                 /* requests for one of our addresses, answered */                                \
	X(SYNACK, "synack")           /* SYN-ACKs that fit a flow */                                                   \
	X(RESPONSE, "response")       /* HANDSHAKE: first data of the service */                                       \
	X(ACKED, "acked")             /* HANDSHAKE: segments without data */                                           \
	X(RESET, "reset")             /* HANDSHAKE: RSTs received */                                                   \
	X(TIMEOUT, "timeout")         /* HANDSHAKE: flows begun again without a response */                            \
	X(BUSY, "busy_cycles")        /* in polls that moved frames */                                                 \
	X(LATENCY_MAX, "latency_max") /* ns, since the last start */

enum baton_gen_counter {
#define X(symbol, name) BATON_GEN_##symbol,
	BATON_GEN_COUNTERS(X)
#undef X
	    BATON_GEN_COUNTER_COUNT
};

/* The histogram of latencies: place i < 64 counts i ns; beyond, each octave has 32 places. */
enum { BATON_GEN_PLACES = 64 + 32 * 32 };

struct baton_gen;

uint64_t baton_gen_cycles(void);
/* baton_gen_hz measures how many cycles a second has, within 20 ppm. It takes 50 ms. */
double baton_gen_hz(void);

/* baton_gen_open makes a generator on f's ports, which are open and stay the caller's. config is copied. NULL: *err. */
struct baton_gen *baton_gen_open(struct baton_forwarder *f, const struct baton_gen_config *c, double hz, int *err);
void baton_gen_close(struct baton_gen *g);

/* baton_gen_frame writes the frame of a flow that the pace would send next, of size `turn`, without sending it, and
 * returns its length. For tests. */
uint32_t baton_gen_frame(struct baton_gen *g, uint64_t flow, uint16_t turn, uint64_t now, uint8_t *data);

/* Any thread, one at a time: begin to send `count` frames (0: without end) at a rate; pps 0: as fast as it goes. Then
 * stop; what is under way is still received. */
void baton_gen_start(struct baton_gen *g, double pps, uint64_t count);
void baton_gen_stop(struct baton_gen *g);
/* baton_gen_sending says whether the current count has not been sent. */
bool baton_gen_sending(struct baton_gen *g);

/* baton_gen_poll does one burst each way and returns how many frames it moved. Polling thread. */
int baton_gen_poll(struct baton_gen *g, uint64_t now);
/* baton_gen_run polls until baton_gen_end. Call it with signals blocked. */
int baton_gen_run(struct baton_gen *g);
void baton_gen_end(struct baton_gen *g);
/* baton_gen_launch runs it on a thread of its own; baton_gen_join waits for its end. */
int baton_gen_launch(struct baton_gen *g);
void baton_gen_join(struct baton_gen *g);

/* baton_gen_resolve asks for the MAC address of an IPv4 address every 100 ms while the loop runs (own: in the request);
 * baton_gen_resolved copies the answer, false: none yet. Frames made later go there. */
void baton_gen_resolve(struct baton_gen *g, uint32_t own, uint32_t target);
bool baton_gen_resolved(struct baton_gen *g, uint8_t mac[BATON_MAC_LEN]);

/* Readable by any thread. */
uint64_t baton_gen_read(struct baton_gen *g, unsigned int counter);
const char *baton_gen_name(unsigned int counter); /* NULL beyond the last */
uint64_t baton_gen_place(struct baton_gen *g, unsigned int place);
/* baton_gen_place_ns is the largest latency that a place counts. */
uint64_t baton_gen_place_ns(unsigned int place);

#endif
