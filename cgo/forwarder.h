/* SPDX-License-Identifier: Apache-2.0
 *
 * forwarder.h: the state behind struct baton_forwarder, shared by poll.c, flow.c, command.c, answer.c, icmp.c, emit.c,
 * shard.c and loop.c. Everything is written by the poll thread only, except where it says otherwise.
 */
#ifndef BATON_FORWARDER_H
#define BATON_FORWARDER_H

#include "baton.h"
#include "fragment.h"
#include "halfopen.h"
#include "limit.h"
#include "parse.h"

#include <pthread.h>

#define NO_SLOT UINT32_MAX

/* token_bucket allows so many things in each second of the wall clock. */
struct token_bucket {
	uint64_t second;
	uint32_t left;
};

enum {
	ORPHANS_PER_SECOND = 256,
	ORPHANS_PER_SOURCE = 8, /* a second; sources share 1024 places by hash */
	TOO_BIGS_PER_SECOND = 1000,
	TOO_BIGS_PER_SOURCE = 16, /* a second; as above */
	ENDS_PER_SECOND = 20000,
	NEIGHBOURS_PER_SECOND = 1000,
	ERRORS_PER_SECOND = 1000, /* ICMP errors for the router */
	EXCEPTIONS_PER_SECOND = 10000,
	IDLES_PER_SECOND = 10000, /* idle flows beyond are forgotten unasked, if it goes on */
	SOURCE_PLACES = 1024,
	HELD_TOTAL = 4096, /* frames held by all frozen flows: part of the ports' buffers */
	LINGER_PLACES = 1 << 16,
	COMMAND_RING = 1 << 20, /* octets */
	PUNT_RING = 1 << 22,
};

enum flow_state {
	FLOW_FREE,
	FLOW_OPEN,
	FLOW_HOLD,
	FLOW_DISCARD,
};

/* flow is a connection in the router's hands. */
struct flow {
	struct baton_tuple tuple;
	struct baton_key key;
	uint64_t touched_ms;
	uint32_t irs, iss;
	uint32_t ts_offset;
	uint32_t generation;   /* in flow IDs; never 0 */
	uint32_t older, newer; /* list by touched_ms; free slots are linked by newer */
	uint32_t held_first, held_last, held_count;
	struct baton_handshake handshake;
	uint16_t service; /* index */
	uint16_t port;    /* where the client's last segment came in */
	uint8_t state;    /* enum flow_state */
	bool known;       /* First was punted: the control plane has the ID */
	bool ip6;
	bool counted; /* as one of its client's, in limit */
};

struct held {
	struct baton_buf buf;
	uint32_t next;
	uint8_t flags; /* TCP_* */
};

/* lingering is an ended entry that waits for its removal. All wait equally long, so the queue is in order. */
struct lingering {
	struct baton_key key;
	uint64_t due_ms;
	uint32_t inc;
	bool ip6;
};

/* owner is the next hop to a target: four of them are a cache line. */
struct owner {
	struct {
		uint8_t dst[BATON_MAC_LEN], src[BATON_MAC_LEN];
	} macs; /* as a frame begins */
	union {
		struct {
			uint16_t port;
			uint8_t tunnel; /* enum baton_tunnel_kind */
			bool known;
		};
		uint32_t way; /* the three of them */
	};
};
static_assert(sizeof(struct owner) == 16, "four in a cache line");

enum { TUNNEL_HEADER = 72 };

/* tunnel is how packets reach an owner that is not on the data network. */
struct tunnel {
	uint8_t header[TUNNEL_HEADER]; /* from the Ethernet header on, at the array's end; see emit.c */
	uint64_t sum;                  /* IPv4: of the header, IPv6: of the pseudo header; less what differs */
	struct baton_ip far;           /* the outer destination */
	uint64_t narrow_until_ms;      /* mtu is a report */
	uint16_t overhead;             /* octets in front of a packet, without the Ethernet header */
	uint16_t mtu, mtu_max;         /* largest outer packet now, and as configured */
	bool ip6, gue;
};
static_assert(sizeof(struct tunnel) <= 2 * BATON_CACHE_LINE, "");

/* local is an address that the forwarder answers for. */
struct local {
	struct baton_ip addr;
	uint16_t port; /* ANY_PORT: a service's address; else the own address of that port */
};

enum { ANY_PORT = 0xffff };

