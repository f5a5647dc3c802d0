/* SPDX-License-Identifier: Apache-2.0
 *
 * Records for the control plane.
 */
#include "forwarder.h"

#include <unistd.h>

bool punt_room(struct baton_forwarder *f, uint32_t frame_len, unsigned int count)
{
	return baton_ring_room(&f->punts, frame_len + count * sizeof(struct baton_punt), count);
}

struct baton_punt *punt_begin(struct baton_forwarder *f, enum baton_punt_kind kind, const uint8_t *frame, uint32_t len)
{
	struct baton_punt *punt = baton_ring_reserve(&f->punts, (uint32_t)sizeof(*punt) + len);

	if (!punt)
		return NULL;
	*punt = (struct baton_punt){.kind = (uint8_t)kind, .frame_len = len};
	if (len)
		memcpy(punt + 1, frame, len);
	return punt;
}

static enum baton_counter counter_of(enum baton_punt_kind kind)
{
	static_assert(BATON_PUNT_SERVED - BATON_PUNT_FIRST == BATON_SERVED - BATON_FIRST, "same order");
	return (enum baton_counter)(BATON_PUNT_FIRST + (kind - BATON_FIRST));
}

void punt_end(struct baton_forwarder *f, const struct baton_punt *punt)
{
	count(f, counter_of(punt->kind));
	baton_ring_publish(&f->punts);
	f->punted = true;
}

bool punt_flow(struct baton_forwarder *f, const struct flow *w, enum baton_punt_kind kind, const uint8_t *frame,
	       uint32_t len)
{
	struct baton_punt *punt = punt_begin(f, kind, frame, len);

	if (!punt)
		return false;
	punt->flow = flow_id(f, w);
	punt->tuple = w->tuple;
	punt->irs = w->irs;
	punt->iss = w->iss;
	punt->ts_offset = w->ts_offset;
	punt->handshake = w->handshake;
	punt->port = w->port;
	punt_end(f, punt);
	return true;
}

void punt_bell(struct baton_forwarder *f)
{
	const uint64_t one = 1;

	if (!f->punted)
		return;
	f->punted = false;
	if (baton_ring_wake(&f->punts)) {
		ssize_t n = write(f->punt_fd, &one, sizeof(one));

		(void)n; /* EAGAIN: the bell rings already */
	}
}
