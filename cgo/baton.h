/* SPDX-License-Identifier: Apache-2.0
 *
 * baton.h: the contract of Baton's data path.
 *
 * One forwarder = one polling thread. Everything that it decides with is written by that thread only; the other side
 * (Go) talks to it through two single-producer single-consumer rings and reads counters and the connection routing
 * tables while they change. Several forwarders may share ports as shards: each has the connections whose tuples hash to
 * it, and hands what else it receives to the others.
 *
 *          command ring (commands, frames to send)          punt ring (frames, markers)
 *    Go ----------------------------------------> poll loop ----------------------------> Go
 *                                                  |    ^
 *                                       tx_burst() v    | rx_burst()
 *                                                   ports
 *
 * Conventions: functions return 0 or -errno unless they say otherwise; values in network order end in _be, all others
 * are in host order; times are milliseconds of wall clock ("ms") unless the name says otherwise.
 */
#ifndef BATON_H
#define BATON_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	BATON_CACHE_LINE = 64,
	BATON_BURST = 32,     /* frames that one rx_burst() may return */
	BATON_TX_STAGE = 128, /* frames that wait for one tx_burst() */
	BATON_MAX_PORTS = 16,
	BATON_MAX_SHARDS = 16,
	BATON_MAX_OWNERS = 4096,   /* flow.MaxOwners */
	BATON_MAX_FLOWS = 1 << 20, /* router-owned flows: an index of 20 bits in a CRT value */
	BATON_MAC_LEN = 6,
};

/* ---------------------------------------------------------------------------------------------- addresses, tuples */

/* baton_ip is an address of either family; IPv4 is held as IPv4-mapped IPv6 (::ffff:a.b.c.d), so the two never clash. */
struct baton_ip {
	uint64_t hi, lo;
};

#define BATON_IP4_PREFIX 0x0000ffff00000000ull

static inline struct baton_ip baton_ip_from4(uint32_t addr)
{
	return (struct baton_ip){0, BATON_IP4_PREFIX | addr};
}

static inline bool baton_ip_is4(struct baton_ip ip)
{
	return ip.hi == 0 && (ip.lo & ~0xffffffffull) == BATON_IP4_PREFIX;
}

static inline bool baton_ip_equal(struct baton_ip a, struct baton_ip b)
{
	return a.hi == b.hi && a.lo == b.lo;
}

/* baton_tuple is a connection as the client's packets carry it. */
struct baton_tuple {
	struct baton_ip client, service;
	uint16_t client_port, service_port;
	uint32_t pad;
};
static_assert(sizeof(struct baton_tuple) == 40, "shared with Go");

/* ------------------------------------------------------------------------------------------------------ counters */

/* Each counter is a group, a name and a help text. Groups: "packets", "drops" (each dropped frame is counted under
 * exactly one), "punts", "handshakes", "table", "commands". X(SYMBOL, group, name, help) */