/* secrets are on their way to the poll thread: version says how often they were set, and its lowest bit which list is
 * the newest. */
struct secrets {
	_Atomic uint32_t version; /* released by who sets, acquired by the poll thread */
	uint32_t taken;           /* poll thread */
	uint32_t count[2];
	struct baton_secret list[2][BATON_SECRETS];
};

/* baton_targets is a set of targets: immutable but for holders, made and freed by the thread that publishes, read by poll
 * threads. */
struct baton_targets {
	_Atomic uint32_t holders;   /* poll threads that use it or will; released by them, acquired by the publisher */
	struct baton_targets *next; /* published before this one, and not freed yet */
	uint32_t count, table_size;
	bool recovers;
	const uint16_t *table;               /* table_size owners, behind the candidates */
	struct baton_candidate candidates[]; /* count */
};

/* picker is the state of one conventional service. */
struct picker {
	struct baton_targets *set;                      /* NULL: none yet */
	uint16_t last;                                  /* owner that was picked last */
	int32_t credit[BATON_MAX_OWNERS];               /* WEIGHTED: of each candidate of the set */
	_Atomic uint32_t connections[BATON_MAX_OWNERS]; /* by owner; read by any thread */
};

enum { SERVICE_IDS = 1 << 16 };

struct service_place {
	struct baton_ip addr;
	uint16_t port;
	uint16_t index; /* + 1; 0: free */
	uint16_t id;
};

/* plain_place is the same for IPv4. */
struct plain_place {
	_Alignas(32) uint64_t where; /* raw_where; PLAIN_FREE: free */
	uint64_t look;               /* packet_look */
	uint16_t id;
};

#define PLAIN_FREE UINT64_MAX /* no address and port: it has ones where raw_where has none */

/* An entry's age is renewed when it is so many seconds old, give or take as many: a store for each packet would make
 * memory the limit. */
enum { AGE_GRAIN_BITS = 2 };

#define AGED_MASK (~0ull << (BATON_VALUE_AGE_SHIFT + AGE_GRAIN_BITS))

/* An entry that agrees with forwarder.calm in all of this is owned by a target and has no answered SYN. */
#define CALM_MASK (2ull << BATON_VALUE_STATE_SHIFT | BATON_VALUE_SYN)

/* lookups are the keys of a burst, by family. */
struct lookups {
	uint32_t fours, sixes;
	struct baton_lookup *four[BATON_BURST], *six[BATON_BURST];
};

/* classifier reads the n frames in f->frames, which came in by that port: into burst and lookups. */
typedef void classifier(struct baton_forwarder *f, const struct baton_port *port, uint16_t n);

struct baton_forwarder {
	classifier *classify;
	/* Read for each frame. */
	bool mixed; /* the burst under way may have frames of other shards */
	struct baton_crt crt4, crt6;
	const struct baton_finder *finder4, *finder6;
	uint64_t calm;
	struct plain_place *services_plain;
	struct service_place *services_by_addr;
	uint32_t services_mask; /* of both */
	uint32_t usual_way;     /* of an owner on the data network: the first frame of the burst before went it */
	struct baton_service *services;
	uint32_t service_count, port_count;
	uint64_t now_ms;
	struct baton_buf frames[BATON_BURST];    /* the burst under way, as it came in */
	uint32_t octets;                         /* of these frames together */
	uint32_t busy_polls;                     /* since the last one that found nothing to do */
	struct packet burst[BATON_BURST];        /* and what was read of it */
	struct baton_lookup *every[BATON_BURST]; /* of each packet of burst */
	struct lookups lookups;
	struct baton_buf freed[BATON_BURST];
	uint16_t freed_count;
	baton_word counters[BATON_COUNTER_COUNT]; /* read by any thread */

	struct baton_port ports[BATON_MAX_PORTS];
	_Alignas(BATON_CACHE_LINE) struct owner owners[BATON_MAX_OWNERS];
	struct tunnel tunnels[BATON_MAX_OWNERS]; /* of owners that have one */
	struct local *locals;
	uint32_t local_count;

	struct picker **pickers;         /* by service ID, SERVICE_IDS of them; NULL: the service is not conventional */
	struct baton_targets *published; /* newest first; of the thread that publishes */

