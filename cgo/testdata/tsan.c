/* SPDX-License-Identifier: Apache-2.0
 *
 * For ThreadSanitizer (make tsan): everything that threads of the data path share, with all of them at work at once.
 *
 *    tables: one writer inserts, moves, ages and removes; readers take snapshots, in which each key has its value
 *    loops:  two poll loops pass each other's frames on; a client, the control plane and an operator talk with them
 *
 * It fails by itself on what it can see, and by ThreadSanitizer on every access that is not ordered.
 */
#include "../parse.h"

#include <errno.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
	KEYS = 600, /* of a table for 500: it is often full */
	STEPS = 200000,
	READERS = 2,
	LOOPS = 2,
	CLIENTS = 2000,
	OWNER = 1,
	FRAME_ROOM = 2048,
};

#define CHECK(what)                                                                                                    \
	do {                                                                                                           \
		if (!(what)) {                                                                                         \
			fprintf(stderr, "tsan: line %d: %s does not hold\n", __LINE__, #what);                         \
			exit(1);                                                                                       \
		}                                                                                                      \
	} while (0)

static uint64_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static pthread_t thread(void *(*main)(void *), void *arg)
{
	pthread_t t;

	CHECK(pthread_create(&t, NULL, main, arg) == 0);
	return t;
}

/* ---- tables */

struct shared_table {
	struct baton_crt crt;
	_Atomic bool done;
	_Atomic uint64_t seen; /* entries in snapshots */
};

static struct baton_key key_of(uint64_t n, uint32_t words)
{
	return words == 1 ? (struct baton_key){{n << 16 | 1, 0, 0}} : (struct baton_key){{n % 7, n % 11, n << 16 | 1}};
}

/* value_of is the value that a key must have, but for its age. */
static uint64_t value_of(const struct baton_key *k, uint64_t now_ms)
{
	uint32_t inc = (uint32_t)(k->w[0] * 3 + k->w[1] * 5 + k->w[2] * 7);

	return baton_value(BATON_TARGET, OWNER, inc, now_ms);
}

static void *table_read(void *arg)
{
	const uint64_t aged = (1ull << BATON_VALUE_AGE_SHIFT) - 1;
	struct shared_table *s = arg;
	struct baton_entry e[4];

	while (!atomic_load(&s->done)) {
		for (uint32_t b = 0; b < s->crt.bucket_count; b++) {
			int n = baton_crt_read(&s->crt, b, e);

			for (int i = 0; i < n; i++)
				CHECK(((e[i].value ^ value_of(&e[i].key, 0)) & aged) == 0);
			atomic_fetch_add(&s->seen, (uint64_t)n);
		}
	}
	return NULL;
}

static void table_step(struct baton_crt *t, uint64_t n, uint64_t now_ms)
{
	const struct baton_ages ages = {.target_s = 1000, .ended_s = 1000};
	const struct baton_key k = key_of(n % KEYS, t->key_words);
	uint64_t hash = baton_crt_hash(t, &k);
	baton_word *v = baton_crt_find(t, &k, hash);

	if (!v)
		v = baton_crt_insert(t, &k, hash, value_of(&k, now_ms));
	else if (n % 3 == 0)
		baton_crt_remove(t, v);
	else
		atomic_store_explicit(v, value_of(&k, now_ms), memory_order_relaxed);
	if (!v && (v = baton_crt_oldest(t, hash, now_ms)))
		baton_crt_remove(t, v);
	baton_crt_sweep(t, 2, &ages, now_ms);
}

static void tables(uint32_t key_words)
{
	static struct shared_table s;
	pthread_t readers[READERS];
	uint64_t state = 88172645463325252ull;

	memset(&s, 0, sizeof(s));
	CHECK(baton_crt_init(&s.crt, 500, 95, key_words, 3) == 0);
	for (int i = 0; i < READERS; i++)
		readers[i] = thread(table_read, &s);
	for (uint64_t i = 0; i < STEPS || atomic_load(&s.seen) < STEPS; i++)
		table_step(&s.crt, random_next(&state) >> 20, i * 1000);
	atomic_store(&s.done, true);
	for (int i = 0; i < READERS; i++)
		pthread_join(readers[i], NULL);
	CHECK(s.crt.displaced > 0);
	baton_crt_free(&s.crt);
}

/* ---- loops */

static struct baton_shards *shards;
static _Atomic bool ended; /* for client and operator */
static const uint8_t mac[BATON_MAC_LEN] = {2, 0, 0, 0, 0, 1};

static const struct baton_service service = {
    .addr = {0, BATON_IP4_PREFIX | 0x0a4d000a}, .port = 80, .id = 7, .own_mss = 1460, .scale = 7, .window = 32768};

/* client_send makes a segment of client n. Without ack it is a SYN, else the client's first data. */
static void client_send(uint32_t n, uint32_t ack)
{
	const uint32_t tcp_len = TCP_LEN + (ack ? 6 : 0);
	const struct baton_ip src = baton_ip_from4(0x0a4e0000 + n);
	uint8_t frame[ETH_LEN + IP4_LEN + TCP_LEN + 6] = {0}, *ip = frame + ETH_LEN, *tcp = ip + IP4_LEN;

	memcpy(frame, mac, sizeof(mac));
	frame[BATON_MAC_LEN] = 2;
	store16(frame + 12, ETH_TYPE_IP4);
	store16(ip, 0x4500);
	store16(ip + 2, (uint16_t)(IP4_LEN + tcp_len));
	ip[8] = 64;
	ip[9] = PROTO_TCP;
	store32(ip + 12, (uint32_t)src.lo);
	store32(ip + 16, (uint32_t)service.addr.lo);
	store_checksum(ip + 10, sum_add(0, ip, IP4_LEN));
	store16(tcp, 1000);
	store16(tcp + 2, service.port);
	store32(tcp + 4, ack ? n + 1 : n);
	store32(tcp + 8, ack);
	tcp[12] = TCP_LEN / 4 << 4;
	tcp[13] = ack ? TCP_ACK : TCP_SYN;
	store16(tcp + 14, 1000);
	store_checksum(tcp + 16, sum_add(sum_pseudo(src, service.addr, PROTO_TCP, tcp_len), tcp, tcp_len));
	while (baton_port_mem_inject(baton_shard(shards, 0), 0, frame, ETH_LEN + IP4_LEN + tcp_len) == -ENOBUFS)
		usleep(10);
}

/* client_hear answers a SYN-ACK; segments on their way to the target are of no interest. */
static void client_hear(void)
{
	uint8_t frame[FRAME_ROOM];
	uint32_t len = baton_port_mem_collect(baton_shard(shards, 0), 0, frame, sizeof(frame));
	const uint8_t *ip = frame + ETH_LEN, *tcp = ip + IP4_LEN;

	if (len >= PLAIN_LEN && tcp[13] == (TCP_SYN | TCP_ACK))
		client_send(load32(ip + 16) - 0x0a4e0000, load32(tcp + 4) + 1);
}

static void *client(void *arg)
{
	(void)arg;
	for (uint32_t n = 0; !atomic_load(&ended); n++) {
		client_send(n % CLIENTS, 0);
		client_hear();
		client_hear();
	}
	return NULL;
}

static void *operator_main(void *arg)
{
	struct baton_entry e[4];

	(void)arg;
	while (!atomic_load(&ended)) {
		for (uint32_t i = 0; i < LOOPS; i++) {
			struct baton_forwarder *f = baton_shard(shards, i);
			const struct baton_crt *t = baton_crt_of(f, false);
			const struct baton_port *p = baton_port(f, 0);

			for (uint32_t b = 0; b < t->bucket_count; b++)
				baton_crt_read(t, b, e);
			for (unsigned int c = 0; c < BATON_COUNTER_COUNT; c++)
				baton_counter_read(f, c);
			CHECK(atomic_load_explicit(&baton_pace_of(f)->busy_ppm, memory_order_relaxed) <= 1000000);
			CHECK(baton_flows_used(f) <= CLIENTS && baton_now_ms(f) > 0);
			CHECK(atomic_load_explicit(&p->rx_packets, memory_order_relaxed) < UINT64_MAX);
		}
	}
	return NULL;
}

static void command(struct baton_forwarder *f, const struct baton_command *c)
{
	while (baton_command_send(f, c, NULL) == -EBUSY)
		usleep(10);
}

/* punted does what the control plane would: it gives every other flow to the target, which ends it at once. */
static void punted(struct baton_forwarder *f, const struct baton_punt *p)
{
	struct baton_command c = {.flow = p->flow, .owner = OWNER, .tuple = p->tuple, .irs = p->irs, .iss = p->iss};
	static const uint32_t give[] = {BATON_FREEZE, BATON_SWITCH};

	if (p->kind == BATON_SWITCHED_MARK) {
		c.kind = p->irs % 4 ? BATON_REMOVE : BATON_RESTORE;
		command(f, &c);
	} else if (p->kind == BATON_FIRST) {
		for (int i = 0; i < 2; i++) {
			c.kind = p->irs % 2 ? give[i] : BATON_CLOSE;
			command(f, &c);
		}
	}
}

static uint64_t count(enum baton_counter c)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < LOOPS; i++)
		n += baton_counter_read(baton_shard(shards, i), c);
	return n;
}