#define BATON_COUNTERS(X)                                                                                              \
	X(FORWARDED, "packets", "forwarded", "Frames sent to the target that owns their flow.")                        \
	X(ENCAPSULATED, "packets", "encapsulated", "Those of the forwarded frames that went through a tunnel.")        \
	X(TOO_BIG_REPLY, "packets", "too_big_replies",                                                                 \
	  "Segments that do not fit the tunnel to their target, answered with what would.")                            \
	X(PATH_MTU, "packets", "path_mtu_updates", "Reports that the way to a target carries less than assumed.")      \
	X(SENT, "packets", "transmitted", "Frames sent for the control plane.")                                        \
	X(ICMP_FORWARDED, "packets", "icmp_errors", "ICMP errors sent to the target that owns the quoted flow.")       \
	X(REASSEMBLED, "packets", "reassembled", "Packets put together from fragments, for the router.")               \
	X(ARP_REPLY, "packets", "arp_replies", "ARP requests and neighbour solicitations answered.")                   \
	X(ECHO_REPLY, "packets", "echo_replies", "ICMP echo requests answered.")                                       \
	X(PROBE_REPLY, "packets", "keepalive_replies", "Keep-alive probes answered on flows without a request.")       \
	X(BARE_ACK, "packets", "bare_acks", "Segments without data on flows that the control plane needs not see.")    \
	X(HELD, "packets", "held", "Frames queued on a frozen flow.")                                                  \
	X(PICKED, "packets", "picked", "Connections of conventional services given to a target by their SYN.")         \
	X(RECOVERED, "packets", "recovered",                                                                           \
	  "Segments of flows without an entry that a Maglev table gave to a target.")                                  \
	X(UNTRACKED, "packets", "untracked", "Of picked and recovered ones: without an entry, as the table was full.") \
	X(PASSED, "packets", "passed", "Frames handed to the lcore of their flow.")                                    \
	X(SYNACK, "handshakes", "answered", "SYNs answered with a cookie.")                                            \
	X(ACCEPTED, "handshakes", "accepted", "First segments with a valid cookie.")                                   \
	X(REINCARNATED, "handshakes", "reincarnated", "Accepted ones that replaced an older connection of the tuple.") \
	X(SYNACK_AGAIN, "handshakes", "repeated", "SYN-ACKs repeated for services that speak first.")                  \
	X(HALF_OPEN_FULL, "handshakes", "not_repeated",                                                                \
	  "SYNs of services that speak first whose SYN-ACK will not be repeated: the table is full.")                  \
	X(FORGED, "handshakes", "forged", "Segments of no flow whose acknowledgement is no valid cookie.")             \
	X(PUNT_FIRST, "punts", "first", "First segment of a connection that matters.")                                 \
	X(PUNT_SEGMENT, "punts", "segment", "Later segments of a connection that the router owns.")                    \
	X(PUNT_FROZEN, "punts", "frozen", "Freeze markers.")                                                           \
	X(PUNT_SWITCHED, "punts", "switched", "Switch markers.")                                                       \
	X(PUNT_GONE, "punts", "gone", "Flows that the forwarder ended by itself.")                                     \
	X(PUNT_END, "punts", "end", "Hints that a client ended a flow of a target.")                                   \
	X(PUNT_ORPHAN, "punts", "orphan", "Copies of segments of no flow.")                                            \
	X(PUNT_NEIGHBOUR, "punts", "neighbour", "Neighbour addresses learnt.")                                         \
	X(PUNT_ADOPTED, "punts", "adopted", "Answers to connections that were handed over to this host.")              \
	X(PUNT_ICMP, "punts", "icmp", "ICMP errors about connections that the router owns.")                           \
	X(PUNT_IDLE, "punts", "idle", "Questions whether a target still has a flow.")                                  \
	X(PUNT_EXCEPTION, "punts", "exception", "Frames for the host's kernel.")                                       \
	X(PUNT_SERVED, "punts", "served", "Services that were opened or closed.")                                      \
	X(AGED, "table", "aged", "Idle flows forgotten because no target said that it has them.")                      \
	X(EVICTED, "table", "evicted", "Idle flows of targets forgotten in favour of new ones in a full table.")       \
	X(RESTORED, "table", "restored", "Flows that a target had and the table had not.")                             \
	X(NOT_RESTORED, "table", "not_restored", "Flows of a target for which a full table had no place.")             \
	X(COMMAND, "commands", "done", "Commands carried out.")                                                        \
	X(COMMAND_STALE, "commands", "stale", "Commands for a flow or entry that had ended.")                          \
	X(DROP_TRUNCATED, "drops", "truncated", "Shorter than its headers or lengths say.")                            \
	X(DROP_SEGMENTED, "drops", "segmented", "Received in several buffers.")                                        \
	X(DROP_NOT_OURS, "drops", "not_ours", "Another MAC address or an IP address that Baton does not serve.")       \
	X(DROP_ETHERTYPE, "drops", "ethertype", "Neither IPv4, IPv6 nor ARP.")                                         \
	X(DROP_VLAN, "drops", "vlan", "Without the tag of the port's VLAN, or with another.")                          \
	X(DROP_ARP, "drops", "arp", "Malformed ARP or neighbour discovery, or not for us.")                            \
	X(DROP_VERSION, "drops", "ip_version", "IP version does not match the Ethernet type.")                         \
	X(DROP_LENGTH, "drops", "bad_length", "IP or TCP header length is impossible.")                                \
	X(DROP_IP_CHECKSUM, "drops", "ip_checksum", "Bad IPv4 header checksum.")                                       \
	X(DROP_L4_CHECKSUM, "drops", "l4_checksum", "Bad TCP or ICMP checksum.")                                       \
	X(DROP_TTL, "drops", "ttl", "TTL or hop limit 0.")                                                             \
	X(DROP_FRAGMENT, "drops", "fragment",                                                                          \
	  "IP fragment of no flow, after a gap, overlapping, or without the first one of its packet.")                 \
	X(DROP_EXTENSION, "drops", "ip6_extension", "IPv6 extension headers that are too many or misplaced.")          \
	X(DROP_SOURCE, "drops", "bad_source", "Source address or port that no client can have.")                       \
	X(DROP_PROTOCOL, "drops", "protocol", "Neither TCP nor ICMP.")                                                 \
	X(DROP_ICMP, "drops", "icmp", "ICMP other than echo and errors.")                                              \
	X(DROP_ICMP_FLOW, "drops", "icmp_no_flow", "ICMP errors that quote no flow, or one that is changing hands.")   \
	X(DROP_NO_PORT, "drops", "no_such_port", "TCP to a served address, but to no configured port.")                \
	X(DROP_SERVICE_CLOSED, "drops", "service_closed", "SYNs to a service without a routing application.")          \
	X(DROP_FLAGS, "drops", "tcp_flags", "TCP flags that cannot be: SYN with FIN, RST or ACK.")                     \
	X(DROP_NO_FLOW, "drops", "no_flow",                                                                            \
	  "Segment of no flow that cannot start one (RST, without ACK, adopted only).")                                \
	X(DROP_FORGED, "drops", "forged_cookie", "Segment of no flow whose acknowledgement is no valid cookie.")       \
	X(DROP_HOLD_FULL, "drops", "hold_full", "Frozen flow already held as many frames as it may.")                  \
	X(DROP_DISCARDED, "drops", "discarded", "Frozen flow is configured to discard.")                               \
	X(DROP_HOLD_ENDED, "drops", "hold_ended", "Held for a flow that ended.")                                       \
	X(DROP_NO_TARGET, "drops", "no_target", "Conventional service without a target that takes connections.")       \
	X(DROP_NO_NEXTHOP, "drops", "no_nexthop", "Owner without a known MAC address.")                                \
	X(DROP_TOO_BIG, "drops", "too_big", "Does not fit the tunnel to its target, and the client was told enough.")  \
	X(DROP_NO_HEADROOM, "drops", "no_headroom", "The port's buffers have no room for a tunnel's headers.")         \
	X(DROP_TX_FULL, "drops", "tx_full", "The port took no more frames.")                                           \
	X(DROP_RING_FULL, "drops", "ring_full", "The control plane did not keep up with punts.")                       \
	X(DROP_PUNT_LIMITED, "drops", "punt_limited",                                                                  \
	  "The client's address, or all together, asked too much of the router.")                                      \
	X(DROP_FLOWS_FULL, "drops", "flow_table_full", "As many flows in the router's hands as configured.")           \
	X(DROP_CRT_FULL, "drops", "crt_full", "Connection routing table is full.")                                     \
	X(DROP_SHARD_FULL, "drops", "shard_full", "The lcore of the flow did not keep up with what others received.")  \
	X(DROP_NO_BUFFER, "drops", "no_buffer", "No free packet buffer.")                                              \
	X(DROP_FRAME_SIZE, "drops", "frame_size", "Frame of the control plane that the port cannot send.")

