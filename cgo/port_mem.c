/* SPDX-License-Identifier: Apache-2.0
 *
 * A port in memory, for tests, the simulation and machines without DPDK. Frames come and go through two rings, so that
 * another thread may feed and drain it; the buffers belong to the poll thread. A frame may leave by another port than
 * the one it came in by, and be freed there, so each buffer knows its port.
 */
#include "forwarder.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
	MEM_BUFFERS = 2 * HELD_TOTAL,
	MEM_ROOM = 9216, /* jumbo frames */
	MEM_HEAD = 128,  /* RTE_PKTMBUF_HEADROOM */
	MEM_RING = 1 << 21,
};

/* slot is a buffer. */
struct slot {
	struct mem *owner;
	uint8_t data[];
};

enum { SLOT_SIZE = sizeof(struct slot) + MEM_HEAD + MEM_ROOM };

struct mem {
	struct baton_ring in, out;
	uint8_t *memory; /* slots; NULL: each slot is allocated for its frame, and any thread may free it */
	uint16_t head;   /* octets in front of each frame */
	struct slot *stack[MEM_BUFFERS];
	uint32_t free;
	_Atomic uint32_t in_use;
	int event; /* eventfd: the interrupt; -1: nobody watches */
	_Atomic bool armed;
};

static int mem_buf(struct mem *m, struct baton_buf *buf, uint32_t len)
{
	struct slot *slot;
	bool tight = !m->memory;

	if (tight)
		slot = malloc(sizeof(*slot) + m->head + len);
	else
		slot = m->free ? m->stack[--m->free] : NULL;
	if (!slot)
		return -ENOMEM;
	slot->owner = m;
	atomic_fetch_add_explicit(&m->in_use, 1, memory_order_relaxed);
	*buf = (struct baton_buf){slot->data + m->head, slot, len, (uint16_t)(tight ? len : MEM_ROOM), m->head};
	return 0;
}

static int mem_alloc(struct baton_port *p, struct baton_buf *buf)
{
	return mem_buf(p->device, buf, MEM_ROOM);
}

static void mem_free(struct baton_port *p, struct baton_buf *bufs, uint16_t n)
{
	(void)p;
	for (uint16_t i = 0; i < n; i++) {
		struct slot *slot = bufs[i].handle;
		struct mem *m = slot->owner;

		atomic_fetch_sub_explicit(&m->in_use, 1, memory_order_relaxed);
		if (m->memory)
			m->stack[m->free++] = slot;
		else
			free(slot);
	}
}

static uint16_t mem_rx_burst(struct baton_port *p, struct baton_buf *bufs, uint16_t n)
{
	struct mem *m = p->device;
	const uint8_t *frame;
	uint32_t len;
	uint16_t i = 0;

	while (i < n && (!m->memory || m->free) && (frame = baton_ring_take(&m->in, &len))) {
		if (mem_buf(m, &bufs[i], len))
			break;
		memcpy(bufs[i++].data, frame, len);
	}
	baton_ring_release(&m->in);
	return i;
}

static uint16_t mem_tx_burst(struct baton_port *p, struct baton_buf *bufs, uint16_t n)
{
	struct mem *m = p->device;
	uint16_t i;

	for (i = 0; i < n; i++) {
		void *frame = baton_ring_reserve(&m->out, bufs[i].len);

		if (!frame)
			break;
		memcpy(frame, bufs[i].data, bufs[i].len);
		baton_ring_publish(&m->out);
	}
	mem_free(p, bufs, i);
	return i;
}

static void mem_close(struct baton_port *p)
{
	struct mem *m = p->device;

	baton_ring_free(&m->in);
	baton_ring_free(&m->out);
	if (m->event >= 0)
		close(m->event);
	free(m->memory);
	free(m);
	p->ops = NULL;
}

static int mem_watch(struct baton_port *p, int epoll)
{
	struct mem *m = p->device;
	struct epoll_event e = {.events = EPOLLIN | EPOLLET};

	m->event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return m->event < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, m->event, &e) ? -errno : 0;
}

/* mem_arm: as in baton_ring_announce, either the poll thread sees a frame or mem_inject sees that it is armed. */
static int mem_arm(struct baton_port *p, bool on)
{
	struct mem *m = p->device;

	atomic_store_explicit(&m->armed, on, memory_order_seq_cst);
	atomic_thread_fence(memory_order_seq_cst);
	return 0;
}

