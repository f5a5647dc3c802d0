/* SPDX-License-Identifier: Apache-2.0
 *
 * A forwarder's life: open, the polling loop and its idle back-off, what other threads may read, close.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "forwarder.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
	NICE = -10,             /* of the poll loop: before everything else that runs by chance on its CPU */
	FIRST_SLEEP_NS = 20000, /* doubled from nap to nap, up to the configured one */
	SLEEPLESS_POLLS = 16,   /* idle polls between two looks at the clock while spinning */
	DEEP_AFTER_MS = 100, /* idle for so long: naps grow to DEEP_FACTOR times the configured sleep, 3 % of a core */
	DEEP_FACTOR = 3,
	FIRST_SECOND = 1000000000, /* cycles, as long as it is not known how many a second has */
	DRAIN_MS = 50,             /* at the end: longest wait for ports that take no frames */
};

/* ---- open and close */

static int forwarder_init(struct baton_forwarder *f, const struct baton_config *c, const struct baton_service *services)
{
	int err;

	if (c->port_count == 0 || c->port_count > BATON_MAX_PORTS || c->service_count > UINT16_MAX - 1 ||
	    c->router_flows == 0 || c->router_flows > BATON_MAX_FLOWS || c->half_open > 1 << 20 ||
	    c->target_idle_s > BATON_IDLE_MAX || c->ended_idle_s > BATON_IDLE_MAX || c->evict_idle_s > BATON_IDLE_MAX)
		return -EINVAL;
	f->fragments.seed = c->seed;
	f->punt_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (f->punt_fd < 0)
		return -errno;
	f->port_count = c->port_count;
	f->classify = classifier_for(true);
	f->finder4 = baton_crt_finder(1, true);
	f->finder6 = baton_crt_finder(3, true);
	f->usual_way = (struct owner){.known = true}.way;
	f->idle_spin_us = c->idle_spin_us;
	f->idle_sleep_us = c->idle_sleep_us;
	f->interrupts = c->interrupts;
	for (uint32_t i = 0; i < BATON_BURST; i++)
		f->every[i] = &f->burst[i].lookup;
	for (uint32_t i = 0; i < BATON_MAX_PORTS; i++) {
		f->ports[i].index = (uint16_t)i;
		f->ports[i].forwarder = f;
	}
	clock_update(f);
	baton_cookies_init(&f->cookies, c->secret, f->now_ms);
	if ((err = baton_crt_init(&f->crt4, c->ipv4_entries, BATON_CRT_PERCENT, 1, c->seed)) ||
	    (err = baton_crt_init(&f->crt6, c->ipv6_entries, BATON_CRT_PERCENT, 3, c->seed)) ||
	    (err = flows_init(f, c)) || (err = services_index(f, services, c->service_count)) ||
	    (err = pickers_init(f)) || (err = baton_ring_init(&f->commands, COMMAND_RING)) ||
	    (err = baton_ring_init(&f->punts, PUNT_RING)))
		return err;
	return 0;
}

struct baton_forwarder *baton_open(const struct baton_config *c, const struct baton_service *services, int *err)
{
	struct baton_forwarder *f = aligned_alloc(BATON_CACHE_LINE, sizeof(*f));

	if (!f) {
		*err = -ENOMEM;
		return NULL;
	}
	memset(f, 0, sizeof(*f));
	f->punt_fd = f->epoll = f->wake_fd = -1;
	*err = forwarder_init(f, c, services);
	if (*err == 0)
		return f;
	baton_close(f);
	return NULL;
}

void frames_release(struct baton_forwarder *f)
{
	fragments_free(f);
	for (uint32_t i = 0; i < f->flow_count; i++)
		if (f->flows && f->flows[i].state != FLOW_FREE)
			flow_release(f, &f->flows[i]);
	if (f->shards)
		shard_discard(f);
	if (f->freed_count)
		f->ports[0].ops->free(&f->ports[0], f->freed, f->freed_count);
	f->freed_count = 0;
	for (uint32_t i = 0; i < f->port_count; i++) {
		if (f->ports[i].tx_count)
			f->ports[i].ops->free(&f->ports[i], f->ports[i].tx, f->ports[i].tx_count);
		f->ports[i].tx_count = 0;
	}
}