enum baton_counter {
#define X(symbol, group, name, help) BATON_##symbol,
	BATON_COUNTERS(X)
#undef X
	    BATON_COUNTER_COUNT
};

struct baton_counter_info {
	const char *group, *name, *help;
};

/* baton_counter_describe returns a static description, or NULL beyond the last. */
const struct baton_counter_info *baton_counter_describe(unsigned int counter);

/* -------------------------------------------------------------------------------------------------- SYN cookies */

enum {
	BATON_COOKIE_TICK_MS = 64000, /* this tick and the one before are valid, nothing else */
	BATON_COOKIE_NO_SCALE = 15,   /* window scale field of a client that offered none */
};

/* baton_options is what a client's SYN offered, as far as a cookie can carry it. */
struct baton_options {
	uint16_t mss;  /* octets; one of the cookie's 8 values */
	uint8_t scale; /* 0-14, or BATON_COOKIE_NO_SCALE */
	bool sack;
};

/* baton_secret is what the cluster shares: from its time on, cookies are made with it. */
struct baton_secret {
	uint64_t from_ms;
	uint8_t octets[32];
};
static_assert(sizeof(struct baton_secret) == 40, "shared with Go");

enum { BATON_SECRETS = 4 };

/* baton_cookie_keys are derived from one secret. */
struct baton_cookie_keys {
	uint64_t ts[2]; /* for timestamp offsets; does not change with the tick */
	uint64_t tick[2], previous_tick[2];
};

/* baton_cookies has the keys of the two valid ticks, and those of the secret before for as long as its cookies are good.
 * Two secrets may be good at a time, so they must follow each other at BATON_COOKIE_LIFE_MS at least. Single thread. */
struct baton_cookies {
	struct baton_secret secrets[BATON_SECRETS]; /* in rising order of from_ms */
	uint32_t count;
	uint64_t tick;
	uint64_t next_ms; /* when a tick or a secret begins or ends */
	struct baton_cookie_keys keys, retired;
	bool retiring; /* retired is good */
};

enum { BATON_COOKIE_LIFE_MS = 2 * BATON_COOKIE_TICK_MS };

void baton_cookies_init(struct baton_cookies *c, const uint8_t secret[32], uint64_t now_ms);

/* baton_cookies_secrets replaces the secrets: 1 to BATON_SECRETS, in rising order of from_ms. The first is good for all
 * time before the second. */
void baton_cookies_secrets(struct baton_cookies *c, const struct baton_secret *secrets, uint32_t count,
			   uint64_t now_ms);

/* baton_cookies_advance derives the keys of now_ms. A clock that goes back changes nothing. */
void baton_cookies_advance(struct baton_cookies *c, uint64_t now_ms);

/* baton_cookie_make returns our initial sequence number for a SYN, and the tuple's timestamp offset, which costs little
 * more. options->mss is rounded down first. */
uint32_t baton_cookie_make(const struct baton_cookies *c, const struct baton_tuple *t, uint32_t irs,
			   const struct baton_options *o, uint32_t *ts_offset);

/* baton_cookie_check returns the keys that iss was made with, if it is a cookie of the current or the previous tick, and
 * what was offered; else NULL. */
const struct baton_cookie_keys *baton_cookie_check(const struct baton_cookies *c, const struct baton_tuple *t,
						   uint32_t irs, uint32_t iss, struct baton_options *o);

/* baton_cookie_ts_offset is what the tuple's timestamps are ahead of the wall clock in ms, modulo 2^32. */
uint32_t baton_cookie_ts_offset(const struct baton_cookie_keys *k, const struct baton_tuple *t);

/* baton_siphash is SipHash-2-4 of len octets (Aumasson, Bernstein 2012). */
uint64_t baton_siphash(const uint64_t key[2], const uint8_t *data, size_t len);

/* -------------------------------------------------------------------------------- CRT: connection routing table */

/* A table of flows. One thread writes, any number of threads snapshot. A bucket is one cache line:
 *
 *   IPv4: 4 entries of | key (client address 32, client port 16, service id 16) | value |
 *   IPv6: 2 entries of | client address (2 words) | client port, service id | value |
 *
 * Keys are compared in full. A key has two buckets; insertion displaces entries (breadth first, so the path is short)
 * when both are full. In buckets of 2 that ends at 89 % of the places, so an IPv6 key has a third one, for when nothing
 * else helps: as long as no entry is there, nobody looks. A word 0 in the last key word marks a free entry.
 *
 * Concurrent snapshots: a bucket's stripe has a version that is odd while the writer changes which keys it holds.
 * Changes of values alone are single atomic stores and need no version.
 */
struct baton_key {
	uint64_t w[3]; /* IPv4 uses w[0] only */
};

typedef _Atomic uint64_t baton_word;

