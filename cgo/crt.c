/* SPDX-License-Identifier: Apache-2.0
 *
 * The connection routing table: a two-choice bucket cuckoo hash (Pagh and Rodler 2001; buckets of 4: Dietzfelbinger and
 * Weidling 2007, full beyond 97 %; of 2: beyond 89 %, or 98 % with a third choice).
 *
 * The code is written once over the number of key words and compiled for 1 (IPv4) and 3 (IPv6).
 */
#include "baton.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

enum {
	BUCKET_WORDS = 8,
	HUGE = 2 << 20,
	OLDEST_BUCKETS = 16,
	PATH_NODES = 512, /* buckets that one insertion looks at before it calls the table full */
};

INLINE uint64_t load(const baton_word *w)
{
	return atomic_load_explicit(w, memory_order_relaxed);
}

INLINE void store(baton_word *w, uint64_t v)
{
	atomic_store_explicit(w, v, memory_order_relaxed);
}

/* huge_alloc maps zeroes for transparent hugepages, which have to be aligned; bytes is a multiple of HUGE. Even a small
 * table is faster in one: it takes one entry of the TLB. */
static void *huge_alloc(size_t bytes)
{
	uint8_t *p = mmap(NULL, bytes + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	size_t before = -(uintptr_t)p % HUGE;
	if (before)
		munmap(p, before);
	if (before < HUGE)
		munmap(p + before + bytes, HUGE - before);
	(void)madvise(p + before, bytes, MADV_HUGEPAGE); /* only faster; a kernel without it is fine */
	return p + before;
}

int baton_crt_init(struct baton_crt *t, uint64_t entries, uint32_t percent, uint32_t key_words, uint64_t seed)
{
	if (entries == 0 || percent == 0 || percent > 100 || (key_words != 1 && key_words != 3))
		return -EINVAL;
	uint32_t ways = BUCKET_WORDS / (key_words + 1);
	uint64_t buckets = (entries * 100 + ways * percent - 1) / (ways * percent) + 2;

	if (buckets > UINT32_MAX)
		return -EINVAL;
	memset(t, 0, sizeof(*t));
	t->bytes = (buckets * (sizeof(struct baton_bucket) + sizeof(*t->spilled)) + HUGE - 1) / HUGE * HUGE;
	void *p = huge_alloc(t->bytes);
	if (!p)
		return -ENOMEM;
	t->buckets = p;
	t->spilled = (uint8_t *)(t->buckets + buckets);
	t->seed = seed;
	t->limit = entries;
	t->bucket_count = (uint32_t)buckets;
	t->key_words = key_words;
	return 0;
}

void baton_crt_free(struct baton_crt *t)
{
	if (t->buckets)
		munmap(t->buckets, t->bytes);
	t->buckets = NULL;
}

/* mix: every bit of the key reaches the upper bits of both halves, which choose the buckets. The seed keeps clients from
 * choosing colliding ports. */
INLINE uint64_t mix(uint64_t h)
{
	h *= 0xff51afd7ed558ccdull;
	h = (h ^ h >> 32) * 0xc4ceb9fe1a85ec53ull;
	return h ^ h >> 32;
}

INLINE uint64_t hash_words(const struct baton_crt *t, const uint64_t *w, const uint32_t key_words)
{
	uint64_t h = mix(w[0] ^ t->seed);

	for (uint32_t i = 1; i < key_words; i++)
		h = mix(h ^ w[i]);
	return h;
}

/* The two buckets of a hash come from its two halves (a range reduction by multiplication: any bucket count works). */
INLINE uint32_t bucket_a(const struct baton_crt *t, uint64_t hash)
{
	return (uint32_t)((hash & 0xffffffff) * t->bucket_count >> 32);
}

INLINE uint32_t bucket_b(const struct baton_crt *t, uint64_t hash)
{
	return (uint32_t)((hash >> 32) * t->bucket_count >> 32);
}

/* bucket_c is the third one of an IPv6 key. */
INLINE uint32_t bucket_c(const struct baton_crt *t, uint64_t hash)
{
	return (uint32_t)((hash * 0x9e3779b97f4a7c15ull >> 32) * t->bucket_count >> 32);
}

/* in_third says whether an entry with this hash is where only a third look finds it. */
INLINE bool in_third(const struct baton_crt *t, uint64_t hash, uint32_t b, const uint32_t key_words)
{
	return key_words == 3 && b != bucket_a(t, hash) && b != bucket_b(t, hash);
}

uint64_t baton_crt_hash(const struct baton_crt *t, const struct baton_key *k)
{
	return t->key_words == 1 ? hash_words(t, k->w, 1) : hash_words(t, k->w, 3);
}

INLINE baton_word *entry_at(const struct baton_crt *t, uint32_t bucket, uint32_t way, const uint32_t key_words)
{
	return &t->buckets[bucket].w[way * (key_words + 1)];
}

INLINE bool entry_is_free(const baton_word *e, const uint32_t key_words)
{
	return load(&e[key_words - 1]) == 0;
}

INLINE bool entry_has(const baton_word *e, const struct baton_key *k, const uint32_t key_words)
{
	uint64_t differs = 0;

	for (uint32_t i = 0; i < key_words; i++)
		differs |= load(&e[i]) ^ k->w[i];
	return differs == 0;
}

/* way_find is the value's address, or 0: without a branch, as nobody can predict which way a key is in. */
INLINE uintptr_t way_find(const struct baton_crt *t, uint32_t b, uint32_t way, const struct baton_key *k,
			  const uint32_t key_words)
{
	baton_word *e = entry_at(t, b, way, key_words);

	return (uintptr_t)&e[key_words] & -(uintptr_t)entry_has(e, k, key_words);
}

INLINE baton_word *bucket_find(const struct baton_crt *t, uint32_t b, const struct baton_key *k,
			       const uint32_t key_words)
{
	uintptr_t found = way_find(t, b, 0, k, key_words) | way_find(t, b, 1, k, key_words);

	if (BUCKET_WORDS / (key_words + 1) == 4)
		found |= way_find(t, b, 2, k, key_words) | way_find(t, b, 3, k, key_words);
	return (baton_word *)found;
}

INLINE baton_word *find(const struct baton_crt *t, const struct baton_key *k, uint64_t hash, const uint32_t key_words)
{
	uint32_t a = bucket_a(t, hash);
	baton_word *v = bucket_find(t, a, k, key_words);

	if (v || !t->spilled[a])
		return v;
	v = bucket_find(t, bucket_b(t, hash), k, key_words);
	if (!v && key_words == 3 && t->thirds)
		v = bucket_find(t, bucket_c(t, hash), k, key_words);
	return v;
}

baton_word *baton_crt_find(const struct baton_crt *t, const struct baton_key *k, uint64_t hash)
{
	return t->key_words == 1 ? find(t, k, hash, 1) : find(t, k, hash, 3);
}

INLINE void fetch_bulk(const struct baton_crt *t, struct baton_lookup *const *l, uint32_t n, const uint32_t key_words)
{
	for (uint32_t i = 0; i < n; i++) {
		l[i]->hash = hash_words(t, l[i]->key.w, key_words);
		__builtin_prefetch(&t->buckets[bucket_a(t, l[i]->hash)]);
	}
}

static void fetch1(const struct baton_crt *t, struct baton_lookup *const *l, uint32_t n)
{
	fetch_bulk(t, l, n, 1);
}

static void fetch3(const struct baton_crt *t, struct baton_lookup *const *l, uint32_t n)
{
	fetch_bulk(t, l, n, 3);
}

/* spilled_only keeps those of n lookups whose first bucket has spilled, and returns how many. */
INLINE uint32_t spilled_only(const struct baton_crt *t, struct baton_lookup **l, uint32_t n)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < n; i++) {
		l[kept] = l[i];
		kept += t->spilled[bucket_a(t, l[i]->hash)] != 0;
	}
	return kept;
}

