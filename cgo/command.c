/* SPDX-License-Identifier: Apache-2.0
 *
 * Commands of the control plane, carried out in order. A command whose answer or frames find no room stays at the head
 * of the queue and is continued at the next poll: nothing that was promised gets lost, and nothing overtakes it.
 */
#include "emit.h"
#include "forwarder.h"

#include <errno.h>

enum {
	COMMANDS_PER_RUN = 64,
	STALL_MS = 20, /* longest wait for a port that takes no frames; then they are dropped */
};

/* stalled says that the current command has waited for a port long enough. */
static bool stalled(struct baton_forwarder *f)
{
	if (f->command_stalled_ms == 0)
		f->command_stalled_ms = f->now_ms;
	return f->now_ms - f->command_stalled_ms >= STALL_MS;
}

static void entry_state(struct baton_forwarder *f, const struct flow *w, enum baton_state state)
{
	baton_word *v = flow_entry(f, w);

	value_store(v,
		    (value_load(v) & ~(3ull << BATON_VALUE_STATE_SHIFT)) | (uint64_t)state << BATON_VALUE_STATE_SHIFT);
}

/* frame_make copies the command's frame into a buffer of its port. False: it cannot, which is counted. */
static bool frame_make(struct baton_forwarder *f, const struct baton_command *c, struct baton_buf *buf)
{
	struct baton_port *port = &f->ports[c->port];

	if (c->frame_len < ETH_LEN || c->frame_len > port->frame_max) {
		count(f, BATON_DROP_FRAME_SIZE);
		return false;
	}
	if (port->ops->alloc(port, buf)) {
		count(f, BATON_DROP_NO_BUFFER);
		return false;
	}
	memcpy(buf->data, c + 1, c->frame_len);
	buf->len = c->frame_len;
	return true;
}

/* Each of these returns false when it has to be continued. */

static bool transmit(struct baton_forwarder *f, const struct baton_command *c)
{
	struct baton_port *port = &f->ports[c->port];
	struct baton_buf buf;

	if (!frame_make(f, c, &buf))
		return true;
	if (frame_stage(f, c->port, &buf)) {
		count(f, BATON_SENT);
		return true;
	}
	if (stalled(f)) {
		frame_drop(f, c->port, &buf, BATON_DROP_TX_FULL);
		return true;
	}
	port->ops->free(port, &buf, 1);
	return false;
}

static bool freeze(struct baton_forwarder *f, const struct baton_command *c, struct flow *w)
{
	if (!punt_flow(f, w, BATON_FROZEN_MARK, NULL, 0))
		return false;
	w->state = c->discard ? FLOW_DISCARD : FLOW_HOLD;
	entry_state(f, w, BATON_FROZEN);
	return true;
}

static bool thaw(struct baton_forwarder *f, struct flow *w)
{
	struct held *h;

	while ((h = flow_held_first(f, w))) {
		if (!punt_flow(f, w, BATON_SEGMENT, h->buf.data, h->buf.len))
			return false;
		f->ports[w->port].ops->free(&f->ports[w->port], &h->buf, 1);
		flow_held_pop(f, w);
	}
	w->state = FLOW_OPEN;
	entry_state(f, w, BATON_ROUTER);
	return true;
}

/* flush sends what was held to the owner. What cannot be sent is dropped and counted, but a busy port is waited for. */
static bool flush(struct baton_forwarder *f, uint16_t owner, struct flow *w)
{
	struct held *h;

	while ((h = flow_held_first(f, w))) {
		enum baton_counter outcome = frame_to_owner(f, owner, &h->buf);

		if (outcome == BATON_DROP_TX_FULL && !stalled(f))
			return false;
		f->flushed_end |= (h->flags & (TCP_FIN | TCP_RST)) != 0;
		if (outcome == BATON_FORWARDED) {
			count(f, outcome);
			f->flushed++;
		} else {
			frame_refuse(f, w->port, owner, &h->buf, outcome);
		}
		flow_held_pop(f, w);
	}
	return true;
}