struct baton_bucket {
	_Alignas(BATON_CACHE_LINE) baton_word w[8];
};
static_assert(sizeof(struct baton_bucket) == BATON_CACHE_LINE, "one bucket, one cache line");

enum { BATON_CRT_STRIPES = 1024 };

struct baton_crt {
	struct baton_bucket *buckets;
	/* For each bucket, how many keys whose first bucket it is are elsewhere; 255 may be more, and stays. Of a key that is
	 * nowhere one bucket has to be read then, not two. Writer only. */
	uint8_t *spilled;
	size_t bytes; /* of both */
	uint64_t seed;
	uint64_t limit; /* entries that may be used */
	uint32_t bucket_count;
	uint32_t key_words; /* 1 or 3 */
	uint32_t hand;      /* the bucket that a sweep looks at next */
	uint64_t
	    changes; /* inserts and removes so far: entries found before the last one may have moved. Writer only. */
	/* removing, if set, is told of each entry that goes, by baton_crt_remove. */
	void (*removing)(void *arg, uint16_t service_id, uint64_t value);
	void *removing_arg;
	uint64_t thirds; /* IPv6: entries that are in neither of their first two buckets. Writer only. */
	baton_word used;
	baton_word displaced; /* entries moved between buckets so far */
	_Atomic uint32_t version[BATON_CRT_STRIPES];
};

/* A value: | age 15 | incarnation 24 | end 1 | syn 2 | state 2 | index 20 |
 *
 * Of a conventional service, whose SYNs are forwarded, syn means that only the SYN was seen so far (then end is set as
 * well: the entry need not be kept long), and the incarnation is a hash of the client's first sequence number alone. */
enum baton_state {
	BATON_ROUTER, /* index is a slot of the flow table */
	BATON_FROZEN, /* the same, frames are held or discarded */
	BATON_TARGET, /* index is an owner */
	BATON_LINGER, /* the same, ended: forwarded until it is forgotten */
};

#define BATON_VALUE_INDEX 0xfffffull
#define BATON_VALUE_OWNER 0xffffull      /* of an index, in BATON_TARGET and BATON_LINGER */
#define BATON_VALUE_COUNTED (1ull << 19) /* there: counts as a connection of its service to its owner */
#define BATON_VALUE_STATE_SHIFT 20
#define BATON_VALUE_SYN_SHIFT 22
#define BATON_VALUE_SYN (3ull << BATON_VALUE_SYN_SHIFT) /* when a SYN was answered: baton_value_syn, 0: never */
#define BATON_VALUE_END (1ull << 24)                    /* the client's FIN or RST was reported */
#define BATON_VALUE_INC_SHIFT 25
#define BATON_VALUE_AGE_SHIFT 49 /* second of the last packet, modulo 2^15 */

static inline uint64_t baton_value(enum baton_state state, uint32_t index, uint32_t inc, uint64_t now_ms)
{
	return (uint64_t)(index & BATON_VALUE_INDEX) | (uint64_t)state << BATON_VALUE_STATE_SHIFT |
	       (uint64_t)(inc & 0xffffff) << BATON_VALUE_INC_SHIFT | now_ms / 1000 << BATON_VALUE_AGE_SHIFT;
}

/* baton_value_syn marks a SYN that was answered in this tick of the cookies. Its cookie is good in the next one, too. */
static inline uint64_t baton_value_syn(uint64_t tick)
{
	return (1 + tick % 3) << BATON_VALUE_SYN_SHIFT;
}

static inline enum baton_state baton_value_state(uint64_t v)
{
	return (enum baton_state)(v >> BATON_VALUE_STATE_SHIFT & 3);
}

static inline uint32_t baton_value_inc(uint64_t v)
{
	return v >> BATON_VALUE_INC_SHIFT & 0xffffff;
}

enum {
	BATON_IDLE_MAX = 8 * 3600, /* s; ages count modulo 2^15 s */
	BATON_IDLE_GRACE = 120,    /* s in which a target may say that it still has an idle flow */
};

/* baton_value_idle is how many seconds ago the entry was used, or up to 4 s more: ages are not renewed more often. */
static inline uint32_t baton_value_idle(uint64_t v, uint64_t now_ms)
{
	return (uint32_t)(now_ms / 1000 - (v >> BATON_VALUE_AGE_SHIFT)) & 0x7fff;
}

/* baton_incarnation_hash tells lives of one tuple apart. */
static inline uint32_t baton_incarnation_hash(uint32_t irs, uint32_t iss)
{
	uint64_t h = ((uint64_t)irs << 32 | iss) * 0x9e3779b97f4a7c15ull;

	h = (h ^ h >> 32) * 0xd6e8feb86659fd93ull;
	return (uint32_t)(h >> 40);
}

/* What part of a table's places its entries may fill. Less is faster: new flows find room at once, and nearly all keys are
 * in their first bucket. 10 million IPv4 flows take 310 MiB. */
enum { BATON_CRT_PERCENT = 50 };

/* baton_crt_init makes a table for `entries` flows, which are so many percent of its places. Up to 95 % all of them fit
 * for sure; beyond, baton_crt_insert may refuse earlier. key_words: 1 or 3. */
int baton_crt_init(struct baton_crt *t, uint64_t entries, uint32_t percent, uint32_t key_words, uint64_t seed);
void baton_crt_free(struct baton_crt *t);

uint64_t baton_crt_hash(const struct baton_crt *t, const struct baton_key *k);

/* baton_crt_find returns the value of k, or NULL. Valid until the next insert or remove. */
baton_word *baton_crt_find(const struct baton_crt *t, const struct baton_key *k, uint64_t hash);