/* find_bulk waits for memory once more at most: the second buckets of those keys that are not in their first are under
 * way together. look: bucket_find, or one like it. */
INLINE void find_bulk(const struct baton_crt *t, struct baton_lookup *const *l, uint32_t n, const uint32_t key_words,
		      baton_word *(*const look)(const struct baton_crt *, uint32_t, const struct baton_key *, uint32_t))
{
	struct baton_lookup *second[BATON_BURST];
	uint32_t seconds = 0;

	assert(n <= BATON_BURST);
	for (uint32_t i = 0; i < n; i++) {
		baton_word *entry = look(t, bucket_a(t, l[i]->hash), &l[i]->key, key_words);

		l[i]->entry = entry;
		second[seconds] = l[i];
		seconds += entry == NULL;
	}
	seconds = spilled_only(t, second, seconds);
	for (uint32_t i = 0; i < seconds; i++)
		__builtin_prefetch(&t->buckets[bucket_b(t, second[i]->hash)]);
	for (uint32_t i = 0; i < seconds; i++)
		second[i]->entry = look(t, bucket_b(t, second[i]->hash), &second[i]->key, key_words);
	for (uint32_t i = 0; key_words == 3 && t->thirds && i < seconds; i++)
		if (!second[i]->entry)
			second[i]->entry = look(t, bucket_c(t, second[i]->hash), &second[i]->key, key_words);
}