static void switched_report(struct baton_forwarder *f, uint16_t owner, const struct flow *w)
{
	struct baton_punt *punt = punt_begin(f, BATON_SWITCHED_MARK, NULL, 0);

	assert(punt); /* switch_owner made sure of the room */
	punt->flow = flow_id(f, w);
	punt->tuple = w->tuple;
	punt->irs = w->irs;
	punt->iss = w->iss;
	punt->port = w->port;
	punt->owner = owner;
	punt->held = f->flushed;
	punt_end(f, punt);
}

static void end_report(struct baton_forwarder *f, uint16_t owner, const struct flow *w)
{
	struct baton_punt *punt = punt_begin(f, BATON_END, NULL, 0);

	assert(punt);
	punt->tuple = w->tuple;
	punt->irs = w->irs;
	punt->iss = w->iss;
	punt->port = w->port;
	punt->owner = owner;
	punt_end(f, punt);
}

static bool switch_owner(struct baton_forwarder *f, const struct baton_command *c, struct flow *w)
{
	if (!punt_room(f, 0, 2) || !flush(f, c->owner, w))
		return false;
	baton_word *v = flow_entry(f, w);
	uint64_t keep = value_load(v) & BATON_VALUE_SYN;
	uint64_t end = f->flushed_end ? BATON_VALUE_END : 0;

	value_store(v, keep | end |
			   baton_value(BATON_TARGET, c->owner, baton_incarnation_hash(w->irs, w->iss), f->now_ms));
	switched_report(f, c->owner, w);
	if (f->flushed_end)
		end_report(f, c->owner, w);
	flow_release(f, w);
	return true;
}

static bool close_flow(struct baton_forwarder *f, struct flow *w)
{
	baton_crt_remove(crt_of(f, w->ip6), flow_entry(f, w));
	flow_release(f, w);
	return true;
}

/* entry_is_targets says whether an entry is that of a target's flow. */
static bool entry_is_targets(uint64_t value, uint16_t owner, uint32_t inc)
{
	return baton_value_state(value) == BATON_TARGET && (value & BATON_VALUE_INDEX) == owner &&
	       baton_value_inc(value) == inc;
}

static bool remove_entry(struct baton_forwarder *f, const struct baton_command *c)
{
	uint32_t inc = baton_incarnation_hash(c->irs, c->iss);
	bool ip6 = !baton_ip_is4(c->tuple.client);
	struct baton_crt *t = crt_of(f, ip6);
	baton_word *v = NULL;
	struct baton_key k;

	if (service_key(f, &c->tuple, &k))
		v = baton_crt_find(t, &k, baton_crt_hash(t, &k));
	if (!v || !entry_is_targets(value_load(v), c->owner, inc)) {
		count(f, BATON_COMMAND_STALE);
		return true;
	}
	value_store(v, value_load(v) | (uint64_t)BATON_LINGER << BATON_VALUE_STATE_SHIFT);
	linger_add(f, &k, ip6, inc);
	return true;
}

/* entry_restore makes the entry that a target's flow should have, or renews it. False: the flow is not the target's here,
 * or has no place. */
static bool entry_restore(struct baton_forwarder *f, const struct baton_command *c)
{
	struct baton_crt *t = crt_of(f, !baton_ip_is4(c->tuple.client));
	uint32_t inc = baton_incarnation_hash(c->irs, c->iss);
	uint64_t now = baton_value(BATON_TARGET, c->owner, inc, f->now_ms);
	const uint64_t other = BATON_VALUE_SYN | BATON_VALUE_END, aged = (1ull << BATON_VALUE_AGE_SHIFT) - 1;
	struct baton_key k = {{0}};

	if (!service_key(f, &c->tuple, &k)) {
		count(f, BATON_COMMAND_STALE);
		return false;
	}
	uint64_t hash = baton_crt_hash(t, &k);
	baton_word *v = baton_crt_find(t, &k, hash);

	if (!v) {
		v = entry_add(f, t, &k, hash, now);
		count(f, v ? BATON_RESTORED : BATON_NOT_RESTORED);
		return v != NULL;
	}
	if ((value_load(v) ^ now) & aged & ~other) {
		count(f, BATON_COMMAND_STALE);
		return false;
	}
	value_store(v, now | (value_load(v) & other));
	return true;
}