/* baton_lookup is a key to find, and what a baton_finder made of it. */
struct baton_lookup {
	struct baton_key key;
	uint64_t hash;
	baton_word *entry; /* the value's place, or NULL; valid until the next insert or remove */
};

/* baton_finder finds many keys at once; only the table's writer may use it. First fetch, as soon as keys are known, which
 * hashes them and starts to fetch their buckets; then find, at most BATON_BURST at a time, which by then hardly waits. */
struct baton_finder {
	void (*fetch)(const struct baton_crt *t, struct baton_lookup *const *l, uint32_t n);
	void (*find)(const struct baton_crt *t, struct baton_lookup *const *l, uint32_t n);
};
/* baton_crt_finder returns the fastest one for tables of so many key words; without simd, the plain one. */
const struct baton_finder *baton_crt_finder(uint32_t key_words, bool simd);

/* baton_crt_insert adds k, which must not be there, and returns its value's place, or NULL when the table is full. */
baton_word *baton_crt_insert(struct baton_crt *t, const struct baton_key *k, uint64_t hash, uint64_t value);

/* baton_crt_remove takes out the entry whose value is at v. */
void baton_crt_remove(struct baton_crt *t, baton_word *v);

/* baton_crt_oldest returns the entry of a target that was idle longest, of those in the buckets of a hash and of some next to
 * them: the one that may make room for a new key when the table is full. NULL: none. */
baton_word *baton_crt_oldest(const struct baton_crt *t, uint64_t hash, uint64_t now_ms);

/* baton_ages says when an entry of a target is idle, s without a segment of the client; 0: never. */
struct baton_ages {
	uint32_t target_s; /* at most BATON_IDLE_MAX, as ended_s */
	uint32_t ended_s;  /* after the client's FIN or RST */
	/* ask is called for each idle entry that a sweep meets and leaves; it must not change the table. May be NULL. */
	void (*ask)(void *arg, const struct baton_key *k, uint64_t value);
	void *arg;
};

/* baton_crt_sweep looks at the next n buckets, in turn. It asks about idle entries of targets, and removes those that are
 * idle for BATON_IDLE_GRACE more. Returns how many it removed. An insertion may move an entry past the sweep, which finds
 * it the next time round. */
uint32_t baton_crt_sweep(struct baton_crt *t, uint32_t n, const struct baton_ages *ages, uint64_t now_ms);

struct baton_entry {
	struct baton_key key;
	uint64_t value;
};
static_assert(sizeof(struct baton_entry) == 32, "shared with Go");

/* baton_crt_read copies the entries of bucket b as they were at one instant and returns how many (<= 4). Any thread. */
int baton_crt_read(const struct baton_crt *t, uint32_t b, struct baton_entry out[4]);

/* --------------------------------------------------------------------------------------------------------- rings */

/* Single producer, single consumer; records of any length up to half its size, contiguous, 8-aligned.
 * head is published with release and read with acquire by the consumer; tail the other way round. */
struct baton_ring {
	_Alignas(BATON_CACHE_LINE) baton_word head; /* producer */
	uint64_t tail_seen, reserved;
	_Alignas(BATON_CACHE_LINE) baton_word tail;           /* consumer */
	uint64_t read;                                        /* consumer: behind the last record that it took */
	_Alignas(BATON_CACHE_LINE) _Atomic uint32_t sleeping; /* consumer: set before it sleeps */
	uint8_t *data;
	uint64_t size; /* a power of two */
};

int baton_ring_init(struct baton_ring *r, uint64_t size);
void baton_ring_free(struct baton_ring *r);

/* Producer: reserve a record (NULL: no room), fill it, publish it. */
void *baton_ring_reserve(struct baton_ring *r, uint32_t len);
void baton_ring_publish(struct baton_ring *r);
/* baton_ring_room says whether records of together len octets would fit; count is how many. */
bool baton_ring_room(struct baton_ring *r, uint64_t len, unsigned int count);

/* Consumer: take the next record (NULL: none), and give back all that were taken. */
void *baton_ring_take(struct baton_ring *r, uint32_t *len);
void baton_ring_release(struct baton_ring *r);

/* Sleeping: the consumer announces it and must not sleep when this returns false; the producer calls baton_ring_wake
 * after publishing and has to wake the consumer when it returns true. baton_ring_holds tells the consumer whether there
 * is a record, without an announcement. */
bool baton_ring_announce(struct baton_ring *r);
bool baton_ring_holds(struct baton_ring *r);
bool baton_ring_wake(struct baton_ring *r);

/* --------------------------------------------------------------------------------------------------------- ports */

/* baton_buf is a frame in one contiguous piece of memory. */
struct baton_buf {
	uint8_t *data;
	void *handle;  /* of the driver */
	uint32_t len;  /* octets of the frame */
	uint16_t room; /* octets that may be written at data */
	uint16_t head; /* octets that may be written in front of data */
};

struct baton_port;