void baton_close(struct baton_forwarder *f)
{
	frames_release(f);
	for (uint32_t i = 0; i < f->port_count; i++)
		if (f->ports[i].ops)
			f->ports[i].ops->close(&f->ports[i]);
	baton_crt_free(&f->crt4);
	baton_crt_free(&f->crt6);
	flows_free(f);
	baton_ring_free(&f->commands);
	baton_ring_free(&f->punts);
	pickers_free(f);
	free(f->services_by_addr);
	free(f->services_plain);
	free(f->services);
	free(f->locals);
	if (f->punt_fd >= 0)
		close(f->punt_fd);
	watch_close(f);
	free(f);
}

struct baton_port *baton_port(struct baton_forwarder *f, uint16_t index)
{
	return index < f->port_count ? &f->ports[index] : NULL;
}

void baton_port_address(struct baton_forwarder *f, uint16_t index, struct baton_ip addr)
{
	f->ports[index].addr = addr;
	f->locals[f->local_count++] = (struct local){addr, index};
}

void baton_port_exception(struct baton_forwarder *f, uint16_t index, bool on)
{
	f->ports[index].exception = on;
}

void baton_port_vlan(struct baton_forwarder *f, uint16_t index, uint16_t vlan)
{
	f->ports[index].vlan = vlan;
	f->ports[index].tag = f->ports[index].elsewhere ? 0 : vlan;
}

/* ---- the loop */

static uint64_t monotonic_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

/* cycles counts time in a unit of its own; only ratios are taken of it. */
static inline uint64_t cycles(void)
{
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#else
	return monotonic_ns();
#endif
}

static inline void cpu_relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#endif
}