/* restore also sends the segment by which it turned out that the entry was missing. */
static bool restore(struct baton_forwarder *f, const struct baton_command *c)
{
	struct baton_buf buf;

	if (!entry_restore(f, c) || c->frame_len == 0 || !frame_make(f, c, &buf))
		return true;
	enum baton_counter outcome = frame_to_owner(f, c->owner, &buf);

	if (outcome == BATON_FORWARDED)
		count(f, outcome);
	else
		frame_refuse(f, c->port, c->owner, &buf, outcome);
	return true;
}

static bool set_owner(struct baton_forwarder *f, const struct baton_command *c)
{
	struct owner *o = &f->owners[c->owner];

	memcpy(o->macs.dst, c->mac, BATON_MAC_LEN);
	memcpy(o->macs.src, f->ports[c->port].mac, BATON_MAC_LEN);
	o->port = c->port;
	o->tunnel = c->tunnel;
	o->known = true;
	if (c->tunnel != BATON_TUNNEL_NONE)
		tunnel_set(f, c);
	return true;
}

/* adopted_report answers ADOPT. Without w: there was no room. */
static void adopted_report(struct baton_forwarder *f, const struct baton_command *c, const struct flow *w)
{
	struct baton_punt *punt = punt_begin(f, BATON_ADOPTED, NULL, 0);

	assert(punt); /* adopt made sure of the room */
	punt->flow = w ? flow_id(f, w) : 0;
	punt->tuple = c->tuple;
	punt->irs = c->irs;
	punt->iss = c->iss;
	punt->port = c->port;
	punt_end(f, punt);
}

/* adopted_flow makes the flow; v: the entry of an older connection of the tuple, or NULL. Returns NULL without room. */
static struct flow *adopted_flow(struct baton_forwarder *f, const struct baton_command *c, baton_word *v,
				 const struct baton_key *k, uint64_t hash)
{
	bool ip6 = !baton_ip_is4(c->tuple.client);
	struct flow *w = flow_alloc(f);

	if (!w)
		return NULL;
	uint64_t value =
	    baton_value(BATON_ROUTER, (uint32_t)(w - f->flows), baton_incarnation_hash(c->irs, c->iss), f->now_ms);

	if (v)
		value_store(v, value);
	else if (!entry_add(f, crt_of(f, ip6), k, hash, value)) {
		flow_release(f, w);
		return NULL;
	}
	w->tuple = c->tuple;
	w->key = *k;
	w->irs = c->irs;
	w->iss = c->iss;
	w->port = c->port;
	w->ip6 = ip6;
	w->known = true;
	return w;
}

/* adopt makes a flow of a connection that another host had. An older one of the tuple makes way; but only from its owner
 * a connection is taken back. */
static bool adopt(struct baton_forwarder *f, const struct baton_command *c)
{
	struct baton_crt *t = crt_of(f, !baton_ip_is4(c->tuple.client));
	struct baton_key k;

	if (!punt_room(f, 0, 2))
		return false;
	if (!service_key(f, &c->tuple, &k) || is_conventional(f, &k, !baton_ip_is4(c->tuple.client))) {
		count(f, BATON_COMMAND_STALE);
		adopted_report(f, c, NULL);
		return true;
	}
	uint64_t hash = baton_crt_hash(t, &k);
	baton_word *v = baton_crt_find(t, &k, hash);

	if (v && c->owner != 0 && !entry_is_targets(value_load(v), c->owner, baton_incarnation_hash(c->irs, c->iss))) {
		count(f, BATON_COMMAND_STALE);
		adopted_report(f, c, NULL);
		return true;
	}
	if (v)
		entry_vacate(f, value_load(v));
	adopted_report(f, c, adopted_flow(f, c, v, &k, hash));
	return true;
}