struct baton_port_ops {
	/* rx_burst fills up to n frames and returns how many; frames that came in pieces have data NULL. */
	uint16_t (*rx_burst)(struct baton_port *p, struct baton_buf *bufs, uint16_t n);
	/* tx_burst takes the first frames, returns how many; the others stay the caller's. */
	uint16_t (*tx_burst)(struct baton_port *p, struct baton_buf *bufs, uint16_t n);
	/* alloc makes an empty buffer with room for a whole frame, or returns -ENOMEM. */
	int (*alloc)(struct baton_port *p, struct baton_buf *buf);
	void (*free)(struct baton_port *p, struct baton_buf *bufs, uint16_t n);
	void (*close)(struct baton_port *p);
	/* Of ports with receive interrupts, else NULL: watch adds the interrupt to an epoll set, once; arm turns it on or
	 * off, and one that is on tells of every frame that comes from then on. */
	int (*watch)(struct baton_port *p, int epoll);
	int (*arm)(struct baton_port *p, bool on);
	/* wait is epoll_wait(2) for such a set; ports without frames of their own have it as well. */
	void (*wait)(int epoll, int ms);
};

struct baton_port {
	const struct baton_port_ops *ops;
	void *device; /* of the driver */
	struct baton_forwarder *forwarder;
	uint32_t frame_max; /* octets of the largest frame */
	uint16_t index;
	bool mixed;     /* its frames may be of any shard */
	bool elsewhere; /* shard 0 receives and sends for it, and counts */
	bool exception; /* what is not for Baton is punted for the kernel */
	uint16_t vlan;  /* that its frames are tagged with; 0: they are not */
	uint16_t tag;   /* that is put on what is staged: vlan, unless that is done elsewhere */
	uint8_t mac[BATON_MAC_LEN];
	struct baton_ip addr;                /* own address; lo = 0: none */
	struct baton_buf tx[BATON_TX_STAGE]; /* staged for tx_burst() */
	uint16_t tx_count;
	baton_word rx_packets, rx_bytes, tx_packets, tx_bytes; /* written by the poll thread only */
};

struct baton_forwarder;

enum baton_mem_mode {
	BATON_MEM_POOL, /* frames are in buffers of a pool, unless there are several shards */
	BATON_MEM_TIGHT, /* each received frame ends where its memory ends: address sanitizers see every read beyond it */
	BATON_MEM_BARE,  /* each begins where its memory begins: nothing can be put in front */
	BATON_MEM_MIXED, /* as tight, for a port whose frames are of all shards: opened in shard 0, used by all */
};

/* baton_port_mem_open makes port `index` an in-memory port: frames go in and come out through two rings. */
int baton_port_mem_open(struct baton_forwarder *f, uint16_t index, const uint8_t mac[BATON_MAC_LEN],
			enum baton_mem_mode mode);
/* For another thread than the poll thread: give the port a frame (-ENOBUFS: full), take one that it sent (0: none). */
int baton_port_mem_inject(struct baton_forwarder *f, uint16_t index, const uint8_t *frame, uint32_t len);
uint32_t baton_port_mem_collect(struct baton_forwarder *f, uint16_t index, uint8_t *frame, uint32_t room);
/* For the poll thread: buffers of the port that are held, staged, or lost. */
uint32_t baton_port_mem_in_use(struct baton_forwarder *f, uint16_t index);

/* ------------------------------------------------------------------------------------------------------ commands */

enum baton_command_kind {
	BATON_TRANSMIT = 1,
	BATON_FREEZE,
	BATON_THAW,
	BATON_SWITCH,
	BATON_CLOSE,
	BATON_REMOVE,
	BATON_SET_OWNER,
	BATON_ADOPT,
	BATON_RESTORE,
	BATON_SERVE,       /* owner is the service's number; discard: its SYNs are dropped. Answered by SERVED */
	BATON_SET_TARGETS, /* by baton_targets_publish only: flow is the set's address, port the service's number */
};

/* How the packets of an owner that is not on the data network travel. IPv4 and IPv6 go inside of either. */
enum baton_tunnel_kind {
	BATON_TUNNEL_NONE,
	BATON_TUNNEL_IPIP, /* in IPv4 (RFC 2003, RFC 4213) or IPv6 (RFC 2473) */
	BATON_TUNNEL_GUE,  /* in UDP, draft-ietf-intarea-gue, version 0 */
	BATON_TUNNEL_KINDS,
};

enum { BATON_TUNNEL_MTU_MIN = 576 }; /* what every IPv4 host takes (RFC 791 3.2); IPv6: 1280 */
/* Where a flow's ID names its shard. */
enum { BATON_ID_SHARD_SHIFT = 24 };
static_assert(BATON_MAX_FLOWS <= 1 << BATON_ID_SHARD_SHIFT, "a slot fits below");

struct baton_command {
	/* FREEZE, THAW, SWITCH, CLOSE: generation << 32 | shard << BATON_ID_SHARD_SHIFT | slot. SERVE: any, for the answer */
	uint64_t flow;
	uint32_t kind;
	uint32_t frame_len;         /* TRANSMIT, RESTORE: octets behind this struct */
	uint16_t owner;             /* SWITCH, SET_OWNER, RESTORE */
	uint16_t port;              /* TRANSMIT, SET_OWNER, ADOPT, RESTORE: where the frame came in */
	uint8_t discard;            /* FREEZE: drop instead of hold */
	uint8_t tunnel;             /* SET_OWNER: enum baton_tunnel_kind */
	uint8_t mac[BATON_MAC_LEN]; /* SET_OWNER: of the target, or of the first router on the way to it */
	uint16_t mtu;               /* SET_OWNER with a tunnel: largest outer packet, octets, BATON_TUNNEL_MTU_MIN.. */
	uint16_t pad;
	uint32_t irs, iss; /* REMOVE, ADOPT, RESTORE */
	struct baton_tuple
	    tuple; /* REMOVE, ADOPT, RESTORE; SET_OWNER with a tunnel: from service to client, ports unused */
};
static_assert(sizeof(struct baton_command) == 80, "shared with Go");