	struct baton_cookies cookies;
	struct secrets secrets;
	struct half_opens half;
	struct fragments fragments;
	struct limit limit;
	struct token_bucket orphans, ends, neighbours, too_bigs, narrows, errors, exceptions, idles;
	struct token_bucket orphan_sources[SOURCE_PLACES], too_big_sources[SOURCE_PLACES];

	struct flow *flows;
	uint32_t flow_count, flow_free, flow_oldest, flow_newest;
	_Atomic uint32_t flows_used; /* read by any thread */
	struct held *held;
	uint32_t held_free, held_packets;
	struct lingering *lingering;
	uint64_t linger_head, linger_tail;
	uint32_t router_idle_ms, linger_ms;
	struct baton_ages ages;
	uint32_t evict_idle_s;
	uint64_t timers_ms; /* when timers last ran */

	struct baton_shards *shards; /* NULL: it is alone */
	uint32_t shard;              /* its index there */
	uint32_t passed_to;          /* shards that got frames since they were last woken */

	struct baton_ring commands, punts;
	uint64_t command_stalled_ms;         /* since when the current command waits for a port; 0: it does not */
	const struct baton_command *command; /* taken, not done; NULL: none */
	uint32_t flushed;                    /* by the SWITCH under way */
	bool flushed_end;                    /* a FIN or RST was among them */
	bool punted;                         /* since the last bell */
	int punt_fd;                         /* eventfd */

	/* loop.c */
	uint32_t idle_spin_us, idle_sleep_us;
	bool interrupts;    /* ports are to have them */
	int epoll, wake_fd; /* wait.c; -1: the idle loop naps */
	_Atomic bool stop;
	baton_word clock_ms;   /* test clock; written by the test's thread */
	baton_word now_shared; /* now_ms for others */
	struct baton_pace pace;
	pthread_t thread;
	bool thread_started;
};

/* baton_shards is what the forwarders have in common. Nothing of it changes after the ports were opened, but the rings. */
struct baton_shards {
	struct baton_forwarder *shard[BATON_MAX_SHARDS];
	uint32_t count;
	uint8_t key[BATON_STEER_KEY];
	uint32_t toeplitz[36][256]; /* hash of each octet at each place of a tuple */
	struct baton_ring *passing; /* [from * count + to] */
};

static inline void count_n(struct baton_forwarder *f, enum baton_counter c, uint64_t n)
{
	/* Single writer: a load and a store, not an atomic add. */
	uint64_t v = atomic_load_explicit(&f->counters[c], memory_order_relaxed);

	atomic_store_explicit(&f->counters[c], v + n, memory_order_relaxed);
}

static inline void count(struct baton_forwarder *f, enum baton_counter c)
{
	count_n(f, c, 1);
}

/* source_place is where a client address has its bucket. */
static inline uint32_t source_place(struct baton_ip ip)
{
	static_assert(SOURCE_PLACES == 1 << 10, "the shift below");
	return (uint32_t)((ip.hi ^ ip.lo) * 0x9e3779b97f4a7c15ull >> 54);
}

static inline bool token_take(struct token_bucket *b, uint64_t now_ms, uint32_t rate)
{
	if (b->second != now_ms / 1000) {
		b->second = now_ms / 1000;
		b->left = rate;
	}
	if (b->left == 0)
		return false;
	b->left--;
	return true;
}

static inline struct baton_crt *crt_of(struct baton_forwarder *f, bool ip6)
{
	return ip6 ? &f->crt6 : &f->crt4;
}

/* An entry's value is written by the poll thread only; snapshots read it. */
static inline void value_store(baton_word *v, uint64_t value)
{
	atomic_store_explicit(v, value, memory_order_relaxed);
}

static inline uint64_t value_load(const baton_word *v)
{
	return atomic_load_explicit(v, memory_order_relaxed);
}

/* ---- flow.c: router-owned flows, their hold queues, idle expiry, lingering entries */