static bool set_targets(struct baton_forwarder *f, const struct baton_command *c)
{
	targets_replace(f, c->port, (struct baton_targets *)(uintptr_t)c->flow);
	return true;
}

static bool serve(struct baton_forwarder *f, const struct baton_command *c)
{
	struct baton_punt *punt = punt_begin(f, BATON_SERVED, NULL, 0);

	if (!punt)
		return false;
	f->services[c->owner].closed = c->discard;
	punt->flow = c->flow;
	punt_end(f, punt);
	return true;
}

static bool flow_command(struct baton_forwarder *f, const struct baton_command *c)
{
	struct flow *w = flow_by_id(f, c->flow);

	if (!w) {
		count(f, BATON_COMMAND_STALE);
		return true;
	}
	switch (c->kind) {
	case BATON_FREEZE:
		return freeze(f, c, w);
	case BATON_THAW:
		return thaw(f, w);
	case BATON_SWITCH:
		return switch_owner(f, c, w);
	default:
		return close_flow(f, w);
	}
}

static bool command_do(struct baton_forwarder *f, const struct baton_command *c)
{
	switch (c->kind) {
	case BATON_TRANSMIT:
		return transmit(f, c);
	case BATON_REMOVE:
		return remove_entry(f, c);
	case BATON_SET_OWNER:
		return set_owner(f, c);
	case BATON_ADOPT:
		return adopt(f, c);
	case BATON_SERVE:
		return serve(f, c);
	case BATON_SET_TARGETS:
		return set_targets(f, c);
	case BATON_RESTORE:
		return restore(f, c);
	default:
		return flow_command(f, c);
	}
}

int commands_run(struct baton_forwarder *f)
{
	uint32_t len;
	int n;

	for (n = 0; n < COMMANDS_PER_RUN; n++) {
		if (!f->command)
			f->command = baton_ring_take(&f->commands, &len);
		if (!f->command)
			break;
		if (!command_do(f, f->command))
			return n + 1; /* not released, and not idle */
		f->command = NULL;
		f->command_stalled_ms = 0;
		f->flushed = 0; /* also by a SWITCH whose flow ended meanwhile */
		f->flushed_end = false;
		count(f, BATON_COMMAND);
	}
	if (n)
		baton_ring_release(&f->commands);
	return n;
}

static bool tunnel_valid(const struct baton_command *c)
{
	return c->tunnel == BATON_TUNNEL_NONE || (c->tunnel < BATON_TUNNEL_KINDS && c->mtu >= BATON_TUNNEL_MTU_MIN &&
						  baton_ip_is4(c->tuple.client) == baton_ip_is4(c->tuple.service));
}

/* command_valid keeps the poll thread free of checks: all indices of a queued command exist. */
static bool command_valid(const struct baton_forwarder *f, const struct baton_command *c)
{
	bool names_owner = c->kind == BATON_SWITCH || c->kind == BATON_SET_OWNER || c->kind == BATON_RESTORE;
	bool may_frame = c->kind == BATON_TRANSMIT || c->kind == BATON_RESTORE;

	return c->kind >= BATON_TRANSMIT && c->kind <= BATON_SERVE && c->port < f->port_count &&
	       c->owner < BATON_MAX_OWNERS && (may_frame || c->frame_len == 0) && (!names_owner || c->owner != 0) &&
	       (c->kind != BATON_SERVE || c->owner < f->service_count) &&
	       (c->kind != BATON_SET_OWNER || tunnel_valid(c));
}

int baton_command_send(struct baton_forwarder *f, const struct baton_command *c, const uint8_t *frame)
{
	if (!command_valid(f, c))
		return -EINVAL;
	struct baton_command *to = baton_ring_reserve(&f->commands, (uint32_t)sizeof(*c) + c->frame_len);

	if (!to)
		return -EBUSY;
	*to = *c;
	if (c->frame_len)
		memcpy(to + 1, frame, c->frame_len);
	baton_ring_publish(&f->commands);
	loop_wake(f);
	return 0;
}