/* --------------------------------------------------------------------------------------------------------- punts */

/* Values of flow.Kind. */
enum baton_punt_kind {
	BATON_FIRST = 1,
	BATON_SEGMENT,
	BATON_FROZEN_MARK,
	BATON_SWITCHED_MARK,
	BATON_GONE,
	BATON_END,
	BATON_ORPHAN,
	BATON_NEIGHBOUR,
	BATON_ADOPTED,
	BATON_ICMP,
	BATON_IDLE,
	BATON_EXCEPTION,
	BATON_SERVED,
};

enum {
	BATON_HAS_SCALING = 1,
	BATON_HAS_SACK = 2,
	BATON_HAS_TIMESTAMPS = 4,
};

/* baton_handshake is wire.Handshake. */
struct baton_handshake {
	uint16_t mss, own_mss;
	uint8_t snd_scale, rcv_scale;
	uint8_t has; /* BATON_HAS_* */
	uint8_t pad;
};

struct baton_punt {
	uint64_t flow;
	struct baton_tuple tuple; /* NEIGHBOUR: client is the neighbour */
	uint32_t irs, iss;
	uint32_t ts_offset;
	uint32_t held;
	struct baton_handshake handshake;
	uint32_t frame_len; /* octets behind this struct */
	uint16_t port, owner;
	uint8_t kind;
	uint8_t pad;
	uint8_t mac[BATON_MAC_LEN];
};
static_assert(sizeof(struct baton_punt) == 88, "shared with Go");

/* ----------------------------------------------------------------------------------------------------- forwarder */

/* How a service's connections find their target: values of flow.Distribution. All but the first are conventional: the
 * forwarder picks the target at the SYN, which the target answers. */
enum baton_distribution {
	BATON_CONTENTROUTED,
	BATON_ROUNDROBIN,
	BATON_WEIGHTED, /* smooth weighted round robin */
	BATON_LEASTCONN,
	BATON_MAGLEV,
};

/* baton_service is one address and port that clients connect to. */
struct baton_service {
	struct baton_ip addr;
	uint16_t port;
	uint16_t id;          /* in CRT keys; unique */
	uint16_t own_mss;     /* octets */
	uint8_t scale;        /* window scale that we announce, 0-14 */
	uint8_t adopts;       /* 1: its flows come by BATON_ADOPT only, and another host answers for its address */
	uint32_t window;      /* W, octets */
	bool speaks_first;    /* the client waits for a greeting: its first bare ACK is punted */
	uint8_t distribution; /* enum baton_distribution */
	bool closed;          /* its SYNs are dropped, until BATON_SERVE */
	uint8_t pad[1];
};
static_assert(sizeof(struct baton_service) == 32, "shared with Go");

/* baton_config is what a forwarder is made from. All bounds are the caller's to keep, baton_open checks them again. */
struct baton_config {
	uint8_t secret[32];
	uint64_t ipv4_entries, ipv6_entries;
	uint32_t router_flows, held_packets;  /* held_packets: per flow */
	uint32_t router_idle_ms, linger_ms;   /* router_idle_ms 0: never */
	uint32_t idle_spin_us, idle_sleep_us; /* idle_sleep_us 0: never sleep */
	uint32_t service_count, port_count;
	uint64_t seed; /* of the tables' hash */
	/* What one client address may have of the control plane; 0: no limit (limit.h). */
	uint32_t source_flows;        /* at a time */
	uint32_t source_punts, punts; /* in a second; punts: of all addresses */
	uint32_t half_open;           /* handshakes whose SYN-ACK is repeated, at a time */
	/* When a target's flow is idle, s without a segment of the client; at most BATON_IDLE_MAX. 0: never */
	uint32_t target_idle_s, ended_idle_s; /* baton_ages */
	uint32_t evict_idle_s;                /* so that a new flow may have its place in a full table */
	uint32_t interrupts;                  /* 1: ports are opened with receive interrupts, where they have them */
};
static_assert(sizeof(struct baton_config) == 120, "shared with Go");

/* baton_open makes a forwarder of its own with port_count ports, which are to be opened one by one before the first poll.
 * services is copied. Returns NULL and sets *err to -errno on failure. */
struct baton_forwarder *baton_open(const struct baton_config *c, const struct baton_service *services, int *err);
/* baton_close closes the ports and frees everything. The loop must have ended. */
void baton_close(struct baton_forwarder *f);
struct baton_port *baton_port(struct baton_forwarder *f, uint16_t index);
/* baton_port_address sets a port's own address, before the first poll. */
void baton_port_address(struct baton_forwarder *f, uint16_t index, struct baton_ip addr);
/* baton_port_vlan puts a port into a VLAN, 1-4094, before the first poll. */
void baton_port_vlan(struct baton_forwarder *f, uint16_t index, uint16_t vlan);
/* baton_port_exception has frames that are not for Baton punted, before the first poll. */
void baton_port_exception(struct baton_forwarder *f, uint16_t index, bool on);

/* ---- shards */

enum {
	BATON_STEER_KEY = 40,    /* octets: what Toeplitz needs for the 36 of an IPv6 tuple */
	BATON_STEER_BUCKETS = 64 /* shard = lower 6 bits of the hash, modulo the number of shards */
};

/* baton_shards are forwarders that share ports and bounds: each has its part of config's tables and limits, and all have
 * the same services. A connection is of the shard that baton_shard_of names, by the Toeplitz hash (NIC receive-side
 * scaling) of its tuple under a random key, so that a NIC that takes that key sorts just as well. */