static void find1(const struct baton_crt *t, struct baton_lookup *const *l, uint32_t n)
{
	find_bulk(t, l, n, 1, bucket_find);
}

static void find3(const struct baton_crt *t, struct baton_lookup *const *l, uint32_t n)
{
	find_bulk(t, l, n, 3, bucket_find);
}

static const struct baton_finder finder1 = {fetch1, find1}, finder3 = {fetch3, find3};

#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
#define BATON_SIMD

/* With AVX2 all four keys of an IPv4 bucket are compared at once. The writer is the only caller, so that loads need not
 * be atomic. */
__attribute__((target("avx2"))) INLINE baton_word *bucket_find_avx2(const struct baton_crt *t, uint32_t b,
								    const struct baton_key *k, uint32_t key_words)
{
	const __m256i *half = (const __m256i *)&t->buckets[b];
	const __m256i key = _mm256_set1_epi64x((long long)k->w[0]);
	unsigned int low = (unsigned int)_mm256_movemask_pd((__m256d)_mm256_cmpeq_epi64(half[0], key));
	unsigned int high = (unsigned int)_mm256_movemask_pd((__m256d)_mm256_cmpeq_epi64(half[1], key));
	unsigned int found = (low | high << 4) & 0x55; /* keys are the even words */

	(void)key_words;
	return found ? &t->buckets[b].w[__builtin_ctz(found) + 1] : NULL;
}

__attribute__((target("avx2"))) static void find1_avx2(const struct baton_crt *t, struct baton_lookup *const *l,
						       uint32_t n)
{
	find_bulk(t, l, n, 1, bucket_find_avx2);
}

static const struct baton_finder finder1_avx2 = {fetch1, find1_avx2};
#endif

const struct baton_finder *baton_crt_finder(uint32_t key_words, bool simd)
{
#ifdef BATON_SIMD
	if (simd && key_words == 1 && __builtin_cpu_supports("avx2"))
		return &finder1_avx2;
#endif
	(void)simd;
	return key_words == 1 ? &finder1 : &finder3;
}