void loop_wake(struct baton_forwarder *f)
{
	if (!baton_ring_wake(&f->commands))
		return;
	if (f->epoll >= 0)
		wait_ring(f);
	else
		syscall(SYS_futex, &f->commands.sleeping, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* nap sleeps until a command or another shard's frame comes, but no longer than ns. */
static void nap(struct baton_forwarder *f, uint64_t ns)
{
	const struct timespec t = {.tv_nsec = (long)ns};

	if (!baton_ring_announce(&f->commands))
		return;
	if (!f->shards || !shard_waiting(f))
		syscall(SYS_futex, &f->commands.sleeping, FUTEX_WAIT_PRIVATE, 1, &t, NULL, 0);
	atomic_store_explicit(&f->commands.sleeping, 0, memory_order_relaxed);
}

struct idle {
	uint64_t since_ns; /* 0: not idle */
	uint64_t nap_ns;
	unsigned int polls;
};

/* back_off is called after each poll that found nothing: spin first, then nap longer and longer, or wait for interrupts. It
 * returns how long it meant to sleep, ns. */
static uint64_t back_off(struct baton_forwarder *f, struct idle *idle)
{
	uint64_t longest = f->idle_sleep_us * 1000ull;

	cpu_relax();
	if (longest == 0 || (idle->nap_ns == 0 && idle->polls++ % SLEEPLESS_POLLS))
		return 0;
	uint64_t now = monotonic_ns();

	if (idle->since_ns == 0)
		idle->since_ns = now;
	if (now - idle->since_ns < f->idle_spin_us * 1000ull)
		return 0;
	if (f->epoll >= 0 && now - idle->since_ns > DEEP_AFTER_MS * 1000000ull) {
		if (interrupt_wait(f))
			*idle = (struct idle){0};
		return monotonic_ns() - now;
	}
	if (now - idle->since_ns > DEEP_AFTER_MS * 1000000ull)
		longest *= DEEP_FACTOR;
	idle->nap_ns = idle->nap_ns ? idle->nap_ns * 2 : FIRST_SLEEP_NS;
	if (idle->nap_ns > longest)
		idle->nap_ns = longest;
	nap(f, idle->nap_ns);
	return idle->nap_ns;
}

/* pace is how the loop spends the second under way, in cycles. */
struct pace {
	uint64_t since, since_ns; /* when it began, in cycles and on the monotonic clock */
	uint64_t length;
	uint64_t last; /* end of the last step */
	uint64_t busy, idle, polls;
	uint64_t gap;         /* longest step, without what was slept on purpose */
	double cycles_per_ns; /* of the second before; 0: not known yet */
};

static void value_add(baton_word *v, uint64_t n)
{
	value_store(v, value_load(v) + n);
}

/* pace_publish ends a second. */
static void pace_publish(struct baton_forwarder *f, struct pace *p)
{
	uint64_t now = monotonic_ns(), took = now - p->since_ns, all = p->busy + p->idle;
	double cycles_per_ns = took && all ? (double)all / (double)took : 1;
	uint64_t gap_ns = (uint64_t)((double)p->gap / cycles_per_ns);
	uint64_t busy_ns = (uint64_t)((double)p->busy / cycles_per_ns);

	value_store(&f->pace.gap_ns, gap_ns);
	if (gap_ns > value_load(&f->pace.gap_max_ns))
		value_store(&f->pace.gap_max_ns, gap_ns);
	value_add(&f->pace.busy_ns, busy_ns);
	value_add(&f->pace.idle_ns, took - busy_ns);
	value_add(&f->pace.polls, p->polls);
	value_store(&f->pace.busy_ppm, all ? (uint64_t)((double)p->busy / (double)all * 1e6) : 0);
	*p = (struct pace){
	    .since = p->last,
	    .since_ns = now,
	    .length = (uint64_t)(cycles_per_ns * 1e9),
	    .last = p->last,
	    .cycles_per_ns = cycles_per_ns,
	};
}

/* pace_step accounts what the loop did since the last call. */
static inline void pace_step(struct baton_forwarder *f, struct pace *p, bool worked, uint64_t slept_ns)
{
	uint64_t now = cycles(), took = now - p->last, slept = (uint64_t)((double)slept_ns * p->cycles_per_ns);

	p->last = now;
	*(worked ? &p->busy : &p->idle) += took;
	if (slept_ns == 0 || (p->cycles_per_ns > 0 && took > slept))
		p->gap = took - slept > p->gap ? took - slept : p->gap;
	if (now - p->since >= p->length)
		pace_publish(f, p);
}

/* drain ends what was promised: the commands that are queued, and their frames. */
static void drain(struct baton_forwarder *f)
{
	uint64_t end = monotonic_ns() + DRAIN_MS * 1000000ull;

	while (poll_drain(f) && monotonic_ns() < end)
		cpu_relax();
}

int baton_run(struct baton_forwarder *f)
{
	struct pace pace = {.since_ns = monotonic_ns(), .length = FIRST_SECOND};
	struct idle idle = {0};

	pace.since = pace.last = cycles();
	prctl(PR_SET_NAME, "baton-poll");
	prctl(PR_SET_TIMERSLACK, 1); /* ns; the default of 50 us would be half a nap */
	/* Where the loop has to share its CPU, its rings overflow while others run. Not real-time: the kernel throttles
	 * that. A process without CAP_SYS_NICE polls all the same. */
	setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICE);
	while (!atomic_load_explicit(&f->stop, memory_order_relaxed)) {
		bool worked = baton_poll(f) > 0;

		pace.polls++;
		pace_step(f, &pace, worked, 0);
		if (worked) {
			idle = (struct idle){0};
			continue;
		}
		uint64_t slept_ns = back_off(f, &idle);

		pace_step(f, &pace, false, slept_ns);
	}
	drain(f);
	return 0;
}

void baton_stop(struct baton_forwarder *f)
{
	atomic_store_explicit(&f->stop, true, memory_order_relaxed);
}

static void *thread_main(void *arg)
{
	baton_run(arg);
	return NULL;
}

int baton_start(struct baton_forwarder *f, int cpu)
{
	pthread_attr_t attr;
	sigset_t all, old;
	cpu_set_t set;
	int err;

	pthread_attr_init(&attr);
	if (cpu >= 0) {
		CPU_ZERO(&set);
		CPU_SET(cpu, &set);
		pthread_attr_setaffinity_np(&attr, sizeof(set), &set);
	}
	sigfillset(&all); /* the thread inherits it: handlers of the Go runtime must not run there */
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&f->thread, &attr, thread_main, f);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	f->thread_started = err == 0;
	return -err;
}

