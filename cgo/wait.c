/* SPDX-License-Identifier: Apache-2.0
 *
 * Waiting for receive interrupts: an epoll set of all ports that a forwarder receives from, and an eventfd that commands
 * and other shards' frames ring.
 */
#include "forwarder.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { WAIT_MS = 10 }; /* longest, as timers run after it */

void watch_close(struct baton_forwarder *f)
{
	if (f->epoll >= 0)
		close(f->epoll);
	if (f->wake_fd >= 0)
		close(f->wake_fd);
	f->epoll = f->wake_fd = -1;
}

/* arm_all turns the interrupts of all ports on or off. */
static void arm_all(struct baton_forwarder *f, bool on)
{
	for (uint32_t i = 0; i < f->port_count; i++)
		if (!f->ports[i].elsewhere)
			f->ports[i].ops->arm(&f->ports[i], on);
}

/* watch_port adds a port to the set, and tries its interrupt. */
static bool watch_port(struct baton_forwarder *f, struct baton_port *p)
{
	if (p->elsewhere)
		return true;
	if (!p->ops->watch || p->ops->watch(p, f->epoll) || p->ops->arm(p, true))
		return false;
	p->ops->arm(p, false);
	return true;
}

int baton_watch(struct baton_forwarder *f)
{
	struct epoll_event wake = {.events = EPOLLIN};

	f->epoll = epoll_create1(EPOLL_CLOEXEC);
	f->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (f->epoll < 0 || f->wake_fd < 0 || epoll_ctl(f->epoll, EPOLL_CTL_ADD, f->wake_fd, &wake)) {
		int err = -errno;

		watch_close(f);
		return err;
	}
	for (uint32_t i = 0; i < f->port_count; i++)
		if (!watch_port(f, &f->ports[i])) {
			watch_close(f);
			return (int)i + 1;
		}
	return 0;
}

void wait_ring(struct baton_forwarder *f)
{
	eventfd_write(f->wake_fd, 1);
}

bool interrupt_wait(struct baton_forwarder *f)
{
	eventfd_t rung;

	arm_all(f, true);
	bool worked = baton_poll(f) > 0; /* what came before that rings no more */

	if (!worked && baton_ring_announce(&f->commands)) {
		if (!f->shards || !shard_waiting(f)) {
			value_store(&f->pace.waits, value_load(&f->pace.waits) + 1);
			f->ports[0].ops->wait(f->epoll, WAIT_MS);
		}
		atomic_store_explicit(&f->commands.sleeping, 0, memory_order_relaxed);
		(void)!eventfd_read(f->wake_fd, &rung);
	}
	arm_all(f, false);
	return worked;
}