int flows_init(struct baton_forwarder *f, const struct baton_config *c);
void flows_free(struct baton_forwarder *f);
/* flow_alloc returns a slot in FLOW_OPEN, or NULL when all are used. */
struct flow *flow_alloc(struct baton_forwarder *f);
/* flow_release frees the slot and what it holds; the CRT entry is the caller's business. */
void flow_release(struct baton_forwarder *f, struct flow *w);
void flow_touch(struct baton_forwarder *f, struct flow *w);
/* flow_by_id returns NULL for an ID that is dead. */
struct flow *flow_by_id(struct baton_forwarder *f, uint64_t id);
uint64_t flow_id(const struct baton_forwarder *f, const struct flow *w);
/* flow_entry is the flow's CRT value, which exists as long as the flow does. */
baton_word *flow_entry(struct baton_forwarder *f, const struct flow *w);
/* flow_hold queues a frame. False: full, the frame is still the caller's. */
bool flow_hold(struct baton_forwarder *f, struct flow *w, const struct baton_buf *buf, uint8_t flags);
/* flow_held_first looks at the oldest held frame (NULL: none), flow_held_pop takes it out. */
struct held *flow_held_first(struct baton_forwarder *f, const struct flow *w);
void flow_held_pop(struct baton_forwarder *f, struct flow *w);
void linger_add(struct baton_forwarder *f, const struct baton_key *k, bool ip6, uint32_t inc);
/* entry_add makes an entry and returns its value's place, or NULL. In a full table the flow of a target that was idle
 * longest, of those in the way, makes room if that was long enough. */
baton_word *entry_add(struct baton_forwarder *f, struct baton_crt *t, const struct baton_key *k, uint64_t hash,
		      uint64_t value);
/* timers_run does what is due, a bounded amount of it. */
void timers_run(struct baton_forwarder *f);

/* ---- punt.c: records for the control plane. All return false when the ring is full. */

bool punt_room(struct baton_forwarder *f, uint32_t frame_len, unsigned int count);
/* punt_begin reserves a zeroed record with a copy of the frame (may be NULL); punt_end publishes and counts it. */
struct baton_punt *punt_begin(struct baton_forwarder *f, enum baton_punt_kind kind, const uint8_t *frame, uint32_t len);
void punt_end(struct baton_forwarder *f, const struct baton_punt *punt);
bool punt_flow(struct baton_forwarder *f, const struct flow *w, enum baton_punt_kind kind, const uint8_t *frame,
	       uint32_t len);
/* punt_bell wakes the consumer if there is something new and it sleeps. */
void punt_bell(struct baton_forwarder *f);

/* ---- answer.c: frames that the forwarder makes itself. They consume p. */

void answer_synack(struct baton_forwarder *f, struct packet *p);
/* answer_synack_again repeats the SYN-ACK of a handshake. */
void answer_synack_again(struct baton_forwarder *f, const struct half_open *o);
void answer_probe(struct baton_forwarder *f, struct packet *p, const struct flow *w);
void answer_arp(struct baton_forwarder *f, struct packet *p);
void answer_icmp(struct baton_forwarder *f, struct packet *p);
/* answer_too_big tells the sender of a TCP segment the size of the largest packet that would get on. buf is a whole frame
 * that came in by that port. False: it was not told, for good reasons or to bound how often; the frame is the caller's. */
bool answer_too_big(struct baton_forwarder *f, uint16_t port, const struct baton_buf *buf, uint16_t mtu);
/* icmp.c: icmp_is_error says whether a checked ICMP packet is one; icmp_error gives it to the owner of the flow. */
bool icmp_is_error(const struct packet *p);
void icmp_error(struct baton_forwarder *f, struct packet *p);
const struct local *local_find(const struct baton_forwarder *f, struct baton_ip addr, uint16_t port);

/* ---- pick.c: conventional services */

int pickers_init(struct baton_forwarder *f);
void pickers_free(struct baton_forwarder *f);
/* targets_replace takes a published set as the service's; the old one goes back to its publisher. */
void targets_replace(struct baton_forwarder *f, uint16_t service, struct baton_targets *set);
bool is_conventional(const struct baton_forwarder *f, const struct baton_key *k, bool ip6);
/* conventional handles a segment of a conventional service; consumes p. */
void conventional(struct baton_forwarder *f, struct packet *p);

/* ---- exception.c */

/* frame_leave ends a packet that Baton does not want: for the kernel, if the port has an exception path and the reason is
 * one for that; else it is dropped. frame_copy lets the kernel have a copy of what a neighbour says. */
void frame_leave(struct baton_forwarder *f, struct packet *p, enum baton_counter reason);
void frame_copy(struct baton_forwarder *f, const struct packet *p);

/* ---- fragment.c */

/* fragment takes a fragment of a TCP segment. It consumes p. */
void fragment(struct baton_forwarder *f, struct packet *p);
/* fragments_expire forgets packets that stayed incomplete, fragments_free all. */
void fragments_expire(struct baton_forwarder *f);
void fragments_free(struct baton_forwarder *f);