struct baton_shards;
/* baton_shards_open makes count forwarders (1 to BATON_MAX_SHARDS); all ports are to be opened in each of them. */
struct baton_shards *baton_shards_open(const struct baton_config *c, const struct baton_service *services,
				       uint32_t count, int *err);
/* baton_shards_close closes all of them. Their loops must have ended. */
void baton_shards_close(struct baton_shards *s);
struct baton_forwarder *baton_shard(const struct baton_shards *s, uint32_t index);
uint32_t baton_shard_of(const struct baton_shards *s, const struct baton_tuple *t);
/* baton_shard_of_reply is the shard of the connection that a frame from a service to a client belongs to, 0 for any other
 * frame. For those of the control plane: without VLAN tags, IP options and extension headers. */
uint32_t baton_shard_of_reply(const struct baton_shards *s, const uint8_t *frame, uint32_t len);
/* baton_shard_of_request is the same for a frame from a client. */
uint32_t baton_shard_of_request(const struct baton_shards *s, const uint8_t *frame, uint32_t len);
/* baton_toeplitz is the hash of a tuple as NICs compute it, in the direction of the client's packets. */
uint32_t baton_toeplitz(const struct baton_shards *s, const struct baton_tuple *t);
/* baton_toeplitz_key replaces the random key; before the ports are opened. */
void baton_toeplitz_key(struct baton_shards *s, const uint8_t key[BATON_STEER_KEY]);

/* baton_poll does one burst of every port and returns how many frames and commands it handled. */
int baton_poll(struct baton_forwarder *f);
/* baton_run polls until baton_stop, backing off while idle; then it receives no more, but carries out the commands that
 * are queued and sends what is staged. Call it on the polling thread, with signals blocked. */
int baton_run(struct baton_forwarder *f);
void baton_stop(struct baton_forwarder *f);
/* baton_watch makes the idle loop wait for receive interrupts, as soon as it has been idle for long; before baton_run, for
 * ports that were opened with interrupts. A port that has none makes the loop nap as ever: the port's index + 1. */
int baton_watch(struct baton_forwarder *f);
/* baton_start runs baton_run on a thread of its own, pinned to cpu (-1: anywhere); baton_join waits for its end. */
int baton_start(struct baton_forwarder *f, int cpu);
void baton_join(struct baton_forwarder *f);
/* baton_clock_set replaces the wall clock from the next poll on (0: the real one). For tests. */
void baton_clock_set(struct baton_forwarder *f, uint64_t now_ms);

/* baton_secrets_set replaces the secrets of cookies from the next millisecond on. Any thread, one at a time. */
int baton_secrets_set(struct baton_forwarder *f, const struct baton_secret *secrets, uint32_t count);

/* baton_command_send queues a command, -EBUSY when the ring is full. One thread at a time. */
int baton_command_send(struct baton_forwarder *f, const struct baton_command *c, const uint8_t *frame);
/* baton_candidate is a target that takes new connections of a conventional service. */
struct baton_candidate {
	uint16_t owner;  /* 1 to BATON_MAX_OWNERS - 1 */
	uint16_t weight; /* 1 and up; not read by ROUNDROBIN and MAGLEV */
};

/* baton_targets_publish queues a new set of targets for service number `service` (its place in baton_open's array), which
 * must be conventional. All is copied. candidates: in rising order of owners. table (MAGLEV; else 0 entries): owners, one
 * for each value of a flow's hash. recovers: flows without an entry go where the table says. Flows that have an entry stay
 * where they are, whatever the set. -EBUSY when the ring is full, -EINVAL, -ENOMEM. The same thread as for
 * baton_command_send. */
int baton_targets_publish(struct baton_forwarder *f, uint16_t service, const struct baton_candidate *candidates,
			  uint32_t count, const uint16_t *table, uint32_t table_size, bool recovers);
/* baton_connections_read tells how many connections of a conventional service each owner has. Any thread. */
void baton_connections_read(struct baton_forwarder *f, uint16_t service, uint32_t out[BATON_MAX_OWNERS]);

/* baton_receive gives back what it returned before and fills out with up to n punts, each followed by its frame.
 * One thread at a time. */
int baton_receive(struct baton_forwarder *f, struct baton_punt **out, int n);
/* baton_punt_ready tells whether there is something to receive. The thread that receives. */
bool baton_punt_ready(struct baton_forwarder *f);
/* baton_punt_sleep announces that the consumer will wait on baton_punt_fd; false: there is something to receive. */
bool baton_punt_sleep(struct baton_forwarder *f);
int baton_punt_fd(struct baton_forwarder *f);

/* Readable by any thread while the loop runs. */
uint64_t baton_counter_read(struct baton_forwarder *f, unsigned int counter);
/* baton_pace is how a loop spent its time since baton_run, brought up to date once a second. A gap is the time from one
 * poll to the next, without what the loop slept on purpose: so long a frame may have waited. */
struct baton_pace {
	baton_word polls;
	baton_word busy_ns, idle_ns; /* busy: polls with frames or commands */
	baton_word gap_ns;           /* longest of the last whole second */
	baton_word gap_max_ns;       /* longest of all */
	baton_word busy_ppm;         /* share of the last whole second, in millionths */
	baton_word waits;            /* for an interrupt; up to date at any time */
};
const struct baton_pace *baton_pace_of(struct baton_forwarder *f);
const struct baton_crt *baton_crt_of(struct baton_forwarder *f, bool ipv6);
uint64_t baton_now_ms(struct baton_forwarder *f);
uint32_t baton_flows_used(struct baton_forwarder *f);

#endif