/* control handles punts until enough has happened. */
static void control(void)
{
	struct baton_punt *p[BATON_BURST];

	while (count(BATON_PUNT_SWITCHED) < CLIENTS || count(BATON_FORWARDED) < CLIENTS / 2) {
		for (uint32_t i = 0; i < LOOPS; i++) {
			struct baton_forwarder *f = baton_shard(shards, i);
			int n = baton_receive(f, p, BATON_BURST);

			for (int j = 0; j < n; j++)
				punted(f, p[j]);
			if (n == 0 && baton_punt_sleep(f))
				usleep(10);
		}
	}
}

static void loops(void)
{
	const struct baton_config config = {.secret = {1, 2, 3},
					    .ipv4_entries = CLIENTS,
					    .ipv6_entries = CLIENTS,
					    .router_flows = CLIENTS,
					    .held_packets = 8,
					    .router_idle_ms = 60000,
					    .linger_ms = 1,
					    .idle_sleep_us = 100,
					    .service_count = 1,
					    .port_count = 1,
					    .evict_idle_s = 1,
					    .target_idle_s = 1};
	const struct baton_command to_target = {.kind = BATON_SET_OWNER, .owner = OWNER, .mac = {2, 0, 0, 0, 0, 2}};
	pthread_t threads[2];
	int err = 0;

	shards = baton_shards_open(&config, &service, LOOPS, &err);
	CHECK(shards != NULL);
	for (uint32_t i = 0; i < LOOPS; i++) {
		CHECK(baton_port_mem_open(baton_shard(shards, i), 0, mac, BATON_MEM_MIXED) == 0);
		command(baton_shard(shards, i), &to_target);
	}
	for (uint32_t i = 0; i < LOOPS; i++)
		CHECK(baton_start(baton_shard(shards, i), -1) == 0);
	threads[0] = thread(client, NULL);
	threads[1] = thread(operator_main, NULL);
	control();
	atomic_store(&ended, true);
	pthread_join(threads[0], NULL);
	pthread_join(threads[1], NULL);
	for (uint32_t i = 0; i < LOOPS; i++)
		baton_stop(baton_shard(shards, i));
	for (uint32_t i = 0; i < LOOPS; i++)
		baton_join(baton_shard(shards, i));
	printf("tsan: %llu handshakes, %llu flows switched, %llu frames forwarded, %llu restored\n",
	       (unsigned long long)count(BATON_ACCEPTED), (unsigned long long)count(BATON_PUNT_SWITCHED),
	       (unsigned long long)count(BATON_FORWARDED), (unsigned long long)count(BATON_RESTORED));
	baton_shards_close(shards);
}

int main(void)
{
	tables(1);
	tables(3);
	loops();
	return 0;
}