/* ---- loop.c */

/* secrets_take takes over secrets that were set. */
void secrets_take(struct baton_forwarder *f);
/* loop_wake ends the nap or wait of the loop, if it takes one. */
void loop_wake(struct baton_forwarder *f);
/* frames_release gives every frame that waits back to its port. The loop must have ended. */
void frames_release(struct baton_forwarder *f);

/* ---- wait.c: for loops with baton_watch */

/* interrupt_wait polls once more and, if that finds nothing, sleeps until a frame, a command or another shard's frame
 * comes, but not for long. It returns whether the poll found something. */
bool interrupt_wait(struct baton_forwarder *f);
/* wait_ring ends such a sleep; any thread. */
void wait_ring(struct baton_forwarder *f);
void watch_close(struct baton_forwarder *f);

/* ---- shard.c: frames on their way between shards. Only for forwarders that are not alone. */

/* shard_elsewhere passes p on if its connection, t, is of another shard: then p is CLASS_PASSED, or CLASS_DROP where that
 * shard has no room. False: it is ours. */
bool shard_elsewhere(struct baton_forwarder *f, struct packet *p, const struct baton_tuple *t);
/* shard_handed does it for a packet that was classified before, and consumes p if it returns true. */
bool shard_handed(struct baton_forwarder *f, struct packet *p, const struct baton_tuple *t);
/* shard_next passes p, which concerns all shards and comes to the first or to one of a mixed port, on until all have seen
 * it. False: they have, and p is still the caller's. */
bool shard_next(struct baton_forwarder *f, struct packet *p);
/* shard_take fills f->frames with up to n frames that shard `from` received for us by one port, stages those that it wants
 * to be sent, and returns how many of the former there are. 0: nothing is left, or a port is busy. */
uint16_t shard_take(struct baton_forwarder *f, uint32_t from, uint16_t n, uint16_t *port);
/* shard_bell wakes the shards that got something. */
void shard_bell(struct baton_forwarder *f);
/* shard_waiting says that others have passed something. */
bool shard_waiting(const struct baton_forwarder *f);
/* shard_discard frees what was passed and not taken. */
void shard_discard(struct baton_forwarder *f);
/* For ports of a device that only shard 0 can receive from: there is nothing, and shard 0 sends. */
uint16_t shard_no_rx(struct baton_port *p, struct baton_buf *bufs, uint16_t n);
uint16_t shard_tx(struct baton_port *p, struct baton_buf *bufs, uint16_t n);

/* ---- command.c */

/* commands_run carries out queued commands and returns how many. */
int commands_run(struct baton_forwarder *f);

/* ---- poll.c */

void frame_drop(struct baton_forwarder *f, uint16_t port, struct baton_buf *buf, enum baton_counter reason);
/* entry_vacate ends the router's flow that an entry stands for, so that the entry can stand for a new incarnation. An
 * entry of a target needs nothing: whoever imports the new connection there ends the old one. The caller made sure that
 * the punt ring has room. */
void entry_vacate(struct baton_forwarder *f, uint64_t value);
/* service_key is the CRT key of a tuple; false: its service is not served. */
bool service_key(const struct baton_forwarder *f, const struct baton_tuple *t, struct baton_key *k);
/* classifier_for is the fastest one for this CPU; without simd, the plain one. */
classifier *classifier_for(bool simd);
/* key_tuple is the way back. */
bool key_tuple(const struct baton_forwarder *f, const struct baton_key *k, struct baton_tuple *t);
/* services_index makes services_by_addr and the local addresses of services. */
int services_index(struct baton_forwarder *f, const struct baton_service *services, uint32_t n);
/* packet_again takes a packet as if it had just come in. target_packet forwards a packet of a target's flow. */
void packet_again(struct baton_forwarder *f, struct packet *p);
void target_packet(struct baton_forwarder *f, struct packet *p, baton_word *v);
/* flow_segment handles a segment of a flow that the router owns; consumes p. */
void flow_segment(struct baton_forwarder *f, struct packet *p, struct flow *w);
/* poll_drain is a poll that receives nothing. False: nothing is left to be done or sent. */
bool poll_drain(struct baton_forwarder *f);
/* clock_update reads the clock; now_ms never goes back. */
void clock_update(struct baton_forwarder *f);

#endif