static void mem_wait(int epoll, int ms)
{
	struct epoll_event events[BATON_MAX_PORTS];

	(void)!epoll_wait(epoll, events, BATON_MAX_PORTS, ms);
}

static const struct baton_port_ops mem_ops = {
    .rx_burst = mem_rx_burst,
    .tx_burst = mem_tx_burst,
    .alloc = mem_alloc,
    .free = mem_free,
    .close = mem_close,
    .watch = mem_watch,
    .arm = mem_arm,
    .wait = mem_wait,
};

static void mem_leave(struct baton_port *p)
{
	p->ops = NULL;
}

/* mem_elsewhere_ops are of a port whose frames come and go by shard 0. */
static const struct baton_port_ops mem_elsewhere_ops = {
    .rx_burst = shard_no_rx,
    .tx_burst = shard_tx,
    .alloc = mem_alloc,
    .free = mem_free,
    .close = mem_leave,
    .wait = mem_wait,
};

static int mem_init(struct mem *m, bool pool)
{
	int err;

	if ((err = baton_ring_init(&m->in, MEM_RING)) || (err = baton_ring_init(&m->out, MEM_RING)))
		return err;
	if (!pool)
		return 0;
	m->memory = calloc(MEM_BUFFERS, SLOT_SIZE);
	if (!m->memory)
		return -ENOMEM;
	while (m->free < MEM_BUFFERS) {
		m->stack[m->free] = (struct slot *)(m->memory + (size_t)m->free * SLOT_SIZE);
		m->free++;
	}
	return 0;
}

static int mem_make(struct baton_port *p, bool pool, uint16_t head)
{
	struct mem *m = aligned_alloc(BATON_CACHE_LINE, sizeof(*m));
	int err;

	if (!m)
		return -ENOMEM;
	memset(m, 0, sizeof(*m));
	m->head = head;
	m->event = -1;
	p->device = m;
	p->ops = &mem_ops;
	err = mem_init(m, pool);
	if (err)
		mem_close(p);
	return err;
}

int baton_port_mem_open(struct baton_forwarder *f, uint16_t index, const uint8_t mac[BATON_MAC_LEN],
			enum baton_mem_mode mode)
{
	struct baton_port *p = baton_port(f, index);
	int err;

	if (!p || p->ops)
		return -EINVAL;
	memcpy(p->mac, mac, BATON_MAC_LEN);
	p->frame_max = MEM_ROOM;
	if (mode == BATON_MEM_MIXED && f->shard > 0) {
		p->device = f->shards->shard[0]->ports[index].device;
		p->ops = &mem_elsewhere_ops;
		p->elsewhere = true;
		return 0;
	}
	err = mem_make(p, !f->shards && (mode == BATON_MEM_POOL || mode == BATON_MEM_BARE),
		       mode == BATON_MEM_BARE ? 0 : MEM_HEAD);
	p->mixed = mode == BATON_MEM_MIXED;
	return err;
}

int baton_port_mem_inject(struct baton_forwarder *f, uint16_t index, const uint8_t *frame, uint32_t len)
{
	struct mem *m = f->ports[index].device;
	void *to;

	if (len > MEM_ROOM)
		return -EMSGSIZE;
	to = baton_ring_reserve(&m->in, len);
	if (!to)
		return -ENOBUFS;
	if (len > 0) /* an empty frame may have no address */
		memcpy(to, frame, len);
	baton_ring_publish(&m->in);
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&m->armed, memory_order_seq_cst))
		eventfd_write(m->event, 1);
	return 0;
}

uint32_t baton_port_mem_in_use(struct baton_forwarder *f, uint16_t index)
{
	const struct mem *m = f->ports[index].device;

	return m->in_use;
}

uint32_t baton_port_mem_collect(struct baton_forwarder *f, uint16_t index, uint8_t *frame, uint32_t room)
{
	struct mem *m = f->ports[index].device;
	uint32_t len;
	const void *from = baton_ring_take(&m->out, &len);

	if (!from)
		return 0;
	len = len < room ? len : room;
	memcpy(frame, from, len);
	baton_ring_release(&m->out);
	return len;
}
