/* clang-format off */
//go:build ignore
/* clang-format on */

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// lockstep: on the interfaces that lead to clients, takes away what a server says that speaks first
// and is told what it has missed: the client has heard that from the routing host. The agent gets
// it by its TAP and acknowledges it. Pinned, so that an agent's end lets none of it out.
#include "kernel.h"

#include "play.h"

// baton_before compares sequence numbers (RFC 9293 section 3.4).
static __always_inline int baton_before(__u32 a, __u32 b)
{
	return (__s32)(a - b) < 0;
}

SEC("tc")
int baton_lockstep(struct __sk_buff *skb)
{
	struct baton_flow flow = {};
	struct baton_ends ends = {};
	struct baton_play *play;
	struct tcphdr tcp;

	if (baton_ends_find(skb, &ends) || bpf_skb_load_bytes(skb, ends.tcp_offset, &tcp, sizeof(tcp)))
		return TCX_NEXT;
	__builtin_memcpy(flow.service_be, ends.source_be, sizeof(flow.service_be));
	__builtin_memcpy(flow.client_be, ends.destination_be, sizeof(flow.client_be));
	flow.service_port_be = tcp.source;
	flow.client_port_be = tcp.dest;
	play = bpf_map_lookup_elem(&plays, &flow);
	if (!play)
		return TCX_NEXT;
	if (play->open && !baton_before(bpf_ntohl(tcp.seq), play->seq) &&
	    !baton_before(bpf_ntohl(tcp.ack_seq), play->ack))
		return TCX_NEXT;
	return bpf_redirect(play->tap, 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