void baton_join(struct baton_forwarder *f)
{
	if (f->thread_started)
		pthread_join(f->thread, NULL);
	f->thread_started = false;
}

/* ---- secrets */

int baton_secrets_set(struct baton_forwarder *f, const struct baton_secret *secrets, uint32_t count)
{
	struct secrets *s = &f->secrets;
	uint32_t version = atomic_load_explicit(&s->version, memory_order_relaxed) + 1;

	if (count < 1 || count > BATON_SECRETS)
		return -EINVAL;
	memcpy(s->list[version & 1], secrets, count * sizeof(*secrets));
	s->count[version & 1] = count;
	atomic_store_explicit(&s->version, version, memory_order_release);
	return 0;
}

void secrets_take(struct baton_forwarder *f)
{
	struct secrets *s = &f->secrets;
	uint32_t version = atomic_load_explicit(&s->version, memory_order_acquire), n;
	struct baton_secret list[BATON_SECRETS];

	if (version == s->taken)
		return;
	n = s->count[version & 1];
	memcpy(list, s->list[version & 1], sizeof(list));
	atomic_thread_fence(memory_order_acquire);
	if (atomic_load_explicit(&s->version, memory_order_relaxed) != version)
		return; /* set again meanwhile, perhaps this list: next time */
	s->taken = version;
	baton_cookies_secrets(&f->cookies, list, n, f->now_ms);
}

/* ---- the consumer's side */

int baton_receive(struct baton_forwarder *f, struct baton_punt **out, int n)
{
	uint32_t len;
	int i = 0;

	baton_ring_release(&f->punts);
	while (i < n && (out[i] = baton_ring_take(&f->punts, &len)))
		i++;
	return i;
}

bool baton_punt_ready(struct baton_forwarder *f)
{
	return baton_ring_holds(&f->punts);
}

bool baton_punt_sleep(struct baton_forwarder *f)
{
	return baton_ring_announce(&f->punts);
}

int baton_punt_fd(struct baton_forwarder *f)
{
	return f->punt_fd;
}

void baton_clock_set(struct baton_forwarder *f, uint64_t now_ms)
{
	value_store(&f->clock_ms, now_ms);
}

uint64_t baton_counter_read(struct baton_forwarder *f, unsigned int counter)
{
	return counter < BATON_COUNTER_COUNT ? value_load(&f->counters[counter]) : 0;
}

const struct baton_counter_info *baton_counter_describe(unsigned int counter)
{
	static const struct baton_counter_info info[] = {
#define X(symbol, group, name, help) {group, name, help},
	    BATON_COUNTERS(X)
#undef X
	};

	return counter < BATON_COUNTER_COUNT ? &info[counter] : NULL;
}

const struct baton_pace *baton_pace_of(struct baton_forwarder *f)
{
	return &f->pace;
}

const struct baton_crt *baton_crt_of(struct baton_forwarder *f, bool ipv6)
{
	return crt_of(f, ipv6);
}

uint64_t baton_now_ms(struct baton_forwarder *f)
{
	return value_load(&f->now_shared);
}

uint32_t baton_flows_used(struct baton_forwarder *f)
{
	return atomic_load_explicit(&f->flows_used, memory_order_relaxed);
}