/* Writers bracket a change of a bucket's keys; baton_crt_read retries while the version is odd or has changed. */
INLINE void bucket_begin(struct baton_crt *t, uint32_t bucket)
{
	_Atomic uint32_t *v = &t->version[bucket % BATON_CRT_STRIPES];

	atomic_store_explicit(v, atomic_load_explicit(v, memory_order_relaxed) + 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
}

INLINE void bucket_end(struct baton_crt *t, uint32_t bucket)
{
	_Atomic uint32_t *v = &t->version[bucket % BATON_CRT_STRIPES];

	atomic_store_explicit(v, atomic_load_explicit(v, memory_order_relaxed) + 1, memory_order_release);
}

INLINE uint32_t bucket_of(const struct baton_crt *t, const baton_word *w)
{
	return (uint32_t)(((const uint8_t *)w - (const uint8_t *)t->buckets) / sizeof(struct baton_bucket));
}

INLINE void entry_clear(struct baton_crt *t, baton_word *e, const uint32_t key_words)
{
	uint32_t b = bucket_of(t, e);

	bucket_begin(t, b);
	for (uint32_t i = 0; i <= key_words; i++)
		store(&e[i], 0);
	bucket_end(t, b);
}

INLINE baton_word *entry_fill(struct baton_crt *t, baton_word *e, const uint64_t *key, uint64_t value,
			      const uint32_t key_words)
{
	uint32_t b = bucket_of(t, e);

	bucket_begin(t, b);
	for (uint32_t i = 0; i < key_words; i++)
		store(&e[i], key[i]);
	store(&e[key_words], value);
	bucket_end(t, b);
	return &e[key_words];
}

/* spilled_note says that an entry with this hash is in bucket b from now on, or that it was there until now. */
INLINE void spilled_note(struct baton_crt *t, uint64_t hash, uint32_t b, bool there)
{
	uint32_t a = bucket_a(t, hash);

	if (a != b && t->spilled[a] < UINT8_MAX)
		t->spilled[a] += there ? 1 : -1;
}

INLINE void entry_move(struct baton_crt *t, baton_word *to, baton_word *from, const uint32_t key_words)
{
	uint64_t key[3];

	for (uint32_t i = 0; i < key_words; i++)
		key[i] = load(&from[i]);
	uint64_t hash = hash_words(t, key, key_words);
	uint32_t from_b = bucket_of(t, from), to_b = bucket_of(t, to);

	spilled_note(t, hash, to_b, true);
	spilled_note(t, hash, from_b, false);
	t->thirds += in_third(t, hash, to_b, key_words);
	t->thirds -= in_third(t, hash, from_b, key_words);
	entry_fill(t, to, key, load(&from[key_words]), key_words);
	entry_clear(t, from, key_words);
	atomic_store_explicit(&t->displaced, load(&t->displaced) + 1, memory_order_release);
}

INLINE baton_word *bucket_free_entry(const struct baton_crt *t, uint32_t b, const uint32_t key_words)
{
	for (uint32_t way = 0; way < BUCKET_WORDS / (key_words + 1); way++) {
		baton_word *e = entry_at(t, b, way, key_words);

		if (entry_is_free(e, key_words))
			return e;
	}
	return NULL;
}

/* A node of the breadth-first search: a bucket, and which entry of which earlier node would move here. */
struct path_node {
	uint32_t bucket;
	int16_t parent; /* -1: a bucket of the new key itself */
	uint16_t way;   /* of the parent's bucket */
};

enum { CHOICES = 3 }; /* buckets of a key at most */

/* choices_of lists the first `most` buckets of a hash, 2 or 3. */
INLINE void choices_of(const struct baton_crt *t, uint64_t hash, const uint32_t most, uint32_t b[CHOICES])
{
	b[0] = bucket_a(t, hash);
	b[1] = bucket_b(t, hash);
	if (most == CHOICES)
		b[2] = bucket_c(t, hash);
}

INLINE uint64_t entry_hash(const struct baton_crt *t, const baton_word *e, const uint32_t key_words)
{
	uint64_t key[3];

	for (uint32_t i = 0; i < key_words; i++)
		key[i] = load(&e[i]);
	return hash_words(t, key, key_words);
}

/* path_apply moves the entries along the path to node n, the far end first, and returns the place that became free. */
INLINE baton_word *path_apply(struct baton_crt *t, const struct path_node *nodes, int n, baton_word *free_entry,
			      const uint32_t key_words)
{
	while (nodes[n].parent >= 0) {
		baton_word *from = entry_at(t, nodes[nodes[n].parent].bucket, nodes[n].way, key_words);

		entry_move(t, free_entry, from, key_words);
		free_entry = from;
		n = nodes[n].parent;
	}
	return free_entry;
}

/* path_has says whether bucket b is already on the way to node n: a path must not use a bucket twice. */
INLINE bool path_has(const struct path_node *nodes, int n, uint32_t b)
{
	for (; n >= 0; n = nodes[n].parent)
		if (nodes[n].bucket == b)
			return true;
	return false;
}

/* path_grow adds where the entry in this way of node n could move, and returns how many nodes there are then. */
INLINE int path_grow(const struct baton_crt *t, struct path_node *nodes, int count, int n, uint16_t way,
		     const uint32_t key_words, const uint32_t choices)
{
	const baton_word *e = entry_at(t, nodes[n].bucket, way, key_words);
	uint32_t next[CHOICES];

	choices_of(t, entry_hash(t, e, key_words), choices, next);
	for (uint32_t i = 0; i < choices && count < PATH_NODES; i++)
		if (!path_has(nodes, n, next[i]))
			nodes[count++] = (struct path_node){next[i], (int16_t)n, way};
	return count;
}

/* make_room finds a free entry in the first `choices` buckets of a hash, or makes one there. */
static baton_word *make_room(struct baton_crt *t, uint64_t hash, const uint32_t key_words, const uint32_t choices)
{
	struct path_node nodes[PATH_NODES];
	uint32_t first[CHOICES];
	int count = 0;

	choices_of(t, hash, choices, first);
	for (uint32_t i = 0; i < choices; i++)
		nodes[count++] = (struct path_node){first[i], -1, 0};
	for (int n = 0; n < count; n++) {
		baton_word *e = bucket_free_entry(t, nodes[n].bucket, key_words);

		if (e)
			return path_apply(t, nodes, n, e, key_words);
		for (uint16_t way = 0; way < BUCKET_WORDS / (key_words + 1) && count < PATH_NODES; way++)
			count = path_grow(t, nodes, count, n, way, key_words, choices);
	}
	return NULL;
}

/* free_or_room finds a free entry at once nearly always; else it makes one, in a third bucket if it must. */
INLINE baton_word *free_or_room(struct baton_crt *t, uint64_t hash, const uint32_t key_words)
{
	baton_word *e = bucket_free_entry(t, bucket_a(t, hash), key_words);

	if (!e)
		e = bucket_free_entry(t, bucket_b(t, hash), key_words);
	if (!e)
		e = make_room(t, hash, key_words, 2);
	if (e || key_words != 3)
		return e;
	return make_room(t, hash, key_words, 3);
}

INLINE baton_word *insert(struct baton_crt *t, const struct baton_key *k, uint64_t hash, uint64_t value,
			  const uint32_t key_words)
{
	uint64_t used = load(&t->used);
	baton_word *e = used < t->limit ? free_or_room(t, hash, key_words) : NULL;

	if (!e)
		return NULL;
	store(&t->used, used + 1);
	t->changes++;
	spilled_note(t, hash, bucket_of(t, e), true);
	t->thirds += in_third(t, hash, bucket_of(t, e), key_words);
	return entry_fill(t, e, k->w, value, key_words);
}

baton_word *baton_crt_insert(struct baton_crt *t, const struct baton_key *k, uint64_t hash, uint64_t value)
{
	return t->key_words == 1 ? insert(t, k, hash, value, 1) : insert(t, k, hash, value, 3);
}

/* service_id_of reads the service from an entry's key, as baton.h draws it. */
static uint16_t service_id_of(const struct baton_crt *t, const baton_word *v)
{
	return t->key_words == 1 ? (uint16_t)load(v - 1) : (uint16_t)(load(v - 1) >> 16);
}

INLINE void entry_remove(struct baton_crt *t, baton_word *e, const uint32_t key_words)
{
	uint64_t hash = entry_hash(t, e, key_words);
	uint32_t b = bucket_of(t, e);

	spilled_note(t, hash, b, false);
	t->thirds -= in_third(t, hash, b, key_words);
	entry_clear(t, e, key_words);
}

void baton_crt_remove(struct baton_crt *t, baton_word *v)
{
	if (t->removing)
		t->removing(t->removing_arg, service_id_of(t, v), load(v));
	if (t->key_words == 1)
		entry_remove(t, v - 1, 1);
	else
		entry_remove(t, v - 3, 3);
	store(&t->used, load(&t->used) - 1);
	t->changes++;
}

/* of_target says that the entry with this value may be forgotten without the control plane, which owns the others. */
INLINE bool of_target(uint64_t value)
{
	return baton_value_state(value) >= BATON_TARGET;
}

static void bucket_oldest(const struct baton_crt *t, uint32_t b, uint64_t now_ms, baton_word **oldest,
			  uint32_t *longest)
{
	uint32_t kw = t->key_words;

	for (uint32_t way = 0; way < BUCKET_WORDS / (kw + 1); way++) {
		baton_word *e = entry_at(t, b, way, kw);
		uint32_t idle = baton_value_idle(load(&e[kw]), now_ms);

		if (entry_is_free(e, kw) || !of_target(load(&e[kw])) || (*oldest && idle <= *longest))
			continue;
		*oldest = &e[kw];
		*longest = idle;
	}
}

baton_word *baton_crt_oldest(const struct baton_crt *t, uint64_t hash, uint64_t now_ms)
{
	baton_word *oldest = NULL;
	uint32_t longest = 0;

	bucket_oldest(t, bucket_b(t, hash), now_ms, &oldest, &longest);
	for (uint32_t b = bucket_a(t, hash), n = 0; n < OLDEST_BUCKETS; n++) {
		bucket_oldest(t, b, now_ms, &oldest, &longest);
		if (++b == t->bucket_count)
			b = 0;
	}
	return oldest;
}

/* entry_ages handles one entry for a sweep, and says whether it was removed. */
static bool entry_ages(struct baton_crt *t, baton_word *e, const struct baton_ages *ages, uint64_t now_ms)
{
	uint32_t kw = t->key_words;
	uint64_t value = load(&e[kw]);
	uint32_t limit = value & BATON_VALUE_END ? ages->ended_s : ages->target_s;
	uint32_t idle = baton_value_idle(value, now_ms);

	if (entry_is_free(e, kw) || !of_target(value) || limit == 0 || idle < limit)
		return false;
	if (idle >= limit + BATON_IDLE_GRACE) {
		baton_crt_remove(t, &e[kw]);
		return true;
	}
	if (ages->ask) {
		struct baton_key k = {{0}};

		for (uint32_t i = 0; i < kw; i++)
			k.w[i] = load(&e[i]);
		ages->ask(ages->arg, &k, value);
	}
	return false;
}

uint32_t baton_crt_sweep(struct baton_crt *t, uint32_t n, const struct baton_ages *ages, uint64_t now_ms)
{
	uint32_t removed = 0;

	while (n--) {
		for (uint32_t way = 0; way < BUCKET_WORDS / (t->key_words + 1); way++)
			removed += entry_ages(t, entry_at(t, t->hand, way, t->key_words), ages, now_ms);
		if (++t->hand == t->bucket_count)
			t->hand = 0;
	}
	return removed;
}

static void bucket_copy(const struct baton_crt *t, uint32_t b, uint64_t w[BUCKET_WORDS])
{
	const _Atomic uint32_t *version = &t->version[b % BATON_CRT_STRIPES];
	uint32_t before, after;

	do {
		before = atomic_load_explicit(version, memory_order_acquire);
		for (int i = 0; i < BUCKET_WORDS; i++)
			w[i] = load(&t->buckets[b].w[i]);
		atomic_thread_fence(memory_order_acquire);
		after = atomic_load_explicit(version, memory_order_relaxed);
	} while (before != after || (before & 1));
}

int baton_crt_read(const struct baton_crt *t, uint32_t b, struct baton_entry out[4])
{
	uint32_t kw = t->key_words;
	uint64_t w[BUCKET_WORDS];
	int n = 0;

	bucket_copy(t, b, w);
	for (uint32_t i = 0; i < BUCKET_WORDS; i += kw + 1) {
		if (w[i + kw - 1] == 0)
			continue;
		out[n] = (struct baton_entry){.value = w[i + kw]};
		memcpy(out[n++].key.w, &w[i], kw * sizeof(w[0]));
	}
	return n;
}
